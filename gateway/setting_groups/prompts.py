"""The settings of the bodies and prompts of requests, and the grammars that answers are held to."""

from pydantic import BaseModel, Field

from gateway.setting_types import UnknownFields


class PromptSettings(BaseModel):
    """Durations are in seconds, sizes in bytes, where the name doesn't say otherwise."""

    body_bytes_max: int = Field(4 * 2**20, ge=1024, description="Largest request body, after decompression.")
    body_values_max: int = Field(
        100_000,
        ge=8192,
        description="Most values in a request body: objects, lists, texts and numbers, at whatever depth. Token ids "
        "aren't counted.",
    )
    body_check_seconds_max: float = Field(
        10.0, gt=0, description="CPU time that a large body may take to be parsed and checked, in a process of its own."
    )
    body_check_memory_bytes_max: int = Field(
        2**30, ge=2**27, description="Most address space of the process that parses and checks large bodies."
    )
    large_requests_max: int = Field(
        64, ge=1, description="Large requests that may wait to be read and turned into prompts; more get a 503."
    )
    unknown_fields: UnknownFields = Field(
        "accept",
        description="What a request's top-level field meets that nobody here knows: `accept` names it in the header "
        "`farebox-ignored`, `refuse` answers 422.",
    )
    prompts_max: int = Field(64, ge=1, description="Most prompts in one request to /v1/completions.")
    prompt_logprobs_max: int = Field(
        65_536,
        ge=0,
        description="Most prompt tokens of one request to /v1/completions whose log probabilities it may ask for "
        "(`echo` with `logprobs`), over all prompts and answers.",
    )
    prompt_cache_bytes_max: int = Field(
        64 * 2**20,
        ge=0,
        description="Memory for the tokens of parts of prompts that were seen before, in each process and for each "
        "engine; 0: none are kept.",
    )
    fast_tokenizer: bool = Field(
        True,
        description="Tokenize prompts with `fastokens` where it gives the same tokens as `tokenizers`, which is tried "
        "at the start.",
    )
    grammar_seconds_max: float = Field(
        5.0,
        gt=0,
        description="How long, in seconds of one processor, a grammar may be made from a client's schema or "
        "expression. It is tried in a process of its own.",
    )
    grammar_step_seconds_max: float = Field(
        0.02, gt=0, description="How long such a grammar may compute for each token of an answer."
    )
    grammar_memory_bytes_max: int = Field(
        512 * 2**20, ge=2**20, description="How much memory making such a grammar may take."
    )
    grammar_bytes_max: int = Field(256 * 2**10, ge=1024, description="Largest schema or expression of a client.")
    grammar_waiting_max: int = Field(
        16, ge=1, description="How many such grammars of one key may wait to be tried; beyond that 503."
    )
