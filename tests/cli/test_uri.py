"""``airflow-secrets uri``: what it prints is what Airflow's own parser reads back."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_providers_secrets.cli import main, reading
from airflow_providers_secrets.errors import ConfigurationError, Unusable
from airflow_providers_secrets.lookup import decoding
from airflow_providers_secrets.lookup.connection_text import fields_of, json_of, uri_of
from tests.cli.conftest import Command
from tests.support.airflow_process import PACKAGE_ROOT as ROOT
from tests.support.airflow_process import VERSION

SPECIAL = "p:/?#[]@!$&'()*+,;=% é日本\"\\"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["uri", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert out.count("\n") == 1
    return out.removesuffix("\n")


def parsed(text: str) -> dict[str, Any]:
    from airflow.models.connection import Connection

    connection = Connection(uri=text) if "://" in text else Connection.from_json(text)
    fields = ("conn_type", "host", "login", "password", "port", "schema", "extra_dejson")
    return {name: getattr(connection, name) for name in fields}


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["uri", "json"])
@pytest.mark.parametrize(
    "extra",
    [{}, {"region_name": "eu-west-1", "role_arn": "arn:aws:iam::123456789098:role/x"}, {"a": 1, "b": {"c": [None]}}],
    ids=["none", "text", "nested"],
)
def test_airflow_reads_the_fields_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: list[str], extra: dict[str, Any]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(SPECIAL + "\n"))
    arguments = ["--host", "db.example.com", "--login", SPECIAL, "--port", "5432", "--schema", "a/b c"]
    text = printed(
        capsys,
        "--conn-type",
        "google_cloud_platform",
        *arguments,
        "--extra",
        json.dumps(extra),
        "--password-stdin",
        *form,
    )
    assert parsed(text) == {
        "conn_type": "google_cloud_platform",
        "host": "db.example.com",
        "login": SPECIAL,
        "password": SPECIAL,
        "port": 5432,
        "schema": "a/b c",
        "extra_dejson": extra,
    }
    assert decoding.connection(text) == text


def test_the_connection_of_the_mwaa_guide(capsys: pytest.CaptureFixture[str]) -> None:
    """Scenario S4: from its fields, in a shell, without a Python session."""
    extra = {"role_arn": "arn:aws:iam::123456789098:role/role-name", "region_name": "us-east-1"}
    text = printed(capsys, "--conn-type", "aws", "--extra", json.dumps(extra))
    assert text.startswith("aws://")
    assert parsed(text)["extra_dejson"] == extra


def test_host_with_a_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--conn-type", "http", "--host", "https://example.com")
    assert parsed(text)["host"] == "https://example.com"


def test_extra_from_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"aws_secret_access_key": "x"}'))
    assert parsed(printed(capsys, "--conn-type", "aws", "--extra", "-"))["extra_dejson"] == {
        "aws_secret_access_key": "x"
    }


def test_password_by_prompt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ask_secret", lambda *_: SPECIAL)
    assert parsed(printed(capsys, "--conn-type", "postgres", "--ask-password"))["password"] == SPECIAL


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--conn-type", "x", "--password", "S3cr3t"], "--password"),
        (["--conn-type", "x", "--password=S3cr3t"], "--password"),
        (["--conn-type", "x", "--password-stdin=S3cr3t"], "--password-stdin"),
        (["--conn-type", "x", "--p=S3cr3t\nS3cr3t"], "--p"),
        (["--conn-type", "x", "--extra", '{"password": "S3cr3t"'], "--extra"),
        (["--conn-type", "x", "--extra", '"S3cr3t"'], "--extra"),
        (["--conn-type", "x", "--extra", "-", "--password-stdin"], "--ask-password"),
        (["--conn-type", "x", "--ask-password", "--password-stdin"], "--password-stdin"),
        (["--conn-type", "x y", "--host", "h"], "--json"),
        (["--conn-type", "x", "--port", "70000"], "--port"),
        (["--host", "h"], "--conn-type"),
        (["--parse", "--host", "h"], "--parse reads a connection; leave it or the fields out"),
        (["S3cr3t", "--conn-type", "x"], "values"),
    ],
)
def test_wrong_use_is_named_without_any_value(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    try:
        code: object = main(["uri", *arguments])
    except SystemExit as exit_:
        code = exit_.code
    said = capsys.readouterr()
    assert code == 2
    assert named in said.err
    assert "S3cr3t" not in said.err
    assert said.out == ""


def test_fields_that_a_uri_cannot_carry_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A URI has no place for a description."""
    arguments = ["--conn-type", "http", "--description", "x"]
    assert main(["uri", *arguments]) == 2
    assert "--json prints it" in capsys.readouterr().err
    assert json.loads(printed(capsys, *arguments, "--json")) == {"conn_type": "http", "description": "x"}


