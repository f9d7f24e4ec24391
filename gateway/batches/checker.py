"""A batch's file, read and checked line by line in a process of its own: tens of thousands of lines take seconds of one
processor, and nobody else may wait for that. It knows no key; it answers with plain data.
"""

import json
import os
import pickle
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic_core import from_json

from gateway.batches.batch import Fault
from gateway.errors import GatewayError, InvalidParameter, InvalidRequest
from gateway.errors.wording import show
from gateway.models.parameters import Profile
from gateway.protocol.batches import BODIES, MESSAGES
from gateway.protocol.checks import check
from gateway.setting_types import UnknownFields

NICENESS = 10
FAULTS_MAX = 50  # told of one file
CUSTOM_ID_CHARACTERS_MAX = 512
MESSAGES_ID_CHARACTERS_MAX = 64
EMBEDDED_MAX = 50_000  # inputs of all lines together, OpenAI's bound


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A file whose lines are to be requests of `endpoint`. `profiles` are those of the models that the key may use and
    that do this task; a line may have `line_bytes_max`."""

    path: Path
    endpoint: str
    profiles: Mapping[str, Profile]
    lines_max: int
    line_bytes_max: int
    unknown_fields: UnknownFields


@dataclass(frozen=True, slots=True)
class Conversion:
    """Anthropic's form of a batch, one JSON document, that is to become lines in `target`."""

    path: Path
    target: Path
    lines_max: int
    line_bytes_max: int


@dataclass(slots=True)
class Report:
    """How many lines there are, of which model; or what is wrong with them."""

    total: int = 0
    model: str | None = None
    faults: list[Fault] = field(default_factory=list)


class _Enough(Exception):
    """There are more faults than are told."""


class _FileChecker:
    def __init__(self, job: FileCheck) -> None:
        self._job = job
        self._report = Report()
        self._seen: dict[str, int] = {}
        self._embedded = 0

    def report(self) -> Report:
        with self._job.path.open("rb") as file, _few_faults():
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._line(number, line)
        if not self._report.total and not self._report.faults:
            self._report.faults.append(Fault("empty_file", "The file has no lines; each line is one request."))
        return self._report

    def _line(self, number: int, raw: bytes) -> None:
        report, job = self._report, self._job
        report.total += 1
        if report.total > job.lines_max:
            self._fault("too_many_lines", f"The file has more than the {job.lines_max} lines that are allowed.", number)
            raise _Enough
        if len(raw) > job.line_bytes_max:
            message = f"The line has {len(raw)} bytes; {job.line_bytes_max} are allowed."
            self._fault("line_too_long", message, number)
            return
        line = self._parsed(number, raw)
        if line is None:
            return
        self._custom_id(number, line.get("custom_id"))
        if line.get("method") != "POST":
            self._fault("invalid_method", f"`method` must be POST; got {show(line.get('method'))}.", number, "method")
        if line.get("url") != job.endpoint:
            message = f"`url` must be the batch's endpoint, {job.endpoint}; got {show(line.get('url'))}."
            self._fault("invalid_url", message, number, "url")
            return
        body = line.get("body")
        if not isinstance(body, dict):
            self._fault("invalid_body", f"`body` must be an object; got {show(body)}.", number, "body")
            return
        self._body(number, {name: value for name, value in body.items() if value is not None})

    def _parsed(self, number: int, raw: bytes) -> dict[str, object] | None:
        try:
            line = from_json(raw, allow_inf_nan=False)
        except ValueError as error:
            self._fault("invalid_json_line", f"The line is not valid JSON: {error}.", number)
            return None
        if not isinstance(line, dict):
            self._fault("invalid_json_line", f"The line must be a JSON object; got {show(line)}.", number)
            return None
        return line

    def _custom_id(self, number: int, custom_id: object) -> None:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_CHARACTERS_MAX:
            message = (
                f"`custom_id` must be a text of 1 to {CUSTOM_ID_CHARACTERS_MAX} characters; got {show(custom_id)}."
            )
            self._fault("invalid_custom_id", message, number, "custom_id")
        elif (first := self._seen.setdefault(custom_id, number)) != number:
            message = f"`custom_id` {show(custom_id)} is that of line {first} already."
            self._fault("duplicate_custom_id", message, number, "custom_id")

    def _body(self, number: int, body: dict[str, object]) -> None:
        job, report = self._job, self._report
        if body.get("stream"):
            self._fault(
                "invalid_parameter", "A batch's answers aren't streamed; leave `stream` out.", number, "body.stream"
            )
            return
        model = body.get("model")
        profile = job.profiles.get(model) if isinstance(model, str) else None
        if profile is None:
            message = f"This key may use no model {show(model)} for {job.endpoint}. {_known(job.profiles)}"
            self._fault("model_not_found", message, number, "body.model")
            return
        if report.model is None:
            report.model = str(model)
        elif model != report.model:
            message = f"All lines of a batch have one model, here {show(report.model)}; got {show(model)}."
            self._fault("mismatched_model", message, number, "body.model")
            return
        try:
            checked, _ = check(BODIES[job.endpoint], body, profile, job.unknown_fields)
        except GatewayError as error:
            for fault in error.faults or (error,):
                param = f"body.{fault.param}" if fault.param else "body"
                self._fault(fault.code, fault.message, number, param)
            return
        if isinstance(inputs := getattr(checked, "input", None), tuple) and job.endpoint.endswith("embeddings"):
            self._embedded += len(inputs)
            if self._embedded > EMBEDDED_MAX:
                message = f"A batch may hold {EMBEDDED_MAX} inputs to be embedded, over all its lines."
                self._fault("too_many_inputs", message, number, "body.input")
                raise _Enough

    def _fault(self, code: str, message: str, line: int, param: str | None = None) -> None:
        self._report.faults.append(Fault(code, message, line, param))
        if len(self._report.faults) == FAULTS_MAX:
            raise _Enough


