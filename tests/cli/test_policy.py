"""``airflow-secrets policy``: what it allows is what a backend needs, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.cli.conftest import Command
from tests.rigs.aws import aws_client
from tests.rigs.openbao import ROOT_TOKEN, openbao
from tests.support import needs

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
AWS = ["--account", ACCOUNT, "--region", "eu-west-1"]


def allowed(document: str, action: str, resource: str, **context: str) -> bool:
    """Judge one request by IAM's rules for what these policies use: Allow, wildcards, StringLike.

    (moto judges these two services against ``*`` alone, and the evaluators on the package index that were tried do not
    import on these Pythons.)
    """

    def like(pattern: str, text: str) -> bool:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None

    def any_like(patterns: str | list[str], text: str) -> bool:
        return any(like(pattern, text) for pattern in ([patterns] if isinstance(patterns, str) else patterns))

    policy = json.loads(document)
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        condition = statement.get("Condition", {})
        assert set(condition) <= {"StringLike"}
        if (
            any_like(statement["Action"], action)
            and any_like(statement["Resource"], resource)
            and all(
                any_like(patterns, context.get(key.replace(":", "_", 1), ""))
                for key, patterns in condition.get("StringLike", {}).items()
            )
        ):
            return True
    return False


SSM = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:"


@pytest.mark.parametrize("account", ["12345678901", "12x", "123456789012; true", "", "*"])
def test_an_account_that_is_none_is_refused(command: Command, account: str) -> None:
    said = command("policy", "--backend", "aws_ssm", "--account", account)
    assert (said.code, "--account: must be the 12 digits of an account" in said.err, said.out) == (2, True, ""), (
        said.err
    )


@pytest.mark.parametrize(
    ("backend", "page"), [("aws_ssm", "aws-ssm.md"), ("aws_secrets_manager", "aws-secrets-manager.md")]
)
def test_the_policy_of_the_page_is_the_command_s(command: Command, backend: str, page: str) -> None:
    """But for the condition on the key."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split("## Least privilege")[1]
    (shown,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:1]
    key = "arn:aws:kms:eu-west-1:123456789098:key/KEY-ID"
    arguments = ["--account", "123456789098", "--region", "eu-west-1", "--kms-key", key, "--allow", "list"]
    said = command("policy", "--backend", backend, *arguments)

    def granted(document: str) -> list[tuple[list[str], list[str]]]:
        statements = json.loads(document)["Statement"]
        pairs = [(statement["Action"], statement["Resource"]) for statement in statements]
        return [([a] if isinstance(a, str) else a, [r] if isinstance(r, str) else r) for a, r in pairs]

    assert granted(shown) == granted(said.out), said.everything


def test_vaults_policy_of_the_page_is_the_command_s(command: Command) -> None:
    text = (ROOT / "docs" / "hashicorp-vault.md").read_text(encoding="utf-8").split("## Least privilege")[1]
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[:1]
    options = {"auth_type": "kubernetes", "kubernetes_role": "airflow"}
    vault = ["--backend", "hashicorp_vault", "--kwargs", json.dumps(options)]

    def granted(document: str) -> dict[str, str]:
        return dict(re.findall(r'path "(.+?)" \{\s*capabilities = (\[.*?\])\s*\}', document))

    to_read, _, to_list = shown.partition("#")
    reading, whole = command("policy", *vault), command("policy", *vault, "--allow", "list")
    assert granted(to_read) == granted(reading.out) != {}, reading.everything
    assert granted(to_read) | granted(to_list) == granted(whole.out), whole.everything


