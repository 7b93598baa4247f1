"""What a policy is, what it should allow, and the prefixes that it is about."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import ConfigurationError
from airflow_providers_secrets.lookup.plan import KINDS, Kind

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin

ROLE: Final = "airflow-secrets"
"""The name of whatever the policies create; the number of a chain's member is appended."""


class NothingToAllow(ConfigurationError):
    """No kind is looked up, so the backend needs no rights."""


@dataclass(frozen=True)
class Policy:
    """A policy in the vendor's own form.

    :param form: the format of :attr:`text`: ``json``, ``hcl``, ``yaml``.
    :param text: the policy.
    :param commands: shell commands that apply it.
    :param terraform: the same as Terraform.
    :param notes: what it cannot express, and what to fill in.
    """

    form: str
    text: str
    commands: str
    terraform: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What a policy should allow, and the facts that the configuration does not contain.

    :param acts: some of :data:`.GRANTED`, besides reading.
    :param kinds: the kinds that are looked up; a chain may ask a member for some of them only.
    :param member: the place of a chain's member. Its number is in every name, so that the policies of two members can
        be applied together.
    """

    acts: Collection[str] = ()
    account: str = "*"
    region: str | None = None
    partition: str = "aws"
    kms_key: str | None = None
    project_number: str = "<project-number>"
    principal: str = "<principal>"
    vault_id: str = "<key-vault-resource-id>"
    kinds: Collection[Kind] = KINDS
    member: int | None = None

    @property
    def name(self) -> str:
        """The name of whatever the policy creates."""
        return ROLE if self.member is None else f"{ROLE}-{self.member}"

    @property
    def label(self) -> str:
        """The name of Terraform's resources."""
        return self.name.replace("-", "_")


@dataclass
class Scope:
    """The prefixes of a backend's names.

    :param starts: the prefixes to read.
    :param listed: the prefixes to list, by request or because their kind is preloaded.
    """

    starts: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)


def scope_of(backend: SecretLookupMixin, wanted: Wanted) -> Scope:
    """Return the prefixes of the kinds that are looked up."""
    scope = Scope()
    for kind in wanted.kinds:
        for prefix in backend.rule(kind).prefixes or ():
            start = backend.name_start(prefix)
            if start not in scope.starts:
                scope.starts.append(start)
            listed = ("list" in wanted.acts and kind != "config") or kind in backend.options["preload"]
            if listed and start not in scope.listed:
                scope.listed.append(start)
    return scope


def hcl_string(text: str) -> str:
    """Return *text* as a string of HCL, in which neither Vault nor a heredoc of Terraform finds a template."""
    return json.dumps(text, ensure_ascii=False).replace("${", r"\u0024{").replace("%{", r"\u0025{")
