"""What an error advises: the store's own advice for a code, else what the operation needs."""

from __future__ import annotations

import pytest

from airflow_providers_secrets.lookup.outcomes import advice
from airflow_providers_secrets.stores.aws.parameter_store import ParameterStore
from airflow_providers_secrets.stores.aws.secrets_manager import SecretsManager
from airflow_providers_secrets.stores.azure.key_vault import KeyVault
from airflow_providers_secrets.stores.base import Outcome, Store
from airflow_providers_secrets.stores.google.secret_manager import SecretManager

RIGHTS = "airflow-secrets policy --allow {act} prints the rights."


@pytest.mark.parametrize(
    ("store", "codes", "act", "said"),
    [
        (ParameterStore, ("InvalidKeyId", "InvalidKeyId of GetParameter"), "give", "kms:Decrypt"),
        (ParameterStore, ("InvalidKeyId", "InvalidKeyId of GetParametersByPath"), "list", "kms:Decrypt"),
        (ParameterStore, ("InvalidKeyId", "InvalidKeyId of PutParameter"), "write", "Name a key that exists"),
        (ParameterStore, ("AccessDenied", "AccessDenied of AssumeRole", "HTTP 403"), "write", "sts:AssumeRole"),
        (SecretsManager, ("managed by another service", "InvalidRequestException"), "write", "service that owns it"),
        (SecretsManager, ("EncryptionFailure", "EncryptionFailure of PutSecretValue"), "write", "kms:GenerateDataKey"),
        (SecretsManager, ("AccessDeniedException", "HTTP 400"), "write", RIGHTS),
        (KeyVault, ("ForbiddenByFirewall", "HTTP 403"), "list", "through the vault's firewall"),
        (KeyVault, ("ForbiddenByPolicy", "HTTP 403"), "write", "'set'"),
        (KeyVault, ("ForbiddenByRbac", "HTTP 403"), "delete", RIGHTS),
        (SecretManager, ("SERVICE_DISABLED", "PERMISSION_DENIED"), "list", "Enable the Secret Manager API"),
        (SecretManager, ("PERMISSION_DENIED",), "list", RIGHTS),
        (SecretManager, ("PERMISSION_DENIED",), "give", "secretmanager.secretAccessor"),
    ],
)
def test_what_a_denied_operation_needs(store: type[Store], codes: tuple[str, ...], act: str, said: str) -> None:
    assert said.format(act=act) in advice(codes, Outcome.DENIED, store.advice, act)
