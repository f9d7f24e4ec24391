"""Sets of characters as ranges of code points, and how they are written in a regular expression."""

_LAST = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]

_DIGIT: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
# What both dialects take for white space; and, for the opposite, all that either of them does.
_SPACE: Ranges = ((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0))
_SPACES: Ranges = (
    *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_LINE_LENGTHS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
SURROGATES: Ranges = ((0xD800, 0xDFFF),)
# A character of a JSON string that must be written as an escape.
_ESCAPED: Ranges = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
# The characters that UTF-8 writes with as many bytes: xgrammar lets through bytes that are none where a class holds
# others too.
_LENGTHS: tuple[Ranges, ...] = (((0, 0x7F),), ((0x80, 0x7FF),), ((0x800, 0xFFFF),), ((0x10000, _LAST),))
_SHORT = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}


def union(ranges: Ranges) -> Ranges:
    """The same characters, in order and without overlaps."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def without(ranges: Ranges, taken: Ranges) -> Ranges:
    """`ranges` less `taken`."""
    left = union(ranges)
    for low, high in taken:
        cut: list[tuple[int, int]] = []
        for start, end in left:
            cut += [
                piece for piece in ((start, min(end, low - 1)), (max(start, high + 1), end)) if piece[0] <= piece[1]
            ]
        left = tuple(cut)
    return left


def within(ranges: Ranges, taken: Ranges) -> Ranges:
    """What is in both."""
    return without(ranges, without(((0, _LAST),), taken))


ALL: Ranges = without(((0, _LAST),), SURROGATES)
DOT: Ranges = without(ALL, _LINE_LENGTHS)
CLASSES: dict[str, Ranges] = {
    "d": _DIGIT,
    "D": without(ALL, _DIGIT),
    "w": _WORD,
    "W": without(((0, 0x7F),), _WORD),  # beyond ASCII the dialects differ in what a word is
    "s": _SPACE,
    "S": without(ALL, _SPACES),
}


def is_single(ranges: Ranges) -> bool:
    """Whether it is one character."""
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


def write(ranges: Ranges, *, json: bool) -> str:
    """A class, or the one character. What JSON must escape is left out of a class that holds other characters too."""
    ranges = union(ranges)
    if json:
        plain = without(ranges, _ESCAPED)
        if not plain:
            return _alternatives_of_escapes(ranges)
        ranges = plain
    if is_single(ranges):
        return _point(ranges[0][0])
    classes = [_class(part) for length in _LENGTHS if (part := within(ranges, length))]
    return classes[0] if len(classes) == 1 else f"(?:{'|'.join(classes)})"


def _class(ranges: Ranges) -> str:
    return "[" + "".join(_point(low) if low == high else f"{_point(low)}-{_point(high)}" for low, high in ranges) + "]"


def _alternatives_of_escapes(ranges: Ranges) -> str:
    points = [point for low, high in ranges for point in range(low, high + 1)]
    escapes = [f"\\\\{_point(ord(_SHORT[point]))}" if point in _SHORT else f"\\\\u{point:04x}" for point in points]
    return f"(?:{'|'.join(escapes)})"


def _point(point: int) -> str:
    character = chr(point)
    if character.isascii() and character.isalnum():
        return character
    # No `\x41`: for xgrammar it may have more than two digits.
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\u{{{point:x}}}"