def convert(job: Conversion) -> Report:
    """Write the requests of Anthropic's document as lines. Raises InvalidRequest, InvalidParameter."""
    try:
        document = from_json(job.path.read_bytes(), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    requests = document.get("requests") if isinstance(document, dict) else None
    if not isinstance(requests, list) or not 0 < len(requests) <= job.lines_max:
        got = f"{len(requests)}" if isinstance(requests, list) else show(requests)
        raise InvalidParameter(
            f"`requests` must be a list of 1 to {job.lines_max} requests; got {got}.", param="requests"
        )
    seen: set[str] = set()
    with job.target.open("wb") as target:
        for index, request in enumerate(requests):
            target.write(_message_line(request, f"requests[{index}]", seen, job.line_bytes_max))
    return Report(len(requests))


def _message_line(request: object, place: str, seen: set[str], bytes_max: int) -> bytes:
    fields = request if isinstance(request, dict) else {}
    custom_id, params = fields.get("custom_id"), fields.get("params")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MESSAGES_ID_CHARACTERS_MAX:
        what = f"a text of 1 to {MESSAGES_ID_CHARACTERS_MAX} characters"
        raise InvalidParameter(
            f"`{place}.custom_id` must be {what}; got {show(custom_id)}.", param=f"{place}.custom_id"
        )
    if custom_id in seen:
        message = f"`{place}.custom_id` {show(custom_id)} is that of another request already."
        raise InvalidParameter(message, param=f"{place}.custom_id")
    if not isinstance(params, dict):
        raise InvalidParameter(f"`{place}.params` must be an object; got {show(params)}.", param=f"{place}.params")
    if params.get("stream"):
        message = f"`{place}.params.stream`: a batch's answers aren't streamed; leave it out."
        raise InvalidParameter(message, param=f"{place}.params.stream")
    seen.add(custom_id)
    line = json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": MESSAGES, "body": params}, separators=(",", ":")
    )
    if len(line) > bytes_max:
        raise InvalidParameter(f"`{place}` is larger than the {bytes_max} bytes that are allowed.", param=place)
    return f"{line}\n".encode()


def lines_of(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """The number, the custom_id and the body of each line of a file that was checked."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                line = from_json(raw, allow_inf_nan=False)
                yield (
                    number,
                    line["custom_id"],
                    json.dumps(line["body"], ensure_ascii=False).encode(),
                )


class _few_faults:  # noqa: N801 - used as a function
    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is _Enough


def _known(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:10])
    return f"There are: {shown}." if shown else "There is none."


def main(cpu_seconds_max: float, memory_bytes_max: int) -> None:
    """The process, from its first to its last statement: a job in, a report or an error out."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds_max)
    job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    answer: Report | GatewayError
    try:
        answer = convert(job) if isinstance(job, Conversion) else _FileChecker(job).report()
    except GatewayError as error:
        answer = error
    pickle.dump(answer, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
    sys.stdout.buffer.flush()
