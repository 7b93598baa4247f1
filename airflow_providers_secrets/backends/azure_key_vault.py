"""Azure Key Vault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._azure import AZURE_OPTIONS, option_conflict
from airflow_providers_secrets.backends.mixin import SecretLookupMixin
from airflow_providers_secrets.errors import quoted
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.plan import TEAM_SEP, Kind, LookupPlan, team_refusal

MAX_SPELLINGS: Final = 10_000
"""Maximum number of names for which the id that was first looked up under them is kept."""

_spellings: dict[tuple[str, str], str] = {}


class AzureKeyVaultBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from Azure Key Vault.

    The secret ``{prefix}-{id}`` holds the value as it is; every ``_`` is written ``-``, and since Key Vault ignores
    case, every letter is lower case. So ``my_db``, ``my-db`` and ``My_DB`` are one secret, and a process that looks up
    two of them logs a warning. In multi-team mode ``{prefix}-{team}--{id}`` is requested first, unless the team's name
    has an underscore or a capital letter: another team could share its names, so only everybody's secret is requested.

    A process logs in once, at its first lookup, with azure-identity, which also says when to renew the token. A
    refused login is not tried again for 30 s. Needs the role ``Key Vault Secrets User``. See `Get Secret
    <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.backends.mixin.SecretLookupMixin`.
    """

    store = "Azure Key Vault"
    store_class = "azure.key_vault:KeyVault"
    default_prefixes: ClassVar = {
        "connections": "airflow-connections",
        "variables": "airflow-variables",
        "config": "airflow-config",
    }
    default_sep = "-"
    own_options = AZURE_OPTIONS
    # https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
    name_pattern = re.compile(r"[0-9A-Za-z-]{1,127}")

    def option_conflict(self) -> str | None:
        """Return a message about an incomplete credential or options that contradict each other, or ``None``."""
        return option_conflict(self.options)

    @staticmethod
    def coerce_sep(value: Any) -> str:
        """Accept a separator that a secret's name can hold."""
        sep = SecretLookupMixin.coerce_sep(value)
        if not re.fullmatch(r"[0-9A-Za-z-]*", sep):
            raise ValueError("may hold only letters, digits and '-'")
        return sep

    def normalised(self, secret_id: str) -> str:
        """Return *secret_id* as the vault's names spell it."""
        return secret_id.replace("_", self.sep).lower()

    def name(self, prefix: str, secret_id: str) -> str:
        """Return the secret's name; without a prefix, the id alone."""
        return self.normalised(super().name(prefix, secret_id) if prefix else secret_id)

    def name_start(self, prefix: str) -> str:
        """Return what the names of all ids under one prefix start with."""
        return self.name(prefix, "") if prefix else ""

    def team_refusal(self, secret_id: str, team_name: str | None) -> str | None:
        """Return why *secret_id* could be mistaken for a team's secret, or ``None``."""
        # This checks the id alone: `names` leaves out a team that has no distinct name here.
        return team_refusal(self.normalised(secret_id), team_name and "team")

    def names(self, prefixes: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Return the candidate names, the team's own first, if it has one that no other team can share."""
        own = None if team_name and self._team_left_out(prefixes, secret_id, team_name) else team_name
        return super().names(prefixes, secret_id, own)

    def _team_left_out(self, prefixes: tuple[str, ...], secret_id: str, team_name: str) -> str | None:
        """Return why the team's own secret is left out, or ``None``."""
        if not re.fullmatch("[0-9a-z-]+", team_name):
            return "another team could share its name, which has more than small letters, digits and '-'"
        if any(
            self.name_pattern.fullmatch(self.name(prefix, secret_id))
            and not self.name_pattern.fullmatch(self.name(prefix, f"{team_name}{TEAM_SEP}{secret_id}"))
            for prefix in prefixes
        ):
            return "with the team's name it is longer than a name may be"
        return None

    def warn_about(self, plan: LookupPlan, kind: Kind, secret_id: str, team_name: str | None) -> None:
        """Warn if the team's own secret is left out, or if another id has the same name."""
        if team_name and (reason := self._team_left_out(self.rule(kind).prefixes or (), secret_id, team_name)):
            warn(
                ("team", team_name, reason),
                "%s: %s is looked up for team %s only under everybody's name: %s.",
                self.store,
                quoted(secret_id),
                quoted(team_name),
                reason,
            )
        key = (self.options["vault_url"], plan.names[-1])
        first = _spellings.get(key, secret_id)
        if first != secret_id:
            warn(
                ("collapsed", plan.names[-1]),
                "%s: the ids %s and %s are one secret, %s: it knows neither '_' nor capital letters.",
                self.store,
                quoted(first),
                quoted(secret_id),
                quoted(plan.names[-1]),
            )
        elif len(_spellings) < MAX_SPELLINGS:
            _spellings[key] = secret_id
