"""Why a constraint is refused."""


class Refused(Exception):
    """The constraint can't be kept, or isn't one; the sentence is for the client, `place` names the field."""

    def __init__(self, sentence: str, place: str, *, unsupported: bool = True) -> None:
        super().__init__(sentence)
        self.place = place
        self.unsupported = unsupported
