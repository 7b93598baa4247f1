"""Whom a file with a credential identifies. Imports no SDK."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Final

from airflow_providers_secrets.files import read_once

NOBODY: Final = bytes(32)

_MAX_FILE: Final = 1024 * 1024
"""Maximum number of bytes read of a file with a credential."""

_LIFETIME_CLAIMS: Final = frozenset(("exp", "iat", "jti", "nbf"))
"""The claims that differ between two JWTs of one identity (RFC 7519, section 4.1)."""


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
    parts = content.split(b".")
    if len(parts) == 3:  # noqa: PLR2004  # header, payload, signature
        try:
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=="))
        except (ValueError, RecursionError):
            claims = None
        if isinstance(claims, dict):
            lasting = {name: value for name, value in claims.items() if name not in _LIFETIME_CLAIMS}
            pod = lasting.get("kubernetes.io")
            if isinstance(pod, dict):  # it also contains the time of its renewal
                lasting["kubernetes.io"] = [pod.get("namespace"), pod.get("serviceaccount")]
            return lasting
    return hashlib.sha256(content).hexdigest()
