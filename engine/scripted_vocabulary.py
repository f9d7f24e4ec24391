"""The vocabulary of the scripted engine: whatever its scripts say, numbered as it is said first."""

from engine.base import Token


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
