"""Spans with OpenTelemetry, sent in batches by a thread of their own. Only `gateway.telemetry.tracing` imports this."""

import asyncio
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.telemetry.tracing import Trace

EXPORT_SECONDS_MAX = 5  # for one batch; a collector that is away must not hold the exit
_W3C = TraceContextTextMapPropagator()


class SpanTracing:
    """A provider of its own: vLLM, in the same process, sets the global one."""

    def __init__(self, traces_url: str, release: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "farebox", "service.version": release}), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=traces_url, timeout=EXPORT_SECONDS_MAX)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("farebox", release)

    def request(self, name: str, headers: Mapping[str, str]) -> Trace:
        # What isn't a valid traceparent is as good as none.
        parent = _W3C.extract(dict(headers))
        return RecordedTrace(self._tracer, self._tracer.start_span(name, parent, SpanKind.SERVER))

    async def close(self) -> None:
        await asyncio.to_thread(self._provider.shutdown)


class RecordedTrace(Trace):
    """The spans of one request: one under the client's, the others under that."""

    on = True

    def __init__(self, tracer: Tracer, request: Span) -> None:
        self._tracer = tracer
        self._request = request
        self._open: dict[str, Span] = {}

    def begin(self, name: str, parent: str = "") -> None:
        self._open[name] = self._tracer.start_span(name, self._context(parent))

    def end(self, name: str) -> None:
        if (span := self._open.pop(name, None)) is not None:
            span.end()

    def headers(self, sent: Mapping[str, str]) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, self._context("generate"))
        return carrier

    def close(self, attributes: Mapping[str, str | int | float]) -> None:
        self.end("auth")
        self.end("render")
        self.end("reserve")  # it was refused; the others are the pipeline's, which for a webhook goes on
        self._request.set_attributes(attributes)
        self._request.end()

    def _context(self, parent: str) -> Context:
        return set_span_in_context(self._open.get(parent, self._request), Context())
