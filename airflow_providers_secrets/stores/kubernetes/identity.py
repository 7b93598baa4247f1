"""Who asks, as far as files tell it. Imports no SDK."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

Options = Mapping[str, Any]

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its own token, certificate authority and namespace (Kubernetes, "Accessing the API from a Pod")."""

KUBECONFIG: Final = "~/.kube/config"


def in_pod(options: Options) -> bool:
    """Tell whether the pod's own service account logs in."""
    named = options["kubeconfig"] or options["context"]
    return not named and "KUBERNETES_SERVICE_HOST" in os.environ and os.access(f"{SERVICE_ACCOUNT}/token", os.R_OK)


def asker(options: Options) -> bytes:
    """Return a digest of who asks, as the service account's token or the kubeconfig says it."""
    if in_pod(options):
        return hashlib.sha256(_subject(Path(SERVICE_ACCOUNT, "token").read_text(encoding="utf-8"))).digest()
    digest = hashlib.sha256()
    for path in _kubeconfigs(options):
        digest.update(_content(path))
    return digest.digest()


def _kubeconfigs(options: Options) -> Iterator[str]:
    named = options["kubeconfig"] or os.environ.get("KUBECONFIG") or KUBECONFIG
    yield from (os.path.expanduser(path) for path in named.split(os.pathsep) if path)  # noqa: PTH111  # cheaper


_contents: dict[str, tuple[tuple[int, int, int], bytes]] = {}


def _content(path: str) -> bytes:
    """Return a digest of a file, which is read again only once it has changed."""
    try:
        seen = os.stat(path)  # noqa: PTH116  # around each call
        version = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        known = _contents.get(path)
        if known is None or known[0] != version:
            known = _contents[path] = (version, hashlib.sha256(Path(path).read_bytes()).digest())
    except OSError:
        return b""
    return known[1]


def _subject(token: str) -> bytes:
    """Return issuer and subject of a service account's token, which stay while it is renewed; else all of it."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return f"{claims['iss']} {claims['sub']}".encode()
    except (ValueError, LookupError, TypeError):
        return token.encode()
