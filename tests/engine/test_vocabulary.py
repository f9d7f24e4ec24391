"""Every token has its own bytes, whatever kind of tokenizer made them."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from vllm.tokenizers import TokenizerLike, get_tokenizer

from engine.demo import MODEL_DIR
from engine.vocabulary import TokenizerVocabulary

TEXT = "Grüße, 世界! 🎟️ 100%\n\ttabs"


@pytest.fixture(scope="module")
def byte_level() -> TokenizerLike:
    return get_tokenizer(str(MODEL_DIR))


@pytest.fixture
def sentence_piece(tmp_path: Path) -> TokenizerLike:
    """Llama 2's kind: bytes as <0xF0>, spaces as U+2581, and a tokenizer that decodes both."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581you", "you", "é"]
    model = models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], byte_fallback=True)
    backend = Tokenizer(model)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return get_tokenizer(str(tmp_path))


def test_bytes_joined_are_the_text(byte_level: TokenizerLike) -> None:
    vocabulary = TokenizerVocabulary(byte_level)
    ids = byte_level.encode(TEXT, add_special_tokens=False)
    tokens = [vocabulary.token(token_id) for token_id in ids]
    assert b"".join(token.data for token in tokens).decode() == TEXT
    assert all(token.data for token in tokens)


def test_what_is_whole_is_what_the_tokenizer_decodes(byte_level: TokenizerLike) -> None:
    vocabulary = TokenizerVocabulary(byte_level)
    whole = 0
    for token_id in range(len(byte_level)):
        decoded = byte_level.decode([token_id])
        if "\ufffd" not in decoded:
            assert vocabulary.token(token_id).text == decoded
            whole += 1
    assert whole > 1500


def test_parts_of_characters_are_written_as_openai_does(byte_level: TokenizerLike) -> None:
    vocabulary = TokenizerVocabulary(byte_level)
    (first, *_) = byte_level.encode("🎟", add_special_tokens=False)
    assert vocabulary.token(first).text.startswith("\\xf0")
    texts = [vocabulary.token(token_id).text for token_id in range(len(byte_level))]
    assert len(set(texts)) == len(texts)


def test_special_tokens_are_told_apart(byte_level: TokenizerLike) -> None:
    vocabulary = TokenizerVocabulary(byte_level)
    (end,) = byte_level.encode("<|eot_id|>", add_special_tokens=False)
    assert (vocabulary.token(end).text, vocabulary.token(end).special) == ("<|eot_id|>", True)
    assert not vocabulary.token(300).special


@pytest.mark.parametrize(
    ("piece", "data"),
    [("<0xF0>", b"\xf0"), ("<0x0A>", b"\n"), ("\u2581you", b" you"), ("you", b"you"), ("\u2581", b" ")],
)
def test_sentence_pieces(sentence_piece: TokenizerLike, piece: str, data: bytes) -> None:
    vocabulary = TokenizerVocabulary(sentence_piece)
    assert vocabulary.token(sentence_piece.convert_tokens_to_ids(piece)).data == data


@pytest.mark.parametrize("token_id", [2048, 10**6, 2**31])
def test_an_id_beyond_the_vocabulary_is_an_empty_token(byte_level: TokenizerLike, token_id: int) -> None:
    token = TokenizerVocabulary(byte_level).token(token_id)
    assert (token.text, token.data, token.special) == ("", b"", False)


def test_a_token_is_looked_up_once(byte_level: TokenizerLike) -> None:
    vocabulary = TokenizerVocabulary(byte_level)
    assert vocabulary.token(500) is vocabulary.token(500)
