"""What this program uses of other libraries' insides: named here, and nothing else.

A private name may change with any version. When one has, the test below fails with a sentence that says what used it
and where; docs/upgrading-vllm.md says what to do then. A private name that isn't in the table can't be used.
"""

import ast
import fnmatch
import functools
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists() and path.name != "tests")
PRODUCT = tuple(name for name in PACKAGES if name not in ("bench", "helm", "scripts"))


@dataclass(frozen=True)
class Private:
    """A private name of somebody else's.

    `owner` is a module, or a module and a class after a colon. `files` are the only ones of ours that may use it, as a
    pattern whose `*` crosses folders. `purpose` completes "It is used to ...".
    """

    owner: str
    name: str
    files: str
    purpose: str

    def __str__(self) -> str:
        return f"{self.owner.replace(':', '.')}.{self.name}"


PRIVATE = (
    # vLLM: the engine's front end
    Private(
        "vllm.v1.engine.async_llm:AsyncLLM",
        "_run_output_handler",
        "engine/vllm_internals/core.py",
        "start the task that reads",
    ),
    *(
        Private("vllm.engine.arg_utils:AsyncEngineArgs", name, "engine/vllm_internals/core.py", "share an engine")
        for name in ("_api_process_count", "_api_process_rank")
    ),
    Private(
        "vllm.v1.executor:Executor",
        "_init_executor",
        "engine/vllm_internals/lifeline.py",
        "end with the parent process",
    ),
    # vLLM: what became of the engine's outputs
    *(
        Private(
            "vllm.v1.engine.output_processor:OutputProcessor",
            name,
            "engine/vllm_internals/outputs.py",
            "keep vLLM's statistics",
        )
        for name in ("_finish_request", "_update_stats_from_finished", "_update_stats_from_output")
    ),
    Private(
        "vllm.v1.engine.output_processor:OutputProcessor",
        "_trim_surplus_tokens",
        "engine/vllm_internals/outputs.py",
        "leave out tokens beyond a stop",
    ),
    *(
        Private(
            "vllm.v1.metrics.loggers:PrometheusStatLogger",
            name,
            "engine/vllm_internals/stats.py",
            "make the metrics shared",
        )
        for name in ("_gauge_cls", "_counter_cls", "_histogram_cls")
    ),
    # vLLM and transformers: from a prompt to tokens
    Private(
        "transformers:PreTrainedTokenizerFast",
        "_tokenizer",
        "engine/vllm_internals/encoding.py",
        "call `tokenizers` directly",
    ),
    # vLLM: structured output
    Private(
        "vllm.parser.abstract_parser",
        "_xgrammar_supports",
        "engine/vllm_internals/constraining.py",
        "keep grammars from being made in the event loop",
    ),
    Private(
        "vllm.sampling_params:StructuredOutputsParams",
        "_backend",
        "engine/vllm_internals/constraining.py",
        "say which library the grammar was tried with",
    ),
    # torch
    Private("torch.cpu", "_init_amx", "engine/vllm_internals/cpu_worker.py", "ask Linux for the AMX tiles"),
    # xgrammar
    Private("xgrammar.base", "_core", "engine/vllm_internals/xgrammar.py", "make grammars without torch"),
    # prometheus-client
    *(
        Private("prometheus_client:Histogram", name, "gateway/telemetry/gathered.py", "observe many values at once")
        for name in ("_sum", "_buckets")
    ),
)
# Nowhere else may a private name of somebody else's be used.
FENCED = (
    "engine/vllm_internals/*",
    "gateway/process/connections.py",
    "gateway/telemetry/gathered.py",
)
# These begin with an underscore and are documented: of a named tuple, of a row of SQLAlchemy's, of `sys` and of `os`.
DOCUMENTED = frozenset({"_replace", "_asdict", "_make", "_fields", "_mapping", "_current_frames", "_exit"})
READERS = frozenset({"getattr", "setattr", "hasattr", "delattr"})


@dataclass(frozen=True)
class Use:
    """A private name in one of our files that the file doesn't define itself."""

    file: str
    line: int
    text: str
    name: str


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name != "_"


