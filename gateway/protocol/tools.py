"""The tools of a request: those that its client runs, as the model is told of them and as they come back.

A model knows functions with JSON arguments and nothing else. So a `custom` tool, whose input is a text, is told as a
function with the one string `input`, and the functions of a `namespace` under names that hold the namespace's. Tools
that OpenAI's servers run, or that a model must have been trained for, are left out and named to the client.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from gateway.errors.suggestions import nearest
from gateway.protocol.body import Body, conflict, field_of
from gateway.protocol.schema import SENT, JSONSchema

TOOLS_MAX = 1024  # of one request, those in namespaces as well
INPUT = "input"  # the argument that a custom tool's input becomes

NOT_RUN = "this gateway runs no such tool, so no answer can be made with it"
OWN = ("function", "custom", "namespace")  # the types of tools that the client runs


_CALLED: JSONSchema = {"properties": {"type": {"enum": ["function", "custom"]}}, "required": ["type"]}
# What a `tool_choice` that demands a call needs to be in `tools`.
SOME_TOOL: JSONSchema = {
    "type": "array",
    "contains": {
        "anyOf": [
            _CALLED,
            {
                "properties": {"type": {"const": "namespace"}, "tools": {"type": "array", "contains": _CALLED}},
                "required": ["type", "tools"],
            },
        ]
    },
}


class HostedTool(Body):
    """A tool that another server would run, or that its model knows by heart, such as `web_search`: it is left out, and
    named in `farebox-ignored`."""

    type: Annotated[str, WithJsonSchema({"type": "string", "not": {"enum": list(OWN)}})]


class InputGrammar(Body):
    syntax: Literal["lark", "regex"]
    definition: str


class InputFormat(Body):
    """What a custom tool's input looks like. The Responses API has the grammar's fields here, the chat API in
    `grammar`. The input is kept to a regular expression; a Lark grammar is only told to the model."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None
    grammar: InputGrammar | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        {
            "if": {"properties": {"type": {"const": "grammar"}}},
            "then": {
                "anyOf": [
                    {"properties": {"grammar": SENT}, "required": ["grammar"]},
                    {"properties": {"syntax": SENT, "definition": SENT}, "required": ["syntax", "definition"]},
                ]
            },
        },
    )

    @model_validator(mode="after")
    def _complete(self) -> "InputFormat":
        if self.type == "grammar" and self.kept is None:
            raise ValueError("the type grammar needs `syntax` and `definition`.")
        return self

    @property
    def kept(self) -> InputGrammar | None:
        """The grammar, wherever it stands."""
        if self.type == "text" or self.grammar is not None:
            return None if self.type == "text" else self.grammar
        if self.syntax is None or self.definition is None:
            return None
        return InputGrammar.model_construct(syntax=self.syntax, definition=self.definition)


class CustomFields(Body):
    """A tool whose input is a text. The chat API has these fields in `custom`."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    format: InputFormat | None = None


class FunctionTool(Body):
    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that the client runs. `told` is the name that the model is told, `place` where its schema stands in the
    request; `held` says that its calls are kept to the schema as far as that can be."""

    told: str
    name: str
    function: Mapping[str, JsonValue]
    place: str
    namespace: str | None = None
    custom: bool = False
    held: bool = False

    def spoken(self) -> dict[str, Any]:
        """As the chat template gets it."""
        return {"type": "function", "function": self.function}


