"""Templates into pages. Everything is escaped but what a template itself is."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from gateway.console import formats
from gateway.console.sessions import Principal
from pricing.limit_text import write_limit

if TYPE_CHECKING:
    from gateway.console.visits import Visit

THEMES: Final = ("light", "dark")
THEME_COOKIE: Final = "farebox_theme"

# What a page says after something was done; the address of the page says which.
DONE: Final = {
    "account": "The account is open.",
    "renamed": "Renamed.",
    "limit": "The limit is set.",
    "credit": "The credit is added.",
    "suspended": "The account is suspended: its keys don't work any more.",
    "resumed": "The account works again.",
    "terms": "The key's terms are set.",
    "cancelled": "The batch is told to stop.",
    "revoked": "The key is revoked, for good.",
}

USER_MENU: Final = (
    ("Overview", "overview"),
    ("Usage", "usage"),
    ("Requests", "requests"),
    ("Batches", "batches"),
    ("Key", "key"),
)
OPERATOR_MENU: Final = (
    ("Overview", "overview"),
    ("Accounts", "accounts"),
    ("Keys", "keys"),
    ("Usage", "usage"),
    ("Requests", "requests"),
    ("Batches", "batches"),
    ("Engines", "engines"),
    ("Webhooks", "webhooks"),
    ("Audit", "audit"),
)


class Rendering:
    """The templates of one application."""

    def __init__(self, root_path: str, version: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "root": root_path,
            "base": f"{root_path}/console",
            "assets": f"{root_path}/console/static/{version}",
        }
        self._environment.filters |= {
            "usd": formats.usd,
            "short_usd": formats.short_usd,
            "per_million": formats.per_million,
            "number": formats.number,
            "when": formats.when,
            "limit": formats.limit,
            "limit_line": write_limit,
            "code": code,
        }

    def page(self, visit: "Visit", template: str, status: int, context: Mapping[str, Any]) -> Response:
        """Not to be kept by anybody: most of it belongs to whoever is signed in."""
        session = visit.session
        principal = session.principal if session is not None else None
        theme = visit.request.cookies.get(THEME_COOKIE)
        content = self._environment.get_template(template).render(
            {
                "principal": principal,
                "csrf": session.csrf if session is not None else "",
                "menu": menu(principal),
                "theme": theme if theme in THEMES else "",
                "path": visit.request.scope["path"],
                "done": DONE.get(visit.query.get("done", ""), ""),
                "problem": "",
                "form": visit.form,
                **context,
            }
        )
        return HTMLResponse(content, status, headers={"cache-control": "no-store"})

    def sign_in(self, visit: "Visit", *, status: int = 200, after: str = "", problem: str = "") -> Response:
        """In place of a page that needs somebody to be signed in; nobody is sent elsewhere."""
        return self.page(visit, "sign_in.html", status, {"after": after, "problem": problem})


def code(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def menu(principal: Principal | None) -> tuple[tuple[str, str], ...]:
    if principal is None:
        return ()
    return OPERATOR_MENU if principal.is_operator else USER_MENU
