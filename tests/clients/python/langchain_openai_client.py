"""langchain-openai's ChatOpenAI."""

from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from reporting import SCENE, report


class Person(BaseModel):
    name: str
    age: int


def model(**fields: Any) -> ChatOpenAI:
    settings = {"model": SCENE["model"], "api_key": SCENE["key"], "temperature": 0, "max_retries": 0} | fields
    return ChatOpenAI(base_url=f"{SCENE['url']}/v1/openai", **settings)


def chat() -> object:
    answer = model().invoke(SCENE["question"])
    return {"text": answer.content, "usage": answer.response_metadata["token_usage"], "counted": answer.usage_metadata}


def stream() -> object:
    chunks = list(model(stream_usage=True).stream(SCENE["question"]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return {"pieces": [chunk.content for chunk in chunks if chunk.content], "counted": whole.usage_metadata}


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


def structured() -> object:
    return model().with_structured_output(Person).invoke(SCENE["person_question"]).model_dump()


def wrong_key() -> object:
    return model(api_key=SCENE["wrong_key"]).invoke(SCENE["question"])


def bad_parameter() -> object:
    return model(top_p=7).invoke(SCENE["question"])


def no_money() -> object:
    return model(api_key=SCENE["poor_key"]).invoke(SCENE["question"])


def no_model() -> object:
    return model(model=SCENE["wrong_model"]).invoke(SCENE["question"])


report(chat, stream, conversation, tool, structured, wrong_key, bad_parameter, no_money, no_model)
