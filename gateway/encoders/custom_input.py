"""The input of a custom tool, read from the arguments of the function that the model was told of, piece by piece."""

import json
import re

from gateway.protocol.tools import INPUT

_BEGINNING = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
# Of a string of JSON what is whole: characters, escapes, pairs of surrogates.
_WHOLE = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+'
)


class CustomInput:
    """`feed` and `end` give pieces of the text; together they are `text`.

    Arguments that aren't what was asked for are given at the end: the text in them if there is one, or as they are.
    """

    def __init__(self) -> None:
        self.text = ""
        self._arguments: list[str] = []
        self._ahead = ""  # of the string, what isn't whole yet; before it begins, all that there is
        self._begun = False
        self._ended = False

    def feed(self, arguments: str) -> str:
        self._arguments.append(arguments)
        if self._ended:
            return ""
        self._ahead += arguments
        if not self._begun:
            beginning = _BEGINNING.match(self._ahead)
            if beginning is None:
                return ""
            self._begun, self._ahead = True, self._ahead[beginning.end() :]
        whole = _WHOLE.match(self._ahead)
        if whole is not None:
            self._ahead = self._ahead[whole.end() :]
        self._ended = self._ahead.startswith('"')
        return self._add(_unquoted(whole[0])) if whole is not None else ""

    def end(self) -> str:
        """What is still to be said."""
        arguments = "".join(self._arguments)
        try:
            found = json.loads(arguments, strict=False)
        except (ValueError, RecursionError):
            return "" if self._begun else self._add(arguments)
        text = found.get(INPUT) if isinstance(found, dict) else None
        text = text if isinstance(text, str) else arguments
        return self._add(text[len(self.text) :]) if text.startswith(self.text) else ""

    def _add(self, piece: str) -> str:
        self.text += piece
        return piece


def _unquoted(inside: str) -> str:
    text: str = json.loads(f'"{inside}"', strict=False)
    return text


def custom_input(arguments: str) -> str:
    """The text of whole arguments."""
    read = CustomInput()
    read.feed(arguments)
    read.end()
    return read.text
