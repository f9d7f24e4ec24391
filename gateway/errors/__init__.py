"""Every error that a client can get, and the one shape they all have.

    GatewayError
    ├── InvalidRequest          400  invalid_json, context_length_exceeded, unsupported_parameter
    │   └── InvalidParameter    422  invalid_parameter
    ├── InvalidAPIKey           401  invalid_api_key
    ├── PaymentRequired         402  insufficient_funds, with retry-after where the limit opens within a day
    ├── ModelNotAllowed         403  model_not_allowed
    ├── NotFound                404  not_found, model_not_found
    ├── MethodNotAllowed        405  method_not_allowed
    ├── RequestTimeout          408  request_timeout
    ├── Conflict                409  already_exists, duplicate_request, idempotency_conflict
    │   ├── StillRunning             idempotency_in_progress, with retry-after
    │   └── AnswerLost               idempotency_answer_lost
    ├── BodyTooLarge            413  body_too_large
    ├── UnsupportedMediaType    415  unsupported_media_type
    ├── HeadersTooLarge         431  headers_too_large
    ├── RateLimited             429  rate_limit_exceeded, with retry-after
    ├── EngineFailed            500  engine_error
    ├── NotInstalled            501  not_installed
    ├── NotSupported            501  not_supported
    ├── HTTPVersionNotSupported 505  http_version_not_supported
    ├── Unavailable             503  engine_overloaded, engine_starting, engine_dead, ledger_unavailable,
    │   │                            limits_unavailable, interrupted,
    │   │                            too_many_large_requests
    │   └── ShuttingDown             shutting_down
    └── TookTooLong             504  deadline_exceeded

Body: `{"error": {"message", "type", "param", "code"}, "detail": message}`: OpenAI's clients read the first, native
clients the second; `gateway.errors.shapes` has Anthropic's. The engine's and the ledger's errors become these in
`from_exception`, the one table.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from starlette.exceptions import HTTPException

from engine import errors as engines
from gateway.errors.wording import VALUE_CHARACTERS_MAX, shorten
from pricing import errors as money
from pricing.clock import system_clock
from pricing.money import InvalidAmount
from storage import errors as storage_errors

MESSAGE_CHARACTERS_MAX = 1200
RETRY_SECONDS_MAX = 86_400  # a client that waits for longer has better things to do
FAULT_CHARACTERS_MAX = 240  # of each fault, where one answer tells of several


class GatewayError(Exception):
    """An error with its HTTP status. `message` is a sentence for the client; `param` names the field, if any."""

    status = 500
    code = "internal_error"
    type = "api_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = shorten(message, MESSAGE_CHARACTERS_MAX)
        self.code = code or type(self).code
        self.param = shorten(param, VALUE_CHARACTERS_MAX) if param is not None else None
        self.headers = dict(headers or {})
        self.faults: tuple[GatewayError, ...] = ()  # where one answer tells of several, all of them

    def body(self) -> dict[str, object]:
        return {"error": self.described(), "detail": self.message}

    def described(self) -> dict[str, object]:
        """What `error` holds, in whatever shape."""
        return {
            **self.fields(),
            **({"errors": [fault.fields(FAULT_CHARACTERS_MAX) for fault in self.faults]} if self.faults else {}),
        }

    def fields(self, characters_max: int = MESSAGE_CHARACTERS_MAX) -> dict[str, object]:
        message = shorten(self.message, characters_max)
        return {"message": message, "type": self.type, "param": self.param, "code": self.code}


class InvalidRequest(GatewayError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class InvalidParameter(InvalidRequest):
    status, code = 422, "invalid_parameter"


class InvalidAPIKey(GatewayError):
    status, code, type = 401, "invalid_api_key", "authentication_error"

    def __init__(self) -> None:
        # One message for missing, unknown, revoked and expired keys: it must not tell which.
        super().__init__(
            "The API key is missing or not valid. Send a valid one as `Authorization: Bearer KEY`.",
            headers={"www-authenticate": "Bearer"},
        )


class PaymentRequired(GatewayError):
    status, code, type = 402, "insufficient_funds", "insufficient_funds_error"

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        """`retry_after_seconds` is when the limit opens again, where that is within a day."""
        again = {} if retry_after_seconds is None else {"retry-after": str(retry_after_seconds)}
        super().__init__(message, headers={"x-should-retry": "false", **again})


class ModelNotAllowed(GatewayError):
    status, code, type = 403, "model_not_allowed", "permission_error"


class NotFound(GatewayError):
    status, code, type = 404, "not_found", "invalid_request_error"


class MethodNotAllowed(GatewayError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class RequestTimeout(GatewayError):
    """The client took too long to send its request. What may still come is not read: the connection is closed."""

    status, code, type = 408, "request_timeout", "invalid_request_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"connection": "close"})


class Conflict(GatewayError):
    status, code, type = 409, "conflict", "invalid_request_error"


class StillRunning(Conflict):
    code = "idempotency_in_progress"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after_seconds)})


class AnswerLost(Conflict):
    """A request with this Idempotency-Key ran and was charged, and its answer can't be given again."""

    code = "idempotency_answer_lost"

    def __init__(self, message: str) -> None:
        # OpenAI's SDKs retry a 409 by themselves; here that can't help.
        super().__init__(f"{message} Send a new key to run it anew.", headers={"x-should-retry": "false"})


