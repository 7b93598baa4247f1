"""The least rights that a backend's configuration needs, for each store, in the vendor's form and as Terraform.

Pure functions of the backend's options and names. Each form has placeholders in angle brackets, or ``*``, for what the
configuration does not say.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from airflow_providers_secrets.errors import ConfigurationError, quoted
from airflow_providers_secrets.lookup.plan import KINDS, Kind

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin

ROLE: Final = "airflow-secrets"
"""The name of whatever the policies create; the number of a chain's member is appended."""


class NothingToAllow(ConfigurationError):
    """No kind is looked up, so the backend needs no rights."""


@dataclass(frozen=True)
class Policy:
    """A policy in the vendor's own form.

    :param form: the format of :attr:`text`: ``json``, ``hcl``, ``yaml``.
    :param text: the policy.
    :param commands: shell commands that apply it.
    :param terraform: the same as Terraform.
    :param notes: what it cannot express, and what to fill in.
    """

    form: str
    text: str
    commands: str
    terraform: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What a policy should allow, and the facts that the configuration does not contain.

    :param acts: some of :data:`.GRANTED`, besides reading.
    :param kinds: the kinds that are looked up; a chain may ask a member for some of them only.
    :param member: the place of a chain's member. Its number is in every name, so that the policies of two members can
        be applied together.
    """

    acts: Collection[str] = ()
    account: str = "*"
    region: str | None = None
    partition: str = "aws"
    kms_key: str | None = None
    project_number: str = "<project-number>"
    principal: str = "<principal>"
    vault_id: str = "<key-vault-resource-id>"
    kinds: Collection[Kind] = KINDS
    member: int | None = None

    @property
    def name(self) -> str:
        """The name of whatever the policy creates."""
        return ROLE if self.member is None else f"{ROLE}-{self.member}"

    @property
    def label(self) -> str:
        """The name of Terraform's resources."""
        return self.name.replace("-", "_")


@dataclass
class _Scope:
    """The prefixes of a backend's names.

    :param listed: the prefixes to list, by request or because their kind is preloaded.
    """

    starts: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)


def policy_for(backend: SecretLookupMixin, wanted: Wanted) -> Policy:
    """Return the least policy for *backend*.

    :raises NothingToAllow: if no kind is looked up.
    :raises ConfigurationError: if no policy is known for the backend, or none follows from its options.
    """
    make = _MAKERS.get(backend.config.slug)
    if make is None:
        raise ConfigurationError(f"No policy is known for {backend.store}.")
    scope = _scope(backend, wanted)
    if not scope.starts:
        raise NothingToAllow("Every kind is off, so the backend needs no rights.")
    if reason := backend.why_unlisted():
        raise ConfigurationError(f"No policy follows from the options: {reason}.")
    return make(backend, wanted, scope)


def _scope(backend: SecretLookupMixin, wanted: Wanted) -> _Scope:
    scope = _Scope()
    for kind in wanted.kinds:
        for prefix in backend.rule(kind).prefixes or ():
            start = backend.name_start(prefix)
            if start not in scope.starts:
                scope.starts.append(start)
            listed = ("list" in wanted.acts and kind != "config") or kind in backend.options["preload"]
            if listed and start not in scope.listed:
                scope.listed.append(start)
    return scope


# AWS.


