"""The command and chains: each member is checked, explained and granted rights; two members are copied between."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends.chain import ChainBackend
from tests.cli.conftest import Command, connecting, path_of, prefixes
from tests.rigs import Rig
from tests.rigs.chain import short_name
from tests.rigs.openbao import openbao

PAGE = (Path(__file__).parents[2] / "docs" / "chain.md").read_text(encoding="utf-8")


def member(rig: Rig, base: str, entry: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    kwargs = {**connecting(rig), **prefixes(rig, base), **options}
    return {"backend": short_name(rig), "kwargs": kwargs, **(entry or {})}


def chain(*members: dict[str, Any]) -> list[str]:
    return ["--backend", "chain", "--kwargs", json.dumps({"backends": members})]


def roles(explained: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    return [(one["name"], one["role"], one["reason"]) for one in explained["members"]]


def test_check_tells_of_every_member(command: Command, rig: Rig, ssm: Rig, base: str, tmp_path: Path) -> None:
    absent = {"backend": "file", "kwargs": {"variables_file_path": f"{tmp_path}/absent.json"}, "optional": True}
    ssm.put(path_of(ssm, base, "variables", "x"), "S3cr3t")
    at = chain({"backend": "env"}, absent, member(rig, base), member(ssm, base))
    said = command("check", "--variable", "x", *at)
    assert said.code == 0, said.everything
    titles = ["member 1 (env)", "member 2 (file), optional", f"member 3 ({short_name(rig)})", "member 4 (aws_ssm)"]
    assert re.findall(r"^member .*$", said.out, re.MULTILINE) == titles
    assert said.out.count("may read") == 6
    assert "absent.json' cannot be read" in said.out
    assert re.search(r"variable 'x': member \d \(\w+\) answers", said.out)
    assert said.out.endswith("\nhealthy\n")
    report = command("check", *at, "-o", "json").json
    assert [one["name"] for one in report["members"]] == ["env", "file", short_name(rig), "aws_ssm"]
    assert "absent.json' cannot be read" in json.dumps(report["members"][1]["findings"])
    assert report["members"][3]["store"] == "AWS SSM Parameter Store"
    (source,) = {one["source"] for one in report["members"][3]["options"]} - {"default"}
    assert source == "--kwargs, member 4 (aws_ssm)"
    assert report["verdict"] == "healthy"
    assert "S3cr3t" not in said.everything


@pytest.mark.parametrize(
    ("teams", "pattern", "line", "told"),
    [
        ("False", "x--", "get var x--y --show-value", None),
        ("True", "y", "get var y --team x --show-value", "but by team x, as 'y'"),
    ],
)
def test_an_id_is_matched_as_a_lookup_matches_it(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, teams: str, pattern: str, line: str,
    told: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", teams)
    ssm.put(path_of(ssm, base, "variables", "x--y"), "1")
    at = [*chain(member(ssm, base, {"variables": pattern})), "--member", "1"]
    assert command(*line.split(), *at).out == "1\n"
    (listed,) = command("list", "var", *at, "-o", "json").json
    assert (listed["id"], listed["not_looked_up"]) == ("x--y", told)


def test_a_value_that_is_no_connection_is_masked(command: Command, tmp_path: Path) -> None:
    """Airflow's own reader of files makes a connection of it, whose schema is all of it but the first letter."""
    path = tmp_path / "connections.json"
    path.write_text('{"db": "TheS3cr3t"}')
    said = command("get", "conn", "db", *chain({"backend": "file", "kwargs": {"connections_file_path": str(path)}}))
    assert said.code == 0, said.everything
    assert "S3cr3t" not in said.everything


