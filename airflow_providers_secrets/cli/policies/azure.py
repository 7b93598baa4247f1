"""Azure RBAC: the assignment of a built-in role on a vault."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.cli.policies.base import Policy, Scope, Wanted

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin


ROLES: Final = {
    "read": ("Key Vault Secrets User", "4633458b-17de-408a-b874-0445c86b69e6"),
    "write": ("Key Vault Secrets Officer", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"),
}
"""Azure's built-in roles and their ids: "Azure built-in roles for Security" in Microsoft's documentation."""

USERS: Final = ("cli", "powershell", "developer_cli")
"""The credentials of whoever is logged in by a command, mostly a user."""


def key_vault_policy(backend: SecretLookupMixin, wanted: Wanted, scope: Scope) -> Policy:
    """Return the policy for Azure Key Vault."""
    # "Secrets User" contains readMetadata besides getSecret, and thus listing.
    act = "write" if {"write", "delete"} & set(wanted.acts) else "read"
    role, role_id = ROLES[act]
    # Without the type, az asks Microsoft Graph, which may not know a new identity yet. Whoever writes is mostly a user.
    is_user = act == "write" or backend.options["credential"] in USERS
    definition = f"/providers/Microsoft.Authorization/roleDefinitions/{role_id}"
    text = json.dumps(
        {
            "properties": {
                "roleDefinitionId": definition,
                "principalId": wanted.principal,
                "scope": wanted.vault_id,
            }
        },
        indent=2,
    )
    commands = (
        f"az role assignment create --role '{role}' --assignee-object-id {shlex.quote(wanted.principal)} "
        f"{'' if is_user else '--assignee-principal-type ServicePrincipal '}--scope {shlex.quote(wanted.vault_id)}"
    )
    terraform = (
        f'resource "azurerm_role_assignment" "{wanted.label}" {{\n'
        f'  scope                = "{wanted.vault_id}"\n  role_definition_name = "{role}"\n'
        f'  principal_id         = "{wanted.principal}"\n}}\n'
    )
    whole = (
        "Azure scopes a role to a vault or to one secret, never to a prefix: everything in this vault can be read. "
        "Keep Airflow's secrets in a vault of their own."
    )
    single = (
        f"For single secrets, assign it on {wanted.vault_id}/secrets/NAME instead ({', '.join(scope.starts)}…); "
        "such a principal cannot list."
    )
    return Policy("json", text, commands, terraform, (whole, single))
