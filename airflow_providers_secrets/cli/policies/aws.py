"""AWS IAM: an inline policy of a role."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from airflow_providers_secrets.cli.policies.base import Policy, Scope, Wanted, hcl_string
from airflow_providers_secrets.errors import ConfigurationError, quoted

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin


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
        f'resource "aws_iam_role_policy" "{wanted.label}" {{\n  name   = "{wanted.name}"\n'
        f"  role   = {hcl_string(role)}\n  policy = <<-EOT\n"
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


def ssm_policy(backend: SecretLookupMixin, wanted: Wanted, scope: Scope) -> Policy:
    """Return the policy for AWS SSM Parameter Store."""
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


def secrets_manager_policy(backend: SecretLookupMixin, wanted: Wanted, scope: Scope) -> Policy:
    """Return the policy for AWS Secrets Manager."""
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
