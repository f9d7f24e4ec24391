"""The OpenAI routes, under `/v1/` and `/v1/openai/`."""

from gateway.exchange import Exchange
from gateway.generations import Part
from gateway.jobs import fit_to_context
from gateway.openapi.operation import EVENTS, JSON, Operation, documented
from gateway.protocol import answers
from gateway.protocol.chat import ChatBody
from gateway.protocol.chat_answer import ChatChunks, chat_completion
from gateway.protocol.checks import parse_json, validate
from gateway.protocol.completions import CompletionBody
from gateway.protocol.completions_answer import CompletionChunks, completion
from gateway.routes.common import new_id, served_model

TAG = "Chat and completions"


@documented(
    Operation(
        TAG,
        "Answer a conversation",
        "With `stream: true` the answer comes as events. `usage` rides on the chunk that ends the last choice; with "
        "`stream_options.include_usage: true` it comes OpenAI's way, in a last chunk without choices.",
        body=ChatBody,
        ranges="openai",
        answers={JSON: answers.ChatCompletion, EVENTS: answers.ChatChunk},
        admitted=True,
    )
)
async def chat_completions(exchange: Exchange) -> None:
    """`POST .../chat/completions`."""
    values = parse_json(exchange.body)
    served = served_model(exchange, values)
    body = validate(ChatBody, values, served.model.profile.openai)
    await exchange.admit(served, body.n * (body.top_logprobs or 0))
    prompt = await served.renderer.chat(body.conversation())
    sampling = body.sampling(fit_to_context(served, prompt, body.tokens_wanted), body.logprobs_wanted)
    async with exchange.generate(
        new_id("chatcmpl"), served, prompt, sampling, stream=body.stream, user=body.user
    ) as metered:
        if body.stream:
            await exchange.stream(metered, ChatChunks(metered, body))
        else:
            await exchange.respond(await chat_completion(metered, body))


@documented(
    Operation(
        TAG,
        "Go on from a text or several",
        "Several prompts are one request; the choices are numbered prompt by prompt.",
        body=CompletionBody,
        ranges="openai",
        answers={JSON: answers.Completion, EVENTS: answers.CompletionChunk},
        admitted=True,
    )
)
async def completions(exchange: Exchange) -> None:
    """`POST .../completions`. Several prompts are one request: one reservation, one entry, one bill."""
    values = parse_json(exchange.body)
    served = served_model(exchange, values)
    body = validate(CompletionBody, values, served.model.profile.openai)
    await exchange.admit(served, len(body.prompt) * body.n * (body.logprobs or 0))
    parts = [
        Part(prompt, body.sampling(fit_to_context(served, prompt, body.max_tokens, "prompt"), body.logprobs))
        for prompt in await body.render(served.renderer, exchange.gateway.settings.prompts_max)
    ]
    async with exchange.run(exchange.job(new_id("cmpl"), served, parts, stream=body.stream, user=body.user)) as metered:
        if body.stream:
            await exchange.stream(metered, CompletionChunks(metered, body))
        else:
            await exchange.respond(await completion(metered, body))