def test_back_to_fields(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("postgresql://u:p%40@Db.Example.com:5432/sales?a=b"))
    assert main(["uri", "--parse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "conn_type": "postgres",
        "login": "u",
        "password": "p@",
        "host": "db.example.com",
        "port": 5432,
        "schema": "sales",
        "extra": {"a": "b"},
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO("S3cr3t-value"))
    assert main(["uri", "--parse"]) == 2
    assert "S3cr3t" not in capsys.readouterr().err


def test_standard_input_is_utf_8_whatever_the_locale(command: Command) -> None:
    arguments = ["uri", "--conn-type", "http", "--json", "--password-stdin"]
    assert command(*arguments, stdin="pä\r\nß\r\n".encode()).json["password"] == "pä\r\nß"


@pytest.mark.parametrize(("stdin", "kept"), [("k\r", "k\r"), ("k\n\n", "k\n"), ("k\r\n", "k"), ("k\r\r\n", "k\r")])
def test_one_newline_at_the_end_of_standard_input_is_dropped(command: Command, stdin: str, kept: str) -> None:
    """A carriage return of its own is a part of the value."""
    arguments = ["uri", "--conn-type", "http", "--json", "--password-stdin"]
    assert command(*arguments, stdin=stdin.encode()).json["password"] == kept


@pytest.mark.parametrize("stdin", [b"S3cr3t\xff", b"S3cr3t\xed\xb3\xbf"], ids=["byte", "surrogate"])
def test_what_is_not_utf_8_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch, stdin: bytes) -> None:
    said = command("uri", "--conn-type", "http", "--json", "--password-stdin", stdin=stdin)
    assert (said.code, said.out) == (2, ""), said.everything
    assert said.err == "airflow-secrets uri: standard input is not UTF-8 text.\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "latin-1"))
    with pytest.raises(ConfigurationError) as caught:
        reading.standard_input()
    # A decoding error would carry the whole of it.
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=12)
FIELDS = st.fixed_dictionaries(
    {"conn_type": st.sampled_from(["postgres", "http", "google_cloud_platform", "my_type2"])},
    optional={
        "host": st.from_regex(r"(https://)?[A-Za-z0-9.-]{1,20}", fullmatch=True) | TEXT,
        "login": TEXT,
        "password": TEXT,
        "port": st.integers(1, 65535),
        "schema": TEXT,
        "extra": st.dictionaries(TEXT, TEXT | st.integers(), min_size=1, max_size=3),
    },
)