@pytest.mark.parametrize(
    ("backend", "options", "arguments", "action", "resource", "expected"),
    [
        ("aws_ssm", {}, [], "ssm:GetParameter", f"{SSM}/airflow/connections/db", True),
        ("aws_ssm", {}, [], "ssm:GetParameter", f"{SSM}/airflow/variables/a/b", True),
        ("aws_ssm", {}, [], "ssm:GetParameter", f"{SSM}/airflow/other/db", False),
        ("aws_ssm", {}, [], "ssm:GetParameter", f"{SSM}/airflow/connections2/db", False),
        (
            "aws_ssm",
            {},
            [],
            "ssm:GetParameter",
            f"{SSM.replace(ACCOUNT, '999999999999')}/airflow/connections/db",
            False,
        ),
        (
            "aws_ssm",
            {},
            [],
            "ssm:GetParameter",
            f"{SSM.replace('eu-west-1', 'eu-west-2')}/airflow/connections/db",
            False,
        ),
        ("aws_ssm", {}, [], "ssm:GetParametersByPath", f"{SSM}/airflow/connections", False),
        ("aws_ssm", {}, [], "ssm:PutParameter", f"{SSM}/airflow/connections/db", False),
        ("aws_ssm", {}, [], "kms:Decrypt", "*", False),
        ("aws_ssm", {"variables_prefix": None}, [], "ssm:GetParameter", f"{SSM}/airflow/variables/a", False),
        ("aws_ssm", {"connections_prefix": "team/conn"}, [], "ssm:GetParameter", f"{SSM}/team/conn/db", True),
        # A role's secrets are those of its own account, whoever assumes it.
        (
            "aws_ssm",
            {"role_arn": "arn:aws:iam::999999999999:role/x"},
            [],
            "ssm:GetParameter",
            f"{SSM.replace(ACCOUNT, '999999999999')}/airflow/connections/db",
            True,
        ),
        ("aws_ssm", {"region_name": "eu-west-2"}, [], "ssm:GetParameter", f"{SSM}/airflow/connections/db", True),
        ("aws_ssm", {"preload": ["connections"]}, [], "ssm:GetParametersByPath", f"{SSM}/airflow/connections", True),
        ("aws_ssm", {"preload": ["connections"]}, [], "ssm:GetParametersByPath", f"{SSM}/airflow/variables", False),
        ("aws_ssm", {}, ["--allow", "list"], "ssm:GetParametersByPath", f"{SSM}/airflow/variables", True),
        ("aws_ssm", {}, ["--allow", "list"], "ssm:GetParametersByPath", f"{SSM}/airflow", False),
        ("aws_ssm", {}, ["--allow", "write"], "ssm:PutParameter", f"{SSM}/airflow/connections/db", True),
        ("aws_ssm", {}, ["--allow", "write"], "ssm:PutParameter", f"{SSM}/other/db", False),
        ("aws_ssm", {}, ["--allow", "write"], "ssm:DeleteParameter", f"{SSM}/airflow/connections/db", False),
        ("aws_ssm", {}, ["--allow", "delete"], "ssm:DeleteParameter", f"{SSM}/airflow/connections/db", True),
        (
            "aws_secrets_manager",
            {},
            [],
            "secretsmanager:GetSecretValue",
            f"{SECRET}airflow/connections/db-AbC123",
            True,
        ),
        ("aws_secrets_manager", {}, [], "secretsmanager:GetSecretValue", f"{SECRET}airflow/other/db-AbC123", False),
        # Absent names are judged without the six characters: a denial would stand for "not found".
        ("aws_secrets_manager", {}, [], "secretsmanager:GetSecretValue", f"{SECRET}airflow/connections/absent", True),
        (
            "aws_secrets_manager",
            {},
            [],
            "secretsmanager:GetSecretValue",
            f"{SECRET}airflow/connections2/x-Ab12Cd",
            False,
        ),
        (
            "aws_secrets_manager",
            {},
            ["--allow", "delete"],
            "secretsmanager:DeleteSecret",
            f"{SECRET}airflow/connections/absent",
            True,
        ),
        (
            "aws_secrets_manager",
            {"connections_prefix": "arn:aws:secretsmanager:eu-central-1:210987654321:secret:theirs/connections"},
            [],
            "secretsmanager:GetSecretValue",
            "arn:aws:secretsmanager:eu-central-1:210987654321:secret:theirs/connections/db-AbC123",
            True,
        ),
        ("aws_secrets_manager", {}, [], "secretsmanager:ListSecrets", "*", False),
        ("aws_secrets_manager", {}, [], "secretsmanager:CreateSecret", f"{SECRET}airflow/connections/db", False),
        ("aws_secrets_manager", {}, ["--allow", "list"], "secretsmanager:ListSecrets", "*", True),
        (
            "aws_secrets_manager",
            {},
            ["--allow", "write"],
            "secretsmanager:CreateSecret",
            f"{SECRET}airflow/connections/db",
            True,
        ),
        (
            "aws_secrets_manager",
            {},
            ["--allow", "write"],
            "secretsmanager:DeleteSecret",
            f"{SECRET}airflow/connections/db-AbC123",
            False,
        ),
        ("aws_secrets_manager", {"preload": ["variables"]}, [], "secretsmanager:BatchGetSecretValue", "*", True),
    ],
)
def test_iam_allows_what_is_needed_and_nothing_else(
    command: Command,
    backend: str,
    options: dict[str, Any],
    arguments: list[str],
    action: str,
    resource: str,
    expected: bool,
) -> None:
    said = command("policy", "--backend", backend, "--kwargs", json.dumps(options), *AWS, *arguments)
    assert said.code == 0, said.everything
    assert allowed(said.out, action, resource) is expected, said.out


