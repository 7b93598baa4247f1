"""AWS Systems Manager Parameter Store."""

from __future__ import annotations

import re

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._aws import AwsLookupMixin


class SystemsManagerParameterStoreBackend(AwsLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from AWS SSM Parameter Store.

    The parameter ``{prefix}/{id}``, of type String or SecureString, holds the value as it is; a leading slash is added
    if it has none. A StringList is read as its comma-separated text. In multi-team mode
    ``{prefix}/{team}--{id}`` is requested first. An id that selects a version or label (``name:3``) is refused.

    Needs ``ssm:GetParameter`` on the parameters, and ``kms:Decrypt`` on the key of a SecureString. See
    `GetParameter <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.backends.mixin.SecretLookupMixin`.
    """

    store = "AWS SSM Parameter Store"
    store_class = "aws.parameter_store:ParameterStore"
    default_prefixes = {
        "connections": "/airflow/connections",
        "variables": "/airflow/variables",
        "config": "/airflow/config",
    }
    # PutParameter: letters, digits and "_.-/", at most 15 levels.
    name_pattern = re.compile(r"(?:/[A-Za-z0-9_.-]+){1,15}")

    def name(self, prefix: str, secret_id: str) -> str:
        """Return the parameter's name, which starts with a slash."""
        name = super().name(prefix, secret_id)
        return name if name.startswith("/") else f"/{name}"