@dataclass(slots=True)
class Toolbox:
    """All tools of one request that the client runs. `left_out` names, for the client, what the answer does without."""

    offered: list[Offered] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _told: dict[str, Offered] = field(default_factory=dict)
    _names: dict[tuple[str | None, str], str] = field(default_factory=dict)

    def add_function(self, tool: FunctionTool, place: str, namespace: str | None = None, about: str = "") -> None:
        """`about` is the description of its namespace, where the model is to hear it with this function."""
        fields = tool.model_dump(exclude_none=True, include={"name", "description", "parameters", "strict"})
        self._add(fields, tool.name, place, namespace, about)

    def add_custom(self, tool: CustomFields, place: str, namespace: str | None = None, about: str = "") -> None:
        grammar = tool.format.kept if tool.format is not None else None
        text: dict[str, JsonValue] = {"type": "string"}
        description = tool.description or ""
        if grammar is not None and grammar.syntax == "regex":
            text["pattern"] = f"^(?:{grammar.definition})$"
        elif grammar is not None:
            description += f"\n\n`{INPUT}` must follow this Lark grammar:\n{grammar.definition}"
            self.left_out.append(place)
        parameters = {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}
        fields = {"name": tool.name, "description": description.strip(), "parameters": parameters}
        self._add(fields, tool.name, place, namespace, about, custom=True, held="pattern" in text)

    def add_hosted(self, tool: HostedTool, place: str) -> None:
        self.left_out.append(f"{place} ({tool.type})")

    def _add(
        self,
        fields: dict[str, Any],
        name: str,
        place: str,
        namespace: str | None,
        about: str,
        *,
        custom: bool = False,
        held: bool = False,
    ) -> None:
        told = self.told(namespace, name)
        while (held_by := self._told.get(told)) is not None and (held_by.namespace, held_by.name) != (namespace, name):
            told += "_"  # another pair that comes to the same
        fields["name"] = told
        if about:
            fields["description"] = f"{about}\n\n{fields.get('description', '')}".strip()
        if not fields.get("description"):
            fields.pop("description", None)
        one = Offered(told, name, fields, place, namespace, custom, held)
        self.offered.append(one)
        self._told.setdefault(told, one)
        self._names.setdefault((namespace, name), told)

    def called(self, told: str) -> Offered | None:
        """The tool that a model means by a name: models leave a namespace out where the rest is clear without."""
        found = self._told.get(told)
        if found is None and self._told:
            meant = [one for one in self.offered if one.name == told]
            found = meant[0] if len(meant) == 1 else None
        return found

    def told(self, namespace: str | None, name: str) -> str:
        """The name by which the model knows a tool of the conversation, whether it is still among the tools or not."""
        return self._names.get((namespace, name)) or flat_name(namespace, name)

    def find(self, ref: "Ref") -> Offered | None:
        """What a `tool_choice` means; without a namespace, a function of one where no other has the name."""
        of_kind = [one for one in self.offered if one.custom == (ref.kind == "custom")]
        for one in of_kind:
            if (one.namespace, one.name) == (ref.namespace, ref.name) or (
                ref.namespace is None and one.told == ref.name
            ):
                return one
        meant = [one for one in of_kind if ref.namespace is None and one.name == ref.name]
        return meant[0] if len(meant) == 1 else None


def flat_name(namespace: str | None, name: str) -> str:
    """`mcp__files` and `read` make `mcp__files__read`."""
    if namespace is None:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def of_known_type(*own: str) -> BeforeValidator:
    """Looks at a tool before pydantic does: one of our `own` types or, by its name, a hosted one."""

    def look(value: object) -> object:
        kind = field_of(value, "type")
        if isinstance(value, dict | Body) and isinstance(kind, str):
            meant = nearest(kind, own, cutoff=0.8) if kind not in OWN else None
            if kind in own or (kind not in OWN and meant is None):
                return value
        raise ValueError(f"a tool is an object of type {' or '.join(own)}, which the client runs.")

    return BeforeValidator(look)


def tag_of(value: object) -> str:
    """For a union whose tags are `tool:` and the type, or `tool:hosted`."""
    kind = field_of(value, "type")
    return f"tool:{kind}" if kind in OWN else "tool:hosted"


def custom_arguments(text: str) -> str:
    """A custom tool's input as the arguments of the function that the model was told of."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


def hosted_choice(choice: object, tools: Iterable[object]) -> str | None:
    """The type of a tool that a `tool_choice`, as it was sent, demands and that nobody here can run."""
    kinds = [kind for tool in tools if isinstance(kind := field_of(tool, "type"), str)]
    demanded = field_of(choice, "type")
    if demanded == "allowed_tools":
        inner = field_of(choice, "allowed_tools") or choice
        refs = field_of(inner, "tools")
        kinds = [str(field_of(ref, "type")) for ref in refs] if isinstance(refs, list) else []
        demanded = field_of(inner, "mode")
    elif isinstance(demanded, str):
        return None if demanded in OWN else demanded
    else:
        demanded = choice
    return kinds[0] if demanded == "required" and kinds and not set(kinds) & set(OWN) else None


@dataclass(frozen=True, slots=True)
class Ref:
    """A tool as a `tool_choice` names it."""

    kind: str
    name: str
    namespace: str | None = None


def chosen(toolbox: Toolbox, ref: Ref) -> Offered:
    """Raises a conflict about `tool_choice` where there is no such tool."""
    found = toolbox.find(ref)
    if found is None:
        near = nearest(ref.name, [one.name for one in toolbox.offered])
        hint = f" Did you mean {near}?" if near is not None else ""
        raise conflict("tool_choice", f"`tool_choice` names a {ref.kind} that isn't in `tools`.{hint}")
    return found


def allowed(toolbox: Toolbox, refs: Iterable[Ref]) -> list[Offered]:
    """The tools that a `tool_choice` allows. Raises as `chosen` does."""
    told: set[str] = set()
    for ref in refs:
        if ref.kind == "namespace" and any(one.namespace == ref.name for one in toolbox.offered):
            told.update(one.told for one in toolbox.offered if one.namespace == ref.name)
        elif ref.kind in OWN:
            told.add(chosen(toolbox, ref).told)
    return [one for one in toolbox.offered if one.told in told]
