"""What is asked of each server. One table; the sizes are for a small machine and the demo model."""

from dataclasses import dataclass, field, replace
from typing import Literal

JSONObject = dict[str, object]

WEATHER: JSONObject = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load.

    `streams` are open at a time; with `of_capacity` requests come at random (Poisson) instead, at this part of what
    vLLM's own server managed in the same run. `prefixes` > 0: that many different beginnings of `prompt_tokens`, each
    with an end of 64 tokens of its own. `client` is vLLM's load generator, OpenAI's SDK for answers in one piece, or
    `bench.agents`: then `streams` are conversations, `prompt_tokens` what they grow to and `requests` the last turns of
    all of them; `others` are plain streams beside them, whose gaps are told.
    `share` of the requests is left out with --quick.
    """

    name: str
    title: str
    requests: int
    streams: int
    prompt_tokens: int = 64
    tokens: int = 64
    prefixes: int = 0
    of_capacity: float = 0.0
    others: int = 0
    client: Literal["vllm", "sdk", "agents"] = "vllm"
    ignore_eos: bool = True
    body: JSONObject = field(default_factory=dict)
    http_only: bool = False

    def quick(self) -> "Scenario":
        """About a third of the requests, and still at least one for each stream."""
        return replace(self, requests=max(self.streams, self.requests // 3))


SCENARIOS = (
    Scenario("streams", "64 streams of 64 tokens", 384, 64),
    Scenario("many", "256 streams of 64 tokens", 768, 256),
    Scenario("answers", "64 streams of 256 tokens", 128, 64, tokens=256),
    Scenario("one-token", "requests of one token, 64 at a time", 1536, 64, tokens=1),
    Scenario("long", "prompts of 8,000 tokens on 8 shared prefixes, 8 at a time", 96, 8, 8000, 16, prefixes=8),
    Scenario("whole", "64 answers of 64 tokens at a time, in one piece", 384, 64, client="sdk", http_only=True),
    Scenario(
        "tools",
        "64 streams with a tool to call",
        384,
        64,
        ignore_eos=False,
        body={"tools": [WEATHER], "tool_choice": "auto"},
        http_only=True,
    ),
    Scenario(
        "json",
        "64 streams in JSON mode",
        192,
        64,
        ignore_eos=False,
        body={"response_format": {"type": "json_object"}},
        http_only=True,
    ),
    Scenario("half-load", "Poisson arrivals at 50% of capacity", 384, 0, of_capacity=0.5),
    Scenario("high-load", "Poisson arrivals at 80% of capacity", 600, 0, of_capacity=0.8),
    Scenario(
        "agent",
        "agents: the last 10 of 40 turns of 4 conversations, up to 32,000 tokens",
        *(40, 4, 32_000, 16),
        client="agents",
        http_only=True,
    ),
    Scenario(
        "agent-100k",
        "agents: the last 5 of 40 turns of 2 conversations, up to 100,000 tokens",
        *(10, 2, 100_000, 16),
        client="agents",
        http_only=True,
    ),
    Scenario(
        "agent-others",
        "the last 5 turns of one agent of 100,000 tokens, beside 8 plain streams whose gaps are told",
        *(5, 1, 100_000, 16),
        others=8,
        client="agents",
        http_only=True,
    ),
    Scenario("open", "2,000 open streams of 8 tokens", 2000, 2000, tokens=8, http_only=True),
)

QUICK = ("streams", "one-token")


def chosen(names: list[str] | None, quick: bool) -> list[Scenario]:
    """By name, in the table's order; with `quick` the first two, smaller. Raises ValueError for an unknown name."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    for name in names or ():
        if name not in known:
            raise ValueError(f"There is no scenario {name!r}; there are {', '.join(known)}.")
    wanted = names or (list(QUICK) if quick else list(known))
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in wanted]
    if any(scenario.of_capacity for scenario in scenarios) and not any(one.name == "streams" for one in scenarios):
        scenarios.insert(0, known["streams"])  # capacity is what this one finds
    return [scenario.quick() if quick else scenario for scenario in scenarios]
