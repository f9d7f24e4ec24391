"""litellm with its DeepInfra provider."""

import os
from typing import Any

import litellm
from reporting import SCENE, USER, WEATHER, report

os.environ["DEEPINFRA_API_BASE"] = f"{SCENE['url']}/v1/openai"
os.environ["DEEPINFRA_API_KEY"] = SCENE["key"]

MODEL = f"deepinfra/{SCENE['model']}"


def ask(messages: list[dict[str, Any]] = USER, model: str = MODEL, **fields: Any) -> Any:
    return litellm.completion(model=model, messages=messages, num_retries=0, temperature=0, **fields)


def chat() -> object:
    answer = ask(max_completion_tokens=100)
    return {"text": answer.choices[0].message.content, "usage": answer.usage.model_dump()}


def stream() -> object:
    chunks = list(ask(stream=True))
    whole = litellm.stream_chunk_builder(chunks, messages=USER)
    return {
        "pieces": [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content],
        "finish_reason": whole.choices[0].finish_reason,
    }


def stream_with_usage() -> object:
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    [usage] = [chunk.usage.model_dump() for chunk in chunks if getattr(chunk, "usage", None)]
    return usage


def conversation() -> object:
    messages = [{"role": "user", "content": SCENE["name"]}]
    messages.append(ask(messages).choices[0].message)
    messages.append({"role": "user", "content": SCENE["who"]})
    return ask(messages).choices[0].message.content


def tool() -> object:
    first = ask(WEATHER, tools=[SCENE["weather_tool"]])
    message = first.choices[0].message
    [call] = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": SCENE["weather_result"]}
    second = ask([*WEATHER, message, result], tools=[SCENE["weather_tool"]])
    return {
        "name": call.function.name,
        "arguments": call.function.arguments,
        "finish_reason": first.choices[0].finish_reason,
        "text": second.choices[0].message.content,
    }


def wrong_key() -> object:
    return ask(api_key=SCENE["wrong_key"])


def bad_parameter() -> object:
    return ask(top_p=7)


def no_money() -> object:
    return ask(api_key=SCENE["poor_key"])


def no_model() -> object:
    return ask(model=f"deepinfra/{SCENE['wrong_model']}")


report(chat, stream, stream_with_usage, conversation, tool, wrong_key, bad_parameter, no_money, no_model)
