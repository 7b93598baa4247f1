"""Google Secret Manager."""

from __future__ import annotations

import re
from typing import ClassVar

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._gcp import GOOGLE_OPTIONS, option_conflict
from airflow_providers_secrets.backends.mixin import SecretLookupMixin
from airflow_providers_secrets.lookup.plan import Kind


class CloudSecretManagerBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from Google Secret Manager.

    The latest version of the secret ``{prefix}{sep}{id}`` holds the value as UTF-8 text. In multi-team mode
    ``{prefix}{sep}{team}--{id}`` is requested first. An id with characters other than letters, digits, ``_`` and ``-``
    is refused: no secret can have such a name.

    A process logs in once, at its first lookup, and determines its project then; the lookup that finds the token about
    to expire renews it. The transport is REST, or gRPC if ``transport`` says so and no fork makes it unsafe.

    Needs ``secretmanager.versions.access`` on the secrets. See `AccessSecretVersion
    <https://cloud.google.com/secret-manager/docs/reference/rpc/google.cloud.secretmanager.v1>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.backends.mixin.SecretLookupMixin`.
    """

    store = "Google Secret Manager"
    store_class = "google.secret_manager:SecretManager"
    default_prefixes: ClassVar = {
        "connections": "airflow-connections",
        "variables": "airflow-variables",
        "config": "airflow-config",
    }
    default_sep = "-"
    own_options = GOOGLE_OPTIONS
    name_pattern = re.compile(r"[A-Za-z0-9_-]{1,255}")

    def prefixes_of(self, kind: Kind) -> tuple[str, ...] | None:
        """Return the prefix as it is: for this store, no separator is stripped from it."""
        given: str | None = self.options[f"{kind}_prefix"]
        return None if given is None else (given,)

    def option_conflict(self) -> str | None:
        """Return a message about the first options that contradict each other, or ``None``."""
        return option_conflict(self.options)
