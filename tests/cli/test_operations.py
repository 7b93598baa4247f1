"""Each subcommand on every store: what it prints, how it ends, and that no value leaks."""

from __future__ import annotations

import datetime as dt
import functools
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_providers_secrets.cli import findings, main, output
from airflow_providers_secrets.cli.exits import CLOSED_PIPE
from airflow_providers_secrets.lookup import answers, inventory
from airflow_providers_secrets.lookup.connection_text import fields_of
from airflow_providers_secrets.testing.lookups import Waits
from tests.cli.conftest import CONNECTION, Command, path_of, prefixes, using
from tests.rigs import Rig
from tests.rigs.aws import SecretsManagerRig, SsmRig
from tests.rigs.google import GoogleRestRig
from tests.rigs.vault import VaultRig
from tests.support.airflow_process import PACKAGE_ROOT, VERSION

SECRET = "S3cr3t"
PAGE = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")


@pytest.fixture
def at(rig: Rig, base: str) -> list[str]:
    """The arguments that name the rig's backend, under prefixes of this test's own."""
    return using(rig, **prefixes(rig, base))


def test_a_store_that_answers_is_healthy(command: Command, rig: Rig, at: list[str]) -> None:
    said = command("check", *at)
    assert said.code == 0, said.everything
    assert said.out.endswith("healthy\n")
    assert said.out.count("may read") == 3
    assert "✗" not in said.out
    if rig.extra in {"google", "aws", "vault", "azure"}:  # Azure's by the bundle that the options name
        assert "clock: within" in said.out
    report = command("check", *at, "-o", "json").json
    assert report["verdict"] == "healthy"
    assert "apache-airflow" in report["versions"]
    for option in report["options"]:
        if option["option"] in ("aws_secret_access_key", "secret_id", "token", "password", "client_secret"):
            assert option["value"] == "***", option


def test_check_shows_no_credential(command: Command, rig: Rig, at: list[str]) -> None:
    hidden = [
        value
        for name, value in rig.options().items()
        if isinstance(value, str) and any(word in name for word in ("secret", "token", "password", "keyfile"))
    ]
    said = command("check", *at)
    for value in hidden:
        assert value not in said.everything


def test_a_denial_is_told_with_its_cure(command: Command, rig: Rig, at: list[str]) -> None:
    with rig.fault("denied"):
        said = command("check", *at)
        assert said.code == 3, said.everything
        assert "✗ connections" in said.out
        assert "unhealthy" in said.out
        for arguments in (["get", "conn", "x"], ["explain", "conn", "x", "--no-metastore"]):
            said = command(*arguments, *at)
            assert said.code == 3, said.everything
            assert SECRET not in said.everything
            assert "Traceback" not in said.everything


def test_a_denied_write_or_delete_is_told_what_allows_it(command: Command, rig: Rig, at: list[str], base: str) -> None:
    rig.put(path_of(rig, base, "variables", "there"), SECRET)
    with rig.fault("denied"):
        for act, arguments in (
            ("write", ["put", "var", "new", "--stdin", "--if-not-exists"]),
            ("delete", ["delete", "var", "there", "--yes"]),
        ):
            said = command(*arguments, *at, stdin=SECRET)
            assert (said.code, said.err.count("\n")) == (3, 1), said.everything
            # AWS says which operation it refused, so that its right can be named.
            assert re.search(rf"policy --allow {act}|Allow .*(ssm|secretsmanager):", said.err), said.everything
            assert SECRET not in said.everything


@pytest.mark.skipif(VERSION < (3, 3), reason="Airflow's own denial came with 3.2.2")
def test_a_final_denial_is_told_like_any_other(command: Command, ssm: Rig, base: str) -> None:
    at = using(ssm, **prefixes(ssm, base), on_denied="fail")
    with ssm.fault("denied"):
        said = command("get", "conn", "x", *at)
        assert (said.code, "could not give" in said.err) == (3, True), said.everything
        assert command("check", "--connection", "x", *at).code == 3
        explained = command("explain", "conn", "x", "--no-metastore", *at)
    assert (explained.code, "Airflow has no answer: its lookup ends here" in explained.out) == (3, True)


def test_put_get_list_explain_delete(command: Command, rig: Rig, at: list[str], base: str) -> None:
    said = command("put", "conn", "db", "--stdin", "--dry-run", *at, stdin=json.dumps(CONNECTION))
    assert (said.code, "would be created" in said.out) == (0, True), said.everything
    assert command("get", "conn", "db", *at).code == 1
    said = command("put", "conn", "db", "--stdin", "--if-not-exists", *at, stdin=json.dumps(CONNECTION))
    assert (said.code, "created" in said.out) == (0, True), said.everything
    said = command("put", "conn", "db", "--stdin", "--if-not-exists", *at, stdin="http://other")
    assert (said.code, "exists" in said.out) == (1, True), said.everything

    said = command("get", "conn", "db", "-o", "json", *at)
    assert said.code == 0, said.everything
    assert said.json["host"] == "db.example.com"
    assert [said.json[name] for name in ("login", "password", "description")] == ["***"] * 3
    assert said.json["extra"] == {"sslmode": "***"}
    assert SECRET not in said.everything
    shown = command("get", "conn", "db", "--show-value", "-o", "json", *at).json
    assert {name: value for name, value in shown.items() if name != "id"} == CONNECTION
    assert command("get", "conn", "db", "--field", "password", *at).out == f"{CONNECTION['password']}\n"
    assert command("get", "conn", "db", "--field", "extra.sslmode", *at).out == "require\n"
    assert command("get", "conn", "db", "--field", "extra.other", *at).code == 1

    said = command("put", "var", "flag", "--stdin", *at, stdin="S3cr3t-value\n")
    assert said.code == 0, said.everything
    assert command("get", "var", "flag", *at).out == "***\n"
    assert command("get", "var", "flag", "--show-value", *at).out == "S3cr3t-value\n"
    said = command("put", "var", "flag", "--stdin", *at, stdin="S3cr3t-value 2")
    assert (said.code, "replaced" in said.out) == (0, True), said.everything
    assert command("get", "var", "flag", "--show-value", *at).out == "S3cr3t-value 2\n"

    said = command("list", "conn", "-o", "json", *at)
    assert (said.code, [one["id"] for one in said.json]) == (0, ["db"]), said.everything
    assert SECRET not in said.everything
    assert command("list", "conn", "--match", "x", "-o", "json", *at).json == []

    said = command("explain", "conn", "db", "--no-metastore", *at)
    assert said.code == 0, said.everything
    assert path_of(rig, base, "connections", "db") in said.out
    assert "password" in said.out
    assert SECRET not in said.everything

    said = command("delete", "conn", "db", *at)
    assert (said.code, "--yes" in said.err) == (2, True), said.everything
    assert command("delete", "conn", "db", "--yes", *at).code == 0
    assert command("get", "conn", "db", *at).code != 0
    said = command("delete", "var", "never-there", "--yes", *at)
    assert (said.code, "There is nothing to delete" in said.err, "Create it" in said.err) == (1, True, False), said.err


