"""The libraries behind vLLM's two backends, asked without vLLM: whether they make a grammar, and at which cost."""

import random
import re
import time
from typing import Any, Protocol

import numpy as np

from engine.grammar.errors import Refused
from engine.vllm_internals.xgrammar import native_xgrammar

# How many tokens of an answer are tried.
STEPS = 48


class Compiler(Protocol):
    """Makes a grammar and walks into it; raises Refused, or whatever the library does."""

    def attempt(self, kind: str, text: str, place: str, step_seconds: float) -> None: ...


def load(backend: str, tokenizer: str, vocabulary: int, end: int | None) -> Compiler:
    """`tokenizer` is xgrammar's TokenizerInfo, or a tokenizer.json for guidance; in JSON."""
    return XGrammar(tokenizer) if backend == "xgrammar" else Guidance(tokenizer, vocabulary, end)


class XGrammar:
    """As `vllm.v1.structured_output.backend_xgrammar` calls it."""

    def __init__(self, tokenizer_info: str) -> None:
        core = native_xgrammar()
        info = core.TokenizerInfo.deserialize_json(tokenizer_info)
        self._core = core
        self._size = info.vocab_size()
        # The engine's has a cache, and some grammars can't be made with one.
        self._compiler = core.GrammarCompiler(info, 1, True, -1)

    def attempt(self, kind: str, text: str, place: str, step_seconds: float) -> None:
        try:
            compiled = self._compile(kind, text)
        except (RuntimeError, ValueError) as error:
            if "bad_alloc" in str(error):
                raise MemoryError from None
            raise Refused(f"`{place}` can't be kept: {_reason(error)}", place) from None
        matcher = self._core.GrammarMatcher(compiled, None, False, -1, None)
        for seed in range(2):
            matcher.reset()
            self._walk(matcher, place, step_seconds, random.Random(seed))

    def _compile(self, kind: str, text: str) -> Any:
        match kind:
            case "json":
                return self._compiler.compile_json_schema(text, True, None, None, True, None, False)
            case "regex":
                return self._compiler.compile_regex(text)
            case "structural_tag":
                return self._compiler.compile_structural_tag(text)
            case "lark":
                return self._compiler.compile_lark(text, [], [])
            case _:
                return self._compiler.compile_grammar_from_strings(text, "root")

    def _walk(self, matcher: Any, place: str, step_seconds: float, chance: random.Random) -> None:
        mask = np.full((1, (self._size + 31) // 32), -1, dtype=np.int32)
        began, steps = time.process_time(), 0
        while steps < STEPS and not matcher.is_terminated():
            matcher.fill_next_token_bitmask(mask, 0, False)
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: self._size])
            if not len(allowed):
                raise Refused(f"`{place}` can't be kept: there is no answer that fits it.", place, unsupported=False)
            matcher.accept_token(int(allowed[chance.randrange(len(allowed))]), False)
            steps += 1
        if steps and (time.process_time() - began) / steps > step_seconds:
            raise too_costly(place, f"{step_seconds:g} seconds of computing for each token", "GRAMMAR_STEP_SECONDS_MAX")


class Guidance:
    """As `vllm.v1.structured_output.backend_guidance` calls it. It refuses itself what it doesn't keep."""

    def __init__(self, tokenizer: str, vocabulary: int, end: int | None) -> None:
        import llguidance

        self._library = llguidance
        self._tokenizer = llguidance.LLTokenizer(tokenizer, n_vocab=vocabulary, eos_token=end)

    def attempt(self, kind: str, text: str, place: str, step_seconds: float) -> None:
        if kind == "structural_tag":
            raise Refused(
                f"`{place}`: the structured-output backend of this model (guidance) can't hold calls to a function's "
                "schema; send `tool_choice` auto or none, and no `strict`.",
                place,
            )
        matcher = self._library.LLMatcher(self._tokenizer, self._grammar(kind, text), log_level=0)
        if error := matcher.get_error():
            raise Refused(f"`{place}` can't be kept: {_shortened(error)}", place)
        began = time.process_time()
        chance = random.Random(0)
        for step in range(STEPS):
            mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
            if not len(allowed) or matcher.is_stopped():
                break
            matcher.consume_token(int(allowed[chance.randrange(len(allowed))]))
            if (time.process_time() - began) / (step + 1) > step_seconds and step > 8:
                raise too_costly(
                    place, f"{step_seconds:g} seconds of computing for each token", "GRAMMAR_STEP_SECONDS_MAX"
                )
        if error := matcher.get_error():
            raise Refused(f"`{place}` can't be kept: {_shortened(error)}", place)

    def _grammar(self, kind: str, text: str) -> str:
        if kind == "json":
            made: str = self._library.LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_flexible": True})
            return made
        made = self._library.grammar_from("regex" if kind == "regex" else "grammar", text)
        return made


def too_costly(place: str, what: str, setting: str) -> Refused:
    return Refused(
        f"`{place}` is too costly: its grammar takes more than {what} (FAREBOX_{setting}). Make it simpler: fewer and "
        "smaller repeats, lengths and alternatives.",
        place,
    )


def _reason(error: Exception) -> str:
    """xgrammar's own sentence, without the place in its source; ours where it has none for those outside."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", lines[-1]) if lines else ""
    return _shortened("the engine's grammars don't take it" if not said or "Check failed" in said else said)


def _shortened(text: str) -> str:
    text = " ".join(text.split())[:200]
    return text if text.endswith(".") else f"{text}."
