"""What the pipeline is asked to do: checked prompts for a model on its engine, and whom to charge."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.base import Prompt
from gateway.errors import InvalidRequest
from gateway.idempotency.keys import Attempt
from gateway.limits.admission import Admission
from gateway.models.fleet import Served
from gateway.request.generations import Part
from gateway.telemetry.receipt import Receipt
from gateway.telemetry.tracing import UNTRACED, Trace
from pricing.keys import Key
from pricing.price import Price
from pricing.reservation import ReserveRequest
from pricing.tier import Tier


@dataclass(frozen=True, slots=True)
class Job:
    """What to generate, for whom, within which limits. Several parts (prompts) are one reservation and one entry.
    `tier` is one that the model has a price for.

    `request_id` is made by the gateway and names the request in the ledger; `arrived` is `time.perf_counter()` when
    the request came in. A `whole` one is charged for its whole answer once that is kept (`Metered.kept`), and for
    nothing else, even if its process dies. `attempt` is there with an Idempotency-Key; `settled` is called once, with
    what it came to.
    """

    request_id: str
    key: Key
    served: Served
    route: str
    parts: tuple[Part, ...]
    arrived: float
    admission: Admission
    settled: Callable[[Receipt], None]
    tier: Tier = Tier.DEFAULT
    stream: bool = True
    whole: bool = False
    user: str | None = None
    attempt: Attempt | None = None
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    trace: Trace = UNTRACED

    @property
    def price(self) -> Price:
        return self.served.model.prices[self.tier]

    @property
    def prompt_tokens(self) -> int:
        return sum(part.prompt.tokens for part in self.parts)

    @property
    def completion_tokens_max(self) -> int:
        """What may be generated at most, over all choices."""
        return sum(part.sampling.n * part.sampling.max_tokens for part in self.parts)

    @property
    def choices(self) -> int:
        return sum(part.sampling.n for part in self.parts)

    @property
    def cache_salt(self) -> str | None:
        """Whom this request shares prefixes with, as the model card says."""
        return self.served.shares_with(self.key)

    def priced(self) -> ReserveRequest:
        """What it may cost at most."""
        return ReserveRequest(
            request_id=self.request_id,
            key=self.key,
            model=self.served.model.name,
            price=self.price,
            prompt_tokens=self.prompt_tokens,
            completion_tokens_max=self.completion_tokens_max,
            route=self.route,
            started_at=time.time_ns() // 1_000_000,
            user=self.user,
            tier=self.tier,
        )


def check_fits(served: Served, prompt: Prompt, param: str, room: int = 0) -> None:
    """Raises InvalidRequest(context_length_exceeded) unless the context has this much room beside the prompt.

    `param` is the field that the prompt came in.
    """
    if prompt.tokens + room > served.context_length:
        raise InvalidRequest(
            f"The prompt is {prompt.tokens} tokens long, and the context of {served.model.name} holds "
            f"{served.context_length}, prompt and answer together. Shorten the prompt.",
            code="context_length_exceeded",
            param=param,
        )


def fit_to_context(served: Served, prompt: Prompt, wanted: int | None, param: str = "messages") -> int:
    """How many tokens may be generated: what was asked for or the card's default, and no more than there is room.

    `param` is the field that the prompt came in. Raises InvalidRequest(context_length_exceeded) where it leaves no
    room.
    """
    check_fits(served, prompt, param, room=1)
    room = served.context_length - prompt.tokens
    return min(room, served.model.card.default_max_tokens if wanted is None else wanted)
