"""Tokens from pieces and their cache, and from `fastokens`, are the tokenizer's: for all shapes of tokenizers."""

import functools
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from engine.tokenizing import ENTRY_BYTES, PIECES_MAX, Cuts, TokenCache, TokenizingLimits
from engine.vllm_internals.encoding import Encoder, _cuts_are_right, _fast, _plainly, _samples

CONTEXT = 100_000
LIMITS = TokenizingLimits()
SPLIT = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<s>", "</s>", "<|im|>", "<|im|>x", "[INST]", "<|end|>")
WORDS: tuple[str, ...] = (
    *(*SPECIAL, "<|", "|>", "<|im", "im|>", "<think>", "[", "▁", " ", "  ", "   ", "  x", "\n", "\r\n", "\t", "\u00a0"),
    *("Hello", "hello", "HeLLo", "a", "x", "é", "e\u0301", "ﬁ", "你好", "🎉", "12345", "don't", "."),
)


def texts(seed: int, number: int = 80) -> Iterator[str]:
    chance = random.Random(seed)
    for _ in range(number):
        yield "".join(chance.choice(WORDS) for _ in range(chance.randrange(24)))


def trained(model: models.Model, trainer: type, **parts: object) -> Tokenizer:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    options: dict[str, object] = {}
    if trainer is trainers.BpeTrainer and not isinstance(parts["pre_tokenizer"], pre_tokenizers.Metaspace):
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    if trainer is trainers.UnigramTrainer:
        options["unk_token"] = "<unk>"
    tokenizer.train_from_iterator(
        texts(0, 400), trainer(vocab_size=500, show_progress=False, special_tokens=["<unk>"], **options)
    )
    return tokenizer