def test_a_variable_that_is_no_text_is_shown_and_copied_as_json(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    """Airflow's own reader of files returns what JSON makes of it (of a list of one, Airflow 2 returns the one)."""
    path, names = tmp_path / "variables.json", tmp_path / "names"
    path.write_text('{"number": 5, "object": {"a": "S3cr3t"}}')
    at = chain({"backend": "file", "kwargs": {"variables_file_path": str(path)}})
    for key, text in {"number": "5", "object": '{"a": "S3cr3t"}'}.items():
        said = command("get", "var", key, "--show-value", *at)
        assert (said.code, said.out) == (0, f"{text}\n"), said.everything
        assert command("get", "var", key, "--show-value", *at, "-o", "json").json["value"] == text
        assert command("get", "var", key, *at).out == "***\n"
    names.write_text("number\nobject\n")
    source = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    kwargs = json.dumps({"variables_file_path": str(path)})
    said = command(
        *("copy", "--from", source, "--from-kwargs", kwargs, "--names", str(names), "--kind", "var", "--apply"),
        *("--to", ssm.class_path, "--to-kwargs", json.dumps({**connecting(ssm), **prefixes(ssm, base)})),
        *("--journal", str(tmp_path / "journal"), "-o", "json"),
    )
    assert [(one["id"], one["state"]) for one in said.json] == [("number", "created"), ("object", "created")]


def test_a_fault_of_one_member_is_a_fault_of_the_chain(command: Command, rig: Rig, base: str) -> None:
    at = chain({"backend": "env"}, member(rig, base, max_attempts=1))
    with rig.fault("denied"):
        said = command("check", "--variable", "x", *at)
    assert (said.code, "unhealthy: 4 faults" in said.out) == (3, True), said.everything
    assert f"variable 'x': member 2 ({short_name(rig)}): " in said.out


def test_explain_says_which_member_answers_and_why_the_others_do_not(
    command: Command, rig: Rig, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"{base}-other"
    monkeypatch.setenv("AIRFLOW_VAR_BOTH", "S3cr3t")
    rig.put(path_of(rig, base, "variables", "both"), "S3cr3t")
    ssm.put(path_of(ssm, other, "variables", "both"), "S3cr3t")
    ssm.put(path_of(ssm, other, "variables", "second"), "S3cr3t")
    at = chain(member(ssm, base, {"variables": "prod_"}), member(rig, base), member(ssm, other))
    explain = ["explain", "var", "--no-metastore", *at]
    name = short_name(rig)
    unasked = ("aws_ssm", "skipped", "the id does not match its pattern 'variables'")

    said = command(*explain, "both", "-o", "json")
    assert roles(said.json) == [
        unasked,
        (name, "answers", None),
        ("aws_ssm", "shadowed", f"member 2 ({name}) answers"),
    ]
    assert said.json["winner"] == f"member 2 ({name})"
    assert said.json["shadowed"] == ["member 3 (aws_ssm)", "environment"]
    text = command(*explain, "both").out
    assert "member 1 (aws_ssm): skipped: the id does not match its pattern 'variables'" in text
    assert text.endswith(f"from: member 2 ({name}), which shadows member 3 (aws_ssm) and environment.\n")

    said = command(*explain, "second", "-o", "json")
    assert roles(said.json) == [unasked, (name, "has none", None), ("aws_ssm", "answers", None)]
    said = command(*explain, "nowhere")
    assert (said.code, said.out.splitlines()[-1]) == (1, "    What is there: airflow-secrets list var --member 2 or 3.")
    assert command("list", "var", "--member", "2", *at).code == 0
    assert "S3cr3t" not in said.everything + text


@pytest.mark.parametrize("optional", [False, True], ids=["stops", "optional"])
def test_explain_says_whose_failure_ends_the_lookup(
    command: Command, rig: Rig, base: str, tmp_path: Path, optional: bool
) -> None:
    (tmp_path / "v.json").write_text('{"x": "S3cr3t"}')
    file = {"backend": "file", "kwargs": {"variables_file_path": f"{tmp_path}/v.json"}}
    at = chain(member(rig, base, {"optional": optional}, max_attempts=1), file)
    with rig.fault("denied"):
        said = command("explain", "var", "x", "--no-metastore", *at, "-o", "json")
    first, second = said.json["members"]
    assert first["outcome"] == "denied"
    if optional:
        assert (said.code, first["role"], second["role"]) == (0, "passed over", "answers"), said.everything
        assert said.json["winner"] == "member 2 (file)"
    else:
        assert (said.code, first["role"], second["role"]) == (3, "ends the lookup", "not asked"), said.everything
        assert second["reason"] == f"member 1 ({short_name(rig)}) failed"
        assert said.json["winner"] is None
    assert "S3cr3t" not in said.everything


def test_explain_of_a_value_that_airflow_cannot_use(command: Command, ssm: Rig, base: str) -> None:
    ssm.put(path_of(ssm, base, "connections", "faulty"), "S3cr3t-value")
    said = command("explain", "conn", "faulty", "--no-metastore", *chain({"backend": "env"}, member(ssm, base)))
    assert (said.code, "member 2 (aws_ssm): ends the lookup" in said.out) == (3, True), said.everything
    assert "S3cr3t" not in said.everything


def test_explain_names_what_is_near_in_any_member_that_is_asked(
    command: Command, rig: Rig, ssm: Rig, base: str
) -> None:
    rig.put(path_of(rig, base, "variables", "prod-smtp"), "S3cr3t")
    rig.put(path_of(rig, base, "variables", "prd-smtp"), "S3cr3t")
    ssm.put(path_of(ssm, f"{base}-other", "variables", "prod-smtp2"), "S3cr3t")
    at = chain({"backend": "env"}, member(rig, base, {"variables": "prod"}), member(ssm, f"{base}-other"))
    said = command("explain", "var", "prod-smpt", "--no-metastore", "-o", "json", *at)
    assert (said.code, said.json["near"]) == (1, ["prod-smtp", "prod-smtp2"]), said.everything
    said = command("explain", "var", "prod-smpt", "--no-metastore", "--member", "2", *at)
    assert "Did you mean 'prod-smtp'?" in said.out, said.everything


def test_explain_of_the_member_env(command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_X", "http://S3cr3t")
    at = chain({"backend": "env"}, member(ssm, base))
    said = command("explain", "conn", "x", "--no-metastore", "-o", "json", *at)
    assert (said.json["winner"], said.json["shadowed"]) == ("member 1 (env)", [])
    assert "S3cr3t" not in said.everything


def test_policy_of_every_member(command: Command, ssm: Rig, secrets_manager: Rig) -> None:
    at = chain({"backend": "env"}, member(ssm, "first"), member(secrets_manager, "second"))
    said = command("policy", "--account", "123456789012", *at)
    assert said.code == 0, said.everything
    _, first, second = re.split(r"^# member \d \(\w+\)\n", said.out, flags=re.MULTILINE)
    assert json.loads(first)["Statement"][0]["Action"] == ["ssm:GetParameter"]
    assert json.loads(second)["Statement"][0]["Action"] == ["secretsmanager:GetSecretValue"]
    assert "member 1 (env): no policy" in said.err
    both = command("policy", "-o", "json", *at).json
    assert list(both) == ["member 2 (aws_ssm)", "member 3 (aws_secrets_manager)"]
    one = command("policy", "--member", "3", *at)
    assert "secretsmanager" in one.out
    assert "#" not in one.out


def test_list_says_what_the_chain_does_not_ask_a_member_for(command: Command, rig: Rig, base: str) -> None:
    for secret_id in ("proddb", "testdb"):
        rig.put(path_of(rig, base, "variables", secret_id), "S3cr3t")
    at = chain({"backend": "env"}, member(rig, base, {"variables": "^prod"}))
    said = command("list", "var", "--member", "2", "-o", "json", *at)
    assert {one["id"]: one["not_looked_up"] for one in said.json} == {
        "proddb": None,
        "testdb": "the id does not match its pattern 'variables'",
    }, said.everything


def test_copy_leaves_alone_what_the_chain_does_not_ask_a_member_for(
    command: Command, ssm: Rig, secrets_manager: Rig, base: str, tmp_path: Path
) -> None:
    for secret_id in ("proddb", "testdb"):
        ssm.put(path_of(ssm, base, "variables", secret_id), "S3cr3t")
    patterned = json.dumps({"backends": [member(ssm, base, {"variables": "^prod"})]})
    whole = json.dumps(member(ssm, base)["kwargs"])
    other = json.dumps(member(secrets_manager, base)["kwargs"])
    of_member = ["--from", "chain", "--from-kwargs", patterned, "--from-member", "1"]
    to_other = ["--to", "aws_secrets_manager", "--to-kwargs", other, "--kind", "var", "-o", "json"]

    said = command("copy", *of_member, *to_other)
    assert {one["id"]: one["state"] for one in said.json} == {"proddb": "create"}, said.everything
    (tmp_path / "names").write_text("var:testdb\n")
    said = command("copy", *of_member, *to_other, "--names", f"{tmp_path}/names")
    (row,) = said.json
    assert (said.code, row["state"]) == (1, "invalid"), said.everything
    assert row["reason"].endswith("does not ask this member: the id does not match its pattern 'variables'")

    to_member = ["--to", "chain", "--to-kwargs", patterned, "--to-member", "1", "--kind", "var", "-o", "json"]
    said = command("copy", "--from", "aws_ssm", "--from-kwargs", whole, *to_member)
    assert {one["id"]: one["state"] for one in said.json} == {"proddb": "same", "testdb": "invalid"}, said.everything
    assert "S3cr3t" not in said.everything


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "chain", "--to", "aws_ssm", "--from-member", "1"], "--from env"),
        (["--from", "chain", "--to", "aws_ssm", "--from-member", "3"], "--from-member takes 1 to 2"),
        (["--from", "env", "--to", "aws_ssm", "--from-member", "1"], "--from-member is for chains"),
        (["--from", "env", "--to", "aws_ssm", "--to-member", "1"], "--to-member is for chains"),
        (["--from", "env", "--to", "chain", "--to-member", "1"], "name another member with --to-member N"),
        (["--from", "env", "--to", "chain"], "name one with --to-member N: 1 env, 2 aws_ssm"),
    ],
)
def test_a_wrong_member_of_a_copy_ends_in_one_line(
    command: Command, ssm: Rig, base: str, arguments: list[str], says: str
) -> None:
    kwargs = json.dumps({"backends": [{"backend": "env"}, member(ssm, base)]})
    for end in ("from", "to"):
        if "chain" in arguments and arguments[arguments.index("chain") - 1] == f"--{end}":
            arguments = [*arguments, f"--{end}-kwargs", kwargs]
    said = command("copy", *arguments)
    assert (said.code, says in said.err, said.err.count("\n")) == (2, True, 1), said.everything