@pytest.mark.parametrize(
    ("options", "arguments", "region"),
    [
        ({"region_name": "eu-west-2"}, [], "eu-west-2"),
        ({"region_name": "eu-west-2"}, ["--region", "eu-west-1"], "eu-west-1"),
        ({}, [], "*"),
    ],
)
def test_a_region_is_that_of_the_options_unless_told(
    command: Command, options: dict[str, str], arguments: list[str], region: str
) -> None:
    said = command("policy", "--backend", "aws_ssm", "--kwargs", json.dumps(options), *arguments)
    assert f"arn:aws:ssm:{region}:*:parameter/airflow/connections/*" in said.out
    assert ("Name the region" in said.err) is (region == "*")


@pytest.mark.parametrize(
    ("backend", "act", "calls"),
    [
        ("aws_ssm", "write", ["PutParameter", "DescribeParameters on *"]),
        (
            "aws_secrets_manager",
            "write",
            ["CreateSecret", "DescribeSecret", "PutSecretValue", "UpdateSecret"],
        ),
        ("aws_secrets_manager", "list", ["BatchGetSecretValue on *", "ListSecrets on *"]),
    ],
)
def test_everything_that_an_act_calls_is_allowed_with_it(
    command: Command, backend: str, act: str, calls: list[str]
) -> None:
    service, named = ("ssm", f"{SSM}/airflow/") if backend == "aws_ssm" else ("secretsmanager", f"{SECRET}airflow/")
    read, acting = (command("policy", "--backend", backend, *AWS, *more).out for more in ([], ["--allow", act]))
    for call in calls:
        action, _, resource = call.partition(" on ")
        one = f"{service}:{action}", resource or f"{named}connections/db"
        assert (allowed(read, *one), allowed(acting, *one)) == (False, True), call


def test_a_customers_key_is_usable_for_these_secrets_alone(command: Command) -> None:
    key = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1"
    document = command("policy", "--backend", "aws_ssm", *AWS, "--kms-key", key).out
    fitting = {
        "kms_ViaService": "ssm.eu-west-1.amazonaws.com",
        "kms_EncryptionContext:PARAMETER_ARN": f"{SSM}/airflow/connections/db",
    }
    assert allowed(document, "kms:Decrypt", key, **fitting)
    assert not allowed(document, "kms:Decrypt", f"{key}2", **fitting)
    assert not allowed(document, "kms:Decrypt", key, **{**fitting, "kms_ViaService": "s3.eu-west-1.amazonaws.com"})
    assert not allowed(document, "kms:Decrypt", key, **{**fitting, "kms_EncryptionContext:PARAMETER_ARN": f"{SSM}/x"})
    # A standard parameter is encrypted by the key itself, an advanced one by a data key of it.
    to_write = command("policy", "--backend", "aws_ssm", *AWS, "--kms-key", key, "--allow", "write").out
    for action in ("kms:Encrypt", "kms:GenerateDataKey"):
        assert allowed(to_write, action, key, **fitting)
        assert not allowed(document, action, key, **fitting)


