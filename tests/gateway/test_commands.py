"""The command line: what can't be is refused in the words that were used, in one sentence and never a traceback."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cli import build_parser, main

Farebox = Callable[..., tuple[int, str, str]]


@pytest.fixture
def farebox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Farebox:
    """Runs a command in this process, on a database of its own; gives exit status, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith("FAREBOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAREBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else int(code is not None), shown.out, shown.err

    return run


def refused(result: tuple[int, str, str]) -> str:
    """The one sentence."""
    status, _, error = result
    assert status == 2, result
    assert "Traceback" not in error
    [line] = error.strip().splitlines()
    assert line.startswith("farebox: ")
    return line


def made(farebox: Farebox, name: str) -> str:
    """The prefix of a new key."""
    status, output, error = farebox("keys", "create", name, "--json")
    assert status == 0, error
    prefix: str = json.loads(output)[0]["prefix"]
    return prefix


def names(farebox: Farebox) -> list[str]:
    return [key["name"] for key in json.loads(farebox("keys", "list", "--json")[1])]


@pytest.fixture
def account(farebox: Farebox) -> str:
    assert farebox("accounts", "create", "default")[0] == 0
    return "default"


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("action", ["revoke", "rotate"])
@pytest.mark.parametrize("cut", [0, 1, 3, 10])
def test_a_key_is_named_by_the_whole_prefix(farebox: Farebox, action: str, cut: int) -> None:
    """Even where there is one key only."""
    prefix = made(farebox, "only")
    assert len(prefix) == 11
    line = refused(farebox("keys", action, prefix[:cut]))
    assert ("empty" if cut == 0 else "too short") in line
    assert names(farebox) == ["only"]
    refused(farebox("keys", action, prefix + "x"))
    refused(farebox("keys", action, "é"))
    assert farebox("keys", action, prefix)[0] == 0


@pytest.mark.usefixtures("account")
def test_keys_that_begin_alike_are_told_apart_by_their_names(
    farebox: Farebox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As registered ones may, of which four characters are shown."""
    code = (
        "import asyncio, sys\n"
        "from storage.database import Database\nfrom pricing.keys import Keys\n"
        "async def main():\n"
        "    database = await Database.open(sys.argv[1])\n"
        "    for name in ('one', 'two'):\n"
        "        await Keys(database).create(1, name, actor='test', secret=f'team-secret-of-{name}-0123456789')\n"
        "    await database.close()\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path}/data/farebox.db"], check=True, cwd=root())
    line = refused(farebox("keys", "revoke", "team"))
    assert "2 keys begin" in line
    assert "'one', 'two'" in line
    assert names(farebox) == ["one", "two"]
    refused(farebox("keys", "revoke", "team", "--name", "three"))
    assert farebox("keys", "revoke", "team", "--name", "two")[0] == 0
    assert names(farebox) == ["one"]


def root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("keys create x --expires 2020-01-01", "--expires is 2020-01-01"),
        ("keys create x --expires tomorrow", "--expires must be a day"),
        ("keys create x --expires 2099-01-01T00:00:00+05:00", "--expires must be a day"),
        ("keys create x --models nope", "--models names 'nope'"),
        ("keys create x --models farebox/dem", "Did you mean 'farebox/demo'"),
        ("keys create x --models farebox/demo,", "names of models"),
        ("keys create x --models=", "names of models"),
        ("keys create x --models all", "--models names 'all'"),
        ("keys create x --limit -5", "A limit of -5.00 USD"),
        ("keys create x --limit 1e3", "'1e3' is not an amount"),
        ("keys create x --requests-per-minute -1", "-1"),
        ("keys create x --account nobody", '"nobody"'),
        ("keys create ", "''"),
        ("keys list ", "empty"),
        ("keys rotate fb-12345678 --grace-hours -1", "--grace-hours is -1"),
        ("keys rotate fb-12345678 --grace-hours nan", "--grace-hours is nan"),
        ("keys rotate fb-12345678 --grace-hours 1e300", "--grace-hours is 1e+300"),
        ("accounts create x --limit -5", "A limit of -5.00 USD"),
        ("accounts create x --prepaid -5", "A limit of -5.00 USD"),
        ("accounts limit default --limit -0.01", "A limit of -0.01 USD"),
        ("accounts limit  --limit 5", "''"),
        ("accounts credit default -5", "-5.00"),
        ("accounts suspend ", "''"),
        ("catalog check farebox/demo --gpus -2", "--gpus is -2"),
        ("catalog check farebox/demo --gpus 0", "--gpus is 0"),
        ("catalog check ", 'no model card ""'),
        ("cards check nowhere.toml", "can't be read"),
        ("cards new nowhere/here/there", "doesn't exist"),
        ("cards new a b --name c", "there are 2 models"),
        ("catalog check all", "one card"),
        ("catalog check farebox/demo,farebox/demo", "no model card"),
        ('catalog check farebox/demo --engine {"tensor_parallel_size":0}', "0"),
        ("usage --since 2030-01-01 --until 2020-01-01", "--until (2020-01-01) is before --since (2030-01-01)"),
        ("usage --by colour", "'colour'"),
    ],
)
def test_what_cannot_be_is_refused_in_the_words_that_were_used(farebox: Farebox, command: str, told: str) -> None:
    assert told in refused(farebox(*command.split(" ")))
    assert names(farebox) == []


@pytest.mark.usefixtures("account")
def test_models_may_have_spaces_around_their_commas_and_be_unknown_on_purpose(farebox: Farebox) -> None:
    assert farebox("keys", "create", "a", "--models", "farebox/demo, meta-llama/Llama-2-70b-chat-hf")[0] == 0
    assert farebox("keys", "create", "b", "--models", "elsewhere/model", "--unknown-models")[0] == 0
    assert names(farebox) == ["a", "b"]


def test_the_version_is_told(farebox: Farebox) -> None:
    status, output, _ = farebox("--version")
    assert status == 0
    assert output.startswith("farebox 0.")


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("output", "told"),
    [("no/such/folder/out", "No such file or directory"), ("/dev/full", "No space left"), (".", "Is a directory")],
)
def test_an_export_that_cannot_be_written_is_told(farebox: Farebox, format: str, output: str, told: str) -> None:
    line = refused(farebox("usage", "export", "--format", format, "--output", output))
    assert told in line
    assert f"--output {output}" in line


def test_a_full_disk_behind_the_shell_is_told(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAREBOX_")}
    environment["FAREBOX_DATA_DIR"] = str(tmp_path)
    for command in (["usage", "export"], ["keys", "list"]):
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(
                [sys.executable, "-m", "gateway.cli", *command],
                env=environment,
                cwd=root(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (result.returncode, result.stderr) == (2, "farebox: No space left on device.\n")


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("a file", "File exists"),
        ("a file/within", "Not a directory"),
        ("/proc/nothing", "No such file or directory"),
        ("~nobody-of-this-name/data", "home"),
        ("what?", "?"),
        ("x" * 300, "File name too long"),
    ],
)
@pytest.mark.parametrize(
    "command", ["keys list", "accounts create x", "usage", "usage export", "db upgrade", "db check"]
)
def test_a_data_folder_that_cannot_be_is_told(
    farebox: Farebox, tmp_path: Path, folder: str, told: str, command: str
) -> None:
    (tmp_path / "a file").write_text("")
    line = refused(farebox(*command.split(), "--data-dir", folder))
    assert told in line
    assert "data" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe[[model]]", "isn't UTF-8"),
        (b"[model", "not valid TOML"),
        (b"model = [1, 2]", "no model card"),
        (b"model = 1", "no model card"),
    ],
)
def test_a_card_file_that_is_none_is_told(farebox: Farebox, tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "cards.toml").write_bytes(content)
    for command in ("catalog list", "catalog check farebox/demo"):
        assert told in refused(farebox(*command.split(), "--cards", "cards.toml"))


ODD = [
    *(
        "",
        " ",
        "-1",
        "0",
        "1",
        "007",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1_000",
        "9" * 30,
        "-" + "9" * 30,
        "0.0000000000001",
    ),
    *(
        "a,b",
        ",",
        "all",
        "none",
        "default",
        "fb-",
        "fb-12345678",
        "farebox/demo",
        "day",
        "month",
        "2020-02-30",
        "0001-01-01",
    ),
    *(
        "9999-12-31",
        "2026-W01-1",
        "{}",
        "[]",
        '{"a": 1}',
        '{"tensor_parallel_size": -1}',
        '{"x": 1e999}',
        "{",
        "\udc80",
    ),
    *("é", "🙂", "'; DROP TABLE keys; --", "%s%n", "../..", "~", "a\nb", "a\tb", "\u202e", "x" * 5000, "csv", "H100"),
]


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[str], int]]:
    """Every command with its flags and the number of its arguments; `serve`, which doesn't end, is left out."""
    flags = [action.option_strings[0] for action in parser._actions if action.option_strings]
    places = 0
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                if name != "serve":
                    yield from leaves(sub, (*path, name))
        elif not action.option_strings:
            places += 1
    yield path, flags, places


COMMANDS = list(leaves(build_parser()))


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    words = st.one_of(
        st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0/", exclude_categories=[]), max_size=20)
    )
    path, flags, places = draw(st.sampled_from(COMMANDS))
    line = [*path, *(draw(words) for _ in range(draw(st.sampled_from([places, places, places, places + 1, 0]))))]
    for flag in draw(st.lists(st.sampled_from(flags), max_size=4)):
        word, way = draw(words), draw(st.integers(0, 2))
        line += [[flag], [flag, word], [f"{flag}={word}"]][way]
    return line


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lines())
def test_no_command_line_ends_in_a_traceback(farebox: Farebox, line: list[str]) -> None:
    """Any words at any place: an answer, or a sentence."""
    status, _, error = farebox(*line)
    assert status in (0, 1, 2)
    assert "Traceback" not in error
    assert status == 0 or error or "check" in line
