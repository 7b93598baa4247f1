"""The least rights that a backend's configuration needs, for each store, in the vendor's form and as Terraform.

Pure functions of the backend's options and names. Each form has placeholders in angle brackets, or ``*``, for what the
configuration does not say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.cli.policies.aws import secrets_manager_policy, ssm_policy
from airflow_providers_secrets.cli.policies.azure import key_vault_policy
from airflow_providers_secrets.cli.policies.base import NothingToAllow, Policy, Scope, Wanted, scope_of
from airflow_providers_secrets.cli.policies.google import secret_manager_policy
from airflow_providers_secrets.cli.policies.kubernetes import kubernetes_policy
from airflow_providers_secrets.cli.policies.vault import vault_policy
from airflow_providers_secrets.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin

__all__ = ["NothingToAllow", "Policy", "Wanted", "policy_for"]

_MAKERS: Final[dict[str, Callable[[Any, Wanted, Scope], Policy]]] = {
    "aws_ssm": ssm_policy,
    "aws_secrets_manager": secrets_manager_policy,
    "hashicorp_vault": vault_policy,
    "gcp_secret_manager": secret_manager_policy,
    "azure_key_vault": key_vault_policy,
    "kubernetes_secrets": kubernetes_policy,
}


def policy_for(backend: SecretLookupMixin, wanted: Wanted) -> Policy:
    """Return the least policy for *backend*.

    :raises NothingToAllow: if no kind is looked up.
    :raises ConfigurationError: if no policy is known for the backend, or none follows from its options.
    """
    make = _MAKERS.get(backend.config.slug)
    if make is None:
        raise ConfigurationError(f"No policy is known for {backend.store}.")
    scope = scope_of(backend, wanted)
    if not scope.starts:
        raise NothingToAllow("Every kind is off, so the backend needs no rights.")
    if reason := backend.why_unlisted():
        raise ConfigurationError(f"No policy follows from the options: {reason}.")
    return make(backend, wanted, scope)
