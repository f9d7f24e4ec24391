"""The settings of webhooks."""

from pydantic import BaseModel, Field

from gateway.setting_types import Secret


class WebhookSettings(BaseModel):
    """Durations are in seconds, sizes in bytes, where the name doesn't say otherwise."""

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
