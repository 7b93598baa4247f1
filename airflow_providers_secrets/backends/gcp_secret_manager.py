"""Google Secret Manager."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._gcp import ADVICE, GOOGLE_OPTIONS, OUTCOMES, option_fault
from airflow_providers_secrets.lookup import SecretLookupMixin
from airflow_providers_secrets.store import Answer, Listed

if TYPE_CHECKING:
    from airflow_providers_secrets.backends._gcp_client import GoogleClient


class CloudSecretManagerBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from Google Secret Manager.

    The latest version of the secret ``{prefix}{sep}{id}`` holds the value as UTF-8 text. In multi-team mode
    ``{prefix}{sep}{team}--{id}`` is asked first. An id with other characters than letters, digits, ``_`` and ``-``
    is refused: no secret can have such a name.

    A process logs in once, at its first lookup, and finds its project then; the token is renewed by the lookup that
    finds it about to end. A forked child of a process that had gRPC loaded speaks REST.

    Needs ``secretmanager.versions.access`` on the secrets. See `AccessSecretVersion
    <https://cloud.google.com/secret-manager/docs/reference/rpc/google.cloud.secretmanager.v1>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.lookup.SecretLookupMixin`.
    """

    store = "Google Secret Manager"
    # What the transport needs beyond is loaded when the client is made.
    sdk = ("google.auth",)
    extra = "google"
    ambient = ("GOOGLE_", "GCE_", "CLOUDSDK_", "GCLOUD_")
    default_bases: ClassVar = {
        "connections": "airflow-connections",
        "variables": "airflow-variables",
        "config": "airflow-config",
    }
    default_sep = "-"
    own_options = GOOGLE_OPTIONS
    name_pattern = re.compile(r"[A-Za-z0-9_-]{1,255}")
    outcomes = OUTCOMES
    advice = ADVICE
    expired_login = frozenset({"UNAUTHENTICATED"})
    telltale_loggers = ("google.auth", "grpc", "requests", "urllib3.connectionpool")

    def normalised_bases(self, base: Any) -> Iterable[str]:
        """Give the prefix as it is: of this store's, nothing is stripped."""
        yield base

    def option_fault(self) -> str | None:
        """Name options that contradict each other."""
        return option_fault(self.options)

    def connect(self) -> GoogleClient:
        """Make the client: find the credentials and the project."""
        from airflow_providers_secrets.backends._gcp_client import GoogleClient

        return GoogleClient(self.options)

    def fetch(self, client: GoogleClient, name: str) -> Answer:
        """Read one secret's version."""
        return client.read(name)

    def listing(self, client: GoogleClient, prefix: str) -> Iterator[Listed]:
        """Give the names that start with *prefix*, page by page. Needs ``secretmanager.secrets.list``."""
        for name in client.names(prefix):
            yield Listed(name)
