"""What is made from something else is current; the schema knows every value."""

import json
from typing import Any

import jsonschema
import yaml

from helm import dashboards, settings_schema, values_table
from tests.helm.conftest import CHART, EXAMPLES


def test_the_table_of_values_is_current() -> None:
    readme = (CHART / "README.md").read_text()
    values = (CHART / "values.yaml").read_text()
    assert readme == values_table.updated(readme, values), "run: python helm/values_table.py"


def test_the_schema_knows_the_gateways_settings() -> None:
    text = settings_schema.SCHEMA.read_text()
    assert text == settings_schema.updated(text), "run: python helm/settings_schema.py"


def test_the_dashboards_are_current() -> None:
    for path, text in dashboards.texts().items():
        assert path.read_text() == text, "run: python helm/dashboards.py"


def test_the_schema_is_a_schema_and_takes_the_defaults() -> None:
    schema = json.loads(settings_schema.SCHEMA.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_the_schema_knows_every_default_and_nothing_else() -> None:
    """A value that isn't in values.yaml has no description."""
    schema = json.loads(settings_schema.SCHEMA.read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    for name, part in schema["properties"].items():
        known = part.get("properties", {}).keys()
        if name in values and isinstance(values[name], dict) and known and values[name]:
            free = {"claims"} if name == "resources" else set()
            assert known - free == values[name].keys(), name


def test_every_example_says_what_it_is() -> None:
    assert {path.stem for path in EXAMPLES} == {"8b-fp8", "70b-fp8", "multinode", "cpu-demo"}
    for path in EXAMPLES:
        assert path.read_text().startswith("# ")


def test_panels_have_their_place() -> None:
    for board in (dashboards.SERVICE, dashboards.MONEY):
        panels: list[dict[str, Any]] = dashboards.panels_json(board)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= dashboards.COLUMNS, panel["title"]
            assert not taken & cells, panel["title"]
            taken |= cells
        assert len({panel["id"] for panel in panels}) == len(panels)
