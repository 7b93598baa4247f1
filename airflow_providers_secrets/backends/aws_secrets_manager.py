"""AWS Secrets Manager."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._aws import COMMON_ADVICE, COMMON_OUTCOMES, AwsLookupMixin
from airflow_providers_secrets.options import Option, mapping
from airflow_providers_secrets.outcomes import Outcome
from airflow_providers_secrets.store import Answer, Listed

if TYPE_CHECKING:
    from airflow_providers_secrets import decoding
    from airflow_providers_secrets.backends._aws import Client

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


def _extra_conn_words(value: Any) -> dict[str, list[str]]:
    """Accept an object of lists of words by field."""
    words = mapping(value)
    for field, more in words.items():
        if field != "user" and field not in WORDS:
            raise ValueError(f"has the field {field!r}; known are user, {', '.join(WORDS)}")
        if not isinstance(more, list) or not all(isinstance(word, str) for word in more):
            raise ValueError(f"needs a list of words for the field {field!r}")
    return words


class SecretsManagerBackend(AwsLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from AWS Secrets Manager.

    The secret ``{prefix}{sep}{id}`` holds the value in its ``SecretString``; with an empty prefix the id is the
    secret's name, or its ARN. In multi-team mode ``{prefix}{sep}{team}--{id}`` is asked first. A connection is a
    URI, or a JSON object whose fields may go by the usual words (more by ``extra_conn_words``), so
    that a database's own secret, RDS-managed ones included, serves as it is; other fields become ``extra``.

    Needs ``secretsmanager:GetSecretValue`` on the secrets, and ``kms:Decrypt`` where their key is not the
    account's default. See `GetSecretValue
    <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.lookup.SecretLookupMixin`.
    """

    store = "AWS Secrets Manager"
    service: ClassVar[str] = "secretsmanager"
    default_bases = {
        "connections": "airflow/connections",
        "variables": "airflow/variables",
        "config": "airflow/config",
    }
    default_sep = "/"
    own_options = (
        *AwsLookupMixin.own_options,
        Option(
            "extra_conn_words",
            _extra_conn_words,
            {},
            'More words for the fields of a connection in JSON: {"password": ["passphrase"]}.',
        ),
    )
    # CreateSecret: letters, digits and "/_+=.@-", at most 512; and the ARN of a secret.
    name_pattern = re.compile(
        r"[A-Za-z0-9/_+=.@-]{1,512}|arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}"
    )
    outcomes: ClassVar = {
        **COMMON_OUTCOMES,
        "ResourceNotFoundException": Outcome.NOT_FOUND,
        "DecryptionFailure": Outcome.DENIED,
        "InvalidRequestException": Outcome.REVOKED,  # "… because it was marked for deletion"
        "InternalServiceError": Outcome.UNAVAILABLE,
    }
    advice: ClassVar = {
        **COMMON_ADVICE,
        Outcome.DENIED: "Allow the backend's identity secretsmanager:GetSecretValue on it and kms:Decrypt on its key.",
        Outcome.REVOKED: "It is scheduled for deletion: restore it, or turn it off by an exclude pattern.",
    }

    @property
    def connection_words(self) -> decoding.Words:
        """How the secrets' JSON objects may name a connection's fields."""
        from airflow_providers_secrets import decoding

        given: dict[str, list[str]] = self.options["extra_conn_words"]
        more = {"login" if field == "user" else field: words for field, words in given.items()}
        return decoding.Words(
            {field: (*words, *more.get(field, ())) for field, words in WORDS.items()}, ROTATION_FIELDS
        )

    def name(self, base: str, secret_id: str) -> str:
        """Give the secret's name, which without a prefix is the id itself."""
        return super().name(base, secret_id) if base else secret_id

    def names(self, bases: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Give the candidate names; without a prefix there are no team's own ones, as in the official backend."""
        return super().names(bases, secret_id, team_name if any(bases) else None)

    def option_fault(self) -> str | None:
        """Name options that contradict each other."""
        for kind in self.options["preload"]:
            if "" in (self._rules[kind].bases or ()):
                return f"option 'preload' needs a '{kind}_prefix': the store lists by prefix"
        return super().option_fault()

    def listing(self, client: Client, prefix: str) -> Iterator[Listed]:
        """Give all secrets whose name starts with *prefix*, twenty a page; of binary and refused ones the name.

        Needs ``secretsmanager:BatchGetSecretValue`` and ``ListSecrets`` on ``*``, and ``GetSecretValue`` on each.
        See `BatchGetSecretValue
        <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html>`_.
        """
        asked: dict[str, Any] = {"Filters": [{"Key": "name", "Values": [prefix]}], "MaxResults": 20}
        while True:
            page = client.batch_get_secret_value(**asked)
            if not isinstance(page.get("SecretValues"), list):
                raise self.invalid(prefix, "the answer holds no list")
            for secret in page["SecretValues"]:
                if secret["Name"].startswith(prefix):
                    yield Listed(secret["Name"], secret.get("SecretString"))
            for error in page.get("Errors") or ():
                # By its ARN, which is the name, a hyphen and six characters; or by its name.
                yield Listed(re.sub(r"^arn:[^:]+:secretsmanager:[^:]+:\d+:secret:(.+)-.{6}$", r"\1", error["SecretId"]))
            if not page.get("NextToken"):
                return
            asked["NextToken"] = page["NextToken"]

    def fetch(self, client: Client, name: str) -> Answer:
        """Read the current version of one secret."""
        answer = client.get_secret_value(SecretId=name)
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise self.invalid(name, "it is binary" if "SecretBinary" in answer else "the answer holds no value")
        return Answer(value, answer.get("ARN" if name.startswith("arn:") else "Name"))
