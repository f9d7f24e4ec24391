"""`GET /v1/usage` and `GET /v1/requests/{id}`: what a key spent, and one request of it."""

import csv
import io
from collections.abc import Sequence

from gateway.protocol.admin import total_fields
from pricing.clock import iso_time
from pricing.money import format_usd
from pricing.price import Price
from pricing.usage import Dimension, RequestRecord, UsageTotal

COUNTED = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")
COLUMN_OF: dict[Dimension, str] = {
    "day": "day",
    "hour": "hour",
    "account": "account_id",
    "key": "key_id",
    "model": "model",
    "user": "user",
}


def usage_report(rows: Sequence[UsageTotal], total: UsageTotal) -> dict[str, object]:
    return {"object": "usage", "data": [total_fields(row) for row in rows], "total": total_fields(total)}


def usage_csv(rows: Sequence[UsageTotal], by: Sequence[Dimension]) -> str:
    """RFC 4180, with a header line."""
    columns = [*(COLUMN_OF[dimension] for dimension in by), *COUNTED]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(total_fields(row) for row in rows)
    return text.getvalue()


def request_fields(record: RequestRecord) -> dict[str, object]:
    """One request as the ledger has it; while it runs, its tokens are at most a second old."""
    return {
        "object": "request",
        "id": record.request_id,
        "model": record.model,
        "route": record.route,
        "user": record.user,
        "key_id": record.key_id,
        "tier": record.tier.value,
        "state": record.state,
        "outcome": record.outcome,
        "reason": record.reason,
        "usage": {
            "prompt_tokens": record.tokens.prompt,
            "completion_tokens": record.tokens.completion,
            "total_tokens": record.tokens.prompt + record.tokens.completion,
            "prompt_tokens_details": {"cached_tokens": record.tokens.cached},
        },
        "cost_usd": format_usd(record.cost),
        "reserved_usd": format_usd(record.reserved),
        "price_usd_per_million_tokens": price_texts(record.price),
        "started_at": iso_time(record.started_at),
        "settled_at": None if record.settled_at is None else iso_time(record.settled_at),
    }


def price_texts(price: Price) -> dict[str, str]:
    """A picodollar per token is a microdollar per million tokens."""
    prices = {"input": price.input, "output": price.output, "cached_input": price.cached_input}
    return {name: f"{value // 10**6}.{value % 10**6:06d}" for name, value in prices.items()}
