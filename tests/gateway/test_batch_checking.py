"""A batch's file is checked in a process of its own: the last of many lines too, within bounds of time and memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.batches.checker import FileCheck, lines_of
from gateway.batches.checking import Checking
from gateway.errors import BodyTooLarge
from gateway.models.catalog import load_catalog
from gateway.settings import Settings
from tests.gateway.conftest import DEMO
from tests.gateway.test_batches import CHAT, line

LINES = 4000
CHECKING = Checking(cpu_seconds_max=60, memory_bytes_max=2**29)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose last line but one is wrong."""
    path = tmp_path_factory.mktemp("lines") / "many.jsonl"
    with path.open("w") as file:
        for number in range(1, LINES + 1):
            more: dict[str, Any] = {"temperature": 3} if number == LINES - 1 else {}
            file.write(json.dumps(line(number, **more)) + "\n")
    return path


def check_of(path: Path) -> FileCheck:
    catalog = load_catalog(Settings.model_validate({}))
    profiles = {model.name: model.profile for model in catalog}
    return FileCheck(path, CHAT, profiles, 50_000, 2**22, "accept")


async def test_a_fault_near_the_end_of_many_lines_is_told(many: Path) -> None:
    report = await CHECKING.check(check_of(many))
    assert report.total == LINES
    assert report.model == DEMO
    (fault,) = report.faults
    assert (fault.line, fault.param) == (LINES - 1, "body.temperature")
    assert "3" in fault.message


@pytest.mark.parametrize("bounds", [Checking(0.02, 2**29), Checking(60, 2**25)], ids=["time", "memory"])
async def test_a_check_that_takes_too_much_is_ended(many: Path, bounds: Checking) -> None:
    with pytest.raises(BodyTooLarge, match="Make it smaller"):
        await bounds.check(check_of(many))


async def test_only_so_many_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text("nonsense\n" * 500)
    report = await CHECKING.check(check_of(path))
    assert [fault.line for fault in report.faults] == list(range(1, 51))


def test_lines_are_read_as_they_were_checked(tmp_path: Path) -> None:
    """Empty lines count in the numbers, and every text comes through whole."""
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(line(1, said="é\u0000\U0001f600")) + "\n\n" + json.dumps(line(2)) + "\n")
    found = [(number, custom_id, json.loads(body)) for number, custom_id, body in lines_of(path)]
    assert [(number, custom_id) for number, custom_id, _ in found] == [(1, "line-1"), (3, "line-2")]
    assert found[0][2]["messages"][0]["content"] == "é\u0000\U0001f600"