def test_a_customers_key_of_secrets_manager_is_usable_for_these_secrets_alone(command: Command) -> None:
    """Secrets Manager encrypts by data keys, under the complete ARN, with the six characters."""
    key = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1"
    arguments = ["--backend", "aws_secrets_manager", *AWS, "--kms-key", key]
    to_read, to_write = (command("policy", *arguments, *more).out for more in ([], ["--allow", "write"]))
    fitting = {
        "kms_ViaService": "secretsmanager.eu-west-1.amazonaws.com",
        "kms_EncryptionContext:SecretARN": f"{SECRET}airflow/connections/db-AbC123",
    }
    assert allowed(to_read, "kms:Decrypt", key, **fitting)
    for another in ("airflow/connections/db", "airflow/x-AbC123"):
        context = {**fitting, "kms_EncryptionContext:SecretARN": f"{SECRET}{another}"}
        assert not allowed(to_read, "kms:Decrypt", key, **context)
    assert [allowed(one, "kms:GenerateDataKey", key, **fitting) for one in (to_read, to_write)] == [False, True]
    assert not allowed(to_write, "kms:Encrypt", key, **fitting)


@pytest.mark.parametrize(
    ("backend", "action", "resource"),
    [
        ("aws_ssm", "ssm:GetParameter", f"{SSM}/airflow/connections/db"),
        ("aws_secrets_manager", "secretsmanager:GetSecretValue", f"{SECRET}airflow/connections/db-AbC123"),
    ],
)
def test_another_partition_is_in_every_arn(command: Command, backend: str, action: str, resource: str) -> None:
    document = command("policy", "--backend", backend, *AWS, "--partition", "aws-us-gov").out
    assert allowed(document, action, resource.replace("arn:aws:", "arn:aws-us-gov:"))
    assert not allowed(document, action, resource)


@pytest.mark.parametrize(
    ("options", "arguments", "role"),
    [
        ({}, ["--principal", "airflow-a"], "airflow-a"),
        ({"role_arn": f"arn:aws:iam::{ACCOUNT}:role/some/path/airflow-b"}, [], "airflow-b"),
        ({"role_arn": f"arn:aws:iam::{ACCOUNT}:role/airflow-c"}, ["--principal", "of-the-worker"], "airflow-c"),
        ({}, ["--principal", f"arn:aws:iam::{ACCOUNT}:role/airflow-d"], "airflow-d"),
        ({}, ["--principal", f"arn:aws-cn:iam::{ACCOUNT}:role/some/path/airflow-e"], "airflow-e"),
        ({}, ["--principal", f"arn:aws:sts::{ACCOUNT}:assumed-role/airflow-f/session"], "airflow-f"),
    ],
    ids=["principal", "role_arn", "both", "an ARN", "an ARN with a path", "a session's ARN"],
)
def test_aws_command_gives_the_policy_to_the_role(
    command: Command, options: dict[str, str], arguments: list[str], role: str
) -> None:
    """A policy that is created and attached to nobody allows nothing."""
    at = ["--backend", "aws_ssm", "--kwargs", json.dumps(options), *AWS, *arguments]
    words = shlex.split(command("policy", *at, "--commands").out)
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert (words[:3], given.pop("--policy-document")) == (["aws", "iam", "put-role-policy"], "file://policy.json")
    needs.module("moto", "demo")
    iam = aws_client("iam")
    iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    document = command("policy", *at).out
    for _ in range(2):  # a policy that was there is replaced
        iam.put_role_policy(RoleName=given["--role-name"], PolicyName=given["--policy-name"], PolicyDocument=document)
    held = iam.get_role_policy(RoleName=role, PolicyName="airflow-secrets")["PolicyDocument"]
    assert held == json.loads(document)
    assert f'role   = "{role}"' in command("policy", *at, "--terraform").out


def test_a_principal_that_is_no_role_is_refused_on_aws(command: Command) -> None:
    said = command("policy", "--backend", "aws_ssm", *AWS, "--principal", f"arn:aws:iam::{ACCOUNT}:user/someone")
    assert (said.code, said.out) == (2, "")
    assert f"--principal 'arn:aws:iam::{ACCOUNT}:user/someone' is no role; name one by its name or ARN." in said.err


