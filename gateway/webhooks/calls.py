"""How webhooks are called: how often, how long, and how the calls are signed."""

import hashlib
import hmac
from dataclasses import dataclass

from gateway.settings import Settings

SIGNATURE_HEADER = "farebox-signature"
PAUSE_FACTOR = 3


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`secret` None turns webhooks off. Durations are in seconds."""

    secret: str | None = None
    attempts: int = 8
    pause_seconds: float = 5.0
    pause_seconds_max: float = 3600.0
    timeout_seconds: float = 10.0
    allow_private: bool = False
    user_agent: str = "farebox"

    @classmethod
    def of(cls, settings: Settings, version: str) -> "WebhookSettings":
        return cls(
            secret=None if settings.webhook_secret is None else settings.webhook_secret.get_secret_value(),
            attempts=settings.webhook_attempts,
            pause_seconds=settings.webhook_pause_seconds,
            pause_seconds_max=settings.webhook_pause_seconds_max,
            timeout_seconds=settings.webhook_timeout_seconds,
            allow_private=settings.webhook_allow_private,
            user_agent=f"farebox/{version}",
        )

    def pause_ms(self, attempts: int) -> int:
        """How long to wait after this many attempts: each pause is three times the last."""
        return int(1000 * min(self.pause_seconds * PAUSE_FACTOR ** (attempts - 1), self.pause_seconds_max))


def signing_secret(deployment_secret: str, key_id: int) -> str:
    """One secret for each API key, so that who can check the calls to one client can't forge calls to another."""
    message = f"farebox webhook key {key_id}".encode()
    return "whsec-" + hmac.new(deployment_secret.encode(), message, hashlib.sha256).hexdigest()


def sign(secret: str, body: bytes, at: int) -> str:
    """The value of `farebox-signature`; `at` is in seconds since 1970 and part of what is signed."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
