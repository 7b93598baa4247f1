"""AWS Secrets Manager."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._aws import AwsLookupMixin
from airflow_providers_secrets.errors import Unusable, quoted
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
"""The words for each field of a connection in a JSON secret."""

ROTATION_FIELDS: Final = ("masterarn", "dbInstanceIdentifier", "dbClusterIdentifier")
"""What rotation writes into a database's secret for itself. In ``extra`` it would reach the database's driver."""

ENGINE: Final = "engine"
"""What AWS's rotation functions tell the kind of a database by. A ``conn_type`` beside it says what Airflow reads."""


class SecretsManagerBackend(AwsLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from AWS Secrets Manager.

    The secret ``{prefix}{sep}{id}`` holds the value in its ``SecretString``; with an empty prefix the id is the
    secret's name, or its ARN. In multi-team mode ``{prefix}{sep}{team}--{id}`` is asked first. A connection is a
    URI, or a JSON object whose fields may go by the usual words (more by ``extra_conn_words``), so
    that a database's own secret, RDS-managed ones included, serves as it is; ``unknown_fields`` says what becomes of
    other fields.

    Needs ``secretsmanager:GetSecretValue`` on the secrets, and ``kms:Decrypt`` where their key is not the
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
    # CreateSecret: letters, digits and "/_+=.@-", at most 512, and "!" in the names that AWS makes itself (RDS); and
    # the ARN of a secret, with its last seven characters or without.
    name_pattern = re.compile(
        r"[A-Za-z0-9/_+=.@!-]{1,512}|arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[A-Za-z0-9/_+=.@!-]{1,519}"
    )

    def name(self, prefix: str, secret_id: str) -> str:
        """Give the secret's name, which without a prefix is the id itself."""
        return super().name(prefix, secret_id) if prefix else secret_id

    def names(self, prefixes: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Give the candidate names; without a prefix there are no team's own ones, as in the official backend."""
        return super().names(prefixes, secret_id, team_name if any(prefixes) else None)

    def option_conflict(self) -> str | None:
        """Name options that contradict each other."""
        for kind in self.options["preload"]:
            if "" in (self._rules[kind].prefixes or ()):
                return f"option 'preload' needs a '{kind}_prefix': the store lists by prefix"
            if any(prefix.startswith("arn:") for prefix in self._rules[kind].prefixes or ()):
                return f"option 'preload' needs a '{kind}_prefix' that is no ARN: the store lists by name"
        return super().option_conflict()

    def over(self, stored: str, held: str) -> tuple[str, str]:
        """Return the connection beside the other fields of *held*, under the words that *held* has for its fields.

        AWS's rotation functions read the secret, too: by AWS's words, and with fields that are none of a connection's.

        :raises Unusable: where the connection is a URI, which has no place for them.
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
    """Return the JSON object that *text* is, or an empty one."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
