"""AWS Secrets Manager."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets.stores.aws.store import COMMON_ADVICE, COMMON_OUTCOMES, AwsStore, pages, tags_of
from airflow_providers_secrets.stores.base import EXISTS, MALFORMED, Answer, ListedSecret, Outcome, StoreError, Written

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.aws.session import AwsClient

SUFFIX_LENGTH: Final = 7
"""Number of characters that AWS appends to a secret's name in its ARN: a hyphen and six more."""

DELETED: Final = "scheduled for deletion"
MANAGED: Final = "managed by another service"
BINARY: Final = "it is binary"
BY_ARN: Final = "secrets are listed by name, not by ARN"


class SecretsManager(AwsStore):
    """AWS Secrets Manager."""

    service = "secretsmanager"
    session_name = "airflow_secretsmanagerbackend__connection"
    outcomes: ClassVar = {
        **COMMON_OUTCOMES,
        "ResourceNotFoundException": Outcome.NOT_FOUND,
        "DecryptionFailure": Outcome.DENIED,
        "EncryptionFailure": Outcome.DENIED,
        "InvalidRequestException": Outcome.REVOKED,  # "… because it was marked for deletion"
        "InternalServiceError": Outcome.UNAVAILABLE,
        DELETED: Outcome.REVOKED,
        MANAGED: Outcome.DENIED,
        BINARY: Outcome.INVALID,
        BY_ARN: Outcome.INVALID,
        "LimitExceededException": Outcome.INVALID,
    }
    advice: ClassVar = {
        **COMMON_ADVICE,
        Outcome.DENIED: "Allow the backend's identity secretsmanager:GetSecretValue on it.",
        Outcome.REVOKED: "It is scheduled for deletion: restore it, or turn it off by an exclude pattern.",
        DELETED: "Restore it first: aws secretsmanager restore-secret.",
        BY_ARN: "Remove the kind from 'preload', or name its prefix in place of the ARN.",
        MANAGED: "Change it through the service that owns it.",
        "DecryptionFailure": "Allow the backend's identity kms:Decrypt on its key, which must exist and be enabled.",
        "EncryptionFailure": "Allow the identity kms:GenerateDataKey on its key, which must exist and be enabled.",
        "AccessDeniedException of BatchGetSecretValue": (
            "Allow the backend's identity secretsmanager:BatchGetSecretValue and ListSecrets on *."
        ),
        "AccessDeniedException of PutSecretValue": "Allow the identity secretsmanager:PutSecretValue on it.",
        "AccessDeniedException of UpdateSecret": "Allow the identity secretsmanager:UpdateSecret on it.",
        "AccessDeniedException of CreateSecret": "Allow the identity secretsmanager:CreateSecret.",
        "AccessDeniedException of DeleteSecret": "Allow the identity secretsmanager:DeleteSecret on it.",
        "ValidationException of CreateSecret": "Write between 1 byte and 64 KB.",
        "ValidationException of PutSecretValue": "Write between 1 byte and 64 KB.",
    }
    write_settings: ClassVar = {
        "key_id": "the KMS key; else the account's default key",
        "description": "a description, not encrypted",
        "tags": "KEY=VALUE,KEY=VALUE, for a new secret alone",
    }
    largest_value = 65_536

    def fetch(self, client: AwsClient, name: str) -> Answer:
        """Read the current version of one secret, by name, or by ARN with or without its last seven characters."""
        answer = client.service.get_secret_value(SecretId=name)
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise StoreError(BINARY) if "SecretBinary" in answer else StoreError("the answer holds no value", MALFORMED)
        answered = answer.get("Name")
        if name.startswith("arn:"):
            answered = answer.get("ARN")
            if isinstance(answered, str) and re.fullmatch(r"-[A-Za-z0-9]{6}", answered[-SUFFIX_LENGTH:]):
                answered = name if name in (answered, answered[:-SUFFIX_LENGTH]) else answered
        return Answer(value, answered)

    def listing(self, client: AwsClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield all secrets whose name starts with *prefix*, twenty per page; of binary and refused ones only the name.

        Needs ``secretsmanager:BatchGetSecretValue`` and ``ListSecrets`` on ``*``, and ``GetSecretValue`` on each.
        See `BatchGetSecretValue
        <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html>`_.

        :raises StoreError: for a prefix that is part of an ARN: listings have names, and the account may be another.
        """
        if prefix.startswith("arn:"):
            raise StoreError(BY_ARN)
        filters = [{"Key": "name", "Values": [prefix]}]
        for page in pages(client.service.batch_get_secret_value, "SecretValues", Filters=filters, MaxResults=20):
            for secret in page["SecretValues"]:
                if secret["Name"].startswith(prefix):
                    yield ListedSecret(
                        secret["Name"], secret.get("SecretString"), secret.get("VersionId"), secret.get("CreatedDate")
                    )
            for error in page.get("Errors") or ():
                # It has an ARN, which ends in the name, a hyphen and six characters; or a name.
                yield ListedSecret(
                    re.sub(r"^arn:[^:]+:secretsmanager:[^:]+:\d+:secret:(.+)-.{6}$", r"\1", error["SecretId"])
                )

    def write(
        self,
        client: AwsClient,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] = {},
    ) -> Written:
        """Create a secret, or a new current version that keeps description, tags, key, rotation and replicas.

        A key or description in *settings* replaces the secret's own. Needs ``secretsmanager:CreateSecret``, and
        ``PutSecretValue`` (``UpdateSecret`` with such a setting) on it. See `PutSecretValue
        <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html>`_.
        """
        tags = tags_of(settings.get("tags", ""))
        given = {"KmsKeyId": "key_id", "Description": "description"}
        chosen: dict[str, Any] = {
            argument: settings[setting] for argument, setting in given.items() if settings.get(setting)
        }
        errors = client.service.exceptions
        put = client.service.update_secret if chosen else client.service.put_secret_value
        new = {**chosen, "Tags": tags} if tags else chosen
        for _ in range(1 if only_if_absent else 2):  # a second time if somebody else creates it in between
            if not only_if_absent:
                with contextlib.suppress(errors.ResourceNotFoundException):
                    done = self._changed(client, name, put, SecretId=name, SecretString=text, **chosen)
                    return Written(created=False, version=done["VersionId"])
            with contextlib.suppress(errors.ResourceExistsException):
                done = self._changed(client, name, client.service.create_secret, Name=name, SecretString=text, **new)
                return Written(created=True, version=done["VersionId"])
        raise StoreError("it exists already", EXISTS)

    def delete(self, client: AwsClient, name: str) -> None:
        """Schedule a secret for deletion in 30 days, AWS's default; until then it can be restored.

        Needs ``secretsmanager:DeleteSecret``. See `DeleteSecret
        <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteSecret.html>`_.
        """
        self._changed(client, name, client.service.delete_secret, SecretId=name)

    @staticmethod
    def _changed(client: AwsClient, name: str, change: Any, **arguments: Any) -> Any:
        """Return what *change* returns.

        :raises StoreError: if AWS refuses it because of the secret's state, which AWS gives only as text.
        """
        refusal: Exception
        try:
            return change(**arguments)
        except client.service.exceptions.InvalidRequestException as error:
            refusal = error.with_traceback(None)  # its frames hold the secret's text
        secret: Mapping[str, Any] = {}
        with contextlib.suppress(Exception):  # without the permission, AWS's own code has to do
            secret = client.service.describe_secret(SecretId=name)
        if secret.get("DeletedDate"):
            raise StoreError(DELETED)
        if secret.get("OwningService"):
            raise StoreError(MANAGED)
        raise refusal
