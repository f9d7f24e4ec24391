"""The types of settings: how a text from the environment is read, and what it may be."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, SecretStr
from pydantic_core import from_json

STORE_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,62}(/[A-Za-z0-9!_.*'()/-]*)?")
HTTP_URL = re.compile(r"https?://[^/\s]+(/[^\s]*)?")
ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*]+")

Precision = Literal["fp8", "fp16", "bf16", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
UnknownFields = Literal["accept", "refuse"]
WithoutRedis = Literal["local", "refuse"]


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _json(value: object) -> object:
    return from_json(value) if isinstance(value, str) else value


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin; one looks like https://app.example.com, without a path")
    return origins


def _http_url(url: str) -> str:
    if not HTTP_URL.fullmatch(url):
        raise ValueError(f"{url!r} is no URL of a collector; one looks like http://collector:4318")
    return url.rstrip("/")


def _root_path(path: str) -> str:
    path = path.rstrip("/")
    if not ROOT_PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no prefix of paths; one looks like /llm")
    return path


def _store_url(url: str) -> str:
    if not STORE_URL.fullmatch(url):
        raise ValueError(f"{url!r} is no place for files; one looks like s3://bucket or s3://bucket/folder")
    return url.rstrip("/")


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Origins = Annotated[Names, AfterValidator(_origins)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_split)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_split)]
Secret = Annotated[SecretStr, Field(min_length=24)]
RootPath = Annotated[str, AfterValidator(_root_path)]
CollectorURL = Annotated[str, AfterValidator(_http_url)]
CardFields = Annotated[dict[str, JsonValue], BeforeValidator(_json)]
StoreURL = Annotated[str, AfterValidator(_store_url)]
EngineOptions = Annotated[dict[str, JsonValue], BeforeValidator(_json)]
