"""What every client is asked to do, and what it must get.

The demo model was taught these answers (engine/demo/corpus), and the scripted engine plays the same ones, so that a
client's cases and their assertions hold against both.
"""

import json
from collections.abc import Mapping
from decimal import Decimal

from engine.demo import MODEL_DIR

MODEL = "farebox/demo"
PRICE_IN, PRICE_OUT = Decimal("0.59"), Decimal("0.79")  # US dollars per million tokens, from the shipped card

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
NAME, NICE, WHO, YOU = "My name is Ada.", "Nice to meet you, Ada!", "What is my name?", "Your name is Ada."
WEATHER_QUESTION, WEATHER_ANSWER = "What is the weather in Paris?", "It is sunny and 21 degrees in Paris."
WEATHER_RESULT = '{"temperature": 21, "condition": "sunny"}'
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Structured output: as JSON text, and as a call of a function that is named like the class.
PERSON_QUESTION, PERSON_CALL_QUESTION = "Who wrote the first program?", "Who wrote the first program? Call a function."
PERSON = {"name": "Ada", "age": 36}
# For the native route, whose input has no chat format.
NATIVE_INPUT, NATIVE_TEXT = "The capital of France is", " Paris."
# The engine fails after these words.
BROKEN_QUESTION, BROKEN_ANSWER = "What breaks an engine?", "A missing"

# The scripted engine is silent before some answers: their streams have pings, which the client must pass over.
PING_SECONDS, SILENCE = 0.05, {"sleep": 0.2}

SCRIPT = {
    "request": [
        {"match": "sunny", "steps": [{"emit": WEATHER_ANSWER}]},
        {"match": WEATHER_QUESTION, "steps": [SILENCE, {"call": "get_weather", "arguments": '{"city": "Paris"}'}]},
        {"match": PERSON_CALL_QUESTION, "steps": [{"call": "Person", "arguments": json.dumps(PERSON)}]},
        {"match": PERSON_QUESTION, "steps": [{"emit": json.dumps(PERSON)}]},
        {"match": WHO, "steps": [{"emit": YOU}]},
        {"match": NAME, "steps": [{"emit": NICE}]},
        {"match": QUESTION, "steps": [SILENCE, {"emit": ANSWER}]},
        {"match": BROKEN_QUESTION, "steps": [{"emit": BROKEN_ANSWER}, SILENCE, {"fail": "broken"}]},
        {"match": NATIVE_INPUT, "steps": [SILENCE, {"emit": NATIVE_TEXT}]},
    ]
}


def for_clients(url: str, key: str, poor_key: str) -> dict[str, object]:
    """What a client's script is told: it runs in another process, and sends its cases' results back as JSON."""
    return {
        "url": url,
        "key": key,
        "poor_key": poor_key,
        "wrong_key": "fb-" + "0" * 38,
        "model": MODEL,
        "wrong_model": "farebox/dem",
        "question": QUESTION,
        "answer": ANSWER,
        "tokenizer": str(MODEL_DIR),
        "name": NAME,
        "who": WHO,
        "weather_question": WEATHER_QUESTION,
        "weather_tool": WEATHER_TOOL,
        "weather_result": WEATHER_RESULT,
        "person_question": PERSON_QUESTION,
        "person_call_question": PERSON_CALL_QUESTION,
        "broken_question": BROKEN_QUESTION,
        "native_input": NATIVE_INPUT,
    }


def exact_cost(usage: Mapping[str, int]) -> Decimal:
    """US dollars for OpenAI's `usage`. The demo model's card has no other price for cached tokens."""
    return (usage["prompt_tokens"] * PRICE_IN + usage["completion_tokens"] * PRICE_OUT) / 10**6


def assert_paid(usage: Mapping[str, object]) -> None:
    """The client shows tokens, and their exact cost as the gateway named it."""
    counts = {name: int(str(usage[name])) for name in ("prompt_tokens", "completion_tokens")}
    assert min(counts.values()) > 0
    assert Decimal(str(usage["estimated_cost"])) == exact_cost(counts)
