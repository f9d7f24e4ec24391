"""The OpenAI routes, under `/v1/` and `/v1/openai/`."""

from gateway.encoders.chat import ChatChunks, chat_completion
from gateway.encoders.completions import CompletionChunks, completion
from gateway.models.fleet import Served
from gateway.protocol.chat import ChatBody
from gateway.protocol.completions import CompletionBody
from gateway.protocol.operation import EVENTS, JSON, Operation, documented
from gateway.request.exchange import Exchange
from gateway.request.generations import Part
from gateway.request.jobs import fit_to_context
from gateway.routes.common import new_id
from gateway.schemas import openai as answers

TAG = "Chat and completions"


@documented(
    Operation(
        TAG,
        "Answer a conversation",
        "With `stream: true` the answer comes as events. `usage` rides on the chunk that ends the last choice; with "
        "`stream_options.include_usage: true` it comes OpenAI's way, in a last chunk without choices.",
        body=ChatBody,
        answers={JSON: answers.ChatCompletion, EVENTS: answers.ChatChunk},
        admitted=True,
    )
)
async def chat_completions(exchange: Exchange, served: Served, body: ChatBody) -> None:
    """`POST .../chat/completions`."""
    exchange.context.ignore(body.left_out)
    prompt = await served.renderer.chat(body.prompt_source())
    sampling = body.sampling(fit_to_context(served, prompt, body.tokens_wanted), logprobs=body.logprobs_wanted)
    job = exchange.job(new_id("chatcmpl"), served, [Part(prompt, sampling)], stream=body.stream, user=body.user)
    async with exchange.pipeline.run(job) as metered:
        if body.stream:
            await exchange.stream(metered, ChatChunks(metered, body))
        else:
            await exchange.respond(await chat_completion(metered, body))


@documented(
    Operation(
        TAG,
        "Go on from a text or several",
        "Several prompts are one request; the choices are numbered prompt by prompt. `echo` with `logprobs` gives "
        "the log probabilities of the prompt's tokens too; nothing of such a prompt comes from the prefix cache.",
        body=CompletionBody,
        answers={JSON: answers.Completion, EVENTS: answers.CompletionChunk},
        admitted=True,
    )
)
async def completions(exchange: Exchange, served: Served, body: CompletionBody) -> None:
    """`POST .../completions`. Several prompts are one request: one reservation, one entry, one bill."""
    settings = exchange.settings
    wanted = {"logprobs": body.logprobs, "prompt_logprobs": body.logprobs if body.echo else None}
    parts = [
        Part(prompt, body.sampling(fit_to_context(served, prompt, body.max_tokens, "prompt"), **wanted))
        for prompt in await body.render(served.renderer, settings.prompts_max, settings.prompt_logprobs_max)
    ]
    job = exchange.job(new_id("cmpl"), served, parts, stream=body.stream, user=body.user)
    async with exchange.pipeline.run(job) as metered:
        chunks = CompletionChunks(metered, body)
        if body.stream and body.scores_prompt:
            await exchange.stream_from(chunks.with_prompts())
        elif body.stream:
            await exchange.stream(metered, chunks)
        else:
            await exchange.respond(await completion(metered, body))
