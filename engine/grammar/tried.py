"""What is asked of the process that tries grammars, and what it answers."""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Literal

# Before each frame: how long it is. At the beginning of a question and of its verdict: their number.
LENGTH = struct.Struct("!I")
NUMBER = struct.Struct("!Q")

Kind = Literal["json", "regex", "grammar", "lark", "structural_tag"]
Backend = Literal["xgrammar", "guidance"]


@dataclass(frozen=True, slots=True)
class GrammarLimits:
    """What a client's grammar may take. Seconds are of one processor.

    `seconds` is for making it, `step_seconds` for each token that it is asked about. `waiting` is how many tries a
    client may have in line.
    """

    seconds: float = 5.0
    step_seconds: float = 0.02
    memory_bytes: int = 512 * 2**20
    schema_bytes: int = 256 * 2**10
    waiting: int = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A constraint to be tried. `place` is the field that it is about.

    `written` is a client's own schema or expression (of the kinds json and regex): it is first brought into words that
    are kept, and refused where it can't be; or, `loose`, without what can't be kept. What isn't `written` by a client
    is put together by us from parts that were tried before.
    """

    kind: Kind
    text: str
    place: str
    written: bool = True
    loose: bool = False

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, line: bytes) -> "Question":
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The constraint as it is kept, and the places of what isn't; or the refusal, a `sentence` for the client."""

    text: str = ""
    left_out: tuple[str, ...] = ()
    sentence: str | None = None
    place: str = ""
    unsupported: bool = True

    @property
    def size(self) -> int:
        return 200 + len(self.text) + len(self.sentence or "") + sum(map(len, self.left_out))

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, line: bytes) -> "Verdict":
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields | {"left_out": tuple(fields["left_out"])})
