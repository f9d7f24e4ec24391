"""A process that tries grammars: each in a fork of its own, with limits of time and memory, so that it may fail.

Run as `python -m engine.grammar.trial_process`. Frames on its standard input and output are a length of four bytes and
JSON. The first tells it the tokenizer and the limits; each further one is a number and a question, and is answered by
the number and a verdict, in whatever order they are done. It ends with its input.
"""

import ctypes
import json
import os
import resource
import selectors
import signal
import sys
from dataclasses import dataclass, field

from engine.grammar import compilers, patterns, schemas
from engine.grammar.errors import Refused
from engine.grammar.tried import LENGTH, NUMBER, GrammarLimits, Question, Verdict

# Written out, classes of characters are longer.
WRITTEN = 8
_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def decide(question: Question, compiler: compilers.Compiler, limits: GrammarLimits, backend: str) -> Verdict:
    """The verdict, within this process."""
    try:
        text: str = question.text
        left_out: tuple[str, ...] = ()
        if question.written and question.kind == "regex":
            text = patterns.whole(text, question.place)
        elif question.written and question.kind == "json" and backend == "xgrammar":
            held = schemas.held(json.loads(text), question.place, loose=question.loose)
            text, left_out = json.dumps(held.schema), held.left_out
        if len(text) > WRITTEN * limits.schema_bytes:
            raise compilers.too_costly(question.place, f"{limits.schema_bytes} bytes", "GRAMMAR_BYTES_MAX")
        compiler.attempt(question.kind, text, question.place, limits.step_seconds)
    except Refused as refusal:
        return Verdict(sentence=str(refusal), place=refusal.place, unsupported=refusal.unsupported)
    except MemoryError:
        return failed(question.place, signal.SIGKILL, limits)
    except Exception as error:  # a library's own; anything is better than an answer that nobody knows
        sentence = f"`{question.place}` can't be kept: the engine's grammars don't take it ({type(error).__name__})."
        return Verdict(sentence=sentence, place=question.place)
    return Verdict(text, left_out)


def failed(place: str, by: int, limits: GrammarLimits) -> Verdict:
    """What a fork's end by a signal means."""
    if by == signal.SIGPROF:
        refusal = compilers.too_costly(place, f"{limits.seconds:g} seconds of computing", "GRAMMAR_SECONDS_MAX")
    else:  # memory that isn't there ends the libraries in several ways, and so does a stack that is too small
        mebibytes = limits.memory_bytes // 2**20
        refusal = compilers.too_costly(place, f"{mebibytes} MiB of memory", "GRAMMAR_MEMORY_BYTES_MAX")
    return Verdict(sentence=str(refusal), place=place)


@dataclass(slots=True)
class _Fork:
    number: int
    question: Question
    pid: int
    written: bytearray = field(default_factory=bytearray)


class TrialProcess:
    """The loop: questions in, forks, verdicts out."""

    def __init__(self, source: int, sink: int) -> None:
        setup = json.loads(_read(source))
        self._limits = GrammarLimits(**setup["limits"])
        self._backend = setup["backend"]
        self._compiler = compilers.load(self._backend, setup["tokenizer"], setup["vocabulary"], setup["end"])
        self._source, self._sink = source, sink
        self._waits = selectors.DefaultSelector()
        self._waits.register(source, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, _ in self._waits.select():
                if isinstance(key.data, _Fork):
                    self._hear(key.fd, key.data)
                else:
                    frame = _read(self._source)
                    if not frame:
                        return
                    self._start(NUMBER.unpack(frame[: NUMBER.size])[0], Question.of(frame[NUMBER.size :]))

    def _start(self, number: int, question: Question) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                _confine(self._limits)
                _write(writing, decide(question, self._compiler, self._limits, self._backend).line())
            finally:
                os._exit(0)
        os.close(writing)
        self._waits.register(reading, selectors.EVENT_READ, _Fork(number, question, pid))

    def _hear(self, reading: int, fork: _Fork) -> None:
        if more := os.read(reading, 1 << 16):
            fork.written += more
            return
        self._waits.unregister(reading)
        os.close(reading)
        _, status = os.waitpid(fork.pid, 0)
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGKILL
        try:
            verdict = Verdict.of(bytes(fork.written))
        except ValueError:  # it ended before it had said all
            verdict = failed(fork.question.place, by, self._limits)
        frame = NUMBER.pack(fork.number) + verdict.line()
        _write(self._sink, LENGTH.pack(len(frame)) + frame)


def _confine(limits: GrammarLimits) -> None:
    """This fork: it ends with its parent, and when it has used its time; and gets no more memory than its share."""
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    with open("/proc/self/statm") as file:  # noqa: PTH123 - as short as a path's
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + limits.memory_bytes, resource.RLIM_INFINITY))


def _write(sink: int, content: bytes) -> None:
    while content:
        content = content[os.write(sink, content) :]


def _read(source: int) -> bytes:
    """The next frame; nothing at the end."""
    head = _exactly(source, LENGTH.size)
    return _exactly(source, LENGTH.unpack(head)[0]) if head else b""


def _exactly(source: int, length: int) -> bytes:
    read = bytearray()
    while len(read) < length:
        more = os.read(source, length - len(read))
        if not more:
            return b""
        read += more
    return bytes(read)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, which is for the server
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)
    # The libraries write on both: remarks on a client's schema, which belong in no log.
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    process = TrialProcess(source, sink)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    process.run()


if __name__ == "__main__":
    main()
    sys.exit(0)
