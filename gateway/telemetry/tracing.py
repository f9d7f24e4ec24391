"""Traces: which spans a request has, and what there is of them while tracing is off: nothing.

    POST /v1/chat/completions       child of the client's `traceparent`
    ├── auth
    ├── render                      limits, chat template, tokens
    ├── reserve                     until the reservation is durable, beside what follows
    ├── generate                    until the last token
    │   ├── first_token
    │   └── llm_request             vLLM's own, with its queue, prefill and decode times
    └── settle

`gateway.telemetry.spans` makes them, with OpenTelemetry, which is imported only where FAREBOX_OTLP_ENDPOINT is set. No
attribute holds a prompt, an answer or a key.
"""

from collections.abc import Mapping
from typing import Protocol

from gateway.settings import Settings, SettingsError


class Trace:
    """The spans of one request. This one has none."""

    on = False

    def begin(self, name: str, parent: str = "") -> None:
        """Begin a span under the request's, or under the open span `parent`."""

    def end(self, name: str) -> None:
        """End it, if it is open."""

    def headers(self, sent: Mapping[str, str]) -> Mapping[str, str]:
        """The trace context for the engine: what the client `sent`, or our own `generate` span's."""
        return sent

    def close(self, attributes: Mapping[str, str | int | float]) -> None:
        """End the request's own span, with these attributes."""


class Tracing(Protocol):
    """Where traces come from."""

    def request(self, name: str, headers: Mapping[str, str]) -> Trace:
        """The trace of a request that has just come, with the client's headers."""

    async def close(self) -> None:
        """Send what has not been sent."""


class NoTracing:
    """Tracing that is off."""

    def request(self, name: str, headers: Mapping[str, str]) -> Trace:
        return UNTRACED

    async def close(self) -> None:
        return


UNTRACED = Trace()


def open_tracing(settings: Settings, release: str) -> Tracing:
    """Raises SettingsError where traces are asked for and the packages for them aren't installed."""
    if settings.traces_url is None:
        return NoTracing()
    try:
        from gateway.telemetry.spans import SpanTracing
    except ImportError as error:
        raise SettingsError(
            f"FAREBOX_OTLP_ENDPOINT is set, but {error.name} isn't installed. Install farebox[tracing], or unset it."
        ) from None
    return SpanTracing(settings.traces_url, release)
