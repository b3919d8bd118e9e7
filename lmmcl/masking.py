"""Secrets in URIs, masked wherever text is shown, kept or sent: user information, and query values that are credentials.

postgresql://someone:password@host/db  →  postgresql://***@host/db
https://host/path?token=abc&part=1     →  https://host/path?token=***&part=1
"""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s<>\"']+")
# A password may hold `/`, `?` or `#` that nobody has quoted; only `@` ends it.
_USER = re.compile(r"(?<=://)(?:[^\s/?#@]*|[^\s/:@]*:[^\s@]*)@")
_QUERY = re.compile(r"(?P<name>[?&;#][^\s=&;#?]+)=(?P<value>[^\s&;#]+)")
_CREDENTIAL = re.compile(
    r"(?i)(pass|pwd|secret|token|credential|signature|private|(^|[_.\-])(key|sig|auth|sas|jwt)([_.\-]|$)|"
    r"(api|access|account|shared|encryption)_?-?(key|id)|keyid$)"
)


def mask(text: str) -> str:
    """`text` with the secrets of all URIs in it replaced by `***`."""
    return _URI.sub(_masked, text) if "://" in text else text


def has_secrets(uri: str) -> bool:
    """Whether a URI holds something that `mask` would replace."""
    return mask(uri) != uri


def user_info(uri: str) -> tuple[str, str, str]:
    """(URI without user information, user, password) of `scheme://user:password@host/…`; empty where there is none."""
    match = re.search(r"(?<=://)[^\s/?#]*@", uri)
    if match is None:
        return uri, "", ""
    user, _, password = match[0].removesuffix("@").partition(":")
    return uri[: match.start()] + uri[match.end() :], unquote(user), unquote(password)


def _masked(match: re.Match[str]) -> str:
    return _QUERY.sub(_masked_value, _USER.sub(f"{MASK}@", match[0], count=1))


def _masked_value(match: re.Match[str]) -> str:
    is_secret = _CREDENTIAL.search(unquote(match["name"][1:])) is not None
    return f"{match['name']}={MASK}" if is_secret else match[0]
