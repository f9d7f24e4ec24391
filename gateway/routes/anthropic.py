"""Anthropic's Messages API, under `/v1/messages` and `/anthropic/v1/messages`."""

from gateway.encoders.messages import MessageEvents, message
from gateway.models.fleet import Served
from gateway.protocol.anthropic import CountTokensBody, MessagesBody
from gateway.protocol.operation import EVENTS, JSON, Operation, documented
from gateway.request.exchange import Exchange
from gateway.request.generations import Part
from gateway.request.jobs import fit_to_context
from gateway.routes.common import new_id
from gateway.schemas import anthropic as answers

TAG = "Anthropic"
ERRORS = dict.fromkeys((400, 401, 402, 403, 404, 409, 413, 415, 422, 429, 500, 503), answers.AnthropicError)


@documented(
    Operation(
        TAG,
        "Answer a conversation, in Anthropic's format",
        "The model's own parameter ranges hold. `usage` has `estimated_cost`; in a stream it comes with the event "
        "`message_delta`. A conversation that ends with an assistant's message is gone on from there.",
        body=MessagesBody,
        answers={JSON: answers.Message, EVENTS: answers.MessageEvent},
        others=ERRORS,
        admitted=True,
    )
)
async def messages(exchange: Exchange, served: Served, body: MessagesBody) -> None:
    """`POST /v1/messages`."""
    conversation, left_out = body.prompt_source()
    exchange.context.ignore(left_out)
    prompt = await served.renderer.chat(conversation)
    sampling = body.sampling(fit_to_context(served, prompt, body.max_tokens))
    job = exchange.job(new_id("msg", "_"), served, [Part(prompt, sampling)], stream=body.stream, user=body.user)
    async with exchange.pipeline.run(job) as metered:
        if body.stream:
            await exchange.stream(metered, MessageEvents(metered, body.model))
        else:
            await exchange.respond(await message(metered, body.model))


@documented(
    Operation(
        TAG,
        "Count a prompt's tokens, in Anthropic's format",
        "Free of charge; it counts as a request.",
        body=CountTokensBody,
        answers={JSON: answers.TokenCount},
        others=ERRORS,
        admitted=True,
    )
)
async def count_tokens(exchange: Exchange, served: Served, body: CountTokensBody) -> None:
    """`POST /v1/messages/count_tokens`."""
    conversation, left_out = body.prompt_source()
    exchange.context.ignore(left_out)
    prompt = await served.renderer.chat(conversation)
    await exchange.respond({"input_tokens": prompt.tokens})
