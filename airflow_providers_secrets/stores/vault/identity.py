"""Whom a login would identify, as far as the files and variables with its credentials tell."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

Options = Mapping[str, Any]

_FILE_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "gcp": ("gcp_key_path",),
    "github": ("token_path",),
    "jwt": ("jwt_token_path",),
    "kubernetes": ("kubernetes_jwt_path",),
    "token": ("token_path",),
}

_FILE_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_iam": ("AWS_WEB_IDENTITY_TOKEN_FILE",),
    "azure": ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"),
    "gcp": ("GOOGLE_APPLICATION_CREDENTIALS",),
}

_LIFETIME_CLAIMS: Final = frozenset(("exp", "iat", "jti", "nbf"))
"""The claims that differ between two JWTs of one identity (RFC 7519, section 4.1)."""

_MAX_FILE: Final = 1024 * 1024
"""Maximum number of bytes read of a file with a credential."""

_digests: dict[str, tuple[tuple[int, ...], bytes]] = {}
"""By path: the file's stat when it was read, and a digest of whom it identifies."""


def credential_digest(options: Options) -> bytes:
    """Return a digest of whom the files of a login by *options* identify. Renewing them does not change it.

    Cheap: a file is read again only if its size, time or inode has changed.
    """
    if not (paths := tuple(_paths(options))):
        return b""
    return hashlib.sha256(b"".join(map(_file_digest, paths))).digest()


def _paths(options: Options) -> Iterator[str]:
    auth_type = options["auth_type"]
    for name in _FILE_OPTIONS.get(auth_type, ()):
        if options[name]:
            yield options[name]
    for name in _FILE_VARIABLES.get(auth_type, ()):
        if path := os.environ.get(name):
            yield path
    if auth_type == "cert":
        yield from options["cert"] or (os.environ.get("VAULT_CLIENT_CERT", ""),)


def _file_digest(path: str) -> bytes:
    try:
        about = os.stat(path)  # noqa: PTH116
        look = (about.st_mtime_ns, about.st_ino, about.st_size, about.st_ctime_ns)
        known = _digests.get(path)
        if known is None or known[0] != look:
            with open(path, "rb") as file:  # noqa: PTH123
                known = _digests[path] = look, _digest(file.read(_MAX_FILE))
    except OSError:
        return bytes(32)  # the login reports what is wrong with it
    return known[1]


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(json.dumps(_lasting_claims(content.strip()), sort_keys=True).encode()).digest()


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
