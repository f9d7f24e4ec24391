"""Every setting of the gateway, and the only place that reads the environment.

Each field can be set as `FAREBOX_<NAME>` or as `farebox serve --<name>`; the flag wins. The README's table and
`--help` come from the descriptions below.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from gateway.setting_groups.console import ConsoleSettings
from gateway.setting_groups.files import FileSettings
from gateway.setting_groups.limits import LimitSettings
from gateway.setting_groups.money import MoneySettings
from gateway.setting_groups.prompts import PromptSettings
from gateway.setting_groups.webhooks import WebhookSettings
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
)

PREFIX = "FAREBOX_"


class SettingsError(Exception):
    """A setting is unknown or wrong; the sentence names it and says what is allowed."""


class ServingSettings(BaseModel):
    """The settings of the server, its models and its logs. Durations are in seconds, sizes in bytes."""

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
    otlp_endpoint: CollectorURL | None = Field(
        None,
        description="http://collector:4318: where to send traces, by OTLP over HTTP. Default: none are made.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may call this gateway from a browser, separated by commas, or `*` for all. "
        "Empty: none may.",
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


class Settings(
    ConsoleSettings, FileSettings, WebhookSettings, LimitSettings, MoneySettings, PromptSettings, ServingSettings
):
    """All of them, the last group first. Frozen."""

    @property
    def files_dir(self) -> Path:
        """Where files are kept, or are on their way to the store."""
        return self.data_dir.expanduser().resolve() / "files"


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
