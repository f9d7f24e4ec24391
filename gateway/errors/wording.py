"""What was sent, in a sentence: short, whatever its size."""

VALUE_CHARACTERS_MAX = 60


def shorten(text: str, characters_max: int) -> str:
    """The text, cut in its middle with `…` if it is longer, so that an error's size doesn't follow the input's."""
    if len(text) <= characters_max:
        return text
    head = (characters_max * 2) // 3
    return f"{text[:head]}…{text[head - characters_max + 1 :]}"


def show(value: object) -> str:
    """What was sent, as JSON would write it, shortened. Containers are named by their size only."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + shorten(value, VALUE_CHARACTERS_MAX) + '"'
        case dict():
            return f"an object with {len(value)} field{'' if len(value) == 1 else 's'}"
        case list() | tuple():
            return f"a list of {len(value)}"
        case None:
            return "null"
        case int() if value.bit_length() > 256:
            return f"an integer of about {int(value.bit_length() * 0.30103)} digits"
        case _:
            return shorten(str(value), VALUE_CHARACTERS_MAX)
