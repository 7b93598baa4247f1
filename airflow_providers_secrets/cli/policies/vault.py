"""HashiCorp Vault and OpenBao: a policy, and how who logs in gets it."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from airflow_providers_secrets.cli.policies.base import Policy, Scope, Wanted, hcl_string
from airflow_providers_secrets.errors import ConfigurationError, quoted

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin


def vault_policy(backend: SecretLookupMixin, wanted: Wanted, scope: Scope) -> Policy:
    """Return the policy for a KV secrets engine.

    :raises ConfigurationError: for a path that Vault would read as a pattern.
    """
    options = backend.options
    mount: str = options["mount_point"]
    is_kv_2 = options["kv_engine_version"] != "1"
    rules: dict[str, list[str]] = {}

    def allow(path: str, *capabilities: str) -> None:
        rules.setdefault(path, []).extend(c for c in capabilities if c not in rules.get(path, ()))

    for start in scope.starts:
        _refuse_vaults_patterns(start)
        within = start.removeprefix(f"{mount}/").removesuffix("/")
        below = f"{within}/*" if within else "*"
        # The paths of version 2 have a segment more.
        data = f"{mount}/data/{below}" if is_kv_2 else f"{mount}/{below}"
        metadata = f"{mount}/metadata/{below}" if is_kv_2 else data
        allow(data, "read")
        if start in scope.listed:
            allow(metadata, "list")
            allow(metadata.removesuffix("*"), "list")
        if "write" in wanted.acts:
            allow(data, "create", "update")
        if "delete" in wanted.acts:
            allow(data, "delete")
    hcl = "\n".join(
        f"path {hcl_string(path)} {{\n  capabilities = [{', '.join(json.dumps(one) for one in capabilities)}]\n}}\n"
        for path, capabilities in rules.items()
    )
    namespace = options["namespace"]
    before = f"export VAULT_NAMESPACE={shlex.quote(namespace)}\n" if namespace else ""
    auth = options["auth_type"]
    at = options["auth_mount_point"] or auth
    commands = f"{before}vault policy write {wanted.name} policy.hcl\n{_vault_login(wanted.name, auth, at)}"
    terraform = (
        f'resource "vault_policy" "{wanted.label}" {{\n  name   = "{wanted.name}"\n  policy = <<-EOT\n'
        + "".join(f"    {line}\n" if line else "\n" for line in hcl.splitlines())
        + "  EOT\n}\n"
    )
    if auth == "approle":
        terraform += (
            f'\nresource "vault_approle_auth_backend_role" "{wanted.label}" {{\n'
            f'  backend        = {hcl_string(at)}\n  role_name      = "{wanted.name}"\n'
            f"  token_policies = [vault_policy.{wanted.label}.name]\n"
            "  token_ttl      = 3600\n  token_max_ttl  = 14400\n}\n"
        )
    notes = ["OpenBao takes the same policy; its command is bao."]
    if options["kv_engine_version"] == "auto":
        notes.append("It is for KV version 2; for version 1 set kv_engine_version to 1, and print it again.")
    if scope.listed:
        notes.append("A listing shows names, and no values.")
    return Policy("hcl", hcl, commands, terraform, tuple(notes))


def _refuse_vaults_patterns(path: str) -> None:
    """Refuse a path that Vault would read as a pattern, since it has no way to escape one.

    An asterisk counts only at the end of a policy's path, where this package's own is.
    """
    if "+" in path.split("/") or "+*" in path or re.search("{{|}}", path):
        raise ConfigurationError(
            f"No policy can name {quoted(path)} alone: Vault reads '+' and '{{{{' as wildcards and templates. "
            "Use another path."
        )


def _vault_login(name: str, auth: str, at: str) -> str:
    at = shlex.quote(at)
    if auth == "approle":
        return (
            f"vault write auth/{at}/role/{name} token_policies={name} token_ttl=1h token_max_ttl=4h\n"
            f"vault read -field=role_id auth/{at}/role/{name}/role-id\n"
            f"vault write -f -field=secret_id auth/{at}/role/{name}/secret-id"
        )
    if auth == "token":
        return f"vault token create -policy={name} -period=24h"
    if auth in ("kubernetes", "jwt", "azure", "gcp", "aws_iam"):
        mount = "aws" if auth == at == "aws_iam" else at
        return f"vault write auth/{mount}/role/<role> token_policies={name} token_ttl=1h"
    return f"# Attach the policy {name} to whoever logs in by {auth} at auth/{at}."
