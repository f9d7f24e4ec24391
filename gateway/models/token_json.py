"""Log probabilities as JSON, at the price of one formatted string for a token and all its alternatives.

What a token looks like in an answer never changes, so it is written once, with a place for its log probability. Nine
digits tell every 32-bit float from its neighbours, and are half as long as what `repr` writes.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from engine.tokens import Token, TokenLogprobs, Vocabulary

ROWS_AT_ONCE = 500  # of a whole answer; then others get a turn of the event loop


class TokenJSON:
    """The tokens of one engine as the answers write them. It grows to the size of the vocabulary and no further."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.token = vocabulary.token
        self._in_chats = _Written(vocabulary, _in_chats)
        self._in_completions = _Written(vocabulary, _in_completions)

    def tokens(self, rows: Iterable[TokenLogprobs]) -> list[Token]:
        """Those that were generated."""
        return [self.token(row.ids[0]) for row in rows]

    def chat(self, rows: Iterable[TokenLogprobs]) -> str:
        """As chats and responses have them: the inside of a list of tokens with their bytes and alternatives."""
        written = self._in_chats.__getitem__
        return ",".join(
            [
                f'{written(ids[0])[:-1]},"top_logprobs":[{",".join(map(written, ids[1:]))}]}}' % tuple(logprobs)
                for ids, logprobs in rows
            ]
        )

    async def whole_chat(self, deltas: Iterable[Collection[TokenLogprobs]]) -> str:
        """The same for a whole answer, which may have a hundred thousand tokens."""
        rows = (row for delta in deltas for row in delta)
        written = []
        while some := self.chat(islice(rows, ROWS_AT_ONCE)):
            written.append(some)
            await asyncio.sleep(0)
        return ",".join(written)

    def completion(self, row: TokenLogprobs) -> tuple[str, str, str]:
        """For the lists of a completion: a token, its log probability, and those of its alternatives and itself.

        "The API will always return the logprob of the sampled token" (OpenAI, API reference, `logprobs`).
        """
        written = self._in_completions
        numbers = [f"{logprob:.9g}" for logprob in row.logprobs]
        names = [written[token_id] for token_id in row.ids]
        top = dict(zip([*names[1:], names[0]], [*numbers[1:], numbers[0]], strict=True))  # two may have one text
        return names[0], numbers[0], "{" + ",".join(f"{name}:{number}" for name, number in top.items()) + "}"

    def first_of_completion(self, token_id: int) -> tuple[str, str, str]:
        """The same for the first token of a prompt, which nothing stands before."""
        return self._in_completions[token_id], "null", "null"


class _Written(dict[int, str]):
    """By token id, made when it is asked for first."""

    def __init__(self, vocabulary: Vocabulary, write: Callable[[Token], str]) -> None:
        super().__init__()
        self._token = vocabulary.token
        self._write = write

    def __missing__(self, token_id: int) -> str:
        made = self[token_id] = self._write(self._token(token_id))
        return made


def _in_chats(token: Token) -> str:
    """A format for one number."""
    text = json.dumps(token.text).replace("%", "%%")
    return f'{{"token":{text},"logprob":%.9g,"bytes":[{",".join(map(str, token.data))}]}}'


def _in_completions(token: Token) -> str:
    """OpenAI's completions have no list of bytes, and say so in the text where it isn't whole."""
    whole = token.text.encode() == token.data
    return json.dumps(token.text if whole else f"bytes:{token.text}")
