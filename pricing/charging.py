"""What a request is charged, by how it ended. `docs/ledger.md` shows this table to operators; a test compares them.

| how it ends                                                     | charged                                           |
|-----------------------------------------------------------------|---------------------------------------------------|
| finished                                                        | all tokens                                        |
| the client left after the first token                           | the prompt and the tokens generated until then    |
| the client left before it, and nothing waited in the engine     | the prompt, at the full input price               |
| the client left before it, and requests waited in the engine    | nothing                                           |
| an error, a shutdown or a time limit                            | the prompt and what was sent; nothing if that was |
|                                                                 | nothing, as in an answer that isn't streamed      |
| its process died                                                | the last checkpoint                               |
| refused or never begun                                          | nothing                                           |

The doubt is the operator's loss. Only one row charges for what nobody got: a prompt that was computed stays in the
prefix cache, and would be sold again at a fraction of its price to whoever left just before the first token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pricing.cost import NO_TOKENS, Tokens, cost
from pricing.money import Picodollars
from pricing.price import Price
from pricing.reservation import Outcome


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended, as far as its charge depends on it.

    `sent` is how many of the completion tokens its client was sent before the end. `room`, for a client that left
    before the first token, says whether nothing waited in the engine; None if the request had not reached it.
    """

    outcome: Outcome
    sent: int = 0
    room: bool | None = None


def charged_tokens(tokens: Tokens, ending: Ending) -> Tokens:
    """Of the engine's counts, those that are charged. NO_TOKENS where nothing is."""
    match ending.outcome:
        case Outcome.FINISHED | Outcome.INTERRUPTED:
            return tokens
        case Outcome.CLIENT_GONE if tokens.completion:
            return tokens
        case Outcome.CLIENT_GONE:
            return Tokens(tokens.prompt, 0, 0) if ending.room else NO_TOKENS
        case Outcome.ENGINE_ERROR | Outcome.INTERNAL_ERROR | Outcome.SHUTDOWN | Outcome.TIMED_OUT:
            return replace(tokens, completion=ending.sent) if ending.sent else NO_TOKENS
        case Outcome.VOID:
            return NO_TOKENS


def charge(price: Price, tokens: Tokens, ending: Ending) -> Picodollars:
    """The cost of a request that ended like this; `tokens` are the engine's counts, or the last checkpoint."""
    return cost(price, charged_tokens(tokens, ending))
