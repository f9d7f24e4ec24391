"""vLLM's detokenizer for the common case: no stop strings, the text needed once and then no more."""

from tokenizers import decoders
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer, IncrementalDetokenizer

# The end of the prompt decides how the first token joins on (spaces, a character in halves); vLLM's slow one reads six.
PROMPT_TOKENS = 64

_TORN = "\N{REPLACEMENT CHARACTER}"  # how `tokenizers` writes bytes that aren't a character


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
    """Let it begin at the end of the prompt.

    At the first token vLLM's decodes the whole prompt, in the event loop; and where that ends within a character, it
    gives the prompt's text out again.
    """
    if not isinstance(detokenizer, FastIncrementalDetokenizer) or not prompt_token_ids:
        return
    end, skip = prompt_token_ids[-PROMPT_TOKENS:], detokenizer.skip_special_tokens
    if detokenizer.tokenizer.decode(end[-1:], skip_special_tokens=skip).endswith(_TORN):
        detokenizer.stream = decoders.DecodeStream(skip_special_tokens=skip)
        for token_id in end:
            detokenizer.decode_next(token_id)  # what the prompt ends with stays in the stream
    elif len(prompt_token_ids) > PROMPT_TOKENS:
        detokenizer.stream = decoders.DecodeStream(ids=end, skip_special_tokens=skip)


def plain(detokenizer: IncrementalDetokenizer | None) -> PlainDetokenizer | None:
    """The fast detokenizer that does what this new one would do, if there is one."""
    if isinstance(detokenizer, FastIncrementalDetokenizer) and not detokenizer.stop:
        # Without this flag, spaces between special tokens depend on the token before.
        return PlainDetokenizer(detokenizer) if detokenizer.spaces_between_special_tokens else None
    return None