@pytest.mark.parametrize(
    ("form", "stored"), [(["--as-uri"], "http://h"), ([], '{"conn_type": "http", "host": "h"}')], ids=["URI", "JSON"]
)
def test_a_connection_is_written_in_the_form_and_by_the_settings_that_are_told(
    command: Command, ssm: SsmRig, base: str, form: list[str], stored: str
) -> None:
    at = using(ssm, **prefixes(ssm, base))
    for number, given in enumerate((["--conn-type", "http", "--host", "h"], ["--stdin"])):
        said = command("put", "conn", f"x{number}", *given, *form, "--set", "type=String", *at, stdin="http://h")
        assert said.code == 0, said.everything
        name = path_of(ssm, base, "connections", f"x{number}")
        written = ssm.client.get_parameter(Name=name)["Parameter"]
        assert (written["Type"], written["Value"]) == ("String", stored)


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("Yes\n", 0), ("\n", 1), ("n\n", 1), ("yep\n", 1), ("", 1)], ids=repr
)
def test_only_a_yes_deletes(
    ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    path = path_of(ssm, base, "variables", "asked")
    ssm.put(path, "x")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["delete", "var", "asked", *using(ssm, **prefixes(ssm, base))]) == code
    said = capfd.readouterr()
    assert f"Delete '{path}' from AWS SSM Parameter Store? [y/N] " in said.err
    assert ("Nothing was deleted." in said.err) is bool(code)
    assert ssm.backend(**prefixes(ssm, base)).get_variable("asked") == ("x" if code else None)


def test_get_of_a_field_that_is_not_there_lists_those_that_are(
    command: Command, rig: Rig, at: list[str], base: str
) -> None:
    """Their names alone: known ones that this connection has not, unknown ones, and keys of its extra."""
    connection = {**CONNECTION, "extra": {"sslmode": "S3cr3t-mode", "key\n2": "S3cr3t"}}
    del connection["description"]
    rig.put(path_of(rig, base, "connections", "db"), json.dumps(connection))
    has = "conn_type, login, password, host, port, schema, extra, extra.sslmode, extra.key\\n2"
    for field in ("schemas", "description", "extra.other", "extra.sslmode.x", "password.x", "."):
        said = command("get", "conn", "db", "--field", field, *at)
        assert (said.code, said.out) == (1, ""), said.everything
        start, _, listed = said.err.removesuffix(".\n").partition("; it has ")
        assert start == f"airflow-secrets get: the connection has no field '{field}'"
        assert sorted(listed.split(", ")) == sorted(has.split(", "))
        assert SECRET not in said.everything


@pytest.mark.parametrize("field", ["", " "])
def test_get_of_no_field_lists_those_that_are(command: Command, ssm: Rig, base: str, field: str) -> None:
    ssm.put(path_of(ssm, base, "connections", "db"), "http://S3cr3t@example.com")
    said = command("get", "conn", "db", "--field", field, *using(ssm, **prefixes(ssm, base)))
    assert (said.code, said.out) == (1, ""), said.everything
    assert said.err.endswith("it has conn_type, login, host.\n"), said.err
    said = command("get", "var", "x", "--field", field, *using(ssm, **prefixes(ssm, base)))
    assert (said.code, "--field is for connections" in said.err) == (2, True), said.everything


class Older:
    """Another package's backend, which knows no teams and hands on what Airflow cannot parse."""

    def __init__(self, **_: Any) -> None:
        pass

    def get_conn_value(self, conn_id: str) -> str:
        return {"usable": "http://one"}.get(conn_id, "S3cr3t")

    def get_variable(self, key: str) -> str:
        return key


def test_get_by_a_class_of_another_package(command: Command) -> None:
    at = ("--backend", f"{__name__}.Older")
    assert command("get", "var", "x", "--show-value", *at).out == "x\n"
    assert command("get", "conn", "usable", "--field", "host", *at).out == "one\n"
    said = command("get", "conn", "broken", *at)
    assert (said.code, "Airflow could not use the connection: it is neither a JSON object" in said.err) == (3, True)
    assert "S3cr3t" not in said.everything


