"""AWS Secrets Manager."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._aws import AwsLookupMixin
from airflow_providers_secrets.errors import Unusable, quoted
from airflow_providers_secrets.lookup.plan import Kind
from airflow_providers_secrets.options import Option, one_of

WORDS: Final[dict[str, tuple[str, ...]]] = {
    "login": ("login", "user", "username", "user_name"),
    "password": ("password", "pass", "key"),
    "host": ("host", "remote_host", "server"),
    "port": ("port",),
    "schema": ("database", "schema", "dbname"),
    "conn_type": ("conn_type", "conn_id", "connection_type", "engine"),
    "description": ("description",),
    "extra": ("extra",),
}
"""The names that a JSON secret may use for each field of a connection."""

ROTATION_FIELDS: Final = ("masterarn", "dbInstanceIdentifier", "dbClusterIdentifier")
"""Fields that rotation adds to a database's secret for its own use. In ``extra`` they would reach the driver."""

ENGINE: Final = "engine"
"""The field by which AWS's rotation functions recognise the database. A ``conn_type`` beside it is for Airflow."""


class SecretsManagerBackend(AwsLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from AWS Secrets Manager.

    The secret ``{prefix}{sep}{id}`` holds the value in its ``SecretString``; with an empty prefix the id is the
    secret's name, or its ARN. In multi-team mode ``{prefix}{sep}{team}--{id}`` is requested first. A connection is a
    URI, or a JSON object whose fields may have any of the usual names (``extra_conn_words`` adds more), so
    that a database's own secret, RDS-managed ones included, works unchanged; ``unknown_fields`` says what happens to
    other fields.

    Needs ``secretsmanager:GetSecretValue`` on the secrets, and ``kms:Decrypt`` if their key is not the
    account's default. See `GetSecretValue
    <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.backends.mixin.SecretLookupMixin`.
    """

    store = "AWS Secrets Manager"
    store_class = "aws.secrets_manager:SecretsManager"
    default_prefixes = {
        "connections": "airflow/connections",
        "variables": "airflow/variables",
        "config": "airflow/config",
    }
    default_sep = "/"
    field_words = WORDS
    dropped_fields = ROTATION_FIELDS
    merges = True
    own_options = (
        *AwsLookupMixin.own_options,
        Option("unknown_fields", one_of("drop", "extra", "refuse"), "drop", "As on the other stores."),
    )
    # CreateSecret: letters, digits and "/_+=.@-", at most 512, and "!" in the names that AWS creates itself (RDS). Also
    # the ARN of a secret, with or without its last seven characters.
    name_pattern = re.compile(
        r"[A-Za-z0-9/_+=.@!-]{1,512}|arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[A-Za-z0-9/_+=.@!-]{1,519}"
    )

    def name(self, prefix: str, secret_id: str) -> str:
        """Return the secret's name, which without a prefix is the id itself."""
        return super().name(prefix, secret_id) if prefix else secret_id

    def id_refusal(self, kind: Kind, secret_id: object) -> str | None:
        """Return what makes *secret_id* unusable, or ``None``; as a secret's whole name it may start with a slash."""
        if isinstance(secret_id, str) and self.rule(kind).prefixes == ("",):
            return super().id_refusal(kind, secret_id.removeprefix("/"))
        return super().id_refusal(kind, secret_id)

    def names(self, prefixes: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Return the candidate names; without a prefix there are none for a team, as in the official backend."""
        return super().names(prefixes, secret_id, team_name if any(prefixes) else None)

    def option_conflict(self) -> str | None:
        """Return a message about the first options that contradict each other, or ``None``."""
        for kind in self.options["preload"]:
            if "" in (self._rules[kind].prefixes or ()):
                return f"option 'preload' needs a '{kind}_prefix': the store lists by prefix"
            if any(prefix.startswith("arn:") for prefix in self._rules[kind].prefixes or ()):
                return f"option 'preload' needs a '{kind}_prefix' that is no ARN: the store lists by name"
        return super().option_conflict()

    def merged(self, stored: str, held: str) -> tuple[str, str]:
        """Return the connection with the other fields of *held*, each field under the name that *held* uses for it.

        AWS's rotation functions read the same secret: by AWS's field names, and with fields that no connection has.

        :raises Unusable: if the connection is a URI, which has no place for other fields.
        """
        there, given = _object(held), _object(stored)
        words = self.field_aliases.by_field
        own = {word for accepted in words.values() for word in accepted if word != ENGINE} | {"uri"}
        other = {name: value for name, value in there.items() if name not in own}
        if other and not given:
            raise Unusable(f"a URI has no place for the secret's other fields ({quoted(min(other), 48)}): write JSON")
        if not (there and given):
            return stored, stored
        named = {
            next((name for name in there if name in own and name in words.get(field, ())), field): value
            for field, value in given.items()
        }
        merged = json.dumps({**other, **named}, ensure_ascii=False)
        return merged, merged


def _object(text: str) -> dict[str, Any]:
    """Return *text* parsed as a JSON object, or an empty one if it is none."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
