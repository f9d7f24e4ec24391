"""A server-sent event as bytes that no reader breaks where it has no line's end."""

import re

# JSON escapes what else `str.splitlines` splits at. Clients that read lines with it (httpx's `iter_lines` among them)
# would break an event in two here.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def event_bytes(event: str) -> bytes:
    """The event in UTF-8, with the line ends of Unicode that may be in its JSON strings escaped."""
    if event.isascii():
        return event.encode()
    return _LINE_ENDS.sub(_escaped, event).encode()


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