def test_the_page_moves_secrets_between_two_members(
    command: Command,
    ssm: Rig,
    secrets_manager: Rig,
    base: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its configuration and its commands, on the rigs' servers."""
    section = PAGE.partition("\n## Moving from one store to another\n")[2].partition("\n## ")[0]
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(re.findall(r"^```ini\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0])
    entries = json.loads(parser["secrets"]["backend_kwargs"])["backends"]
    by_name = {"aws_ssm": ssm, "aws_secrets_manager": secrets_manager}
    for entry in entries:
        entry["kwargs"] = {**member(by_name[entry["backend"]], base)["kwargs"], "cache_ttl": 0}
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", parser["secrets"]["backend"])
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps({"backends": entries}))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    ssm.put(path_of(ssm, base, "connections", "db"), "http://S3cr3t@db")
    ssm.put(path_of(ssm, base, "variables", "flag"), "S3cr3t")
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    dry, apply = (shlex.split(line)[1:] for line in lines)
    assert "--apply" not in dry

    said = command(*dry, "-o", "json")
    assert (said.code, {one["state"] for one in said.json}) == (0, {"create"}), said.everything
    assert secrets_manager.backend(**entries[0]["kwargs"]).get_variable("flag") is None
    said = command(*apply, "-o", "json")
    assert (said.code, {one["id"]: one["state"] for one in said.json}) == (0, {"db": "created", "flag": "created"})
    said = command(*dry, "-o", "json")
    assert (said.code, {one["state"] for one in said.json}) == (0, {"same"}), said.everything
    with ssm.counted() as asked_old:
        backend = ChainBackend(backends=entries)
        assert (backend.get_variable("flag"), backend.get_connection("db").host) == ("S3cr3t", "db")
    assert asked_old == []
    assert "S3cr3t" not in said.everything


def test_a_kind_that_a_member_is_never_asked_for_is_neither_checked_nor_granted(command: Command) -> None:
    """Its token may read variables alone, which is all that the chain needs."""
    server = openbao()
    rules = 'path "secret/data/variables/*" {\n  capabilities = ["read"]\n}\n'
    server.api("POST", "sys/policies/acl/variables-alone", {"policy": rules})
    made = server.api("POST", "auth/token/create", {"policies": ["variables-alone"], "no_default_policy": True})
    kwargs = {
        "url": f"http://127.0.0.1:{server.port}",
        "token": made["auth"]["client_token"],
        "preload": ["connections"],
        "cache_ttl": 60,
    }
    entry = {"backend": "hashicorp_vault", "connections": None, "config": None, "kwargs": kwargs}
    at = chain(entry, {"backend": "env"})
    for member_alone in ([], ["--member", "1"]):
        said = command("check", *at, *member_alone)
        assert (said.code, said.out.count("✗")) == (0, 0), said.everything
        assert "✓ variables: may read" in said.out
        assert "connections: its 'connections' is null, so it is never asked for connections" in said.out
        granted = command("policy", *at, *member_alone)
        assert (granted.code, "secret/data/variables/*" in granted.out) == (0, True), granted.everything
        assert "connections" not in granted.out
        assert "config" not in granted.out
    off = {**entry, "variables": None}
    said = command("policy", *chain(off, {"backend": "aws_ssm"}))
    assert (said.code, "# member 2 (aws_ssm)" in said.out) == (0, True), said.everything
    assert "# member 1 (hashicorp_vault): no policy; it is never asked for anything" in said.err


@pytest.mark.parametrize(
    ("backend", "kwargs"),
    [
        ("aws_ssm", {}),
        ("aws_secrets_manager", {}),
        ("hashicorp_vault", {"url": "http://x", "auth_type": "approle", "role_id": "x", "secret_id": "x"}),
        ("gcp_secret_manager", {"project_id": "p"}),
        ("azure_key_vault", {"vault_url": "https://v.vault.azure.net"}),
        ("kubernetes_secrets", {"namespace": "airflow"}),
    ],
)
def test_the_policies_of_two_members_can_be_applied_together(
    command: Command, backend: str, kwargs: dict[str, Any]
) -> None:
    entry = {"backend": backend, "kwargs": kwargs}
    allow = [word for act in ("list", "write", "delete") for word in ("--allow", act)]
    said = command("policy", "--terraform", *allow, *chain(entry, entry))
    assert said.code == 0, said.everything
    blocks = re.findall(r'^resource "(\w+)" "(\w+)"', said.out, re.MULTILINE)
    assert blocks
    assert len(set(blocks)) == len(blocks)
    first, second = re.split(r"^# member \d \(\w+\)\n", said.out, flags=re.MULTILINE)[1:]
    # What the blocks create has different names as well.
    named = re.compile(r'^ +(?:name|role_id|role_name|title) += "(?!<)(.*)"$', re.MULTILINE)
    assert not {*named.findall(first)} & {*named.findall(second)}
    commands = command("policy", "--commands", *chain(entry, entry)).out
    assert "airflow-secrets policy.hcl" not in commands
    assert "--policy-name airflow-secrets " not in commands


@pytest.mark.parametrize("backend", ["aws_ssm", "aws_secrets_manager"])
def test_the_arns_are_of_the_account_whose_role_is_assumed(command: Command, backend: str) -> None:
    role = "arn:aws:iam::210987654321:role/reader"
    at = chain({"backend": backend, "kwargs": {"role_arn": role}}, {"backend": backend})
    said = command("policy", "--account", "123456789012", *at)
    assert said.code == 0, said.everything
    first, second = re.split(r"^# member \d \(\w+\)\n", said.out, flags=re.MULTILINE)[1:]
    assert ("210987654321" in first, "123456789012" in first) == (True, False)
    assert ("210987654321" in second, "123456789012" in second) == (False, True)
    said = command("policy", "--backend", backend, "--kwargs", json.dumps({"role_arn": role}))
    assert "Name the account" not in said.err


def test_get_asks_a_member_that_is_no_store(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", "postgres://u:S3cr3t@h")
    (tmp_path / "v.json").write_text('{"key": "S3cr3t", "number": 5}')
    file = {"backend": "file", "kwargs": {"variables_file_path": f"{tmp_path}/v.json"}}
    at = chain({"backend": "env"}, file)
    said = command("get", "conn", "db", "--field", "host", "--member", "1", *at)
    assert (said.code, said.out) == (0, "h\n"), said.everything
    said = command("get", "var", "number", "--show-value", "--member", "2", *at)
    assert (said.code, said.out) == (0, "5\n"), said.everything
    said = command("get", "var", "key", "--member", "1", *at)
    assert (said.code, said.err) == (1, "airflow-secrets get: env does not hold 'key'.\n")
    said = command("get", "conn", "db", "--member", "2", *at)
    told = "file is not asked for 'db': this backend does not look up connections."
    assert (said.code, said.err) == (2, f"airflow-secrets get: {told}\n")
    (tmp_path / "v.json").write_text('{"key": "S3cr3t"')
    said = command("get", "var", "key", "--member", "2", *at)
    assert (said.code, said.err.count("\n"), "unexpected" in said.err) == (3, 1, False), said.everything
    assert "S3cr3t" not in said.everything


@pytest.mark.parametrize("line", ["list var", "put var x", "delete var x --yes", "explain var x", "check", "policy"])
def test_a_member_that_is_no_store_is_told_with_fitting_advice(command: Command, line: str) -> None:
    said = command(*line.split(), "--member", "1", *chain({"backend": "env"}, {"backend": "aws_ssm"}))
    told = "member 1 (env) is not one of this package's stores; name another member with --member N."
    assert (said.code, told in said.err, said.err.count("\n")) == (2, True, 1), said.everything


def test_get_of_a_member_of_another_package_tells_its_failure_by_class(command: Command) -> None:
    path = f"{Quoting.__module__}.{Quoting.__qualname__}"
    said = command("get", "conn", "db", "--member", "1", *chain({"backend": path}))
    assert (said.code, "LookupError" in said.err, "unexpected" in said.err) == (3, True, False), said.everything
    assert "S3cr3t" not in said.everything


class Quoting(BaseSecretsBackend):
    """Another package's backend whose failure quotes the secret."""

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        raise LookupError("S3cr3t")
