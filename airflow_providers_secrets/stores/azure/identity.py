"""Which identity the options name, without the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PROOFS: Final[Mapping[str, str]] = {
    "client_secret": "client_secret",
    "client_certificate_path": "client_certificate",
}
"""The options that only one credential takes, and which: it is meant where none is named."""


def credential_name(options: Mapping[str, Any]) -> str:
    """Return the name of the credential that the options stand for, by the official rule where they do not say it."""
    if options["credential"]:
        return str(options["credential"])
    return next((name for proof, name in PROOFS.items() if options[proof]), "default")
