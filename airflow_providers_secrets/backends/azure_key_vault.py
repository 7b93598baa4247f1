"""Azure Key Vault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._azure import (
    ADVICE,
    AZURE_OPTIONS,
    EXPIRED,
    OUTCOMES,
    option_fault,
)
from airflow_providers_secrets.errors import ConfigurationError, shown
from airflow_providers_secrets.lookup import SecretLookupMixin
from airflow_providers_secrets.naming import Kind, Plan, team_fault
from airflow_providers_secrets.notices import warn
from airflow_providers_secrets.store import Answer, Listed

if TYPE_CHECKING:
    from airflow_providers_secrets.backends._azure_client import AzureClient

MOST_SPELLINGS: Final = 10_000
"""How many names are remembered with the id that first asked for them."""

_spellings: dict[tuple[str, str], str] = {}


class AzureKeyVaultBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from Azure Key Vault.

    The secret ``{prefix}-{id}`` holds the value as it is; every ``_`` is written ``-``, and since Key Vault
    ignores case, every letter small. So ``my_db``, ``my-db`` and ``My_DB`` are one secret, which is warned about
    when a process asks for two of them. In multi-team mode ``{prefix}-{team}--{id}`` is asked first, and a team
    whose name has an underscore or a capital letter is refused, since another team could share its names.

    A process logs in once, at its first lookup, by azure-identity; the token is renewed when that says so. A
    refused log-in is not tried again for 30 s. Needs the role ``Key Vault Secrets User``. See `Get Secret
    <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.lookup.SecretLookupMixin`.
    """

    store = "Azure Key Vault"
    sdk = ("azure.identity", "requests")
    late_imports = ("netrc", "encodings.utf_8_sig", "azure.core.rest._requests_basic", "msal_extensions")
    extra = "azure"
    ambient = ("AZURE_", "IDENTITY_", "MSI_")
    default_bases: ClassVar = {
        "connections": "airflow-connections",
        "variables": "airflow-variables",
        "config": "airflow-config",
    }
    default_sep = "-"
    own_options = AZURE_OPTIONS
    # https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
    name_pattern = re.compile(r"[0-9A-Za-z-]{1,127}")
    outcomes = OUTCOMES
    advice = ADVICE
    expired_login = frozenset({EXPIRED})
    telltale_loggers = (
        "azure.core.pipeline.policies.http_logging_policy",
        "azure.core.pipeline.policies._universal",
        "msal.oauth2cli.oauth2",
        "msal.token_cache",
    )

    # Names.

    def option_fault(self) -> str | None:
        """Name a credential that lacks something, or options that contradict each other."""
        return option_fault(self.options)

    def _bases(self, option: str) -> tuple[str, ...] | None:
        if not re.fullmatch(r"[0-9A-Za-z-]*", self.sep):
            raise ConfigurationError(f"{type(self).__name__}: option 'sep' may hold letters, digits and '-' alone.")
        return super()._bases(option)

    def normalised(self, secret_id: str) -> str:
        """Give *secret_id* as the vault's names spell it."""
        return secret_id.replace("_", self.sep).lower()

    def name(self, base: str, secret_id: str) -> str:
        """Give the secret's name; without a base, the id alone."""
        return self.normalised(super().name(base, secret_id) if base else secret_id)

    def team_fault(self, secret_id: str, team_name: str | None) -> str | None:
        """Say why *secret_id* cannot be told from some team's secret, or ``None``."""
        if team_name and team_name != team_name.replace("_", "-").lower():
            return "the team's name has '_' or a capital letter, which Key Vault cannot tell from '-' or a small one"
        return team_fault(self.normalised(secret_id), team_name)

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> Plan:
        """Say which names a lookup asks the store for, or why none; warn where another id had the same name."""
        plan = super().plan(kind, secret_id, team_name)
        for name in plan.names[-1:]:
            key = (self.options["vault_url"], name)
            first = _spellings.get(key, secret_id)
            if first != secret_id:
                warn(
                    ("collapsed", name),
                    "%s: the ids %s and %s are one secret, %s: it knows neither '_' nor capital letters.",
                    self.store,
                    shown(first),
                    shown(secret_id),
                    shown(name),
                )
            elif len(_spellings) < MOST_SPELLINGS:
                _spellings[key] = secret_id
        return plan

    # The store.

    def connect(self) -> AzureClient:
        """Make the client; it logs in at its first read."""
        from airflow_providers_secrets.backends._azure_client import AzureClient

        return AzureClient(self.options)

    def fetch(self, client: AzureClient, name: str) -> Answer:
        """Read the current version of one secret."""
        secret = client.get(f"/secrets/{name}")
        value, identifier = secret.get("value"), secret.get("id")
        if not isinstance(value, str) or not isinstance(identifier, str):
            raise self.invalid(name, "the answer holds no value")
        return Answer(value, _name_in(identifier))

    def prefix(self, base: str) -> str:
        """Give what the names of all ids under one base start with."""
        return self.name(base, "") if base else ""

    def listing(self, client: AzureClient, prefix: str) -> Iterator[Listed]:
        """Give the names that start with *prefix*, of disabled secrets too, page by page. Needs ``list`` on secrets."""
        for page in client.pages("/secrets"):
            for secret in page:
                name = _name_in(str(secret.get("id")))
                if name.startswith(prefix) and name != prefix:
                    yield Listed(name)


def _name_in(identifier: str) -> str:
    """Give the name in a secret's id, ``https://{vault}/secrets/{name}[/{version}]``, as lookups spell it."""
    return identifier.partition("/secrets/")[2].partition("/")[0].lower()
