"""The native route: `POST /v1/inference/{model}`, and the secret that its webhooks are signed with."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.encoders.native import NativeEvents, native_result, queued
from gateway.models.fleet import Served
from gateway.protocol.native import NativeBody
from gateway.protocol.operation import EVENTS, JSON, Operation, documented
from gateway.request.exchange import Exchange
from gateway.request.generations import Part
from gateway.request.jobs import fit_to_context
from gateway.routes.common import new_id
from gateway.schemas import openai as answers
from gateway.state import Gateway

TAG = "Native"


@documented(
    Operation(
        TAG,
        "Go on from a text, the native way",
        "`input` is the prompt as it is. With `stream: true` each token is an event; with `webhook` the answer is "
        "`queued`, and the result goes to that URL.",
        body=NativeBody,
        answers={JSON: answers.Inference, EVENTS: answers.InferenceEvent},
        admitted=True,
    )
)
async def infer(exchange: Exchange, served: Served, body: NativeBody) -> None:
    """`POST /v1/inference/{model}`."""
    prompt = await served.renderer.text(body.input, body.constraint, "input")
    room = fit_to_context(served, prompt, body.max_new_tokens, "input")
    # Streamed tokens carry their ids and log probabilities.
    sampling = body.sampling(room, logprobs=0 if body.stream else None)
    job = exchange.job(new_id("inf"), served, [Part(prompt, sampling)], stream=body.stream, user=None)
    if body.webhook is not None:
        await exchange.webhooks.start(job, body.webhook, native_result)
        await exchange.respond(queued(job))
        return
    async with exchange.pipeline.run(job) as metered:
        if body.stream:
            await exchange.stream(metered, NativeEvents(metered))
        else:
            await exchange.respond(await native_result(metered))


@documented(
    Operation(TAG, "What your key's webhooks are signed with", answers={JSON: answers.WebhookSecret}, errors=(400,))
)
async def webhook_secret(request: Request) -> JSONResponse:
    """`GET /v1/webhooks/secret`: what the calls for this key are signed with."""
    gateway: Gateway = request.app.state.gateway
    return JSONResponse({"secret": gateway.webhooks.secret_of(request.scope["farebox.key"])})
