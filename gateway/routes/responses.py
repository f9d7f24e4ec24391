"""OpenAI's Responses API, under `/v1/responses` and `/v1/openai/responses`. Nothing is kept on the server."""

from engine.formats import responses_format
from gateway.exchange import Exchange
from gateway.jobs import fit_to_context
from gateway.openapi.operation import EVENTS, JSON, Operation, documented
from gateway.protocol import response_answers as answers
from gateway.protocol.checks import parse_json, validate
from gateway.protocol.responses import ResponsesBody
from gateway.protocol.responses_answer import ResponseEvents, response
from gateway.routes.common import new_id, served_model


@documented(
    Operation(
        "Responses",
        "Answer a conversation, as the Responses API does",
        "Send the whole conversation: there is no `previous_response_id`, no `store: true`, no `background`, and no "
        "tool that runs here. `usage` has `estimated_cost`.",
        body=ResponsesBody,
        ranges="responses",
        answers={JSON: answers.Response, EVENTS: answers.StreamEvent},
        errors=(501,),
        admitted=True,
    )
)
async def responses(exchange: Exchange) -> None:
    """`POST .../responses`."""
    values = parse_json(exchange.body)
    served = served_model(exchange, values)
    body = validate(ResponsesBody, values, served.model.profile.route("responses"))
    await exchange.admit(served, body.top_logprobs or 0)
    form = await responses_format()
    prompt = await served.renderer.chat(form.conversation(body.conversation_fields(), continue_final=body.continues))
    sampling = body.sampling(fit_to_context(served, prompt, body.max_output_tokens, "input"))
    async with exchange.generate(
        new_id("resp", "_"), served, prompt, sampling, stream=body.stream, user=body.user
    ) as metered:
        items = form.items(served.tokens.chat)
        if body.stream:
            await exchange.stream(metered, ResponseEvents(metered, body, items))
        else:
            await exchange.respond(await response(metered, body, items))
