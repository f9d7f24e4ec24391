"""One record of somebody else's code: what of it is logged once requests come, how often, and on how many lines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from engine.log_lines import Form, Outlet, on_one_line, requests_come

SAID = "patient-Ottilie"


class Listening:
    def __init__(self, form: Form, name: str) -> None:
        self.stream = io.StringIO()
        self.log = logging.getLogger(name)
        self.log.propagate = False
        self.log.setLevel(logging.DEBUG)
        self.outlet = Outlet(self.stream, form=form)
        self.log.addHandler(self.outlet)

    def heard(self) -> str:
        return self.stream.getvalue()


@pytest.fixture(params=["text", "json"])
def theirs(request: pytest.FixtureRequest) -> Iterator[Listening]:
    requests_come()
    listening = Listening(request.param, "somelibrary.parser")
    yield listening
    listening.log.removeHandler(listening.outlet)


@pytest.fixture(params=["text", "json"])
def ours(request: pytest.FixtureRequest) -> Iterator[Listening]:
    requests_come()
    listening = Listening(request.param, "farebox.unheard")
    yield listening
    listening.log.removeHandler(listening.outlet)


def test_a_message_is_heard_as_the_code_has_it(theirs: Listening) -> None:
    theirs.log.warning("the model said %s, and that it was %d years old", SAID, 47)
    assert "the model said %s, and that it was %d years old" in theirs.heard()
    assert SAID not in theirs.heard()
    assert "test_log_lines.py:" in theirs.heard()


def test_a_message_that_was_put_together_is_withheld(theirs: Listening) -> None:
    theirs.log.warning(f"the model said {SAID}")
    theirs.log.warning("the model said " + SAID)
    theirs.log.warning(" ".join(["the model said", SAID]))
    theirs.log.warning(SAID * 2)
    theirs.log.warning(ValueError(SAID))
    assert SAID not in theirs.heard()
    assert theirs.heard().count("may hold what was said") == 5


def test_an_exception_is_told_by_its_types_and_places(theirs: Listening) -> None:
    try:
        try:
            raise KeyError(SAID)
        except KeyError as error:
            raise ValueError(SAID) from error
    except ValueError:
        theirs.log.exception("it failed", stack_info=True)
    heard = theirs.heard()
    assert SAID not in heard
    assert "Traceback" not in heard
    assert "ValueError at " in heard
    assert "after KeyError at " in heard
    assert "test_an_exception_is_told_by_its_types_and_places" in heard
    assert len(heard.splitlines()) == 1


def test_what_the_machine_says_is_told(theirs: Listening) -> None:
    try:
        raise OSError(28, SAID)
    except OSError:
        theirs.log.exception("it failed")
    assert "OSError (No space left on device)" in theirs.heard()
    assert SAID not in theirs.heard()


def test_a_place_is_heard_once_a_minute(theirs: Listening) -> None:
    for _ in range(1000):
        theirs.log.error("cannot parse %s", SAID)
    theirs.log.error("another place")
    assert len(theirs.heard().splitlines()) == 2


def test_our_own_exceptions_lose_their_texts_too(ours: Listening) -> None:
    try:
        json.loads(SAID)
    except ValueError:
        ours.log.exception("request %s failed", "req-1")
    assert "request req-1 failed [" in ours.heard()
    assert "JSONDecodeError at " in ours.heard()
    assert len(ours.heard().splitlines()) == 1


@pytest.mark.parametrize(
    "end", ["\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e", "\x1b[1A", "\ud83d"]
)
def test_no_message_begins_another_line(ours: Listening, end: str) -> None:
    ours.log.warning("named %s", f"a{end}2031-01-01 ERROR farebox forged")
    assert len(ours.heard().splitlines()) == 1
    assert end not in ours.heard()[:-1]
    assert ours.heard().encode()


def test_what_is_on_one_line_stays_readable() -> None:
    assert on_one_line("Grüße, 你好 🎉\t") == "Grüße, 你好 🎉\\t"