@settings(
    max_examples=int(os.environ.get("SECRETS_TEST_EXAMPLES", "150")),
    derandomize="SECRETS_TEST_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(FIELDS)
@example({"conn_type": "postgres", "password": "a/b"})
@example({"conn_type": "http", "host": "https://example.com", "port": 8080})
@example({"conn_type": "http", "host": "Capitals.example.com"})
def test_uris_are_read_as_airflow_reads_them(fields: dict[str, Any]) -> None:
    """Ours by Airflow, and Airflow's own by us: the same fields, or a refusal."""
    from airflow.models.connection import Connection

    def by_airflow(connection: Any) -> dict[str, Any]:
        named = ("conn_type", "host", "login", "password", "port", "schema")
        found = {name: getattr(connection, name) for name in named} | {"extra": connection.extra_dejson}
        return {name: value for name, value in found.items() if value not in (None, "", {})}

    assert fields_of(json_of(fields)) == fields
    try:
        text = uri_of(fields)
    except Unusable:
        return
    assert by_airflow(Connection(uri=text)) == fields
    extra = json.dumps(fields["extra"]) if "extra" in fields else None
    theirs = Connection(**{**fields, "extra": extra}).get_uri()
    try:
        ours = fields_of(theirs)
    except Unusable:
        return
    assert ours == by_airflow(read_by_tasks(theirs))


def read_by_tasks(uri: str) -> Any:
    """What a task reads: from Airflow 3 on by the Task SDK, since the server's class takes a query's values for JSON."""
    if VERSION < (3, 0):
        from airflow.models.connection import Connection

        return Connection(uri=uri)
    from airflow.sdk.definitions.connection import Connection as TaskConnection

    if not hasattr(TaskConnection, "from_uri"):
        pytest.skip("this Task SDK reads no URI")
    return TaskConnection.from_uri(uri, conn_id="x")


def test_a_querys_values_are_kept_as_tasks_read_them() -> None:
    uri = "aws:///?external_id=1234567890&token=12e5&flag=true"
    extra = {"external_id": "1234567890", "token": "12e5", "flag": "true"}
    assert read_by_tasks(uri).extra_dejson == extra
    written = json_of(fields_of(uri))
    assert json.loads(written)["extra"] == extra
    assert fields_of(uri_of(fields_of(written))) == fields_of(written)


def test_the_users_own_airflow_takes_no_part(tmp_path: Any) -> None:
    """Not even a configuration that stops every Airflow command."""
    run = subprocess.run(
        [sys.executable, "-m", "airflow_providers_secrets.cli", "uri", "--conn-type", "postgres", "--password-stdin"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "AIRFLOW__SECRETS__BACKEND": "airflow_providers_secrets.backends.aws_ssm.SystemsManagerParameterStoreBackend",
            "AIRFLOW__SECRETS__BACKEND_KWARGS": "{broken",
        },
        input="a/b",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "postgres://:a%2Fb@\n"), run.stderr
    assert run.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_fractions_are_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"conn_type": "http", "extra": {"timeout": 0.25}}'))
    assert main(["uri", "--parse"]) == 0
    assert capsys.readouterr().out == "conn_type: http\nextra:\n  timeout: 0.25\n"


def test_an_empty_password_is_refused(command: Command) -> None:
    """It is what is left of a command that failed in front of the pipe."""
    for stdin in ("", "\n"):
        said = command("uri", "--conn-type", "http", "--password-stdin", stdin=stdin)
        assert (said.code, said.out) == (2, ""), said.everything
        assert "no password came on standard input" in said.err


@pytest.mark.parametrize("other", [["--stdin"], ["--conn-type", "http", "--password-stdin"], ["--extra", "-"]])
def test_two_readers_of_standard_input_are_refused(command: Command, other: list[str]) -> None:
    said = command("put", "conn", "x", "--backend", "aws_ssm", "--kwargs", "-", *other, stdin="{}")
    assert (said.code, said.out) == (2, ""), said.everything
    assert "--kwargs - and --" in said.err
    assert "both read standard input; --kwargs takes a file, too: @FILE." in said.err


NESTED = "[" * 100_000 + "]" * 100_000
"""JSON that Python's parser gives up on by a RecursionError, which is no ValueError."""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["uri", "--conn-type", "x", "--extra", NESTED], "--extra is not a JSON object"),
        (["uri", "--conn-type", "x", "--extra", f'{{"a": {NESTED}}}'], "--extra is not a JSON object"),
        (["put", "conn", "x", "--kwargs", NESTED, "--stdin"], "--kwargs is not a JSON object"),
        (["put", "conn", "x", "--kwargs", f'{{"a": {NESTED}}}', "--stdin"], "--kwargs is not a JSON object"),
    ],
    ids=["extra", "in-extra", "kwargs", "in-kwargs"],
)
def test_json_that_is_nested_too_deeply_is_refused(command: Command, arguments: list[str], told: str) -> None:
    said = command(*arguments)
    assert (said.code, said.out) == (2, ""), said.err
    assert told in said.err


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["uri", "json"])
def test_json_that_is_nested_almost_too_deeply_is_printed_or_refused(command: Command, form: list[str]) -> None:
    """What is read by one step may be too deep for the next, which needs more of the stack for it."""
    for levels in (*range(300, 900, 100), *range(900, sys.getrecursionlimit(), 10)):
        extra = f'{{"a": {"[" * levels}{"]" * levels}}}'
        said = command("uri", "--conn-type", "x", "--extra", extra, *form)
        assert said.code in (0, 2), (levels, said.err)
        assert "RecursionError" not in said.err
    for levels in range(300, sys.getrecursionlimit(), 50):
        said = command("uri", "--parse", stdin=f'{{"conn_type": "x", "extra": {{"a": {"[" * levels}{"]" * levels}}}}}')
        assert said.code in (0, 2), (levels, said.err)
        assert "RecursionError" not in said.err
