"""Who asks, as far as files tell. Imports no SDK."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

Options = Mapping[str, Any]

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod's own token, CA certificate and namespace are (Kubernetes, "Accessing the API from a Pod")."""

KUBECONFIG: Final = "~/.kube/config"


def in_pod(options: Options) -> bool:
    """Tell whether the pod's own service account logs in."""
    named = options["kubeconfig"] or options["context"]
    return not named and "KUBERNETES_SERVICE_HOST" in os.environ and os.access(f"{SERVICE_ACCOUNT}/token", os.R_OK)


def asker(options: Options) -> bytes:
    """Return a digest of who asks which cluster, from the service account or the kubeconfig. Never raises."""
    digest = hashlib.sha256()
    if in_pod(options):
        digest.update(_holder(f"{SERVICE_ACCOUNT}/token"))
        # Several clusters often share issuer and address, but each has its own CA.
        for file in ("ca.crt", "namespace"):
            digest.update(_content(f"{SERVICE_ACCOUNT}/{file}").digest)
        return digest.digest()
    for path in kubeconfig(options).split(os.pathsep):
        place = os.path.expanduser(path)  # noqa: PTH111  # cheaper
        content = _content(place)
        digest.update(content.digest)
        for file in content.logins:
            digest.update(_holder(os.path.join(os.path.dirname(place), file)))  # noqa: PTH118, PTH120
    return digest.digest()


def kubeconfig(options: Options) -> str:
    """Return the kubeconfig to use unless a pod's service account logs in; several, separated by ``:``, are merged.

    The SDK's own default is the value of ``KUBECONFIG`` at its import, which in a forked child may be long ago.
    """
    return str(options["kubeconfig"] or os.environ.get("KUBECONFIG") or KUBECONFIG)


class _Content(NamedTuple):
    """What is known of a file.

    :param logins: if it is a kubeconfig, the files with a token or a certificate that it names.
    """

    digest: bytes
    logins: tuple[str, ...]


_MISSING: Final = _Content(bytes(32), ())

_LOGIN: Final = re.compile(rb"""\b(?:tokenFile|client-certificate)["']?\s*:\s*["']?([^"'\r\n,}]+)""")
"""Matches where a kubeconfig, in YAML or JSON, names such a file (Kubernetes, "kubeconfig v1", AuthInfo)."""

_contents: dict[str, tuple[tuple[int, int, int], _Content]] = {}


def _content(path: str) -> _Content:
    """Return what is known of a file, which is read again only once it has changed."""
    try:
        seen = os.stat(path)  # noqa: PTH116  # runs around each call
        version = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        known = _contents.get(path)
        if known is None or known[0] != version:
            octets = Path(path).read_bytes()
            logins = tuple(os.fsdecode(file.strip()) for file in _LOGIN.findall(octets))
            known = _contents[path] = version, _Content(hashlib.sha256(octets).digest(), logins)
    except (OSError, ValueError):  # a path may contain a NUL
        return _MISSING
    return known[1]


def _holder(path: str) -> bytes:
    """Return a digest of whom a file identifies: a token's issuer and subject, which renewal does not change.

    For anything else, a certificate for instance, it is a digest of the whole content.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError):
        return _MISSING.digest
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
        payload = content.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        content = f"{claims['iss']} {claims['sub']}".encode()
    return hashlib.sha256(content).digest()