def test_explain_says_who_wins_and_who_is_shadowed(
    command: Command, rig: Rig, at: list[str], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put(path_of(rig, base, "connections", "both"), "http://S3cr3t.example.com")
    monkeypatch.setenv("AIRFLOW_CONN_BOTH", "http://S3cr3t.other.example.com")
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", "http://S3cr3t.other.example.com")
    explained = command("explain", "conn", "both", "--no-metastore", "-o", "json", *at).json
    assert explained["shadowed"] == ["environment"]
    assert explained["names"][0]["outcome"] == "found"
    assert explained["fields"] == ["conn_type", "host"]
    explained = command("explain", "conn", "elsewhere", "--no-metastore", "-o", "json", *at).json
    assert (explained["winner"], explained["shadowed"]) == ("environment", [])
    said = command("list", "conn", "--shadowed", "--no-metastore", "-o", "json", *at)
    assert [(one["id"], one["shadows"]) for one in said.json] == [("both", ["environment"])]
    assert SECRET not in said.everything
    said = command("explain", "conn", "nowhere", "--no-metastore", *at)
    assert said.code == 1
    # No fault and nothing to consider: whoever reads it at night sees one line that matters, and where to go on.
    assert "· environment: does not hold it" in said.out
    assert said.out.endswith("Airflow finds it nowhere.\n    What is there: airflow-secrets list conn.\n")


def test_list_says_what_is_shadowed_for_whom_and_in_whatever_case(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's own by that team's own; Airflow asks its environment in capitals."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for secret_id in ("Both", "red--own", "blue--own", "common"):
        ssm.put(path_of(ssm, base, "variables", secret_id), "S3cr3t")
    for name in ("BOTH", "_RED___OWN", "_RED___COMMON"):
        monkeypatch.setenv(f"AIRFLOW_VAR_{name}", "S3cr3t")
    said = command("list", "var", "--shadowed", "--no-metastore", "-o", "json", *using(ssm, **prefixes(ssm, base)))
    assert {one["id"]: one["shadows"] for one in said.json} == {"Both": ["environment"], "red--own": ["environment"]}


def test_put_get_and_delete_for_a_team_are_of_the_team_s_own(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    ssm.put(path_of(ssm, base, "variables", "owned"), "everybody's")
    at = using(ssm, **prefixes(ssm, base))

    def shown() -> dict[str, str]:
        teams: dict[str, list[str]] = {"red": ["--team", "red"], "blue": ["--team", "blue"], "nobody": []}
        return {team: command("get", "var", "owned", "--show-value", *of, *at).out for team, of in teams.items()}

    assert command("put", "var", "owned", "--team", "red", "--stdin", *at, stdin="red's").code == 0
    assert shown() == {"red": "red's\n", "blue": "everybody's\n", "nobody": "everybody's\n"}
    assert command("delete", "var", "owned", "--team", "red", "--yes", *at).code == 0
    assert shown()["nobody"] == "everybody's\n"


def test_get_of_each_kind_is_of_that_kind(command: Command, rig: Rig, at: list[str], base: str) -> None:
    held = {"conn": ("connections", "http://h"), "var": ("variables", "a variable"), "config": ("config", "an option")}
    for kind, text in held.values():
        rig.put(path_of(rig, base, kind, "same"), text)
    shown = {word: command("get", word, "same", "--show-value", "-o", "json", *at).json for word in held}
    assert (shown["var"]["value"], shown["config"]["value"]) == ("a variable", "an option")
    assert shown["conn"]["host"] == "h"


def taken_by_airflow(conn_id: str) -> bool:
    """Whether Airflow's search ends with the environment; an error means that it goes on with the next source."""
    from airflow.secrets.environment_variables import EnvironmentVariablesBackend

    try:
        return EnvironmentVariablesBackend().get_connection(conn_id) is not None
    except Exception:  # whichever its parser raises
        return False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "· environment: does not hold it"),
        ('{"conn_type": ', "cannot use it: it starts as JSON and is not valid JSON"),
        ("http://h:S3cr3t", "cannot use it: its host and port cannot be read"),
        ("  ", "cannot use it: it is blank"),
        ("http://h", "Airflow takes it from: environment."),
        # Airflow makes a connection of it in which nothing stands, and asks no further.
        ("S3cr3t", "Airflow takes it from: environment."),
    ],
)
def test_explain_takes_a_connection_of_the_environment_as_airflow_does(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    at = using(ssm, **prefixes(ssm, base))
    monkeypatch.setenv("AIRFLOW_CONN_OF_ENV", text)
    said = command("explain", "conn", "of_env", "--no-metastore", *at)
    taken = said.out.endswith("Airflow takes it from: environment.\n")
    assert (said.code, told in said.out) == (0 if taken else 1, True), said.everything
    assert taken is taken_by_airflow("of_env")
    assert "S3cr3t" not in said.everything
    ssm.put(path_of(ssm, base, "connections", "of_env"), "http://S3cr3t")
    assert command("list", "conn", "--shadowed", "--no-metastore", *at).code == (0 if text else 1)


def test_explain_of_an_absent_id_names_what_is_near(command: Command, rig: Rig, at: list[str], base: str) -> None:
    for secret_id in ("smtp-default", "smtp-default2", "smtp-defaults", "smtp-defoult", "warehouse"):
        rig.put(path_of(rig, base, "connections", secret_id), "http://S3cr3t")
    said = command("explain", "conn", "smpt-default", "--no-metastore", *at)
    assert said.code == 1, said.everything
    assert "nowhere.\n    Did you mean 'smtp-default', 'smtp-default" in said.out
    assert said.out.endswith("'?\n    What is there: airflow-secrets list conn.\n")
    near = command("explain", "conn", "smpt-default", "--no-metastore", "-o", "json", *at).json["near"]
    assert (len(near), near[0]) == (3, "smtp-default")
    assert set(near) < {"smtp-default", "smtp-default2", "smtp-defaults", "smtp-defoult"}
    for other in ("ware", "smtp-default"):
        assert command("explain", "conn", other, "--no-metastore", "-o", "json", *at).json["near"] == []
    assert "S3cr3t" not in said.everything


def test_what_is_near_is_compared_as_the_store_spells_it(command: Command, rig: Rig, at: list[str], base: str) -> None:
    """Key Vault has no underscores: of the six letters of its ``my-var``, ``my_vr`` has four."""
    rig.put(path_of(rig, base, "variables", "my-var"), "S3cr3t")
    said = command("explain", "var", "my-vr", "--no-metastore", *at)
    assert "Did you mean 'my-var'?" in said.out, said.everything
    if rig.extra == "azure":
        said = command("explain", "var", "my_vr", "--no-metastore", *at)
        assert "Did you mean 'my-var'?" in said.out, said.everything


def test_what_is_longer_than_a_lookup_takes_is_not_written(command: Command, rig: Rig, at: list[str]) -> None:
    """OpenBao takes it, for one."""
    assert command("put", "var", "long", "--stdin", *at, stdin="S3cr3t").code == 0
    for how in ([], ["--dry-run"]):
        said = command("put", "var", "long", "--stdin", *how, *at, stdin="S3cr3t" * 200_000)
        assert (said.code, "it is longer than 1048576 characters" in said.err) == (2, True), said.everything[:2000]
    assert command("get", "var", "long", "--show-value", *at).out == "S3cr3t\n"


def test_a_large_number_in_an_extra_stays_as_it_is(command: Command, rig: Rig, at: list[str]) -> None:
    """OpenBao makes a double of each number."""
    for extra in ({"channel": 123456789012345678}, {"nested": [{"channel": 2**63}], "small": 7}):
        connection = {"conn_type": "http", "extra": extra}
        said = command("put", "conn", "large", "--stdin", *at, stdin=json.dumps(connection))
        assert said.code == 0, said.everything
        assert command("get", "conn", "large", "--show-value", "-o", "json", *at).json == {"id": "large", **connection}


def test_a_connection_without_a_type_is_not_written(command: Command, rig: Rig, at: list[str]) -> None:
    said = command("put", "conn", "untyped", "--host", "h", *at)
    assert (said.code, said.err) == (2, "airflow-secrets put: --conn-type is needed: postgres, aws, http …\n")
    assert command("get", "conn", "untyped", *at).code == 1


def test_explain_of_an_absent_id_never_fails_for_what_is_near(command: Command, rig: Rig, at: list[str]) -> None:
    for fault in ("denied", "server-error", "malformed"):
        with rig.fault(fault, listings=True):
            said = command("explain", "conn", "nowhere", "--no-metastore", *at)
        assert (said.code, said.err) == (1, ""), said.everything
        assert said.out.endswith("Airflow finds it nowhere.\n    What is there: airflow-secrets list conn.\n")


def test_what_is_near_is_waited_for_as_long_as_is_said(
    command: Command, rig: Rig, at: list[str], waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "NEAR_SECONDS", 0.2)
    with rig.fault("hang", listings=True):  # until the fault ends
        assert command("explain", "conn", "nowhere", "--no-metastore", *at).code == 1
    assert waits.granted[-1] <= 0.2


def test_what_is_near_is_what_lookups_ask_for(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what a pattern keeps out nor another team's."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for secret_id in ("shared1", "red--shared2", "blue--shared3", "shared-no"):
        ssm.put(path_of(ssm, base, "variables", secret_id), "S3cr3t")
    at = using(ssm, **prefixes(ssm, base), variables_exclude_pattern=".*no$")
    explain = ["explain", "var", "shared", "--no-metastore", "-o", "json", *at]
    near = {team: command(*explain, *(["--team", team] if team else [])).json["near"] for team in ("", "red", "green")}
    assert {team: sorted(ids) for team, ids in near.items()} == {
        "": ["shared1"],
        "red": ["shared1", "shared2"],
        "green": ["shared1"],
    }


@pytest.mark.each_rig_in_ci
def test_what_is_near_is_another_id(command: Command, google: GoogleRestRig, base: str) -> None:
    """A secret of Google's without a version is listed, and to lookups it is absent."""
    google.server.put(google.resource(path_of(google, base, "variables", "empty")))
    at = using(google, **prefixes(google, base))
    assert [one["id"] for one in command("list", "var", "-o", "json", *at).json] == ["empty"]
    assert command("explain", "var", "empty", "--no-metastore", "-o", "json", *at).json["near"] == []


def test_json_has_the_same_keys_everywhere(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    at = using(ssm, **prefixes(ssm, base))
    ssm.put(path_of(ssm, base, "variables", "x"), "S3cr3t")
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"x": "S3cr3t"}))
    chain = [
        "--backend",
        "chain",
        "--kwargs",
        json.dumps({"backends": [{"backend": "aws_ssm", "kwargs": json.loads(at[-1])}]}),
    ]
    explained = command("explain", "var", "x", "--no-metastore", "-o", "json", *at).json
    through = command("explain", "var", "x", "--no-metastore", "-o", "json", *chain).json
    (copied,) = command(
        "copy", "--from", f"file:{path}", "--kind", "var", "-o", "json", "--to", at[1], "--to-kwargs", at[-1]
    ).json
    for one in (explained, through, through["members"][0]["way"], copied):
        assert (one["kind"], one["id"], "secret_id" in one) == ("variables", "x", False)
    (listed,) = command("list", "var", "-o", "json", *at).json
    assert list(listed) == ["id", "name", "version", "changed", "not_looked_up"]
    assert "not looked up" in command("list", "var", *at).out


