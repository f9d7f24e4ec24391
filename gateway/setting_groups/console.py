"""The settings of the console."""

from pydantic import BaseModel, Field


class ConsoleSettings(BaseModel):
    """Durations are in seconds, sizes in bytes, where the name doesn't say otherwise."""

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
