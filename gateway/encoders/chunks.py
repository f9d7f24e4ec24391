"""What the chunks of OpenAI's two streams have in common."""

import json
import time
from json.encoder import encode_basestring as quote

from gateway.encoders.usage import usage_fields
from gateway.request.metered_generation import Metered

DONE = b"data: [DONE]\n\n"


def chunk_head(kind: str, metered: Metered, model: str) -> str:
    """How each chunk of an answer begins, up to its choices."""
    return (
        f'data: {{"id":{quote(metered.job.request_id)},"object":{quote(kind)},"created":{int(time.time())},'
        f'"model":{quote(model)},"choices":['
    )


def chunk_tail(include_usage: bool | None) -> str:
    """How it ends: with include_usage, OpenAI puts `usage: null` on every chunk but the last."""
    return ',"usage":null}\n\n' if include_usage else "}\n\n"


def usage_tail(metered: Metered) -> str:
    """How the chunk ends that the usage rides on."""
    return f',"usage":{json.dumps(usage_fields(metered.counts, metered.cost))}}}\n\n'


def compact(fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
