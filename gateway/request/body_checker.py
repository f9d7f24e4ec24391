"""A body on its way to a valid request, in a process of its own: `gateway.request.large_bodies` starts it and asks it.

The parser and the validator are C and Rust that hold Python's lock while they work, in whatever thread: only another
process keeps them from holding everybody up. It knows no key and no setting, and it answers with plain data.
"""

import gc
import os
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from gateway.errors import GatewayError, InvalidParameter
from gateway.models.parameters import Profile
from gateway.protocol.body import JSONObject, RequestBody
from gateway.protocol.checks import check, named_model, parse_json
from gateway.setting_types import UnknownFields

LENGTH = struct.Struct(">Q")
NICENESS = 10  # behind the event loop and the engine, where they want the same processor
TOKEN_IDS_IN = ("prompt", "input")


@dataclass(frozen=True, slots=True)
class Check:
    """A body to be checked as one of `kind`.

    `profiles` are the models', by their names; `model` is the model where the body doesn't name it.
    """

    kind: type[RequestBody]
    raw: bytes
    profiles: Mapping[str, Profile]
    values_max: int
    unknown_fields: UnknownFields
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What it came to: `fields` of the valid body without its `PROMPT`, and its `prompt_source`, or why it is refused.

    `model` is what it names. An `error` about something else than the model is told after the model was looked up, as
    for a small body.
    """

    model: str | None = None
    fields: Mapping[str, object] | None = None
    fields_set: frozenset[str] = frozenset()
    made: object = None
    ignored: tuple[str, ...] = ()
    error: GatewayError | None = None


def checked(job: Check) -> Checked:
    """Everything that a body goes through, but for what needs the gateway: its key, its fleet."""
    model = job.model
    try:
        values = parse_json(job.raw)
        model = model if model is not None else named_model(values)
        profile = job.profiles.get(model)
        if profile is None:
            return Checked(model)  # the gateway says that there is none
        bound_values(values, job.values_max)
        body, ignored = check(job.kind, values, profile, job.unknown_fields)
        made = body.prompt_source()
    except GatewayError as error:
        return Checked(model, error=error)
    fields = {name: value for name, value in body.__dict__.items() if name not in job.kind.PROMPT}
    return Checked(model, fields, frozenset(body.model_fields_set), made, ignored)


def bound_values(values: JSONObject, values_max: int) -> None:
    """Raises InvalidParameter where there are more. Token ids aren't counted: the context bounds them."""
    pending: list[object] = [value for name, value in values.items() if name not in TOKEN_IDS_IN]
    for name in TOKEN_IDS_IN:
        given = values.get(name)
        if not isinstance(given, list):
            pending.append(given)
        elif not _are_ids(given):
            pending += [item for item in given if not _are_ids(item)]
    count = len(pending)
    while pending and count <= values_max:
        value = pending.pop()
        if isinstance(value, dict):
            count += len(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            count += len(value)
            pending.extend(value)
    if count > values_max:
        raise InvalidParameter(
            f"The body holds more than the {values_max} values that are allowed (objects, lists, texts and numbers, at "
            "whatever depth; token ids aren't counted). Send less."
        )


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def serve(requests: BinaryIO, answers: BinaryIO, cpu_seconds_max: float) -> None:
    """Answer until there is no more to read: the gateway is gone. The system ends what takes longer."""
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds_max)
        job = pickle.loads(requests.read(*LENGTH.unpack(head)))  # noqa: S301 - from our own parent
        try:
            answer = pickle.dumps(checked(job), pickle.HIGHEST_PROTOCOL)
        except MemoryError:
            return  # the end of the answers tells it
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(LENGTH.pack(len(answer)))
        answers.write(answer)
        answers.flush()
        del job, answer
        gc.collect()


def main(cpu_seconds_max: float, memory_bytes_max: int) -> None:
    """The process, from its first to its last statement."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the end comes with the end of the input
    os.nice(NICENESS)
    # Where memory has run out, Rust's backtrace would need more and wait for itself for ever.
    os.putenv("RUST_BACKTRACE", "0")
    gc.freeze()
    gc.disable()  # while a body is being read it would look through a million objects again and again
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, hard))
    serve(sys.stdin.buffer, sys.stdout.buffer, cpu_seconds_max)
