"""Tokens without an answer: counted, shown, and turned back into text. Free of charge; each counts as a request."""

import asyncio
import json
from dataclasses import asdict
from typing import Any

from engine.base import Prompt, Sampling
from gateway.models.fleet import Served
from gateway.protocol.chat import ChatBody
from gateway.protocol.completions import CompletionBody
from gateway.protocol.operation import JSON, Operation, documented
from gateway.protocol.responses import ResponsesBody
from gateway.protocol.tokens import DetokenizeBody, TokenizeBody
from gateway.request.exchange import Exchange
from gateway.request.jobs import check_fits, fit_to_context
from gateway.routes.common import new_id
from gateway.schemas import tokens as answers

TAG = "Tokens"
FREE = "Free of charge; it counts as a request."


@documented(
    Operation(
        TAG,
        "The tokens of a text or a conversation, as vLLM tells them",
        FREE,
        body=TokenizeBody,
        task=None,
        answers={JSON: answers.Tokens},
        admitted=True,
    )
)
async def tokenize(exchange: Exchange, served: Served, body: TokenizeBody) -> None:
    """`POST /tokenize`."""
    renderer, conversation = served.renderer, body.prompt_source()
    if conversation is not None:
        prompt = await renderer.chat(conversation)
    else:
        prompt = await renderer.text(body.prompt or "", special_tokens=body.add_special_tokens is not False)
    ids = list(renderer.prompt_ids(prompt))
    found: answers.Tokens = {
        "count": len(ids),
        "max_model_len": served.context_length,
        "tokens": ids,
        "token_strs": renderer.token_names(ids) if body.return_token_strs else None,
    }
    await _respond(exchange, found)


@documented(
    Operation(
        TAG,
        "The text of tokens",
        FREE,
        body=DetokenizeBody,
        task=None,
        answers={JSON: answers.DetokenizedText},
        admitted=True,
    )
)
async def detokenize(exchange: Exchange, served: Served, body: DetokenizeBody) -> None:
    """`POST /detokenize`."""
    prompt = served.renderer.token_ids(body.tokens, "tokens")
    check_fits(served, prompt, "tokens")
    await exchange.respond({"prompt": served.renderer.decoded(prompt)})


@documented(
    Operation(
        TAG,
        "Count a prompt's tokens, as the Responses API does",
        FREE,
        body=ResponsesBody,
        answers={JSON: answers.InputTokens},
        admitted=True,
    )
)
async def input_tokens(exchange: Exchange, served: Served, body: ResponsesBody) -> None:
    """`POST .../responses/input_tokens`."""
    conversation, toolbox = body.prompt_source()
    exchange.context.ignore(toolbox.left_out)
    prompt = await served.renderer.chat(conversation)
    await exchange.respond({"object": "response.input_tokens", "input_tokens": prompt.tokens})


@documented(
    Operation(
        TAG,
        "What a chat request would ask the engine",
        f"The prompt's tokens, for routers that look for a prefix. {FREE}",
        body=ChatBody,
        answers={JSON: answers.RenderedRequest},
        admitted=True,
    )
)
async def render_chat(exchange: Exchange, served: Served, body: ChatBody) -> None:
    """`POST .../chat/completions/render`."""
    prompt = await served.renderer.chat(body.prompt_source())
    sampling = body.sampling(fit_to_context(served, prompt, body.tokens_wanted), logprobs=body.logprobs_wanted)
    await _respond(exchange, _rendered(served, "chatcmpl", prompt, sampling, body.stream))


@documented(
    Operation(
        TAG,
        "What a completion request would ask the engine",
        f"One for each prompt. {FREE}",
        body=CompletionBody,
        answers={JSON: list[answers.RenderedRequest]},
        admitted=True,
    )
)
async def render_completion(exchange: Exchange, served: Served, body: CompletionBody) -> None:
    """`POST .../completions/render`."""
    settings = exchange.settings
    prompts = await body.render(served.renderer, settings.prompts_max, settings.prompt_logprobs_max)
    found = []
    for prompt in prompts:
        sampling = body.sampling(fit_to_context(served, prompt, body.max_tokens, "prompt"), logprobs=body.logprobs)
        found.append(_rendered(served, "cmpl", prompt, sampling, body.stream))
    await _respond(exchange, found)


def _rendered(served: Served, kind: str, prompt: Prompt, sampling: Sampling, stream: bool) -> answers.RenderedRequest:
    return {
        "request_id": new_id(kind),
        "model": served.model.name,
        "token_ids": list(served.renderer.prompt_ids(prompt)),
        "sampling_params": _told(sampling),
        "stream": stream,
        "features": None,
    }


def _told(sampling: Sampling) -> dict[str, Any]:
    """By the engine's names, as JSON can say them; of those that are always there, the ones not at their defaults."""
    plain = asdict(Sampling(sampling.max_tokens))
    own = {name: value for name, value in asdict(sampling).items() if name == "max_tokens" or value != plain[name]}
    own.pop("more", None)
    return own | dict(sampling.more)


async def _respond(exchange: Exchange, found: object) -> None:
    """A long prompt is written in a thread, so that others get their turn."""
    await exchange.respond(await asyncio.to_thread(_json, found))


def _json(found: object) -> bytes:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
