"""instructor on the OpenAI SDK."""

from typing import Any

import instructor
from openai import OpenAI
from pydantic import BaseModel
from reporting import SCENE, report


class Person(BaseModel):
    name: str
    age: int


def ask(mode: instructor.Mode, question: str, **fields: Any) -> Any:
    settings = {"model": SCENE["model"], "max_retries": 0, "temperature": 0} | fields
    key = settings.pop("key", SCENE["key"])
    client = instructor.from_openai(OpenAI(base_url=f"{SCENE['url']}/v1/openai", api_key=key, max_retries=0), mode=mode)
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create_with_completion(response_model=Person, messages=messages, **settings)


def answer(mode: instructor.Mode, question: str) -> object:
    person, completion = ask(mode, question)
    return {"person": person.model_dump(), "usage": completion.usage.model_dump()}


def tools() -> object:
    return answer(instructor.Mode.TOOLS, SCENE["person_call_question"])


def json_object() -> object:
    return answer(instructor.Mode.JSON, SCENE["person_question"])


def json_schema() -> object:
    return answer(instructor.Mode.JSON_SCHEMA, SCENE["person_question"])


def partial() -> object:
    """Streamed: the object grows."""
    client = instructor.from_openai(
        OpenAI(base_url=f"{SCENE['url']}/v1/openai", api_key=SCENE["key"], max_retries=0), mode=instructor.Mode.TOOLS
    )
    messages = [{"role": "user", "content": SCENE["person_call_question"]}]
    people = client.chat.completions.create_partial(model=SCENE["model"], response_model=Person, messages=messages)
    return [person.model_dump() for person in people]


def wrong_key() -> object:
    return ask(instructor.Mode.TOOLS, SCENE["question"], key=SCENE["wrong_key"])


def bad_parameter() -> object:
    return ask(instructor.Mode.TOOLS, SCENE["question"], top_p=7)


def no_money() -> object:
    return ask(instructor.Mode.TOOLS, SCENE["question"], key=SCENE["poor_key"])


def no_model() -> object:
    return ask(instructor.Mode.TOOLS, SCENE["question"], model=SCENE["wrong_model"])


report(tools, json_object, json_schema, partial, wrong_key, bad_parameter, no_money, no_model)