def test_aws_role_that_is_unknown_is_a_placeholder(command: Command) -> None:
    at = ["--backend", "aws_ssm", *AWS]
    assert "--role-name '<principal>'" in command("policy", *at, "--commands").out
    assert 'role   = "<principal>"' in command("policy", *at, "--terraform").out


CONFIGURATIONS: list[tuple[str, dict[str, Any]]] = [
    ("aws_ssm", {"preload": ["connections"], "role_arn": "arn:aws:iam::1:role/x"}),
    ("aws_secrets_manager", {}),
    ("hashicorp_vault", {"auth_type": "approle", "role_id": "x", "secret_id": "x"}),
    ("gcp_secret_manager", {"project_id": "p"}),
    ("azure_key_vault", {"vault_url": "https://v.vault.azure.net"}),
    ("kubernetes_secrets", {"namespace": "airflow"}),
]


@pytest.mark.parametrize(("backend", "options"), CONFIGURATIONS, ids=[name for name, _ in CONFIGURATIONS])
@pytest.mark.parametrize(
    "acts", [[], ["--allow", "list", "--allow", "write", "--allow", "delete"]], ids=["read", "all"]
)
def test_terraform_parses(command: Command, backend: str, options: dict[str, Any], acts: list[str]) -> None:
    needs.test_module("hcl2")
    import hcl2

    said = command("policy", "--backend", backend, "--kwargs", json.dumps(options), "--terraform", *acts)
    assert said.code == 0, said.everything
    parsed = hcl2.loads(said.out)
    assert parsed["resource"]
    whole = command("policy", "--backend", backend, "--kwargs", json.dumps(options), "-o", "json", *acts).json
    assert whole["terraform"].strip() == said.out.strip()
    assert whole["commands"]
    both = command("policy", "--backend", backend, "--kwargs", json.dumps(options), "--terraform", "--commands", *acts)
    assert both.out == f"{said.out}{whole['commands']}\n"


@pytest.mark.parametrize(
    ("options", "data", "metadata"),
    [
        pytest.param({}, "secret/data", "secret/metadata", id="KV 2"),
        pytest.param({"mount_point": "policy-1", "kv_engine_version": 1}, "policy-1", "policy-1", id="KV 1"),
    ],
)
def test_vaults_policy_reads_and_everything_else_is_denied(
    command: Command, options: dict[str, Any], data: str, metadata: str
) -> None:
    server = openbao()
    server.engine("policy-1", 1)
    of_kv_2 = data != metadata
    written = {"data": {"value": "x"}} if of_kv_2 else {"value": "x"}
    for path in ("connections/db", "connections/deep/er", "variables/flag", "other/db"):
        server.api("POST", f"{data}/{path}", written)

    def status(token: str, method: str, path: str, body: Any = None) -> str:
        try:
            server.api(method, path, body, token)
        except AssertionError as error:
            return str(error).split(": ")[1][:3]
        return "done"

    def token_for(*acts: str) -> str:
        kwargs = {"url": "http://x", "auth_type": "approle", "role_id": "x", "secret_id": "x", **options}
        said = command("policy", "--backend", "hashicorp_vault", "--kwargs", json.dumps(kwargs), *acts)
        assert said.code == 0, said.everything
        server.api("POST", "sys/policies/acl/cli-policy", {"policy": said.out})
        made = server.api("POST", "auth/token/create", {"policies": ["cli-policy"]}, ROOT_TOKEN)
        return str(made["auth"]["client_token"])

    token = token_for()
    for path in ("connections/db", "connections/deep/er", "variables/flag"):
        assert status(token, "GET", f"{data}/{path}") == "done"
    denied = [
        ("GET", f"{data}/other/db"),
        ("LIST", f"{metadata}/connections"),
        ("POST", f"{data}/connections/db"),
        ("DELETE", f"{data}/connections/db"),
        ("GET", "sys/mounts"),
        ("GET", "sys/policies/acl"),
    ]
    if of_kv_2:
        denied.append(("GET", f"{metadata}/connections/db"))
    for method, path in denied:
        assert status(token, method, path, written if method == "POST" else None) == "403", (method, path)
    token = token_for("--allow", "list")
    assert status(token, "LIST", f"{metadata}/connections") == "done"
    assert status(token, "LIST", f"{metadata}/connections/deep") == "done"
    assert status(token, "LIST", f"{metadata}/other") == "403"
    assert status(token, "LIST", f"{metadata}/") == "403"
    token = token_for("--allow", "write")
    for path in ("connections/new", "connections/db"):  # one is created, the other written over
        assert status(token, "POST", f"{data}/{path}", written) == "done"
    assert status(token, "POST", f"{data}/other/new", written) == "403"
    assert status(token, "DELETE", f"{data}/connections/new") == "403"
    token = token_for("--allow", "delete")
    assert status(token, "DELETE", f"{data}/connections/new") == "done"
    assert status(token, "DELETE", f"{data}/other/db") == "403"