class BodyTooLarge(GatewayError):
    status, code, type = 413, "body_too_large", "invalid_request_error"


class HeadersTooLarge(GatewayError):
    status, code, type = 431, "headers_too_large", "invalid_request_error"


class UnsupportedMediaType(GatewayError):
    status, code, type = 415, "unsupported_media_type", "invalid_request_error"


class RateLimited(GatewayError):
    """`retry_after_seconds` is when what was asked for may fit, at least 1."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"

    def __init__(self, message: str, *, retry_after_seconds: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after_seconds), **(headers or {})})


class NotInstalled(GatewayError):
    status, code = 501, "not_installed"


class NotSupported(GatewayError):
    """A part of HTTP that isn't spoken here; the connection is closed."""

    status, code, type = 501, "not_supported", "invalid_request_error"


class HTTPVersionNotSupported(GatewayError):
    status, code, type = 505, "http_version_not_supported", "invalid_request_error"


class EngineFailed(GatewayError):
    status, code = 500, "engine_error"


class Unavailable(GatewayError):
    status, code, type = 503, "unavailable", "overloaded_error"

    def __init__(self, message: str, *, code: str, retry_after_seconds: int) -> None:
        super().__init__(message, code=code, headers={"retry-after": str(retry_after_seconds)})


class TookTooLong(GatewayError):
    status, code = 504, "deadline_exceeded"

    def __init__(self, seconds_max: float) -> None:
        # Sent again by itself, it would take as long again, and cost as much.
        super().__init__(
            f"The request took longer than the {seconds_max:g} seconds that are allowed, and was ended. Only what was "
            "sent is charged. Ask for fewer tokens.",
            headers={"x-should-retry": "false"},
        )


class ShuttingDown(Unavailable):
    def __init__(self) -> None:
        super().__init__(
            "The gateway is shutting down. Send the request again: another replica may answer.",
            code="shutting_down",
            retry_after_seconds=5,
        )
        self.headers["connection"] = "close"


def falling_behind(seconds: float, seconds_max: float) -> Unavailable:
    return Unavailable(
        f"The gateway is {seconds:.1f} seconds behind with its answers, and takes no requests while it is more than "
        f"{seconds_max:g}. Try again in a moment.",
        code="engine_overloaded",
        retry_after_seconds=2,
    )


def from_exception(error: Exception) -> GatewayError:
    """The client's view of any exception: what isn't known here is a 500 that tells nothing of the inside."""
    match error:
        case GatewayError():
            return error
        case engines.UnsupportedFeature():
            return InvalidRequest(str(error), code="unsupported_parameter", param=error.param)
        case engines.PromptTooLong():
            return InvalidRequest(str(error), code="context_length_exceeded", param=error.param)
        case engines.PromptError():
            return InvalidRequest(str(error), param=error.param)
        case engines.EngineOverloaded():
            return Unavailable(
                "The model has too many requests in its queue. Try again in a moment.",
                code="engine_overloaded",
                retry_after_seconds=1,
            )
        case engines.EngineDead():
            return Unavailable(
                "The model's engine has stopped and must be restarted. Try again in a minute.",
                code="engine_dead",
                retry_after_seconds=30,
            )
        case engines.EngineError():
            return EngineFailed("The engine failed on this request. Only what was sent is charged.")
        case money.InsufficientFunds():
            return PaymentRequired(str(error), retry_after_seconds=_opens_in_seconds(error))
        case storage_errors.LedgerUnavailable():
            return Unavailable(
                "Another process holds this account's rows in the ledger, and nothing is served without being charged. "
                "Try again soon."
                if isinstance(error, storage_errors.RowsLocked)
                else "The ledger can't be reached, and nothing is served without being charged. Try again soon.",
                code="ledger_unavailable",
                retry_after_seconds=5,
            )
        case money.Overtaken():
            return Unavailable(
                "The gateway was suspended for too long, and this request was ended as interrupted. Send it again.",
                code="interrupted",
                retry_after_seconds=1,
            )
        case money.DuplicateName():
            return Conflict(str(error), code="already_exists")
        case money.DuplicateRequest():
            return Conflict(str(error), code="duplicate_request")
        case money.UnknownAccount() | money.UnknownKey():
            return NotFound(str(error))
        case InvalidAmount() | storage_errors.InvalidSetting():
            return InvalidParameter(str(error))
        case money.MissingPackage():
            return NotInstalled(str(error))
        case HTTPException(status_code=404):
            return NotFound("There is no such path. The API's paths start with /v1; see /openapi.json.")
        case HTTPException(status_code=405):
            return MethodNotAllowed("This path doesn't take this method.", headers=error.headers)
        case _:
            return GatewayError("Something went wrong inside the gateway. The request id names it in the log.")


def _opens_in_seconds(error: money.InsufficientFunds) -> int | None:
    if error.opens_at is None:
        return None
    seconds = max(1, -((system_clock() - error.opens_at) // 1000))
    return seconds if seconds <= RETRY_SECONDS_MAX else None


E = TypeVar("E", bound=InvalidRequest)


def together(faults: Sequence[E]) -> E:
    """One error that tells of all of these: `error.errors` has each, and the message every sentence that fits."""
    first = faults[0]
    if len(faults) == 1:
        return first
    message = "\n".join(fault.message for fault in faults)
    whole = type(first)(message, code=first.code, param=first.param, headers=first.headers)
    whole.faults = tuple(faults)
    return whole
