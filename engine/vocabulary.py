"""The entries of a tokenizer's vocabulary with their own bytes, each looked up once.

Bytes come from the vocabulary and not from decoding: a token that is half a character decodes to nothing of its own.
"""

import json
import re

from vllm.tokenizers import TokenizerLike

from engine.tokens import Token

# How SentencePiece writes a token that is one byte, and a space.
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"


class TokenizerVocabulary:
    """See `engine.base.Vocabulary`. It grows to the size of the vocabulary and no further."""

    def __init__(self, tokenizer: TokenizerLike) -> None:
        self._tokenizer = tokenizer
        self._added = {token_id: text for text, token_id in tokenizer.get_added_vocab().items()}
        self._special = frozenset(tokenizer.all_special_ids)
        self._in_letters = _writes_bytes_in_letters(tokenizer)
        self._known: dict[int, Token] = {}

    def token(self, token_id: int) -> Token:
        known = self._known.get(token_id)
        if known is None:
            data = self._bytes(token_id)
            known = Token(token_id, data.decode(errors="backslashreplace"), data, token_id in self._special)
            self._known[token_id] = known
        return known

    def _bytes(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._piece(token_id)
        if isinstance(piece, bytes):
            return piece
        if self._in_letters and _BYTE_OF.keys() >= set(piece):
            return bytes(map(_BYTE_OF.__getitem__, piece))
        if byte := _BYTE.fullmatch(piece):
            return bytes.fromhex(byte[1])
        if _SPACE in piece:
            return piece.replace(_SPACE, " ").encode()
        return self._tokenizer.decode([token_id]).encode() if piece else b""

    def _piece(self, token_id: int) -> str | bytes:
        """As the vocabulary has it; nothing where there is no such token (a padded vocabulary)."""
        try:
            (piece,) = self._tokenizer.convert_ids_to_tokens([token_id])
            if piece is not None and "\ufffd" in piece:
                # Mistral's tokenizers give the bytes of half a character only this way.
                (piece,) = self._tokenizer.convert_ids_to_tokens([token_id], skip_special_tokens=True) or (piece,)
        except (IndexError, KeyError, ValueError, OverflowError):
            return ""
        return piece or ""


def _writes_bytes_in_letters(tokenizer: TokenizerLike) -> bool:
    """Whether it is a byte-level BPE, as GPT-2's, whose vocabulary has a printable letter for each byte."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = getattr(backend, "decoder", None)
    if decoder is None:
        return False
    state = json.loads(decoder.__getstate__())
    return any(part.get("type") == "ByteLevel" for part in (state, *state.get("decoders", ())))


def _letters() -> dict[str, int]:
    """GPT-2's letter of each byte (`bytes_to_unicode` in its source): itself where it is printable, or the next free
    one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _letters()