def test_list_says_which_team_s_own_an_id_is(
    command: Command, rig: Rig, at: list[str], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret_id in ("hello", "red--hello", "red--blue--hello"):
        rig.put(path_of(rig, base, "variables", secret_id), "S3cr3t")
    for on in ("True", "False"):
        monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", on)
        listed = command("list", "var", "-o", "json", *at).json
        told = {team: f"but by team {team}, as 'hello'" if on == "True" else None for team in ("red", "red--blue")}
        assert {one["id"]: one["not_looked_up"] for one in listed} == {
            "hello": None,
            "red--hello": told["red"],
            "red--blue--hello": told["red--blue"],
        }


@pytest.mark.parametrize("on", ["True", "False"])
def test_a_team_that_airflow_does_not_ask_for_is_told(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", on)
    at = ["--team", "red", "-o", "json", *using(ssm, **prefixes(ssm, base))]
    told = "" if on == "True" else "[core] multi_team is off: Airflow asks for no team.\n"
    for line in (["put", "--stdin"], ["get"], ["explain", "--no-metastore"], ["delete", "--yes"]):
        name, *more = line
        said = command(name, "var", "hello", *more, *at, stdin="S3cr3t")
        assert (said.code, said.err, bool(said.json)) == (0, told, True), said.everything
        assert command(name, "var", "hello", *more, *at[2:], stdin="S3cr3t").err == ""
    said = command("explain", "var", "hello", "--no-metastore", "-o", "table", *at[:2], *at[4:])
    assert said.out.startswith("variable hello for the team red, asked of AWS SSM Parameter Store\n"), said.everything
    assert command("get", "var", "hello", *at).code == 1


def test_explain_marks_no_name_that_it_need_not_ask_for(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    ssm.put(path_of(ssm, base, "variables", "red--hello"), "S3cr3t")
    said = command("explain", "var", "hello", "--team", "red", "--no-metastore", *using(ssm, **prefixes(ssm, base)))
    assert (said.code, "! " in said.out) == (0, False), said.everything
    assert re.search(r"^· \S+/hello: not asked$", said.out, re.MULTILINE), said.out


def test_explain_of_a_kind_that_is_off_sends_nobody_to_its_list(command: Command, rig: Rig, base: str) -> None:
    at = using(rig, **{**prefixes(rig, base), rig.prefix_option.format(kind="connections"): None})
    said = command("explain", "conn", "x", "--no-metastore", *at)
    assert (said.code, "· connections are not looked up here" in said.out) == (1, True), said.everything
    assert said.out.endswith("Airflow finds it nowhere.\n")
    assert command("list", "conn", *at).code == 2


def test_explain_tells_the_time_of_the_login_from_the_stores(command: Command, rig: Rig, at: list[str]) -> None:
    answers.reset_after_fork()
    for included in (True, False):
        said = command("explain", "var", "nowhere", "--no-metastore", *at)
        assert ("ms, login included)" in said.out) is included, said.out


def test_explain_says_what_airflow_will_say_of_a_failure(command: Command, rig: Rig, at: list[str]) -> None:
    with rig.fault("denied"):
        said = command("explain", "conn", "x", "--no-metastore", *at)
    assert said.out.endswith("Airflow has no answer, and will say that the connection is not found.\n")


def test_fractions_of_values_are_kept_and_those_of_times_are_short(command: Command, ssm: Rig, base: str) -> None:
    at = using(ssm, **prefixes(ssm, base))
    ssm.put(path_of(ssm, base, "connections", "db"), '{"conn_type": "http", "extra": {"timeout": 0.25, "n": [1.125]}}')
    shown = command("get", "conn", "db", "--show-value", "-o", "json", *at).json
    assert shown["extra"] == {"timeout": 0.25, "n": [1.125]}
    explained = command("explain", "conn", "db", "--no-metastore", "-o", "json", *at).json
    took = explained["names"][0]["milliseconds"]
    assert took == round(took, 1)
    chain = [
        "--backend",
        "chain",
        "--kwargs",
        json.dumps({"backends": [{"backend": "aws_ssm", "kwargs": json.loads(at[3])}]}),
    ]
    explained = command("explain", "conn", "db", "--no-metastore", "-o", "json", *chain).json
    took = explained["members"][0]["way"]["names"][0]["milliseconds"]
    assert took == round(took, 1)


def test_kinds_are_counted_as_one_says_it(command: Command, ssm: Rig, base: str) -> None:
    at = using(ssm, **prefixes(ssm, base))
    assert "0 configuration values in AWS" in command("list", "config", *at).err
    ssm.put(path_of(ssm, base, "variables", "one"), SECRET)
    assert "1 variable in AWS" in command("list", "var", *at).err
    assert "configuration values are looked up" in command("explain", "config", "a/b", *at).out


def test_what_airflow_could_not_use_is_told(command: Command, rig: Rig, at: list[str], base: str) -> None:
    rig.put(path_of(rig, base, "connections", "faulty"), "S3cr3t-value")
    said = command("explain", "conn", "faulty", "--no-metastore", *at)
    assert said.code == 3, said.everything
    assert "Airflow could not use it" in said.out
    assert SECRET not in said.everything
    said = command("check", "--connection", "faulty", *at)
    assert said.code == 3, said.everything
    assert SECRET not in said.everything
    said = command("put", "conn", "faulty", "--stdin", *at, stdin="S3cr3t-value")
    assert (said.code, SECRET in said.everything) == (2, False), said.everything


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("postgres://u:S3cr3t-p@ss/w@db/x", None),
        ("  postgres://u:123/S3cr3t-ss@db/x\n", None),
        ("//u:123/S3cr3t-ss@db/x", None),
        ("http://https://h/S3cr3t-p@db", None),
        ("http://https://u:S3cr3t-p@h:8443/x", "S3cr3t-p"),
        ("postgres://u:S3cr3t-p@ss@db/x", "S3cr3t-p@ss"),
        ("postgres://u:S3cr3t-p%40ss%2Fw@db/x%40y?mail=a@b.example", "S3cr3t-p@ss/w"),
        (' {"conn_type": "http", "host": "https://h/w@db", "password": "S3cr3t-p"}', "S3cr3t-p"),
    ],
)
def test_a_password_that_a_slash_cuts_off_is_not_written(
    command: Command, ssm: Rig, base: str, text: str, password: str | None
) -> None:
    at = using(ssm, **prefixes(ssm, base))
    said = command("put", "conn", "db", "--stdin", *at, stdin=text)
    assert (said.code, "write %40 for '@' and %2F for '/'" in said.err) == ((0, False) if password else (2, True))
    assert "S3cr3t" not in said.everything
    got = command("get", "conn", "db", "--field", "password", *at)
    assert (got.code, got.out) == ((0, f"{password}\n") if password else (1, "")), got.everything


def test_a_pattern_that_keeps_an_id_out_is_told(command: Command, rig: Rig, base: str) -> None:
    at = using(rig, **prefixes(rig, base), connections_exclude_pattern="never")
    rig.put(path_of(rig, base, "connections", "never-x"), "http://x")
    said = command("explain", "conn", "never-x", "--no-metastore", *at)
    assert ("connections_exclude_pattern" in said.out, "patterns: exclude never\n" in said.out) == (True, True), (
        said.out
    )
    said = command("get", "conn", "never-x", *at)
    assert (said.code, "connections_exclude_pattern" in said.err) == (2, True)
    for refused in ("never-x", "a/../b"):
        assert command("get", "conn", refused, *at).code == 2
        assert command("put", "conn", refused, "--stdin", *at, stdin="http://y").code == 2
        assert command("delete", "conn", refused, "--yes", *at).code == 2
    (listed,) = command("list", "conn", "-o", "json", *at).json
    assert "connections_exclude_pattern" in listed["not_looked_up"]


def test_a_listing_says_what_the_page_promises_of_each_store(
    command: Command, rig: Rig, at: list[str], base: str
) -> None:
    table = re.findall(r"^\| (.+?) \| (.*?) ?\| (.*?) ?\|$", PAGE, re.MULTILINE)
    promised = {store: (bool(version), bool(changed)) for store, version, changed in table if store != "store"}
    rig.put(path_of(rig, base, "variables", "x"), "S3cr3t")
    (listed,) = command("list", "var", "-o", "json", *at).json
    assert (listed["version"] is not None, listed["changed"] is not None) == promised[rig.backend_class.store]
    if listed["changed"]:
        assert dt.datetime.fromisoformat(listed["changed"]).tzinfo is not None


def test_a_listing_restarts_where_a_page_fails(command: Command, rig: Rig, at: list[str], base: str) -> None:
    with rig.fault("server-error", listings=True):
        said = command("list", "conn", *at)
    assert said.code == 3, said.everything
    assert said.err.count("\n") == 1
    assert "could not list" in said.err


@pytest.mark.parametrize("kind", ["conn", "var"])
def test_many_ids_are_listed_once_each(command: Command, rig: Rig, at: list[str], base: str, kind: str) -> None:
    full = {"conn": "connections", "var": "variables"}[kind]
    for number in range(45):
        rig.put(path_of(rig, base, full, f"id{number}"), "http://x")
    listed = command("list", kind, "-o", "plain", *at).out.splitlines()
    assert sorted(line.split("\t")[0] for line in listed) == sorted(f"id{number}" for number in range(45))
    table = command("list", kind, *at)
    assert "45 " in table.err
    yaml_text = command("list", kind, "-o", "yaml", *at).out
    assert yaml_text.count("- id:") == 45


def test_a_member_of_a_chain(command: Command, ssm: Rig, base: str) -> None:
    ssm.put(path_of(ssm, base, "variables", "x"), "S3cr3t")
    member = {"backend": "aws_ssm", "kwargs": {**ssm.options(), **prefixes(ssm, base)}}
    chain = ["--backend", "chain", "--kwargs", json.dumps({"backends": [{"backend": "env"}, member]})]
    said = command("list", "var", *chain)
    assert (said.code, "--member N: 1 env, 2 aws_ssm" in said.err) == (2, True), said.everything
    assert [one["id"] for one in command("list", "var", "-o", "json", "--member", "2", *chain).json] == ["x"]
    assert command("list", "var", "--member", "3", *chain).code == 2
    assert command("get", "var", "x", *chain).out == "***\n"


def test_a_slow_pattern_is_found() -> None:
    assert findings.pattern_seconds("^(a+)+$") == float("inf")


@pytest.mark.measured
def test_a_quick_pattern_is_none() -> None:
    assert findings.pattern_seconds("^prod_.*") < findings.SLOW_PATTERN


def test_what_connections_hold_is_what_was_given() -> None:
    fields: dict[str, Any] = fields_of(json.dumps(CONNECTION))
    assert fields == CONNECTION


def test_explain_shows_no_connection_string_typed_as_an_id(command: Command, rig: Rig, at: list[str]) -> None:
    chain = ["--backend", "chain", "--kwargs", json.dumps({"backends": [{"backend": "env"}]})]
    for way in (at, chain):
        for secret_id in ("postgres://user:S3cr3tpw@host/db", "user:S3cr3tpw@host"):
            for form in ("table", "plain", "json", "yaml"):
                said = command("explain", "conn", secret_id, "--no-metastore", "-o", form, *way)
                assert "…" in said.out
                assert "S3cr3t" not in said.everything, said.everything
        for form in ("table", "json"):
            said = command("explain", "conn", "x\x1b[2J\x9b", "--no-metastore", "-o", form, *way)
            assert said.out.replace("\n", "").isprintable(), said.out


@pytest.mark.parametrize(
    ("host", "masked"),
    [
        ("https://user:S3cr3tpw@h.example.com/?token=S3cr3t2", "https://***@h.example.com/?***"),
        ("https://user:S3cr3t/pw@h.example.com:8443/a#S3cr3t3?S3cr3t4", "https://***@h.example.com:8443/a#***"),
        ("https://user:S3cr3t?pw@h.example.com", "https://***@"),
        ("https://h.example.com?token=S3cr3t@S3cr3t", "https://***@"),
        ("user:S3cr3tpw@h.example.com", "***@h.example.com"),
        ("https://h.example.com/a", "https://h.example.com/a"),
    ],
)
def test_get_masks_what_a_host_says_to_log_in_with(
    command: Command, ssm: Rig, base: str, host: str, masked: str
) -> None:
    at = using(ssm, **prefixes(ssm, base))
    ssm.put(path_of(ssm, base, "connections", "db"), json.dumps({"conn_type": "http", "host": host}))
    assert command("get", "conn", "db", "-o", "json", *at).json["host"] == masked
    assert command("get", "conn", "db", "-o", "plain", *at).out.splitlines()[-1] == f"host\t{masked}"
    assert command("get", "conn", "db", "--field", "host", *at).out == f"{host}\n"
    assert command("get", "conn", "db", "--show-value", "-o", "json", *at).json["host"] == host


def test_a_dry_run_asks_for_the_name_that_is_written(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    at = using(ssm, **prefixes(ssm, base))
    put = ["put", "var", "x", "--team", "red", "--stdin", *at]
    ssm.put(path_of(ssm, base, "variables", "x"), "everybody's")
    assert " would be created" in command(*put, "--dry-run", stdin="red's").out
    said = command(*put, "--dry-run", "--if-not-exists", stdin="red's")
    assert (said.code, " would be created" in said.out) == (0, True), said.everything
    assert " created" in command(*put, stdin="red's").out
    assert " would be replaced" in command(*put, "--dry-run", stdin="red's").out


def test_a_dry_run_finds_what_airflow_could_not_use(command: Command, rig: Rig, at: list[str], base: str) -> None:
    """A write replaces it, which is what the operator is about to do."""
    rig.put(path_of(rig, base, "connections", "faulty"), "S3cr3t-value")
    put = ["put", "conn", "faulty", "--stdin", "--dry-run", *at]
    said = command(*put, stdin="http://x")
    assert (said.code, " would be replaced" in said.out) == (0, True), said.everything
    said = command(*put, "--if-not-exists", stdin="http://x")
    assert (said.code, " exists" in said.out) == (1, True), said.everything
    for fault in ("denied", "malformed"):
        with rig.fault(fault):
            assert command(*put, stdin="http://x").code == 3


@pytest.mark.parametrize("form", ["table", "plain", "json"])
def test_a_reader_who_stops_reading_is_no_absence(ssm: Rig, base: str, form: str) -> None:
    ssm.put(path_of(ssm, base, "variables", "x"), SECRET)
    at = using(ssm, **prefixes(ssm, base))
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "airflow_providers_secrets.cli", "list", "var", "-o", form, *at],
        cwd=PACKAGE_ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (CLOSED_PIPE, "")


@pytest.mark.parametrize("form", ["table", "plain", "json", "yaml"])
def test_no_value_is_too_long_to_be_shown_whole(command: Command, ssm: Rig, base: str, form: str) -> None:
    at = using(ssm, **prefixes(ssm, base))
    password = "".join(f"{number:05}" for number in range(1500))[:4000]
    ssm.put(path_of(ssm, base, "connections", "db"), json.dumps({"conn_type": "http", "password": password}))
    said = command("get", "conn", "db", "--show-value", "-o", form, *at)
    assert (said.code, password in said.out) == (0, True), said.out


def test_json_loses_nothing_of_what_no_terminal_should_see(command: Command, ssm: Rig, base: str) -> None:
    at = using(ssm, **prefixes(ssm, base))
    value = "a\x9b2J\u200bé😀"
    ssm.put(path_of(ssm, base, "variables", "x"), value)
    said = command("get", "var", "x", "--show-value", "-o", "json", *at)
    assert (said.json["value"], "\x9b" in said.out, "é😀" in said.out) == (value, False, True), said.out


@pytest.mark.parametrize("line", ["explain conn {} --no-metastore", "get conn {}"])
def test_what_is_said_of_work_under_way_holds_no_connection_string(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    titles: list[str] = []

    class Recorded(output.Progress):
        def __init__(self, title: str, total: int | None = None) -> None:
            titles.append(title)
            super().__init__(title, total)

    monkeypatch.setattr(output, "Progress", Recorded)
    said = command(*line.format("user:S3cr3tpw@host").split(), *using(ssm, **prefixes(ssm, base)))
    assert any("…" in title for title in titles), (titles, said.everything)
    assert "S3cr3t" not in "".join(titles) + said.everything


def test_json_has_no_number_that_json_does_not_know(command: Command, ssm: Rig, base: str) -> None:
    at = using(ssm, **prefixes(ssm, base))
    extra = '{"a": NaN, "b": [Infinity, -Infinity, 0.25]}'
    ssm.put(path_of(ssm, base, "connections", "db"), f'{{"conn_type": "http", "extra": {extra}}}')
    said = command("get", "conn", "db", "--show-value", "-o", "json", *at)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    shown = json.loads(said.out, parse_constant=refuse)
    assert shown["extra"] == {"a": "NaN", "b": ["Infinity", "-Infinity", 0.25]}


def test_what_standard_output_cannot_encode_is_escaped_or_refused(ssm: Rig, base: str) -> None:
    """A program that reads a value must not take an escape for it."""
    at = using(ssm, **prefixes(ssm, base))
    ssm.put(path_of(ssm, base, "variables", "x"), "S3cr3té😀")
    ssm.put(path_of(ssm, base, "connections", "x"), json.dumps({"conn_type": "http", "password": "S3cr3té"}))
    run = functools.partial(
        subprocess.run,
        cwd=PACKAGE_ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    command = [sys.executable, "-m", "airflow_providers_secrets.cli", "get"]
    ended = run([*command, "var", "x", "--show-value", "-o", "json", *at])
    assert json.loads(ended.stdout)["value"] == "S3cr3té😀", ended
    ended = run([*command, "var", "x", "--show-value", "-o", "yaml", *at])
    assert yaml.safe_load(ended.stdout)["value"] == "S3cr3té😀", ended
    for line in (["var", "x", "--show-value"], ["conn", "x", "--field", "password"], ["conn", "x", "--show-value"]):
        ended = run([*command, *line, "-o", "plain", *at])
        assert (ended.returncode, ended.stdout) == (3, b""), ended
        assert b"Set PYTHONIOENCODING=utf-8, or use a UTF-8 locale.\n" in ended.stderr
        assert b"S3cr3t" not in ended.stderr


def test_a_reader_who_stops_reading_the_demos_table_is_told_apart() -> None:
    code = (
        "import argparse, sys\n"
        "from airflow_providers_secrets.cli import demo, run\n"
        "rows = [demo.Row('asked', demo.STORE, True, 0.001)]\n"
        "sys.exit(run('demo', lambda args: demo._report(args, rows, 1.0), argparse.Namespace(output='table')))\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE_ROOT, stdout=writing, check=False)
    os.close(writing)
    assert ended.returncode == CLOSED_PIPE


URI_KEPT = {"conn_uri": "http://old.example.com", "owner": "data"}


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry run", "write"])
@pytest.mark.parametrize("unknown", ["refuse", "extra"])
def test_what_stays_beside_a_connection_never_spoils_it(
    command: Command, vault: VaultRig, base: str, dry: list[str], unknown: str
) -> None:
    """A URI wins over other keys, and a connection's fields do not."""
    vault.write(path_of(vault, base, "connections", "db"), URI_KEPT)
    at = using(vault, **prefixes(vault, base), unknown_fields=unknown)
    said = command("put", "conn", "db", "--stdin", *dry, *at, stdin=json.dumps(CONNECTION))
    assert (said.code, "other fields" in said.err, "write a URI" in said.err) == (2, True, True), said.everything
    assert SECRET not in said.everything
    assert command("get", "conn", "db", "--field", "host", *at).out == "old.example.com\n"
    said = command("put", "conn", "db", "--stdin", "--as-uri", *dry, *at, stdin="http://new.example.com")
    assert said.code == 0, said.everything
    kept = "old" if dry else "new"
    assert command("get", "conn", "db", "--field", "host", *at).out == f"{kept}.example.com\n"


def test_what_is_too_long_together_with_what_stays_is_not_written(command: Command, vault: VaultRig, base: str) -> None:
    at = using(vault, **prefixes(vault, base), unknown_fields="drop")
    name = path_of(vault, base, "connections", "long")
    vault.write(name, {"conn_type": "http", "note": "x" * 700_000})
    text = json.dumps({"conn_type": "http", "password": "S3cr3t" * 70_000})
    said = command("put", "conn", "long", "--stdin", *at, stdin=text)
    assert (said.code, "longer than 1048576 characters" in said.err) == (2, True), said.everything[:2000]
    assert command("get", "conn", "long", "--field", "conn_type", *at).out == "http\n"


@pytest.mark.parametrize("held", [{"host": "h", "passphrase": "S3cr3t-old"}, {"uri": "http://u:S3cr3t-old@h"}], ids=str)
def test_a_connection_replaces_what_goes_by_other_words(
    command: Command, vault: VaultRig, base: str, held: dict[str, Any]
) -> None:
    vault.write(path_of(vault, base, "connections", "db"), {"conn_type": "http", **held} if "host" in held else held)
    at = using(vault, **prefixes(vault, base), extra_conn_words={"password": ["passphrase"]})
    said = command("put", "conn", "db", "--stdin", *at, stdin=json.dumps(CONNECTION))
    assert (said.code, "replaced" in said.out) == (0, True), said.everything
    assert command("get", "conn", "db", "--field", "password", *at).out == f"{CONNECTION['password']}\n"


def test_what_aws_rotates_by_stays(command: Command, secrets_manager: SecretsManagerRig, base: str) -> None:
    """AWS's rotation functions read the secret by AWS's words, and fields that are none of a connection's."""
    rotated = {"engine": "aurora-postgresql", "username": "old", "password": "S3cr3t-old", "host": "h", "port": 5432}
    rotated |= {"dbname": "d", "masterarn": "arn:aws:x", "dbInstanceIdentifier": "i"}
    path = path_of(secrets_manager, base, "connections", "db")
    secrets_manager.put(path, json.dumps(rotated))
    at = using(secrets_manager, **prefixes(secrets_manager, base))
    fields = {"conn_type": "postgres", "login": "new", "password": "S3cr3t-new", "host": "h2"}
    for _ in range(2):
        said = command("put", "conn", "db", "--stdin", *at, stdin=json.dumps(fields))
        assert (said.code, "replaced" in said.out) == (0, True), said.everything
        written = json.loads(secrets_manager.client.get_secret_value(SecretId=path)["SecretString"])
        renamed = {"conn_type": "postgres", "username": "new", "password": "S3cr3t-new", "host": "h2"}
        kept = {name: rotated[name] for name in ("engine", "masterarn", "dbInstanceIdentifier")}
        assert written == {**kept, **renamed}
        read = command("get", "conn", "db", "--show-value", "-o", "json", *at).json
        assert {name: value for name, value in read.items() if name != "id"} == fields
    said = command("put", "conn", "db", "--stdin", "--as-uri", *at, stdin="http://x")
    assert (said.code, "a URI has no place for the secret's other fields" in said.err) == (2, True), said.everything
