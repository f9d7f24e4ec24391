"""llama-index-llms-deepinfra."""

import asyncio
from typing import Any

import requests
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.llms.deepinfra import DeepInfraLLM
from reporting import SCENE, report


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return str(SCENE["weather_result"])


def model(**fields: Any) -> DeepInfraLLM:
    settings = {"model": SCENE["model"], "api_key": SCENE["key"], "temperature": 0.0, "max_retries": 1} | fields
    return DeepInfraLLM(api_base=SCENE["url"], **settings)


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def chat() -> object:
    answer = model().chat([user(SCENE["question"])])
    return {"text": answer.message.content, "usage": answer.raw["usage"]}


def stream() -> object:
    chunks = list(model().stream_chat([user(SCENE["question"])]))
    return {"pieces": [chunk.delta for chunk in chunks]}


def async_stream() -> object:
    async def deltas() -> list[str | None]:
        return [chunk.delta async for chunk in await model().astream_chat([user(SCENE["question"])])]

    return asyncio.run(deltas())


def complete() -> object:
    return model().complete(SCENE["native_input"]).text


def conversation() -> object:
    messages = [user(SCENE["name"])]
    messages.append(model().chat(messages).message)
    return model().chat([*messages, user(SCENE["who"])]).message.content


def knows_tools() -> object:
    return [model().metadata.is_function_calling_model, model(model="nobody/none").metadata.is_function_calling_model]


def tool() -> object:
    llm = model()
    weather = FunctionTool.from_defaults(get_weather)
    question = user(SCENE["weather_question"])
    first = llm.chat_with_tools([weather], user_msg=question)
    [call] = llm.get_tool_calls_from_response(first)
    result = ChatMessage(
        role=MessageRole.TOOL,
        content=weather(**call.tool_kwargs).content,
        additional_kwargs={"tool_call_id": call.tool_id},
    )
    second = llm.chat_with_tools([weather], chat_history=[question, first.message, result])
    return {"name": call.tool_name, "arguments": call.tool_kwargs, "text": second.message.content}


def refused(llm: DeepInfraLLM, **fields: Any) -> object:
    """What `requests` raises holds our answer."""
    try:
        return llm.chat([user(SCENE["question"])], **fields).message.content
    except requests.HTTPError as error:
        return {
            "class": type(error).__name__,
            "status": error.response.status_code,
            "body": error.response.json(),
        }


def wrong_key() -> object:
    return refused(model(api_key=SCENE["wrong_key"]))


def bad_parameter() -> object:
    return refused(model(), top_p=7)


def no_money() -> object:
    return refused(model(api_key=SCENE["poor_key"]))


def no_model() -> object:
    return refused(model(model=SCENE["wrong_model"]))


report(
    chat,
    stream,
    async_stream,
    complete,
    conversation,
    knows_tools,
    tool,
    wrong_key,
    bad_parameter,
    no_money,
    no_model,
)
