"""The command with real Airflow: its configuration, its metastore, its own command."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import WRONG, Command
from tests.rigs.aws import AwsRig, SsmRig
from tests.support.airflow_process import VERSION, Airflow, Ended
from tests.support.sharing import KEY


def ran(airflow: Airflow, *arguments: str, **environment: str) -> Ended:
    return airflow._run([sys.executable, "-m", "airflow_providers_secrets.cli", *arguments], environment)


@pytest.mark.each_airflow
def test_options_and_their_sources_are_those_of_airflow(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm)
    del airflow.environment["AIRFLOW__SECRETS__BACKEND"]
    kwargs = {"connections_prefix": "/by-cfg/connections", "cache_ttl": 7, "shared_cache": "file"}
    (airflow.home / "airflow.cfg").write_text(
        f"[secrets]\nbackend = {ssm.class_path}\nbackend_kwargs = {json.dumps(kwargs)}\n"
    )
    single = {"AIRFLOW__SECRETS__BACKEND_KWARG__CACHE_TTL": "9", "AIRFLOW__CORE__FERNET_KEY": KEY}
    run = ran(airflow, "check", "-o", "json", **single)
    assert run.code == 0, run.everything
    report = json.loads(run.output)
    options = {option["option"]: (option["value"], option["source"]) for option in report["options"]}
    cfg = f"{airflow.home}/airflow.cfg, [secrets] backend_kwargs"
    assert report["configured_by"] == f"{airflow.home}/airflow.cfg, [secrets] backend"
    assert options["connections_prefix"] == ("/by-cfg/connections", cfg)
    assert options["variables_prefix"] == ("/airflow/variables", "default")
    by_variable = ("9", "AIRFLOW__SECRETS__BACKEND_KWARG__CACHE_TTL")
    assert options["cache_ttl"] == (by_variable if VERSION >= (3, 2) else ("7", cfg))
    assert "shared in" in json.dumps(report["findings"])
    assert run.errors == ""

    command = f"echo {json.dumps(json.dumps({'variables_prefix': '/by-cmd'}))}"
    run = ran(airflow, "check", "-o", "json", AIRFLOW__SECRETS__BACKEND_KWARGS_CMD=command)
    assert run.code == 0, run.everything
    options = {option["option"]: (option["value"], option["source"]) for option in json.loads(run.output)["options"]}
    assert options["variables_prefix"] == ("/by-cmd", "AIRFLOW__SECRETS__BACKEND_KWARGS_CMD")


@pytest.mark.parametrize(
    ("arguments", "prefix"), [([], "/configured"), (["--kwargs", "{}"], "/airflow/connections")], ids=repr
)
def test_no_options_in_place_of_the_configured_ones(
    airflow: Airflow, ssm: SsmRig, arguments: list[str], prefix: str
) -> None:
    airflow.use(ssm, {"connections_prefix": "/configured"})
    run = ran(airflow, "policy", *arguments)
    assert run.code == 0, run.everything
    assert [one for one in ("/configured", "/airflow/connections") if f":parameter{one}/" in run.output] == [prefix]


@pytest.mark.long
@pytest.mark.skipif(VERSION < (3, 0), reason="[workers] secrets_backend came with Airflow 3")
def test_the_workers_backend(airflow: Airflow, aws: AwsRig) -> None:
    airflow.use(aws, {"variables_prefix": None})
    workers = {
        "AIRFLOW__WORKERS__SECRETS_BACKEND": aws.class_path,
        "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": '{"variables_prefix": "of-workers"}',
    }
    run = ran(airflow, "check", "--worker", "-o", "json", **workers)
    assert run.code == 0, run.everything
    options = {option["option"]: option["value"] for option in json.loads(run.output)["options"]}
    assert options["variables_prefix"] == "of-workers"
    # In a task the last source is the API server, which asks a backend of its own.
    run = ran(airflow, "explain", "var", "nowhere", "--no-metastore", "--worker", **workers)
    assert (run.code, "! API server: not to be asked" in run.output) == (3, True), run.everything
    assert "Not found in what could be asked: API server was not." in run.output
    run = ran(airflow, "explain", "var", "nowhere", "--no-metastore", "--worker")
    assert (run.code, "Airflow finds it nowhere." in run.output, "API server" in run.output) == (1, True, False)


@pytest.mark.long
@pytest.mark.skipif(VERSION >= (3, 0), reason="Airflow 3 has a workers' backend")
def test_a_workers_backend_that_airflow_ignores_is_told(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm, {"variables_prefix": "/of-secrets"})
    told = "! Airflow before 3.0 ignores [workers]: tasks use [secrets]."
    run = ran(airflow, "check", "--worker", AIRFLOW__WORKERS__SECRETS_BACKEND=ssm.class_path)
    assert (run.code, told in run.output, "/of-secrets" in run.output) == (0, True, True), run.everything
    assert told not in ran(airflow, "check", "--worker").output


@pytest.mark.long
@pytest.mark.skipif(VERSION < (3, 0), reason="[workers] secrets_backend came with Airflow 3")
def test_options_of_workers_that_airflow_ignores_are_told(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm, {"variables_prefix": "/of-secrets"})
    told = "! [workers] secrets_backend_kwargs is ignored unless [workers] secrets_backend is set: "
    given = {"AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": '{"variables_prefix": "/of-workers"}'}
    run = ran(airflow, "check", "--worker", **given)
    assert (run.code, told in run.output, "/of-workers" in run.output) == (0, True, False), run.everything
    for more, environment in (((), given), (("--worker",), {})):
        assert told not in ran(airflow, "check", *more, **environment).output
    if VERSION >= (3, 2):
        run = ran(airflow, "check", "--worker", AIRFLOW__WORKERS__SECRETS_BACKEND_KWARG__VARIABLES_PREFIX="/of-workers")
        assert (run.code, told in run.output, "/of-workers" in run.output) == (0, True, False), run.everything


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        pytest.param({}, "names no [secrets] backend", marks=pytest.mark.each_airflow),
        (
            {
                "AIRFLOW__SECRETS__BACKEND": "airflow_providers_secrets.backends.aws_smm.SystemsManagerParameterStoreBackend"
            },
            "did you mean",
        ),
        ({"AIRFLOW__SECRETS__BACKEND": "aws_ssm"}, f"did you mean {SsmRig.class_path}?"),
        pytest.param(
            {"AIRFLOW__SECRETS__BACKEND": "no.such.Class"}, "cannot be imported", marks=pytest.mark.each_airflow
        ),
        (
            {"AIRFLOW__SECRETS__BACKEND": SsmRig.class_path, "AIRFLOW__SECRETS__BACKEND_KWARGS": "{S3cr3t"},
            "not valid JSON",
        ),
        (
            {"AIRFLOW__SECRETS__BACKEND": SsmRig.class_path, "AIRFLOW__SECRETS__BACKEND_KWARGS": '{"cache_tll": 1}'},
            "did you mean 'cache_ttl'",
        ),
        pytest.param(
            {"AIRFLOW__SECRETS__BACKEND": "airflow.secrets.environment_variables.EnvironmentVariablesBackend"},
            "that speaks to one store; name one with --backend, and its options with --kwargs: aws_ssm, ",
            marks=pytest.mark.each_airflow,
        ),
    ],
    ids=["none", "typo", "short", "missing", "broken", "option", "foreign"],
)
def test_a_wrong_configuration_ends_in_one_line(airflow: Airflow, environment: dict[str, str], named: str) -> None:
    run = ran(airflow, "check", **environment)
    assert (run.code, named in run.errors, run.errors.count("\n")) == (2, True, 1), run.everything
    assert "S3cr3t" not in run.everything
    assert run.output == ""


def test_an_airflow_that_does_not_start_names_no_value_of_its_configuration(airflow: Airflow) -> None:
    """SQLAlchemy 1.4 has the whole URL in its words, and a broken airflow.cfg's lines are in its parser's."""
    broken = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql//airflow:S3cr3t@db.example.com/airflow"}
    run = ran(airflow, "check", "--backend", SsmRig.class_path, **broken)
    assert (run.code, run.errors.count("\n")) == (2, 1), run.everything
    assert "Airflow does not start with its configuration: ArgumentError" in run.errors
    assert "S3cr3t" not in run.everything
    (airflow.home / "airflow.cfg").write_text("[database]\nS3cr3t-in-a-line-of-its-own\n")
    run = ran(airflow, "check", "--backend", SsmRig.class_path)
    assert (run.code, run.errors.count("\n")) == (2, 1), run.everything
    assert "S3cr3t" not in run.everything


def test_a_backend_is_tried_past_a_broken_configuration(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm, "{broken")
    kwargs = airflow.home / "kwargs.json"
    kwargs.write_text(json.dumps(ssm.options()))
    run = ran(airflow, "check", "--backend", "aws_ssm", "--kwargs", f"@{kwargs}")
    assert run.code == 0, run.everything
    assert run.errors == ""


@pytest.mark.each_airflow
def test_the_metastore(airflow: Airflow, ssm: SsmRig, database: Path) -> None:
    """Written to, compared with, copied from."""
    airflow.use(ssm, {"connections_prefix": "/cli-metastore", "variables_prefix": "/cli-metastore-v"})
    airflow.environment["AIRFLOW__CORE__FERNET_KEY"] = KEY
    airflow.use_database(database)
    ssm.put("/cli-metastore/shared", "http://S3cr3t.example.com")
    run = ran(airflow, "copy", "--from", "configured", "--to", "metastore", "--apply", "-o", "json")
    assert run.code == 0, run.everything
    assert [item["state"] for item in json.loads(run.output)] == ["created"]
    listed = airflow.run("connections", "list", "--output", "json")
    assert [row["conn_id"] for row in json.loads(listed.last_line)] == ["shared"]
    run = ran(airflow, "explain", "conn", "shared", "-o", "json")
    explained = json.loads(run.output)
    assert (run.code, explained["winner"], explained["shadowed"]) == (0, "AWS SSM Parameter Store", ["metastore"])
    run = ran(airflow, "list", "conn", "--shadowed", "-o", "json")
    assert [row["shadows"] for row in json.loads(run.output)] == [["metastore"]]
    ssm.remove("/cli-metastore/shared")
    run = ran(airflow, "copy", "--from", "metastore", "--apply", "-o", "json")
    assert (run.code, [item["state"] for item in json.loads(run.output)]) == (0, ["created"]), run.everything
    assert airflow.run("variables", "set", "described", "S3cr3t", "--description", "S3cr3t").code == 0
    run = ran(airflow, "copy", "--from", "metastore", "--kind", "var", "-o", "json")
    (item,) = json.loads(run.output)
    assert (item["state"], item["reason"]) == ("create", "its description is not copied, its value alone")
    assert "S3cr3t" not in run.everything
    # A key that does not fit any more gives "invalid", never "different".
    other = "b3RoZXJrZXlvdGhlcmtleW90aGVya2V5b3RoZXJrZXk="
    assert airflow.run("connections", "add", "locked", "--conn-uri", "http://u:S3cr3t@h").code == 0
    run = ran(
        airflow, "copy", "--from", "metastore", "--match", "locked", "-o", "json", AIRFLOW__CORE__FERNET_KEY=other
    )
    (item,) = json.loads(run.output)
    assert (run.code, item["state"]) == (1, "invalid"), run.everything
    assert "S3cr3t" not in run.everything
    run = ran(airflow, "copy", "--from", "metastore", "--kind", "var", "-o", "json", AIRFLOW__CORE__FERNET_KEY=other)
    (item,) = json.loads(run.output)
    assert (run.code, item["state"], "S3cr3t" in run.everything) == (1, "invalid", False), run.everything
    assert "fernet_key" in item["reason"]
    # Nor is it what Airflow takes the connection from.
    run = ran(airflow, "explain", "conn", "locked", AIRFLOW__CORE__FERNET_KEY=other)
    assert "✗ metastore: holds it, but Airflow cannot use it: Airflow's [core] fernet_key" in run.output, run.everything
    assert (run.code, "Airflow finds it nowhere." in run.output) == (1, True)


def test_a_connection_in_the_metastore_is_overwritten_as_a_whole(
    airflow: Airflow, database: Path, tmp_path: Path
) -> None:
    """The credential of the old host must not stay for the new one."""
    airflow.environment["AIRFLOW__CORE__FERNET_KEY"] = KEY
    airflow.use_database(database)
    path = tmp_path / "connections.json"
    copy = ["copy", "--from", f"file:{path}", "--kind", "conn", "--to", "metastore", "--apply", "--overwrite"]
    old = {"conn_type": "http", "host": "old", "login": "u", "password": "S3cr3t", "extra": {"token": "S3cr3t"}}
    for connection, state in ((old, "created"), ({"conn_type": "http", "host": "new"}, "overwritten")):
        path.write_text(json.dumps({"db": connection}))
        run = ran(airflow, *copy, "-o", "json")
        (item,) = json.loads(run.output)
        assert (run.code, item["state"]) == (0, state), run.everything
    shown = airflow.run("connections", "get", "db", "--output", "json")
    assert (shown.fields, "S3cr3t" in shown.output) == ({"conn_type": "http", "host": "new"}, False)


def test_a_row_that_appears_meanwhile_is_not_written_over(airflow: Airflow, database: Path) -> None:
    """Between the comparison, which found none, and the write."""
    airflow.use_database(database)
    run = airflow.python(
        """
        from airflow_providers_secrets.cli.endpoints import ToMetastore
        from airflow_providers_secrets.errors import SecretsError

        target = ToMetastore()
        for kind, kept, lost in (("variables", "kept", "lost"), ("connections", "http://kept", "http://lost")):
            target.write(kind, "raced", kept, only_if_absent=True)
            try:
                target.write(kind, "raced", lost, only_if_absent=True)
            except SecretsError as error:
                print("TOLD", error, "kept" in target.text(kind, "raced"))
            target.write(kind, "raced", lost, only_if_absent=False)
            print("TOLD", "lost" in target.text(kind, "raced"))
        """
    )
    told = [line for line in run.output.splitlines() if line.startswith("TOLD")]
    assert told == ["TOLD The metastore has 'raced' already. True", "TOLD True"] * 2, run.everything


def test_what_the_metastore_does_not_take_is_found_before_any_write(
    airflow: Airflow, database: Path, tmp_path: Path
) -> None:
    airflow.use_database(database)
    refused = ["a b", "a@b", "x,y", "x" * 251]
    connections = {conn_id: {"conn_type": "http", "host": "h"} for conn_id in (*refused, "good")}
    if VERSION >= (3, 0):
        connections |= {
            f"extra{i}": {"conn_type": "http", "host": "h", "extra": extra} for i, extra in enumerate(("S3cr3t", "[1]"))
        }
    longest = "x" * 250
    connections["untyped"] = {"host": "h"}
    held = {"connections": connections, "variables": {longest + "x": "S3cr3t", longest: "S3cr3t", "a b": "S3cr3t"}}
    (tmp_path / "held.json").write_text(json.dumps(held))
    for more, state in (([], "create"), (["--apply"], "created")):
        run = ran(airflow, "copy", "--from", f"file:{tmp_path}/held.json", "--to", "metastore", "-o", "json", *more)
        items = {(item["kind"], item["id"]): item for item in json.loads(run.output)}
        taken = {("connections", "good"), ("variables", "a b"), ("variables", longest)}
        assert {one: item["state"] for one, item in items.items()} == {
            one: state if one in taken else "invalid" for one in items
        }
        assert (run.code, "sql_alchemy_conn" in run.everything, "S3cr3t" in run.everything) == (1, False, False)
        assert "does not try the right to write" not in run.everything  # it takes none of a policy
        told = "it has no connection type, which the metastore needs"
        assert items["connections", "untyped"]["reason"] == told
    if VERSION >= (3, 0):
        refusal = "which Airflow 3.0 and 3.1 need" if VERSION < (3, 2) else "which the metastore needs"
        assert items["connections", "extra0"]["reason"] == f"its extra is not a JSON object, {refusal}"


def test_a_rows_extra_that_is_no_object_is_not_told_as_another_key(
    airflow: Airflow, ssm: SsmRig, database: Path
) -> None:
    """Airflow 2 let it in, and Airflow 3 does not hand it out."""
    airflow.use(ssm)
    airflow.use_database(database)
    with contextlib.closing(sqlite3.connect(airflow.home / "airflow.db")) as rows:
        rows.execute(
            "INSERT INTO connection (conn_id, conn_type, extra, is_encrypted, is_extra_encrypted) "
            "VALUES ('old', 'http', 'S3cr3t', 0, 0)"
        )
        rows.commit()
    run = ran(airflow, "explain", "conn", "old")
    assert ("fernet_key" in run.everything, "S3cr3t" in run.everything) == (False, False), run.everything
    assert ("its extra is not a JSON object" in run.output) == (VERSION >= (3, 0)), run.everything


def test_a_journal_is_of_one_metastore(airflow: Airflow, database: Path, tmp_path: Path) -> None:
    """What was verified in one database says nothing of another."""
    (tmp_path / "variables.json").write_text('{"x": "S3cr3t"}')
    copy = ["copy", "--from", f"file:{tmp_path}/variables.json", "--kind", "var", "--to", "metastore", "--apply"]
    airflow.use_database(database)
    other = shutil.copy(database, tmp_path / "other.db")
    for environment in ({}, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{other}"}):
        run = ran(airflow, *copy, "--journal", f"{tmp_path}/j", "--resume", "-o", "json", **environment)
        (item,) = json.loads(run.output)
        assert (run.code, item["state"]) == (0, "created"), run.everything


def test_an_empty_variable_is_the_same_as_itself(airflow: Airflow, database: Path, tmp_path: Path) -> None:
    (tmp_path / "variables.json").write_text('{"x": ""}')
    copy = ["copy", "--from", f"file:{tmp_path}/variables.json", "--kind", "var", "--to", "metastore", "-o", "json"]
    airflow.use_database(database)
    for more, state in ((["--apply"], "created"), ([], "same")):
        run = ran(airflow, *copy, *more)
        (item,) = json.loads(run.output)
        assert (run.code, item["state"]) == (0, state), run.everything


@pytest.mark.skipif(VERSION < (3, 2), reason="providers add commands from Airflow 3.2 on")
def test_airflows_own_command_has_the_group(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm)
    run = airflow.run("secrets-store", "check", "-o", "json")
    assert run.code == 0, run.everything
    assert json.loads(run.output)["verdict"] == "healthy"
    run = airflow.run("secrets-store", "get", "var", "never-there")
    assert run.code == 1, run.everything
    for line in (["uri"], ["put", "conn", "x"]):  # Airflow's parser knows nothing of arguments that exclude each other
        run = airflow.run("secrets-store", *line, "--conn-type", "http", "--ask-password", "--password-stdin")
        assert (run.code, "--ask-password and --password-stdin both give the password" in run.everything) == (2, True)


@pytest.mark.skipif(VERSION < (3, 2), reason="providers add commands from Airflow 3.2 on")
def test_a_wrong_use_of_the_group_ends_in_one_line(airflow: Airflow) -> None:
    """As that of the console script, without Airflow's help before it and without what may be a password."""
    told = {}
    script = (
        "import contextlib, io, json, sys\n"
        "from airflow.cli.cli_parser import get_parser\n"
        "parser = get_parser()\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "            parser.parse_args(['secrets-store', *line.split()])\n"
        "    except SystemExit as ended:\n"
        "        print('TOLD', json.dumps([line, ended.code, out.getvalue(), err.getvalue()]))\n"
    )
    run = airflow._run([sys.executable, "-c", script, json.dumps(list(WRONG))], {})
    for said in run.printed("TOLD"):
        line, code, out, err = json.loads(said)
        told[line] = err
        name = line.split()[0]
        assert (code, out) == (2, ""), said
        assert err.startswith(f"airflow secrets-store {name}: "), said
        assert err.endswith(f"; see airflow secrets-store {name} --help\n"), said
        assert WRONG[line] in err.replace('"', "'").replace("from conn", "from 'conn'")
        assert err.count("\n") == 1
        assert "S3cr3t" not in err
    assert set(told) == set(WRONG), run.everything


