"""OpenAI's Responses API, under `/v1/responses` and `/v1/openai/responses`. Nothing is kept on the server."""

from gateway.encoders.response_items import OutputItems
from gateway.encoders.responses import ResponseEvents, response
from gateway.models.fleet import Served
from gateway.protocol.operation import EVENTS, JSON, Operation, documented
from gateway.protocol.responses import ResponsesBody
from gateway.request.exchange import Exchange
from gateway.request.generations import Part
from gateway.request.jobs import fit_to_context
from gateway.routes.common import new_id
from gateway.schemas import responses as answers


@documented(
    Operation(
        "Responses",
        "Answer a conversation, as the Responses API does",
        "Send the whole conversation: there is no `previous_response_id`, no `store: true`, no `background`. Tools of "
        "the types `function`, `custom` and `namespace` are run by the client; others, such as `web_search`, are left "
        "out and named in the header `farebox-ignored`. `usage` has `estimated_cost`.",
        body=ResponsesBody,
        answers={JSON: answers.ResponseObject, EVENTS: answers.StreamEvent},
        admitted=True,
    )
)
async def responses(exchange: Exchange, served: Served, body: ResponsesBody) -> None:
    """`POST .../responses`."""
    conversation, toolbox = body.prompt_source()
    exchange.context.ignore(toolbox.left_out)
    prompt = await served.renderer.chat(conversation)
    sampling = body.sampling(fit_to_context(served, prompt, body.max_output_tokens, "input"))
    job = exchange.job(new_id("resp", "_"), served, [Part(prompt, sampling)], stream=body.stream, user=body.user)
    async with exchange.pipeline.run(job) as metered:
        items = OutputItems(toolbox, served.tokens.chat, encrypted=body.wants_encrypted_reasoning, streamed=body.stream)
        exchange.context.next_number = lambda: items.number
        if body.stream:
            await exchange.stream(metered, ResponseEvents(metered, body, items))
        else:
            await exchange.respond(await response(metered, body, items))
