"""Whom a login would identify, as far as the files and variables with its credentials tell."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_providers_secrets.stores.credential_files import holder

Options = Mapping[str, Any]

_FILE_OPTION: Final = {
    "gcp": "gcp_key_path",
    "github": "token_path",
    "jwt": "jwt_token_path",
    "kubernetes": "kubernetes_jwt_path",
    "token": "token_path",
}

_FILE_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_iam": ("AWS_WEB_IDENTITY_TOKEN_FILE",),
    "azure": ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"),
    "gcp": ("GOOGLE_APPLICATION_CREDENTIALS",),
}


def credential_digest(options: Options) -> bytes:
    """Return a digest of whom the files of a login by *options* identify. Renewing them does not change it."""
    if not (paths := tuple(_paths(options))):
        return b""
    return hashlib.sha256(b"".join(map(holder, paths))).digest()


def _paths(options: Options) -> Iterator[str]:
    auth_type = options["auth_type"]
    if path := options.get(_FILE_OPTION.get(auth_type, "")):
        yield path
    for name in _FILE_VARIABLES.get(auth_type, ()):
        if path := os.environ.get(name):
            yield path
    if auth_type == "cert":
        yield from options["cert"] or (os.environ.get("VAULT_CLIENT_CERT", ""),)
