"""Who changed what, and when."""

from __future__ import annotations

from dataclasses import dataclass

from pricing.database import Database


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change. `detail` is JSON text: {"field": {"from": ..., "to": ...}}. No secrets."""

    id: int
    at: int
    actor: str
    action: str
    account_id: int | None
    key_id: int | None
    detail: str


class AuditLog:
    """Reads the audit log; it is written by `Accounts` and `Keys` alone."""

    def __init__(self, database: Database) -> None:
        raise NotImplementedError

    async def list(
        self,
        *,
        account_id: int | None = None,
        key_id: int | None = None,
        before: int | None = None,
        count_max: int = 100,
    ) -> list[AuditRecord]:
        """The latest changes first; `before` is the id of the last one seen."""
        raise NotImplementedError