def _statement(sid: str, actions: list[str], resources: list[str], condition: Any = None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": condition} if condition else statement


def _aws(backend: SecretLookupMixin, wanted: Wanted, statements: list[dict[str, Any]], notes: list[str]) -> Policy:
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)
    of_options = backend.options["role_arn"]
    role = of_options.rpartition("/")[2] if of_options else _role_name(wanted.principal)
    # Inline: a policy of its own would allow nothing until it is attached, and could not be created twice.
    commands = (
        f"aws iam put-role-policy --role-name {shlex.quote(role)} --policy-name {wanted.name} "
        "--policy-document file://policy.json"
    )
    terraform = (
        f'resource "aws_iam_role_policy" "{wanted.label}" {{\n  name   = "{wanted.name}"\n  role   = {_hcl(role)}\n'
        "  policy = <<-EOT\n"
    )
    terraform += "".join(f"    {line}\n" for line in text.splitlines()) + "  EOT\n}\n"
    if of_options:
        notes.append(
            f"This is the policy of {of_options}; whoever assumes it needs sts:AssumeRole on it and its trust."
        )
    if _account(backend, wanted) == "*":
        notes.append("Name the account with --account to narrow the ARNs further.")
    if _region(backend, wanted) == "*":
        notes.append("Name the region with --region to narrow the ARNs further.")
    return Policy("json", text, commands, terraform, tuple(notes))


def _role_name(principal: str) -> str:
    """Return the name of a role, as IAM's commands take it: that of an ARN, also of a session's, which ``check`` shows.

    :raises ConfigurationError: for an ARN that is no role's.
    """
    if not principal.startswith("arn:"):
        return principal
    of_role = re.fullmatch(r"arn:[^:]+:(?:iam::\d+:role/(?:.+/)?([^/]+)|sts::\d+:assumed-role/([^/]+)/.+)", principal)
    if not of_role:
        raise ConfigurationError(f"--principal {quoted(principal)} is no role; name one by its name or ARN.")
    return of_role[1] or of_role[2]


def _account(backend: SecretLookupMixin, wanted: Wanted) -> str:
    """Return the account whose secrets are read: that of the role, if the backend assumes one."""
    of_role = re.match(r"arn:[^:]+:iam::([0-9]{12}):", backend.options["role_arn"] or "")
    return of_role[1] if of_role else wanted.account


def _region(backend: SecretLookupMixin, wanted: Wanted) -> str:
    return str(wanted.region or backend.options["region_name"] or "*")


