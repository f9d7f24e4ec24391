"""The map of the house names places that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAPS = ("docs/architecture.md", "CONTRIBUTING.md", "docs/threat-model.md")


@pytest.mark.parametrize("name", MAPS)
def test_the_paths_that_a_map_names_exist(name: str) -> None:
    named = re.findall(
        r"`((?:gateway|engine|pricing|storage|tests|helm|scripts|docs|bench)/[\w./-]*)`", (ROOT / name).read_text()
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_room_of_the_gateway_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path for path in (ROOT / "gateway").iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert [room.name for room in rooms if f"gateway/{room.name}/" not in text] == []
