"""Whom a file with a credential identifies. Imports no SDK."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from airflow_providers_secrets.files import read_once
from airflow_providers_secrets.jwt import claims_of

NOBODY: Final = bytes(32)

_MAX_FILE: Final = 1024 * 1024
"""Maximum number of bytes read of a file with a credential."""

_LIFETIME_CLAIMS: Final = frozenset(
    ("exp", "iat", "jti", "nbf", "aio", "at_hash", "auth_time", "c_hash", "nonce", "rh", "sid", "uti")
)
"""The claims that differ between two JWTs of one identity (RFC 7519, section 4.1; OpenID Connect Core 1.0, section 2;
and Entra ID's own)."""


def holder(path: str) -> bytes:
    """Return a digest of whom the file at *path* identifies; renewing the credential does not change it.

    Of a JWT, it is a digest of the claims that identify its subject; of anything else, of the whole content. Cheap: the
    file is read again only once it has changed. Never raises: whatever logs in with the file reports what is wrong.
    """
    try:
        return _digest(path)
    except (OSError, ValueError):  # a path may contain a NUL
        return NOBODY


@read_once
def _digest(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  # pathlib would be imported for it
        content = file.read(_MAX_FILE).strip()
    return hashlib.sha256(json.dumps(_lasting_claims(content), sort_keys=True).encode()).digest()


def _lasting_claims(content: bytes) -> Any:
    """Return the claims of a JWT that identify its subject; for anything else, a digest of the whole content."""
    claims = claims_of(content.decode("ascii", "replace"))
    if not claims:
        return hashlib.sha256(content).hexdigest()
    lasting = {name: value for name, value in claims.items() if name not in _LIFETIME_CLAIMS}
    pod = lasting.get("kubernetes.io")
    if isinstance(pod, dict):  # it also contains the time of its renewal
        lasting["kubernetes.io"] = [pod.get("namespace"), pod.get("serviceaccount")]
    return lasting