@pytest.mark.parametrize("path", ['a"b', "${b}", "${b", '${b"}', "%{b}", "$${b", "a*", "a+b", "é{b}", "a b"])
def test_vaults_policy_names_the_path_as_it_is(command: Command, path: str) -> None:
    """Quotes and templates of HCL are no syntax in it, whether Vault or Terraform reads the policy."""
    server = openbao()
    kwargs = {"url": "http://x", "token": "x", "connections_path": None, "variables_path": path, "config_path": None}
    at = ("--backend", "hashicorp_vault", "--kwargs", json.dumps(kwargs), "--allow", "write")
    policy = command("policy", *at)
    assert policy.code == 0, policy.everything
    server.api("POST", "sys/policies/acl/odd-path", {"policy": policy.out})
    token = server.api("POST", "auth/token/create", {"policies": ["odd-path"]})["auth"]["client_token"]
    named = quote(f"secret/data/{path}/x")
    server.api("POST", named, {"data": {"value": "x"}}, token)
    assert server.api("GET", named, token=token)["data"]["data"] == {"value": "x"}
    for other in ("a/x", "b/x", "abc/x"):
        with pytest.raises(AssertionError, match=": 403 "):
            server.api("POST", f"secret/data/{other}", {"data": {"value": "x"}}, token)
    terraform = command("policy", *at, "--terraform").out
    heredoc = terraform.partition("<<-EOT\n")[2].partition("  EOT\n")[0]
    assert textwrap.dedent(heredoc) == policy.out
    assert not re.search("[$%][{]", heredoc)


@pytest.mark.parametrize(
    "options",
    [
        {"variables_path": "a/+/b"},
        {"variables_path": "+"},
        {"variables_path": "a+*"},
        {"connections_path": ["a", "{{identity.entity.name}}"]},
        {"mount_point": "a}}"},
        {"mount_point": "+/kv"},
    ],
    ids=repr,
)
def test_a_path_that_a_policy_of_vaults_cannot_name_gets_none(command: Command, options: dict[str, Any]) -> None:
    """With ``+`` for a segment it would allow other paths as well, and with braces another one."""
    kwargs = json.dumps({"url": "http://x", "token": "x", **options})
    said = command("policy", "--backend", "hashicorp_vault", "--kwargs", kwargs)
    assert (said.code, said.out) == (2, ""), said.everything
    assert "No policy can name" in said.err
    assert "Vault reads '+' and '{{' as wildcards and templates" in said.err


