"""A program: with the log as `farebox serve` has it, every parser of vLLM's meets what it can't parse.

`python -m tests.engine.every_parser LEVEL MARKER`: all that the models say holds MARKER.
"""

import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.demo import MODEL_DIR
from engine.environment import EngineLogs, prepare
from engine.log_lines import requests_come
from gateway.process.streams import own_streams
from gateway.settings import Settings
from gateway.telemetry.logs import configure_logging

log = logging.getLogger("farebox.test")

TIMES = 40  # as much again makes the answers longer, and not the log


class AnyVocabulary(dict[str, int]):
    """Parsers refuse a tokenizer without their special tokens; this one has all that they ask for."""

    def get(self, key: str, default: object = None) -> int:  # type: ignore[override]  # there is no default
        return super().get(key, 7)

    def __missing__(self, key: str) -> int:
        return 7

    def __contains__(self, key: object) -> bool:
        return True


class AnyTokenizer:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def get_vocab(self) -> dict[str, int]:
        return AnyVocabulary(self._tokenizer.get_vocab())


def malformed(marker: str, marks: list[str]) -> Iterator[str]:
    """What looks like a call, and isn't one; `marks` are the parser's own."""
    plain = [
        f"function f() {{ return '{marker}'; }}",
        f'{{"name": {{"patient": "{marker}"}}}}',
        f'{{"name": "{marker}", "parameters": {{"a": "{marker}", "b": [{marker}',
        f'[{{"name": "{marker}", "arguments": "{marker}"}}, {marker}]',
        f"[get(city='{marker}', other={{{marker})]",
        f"<tool_call>{marker}<arg_key>{marker}</arg_key><arg_value>{marker}</tool_call>",
        f"<function={marker}><parameter={marker}>{marker}</function>",
        f"<think>{marker}</think><tool_call>{marker}</tool_call>",
    ]
    yield from plain
    yield f'{{"name": {{"patient": "{marker}"}}}}' * TIMES
    for text in plain[1:4]:
        yield text.join([*marks, ""])
    yield marker.join([*marks, ""]) * 2


def play(marker: str) -> None:
    from transformers import AutoTokenizer
    from vllm.config import ModelConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser import ParserManager
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    from engine.parsing import ChatContext, ChoiceParser

    tokenizer: Any = AnyTokenizer(AutoTokenizer.from_pretrained(MODEL_DIR))
    config = ModelConfig(model=str(MODEL_DIR))
    tool = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
    request = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": marker}], "tools": [tool], "tool_choice": "auto"}
    )
    pairs: list[tuple[str | None, str | None]] = [(name, None) for name in ToolParserManager.list_registered()]
    pairs += [(None, name) for name in ReasoningParserManager.list_registered()]
    played = 0
    for tools, reasoning in pairs:
        try:
            parser_class = ParserManager.get_parser(
                tool_parser_name=tools,
                reasoning_parser_name=reasoning,
                enable_auto_tools=tools is not None,
                model_name=str(MODEL_DIR),
                tokenizer=tokenizer,
            )
            assert parser_class is not None
            context = ChatContext(request, parser_class, tokenizer, config, {})
            context.parser()
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            log.info("left out: %s", f"{tools or reasoning} ({type(error).__name__}: {error})")
            continue
        parsers = [value for value in vars(context.parser()).values() if hasattr(value, "__dict__")]
        marks = [mark for one in parsers for mark in vars(one).values() if isinstance(mark, str) and len(mark) > 1]
        for text in malformed(marker, marks[:12]):
            ids = tokenizer.encode(text, add_special_tokens=False)
            ChoiceParser(context, []).whole(text, ids)
            streamed, sent = ChoiceParser(context, []), ""
            for number in range(len(ids)):
                sofar = tokenizer.decode(ids[: number + 1])
                streamed.feed(sofar[len(sent) :], [ids[number]], finished=number == len(ids) - 1)
                sent = sofar
        played += 1
    log.info("%d parsers were played", played)


def main(level: str, marker: str) -> None:
    with own_streams() as streams:
        configure_logging(Settings(log_level=level), stream=streams.err, mark_below=streams.mark)  # type: ignore[arg-type]  # the test's own
        prepare(local=True)
        logs = EngineLogs()
        assert logs.config_path is not None
        logging.config.dictConfig(json.loads(Path(logs.config_path).read_text()))
        requests_come()
        logs.requests_come()
        play(marker)
        print(marker)
        print(marker, file=sys.stderr)
        logs.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
