"""OpenAI's Responses API, under `/v1/responses` and `/v1/openai/responses`. Nothing is kept on the server."""

from engine.formats import responses_format
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
        "Send the whole conversation: there is no `previous_response_id`, no `store: true`, no `background`, and no "
        "tool that runs here. `usage` has `estimated_cost`.",
        body=ResponsesBody,
        answers={JSON: answers.ResponseObject, EVENTS: answers.StreamEvent},
        errors=(501,),
        admitted=True,
    )
)
async def responses(exchange: Exchange, served: Served, body: ResponsesBody) -> None:
    """`POST .../responses`."""
    form = await responses_format()
    fields, continues = body.prompt_source()
    conversation = await exchange.turn.run(form.conversation, fields, continue_final=continues)
    prompt = await served.renderer.chat(conversation)
    sampling = body.sampling(fit_to_context(served, prompt, body.max_output_tokens, "input"))
    job = exchange.job(new_id("resp", "_"), served, [Part(prompt, sampling)], stream=body.stream, user=body.user)
    async with exchange.pipeline.run(job) as metered:
        items = form.items(served.tokens.chat)
        exchange.context.next_number = lambda: items.number
        if body.stream:
            await exchange.stream(metered, ResponseEvents(metered, body, items))
        else:
            await exchange.respond(await response(metered, body, items))
