"""Probes and metrics. Open to all: they tell nothing about keys, clients or prompts."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.base import EngineState
from gateway.protocol.operation import JSON, Operation, documented
from gateway.schemas.openai import Health, Liveness
from gateway.state import Gateway

TAG = "Operation"


@documented(Operation(TAG, "Whether the process lives", answers={JSON: Liveness}, others={503: Liveness}))
async def live(request: Request) -> JSONResponse:
    """The process answers. A slow load doesn't make it fail; only a dead engine, which a restart helps."""
    dead = [name for name, state in _gateway(request).fleet.states.items() if state is EngineState.DEAD]
    return JSONResponse({"status": "dead" if dead else "ok"}, status_code=503 if dead else 200)


@documented(Operation(TAG, "Whether it can serve now", answers={JSON: Health}, others={503: Health}))
async def ready(request: Request) -> JSONResponse:
    """Every engine has generated a token, the ledger commits, and no shutdown is under way."""
    gateway = _gateway(request)
    problems = gateway.problems()
    body = {
        "status": "unready" if problems else "ready",
        "problems": problems,
        "models": {name: state.value for name, state in gateway.fleet.states.items()},
    }
    headers = {"retry-after": "5"} if problems else None
    return JSONResponse(body, status_code=503 if problems else 200, headers=headers)


@documented(Operation(TAG, "Metrics for Prometheus", answers={"text/plain": None}))
async def metrics(request: Request) -> Response:
    """The metrics of the gateway, all of its workers, and vLLM's (`vllm:*`)."""
    return Response(_gateway(request).metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