def test_an_interrupt_ends_in_one_line(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm, {"timeout": 100, "read_timeout": 100})  # or it could end by itself before
    with ssm.fault("hang"):
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_providers_secrets.cli", "get", "var", "x"],
            env={**airflow.environment},
            cwd=airflow.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with ssm.counted():
            before = len(ssm.calls)
            while len(ssm.calls) == before:
                assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors.count("\n")) == (130, "", 1), errors
    assert "interrupted" in errors


@pytest.mark.measured
@pytest.mark.parametrize("arguments", [["--help"], ["uri", "--conn-type", "http", "--host", "x"]], ids=["help", "uri"])
def test_what_needs_no_airflow_starts_at_once(arguments: list[str]) -> None:
    code = (
        "import sys, time\n"
        "from airflow_providers_secrets.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert 'airflow' not in sys.modules\n"
        "print(time.process_time(), file=sys.stderr)\n"
    )
    took = [
        float(
            subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stderr
        )
        for _ in range(3)
    ]
    assert min(took) <= 0.3, took


@pytest.mark.each_airflow
def test_the_cache_is_shown_and_cleared(airflow: Airflow, ssm: SsmRig, tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    airflow.use(ssm, {"shared_cache": f"file://{directory}"}, AIRFLOW__CORE__FERNET_KEY=KEY)
    ssm.put("/airflow/variables/cached", "S3cr3t-value")
    assert ran(airflow, "cache", "show").code == 1
    assert airflow.run("variables", "get", "cached").code == 0
    run = ran(airflow, "cache", "show", "-o", "json")
    (shown,) = json.loads(run.output)
    assert (run.code, shown["entries"] >= 1, shown["fresh"] >= 1) == (0, True, True), run.everything
    run = ran(airflow, "cache", "show", "--id", "var:cached", "-o", "json")
    assert "present" in run.output, run.everything
    assert "S3cr3t" not in run.everything
    assert ran(airflow, "cache", "clear", "--id", "var:cached").code == 0
    assert ran(airflow, "cache", "show", "--id", "var:cached").code == 1
    assert ran(airflow, "cache", "clear").code in (0, 1)
    assert not [entry for entry in (directory / "entries-1").iterdir() if len(entry.name) == 64]


def test_a_metastore_that_is_away_is_no_absence(airflow: Airflow, ssm: SsmRig) -> None:
    airflow.use(ssm)
    away = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow.home}/nowhere/airflow.db"}
    run = ran(airflow, "explain", "var", "nowhere", **away)
    assert (run.code, "! metastore: not to be asked" in run.output) == (3, True), run.everything
    assert "Not found in what could be asked: metastore was not.\n" in run.output
    run = ran(airflow, "explain", "var", "of_env", AIRFLOW_VAR_OF_ENV="S3cr3t", **away)
    assert (run.code, "Airflow takes it from: environment." in run.output) == (0, True), run.everything


def test_a_missing_path_of_the_options_is_told(command: Command) -> None:
    said = command("check", "--backend", "aws_ssm", "--kwargs", "@")
    assert (said.code, said.err) == (2, "airflow-secrets check: the path of a file is missing; write --kwargs @FILE.\n")


def test_empty_options_of_an_unset_variable_are_refused(command: Command) -> None:
    """They must not stand for none, or for the configured ones."""
    said = command("policy", "--backend", "aws_ssm", "--kwargs", "")
    assert (said.code, said.out) == (2, "")
    assert "--kwargs is not valid JSON" in said.err