@functools.cache
def trees() -> dict[str, ast.Module]:
    paths = [path for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def defined(tree: ast.Module) -> set[str]:
    """The private names that a file makes: functions, classes, variables, and attributes of its own `self`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=ast.Tuple(elts=items)):
                names |= {str(item.value) for item in items if isinstance(item, ast.Constant)}
    return names


def uses(file: str, tree: ast.Module) -> Iterator[Use]:
    own = defined(tree) - {row.name for row in PRIVATE if fnmatch.fnmatch(file, row.files)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name):
                found = [name]
            case ast.ImportFrom(module=str(module), names=names) if module != "__future__":
                found = [*module.split("."), *(alias.name for alias in names)]
            case ast.Import(names=names):
                found = [part for alias in names for part in alias.name.split(".")]
            case ast.Call(func=ast.Name(id=reader), args=[_, ast.Constant(value=str(name)), *_]) if reader in READERS:
                found = [name]
            case _:
                continue
        # What a call has given isn't known to be ours.
        ours = set() if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) else own
        for name in found:
            if is_private(name) and name not in ours | DOCUMENTED:
                yield Use(file, node.lineno, ast.unparse(node), name)


def resolve(owner: str) -> object:
    module, _, name = owner.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def has(owner: object, name: str) -> bool:
    """Also what a class's methods give `self`: that can't be seen in the class."""
    if hasattr(owner, name) or not isinstance(owner, type):
        return hasattr(owner, name)
    return any(name in attributes(base) for base in owner.__mro__)


@functools.cache
def attributes(kind: type) -> frozenset[str]:
    """The attributes of a class and of its instances, as far as its own source says."""
    names = {*vars(kind), *inspect.get_annotations(kind)}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):  # written in C
        return frozenset(names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            names |= {node.attr} if isinstance(node.ctx, ast.Store) else set()
    return frozenset(names)


def written(kind: type) -> set[str]:
    """The methods and variables in a class's own lines."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    return defined(ast.Module([body], [])) - {kind.__name__}


def of_vllm(owner: str) -> bool:
    return owner.split(".")[0].split(":")[0] in ("vllm", "torch", "transformers", "tokenizers")


@pytest.mark.parametrize(
    "private",
    [
        pytest.param(row, marks=pytest.mark.vllm if of_vllm(row.owner) else (), id=f"{row}-{row.files}")
        for row in PRIVATE
    ],
)
def test_a_private_name_is_where_it_was(private: Private) -> None:
    users = sorted({use.file for file, tree in trees().items() for use in uses(file, tree) if use.name == private.name})
    told = f"{private} is gone. It is used to {private.purpose}, in {', '.join(users) or private.files}."
    try:
        owner = resolve(private.owner)
    except (ImportError, AttributeError):
        pytest.fail(told)
    assert has(owner, private.name), told


def test_no_other_private_name_is_used() -> None:
    stray = [
        f"{use.file}:{use.line}: `{use.text}` uses `{use.name}`, which is somebody else's. Use what is public, or add "
        "it to PRIVATE above."
        for file, tree in trees().items()
        for use in uses(file, tree)
        if not any(row.name == use.name and fnmatch.fnmatch(file, row.files) for row in PRIVATE)
    ]
    assert stray == []


def test_private_names_are_fenced() -> None:
    outside = {row.files for row in PRIVATE if not any(fnmatch.fnmatch(row.files, files) for files in FENCED)}
    assert outside == set(), f"private names of somebody else's are used outside of {', '.join(FENCED)}"


def test_the_table_names_nothing_that_is_not_used() -> None:
    found = {(use.name, use.file) for file, tree in trees().items() for use in uses(file, tree)}
    found |= {(name, file) for file, tree in trees().items() for name in defined(tree)}  # what a subclass overrides
    for row in PRIVATE:
        assert any(row.name == name and fnmatch.fnmatch(file, row.files) for name, file in found), f"{row} isn't used"


def own_modules(engine: bool) -> list[ModuleType]:
    """Every module of ours; those of the engine need vLLM. The demo model's makers are programs."""
    names = [file.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for file in trees()]
    chosen = [name for name in names if name.startswith("engine") == engine]
    left_out = ("engine.demo", "versions", "migrations.env", "__main__")
    return [importlib.import_module(name) for name in chosen if not any(part in name for part in left_out)]


def subclasses(engine: bool) -> Iterator[tuple[type, list[type]]]:
    """Our classes that derive from somebody else's, and those."""
    for module in own_modules(engine):
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                foreign = [base for base in kind.__mro__ if is_foreign(base)]
                if foreign:
                    yield kind, foreign


def is_foreign(kind: type) -> bool:
    package = kind.__module__.partition(".")[0]
    return package not in PRODUCT and package not in sys.stdlib_module_names and package not in ("pydantic",)


ENGINE = pytest.mark.parametrize("engine", [False, pytest.param(True, marks=pytest.mark.vllm)], ids=["rest", "engine"])


@ENGINE
def test_what_a_subclass_overrides_in_private_is_named(engine: bool) -> None:
    for kind, foreign in subclasses(engine):
        for name in filter(is_private, written(kind)):
            owners = [base for base in foreign if name in attributes(base)]
            file = f"{kind.__module__.replace('.', '/')}.py"
            known = any(row.name == name and fnmatch.fnmatch(file, row.files) for row in PRIVATE)
            assert known or not owners, (
                f"{file}: {kind.__name__} overrides {owners[0].__qualname__}.{name}; name it above"
            )


@ENGINE
def test_what_a_subclass_takes_from_its_base_is_there(engine: bool) -> None:
    """Public or not: an attribute of `self` that neither our class nor its base has fails in the middle of work."""
    for kind, foreign in subclasses(engine):
        ours = {name for base in kind.__mro__ if not is_foreign(base) for name in attributes(base)}
        theirs = {name for base in foreign for name in attributes(base)}
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                bases = ", ".join(base.__qualname__ for base in foreign[:2])
                told = f"{kind.__module__}.{kind.__name__} uses self.{node.attr}, which {bases} no longer has"
                assert node.attr in ours | theirs or hasattr(kind, node.attr), told


def test_the_guide_names_files_that_exist() -> None:
    guide = (ROOT / "docs" / "upgrading-vllm.md").read_text(encoding="utf-8")
    names = {path.name for package in (*PRODUCT, "tests", "helm", "scripts") for path in (ROOT / package).rglob("*")}
    for mentioned in re.findall(r"`([\w/.-]+\.py|(?:tests|helm|docs)/[\w/.-]+)`", guide):
        assert (ROOT / mentioned).exists() if "/" in mentioned else mentioned in names, mentioned
