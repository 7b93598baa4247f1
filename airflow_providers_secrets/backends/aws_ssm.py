"""AWS Systems Manager Parameter Store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends._aws import COMMON_ADVICE, COMMON_OUTCOMES, AwsLookupMixin
from airflow_providers_secrets.outcomes import Outcome
from airflow_providers_secrets.store import Answer, Listed

if TYPE_CHECKING:
    from airflow_providers_secrets.backends._aws import Client


class SystemsManagerParameterStoreBackend(AwsLookupMixin, BaseSecretsBackend):
    """Connections, variables and configuration values from AWS SSM Parameter Store.

    The parameter ``{prefix}/{id}``, with a slash before it if it has none, of type String or SecureString
    holds the value as it is; a StringList reads as its comma-separated text. In multi-team mode
    ``{prefix}/{team}--{id}`` is asked first. An id that selects a version or label (``name:3``) is refused.

    Needs ``ssm:GetParameter`` on the parameters, and ``kms:Decrypt`` on the key of a SecureString. See
    `GetParameter <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>`_.

    Options, threads, forks and freshness: :class:`~airflow_providers_secrets.lookup.SecretLookupMixin`.
    """

    store = "AWS SSM Parameter Store"
    service: ClassVar[str] = "ssm"
    default_bases = {
        "connections": "/airflow/connections",
        "variables": "/airflow/variables",
        "config": "/airflow/config",
    }
    # PutParameter: letters, digits and "_.-/", at most 15 levels.
    name_pattern = re.compile(r"(?:/[A-Za-z0-9_.-]+){1,15}")
    outcomes: ClassVar = {
        **COMMON_OUTCOMES,
        "ParameterNotFound": Outcome.NOT_FOUND,
        "InvalidKeyId": Outcome.DENIED,
        "InternalServerError": Outcome.UNAVAILABLE,
    }
    advice: ClassVar = {
        **COMMON_ADVICE,
        Outcome.DENIED: "Allow the backend's identity ssm:GetParameter on it and kms:Decrypt on its key.",
    }

    def name(self, base: str, secret_id: str) -> str:
        """Give the parameter's name, which starts with a slash."""
        name = super().name(base, secret_id)
        return name if name.startswith("/") else f"/{name}"

    def listing(self, client: Client, prefix: str) -> Iterator[Listed]:
        """Give all parameters under *prefix*, decrypted, ten a page.

        Needs ``ssm:GetParametersByPath`` on the path. See `GetParametersByPath
        <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html>`_.
        """
        asked = {"Path": prefix.rpartition("/")[0] or "/", "Recursive": True, "WithDecryption": True, "MaxResults": 10}
        while True:
            page = client.get_parameters_by_path(**asked)
            if not isinstance(page.get("Parameters"), list):
                raise self.invalid(prefix, "the answer holds no list")
            for parameter in page["Parameters"]:
                if parameter["Name"].startswith(prefix):
                    yield Listed(parameter["Name"], parameter["Value"])
            if not page.get("NextToken"):
                return
            asked["NextToken"] = page["NextToken"]

    def fetch(self, client: Client, name: str) -> Answer:
        """Read one parameter, decrypted."""
        parameter = client.get_parameter(Name=name, WithDecryption=True).get("Parameter") or {}
        value = parameter.get("Value")
        if not isinstance(value, str):
            raise self.invalid(name, "the answer holds no value")
        return Answer(value, parameter.get("Name"))
