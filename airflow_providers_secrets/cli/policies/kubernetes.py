"""Kubernetes RBAC: a role of a namespace, and its binding."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import yaml

from airflow_providers_secrets.cli.policies.base import Policy, Scope, Wanted

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin


RBAC: Final = "rbac.authorization.k8s.io"

SERVICE_ACCOUNT: Final = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
"""A pod's user name for the API server: its namespace and its service account."""


def kubernetes_policy(backend: SecretLookupMixin, wanted: Wanted, scope: Scope) -> Policy:
    """Return the policy for Kubernetes' Secrets."""
    # A Secret is found by its label with a listing; without a label, it is read by its own name.
    by_label = any("=" in start for start in scope.starts)
    verbs = [
        *(["get"] if any("=" not in start for start in scope.starts) else []),
        *(["list"] if by_label or scope.listed else []),
        *(["create", "patch"] if "write" in wanted.acts else []),
        *(["delete"] if "delete" in wanted.acts else []),
    ]
    namespace = str(backend.options["namespace"] or "<namespace>")
    metadata = {"name": wanted.name, "namespace": namespace}
    account, asking = wanted.principal, namespace
    if match := SERVICE_ACCOUNT.fullmatch(account):
        asking, account = match.groups()
    role = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}],
    }
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": wanted.name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": asking}],
    }
    text = yaml.safe_dump_all([role, binding], sort_keys=False)
    given = f'  metadata {{\n    name      = "{wanted.name}"\n    namespace = "{namespace}"\n  }}\n'
    terraform = (
        f'resource "kubernetes_role_v1" "{wanted.label}" {{\n{given}'
        '  rule {\n    api_groups = [""]\n    resources  = ["secrets"]\n'
        f"    verbs      = {json.dumps(verbs)}\n  }}\n}}\n\n"
        f'resource "kubernetes_role_binding_v1" "{wanted.label}" {{\n{given}'
        f'  role_ref {{\n    api_group = "{RBAC}"\n    kind      = "Role"\n    name      = "{wanted.name}"\n  }}\n'
        f'  subject {{\n    kind      = "ServiceAccount"\n    name      = "{account}"\n'
        f'    namespace = "{asking}"\n  }}\n}}\n'
    )
    whole = (
        "Kubernetes cannot narrow the right to list by labels: every Secret in this namespace can be read. "
        "Keep Airflow's Secrets in a namespace of their own."
    )
    notes = (whole,) if "list" in verbs else ()
    return Policy("yaml", text, "kubectl apply -f policy.yaml", terraform, notes)