def test_vaults_commands_take_names_as_they_are(command: Command) -> None:
    kwargs = {"auth_type": "approle", "role_id": "x", "auth_mount_point": "a $(b)", "namespace": "c;d"}
    at = ("--backend", "hashicorp_vault", "--kwargs", json.dumps(kwargs))
    first, *_, last = command("policy", *at, "--commands").out.splitlines()
    assert shlex.split(first) == ["export", "VAULT_NAMESPACE=c;d"]
    assert shlex.split(last)[-1] == "auth/a $(b)/role/airflow-secrets/secret-id"
    assert "$(b)" not in re.sub("'[^']*'", "", last)
    kwargs["auth_mount_point"] = 'a"${b}'
    terraform = command("policy", *at[:3], json.dumps(kwargs), "--terraform").out
    assert 'backend        = "a\\"\\u0024{b}"' in terraform


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"auth_type": "token", "token": "x"}, "vault token create -policy=airflow-secrets -period=24h"),
        (
            {"auth_type": "kubernetes", "kubernetes_role": "x"},
            "vault write auth/kubernetes/role/<role> token_policies=airflow-secrets token_ttl=1h",
        ),
        (
            {"auth_type": "aws_iam", "role_id": "x"},
            "vault write auth/aws/role/<role> token_policies=airflow-secrets token_ttl=1h",
        ),
        (
            {"auth_type": "aws_iam", "role_id": "x", "auth_mount_point": "aws-2"},
            "vault write auth/aws-2/role/<role> token_policies=airflow-secrets token_ttl=1h",
        ),
        (
            {"auth_type": "ldap", "username": "x", "password": "x"},
            "# Attach the policy airflow-secrets to whoever logs in by ldap at auth/ldap.",
        ),
    ],
    ids=["token", "kubernetes", "aws_iam", "aws_iam at another mount", "ldap"],
)
def test_vaults_policy_is_given_to_whoever_logs_in(command: Command, options: dict[str, str], last: str) -> None:
    said = command("policy", "--backend", "hashicorp_vault", "--kwargs", json.dumps(options), "--commands")
    assert said.out.splitlines() == ["vault policy write airflow-secrets policy.hcl", last], said.everything


def test_what_cannot_be_scoped_is_said(command: Command) -> None:
    said = command("policy", "--backend", "aws_ssm", "--allow", "list")
    assert "A listing decrypts what it lists" in said.err
    said = command("policy", "--backend", "aws_secrets_manager", "--allow", "list")
    assert "Listing shows the names and descriptions of all secrets of the account" in said.err
    said = command(
        "policy", "--backend", "gcp_secret_manager", "--kwargs", '{"project_id": "p"}', "--project-number", "12"
    )
    (binding,) = json.loads(said.out)["bindings"]
    assert 'startsWith("projects/12/secrets/airflow-connections-")' in binding["condition"]["expression"]
    regional = '{"project_id": "p", "location": "europe-west3"}'
    said = command("policy", "--backend", "gcp_secret_manager", "--kwargs", regional, "--project-number", "12")
    assert "projects/12/locations/europe-west3/secrets/airflow-connections-" in said.out
    said = command("policy", "--backend", "azure_key_vault", "--kwargs", '{"vault_url": "https://v.vault.azure.net"}')
    assert "never to a prefix" in said.err


def test_google_s_roles_are_narrowed_to_the_prefixes_where_google_can(command: Command) -> None:
    """Creating and listing are judged on the project, whose name no prefix starts; all else on the secret."""
    at = ("policy", "--backend", "gcp_secret_manager", "--kwargs", '{"project_id": "p"}')
    said = command(*at, *(word for act in ("list", "write", "delete") for word in ("--allow", act)))
    bindings = json.loads(said.out)["bindings"]
    assert {binding["role"]: "condition" in binding for binding in bindings} == {
        "roles/secretmanager.secretAccessor": True,
        "roles/secretmanager.secretVersionAdder": True,
        "projects/p/roles/airflowSecretsDeleter": True,
        "projects/p/roles/airflowSecretsCreator": False,
        "projects/p/roles/airflowSecretsLister": False,
    }


# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/security
SECRETS_USER, SECRETS_OFFICER = "4633458b-17de-408a-b874-0445c86b69e6", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"


@pytest.mark.parametrize(
    ("acts", "role"),
    [([], SECRETS_USER), (["list"], SECRETS_USER), (["write"], SECRETS_OFFICER), (["delete"], SECRETS_OFFICER)],
    ids=["read", "list", "write", "delete"],
)
def test_azures_role_holds_what_is_to_be_allowed(command: Command, acts: list[str], role: str) -> None:
    allow = [word for act in acts for word in ("--allow", act)]
    said = command("policy", "--backend", "azure_key_vault", "--kwargs", '{"vault_url": "https://v"}', *allow)
    assert said.code == 0, said.everything
    assert json.loads(said.out)["properties"]["roleDefinitionId"].endswith(f"/roleDefinitions/{role}")