def _kms(wanted: Wanted, service: str, region: str, condition: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return the statement for the key. AWS's default keys need none: all principals of the account may use them."""
    if not wanted.kms_key:
        return []
    actions = ["kms:Decrypt", *(("kms:GenerateDataKey",) if "write" in wanted.acts else ())]
    if service == "ssm" and "write" in wanted.acts:
        actions.append("kms:Encrypt")
    via = {"kms:ViaService": f"{service}.{region}.amazonaws.com"}
    return [_statement("UseKey", actions, [wanted.kms_key], {"StringLike": {**via, **condition}})]


def _ssm(backend: SecretLookupMixin, wanted: Wanted, scope: _Scope) -> Policy:
    region = _region(backend, wanted)
    arn = f"arn:{wanted.partition}:ssm:{region}:{_account(backend, wanted)}:parameter"
    under = [f"{arn}{start}*" for start in scope.starts]
    statements = [_statement("ReadSecrets", ["ssm:GetParameter"], under)]
    notes = []
    if scope.listed:
        # The resource of a listing is the path itself.
        paths = [f"{arn}{start.rpartition('/')[0]}" for start in scope.listed]
        statements.append(_statement("ListSecrets", ["ssm:GetParametersByPath"], paths))
        notes.append("A listing decrypts what it lists: ssm:GetParametersByPath on a path reads everything under it.")
    if "write" in wanted.acts:
        statements.append(_statement("WriteSecrets", ["ssm:PutParameter"], under))
        statements.append(_statement("KeepSettings", ["ssm:DescribeParameters"], ["*"]))
        notes.append(
            "A write keeps a parameter's type, key and tier, which ssm:DescribeParameters shows: AWS scopes it to *."
        )
    if "delete" in wanted.acts:
        statements.append(_statement("DeleteSecrets", ["ssm:DeleteParameter"], under))
    statements += _kms(wanted, "ssm", region, {"kms:EncryptionContext:PARAMETER_ARN": under})
    return _aws(backend, wanted, statements, notes)


def _secrets_manager(backend: SecretLookupMixin, wanted: Wanted, scope: _Scope) -> Policy:
    region = _region(backend, wanted)
    arn = f"arn:{wanted.partition}:secretsmanager:{region}:{_account(backend, wanted)}:secret:"
    # Secrets Manager appends a hyphen and six characters to every name in its ARN, but not to an absent name. With a
    # pattern that ends in them, every absent name would be denied.
    under = [f"{'' if start.startswith('arn:') else arn}{start}*" for start in scope.starts]
    complete = [f"{one}-??????" for one in under]
    statements = [_statement("ReadSecrets", ["secretsmanager:GetSecretValue"], under)]
    notes = []
    if scope.listed:
        actions = ["secretsmanager:BatchGetSecretValue", "secretsmanager:ListSecrets"]
        statements.append(_statement("ListSecrets", actions, ["*"]))
        notes.append(
            "Listing shows the names and descriptions of all secrets of the account: AWS scopes it to * alone."
        )
    if "write" in wanted.acts:
        acts = ("CreateSecret", "PutSecretValue", "UpdateSecret", "DescribeSecret")
        statements.append(_statement("WriteSecrets", [f"secretsmanager:{act}" for act in acts], under))
    if "delete" in wanted.acts:
        statements.append(_statement("DeleteSecrets", ["secretsmanager:DeleteSecret"], under))
    statements += _kms(wanted, "secretsmanager", region, {"kms:EncryptionContext:SecretARN": complete})
    return _aws(backend, wanted, statements, notes)


# Vault.


def _vault(backend: SecretLookupMixin, wanted: Wanted, scope: _Scope) -> Policy:
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
        f"path {_hcl(path)} {{\n  capabilities = [{', '.join(json.dumps(one) for one in capabilities)}]\n}}\n"
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
            f'  backend        = {_hcl(at)}\n  role_name      = "{wanted.name}"\n'
            f"  token_policies = [vault_policy.{wanted.label}.name]\n"
            "  token_ttl      = 3600\n  token_max_ttl  = 14400\n}\n"
        )
    notes = ["OpenBao takes the same policy; its command is bao."]
    if options["kv_engine_version"] == "auto":
        notes.append("It is for KV version 2; for version 1 set kv_engine_version to 1, and print it again.")
    if scope.listed:
        notes.append("A listing shows names, and no values.")
    return Policy("hcl", hcl, commands, terraform, tuple(notes))


def _hcl(text: str) -> str:
    """Return *text* as a string of HCL, in which neither Vault nor a heredoc of Terraform finds a template."""
    return json.dumps(text, ensure_ascii=False).replace("${", r"\u0024{").replace("%{", r"\u0025{")


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


# Google.


CUSTOM_ROLES: Final = {
    "list": ("airflowSecretsLister", "secretmanager.secrets.list"),
    "create": ("airflowSecretsCreator", "secretmanager.secrets.create"),
    "delete": ("airflowSecretsDeleter", "secretmanager.secrets.delete"),
}
"""Custom roles with one permission each, since Google's own roles contain more than is needed."""


