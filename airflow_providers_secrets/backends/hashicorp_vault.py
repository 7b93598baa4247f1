"""HashiCorp Vault, and OpenBao."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._vault import PATH, VAULT_OPTIONS, option_conflict, overruled, paths
from airflow_providers_secrets.backends.mixin import SecretLookupMixin
from airflow_providers_secrets.errors import Unusable
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.plan import Kind, LookupPlan, multi_team, team_name_refusal
from airflow_providers_secrets.options import CONNECTION_FIELDS

NOT_MOUNTS: Final = frozenset({"auth", "cubbyhole", "identity", "sys"})
"""Paths that Vault reserves for itself; no KV engine is mounted there."""

UNMOUNTED: Final = "with 'mount_point' null an id starts with its mount: MOUNT/ID"

EXACT_DIGITS: Final = 15
"""Whole numbers of up to so many digits survive in Vault, which turns each number into a double (IEEE 754)."""


class VaultBackend(SecretLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from a KV secrets engine of HashiCorp Vault or OpenBao.

    The secret ``{path}/{id}`` holds a connection as ``conn_uri`` or by its fields, and a variable or
    configuration value as ``value``. Of several paths, the first that has the secret counts. In multi-team
    mode a team's secrets are ``{path}/{team}/{id}`` and nothing else is requested.

    A process logs in once, at its first lookup. The lookup that finds two thirds of the login's lifetime over renews
    it; when it ends, a new login is made. If a new login does not change a refusal, further refusals within 30 s cause
    no other login. Needs ``read`` on the paths, and ``list`` for ``preload``. See `KV secrets
    engine <https://developer.hashicorp.com/vault/docs/secrets/kv>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.backends.mixin.SecretLookupMixin`.
    """

    store = "HashiCorp Vault"
    store_class = "vault.store:Vault"
    prefix_option = "{kind}_path"
    default_prefixes: ClassVar = {"connections": "connections", "variables": "variables", "config": "config"}
    coerce_prefix = staticmethod(paths)
    own_options = VAULT_OPTIONS
    name_pattern = PATH
    merges = True
    loads_before_every_fork = True  # importing hvac takes 45 ms of CPU, and more in a forked child

    # Names.

    def prefixes_of(self, kind: Kind) -> tuple[str, ...] | None:
        """Return the paths of the kind's option, then the one that all kinds share."""
        given: tuple[str, ...] | str | None = self.options[f"{kind}_path"]
        everywhere: str | None = self.options["global_secrets_path"]
        if given is None and everywhere is None:
            return None
        own = (given,) if isinstance(given, str) else given or ()
        return (own if everywhere is None else (*own, everywhere)) or None

    def why_unlisted(self) -> str | None:
        """Return why no path can be listed, or ``None``."""
        return UNMOUNTED if self.options["mount_point"] is None else None

    def option_conflict(self) -> str | None:
        """Return a message about an incomplete login or options that contradict each other, or ``None``."""
        if self.options["preload"] and self.options["mount_point"] is None:
            return "option 'preload' needs a 'mount_point': with null, each id names its own"
        for used, unused in overruled(self.options):
            warn(("overruled", unused), "%s: option %r is ignored, since %r is set.", type(self).__name__, unused, used)
        return option_conflict(self.options)

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> LookupPlan:
        """Return the names that a lookup requests, or why there are none.

        In multi-team mode, a name belongs to the longest of the backend's paths that contains it. Otherwise, if
        ``shared`` were a path inside another one, a team named ``shared`` could read what is everybody's.
        """
        plan = super().plan(kind, secret_id, team_name)
        if not plan.names:
            return plan if plan.reason else self._unmounted(secret_id)
        every = {prefix for rule in self._rules.values() for prefix in rule.prefixes or ()}
        for asked, name in zip(dict.fromkeys(self._rules[kind].prefixes or ()), plan.names, strict=True):
            path = name[len(self._split(name)[0]) + 1 :]
            if any(_inside(path, other) and _inside(other, asked) for other in every) and self._by_team():
                reason = "it is inside another of the backend's paths, where it could be a team's or everybody's secret"
                return LookupPlan(reason=reason, refused=True)
        return plan

    def _unmounted(self, secret_id: str) -> LookupPlan:
        """Return why an id has no names. One without a mount is ordinary: Airflow asks all its sources for each id."""
        mount, within = self._split(secret_id)
        if within:
            return LookupPlan(reason=f"Vault keeps the mount {mount!r} for itself", refused=True)
        return LookupPlan(reason=UNMOUNTED)

    def team_refusal(self, secret_id: str, team_name: str | None) -> str | None:
        """Return why *secret_id* could be mistaken for a team's secret, or ``None``.

        A team is a segment of the path here, so an id of a team may contain anything. Without a team, an id must
        not contain a slash: what precedes it could name a team.
        """
        if team_name:
            return team_name_refusal(team_name) if self._by_team() else None
        if "/" in self._split(secret_id)[1] and self._by_team():
            return "it contains '/', behind which it could name a team's secret in multi-team mode"
        return None

    def _by_team(self) -> bool:
        # Callers check this last: reading Airflow's configuration takes longer than the rest of a plan.
        return self.options["use_team_secrets_path"] and multi_team()

    def names(self, prefixes: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Yield the candidate names, path by path; for a team only its own."""
        mount, within = self._split(secret_id)
        if not within or mount in NOT_MOUNTS:
            return  # see _unmounted
        team = (team_name,) if team_name and self._by_team() else ()
        for prefix in dict.fromkeys(prefixes):
            yield "/".join(part for part in (mount, prefix, *team, within) if part)

    def name_start(self, prefix: str) -> str:
        """Return what the names of all ids under one path start with."""
        return "/".join(part for part in (self.options["mount_point"], prefix) if part) + "/"

    def name(self, prefix: str, secret_id: str) -> str:
        """Return the secret's name as Vault's command spells it, without the ``data/`` of the KV 2 API."""
        return next(self.names((prefix,), secret_id, None), prefix or secret_id)

    def _split(self, secret_id: str) -> tuple[str, str]:
        """Return the mount and the rest of the path. Without ``mount_point``, the id's first segment is the mount."""
        mount: str | None = self.options["mount_point"]
        if mount is not None:
            return mount, secret_id
        first, _, rest = secret_id.partition("/")
        return first, rest

    # Values.

    def decode(self, kind: Kind, stored: str) -> str:
        """Return the text that Airflow parses, from the JSON text of a secret's data.

        A connection is its ``conn_uri`` or else its fields; a variable or configuration value is its ``value``, as JSON
        text if it is not a string.

        :raises Unusable: naming the reason, not the value.
        """
        data: dict[str, Any] = json.loads(stored)
        if not data:
            raise Unusable("it is empty")
        if kind != "connections":
            value = data.get("value")
            if value is None:
                raise Unusable("its 'value' is missing")
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        uri = data.pop("conn_uri", None)
        if not (uri is None or isinstance(uri, str)):
            raise Unusable("its 'conn_uri' is not text")
        fields = {name: value for name, value in data.items() if value is not None}
        if not (uri or fields):
            raise Unusable("it is empty")
        return super().decode(kind, uri or json.dumps(fields, ensure_ascii=False))

    def encode(self, kind: Kind, text: str) -> str:
        """Return the JSON to merge into a secret's data so that :meth:`decode` returns *text*.

        A connection in JSON is written as its fields, any other as ``conn_uri``. ``extra`` is written as text if Vault
        would change a number in it. Null removes each field of a connection that is stored and no longer belongs to it;
        other keys stay.
        """
        if kind != "connections":
            return json.dumps({"value": text}, ensure_ascii=False)
        written: dict[str, Any] = {"conn_uri": text}
        if text.lstrip().startswith("{"):
            with contextlib.suppress(ValueError, RecursionError):
                written = json.loads(text)
                extra = written.get("extra")
                if isinstance(extra, dict) and _has_large_number(extra):
                    written["extra"] = json.dumps(extra, ensure_ascii=False)
        words = (word for accepted in self.field_aliases.by_field.values() for word in accepted)
        gone = dict.fromkeys(name for name in (*CONNECTION_FIELDS, *words, "conn_uri", "uri") if name not in written)
        return json.dumps({**written, **gone}, ensure_ascii=False)

    def merged(self, stored: str, held: str) -> tuple[str, str]:
        """Return *stored*, which the store merges, and the result of merging it into *held*."""
        merged = {**json.loads(held or "{}"), **json.loads(stored)}
        return stored, json.dumps(merged, ensure_ascii=False)


def _has_large_number(extra: dict[str, Any]) -> bool:
    """Return whether Vault might change a whole number in it: 123456789012345678 comes back as 123456789012345680."""
    digits: list[str] = []
    json.loads(json.dumps(extra), parse_int=digits.append)
    return any(len(number.lstrip("-")) > EXACT_DIGITS for number in digits)


def _inside(path: str, other: str) -> bool:
    """Tell whether *path* is below *other*."""
    return path != other and (not other or path.startswith(f"{other}/"))
