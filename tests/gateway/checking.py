"""A body checked against a profile, without a gateway."""

from typing import TypeVar

from gateway.models.parameters import Profile
from gateway.protocol.body import JSONObject, RequestBody
from gateway.protocol.checks import check

R = TypeVar("R", bound=RequestBody)


def validate(kind: type[R], values: JSONObject, profile: Profile) -> R:
    """The valid body, without the names of what was ignored in it."""
    return check(kind, values, profile)[0]
