"""Who asks, as far as files tell. Imports no SDK."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from airflow_providers_secrets.files import read_once
from airflow_providers_secrets.stores.credential_files import NOBODY, holder

Options = Mapping[str, Any]

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod's own token, CA certificate and namespace are (Kubernetes, "Accessing the API from a Pod")."""

KUBECONFIG: Final = "~/.kube/config"


def in_pod(options: Options) -> bool:
    """Tell whether the pod's own service account logs in."""
    named = options["kubeconfig"] or options["context"]
    return not named and "KUBERNETES_SERVICE_HOST" in os.environ and os.access(f"{SERVICE_ACCOUNT}/token", os.R_OK)


def is_named(options: Options) -> bool:
    """Tell whether a kubeconfig is read that somebody named, or for a context in it."""
    return not in_pod(options) and bool(options["kubeconfig"] or options["context"] or os.environ.get("KUBECONFIG"))


def asker(options: Options) -> bytes:
    """Return a digest of who asks which cluster, from the service account or the kubeconfig. Never raises."""
    digest = hashlib.sha256()
    if in_pod(options):
        digest.update(holder(f"{SERVICE_ACCOUNT}/token"))
        # Several clusters often share issuer and address, but each has its own CA.
        for file in ("ca.crt", "namespace"):
            digest.update(_content(f"{SERVICE_ACCOUNT}/{file}").digest)
        return digest.digest()
    for path in kubeconfig(options).split(os.pathsep):
        place = os.path.expanduser(path)  # noqa: PTH111  # cheaper
        content = _content(place)
        digest.update(content.digest)
        for file in content.logins:
            digest.update(holder(os.path.join(os.path.dirname(place), file)))  # noqa: PTH118, PTH120
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


_MISSING: Final = _Content(NOBODY, ())

_LOGIN: Final = re.compile(rb"""\b(?:tokenFile|client-certificate)["']?\s*:\s*["']?([^"'\r\n,}]+)""")
"""Matches where a kubeconfig, in YAML or JSON, names such a file (Kubernetes, "kubeconfig v1", AuthInfo)."""


def _content(path: str) -> _Content:
    try:
        return _read(path)
    except (OSError, ValueError):  # a path may contain a NUL
        return _MISSING


@read_once
def _read(path: str) -> _Content:
    octets = Path(path).read_bytes()
    logins = tuple(os.fsdecode(file.strip()) for file in _LOGIN.findall(octets))
    return _Content(hashlib.sha256(octets).digest(), logins)
