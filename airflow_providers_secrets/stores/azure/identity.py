"""Which credential the options select. Needs no SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PROOFS: Final[Mapping[str, str]] = {
    "client_secret": "client_secret",
    "client_certificate_path": "client_certificate",
}
"""The options that only one credential uses, with its name: they select it if the option ``credential`` is not set."""


def credential_name(options: Mapping[str, Any]) -> str:
    """Return the name of the credential that the options select, by the official rule if they do not name one."""
    if options["credential"]:
        return str(options["credential"])
    return next((name for proof, name in PROOFS.items() if options[proof]), "default")
