"""What a top-level field meets that is neither declared by a body nor one of the model's parameters.

One table for each route, from which checks and documents are made. A hint is accepted: the answer is right without it.
A refused field would make the answer another one than was asked for. What is in no table and near no known name is
accepted too, and named to the client in the header `farebox-ignored`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.schema import NOTHING, NULL

Unsupported = tuple[str, str, object]  # the field, why not, and what was sent

HEADER = "farebox-ignored"
NAME_CHARACTERS_MAX = 64
NAMES_MAX = 20

# Values that plainly mean "off": clients send them for what they don't use.
EMPTY: tuple[object, ...] = ("", [], {})


@dataclass(frozen=True, slots=True)
class FieldTable:
    """`hints` say what a field is, `refused` why it can't be honoured."""

    hints: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: "FieldTable") -> "FieldTable":
        """Both; `other` wins."""
        hints = {name: text for name, text in self.hints.items() if name not in other.refused}
        refused = {name: text for name, text in self.refused.items() if name not in other.hints}
        return FieldTable({**hints, **other.hints}, {**refused, **other.refused})

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.hints) | frozenset(self.refused)

    def refusals(self, values: Mapping[str, object]) -> Iterator[Unsupported]:
        """Of the fields that can't be honoured, those that ask for something."""
        return (
            (name, reason, values[name])
            for name, reason in self.refused.items()
            if name in values and values[name] not in EMPTY and values[name] is not False
        )

    def describe(self, schema: dict[str, Any]) -> None:
        """Adds the fields to a body's JSON schema."""
        properties = schema.setdefault("properties", {})
        for name, text in self.hints.items():
            properties.setdefault(name, {"description": f"{text} Accepted; it changes nothing in the answer."})
        for name, reason in self.refused.items():
            off = [NULL, {"type": "boolean", "const": False}, *NOTHING]
            properties.setdefault(name, {"anyOf": off, "description": f"Can't be honoured: {reason}."})


NO_FIELDS = FieldTable()

OPENAI = FieldTable(
    hints={
        "metadata": "Pairs that OpenAI keeps with an answer.",
        "safety_identifier": "Who is behind the request, for OpenAI's own checks.",
        "prompt_cache_key": "Requests with one key share a prefix at OpenAI. Here the model card says who shares.",
        "prompt_cache_retention": "How long a prefix is kept. Here it is kept while it fits.",
        "prompt_cache_options": "How long a prefix is kept. Here it is kept while it fits.",
        "client_metadata": "What an agent says of itself.",
        "verbosity": "How long OpenAI's models should answer.",
        "add_generation_prompt": "vLLM's: whether the template opens the answer; it does unless one is gone on from.",
        "guided_decoding_backend": "vLLM's: which library keeps to a structure. The model card says.",
    },
    refused={
        "prediction": "predicted outputs are not supported",
        "moderation": "this gateway doesn't moderate",
        "guided_json": "it was replaced by `structured_outputs` or `response_format`",
        "guided_regex": "it was replaced by `structured_outputs` or `response_format`",
        "guided_choice": "it was replaced by `structured_outputs`",
        "guided_grammar": "grammars are not supported; a JSON schema or a regular expression is",
    },
)

CHAT = OPENAI | FieldTable(
    hints={"function_call": "OpenAI's older `tool_choice`; anything but none and auto is refused."},
    refused={
        "audio": "this model writes text only",
        "functions": "it was replaced by `tools`",
    },
)

COMPLETIONS = OPENAI | FieldTable(refused={"suffix": "this model doesn't fill in the middle"})

_FORGETS = "this gateway keeps no answers; send the whole conversation as `input`"

RESPONSES = OPENAI | FieldTable(
    hints={
        "context_management": "When OpenAI shortens a conversation. Nothing is shortened here.",
        "max_tool_calls": "How many built-in tools may run. None runs here.",
    },
    refused={
        "previous_response_id": _FORGETS,
        "conversation": _FORGETS,
        "prompt": "this gateway keeps no prompt templates",
    },
)

MESSAGES = FieldTable(
    hints={
        "context_management": "When old thinking and tool results are cleared. Nothing is cleared here.",
        "speed": "How fast Anthropic answers.",
        "diagnostics": "Asks Anthropic for details of its own.",
        "user_profile_id": "Who is behind the request, for Anthropic's own checks.",
        "workspace_id": "Where Anthropic counts the request.",
        "billing_policy": "How Anthropic bills the request.",
        "fallbacks": "Models of Anthropic's that would answer in place of one that can't.",
        "fallback_credit_token": "What Anthropic gives back for an answer of such a model.",
        "betas": "What Anthropic's SDKs send in the header `anthropic-beta`.",
        "mcp_servers": "Servers whose tools Anthropic would call. They are left out, and named in `farebox-ignored`.",
    },
    refused={
        "container": "this gateway runs no containers",
        "thread": "this gateway keeps no conversations; send the whole of it as `messages`",
        "compaction": "this gateway shortens no conversations",
        "inference_geo": "it runs where this gateway runs",
    },
)

EMBEDDINGS = FieldTable(refused={"stream": "a vector isn't streamed"})

_UNCUT = "texts aren't cut; send a shorter one"

SCORE = FieldTable(
    hints={
        "encoding_format": "How vectors are written. A score is a number.",
        "priority": "vLLM's: which requests come first.",
    },
    refused={
        "max_tokens_per_doc": _UNCUT,
        "max_tokens_per_query": _UNCUT,
        "truncate_prompt_tokens": _UNCUT,
        "instruction": "the model card's `chat_template` lays a pair out",
        "chat_template_kwargs": "the model card's `chat_template` lays a pair out",
        "use_activation": "a score is what the model makes of it",
    },
)

TOKENIZE = FieldTable(
    hints={
        "media_io_kwargs": "vLLM's: how images are read.",
        "mm_processor_kwargs": "vLLM's: how images are prepared.",
    },
    refused={"chat_template": "a request can't bring its own chat template"},
)


def ignored_header(names: Sequence[str]) -> tuple[bytes, bytes]:
    return HEADER.encode(), ", ".join(names).encode()


def ignored_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names for a header and a log line: ASCII, short, and not many."""
    shown = tuple(_plain(name) for name in names[:NAMES_MAX])
    more = len(names) - len(shown)
    return (*shown, f"{more} more") if more else shown


def _plain(name: str) -> str:
    shortened = name[:NAME_CHARACTERS_MAX]
    return "".join(letter if " " <= letter <= "~" and letter not in ',"' else "?" for letter in shortened)