@pytest.mark.parametrize(
    ("options", "acts", "verbs"),
    [
        ({}, [], ["list"]),
        ({"connections_label": "", "variables_label": "", "config_label": ""}, [], ["get"]),
        ({"connections_label": ""}, ["write", "delete"], ["get", "list", "create", "patch", "delete"]),
    ],
    ids=["by label", "by name", "everything"],
)
def test_kubernetes_role_allows_what_a_lookup_asks(
    command: Command, options: dict[str, Any], acts: list[str], verbs: list[str]
) -> None:
    kwargs = json.dumps({"namespace": "airflow", **options})
    allowing = [argument for act in acts for argument in ("--allow", act)]
    said = command("policy", "--backend", "kubernetes_secrets", "--kwargs", kwargs, "--principal", "worker", *allowing)
    role, binding = yaml.safe_load_all(said.out)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "worker", "namespace": "airflow"}]
    assert ("cannot narrow" in said.err) is ("list" in verbs)


def test_kubernetes_policy_is_the_page_s(command: Command) -> None:
    """For Secrets in one namespace and pods in another."""
    page = (ROOT / "docs" / "kubernetes-secrets.md").read_text(encoding="utf-8").split("## Least privilege")[1]
    asking = [
        "--kwargs",
        '{"namespace": "airflow-secrets"}',
        "--principal",
        "system:serviceaccount:airflow:airflow-worker",
    ]
    said = command("policy", "--backend", "kubernetes_secrets", *asking)
    assert said.out.strip() == page.split("```yaml\n")[1].split("```")[0].strip()
    said = command("policy", "--backend", "kubernetes_secrets", "--terraform", *asking)
    assert said.out.strip() == page.split("```terraform\n")[1].split("```")[0].strip()


@pytest.mark.parametrize(
    ("backend", "options", "word"),
    [
        ("azure_key_vault", {"vault_url": "https://v.vault.azure.net"}, "{}"),
        ("gcp_secret_manager", {"project_id": "p"}, "--member={}"),
    ],
)
def test_a_quote_in_a_principal_ends_no_word_of_a_command(
    command: Command, backend: str, options: dict[str, str], word: str
) -> None:
    principal = "o'x; echo '"
    said = command(
        "policy", "--backend", backend, "--kwargs", json.dumps(options), "--principal", principal, "--commands"
    )
    assert word.format(principal) in shlex.split(said.out, comments=True)


@pytest.mark.parametrize(
    ("options", "allow", "told"),
    [
        ({}, [], True),
        ({"credential": "managed_identity"}, ["--allow", "list"], True),
        ({"credential": "cli"}, [], False),
        ({}, ["--allow", "write"], False),
        ({}, ["--allow", "delete"], False),
    ],
)
def test_azures_command_names_the_type_of_airflows_own_principal(
    command: Command, options: dict[str, str], allow: list[str], *, told: bool
) -> None:
    kwargs = json.dumps({"vault_url": "https://v.vault.azure.net", **options})
    said = command("policy", "--backend", "azure_key_vault", "--kwargs", kwargs, *allow, "--commands")
    assert ("--assignee-principal-type ServicePrincipal --scope" in said.out) == told, said.everything


def test_azures_command_is_one_command_with_placeholders_too(command: Command) -> None:
    """A shell would take ``<principal>`` for the name of a file to read."""
    at = ("--backend", "azure_key_vault", "--kwargs", '{"vault_url": "https://v.vault.azure.net"}')
    words = shlex.split(command("policy", *at, "--commands").out, comments=True)
    assert words[words.index("--assignee-object-id") + 1] == "<principal>"
    assert words[words.index("--scope") + 1] == "<key-vault-resource-id>"
    assert "'<principal>'" in command("policy", *at, "--commands").out
    given = {"principalId": "11111111-2222", "scope": "/subscriptions/1/vault"}
    told = command("policy", *at, "--principal", given["principalId"], "--vault-id", given["scope"], "-o", "json").json
    properties = json.loads(told["text"])["properties"]
    assert {name: properties[name] for name in given} == given
    assert all(f'"{value}"' in told["terraform"] and value in told["commands"] for value in given.values())
