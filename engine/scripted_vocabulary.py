"""The vocabulary of the scripted engine: whatever its scripts say, numbered as it is said first."""

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator

from engine.json_text import mended, whole_characters
from engine.script import Step
from engine.tokens import Token

WORD = re.compile(r"\s*\S+|\s+$")


def tokens_of(step: Step) -> Iterator[tuple[str, bytes]]:
    """What each token of a step adds to the text, and its bytes. A character is added by the last token of it."""
    if step.kind != "bytes":
        text = whole_characters(step.text)
        for word in WORD.findall(mended(step.arguments) or text if step.kind == "call" else text):
            yield word, word.encode()
        return
    decoder = getincrementaldecoder("utf-8")("replace")
    for part in step.text.split():
        data = bytes.fromhex(part)
        yield decoder.decode(data), data


class ScriptedVocabulary:
    """See `engine.base.Vocabulary`. Ids count from 1; it grows with the scripts' words, which are few."""

    def __init__(self) -> None:
        self._tokens: list[Token] = []
        self._ids: dict[bytes, int] = {}

    def id_of(self, data: bytes) -> int:
        found = self._ids.get(data)
        if found is None:
            found = self._ids[data] = len(self._tokens) + 1
            self._tokens.append(Token(found, data.decode(errors="backslashreplace"), data))
        return found

    def token(self, token_id: int) -> Token:
        known = 0 < token_id <= len(self._tokens)
        return self._tokens[token_id - 1] if known else Token(token_id, "", b"")
