"""The script of a `ScriptedEngine`: what it plays, and how it is written in TOML, JSON or Python.

context_length = 512              # tokens; 4096 if absent
max_num_seqs = 1                  # requests played at a time, the others wait; any number if absent
start_seconds = 0.0               # how long the start takes
start_error = "no such device"    # absent: the start succeeds

[[request]]                       # played by a request whose prompt contains `match`; the first that does
match = "please hang"
steps = [{ emit = "one two" }, { hang = true }]

[[request]]                       # without `match`: played in turn, the last of them again and again
cached = 2                        # prompt tokens that came from the prefix cache
steps = [
  { emit = "Hello there" },       # one token per word
  { bytes = "c3 a9" },            # one token per group of hexadecimal digits, which may be a part of a character
  { reason = "Let me think" },    # the same, as reasoning
  { call = "get_weather", arguments = '{"city": "Paris"}' },   # one token per word of the arguments, at least one
  { sleep = 0.5 },                # seconds
  { finish = "length" },          # "stop" at the end of the steps otherwise
  { fail = "broken" },            # GenerationFailed
  { reject = true },              # EngineOverloaded, before anything is generated; only as the first step
  { die = true },                 # the engine dies: EngineDead for every running request
  { hang = true },                # nothing more until the request is aborted
]
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from engine.base import FinishReason
from engine.errors import EngineStartError

StepKind = Literal["emit", "bytes", "reason", "call", "sleep", "finish", "fail", "reject", "die", "hang"]

_TEXT = ("emit", "bytes", "reason", "call", "finish", "fail")
_FLAGS = ("reject", "die", "hang")


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `text` is what is emitted, the function's name, the reason or the message."""

    kind: StepKind
    text: str = ""
    seconds: float = 0.0
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class RequestScript:
    """What one request plays."""

    steps: tuple[Step, ...]
    match: str | None = None
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """What the engine plays. An empty one answers "ok"."""

    requests: tuple[RequestScript, ...] = (RequestScript((Step("emit", "ok"),)),)
    context_length: int = 4096
    max_num_seqs: int | None = None
    start_seconds: float = 0.0
    start_error: str | None = None


def emit(text: str) -> Step:
    return Step("emit", text)


def sleep(seconds: float) -> Step:
    return Step("sleep", seconds=seconds)


def fail(message: str = "scripted failure") -> Step:
    return Step("fail", message)


def finish(reason: FinishReason) -> Step:
    return Step("finish", reason)


REJECT = Step("reject")
DIE = Step("die")
HANG = Step("hang")


def load_script(source: str) -> Script:
    """From a .toml or .json file, or from JSON text itself. Raises EngineStartError."""
    try:
        if source.lstrip().startswith("{"):
            return _script(json.loads(source))
        text = Path(source).read_text()
        return _script(tomllib.loads(text) if source.endswith(".toml") else json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        raise EngineStartError(f"The script {source[:200]!r} can't be played: {error}") from error


def _script(data: Mapping[str, object]) -> Script:
    known = {field.name for field in fields(Script)} - {"requests"} | {"request"}
    if unknown := data.keys() - known:
        raise ValueError(f"unknown keys {sorted(unknown)}; it may have {sorted(known)}")
    requests = data.get("request")
    defaults = Script()
    return Script(
        requests=defaults.requests if requests is None else tuple(_request(entry) for entry in _tables(requests)),
        context_length=int(str(data.get("context_length", defaults.context_length))),
        max_num_seqs=int(str(data["max_num_seqs"])) if "max_num_seqs" in data else None,
        start_seconds=float(str(data.get("start_seconds", 0.0))),
        start_error=None if data.get("start_error") is None else str(data["start_error"]),
    )


def _request(data: Mapping[str, object]) -> RequestScript:
    if unknown := data.keys() - {"steps", "match", "cached"}:
        raise ValueError(f"a request has unknown keys {sorted(unknown)}; it may have cached, match and steps")
    return RequestScript(
        steps=tuple(_step(entry) for entry in _tables(data.get("steps", ()))),
        match=None if data.get("match") is None else str(data["match"]),
        cached=int(str(data.get("cached", 0))),
    )


def _step(data: Mapping[str, object]) -> Step:
    for kind in (*_TEXT, "sleep", *_FLAGS):
        if kind not in data or len(data) > (2 if kind == "call" else 1):
            continue
        value = data[kind]
        if kind == "sleep":
            return Step("sleep", seconds=float(str(value)))
        return Step(kind, str(value) if kind in _TEXT else "", arguments=str(data.get("arguments", "")))  # type: ignore[arg-type]  # `kind` is one of StepKind
    raise ValueError(f"{dict(data)} is not a step; it has one of {', '.join((*_TEXT, 'sleep', *_FLAGS))}")


def _tables(value: object) -> Sequence[Mapping[str, object]]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, Mapping) for entry in value):
        raise TypeError(f"{value!r} should be a list of tables")
    return value
