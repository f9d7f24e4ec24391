"""Prompts of the scripted engine: text as it is, a token for each word."""

from collections.abc import Sequence
from dataclasses import replace

from engine.base import THINKING_BUDGET, ChatFormat, Conversation, Prompt, ResponseFormat
from engine.errors import PromptError, UnsupportedFeature
from engine.scripted_vocabulary import WORD, ScriptedVocabulary

VOCABULARY = 1 << 20
IDS_MAX = 1 << 17  # of a prompt, kept as text


class ScriptedRenderer:
    """See `engine.base.Renderer`. A conversation is a line per message: `role: content`."""

    chats = True

    def __init__(self, chat_format: ChatFormat, vocabulary: ScriptedVocabulary) -> None:
        self._format = chat_format
        self._vocabulary = vocabulary

    async def chat(self, conversation: Conversation) -> Prompt:
        if conversation.tools and conversation.tool_choice != "none" and self._format.tool_call_parser is None:
            raise UnsupportedFeature("This model has no tool calling; send the request without `tools`.", "tools")
        lines = [f"{message.get('role')}: {message.get('content') or ''}" for message in conversation.messages]
        prompt = await self.text("\n".join(lines))
        thinks = conversation.thinking_tokens_max is None or self._format.reasoning_parser is not None
        return prompt if thinks else replace(prompt, left_out=(THINKING_BUDGET,))

    async def text(
        self,
        text: str,
        response_format: ResponseFormat | None = None,
        param: str = "prompt",
        special_tokens: bool = True,
    ) -> Prompt:
        return Prompt(len(WORD.findall(text)), text)

    async def pair(self, query: str, document: str, param: str) -> Prompt:
        return await self.text(f"{query} {document}")

    def token_ids(self, ids: Sequence[int], param: str = "prompt") -> Prompt:
        if 0 < len(ids) <= IDS_MAX and not 0 <= min(ids) <= max(ids) < VOCABULARY:
            wrong = next(token for token in ids if not 0 <= token < VOCABULARY)
            raise PromptError(f"Token id {wrong} is not in this model's vocabulary of {VOCABULARY} tokens.", param)
        return Prompt(len(ids), " ".join(map(str, ids[:IDS_MAX])))

    def prompt_text(self, prompt: Prompt) -> str:
        return str(prompt.handle)

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        return [self._vocabulary.id_of(word.encode()) for word in WORD.findall(str(prompt.handle))]

    def token_names(self, ids: Sequence[int]) -> list[str]:
        return [self._vocabulary.token(token_id).text for token_id in ids]

    def decoded(self, prompt: Prompt) -> str:
        return "".join(self.token_names([int(word) for word in str(prompt.handle).split()]))