def _google(backend: SecretLookupMixin, wanted: Wanted, scope: _Scope) -> Policy:
    project = backend.options["project_id"] or "<project-id>"
    location = backend.options["location"]
    inside = f"projects/{wanted.project_number}/" + (f"locations/{location}/" if location else "") + "secrets/"
    expression = " || ".join(f'resource.name.startsWith("{inside}{start}")' for start in scope.starts)
    condition = {"title": wanted.name, "expression": expression}
    suffix = "" if wanted.member is None else str(wanted.member)
    role_ids = {act: f"{role_id}{suffix}" for act, (role_id, _) in CUSTOM_ROLES.items()}
    notes = ["resource.name holds the project's number, not its id: gcloud projects describe shows it."]
    scoped = ["roles/secretmanager.secretAccessor"]
    unscoped: list[str] = []
    custom: list[str] = []
    if "write" in wanted.acts:
        scoped.append("roles/secretmanager.secretVersionAdder")
        custom.append("create")
        notes.append("Creating a secret is judged on the project: no condition on a prefix can hold there.")
    if "delete" in wanted.acts:
        custom.append("delete")
    if scope.listed:
        custom.append("list")
        notes.append("Listing is judged on the project: it shows the names of all its secrets.")
    for act in custom:
        (scoped if act == "delete" else unscoped).append(f"projects/{project}/roles/{role_ids[act]}")
    bindings: list[dict[str, Any]] = [
        *({"role": role, "members": [wanted.principal], "condition": condition} for role in scoped),
        *({"role": role, "members": [wanted.principal]} for role in unscoped),
    ]
    commands = [
        f"gcloud iam roles create {role_ids[act]} --project={project} --permissions={CUSTOM_ROLES[act][1]}"
        for act in custom
    ]
    blocks = [
        f'resource "google_project_iam_custom_role" "{role_ids[act]}" {{\n  project     = "{project}"\n'
        f'  role_id     = "{role_ids[act]}"\n  title       = "{role_ids[act]}"\n'
        f'  permissions = ["{CUSTOM_ROLES[act][1]}"]\n}}\n'
        for act in custom
    ]
    for one in bindings:
        role = str(one["role"])
        given = f"expression={expression},title={wanted.name}" if "condition" in one else "None"
        commands.append(
            f"gcloud projects add-iam-policy-binding {project} --member={shlex.quote(wanted.principal)} "
            f"--role={role} --condition='{given}'"
        )
        name = re.sub(r"\W", "_", re.split(r"[./]", role)[-1]).lower()
        block = f'resource "google_project_iam_member" "airflow_{name}{suffix}" {{\n  project = "{project}"\n'
        block += f'  role    = "{role}"\n  member  = "{wanted.principal}"\n'
        if "condition" in one:
            block += (
                f'  condition {{\n    title      = "{wanted.name}"\n    expression = {json.dumps(expression)}\n  }}\n'
            )
        blocks.append(f"{block}}}\n")
    text = json.dumps({"bindings": bindings, "version": 3}, indent=2)
    return Policy("json", text, "\n".join(commands), "\n".join(blocks), tuple(notes))


# Azure.

AZURE_ROLES: Final = {
    "read": ("Key Vault Secrets User", "4633458b-17de-408a-b874-0445c86b69e6"),
    "write": ("Key Vault Secrets Officer", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"),
}
"""Azure's built-in roles and their ids: "Azure built-in roles for Security" in Microsoft's documentation."""

AZURE_USERS: Final = ("cli", "powershell", "developer_cli")
"""The credentials of whoever is logged in by a command, mostly a user."""


def _azure(backend: SecretLookupMixin, wanted: Wanted, scope: _Scope) -> Policy:
    # "Secrets User" contains readMetadata besides getSecret, and thus listing.
    act = "write" if {"write", "delete"} & set(wanted.acts) else "read"
    role, role_id = AZURE_ROLES[act]
    # Without the type, az asks Microsoft Graph, which may not know a new identity yet. Whoever writes is mostly a user.
    is_user = act == "write" or backend.options["credential"] in AZURE_USERS
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


# Kubernetes.

RBAC: Final = "rbac.authorization.k8s.io"

SERVICE_ACCOUNT: Final = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
"""A pod's user name for the API server: its namespace and its service account."""


def _kubernetes(backend: SecretLookupMixin, wanted: Wanted, scope: _Scope) -> Policy:
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


_MAKERS: Final[dict[str, Callable[[Any, Wanted, _Scope], Policy]]] = {
    "aws_ssm": _ssm,
    "aws_secrets_manager": _secrets_manager,
    "hashicorp_vault": _vault,
    "gcp_secret_manager": _google,
    "azure_key_vault": _azure,
    "kubernetes_secrets": _kubernetes,
}
