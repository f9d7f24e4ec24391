"""Tiers: how soon the engine begins a request, and by which of the card's prices it is charged."""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """From the one that goes first to the one that goes last. Clients ask for all but the last."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"
    BATCH = "batch"
