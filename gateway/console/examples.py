"""Lines to copy: each route of a model as curl, Python and Node, for this server's own address."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.console.model_pages import APIRoute
from gateway.models.model import Model
from pricing.cost import Tokens, cost
from pricing.money import Picodollars, format_usd

HELLO = [{"role": "user", "content": "Hello!"}]
CONVERSATION = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "Which techniques are there to cook lamb?"},
    {"role": "assistant", "content": "You can roast, braise or grill it."},
    {"role": "user", "content": "Tell me more about the second one."},
]
TEXT = "The capital of France is"
LANGUAGES = ("curl", "Python", "Node")

# What each route is asked, by the route's name: a title, a sentence, and the body without its model.
ASKED: dict[str, list[tuple[str, str, dict[str, object]]]] = {
    "chat": [
        ("Messages", "Given a list of messages, the model answers with the next one.", {"messages": HELLO}),
        (
            "Conversations",
            "Send the answers and the questions so far with each request: the model remembers nothing.",
            {"messages": CONVERSATION},
        ),
        (
            "Streaming",
            "With `stream` the answer comes as server-sent events, a token or a few at a time; the last one is [DONE].",
            {"messages": HELLO, "stream": True},
        ),
    ],
    "completions": [("A text", "The model goes on from a text.", {"prompt": TEXT, "max_tokens": 64})],
    "responses": [("A response", "OpenAI's Responses API.", {"input": "Hello!"})],
    "messages": [("Messages", "Anthropic's Messages API.", {"max_tokens": 256, "messages": HELLO})],
    "native": [
        ("A text", "The prompt is sent to the model as it is.", {"input": TEXT}),
        ("Streaming", "With `stream` each token is an event.", {"input": TEXT, "stream": True}),
    ],
    "embeddings": [("Texts", "A vector for each text.", {"input": ["The quick brown fox", "The lazy dog"]})],
}
CALLS = {
    "chat": "chat.completions.create",
    "completions": "completions.create",
    "responses": "responses.create",
    "messages": "messages.create",
    "embeddings": "embeddings.create",
}
RESULTS = {
    "chat": "choices[0].message.content",
    "completions": "choices[0].text",
    "responses": "output_text",
    "messages": "content[0].text",
    "embeddings": "data[0].embedding",
}


@dataclass(frozen=True, slots=True)
class Example:
    title: str
    text: str
    code: Mapping[str, str]  # by language


def examples(route: APIRoute, model: Model, address: str) -> list[Example]:
    """`address` is the server's, with its root path; nothing where a route isn't known here."""
    found = []
    for title, text, body in ASKED.get(route.name, ()):
        sent = body if route.name == "native" else {"model": model.name, **body}
        code = {
            "curl": curl(f"{address}{route.at(model)}", sent),
            "Python": python(route, model, address, sent),
            "Node": node(route, model, address, sent),
        }
        found.append(Example(title, text, code))
    return found


def answer(route: APIRoute, model: Model) -> str:
    """What a chat may answer, with the cost of exactly these tokens by this model's price."""
    if route.name != "chat":
        return ""
    tokens = Tokens(prompt=15, cached=0, completion=16)
    shown = {
        "id": "chatcmpl-2f0c5f1d6a3d4c0f8a64e8a7c5d0b1a9",
        "object": "chat.completion",
        "created": 1764000000,
        "model": model.name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello! It's nice to meet you. What can I do for you?"},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": tokens.prompt,
            "completion_tokens": tokens.completion,
            "total_tokens": tokens.prompt + tokens.completion,
            "estimated_cost": "COST",
        },
    }
    exact = format_usd(Picodollars(cost(model.price, tokens)))
    return json.dumps(shown, indent=2).replace('"COST"', exact)


def curl(url: str, body: Mapping[str, object]) -> str:
    data = shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))
    return (
        f'curl {shlex.quote(url)} \\\n  -H "Content-Type: application/json" \\\n'
        f'  -H "Authorization: Bearer $FAREBOX_KEY" \\\n  -d {data}'
    )


def python(route: APIRoute, model: Model, address: str, body: Mapping[str, object]) -> str:
    if route.name == "native":
        return _python_native(f"{address}{route.at(model)}", body)
    sdk = "Anthropic" if route.name == "messages" else "OpenAI"
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in body.items())
    call = f"client.{CALLS[route.name]}(\n{arguments})"
    if body.get("stream"):
        shown = (
            f"for chunk in {call}:\n    if chunk.choices and chunk.choices[0].delta.content:\n"
            '        print(chunk.choices[0].delta.content, end="")'
        )
    else:
        shown = f"answer = {call}\nprint(answer.{RESULTS[route.name]})"
    return (
        f"import os\nfrom {sdk.lower()} import {sdk}\n\n"
        f'client = {sdk}(base_url="{_base(route, address)}", api_key=os.environ["FAREBOX_KEY"])\n\n{shown}'
    )


def node(route: APIRoute, model: Model, address: str, body: Mapping[str, object]) -> str:
    if route.name == "native":
        return _node_native(f"{address}{route.at(model)}", body)
    sdk, package = ("Anthropic", "@anthropic-ai/sdk") if route.name == "messages" else ("OpenAI", "openai")
    call = f"client.{CALLS[route.name]}({json.dumps(body, indent=2, ensure_ascii=False)})"
    if body.get("stream"):
        shown = (
            f"const stream = await {call};\n"
            'for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");'
        )
    else:
        result = RESULTS[route.name]
        shown = f"const answer = await {call};\nconsole.log(answer.{result});"
    return (
        f'import {sdk} from "{package}";\n\nconst client = new {sdk}({{\n  baseURL: "{_base(route, address)}",\n'
        f"  apiKey: process.env.FAREBOX_KEY,\n}});\n\n{shown}"
    )


def _base(route: APIRoute, address: str) -> str:
    """What an SDK puts its own path behind; Anthropic's puts /v1/messages."""
    return address if route.name == "messages" else f"{address}/v1/openai"


def _python_native(url: str, body: Mapping[str, object]) -> str:
    head = 'import os\nimport httpx\n\nheaders = {"Authorization": f"Bearer {os.environ[\'FAREBOX_KEY\']}"}\n'
    if body.get("stream"):
        return (
            f'{head}with httpx.stream("POST", "{url}", headers=headers, json={_literal(body)}) as answer:\n'
            "    for line in answer.iter_lines():\n        print(line)"
        )
    return (
        f'{head}answer = httpx.post("{url}", headers=headers, json={_literal(body)}, timeout=600)\n'
        'print(answer.json()["results"][0]["generated_text"])'
    )


def _node_native(url: str, body: Mapping[str, object]) -> str:
    shown = (
        "for await (const piece of answer.body) process.stdout.write(piece);"
        if body.get("stream")
        else "console.log((await answer.json()).results[0].generated_text);"
    )
    return (
        f'const answer = await fetch("{url}", {{\n  method: "POST",\n'
        "  headers: {\n    Authorization: `Bearer ${process.env.FAREBOX_KEY}`,\n"
        '    "Content-Type": "application/json",\n  },\n'
        f"  body: JSON.stringify({json.dumps(body, ensure_ascii=False)}),\n}});\n{shown}"
    )


def _literal(value: object) -> str:
    """As Python writes it, with JSON's quotes."""
    text = json.dumps(value, ensure_ascii=False)
    return {"true": "True", "false": "False", "null": "None"}.get(text, text.replace(": true", ": True"))
