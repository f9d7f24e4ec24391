"""The formats of strings that are kept.

The converter has grammars of its own for some; those that are looser than the standard are patterns here.
"""

_DAYS = (
    r"[1-9]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|"
    r"02-(?:0[1-9]|1\d|2[0-8]))"
)
_LEAP_DAYS = r"(?:[1-9]\d(?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|1[26]|[3579][26])00)-02-29"
_DATE = f"(?:{_DAYS}|{_LEAP_DAYS})"
_HOUR = r"(?:[01]\d|2[0-3])"
_TIME = rf"{_HOUR}:[0-5]\d:[0-5]\d(?:\.\d{{1,9}})?(?:Z|[+\-]{_HOUR}:[0-5]\d)"
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

# RFC 3339; no leap seconds, and no day that the month doesn't have. RFC 2673 for addresses.
PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "ipv4": rf"^(?:{_BYTE}\.){{3}}{_BYTE}$",
}
# The converter's own.
NATIVE = ("duration", "email", "hostname", "ipv6", "uuid", "uri")

FORMATS = (*PATTERNS, *NATIVE)

# OpenAPI's and pydantic's remarks for people: no validator checks a string against them.
REMARKS = ("password", "binary", "byte", "path", "file-path", "directory-path")
