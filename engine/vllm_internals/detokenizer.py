"""vLLM's detokenizer for the common case: no stop strings, the text needed once and then no more."""

from tokenizers import decoders
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer, IncrementalDetokenizer

# The end of the prompt decides how the first token joins on (spaces, a character in halves); vLLM's slow one reads six.
PROMPT_TOKENS = 64


class PlainDetokenizer(IncrementalDetokenizer):
    """Steps the `DecodeStream` of vLLM's FastIncrementalDetokenizer, and keeps no text.

    vLLM's passes each token through five functions, and appends to the whole text so far, which is copied each time:
    an answer of n tokens costs it n * n. What it does when the tokenizers library fails is left to it.
    """

    def __init__(self, theirs: FastIncrementalDetokenizer) -> None:
        super().__init__()
        self._theirs = theirs
        self._tokenizer = theirs.tokenizer
        self._keeps_stop_token = theirs.include_stop_str_in_output

    def advance(self, token_ids: list[int], stopped: bool) -> str:
        """The text of new tokens; a stop token at the end has none."""
        self.token_ids.extend(token_ids)
        if stopped and not self._keeps_stop_token:
            token_ids = token_ids[:-1]
        stream = self._theirs.stream
        text = ""
        for token_id in token_ids:
            try:
                text += stream.step(self._tokenizer, token_id) or ""
            except Exception:
                text += self._theirs.decode_next(token_id)
                stream = self._theirs.stream
        return text


def read_prompts_end(detokenizer: IncrementalDetokenizer | None, prompt_token_ids: list[int] | None) -> None:
    """Let it begin at the end of a long prompt: at the first token vLLM's decodes the whole, in the event loop."""
    if not isinstance(detokenizer, FastIncrementalDetokenizer) or prompt_token_ids is None:
        return
    if len(prompt_token_ids) > PROMPT_TOKENS:
        detokenizer.stream = decoders.DecodeStream(
            ids=prompt_token_ids[-PROMPT_TOKENS:], skip_special_tokens=detokenizer.skip_special_tokens
        )


def plain(detokenizer: IncrementalDetokenizer | None) -> PlainDetokenizer | None:
    """The fast detokenizer that does what this new one would do, if there is one."""
    if isinstance(detokenizer, FastIncrementalDetokenizer) and not detokenizer.stop:
        # Without this flag, spaces between special tokens depend on the token before.
        return PlainDetokenizer(detokenizer) if detokenizer.spaces_between_special_tokens else None
    return None
