"""Answers as a model might give them that a grammar holds: a random walk over the tokens that it allows."""

import json
import random
from collections.abc import Iterator

import torch
import xgrammar

# Every byte is a token, so that a walk meets whatever the grammar lets through.
END = 256
INFO = xgrammar.TokenizerInfo([bytes([byte]) for byte in range(256)] + [b"</s>"], stop_token_ids=[END])
COMPILER = xgrammar.GrammarCompiler(INFO, max_threads=1, cache_enabled=False)
_CLOSING = [ord(character) for character in '"}]']
_PLAIN = [ord(character) for character in 'abz019-.:,{[" \\n']

STEPS_MAX = 1500


def of_schema(schema: object) -> xgrammar.CompiledGrammar:
    return COMPILER.compile_json_schema(json.dumps(schema), any_whitespace=True)


def of_expression(expression: str) -> xgrammar.CompiledGrammar:
    return COMPILER.compile_regex(expression)


def accepts(grammar: xgrammar.CompiledGrammar, text: str) -> bool:
    """Whether the text is a whole answer."""
    matcher = xgrammar.GrammarMatcher(grammar)
    return bool(matcher.accept_string(text) and matcher.is_completed())


def walks(grammar: xgrammar.CompiledGrammar, count: int, seed: int) -> Iterator[str]:
    """The texts of the walks that came to an end. Raises AssertionError where nothing is allowed."""
    for number in range(count):
        text = _walk(grammar, random.Random(seed + number))
        if text is not None:
            yield text


def _walk(grammar: xgrammar.CompiledGrammar, chance: random.Random) -> str | None:
    matcher = xgrammar.GrammarMatcher(grammar)
    mask = xgrammar.allocate_token_bitmask(1, END + 1)
    written = bytearray()
    patience = chance.choice((5, 30, 150))
    for step in range(STEPS_MAX):
        matcher.fill_next_token_bitmask(mask)
        bits = (mask[0].unsqueeze(1) >> torch.arange(32)) & 1
        allowed = bits.flatten()[: END + 1].nonzero().flatten().tolist()
        assert allowed, f"nothing is allowed after {bytes(written)!r}"
        token = _choose(allowed, chance, tired=step > patience)
        if token == END:
            return written.decode()
        assert matcher.accept_token(token)
        written.append(token)
    return None


def _choose(allowed: list[int], chance: random.Random, *, tired: bool) -> int:
    if END in allowed and (tired or chance.random() < 0.4):
        return END
    closing = [token for token in _CLOSING if token in allowed]
    if closing and (tired or chance.random() < 0.2):
        return chance.choice(closing)
    plain = [token for token in _PLAIN if token in allowed]
    if plain and chance.random() < 0.5:
        return chance.choice(plain)
    return chance.choice(allowed)
