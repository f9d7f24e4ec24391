"""A PostgreSQL URL as people and providers write it: libpq's options, and those of poolers and other drivers.

What asyncpg understands goes to it unchanged; what means something here is read here; any other option ends with one
sentence that names it, since a connection without it would be another one than was asked for.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from storage.errors import InvalidSetting
from storage.text import shorten

# A password may hold anything but "@", as in SQLAlchemy's URLs; several hosts are separated by commas.
_URL: Final = re.compile(
    r"(?:postgres|postgresql)(?:\+asyncpg)?://"
    r"(?:(?P<user>[^:/@]*)(?::(?P<password>[^@]*))?@)?(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_CONNECT_S: Final = 5
_CONNECT_S_MAX: Final = 600
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]@,/\s]*)(?::[0-9]{1,5})?", re.ASCII)
_FILES: Final = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_FOR_ASYNCPG: Final = frozenset(
    [
        *("host", "port", "dbname", "user", "password", "service", "target_session_attrs", "krbsrvname", "gsslib"),
        *("sslmode", "sslnegotiation", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"),
        *_FILES,
    ]
)
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
    "gsslib": ("gssapi", "sspi"),
}


@dataclass(frozen=True, slots=True)
class PostgreSQLAddress:
    """Where the server is and how to talk to it. `dsn` and `password` are for asyncpg alone: never log them.

    `statements_kept` is how many prepared statements a connection keeps, None for the default; `pooled` is what the URL
    says about a pooler in front of the server, None where it says nothing.
    """

    dsn: str = field(repr=False)
    user: str | None
    password: str | None = field(repr=False)
    connect_s: int = _CONNECT_S
    application_name: str = "farebox"
    options: str = ""
    statements_kept: int | None = None
    pooled: bool | None = None


def read_postgres_url(url: str) -> PostgreSQLAddress:
    """Raises InvalidSetting with a sentence that names the option, and repeats no password."""
    found = _URL.fullmatch(url)
    if found is None:
        raise InvalidSetting("The database URL must look like postgresql://user:password@host/name.")
    if not all(_HOST.fullmatch(host) for host in found["hosts"].split(",")):
        raise InvalidSetting(
            "The database URL's host can't be read; it is name:5432, and in a password @ is written %40 and : %3A."
        )
    options = _options(found["query"] or "")
    ours: dict[str, object] = {}
    for name in sorted(options, reverse=True):  # so that application_name comes after its fallback
        if name in _READERS:
            value = options.pop(name)
            ours |= _READERS[name](name, value)
        elif name not in _FOR_ASYNCPG:
            raise _unknown(name)
    if "ssl" in ours:
        options.setdefault("sslmode", str(ours.pop("ssl")))
    if not re.fullmatch(r"[0-9]{1,5}(,[0-9]{1,5})*", options.get("port", "5432"), re.ASCII):
        raise InvalidSetting(f"The database URL's port is {shorten(options['port'])}; it is a number such as 5432.")
    _check(options)
    database = found["database"] or ""
    return PostgreSQLAddress(
        dsn=f"postgresql://{found['hosts']}/{database}"
        + (f"?{urlencode(options, quote_via=quote)}" if options else ""),
        user=unquote(found["user"]) if found["user"] else None,
        password=None if found["password"] is None else unquote(found["password"]),
        **ours,  # type: ignore[arg-type]  # the readers give fields of this class
    )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "host" and name in options:  # SQLAlchemy's way to name several
            options[name] += f",{value}"
        elif name in options:
            raise InvalidSetting(f"The database URL has the option {shorten(name)} twice.")
        else:
            options[name] = value
    return options


def _check(options: Mapping[str, str]) -> None:
    for name, choices in _CHOICES.items():
        if (value := options.get(name)) is not None and value not in choices:
            raise InvalidSetting(f"The database URL's {name} is {shorten(value)}; it can be {', '.join(choices)}.")
    for name in _FILES:
        if name in options and not Path(options[name]).is_file():
            raise InvalidSetting(f"The database URL's {name} names no file: {shorten(options[name])}.")
    if "sslrootcert" in options:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(options["sslrootcert"])
        except OSError:
            raise InvalidSetting(
                f"The database URL's sslrootcert holds no certificate in PEM: {shorten(options['sslrootcert'])}."
            ) from None


def _unknown(name: str) -> InvalidSetting:
    known = sorted(_FOR_ASYNCPG | _READERS.keys())
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"The options are {', '.join(known)}."
    return InvalidSetting(f"Farebox doesn't know the database URL's option {shorten(name)}. {hint}")


def _seconds(name: str, value: str) -> dict[str, object]:
    if not re.fullmatch(r"[0-9]{1,4}", value, re.ASCII) or not 1 <= int(value) <= _CONNECT_S_MAX:
        raise InvalidSetting(f"The database URL's {name} is {shorten(value)}; it is 1 to {_CONNECT_S_MAX} seconds.")
    return {"connect_s": int(value)}


def _count(name: str, value: str) -> dict[str, object]:
    if not re.fullmatch(r"[0-9]{1,5}", value, re.ASCII):
        raise InvalidSetting(f"The database URL's {name} is {shorten(value)}; it is 0 (none are kept) or more.")
    return {"statements_kept": int(value)}


def _switch(name: str, value: str) -> dict[str, object]:
    if value.lower() not in ("true", "false", "1", "0"):
        raise InvalidSetting(f"The database URL's {name} is {shorten(value)}; it is true or false.")
    return {"pooled": value.lower() in ("true", "1")}


def _tls(name: str, value: str) -> dict[str, object]:
    mode = {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(value.lower(), value)
    if mode not in _SSL_MODES:
        raise InvalidSetting(f"The database URL's {name} is {shorten(value)}; it is true, false or a value of sslmode.")
    return {"ssl": mode}


def _not_required(name: str, value: str) -> dict[str, object]:
    if value not in ("disable", "prefer"):
        raise InvalidSetting(
            f"The database URL asks for {name}={value[:20]}, which Farebox's driver can't do; leave it out or give "
            "'prefer'. sslmode=verify-full proves who the server is."
        )
    return {}


def _utf8(name: str, value: str) -> dict[str, object]:
    if value.lower().replace("-", "") not in ("utf8", "auto"):
        raise InvalidSetting(f"The database URL's {name} is {shorten(value)}; Farebox speaks UTF-8 only.")
    return {}


def _text(field_name: str) -> Callable[[str, str], dict[str, object]]:
    def read(name: str, value: str) -> dict[str, object]:
        if "\0" in value:
            raise InvalidSetting(f"The database URL's {name} can't hold a NUL.")
        return {field_name: value}

    return read


_READERS: Final[Mapping[str, Callable[[str, str], dict[str, object]]]] = {
    "connect_timeout": _seconds,
    "application_name": _text("application_name"),
    "fallback_application_name": _text("application_name"),
    "options": _text("options"),
    "client_encoding": _utf8,
    "channel_binding": _not_required,
    "gssencmode": _not_required,
    "ssl": _tls,
    "pgbouncer": _switch,
    "statement_cache_size": _count,
    "prepared_statement_cache_size": _count,
}
