"""Kubernetes Secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets import options
from airflow_providers_secrets.backends.mixin import KIND_WORDS, SecretLookupMixin
from airflow_providers_secrets.lookup.plan import KINDS, TEAM_SEP, Kind, LookupPlan, multi_team
from airflow_providers_secrets.options import Option

DATA_KEY: Final = "value"
"""The official default of the options ``*_data_key``."""

# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_WORD: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_NAME: Final = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_WORD}"
_LABEL: Final = rf"{_LABEL_NAME}={_WORD}"
_DNS_NAME: Final = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_NAMESPACE: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_KEY: Final = r"[A-Za-z0-9_.-]{1,253}"

_AS_LABEL: Final = re.compile(_WORD)
_AS_SECRET: Final = re.compile(_DNS_NAME)


def namespace(value: Any) -> str:
    """Accept the name of a namespace, a DNS label."""
    name = options.text(value).strip()
    if not re.fullmatch(_NAMESPACE, name):
        raise ValueError("must be the name of a namespace: at most 63 of a-z, 0-9 and '-'")
    return name


def label_name(value: Any) -> str:
    """Accept the name of one label. A selector would find Secrets whose labels name no id, or no team."""
    label = options.text(value)
    if not re.fullmatch(_LABEL_NAME, label):
        raise ValueError("must be the name of one label, without a value: airflow.apache.org/connection-id")
    return label


def data_key(value: Any) -> str:
    """Accept a key of a Secret's data."""
    key = options.text(value)
    if not re.fullmatch(_KEY, key):
        raise ValueError("must be a key of a Secret's data: at most 253 letters, digits, '-', '_' and '.'")
    return key


class KubernetesSecretsBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from Kubernetes Secrets.

    A Secret is found by a label, ``airflow.apache.org/connection-id: my_db``, whatever its name; its key ``value``
    holds the value as it is. In multi-team mode the Secret that also has the team's label is requested first,
    and a Secret with any team's label is never everybody's. A label's value has at most 63 letters, digits, ``-``,
    ``_`` and ``.``: other ids are refused. With an empty label, the id is the name of the Secret.

    Needs ``list`` on Secrets in the namespace. See `Secrets
    <https://kubernetes.io/docs/concepts/configuration/secret/>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.backends.mixin.SecretLookupMixin`.
    """

    store = "Kubernetes Secrets"
    store_class = "kubernetes.secrets:KubernetesSecrets"
    prefix_option = "{kind}_label"
    default_prefixes: ClassVar = {
        "connections": "airflow.apache.org/connection-id",
        "variables": "airflow.apache.org/variable-key",
        "config": "airflow.apache.org/config-key",
    }
    sep = "="
    own_options = (
        Option("namespace", namespace, doc="Where the Secrets are; null: the pod's own, or the kubeconfig's."),
        Option(
            "team_label",
            label_name,
            "airflow.apache.org/team",
            "The label that says which team's a Secret is; null: no Secret is a team's.",
            nullable=True,
        ),
        *(
            Option(
                f"{kind}_data_key",
                data_key,
                DATA_KEY,
                f"The key of a Secret's data that holds {KIND_WORDS[kind]}.",
                identifies_client=False,
            )
            for kind in KINDS
        ),
        Option("kubeconfig", options.text, doc="A kubeconfig to log in by; null: the pod's service account, if any."),
        Option("context", options.text, doc="The kubeconfig's context; null: its current one."),
    )
    name_pattern = re.compile(rf"(?:{_KEY}:)?(?:{_LABEL}(?:,{_LABEL})?|{_DNS_NAME})")

    @staticmethod
    def coerce_prefix(value: Any) -> Any:
        """Accept the name of one label, or nothing."""
        label = SecretLookupMixin.coerce_prefix(value)
        return label and label_name(label)

    def prefixes_of(self, kind: Kind) -> tuple[str, ...] | None:
        """Return the label, preceded by the key of the Secret's data if that is not the default."""
        label: str | None = self.options[f"{kind}_label"]
        key = self.options[f"{kind}_data_key"]
        return None if label is None else (label if key == DATA_KEY else f"{key}:{label}",)

    def name(self, prefix: str, secret_id: str) -> str:
        """Return ``label=id``; without a label, the id alone."""
        return prefix + secret_id if prefix.endswith(":") or not prefix else f"{prefix}={secret_id}"

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> LookupPlan:
        """Return the Secrets that a lookup requests, or why there are none.

        An id is the value of one label, or the name of one Secret, and nothing more. With further syntax it could name
        a team's label, another kind's, or another key of the Secret's data.
        """
        plan = super().plan(kind, secret_id, team_name)
        allowed = _AS_LABEL if _by_label(self._rules[kind].prefixes or ()) else _AS_SECRET
        if plan.names and not allowed.fullmatch(secret_id):
            return LookupPlan(reason=f"{self.store} does not allow this name", refused=True)
        return plan

    def id_of(self, prefix: str, name: str) -> str | None:
        """Return the id that *name* is looked up by; a team's own with the team before it, as every store lists it."""
        secret_id = super().id_of(prefix, name)
        if secret_id and self.options["team_label"] and multi_team():
            own, of_team, team = secret_id.partition(f",{self.options['team_label']}=")
            return f"{team}{TEAM_SEP}{own}" if of_team else own
        return secret_id

    def names(self, prefixes: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Yield the candidate names, the team's own first."""
        if not _by_label(prefixes):
            yield from super().names(prefixes, secret_id, team_name)
            return
        for prefix in prefixes:
            name = self.name(prefix, secret_id)
            if team_name and self.options["team_label"]:
                yield f"{name},{self.options['team_label']}={team_name}"
            yield name


def _by_label(prefixes: tuple[str, ...]) -> bool:
    """Tell whether ids are values of a label rather than names of Secrets."""
    return all(prefix and not prefix.endswith(":") for prefix in prefixes)
