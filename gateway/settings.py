"""Every setting of the gateway, and the only place that reads the environment.

Each field can be set as `FAREBOX_<NAME>` or as `farebox serve --<name>`; the flag wins. The README's table and
`--help` come from the descriptions below.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from gateway.setting_types import (
    CardFields,
    CollectorURL,
    EngineOptions,
    LogFormat,
    LogLevel,
    Names,
    Networks,
    Origins,
    Paths,
    Precision,
    RootPath,
    Secret,
    UnknownFields,
    WithoutRedis,
)

PREFIX = "FAREBOX_"


class SettingsError(Exception):
    """A setting is unknown or wrong; the sentence names it and says what is allowed."""


class Settings(BaseModel):
    """Frozen. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all of IPv4, :: for all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: RootPath = Field(
        "",
        description="Prefix of all paths behind a proxy, such as /llm. The documents tell it; a path is taken with it "
        "and without.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses or networks of proxies, separated by commas, whose X-Forwarded-For and "
        "X-Forwarded-Proto count. Empty: nobody's.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Gateway processes on the same engines. More than one share their limits through Redis.",
    )
    data_dir: Path = Field(Path("farebox-data"), description="Folder of the embedded database; made if it isn't there.")
    database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host/name with libpq's options, or sqlite:///path. Default: SQLite in "
        "the data folder.",
    )
    models: Names = Field(
        ("farebox/demo",),
        description="Names of the model cards to serve, separated by commas; `all` serves every card.",
    )
    cards: Paths = Field((), description="TOML files with model cards of your own, separated by commas.")
    card: CardFields | None = Field(
        None,
        description="One more model card, as JSON with the fields of a card file; it is served. `farebox serve MODEL` "
        "makes it from the model.",
    )
    source: str | None = Field(
        None, description="Weights (folder, hub id or `demo`) that take the place of every served card's own."
    )
    precision: Precision | None = Field(
        None, description="fp8, fp16, bf16 or auto, in place of every served card's own."
    )
    engine: EngineOptions = Field(
        {},
        description="More engine options for every served card, as JSON: fields of vLLM's AsyncEngineArgs, "
        'such as {"max_num_seqs": 64}.',
    )
    bootstrap_key: Secret | None = Field(
        None, description="A client's key, at least 24 characters, made on the start if it doesn't exist."
    )
    admin_key: Secret | None = Field(
        None, description="A key for /admin, at least 24 characters, made on the start if it doesn't exist."
    )
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
    shutdown_seconds: float = Field(
        30.0, ge=0, description="How long running requests may go on after SIGTERM before they are cut off."
    )
    headers_timeout_seconds: float = Field(20.0, gt=0, description="How long a request's headers may take to come.")
    body_timeout_seconds: float = Field(60.0, gt=0, description="How long a request's body may take to come.")
    idle_timeout_seconds: int = Field(75, gt=0, description="How long a connection may wait for its next request.")
    request_timeout_seconds: float = Field(
        3600.0, gt=0, description="How long a request may take in all; then it ends with what it has got."
    )
    stream_ping_seconds: float = Field(
        15.0,
        ge=0,
        description="After how long without a byte a stream says that it goes on: by a comment, or Anthropic's `ping`. "
        "0 turns it off.",
    )
    lease_seconds: float = Field(
        15.0, ge=1, description="How long a process that stopped answering keeps its open reservations."
    )
    checkpoint_seconds: float = Field(
        0.5, gt=0, le=1, description="How often the tokens of running requests are written down."
    )
    ledger_entry_days: int | None = Field(
        None,
        ge=7,
        description="How long the ledger keeps each request's entry; the daily totals stay. PostgreSQL removes whole "
        "months. Default: for ever.",
    )
    database_lock_seconds: float = Field(
        2.0,
        ge=0.1,
        le=600,
        description="PostgreSQL: how long a group commit waits for rows that another process holds; then what touches "
        "them waits apart.",
    )
    database_idle_seconds: float = Field(
        5.0, ge=1, le=600, description="PostgreSQL: how long a transaction may stand still; then the server ends it."
    )
    database_statement_seconds: float = Field(
        8.0,
        ge=1,
        le=600,
        description="PostgreSQL: how long a statement may take, and a request wait for its account's rows. More than "
        "`FAREBOX_DATABASE_LOCK_SECONDS`.",
    )
    key_cache_seconds: float = Field(
        300.0, ge=0, description="How long known keys stay valid while the database can't be reached."
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
    webhook_secret: Secret | None = Field(
        None,
        description="Turns webhooks on; each API key's signing secret is made from it. At least 24 characters, the "
        "same in every process.",
    )
    webhook_attempts: int = Field(8, ge=1, le=100, description="How often a webhook is called until it is given up.")
    webhook_pause_seconds: float = Field(
        5.0, gt=0, description="Pause after a webhook's first failed call; each further one is three times as long."
    )
    webhook_pause_seconds_max: float = Field(3600.0, gt=0, description="Longest pause between two calls of a webhook.")
    webhook_timeout_seconds: float = Field(10.0, gt=0, description="How long a webhook's receiver may take to answer.")
    webhook_allow_private: bool = Field(
        False, description="Let webhooks reach private, loopback and link-local addresses, such as your own network's."
    )
    adapters_max: int = Field(
        100, ge=0, description="LoRA adapters that may be added while the gateway runs, beside those of the cards."
    )
    limit_requests_per_minute: int | None = Field(
        None, ge=0, description="Requests per minute for each key and model, where the key has no number of its own."
    )
    limit_tokens_per_minute: int | None = Field(
        None, ge=0, description="Tokens per minute for each key and model, where the key has no number of its own."
    )
    limit_concurrent_requests: int | None = Field(
        200, ge=0, description="Requests at a time for each key and model, where the key has no number of its own."
    )
    limit_alternatives_per_slot: int = Field(
        5,
        ge=0,
        description="Alternatives per token (`top_logprobs`, over all choices) that count as one more request at a "
        "time; 0: they don't count.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="redis://user:password@host:port/0 (a server or a node of a Redis Cluster), or redis+sentinel://"
        "host:26379,other:26379/mymaster: where several processes share their limits. Default: each process limits for "
        "itself.",
    )
    redis_timeout_seconds: float = Field(
        0.1, gt=0, description="How long a request waits for Redis before it is limited without."
    )
    limits_without_redis: WithoutRedis = Field(
        "local", description="While Redis is away: `local` limits in each process, `refuse` answers 503."
    )
    idempotency_hours: float = Field(
        24.0, gt=0, description="How long the answer to a request with an Idempotency-Key can be had again."
    )
    idempotency_bytes_max: int = Field(
        4 * 2**20, ge=1024, description="Largest answer that is kept for its Idempotency-Key."
    )
    otlp_endpoint: CollectorURL | None = Field(
        None,
        description="http://collector:4318: where to send traces, by OTLP over HTTP. Default: none are made.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may call this gateway from a browser, separated by commas, or `*` for all. "
        "Empty: none may.",
    )
    console: bool = Field(
        True,
        description="Web pages under /console: models, a playground, usage, keys, money. `false` takes them away.",
    )
    console_catalog_public: bool = Field(
        True, description="Whether the console shows models and prices to whoever isn't signed in."
    )
    console_idle_seconds: int = Field(
        3600, ge=60, description="How long a session of the console lives without a page being opened."
    )
    console_session_seconds: int = Field(
        43_200, ge=60, description="How long a session of the console lives at most; then one signs in again."
    )
    log_format: LogFormat = Field(
        "text", description="text or json: lines for people or for machines. The line per request is JSON in both."
    )
    loop_delay_seconds_max: float = Field(
        0.5,
        gt=0,
        description="How far the gateway may be behind (its event loop, or with an engine's tokens) and still take "
        "requests; beyond it they get 503.",
    )
    loop_delay_log_seconds: float = Field(
        0.2, gt=0, description="A delay of the event loop from which on a log line says what held it up."
    )
    log_level: LogLevel = Field("info", description="debug, info, warning or error.")

    @property
    def database(self) -> str:
        """The database's URL, password included: never log it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.expanduser().resolve() / 'farebox.db'}"

    @property
    def traces_url(self) -> str | None:
        """The collector's URL for traces: OTLP's own path, unless the setting has one."""
        if self.otlp_endpoint is None:
            return None
        bare = self.otlp_endpoint.count("/") == 2
        return f"{self.otlp_endpoint}/v1/traces" if bare else self.otlp_endpoint

    @property
    def embedded_database(self) -> bool:
        return self.database.startswith("sqlite")


def load_settings(environment: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Settings:
    """Settings from `FAREBOX_*` variables, overridden by `flags` (field names; None means not given).

    Raises SettingsError.
    """
    values: dict[str, object] = {}
    for variable, value in environment.items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            if name not in Settings.model_fields:
                raise SettingsError(_unknown(variable))
            if value != "":
                values[name] = value
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise SettingsError(f"{variable_of(name)} is wrong: {first['msg']}. {description_of(name)}") from None


def variable_of(name: str) -> str:
    """`data_dir` -> `FAREBOX_DATA_DIR`."""
    return PREFIX + name.upper()


def description_of(name: str) -> str:
    return Settings.model_fields[name].description or ""


def _unknown(variable: str) -> str:
    known = [variable_of(name) for name in Settings.model_fields]
    near = difflib.get_close_matches(variable, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else "`farebox serve --help` lists all of them."
    return f"There is no setting {variable}. {hint}"
