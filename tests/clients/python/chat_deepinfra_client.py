"""langchain-community's ChatDeepInfra."""

from typing import Any

from langchain_community.chat_models import ChatDeepInfra
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from reporting import SCENE, report


def model(**fields: Any) -> ChatDeepInfra:
    settings = {"model": SCENE["model"], "deepinfra_api_token": SCENE["key"], "temperature": 0} | fields
    return ChatDeepInfra(url=f"{SCENE['url']}/v1/openai/chat/completions", **settings)


def chat() -> object:
    answer = model().invoke(SCENE["question"])
    return {"text": answer.content, "usage": answer.response_metadata["token_usage"]}


def stream() -> object:
    return [chunk.content for chunk in model().stream(SCENE["question"]) if chunk.content]


def conversation() -> object:
    messages: list[BaseMessage] = [HumanMessage(SCENE["name"])]
    messages.append(model().invoke(messages))
    return model().invoke([*messages, HumanMessage(SCENE["who"])]).content


def tool() -> object:
    caller = model().bind_tools([SCENE["weather_tool"]])
    first = caller.invoke(SCENE["weather_question"])
    [call] = first.tool_calls
    result = ToolMessage(SCENE["weather_result"], tool_call_id=call["id"])
    second = caller.invoke([HumanMessage(SCENE["weather_question"]), first, result])
    return {"name": call["name"], "arguments": call["args"], "text": second.content}


def wrong_key() -> object:
    return model(deepinfra_api_token=SCENE["wrong_key"]).invoke(SCENE["question"])


def bad_parameter() -> object:
    return model(model_kwargs={"top_p": 7}).invoke(SCENE["question"])


def no_money() -> object:
    return model(deepinfra_api_token=SCENE["poor_key"]).invoke(SCENE["question"])


def no_model() -> object:
    return model(model=SCENE["wrong_model"]).invoke(SCENE["question"])


report(chat, stream, conversation, tool, wrong_key, bad_parameter, no_money, no_model)
