"""The charging table, row by row, and the copy of it in `docs/ledger.md`."""

from pathlib import Path

import pytest

from pricing.charging import Ending, charge, charged_tokens
from pricing.cost import NO_TOKENS, Tokens
from pricing.price import Price
from pricing.reservation import Outcome

PRICE = Price.per_million(input="3", output="7", cached_input="1")
IN, OUT, CACHED = PRICE.input, PRICE.output, PRICE.cached_input
PROMPT, HIT, GENERATED, SENT = 100, 60, 20, 15
PROMPT_COST = (PROMPT - HIT) * IN + HIT * CACHED
GOT = Tokens(PROMPT, HIT, GENERATED)
NONE_YET = Tokens(PROMPT, HIT, 0)
FAILURES = [Outcome.ENGINE_ERROR, Outcome.INTERNAL_ERROR, Outcome.SHUTDOWN, Outcome.TIMED_OUT]

ALL = PROMPT_COST + GENERATED * OUT
NOTHING = 0

ROWS = [
    (Ending(Outcome.FINISHED, sent=GENERATED), GOT, ALL),
    (Ending(Outcome.FINISHED), GOT, ALL),  # not streamed
    (Ending(Outcome.FINISHED), NONE_YET, PROMPT_COST),  # max_tokens 0, an embedding
    (Ending(Outcome.CLIENT_GONE, sent=SENT), GOT, ALL),
    (Ending(Outcome.CLIENT_GONE), GOT, ALL),  # not streamed
    (Ending(Outcome.CLIENT_GONE, room=True), NONE_YET, PROMPT * IN),
    (Ending(Outcome.CLIENT_GONE, room=False), NONE_YET, NOTHING),
    (Ending(Outcome.CLIENT_GONE), NONE_YET, NOTHING),  # it had not reached the engine
    *((Ending(failure, sent=SENT), GOT, PROMPT_COST + SENT * OUT) for failure in FAILURES),
    *((Ending(failure), GOT, NOTHING) for failure in FAILURES),  # not streamed
    *((Ending(failure), NONE_YET, NOTHING) for failure in FAILURES),
    (Ending(Outcome.INTERRUPTED), GOT, ALL),
    (Ending(Outcome.INTERRUPTED), NO_TOKENS, NOTHING),  # no checkpoint yet
    (Ending(Outcome.VOID), NONE_YET, NOTHING),
]


@pytest.mark.parametrize(("ending", "tokens", "cost"), ROWS, ids=str)
def test_each_ending_costs_what_its_row_says(ending: Ending, tokens: Tokens, cost: int) -> None:
    assert charge(PRICE, tokens, ending) == cost


def test_every_outcome_has_a_row() -> None:
    assert {ending.outcome for ending, _, _ in ROWS} == set(Outcome)


@pytest.mark.parametrize(("ending", "tokens", "cost"), ROWS, ids=str)
def test_nobody_is_charged_more_than_the_reservation_or_than_was_generated(
    ending: Ending, tokens: Tokens, cost: int
) -> None:
    charged = charged_tokens(tokens, ending)
    assert charged.prompt <= tokens.prompt
    assert charged.completion <= tokens.completion
    assert cost <= PROMPT * IN + GENERATED * OUT


# How the document words a row -> what it stands for.
DOCUMENTED = {
    "finished": (Ending(Outcome.FINISHED, sent=GENERATED), GOT),
    "the client left after the first token": (Ending(Outcome.CLIENT_GONE, sent=SENT), GOT),
    "the client left before the first token, and nothing waited in the engine": (
        Ending(Outcome.CLIENT_GONE, room=True),
        NONE_YET,
    ),
    "the client left before the first token, while requests waited in the engine": (
        Ending(Outcome.CLIENT_GONE, room=False),
        NONE_YET,
    ),
    "the engine failed in a stream": (Ending(Outcome.ENGINE_ERROR, sent=SENT), GOT),
    "the gateway itself failed in a stream": (Ending(Outcome.INTERNAL_ERROR, sent=SENT), GOT),
    "the drain ran out in a stream": (Ending(Outcome.SHUTDOWN, sent=SENT), GOT),
    "a stream took too long": (Ending(Outcome.TIMED_OUT, sent=SENT), GOT),
    "any of these four in an answer that isn't streamed": (Ending(Outcome.ENGINE_ERROR), GOT),
    "the process died": (Ending(Outcome.INTERRUPTED), GOT),
    "refused": (Ending(Outcome.VOID), NONE_YET),
}
CHARGES = {
    "all tokens": ALL,
    "the prompt and the tokens generated until then": ALL,
    "the prompt, at the full input price": PROMPT * IN,
    "the prompt and what was sent": PROMPT_COST + SENT * OUT,
    "the last checkpoint": ALL,
    "nothing": NOTHING,
}


def test_the_document_has_the_same_table(repository: Path) -> None:
    lines = (repository / "docs" / "ledger.md").read_text().splitlines()
    start = lines.index("| how it ends | entry | charged |") + 2
    found = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        how, entry, charged = (cell.strip() for cell in line.strip("|").split("|"))
        found[how] = (entry, charged)
    assert found.keys() == DOCUMENTED.keys()
    for how, (entry, charged) in found.items():
        ending, tokens = DOCUMENTED[how]
        assert charge(PRICE, tokens, ending) == CHARGES[charged.partition(":")[0]], how
        if charged == "nothing":
            assert entry.startswith("`void`"), how
        else:
            assert f"`{ending.outcome.state}`" in entry, how
            assert f"`{ending.outcome.value}`" in entry, how
