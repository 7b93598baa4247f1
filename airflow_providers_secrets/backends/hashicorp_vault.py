"""HashiCorp Vault, and OpenBao."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._vault import (
    ADVICE,
    OUTCOMES,
    PATH,
    VAULT_OPTIONS,
    option_fault,
    paths,
)
from airflow_providers_secrets.lookup import SecretLookupMixin
from airflow_providers_secrets.naming import Kind, multi_team, team_name_fault
from airflow_providers_secrets.store import Answer, Listed

if TYPE_CHECKING:
    from airflow_providers_secrets.backends._vault_client import VaultClient

NOT_MOUNTS: Final = frozenset({"auth", "cubbyhole", "identity", "sys"})
"""What Vault keeps for itself, and no KV engine is mounted at."""


class VaultBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from a KV secrets engine of HashiCorp Vault or OpenBao.

    The secret ``{path}/{id}`` holds a connection as ``conn_uri`` or by its fields, and a variable or
    configuration value as ``value``. Of several paths, the first that has the secret counts. In multi-team
    mode a team's secrets are ``{path}/{team}/{id}`` and nothing else is asked.

    A process logs in once, at its first lookup; the login is renewed by the lookup that finds two thirds of its
    life over, and made anew when it ends. A refusal that one new login does not mend is remembered for 30 s, in
    which no other login is tried for one. Needs ``read`` on the paths, and ``list`` for ``preload``. See `KV secrets
    engine <https://developer.hashicorp.com/vault/docs/secrets/kv>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.lookup.SecretLookupMixin`.
    """

    store = "HashiCorp Vault"
    sdk = ("requests",)
    late_imports = ("netrc",)
    extra = "vault"
    ambient = ("VAULT_", "AWS_", "GOOGLE_")  # logins by aws_iam and gcp find their credentials there
    base_option = "{kind}_path"
    default_bases: ClassVar = {"connections": "connections", "variables": "variables", "config": "config"}
    coerce_base = staticmethod(paths)
    own_options = VAULT_OPTIONS
    name_pattern = PATH
    outcomes = OUTCOMES
    advice = ADVICE
    # Logging in by aws_iam.
    telltale_loggers = ("botocore.auth", "botocore.endpoint", "botocore.hooks", "botocore.parsers", "botocore.utils")

    # Names.

    def _bases(self, option: str) -> tuple[str, ...] | None:
        bases = super()._bases(option)
        everywhere: str | None = self.options["global_secrets_path"]
        return bases if everywhere is None else (*(bases or ()), everywhere)

    def normalised_bases(self, base: Any) -> Iterable[str]:
        """Give the bases that an option's value stands for."""
        return base if isinstance(base, tuple) else (base,)

    def option_fault(self) -> str | None:
        """Name a login that lacks something, or options that contradict each other."""
        if self.options["preload"] and self.options["mount_point"] is None:
            return "option 'preload' needs a 'mount_point': with null, each id names its own"
        return option_fault(self.options)

    def team_fault(self, secret_id: str, team_name: str | None) -> str | None:
        """Say why *secret_id* cannot be told from some team's secret, or ``None``.

        A team is a segment of the path here, so an id may hold what it likes within it. What nobody's id may
        hold is a slash, behind which it would name a team; and paths inside each other would share names.
        """
        if not self._by_team():
            return None
        bases = {base for rule in self._rules.values() for base in rule.bases or ()}
        if any(_inside(one, other) for one in bases for other in bases):
            return "the backend has a path inside another one, so that teams would share names"
        if team_name:
            return team_name_fault(team_name)
        if "/" in self._split(secret_id)[1]:
            return "it contains '/', behind which it could name a team's secret in multi-team mode"
        return None

    def _by_team(self) -> bool:
        return self.options["use_team_secrets_path"] and multi_team()

    def names(self, bases: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Give the candidate names, path by path; for a team its own ones alone."""
        mount, within = self._split(secret_id)
        if not within or mount in NOT_MOUNTS:
            return
        team = (team_name,) if team_name and self._by_team() else ()
        for base in dict.fromkeys(bases):
            yield "/".join(part for part in (mount, base, *team, within) if part)

    def prefix(self, base: str) -> str:
        """Give what the names of all ids under one base start with."""
        return "/".join(part for part in (self.options["mount_point"], base) if part) + "/"

    def name(self, base: str, secret_id: str) -> str:
        """Give the secret's name as Vault's command spells it, without the ``data/`` of the KV 2 API."""
        return next(self.names((base,), secret_id, None), base or secret_id)

    def _split(self, secret_id: str) -> tuple[str, str]:
        """Give the mount and what is under it. Without ``mount_point``, the id's first segment says it."""
        mount: str | None = self.options["mount_point"]
        if mount is not None:
            return mount, secret_id
        first, _, rest = secret_id.partition("/")
        return first, rest

    # The store.

    def connect(self) -> VaultClient:
        """Make the client; it logs in at its first read."""
        from airflow_providers_secrets.backends._vault_client import VaultClient

        return VaultClient(self.options)

    def fetch(self, client: VaultClient, name: str) -> Answer:
        """Read the latest version of one secret, as the JSON text of its data."""
        mount = self.options["mount_point"] or name.partition("/")[0]
        return Answer(json.dumps(client.read(mount, name[len(mount) + 1 :]), ensure_ascii=False))

    def listing(self, client: VaultClient, prefix: str) -> Iterator[Listed]:
        """Give the names of all secrets under *prefix*, folder by folder.

        Needs the capability ``list`` on the path (KV 2: under ``metadata/``).
        """
        mount = self.options["mount_point"]
        folders = [prefix[len(mount) + 1 :]]
        while folders:
            folder = folders.pop()
            for key in client.names_in(mount, folder):
                if key.endswith("/"):
                    folders.append(folder + key)
                else:
                    yield Listed(f"{mount}/{folder}{key}")

    def decode(self, kind: Kind, name: str, stored: str) -> str:
        """Give what Airflow parses, from the JSON text of a secret's data.

        :raises InvalidSecret: naming the fault, not the value.
        """
        data: dict[str, Any] = json.loads(stored)
        field = "conn_uri" if kind == "connections" else "value"
        value = data.pop(field, None)
        if value in (None, ""):
            if not data:
                raise self.invalid(name, "it is empty")
            if kind != "connections":
                raise self.invalid(name, f"its {field!r} is {'missing' if value is None else 'empty'}")
            value = json.dumps(data)
        elif not isinstance(value, str):
            raise self.invalid(name, f"its {field!r} is not text")
        return super().decode(kind, name, value)


def _inside(one: str, other: str) -> bool:
    """Tell whether the path *one* is below *other*."""
    return one != other and (not other or one.startswith(f"{other}/"))