def words_and_bytes() -> Tokenizer:
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(SPLIT, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return trained(BPE(), trainers.BpeTrainer, pre_tokenizer=split)


def composing() -> Tokenizer:
    tokenizer = words_and_bytes()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return tokenizer


def metaspace(scheme: str) -> Tokenizer:
    parts = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return trained(BPE(unk_token="<unk>", fuse_unk=True), trainers.BpeTrainer, pre_tokenizer=parts)


def prepending() -> Tokenizer:
    tokenizer = metaspace("never")
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def with_template(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


SHAPES: dict[str, Callable[[], Tokenizer]] = {
    "words and bytes": words_and_bytes,
    "a space before each text": lambda: trained(
        BPE(), trainers.BpeTrainer, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)
    ),
    "normalized": composing,
    "metaspace, at the beginning": lambda: metaspace("first"),
    "metaspace, always": lambda: metaspace("always"),
    "prepended": prepending,
    "word pieces": lambda: trained(
        models.WordPiece(unk_token="<unk>"),
        trainers.WordPieceTrainer,
        normalizer=normalizers.BertNormalizer(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
    ),
    "unigrams": lambda: trained(
        models.Unigram(), trainers.UnigramTrainer, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first")
    ),
    "with a template": lambda: with_template(words_and_bytes()),
}
KNOWN_TO_FASTOKENS = ("words and bytes", "a space before each text", "prepended", "with a template")
# What its added tokens do: to whitespace beside them, and when they are looked for.
ADDED: dict[str, list[AddedToken]] = {
    "plain": [],
    "swallow what follows": [AddedToken("<|end|>", rstrip=True, normalized=False)],
    "swallow what comes before": [AddedToken("<|end|>", lstrip=True, normalized=False)],
    "swallow both": [AddedToken("<|end|>", lstrip=True, rstrip=True, normalized=False)],
    "normalized": [AddedToken("Hello", normalized=True), AddedToken("<think>", normalized=True, rstrip=True)],
    "of whitespace": [AddedToken("  ", normalized=False), AddedToken("\n", normalized=False), AddedToken(" x")],
    "within others": [AddedToken("|>", normalized=False), AddedToken("<|", normalized=False), AddedToken("im|>x")],
}


@functools.cache
def shaped(shape: str) -> str:
    return str(SHAPES[shape]().to_str())


def made(shape: str, added: str = "plain") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer.from_str(shaped(shape))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    if ADDED[added]:
        tokenizer.add_tokens(ADDED[added])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def encoder_of(tokenizer: PreTrainedTokenizerFast, limits: TokenizingLimits = LIMITS) -> Encoder:
    encoder = Encoder.of(tokenizer, CONTEXT, limits)
    assert encoder is not None
    return encoder


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_have_the_tokens_of_the_whole(shape: str, added: str) -> None:
    tokenizer = made(shape, added)
    encoder = encoder_of(tokenizer, TokenizingLimits(cache_bytes_max=20_000))  # so that some leave
    assert encoder.cache is not None
    for text in texts(1):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encoder.encode(text, False, None) == whole, text
        assert encoder.encode(text, False, None) == whole, text  # and from the cache
        assert encoder.encode(text, True, None) == tokenizer(text)["input_ids"], text
        assert encoder.cache.bytes <= encoder.cache.bytes_max
    assert len(encoder.cache) > 10


@pytest.mark.parametrize("shape", SHAPES)
def test_fastokens_has_the_tokens_of_tokenizers_or_is_left_out(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = made(shape)
    with caplog.at_level(logging.INFO, "farebox.engine"):
        fast = encoder_of(tokenizer, TokenizingLimits(cache_bytes_max=0))
    told = [record.getMessage() for record in caplog.records if "fastokens" in record.getMessage()]
    assert len(told) == (0 if shape in KNOWN_TO_FASTOKENS else 1)
    for text in texts(2):
        assert fast.encode(text, False) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_fastokens_is_left_out_where_it_differs(caplog: pytest.LogCaptureFixture) -> None:
    one, other = (made(shape).backend_tokenizer for shape in ("words and bytes", "normalized"))
    samples = list(_samples(list(SPECIAL)))
    assert _fast(one, _plainly(one), samples) is not None
    with caplog.at_level(logging.INFO, "farebox.engine"):
        assert _fast(one, _plainly(other), samples) is None
    assert "differs" in caplog.text


def test_fastokens_is_not_asked_where_the_operator_wants_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "farebox.engine"):
        encoder = encoder_of(made("unigrams"), replace(LIMITS, fast=False))
    assert "fastokens" not in caplog.text
    assert encoder.encode("Hello", False)


def single_word(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("hello", single_word=True, normalized=False)])


def at_random(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 1e-9  # so that the samples don't happen to show it


@pytest.mark.parametrize("change", [single_word, at_random])
def test_a_tokenizer_that_cannot_be_cut_keeps_nothing(
    change: Callable[[Tokenizer], None], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = made("words and bytes")
    change(tokenizer.backend_tokenizer)
    with caplog.at_level(logging.INFO, "farebox.engine"):
        encoder = encoder_of(tokenizer, replace(LIMITS, fast=False))
    assert encoder.cache is None
    assert len([record for record in caplog.records if "aren't kept" in record.getMessage()]) == 1
    for text in texts(3):
        assert encoder.encode(text, False, None) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_a_tokenizer_that_takes_special_tokens_for_text_is_left_to_transformers() -> None:
    tokenizer = made("words and bytes")
    tokenizer.split_special_tokens = True
    assert Encoder.of(tokenizer, CONTEXT, LIMITS) is None


def test_a_tokenizer_without_special_tokens_keeps_nothing() -> None:
    encoder = encoder_of(PreTrainedTokenizerFast(tokenizer_object=words_and_bytes()))
    assert encoder.encode("Hello", False, None)


def test_wrong_cuts_are_noticed() -> None:
    tokenizer = made("words and bytes").backend_tokenizer
    samples = list(_samples(list(SPECIAL)))
    right, wrong = Cuts(tokenizer.get_added_tokens_decoder().values()), Cuts([AddedToken("e", normalized=False)])
    assert _cuts_are_right(tokenizer, right, _plainly(tokenizer), samples)
    assert not _cuts_are_right(tokenizer, wrong, _plainly(tokenizer), samples)


def test_a_text_of_very_many_pieces_is_tokenized_whole() -> None:
    encoder = encoder_of(made("words and bytes"))
    assert encoder.cache is not None
    assert len(encoder.encode("<s>" * (PIECES_MAX + 1), False, None)) == PIECES_MAX + 1
    assert len(encoder.cache) == 0


class Counting:
    """Letters for tokens; `asked` are the pieces that weren't known."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, new: list[str]) -> list[list[int]]:
        self.asked += new
        return [list(map(ord, piece)) for piece in new]


def test_each_piece_is_tokenized_once() -> None:
    cache, encode = TokenCache(10_000), Counting()
    assert cache.tokens([b"ab", b"c", b"ab"], None, encode) == [97, 98, 99, 97, 98]
    assert cache.tokens([b"c", b"d", b"ab"], None, encode) == [99, 100, 97, 98]
    assert encode.asked == ["ab", "c", "d"]


def test_pieces_are_known_among_those_who_share_them() -> None:
    cache, encode = TokenCache(10_000), Counting()
    for whose in ("account 1", "account 2", None, "account 1"):
        assert cache.tokens([b"ab"], whose, encode) == [97, 98]
    assert encode.asked == ["ab"] * 3


def test_what_was_not_asked_for_the_longest_leaves_first() -> None:
    cache, encode = TokenCache(5 * (ENTRY_BYTES + 100)), Counting()
    for piece in ("a", "b", "c", "d", "a", "e", "f", "a", "b"):
        cache.tokens([piece.encode()], None, encode)
    assert encode.asked == ["a", "b", "c", "d", "e", "f", "b"]
    assert cache.bytes <= cache.bytes_max


def test_a_piece_too_large_for_the_cache_empties_it_not() -> None:
    cache, encode = TokenCache(10_000), Counting()
    cache.tokens([b"a"], None, encode)
    assert len(cache.tokens([b"b" * 5000], None, encode)) == 5000
    assert len(cache) == 1


def test_prompts_of_a_conversation_are_known_to_those_who_share_them_only() -> None:
    encoder = encoder_of(made("words and bytes"))
    assert encoder.cache is not None
    for whose, pieces in (("", 0), ("key 1", 2), ("key 1", 2), ("key 2", 4), (None, 6)):
        encoder.encode("<s>Hello<|im|>you", False, whose)
        assert len(encoder.cache) == pieces
