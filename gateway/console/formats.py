"""How pages write money, numbers and times."""

from decimal import Decimal

from gateway.models.parameters import Number, Parameter
from pricing.balance import UTC, Limit, LimitKind
from pricing.clock import iso_time
from pricing.money import Picodollars, format_usd

LIMITS = {
    LimitKind.NONE: "no limit",
    LimitKind.PREPAID: "prepaid",
    LimitKind.HOUR: "an hour",
    LimitKind.DAY: "a day",
    LimitKind.WEEK: "a week",
    LimitKind.MONTH: "a month",
    LimitKind.TOTAL: "in all",
}


def usd(amount: int) -> str:
    """Exactly: "$0.00035493"."""
    text = format_usd(Picodollars(amount))
    return f"-${text[1:]}" if text.startswith("-") else f"${text}"


def short_usd(amount: int) -> str:
    """For the eye, where the exact amount stands elsewhere: two decimals, or four significant digits below a cent."""
    value = Decimal(amount) / 10**12
    if value == 0:
        return "$0.00"
    if abs(value) >= Decimal("0.01"):
        return f"${value:,.2f}"
    digits = f"{value:.{3 - value.adjusted()}f}".rstrip("0")
    return f"${digits}"


def per_million(picodollars_per_token: int) -> str:
    """A picodollar per token is a microdollar per million tokens: "$0.13"."""
    return usd(picodollars_per_token * 10**6)


def number(value: int) -> str:
    return f"{value:,}"


def when(at: int | None) -> str:
    """To the second, in UTC: "2026-11-20 12:34:56"."""
    return "" if at is None else iso_time(at)[:19].replace("T", " ")


def limit(value: Limit) -> str:
    """ "$25.00 a month"."""
    if value.kind is LimitKind.NONE:
        return LIMITS[value.kind]
    zone = "" if value.zone == UTC else f" in {value.zone}"
    return f"{usd(value.amount)} {LIMITS[value.kind]}{zone}{f' on {value.model}' if value.model is not None else ''}"


def value(given: object) -> str:
    """A default, as one would write it in JSON: 1, not 1.0."""
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    return str(given)


def bounds(name: str, schema: dict[str, object]) -> str:
    """The range of a field by its JSON schema: "0 ≤ temperature ≤ 2"; "" where it has none."""
    low = _side(schema, "minimum", "≤") or _side(schema, "exclusiveMinimum", "<")
    high = _side(schema, "maximum", "≤") or _side(schema, "exclusiveMaximum", "<")
    if not low and not high:
        return ""
    left = f"{low[0]} {low[1]} " if low else ""
    right = f" {high[1]} {high[0]}" if high else ""
    return f"{left}{name}{right}"


def step(parameter: Parameter) -> str:
    """How far a slider's or a number field's step goes."""
    if parameter.kind == "integer":
        return "1"
    return "0.01" if _finite(parameter.maximum) <= 10 else "0.1"


def _finite(bound: Number | None) -> Number:
    return 100 if bound is None else bound


def _side(schema: dict[str, object], name: str, sign: str) -> tuple[str, str] | None:
    return (value(schema[name]), sign) if name in schema else None
