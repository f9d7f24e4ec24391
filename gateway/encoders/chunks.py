"""What the chunks of OpenAI's two streams have in common."""

import json
import time
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring as quote

from gateway.encoders.usage import usage_fields
from gateway.request.metered_generation import Metered
from gateway.schemas.openai import ChatCompletion, Completion

DONE = b"data: [DONE]\n\n"


def chunk_head(kind: str, metered: Metered, model: str) -> str:
    """How each chunk of an answer begins, up to its choices."""
    return (
        f'data: {{"id":{quote(metered.job.request_id)},"object":{quote(kind)},"created":{int(time.time())},'
        f'"model":{quote(model)},"service_tier":{quote(metered.job.tier.value)},"choices":['
    )


def chunk_tail(include_usage: bool | None) -> str:
    """How it ends: with include_usage, OpenAI puts `usage: null` on every chunk but the last."""
    return ',"usage":null}\n\n' if include_usage else "}\n\n"


def usage_tail(metered: Metered) -> str:
    """How the chunk ends that the usage rides on."""
    return f',"usage":{json.dumps(usage_fields(metered.counts, metered.cost))}}}\n\n'


def compact(fields: object) -> str:
    """As JSON without spaces."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def around(fields: Mapping[str, object], name: str) -> tuple[str, str]:
    """The JSON of a document up to the items of its list `name`, and what comes after them. It is empty here."""
    before, after = compact(fields).split(f'"{name}":[]')
    return f'{before}"{name}":[', f"]{after}"


def with_logprobs(answer: ChatCompletion | Completion, written: Iterable[str]) -> bytes:
    """The JSON of an answer, with the log probabilities of each choice as they are written."""
    head, tail = around({**answer, "choices": []}, "choices")
    choices = [
        f"{compact(choice).removesuffix('null}')}{logprobs}}}"
        for choice, logprobs in zip(answer["choices"], written, strict=True)
    ]
    return f"{head}{','.join(choices)}{tail}".encode()
