"""A chain's options, and its members that are of no store of this package."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import pytest
from airflow.secrets.base_secrets import BaseSecretsBackend

from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.backends.chain import SHORT_NAMES, ChainBackend
from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, StoreUnavailable

HERE = __name__
SSM = {"backend": "aws_ssm", "kwargs": {"region_name": "eu-west-1"}}


def chain(*members: Any) -> ChainBackend:
    return ChainBackend(backends=list(members))


def refusal(*members: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        chain(*members)
    assert raised.value.__cause__ is None
    return str(raised.value)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def locals_on(tb: Any) -> str:
    """What an error tracker would send of the frames below the test's own."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(tb.tb_next), capture_locals=True)
    assert frames
    return repr([frame.locals for frame in frames])


# Backends of other packages.


class Recorder(BaseSecretsBackend):
    """Notes how it was called."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__()
        self.answer = answer
        self.calls: list[Any] = []


class WithTeams(Recorder):
    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> Any:
        self.calls.append((conn_id, team_name))
        return self.answer

    def get_variable(self, key: str, team_name: str | None = None) -> Any:
        self.calls.append((key, team_name))
        return self.answer


class WithoutTeams(Recorder):
    def get_conn_value(self, conn_id: str) -> Any:  # type: ignore[override]
        self.calls.append(conn_id)
        return self.answer

    def get_variable(self, key: str) -> Any:  # type: ignore[override]
        self.calls.append(key)
        return self.answer

    def get_config(self, key: str) -> Any:
        self.calls.append(key)
        return self.answer


class OfObjects(Recorder):
    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        from airflow.models.connection import Connection

        return Connection(conn_id=conn_id, **self.answer) if self.answer else None


class OfAnotherFormat(WithTeams):
    def deserialize_connection(self, conn_id: str, value: str) -> Any:
        return super().deserialize_connection(conn_id, value.replace("|", "://"))


class VariablesAlone(Recorder):
    def get_variable(self, key: str, **_: Any) -> Any:
        return self.answer


class Failing(BaseSecretsBackend):
    def __init__(self, error: str = "ValueError") -> None:
        self.error = error

    def _fail(self) -> Any:
        secret = "S3cr3t-local"
        if self.error == "AirflowSecretsBackendAccessDenied":
            from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

            raise AirflowSecretsBackendAccessDenied("S3cr3t-message " + secret)
        if self.error == "InvalidSecret":
            try:
                int(secret)
            except ValueError as error:
                raise InvalidSecret("S3cr3t-store", "x", "S3cr3t-code", "S3cr3t-advice") from error
        errors = {"ValueError": ValueError, "NotImplementedError": NotImplementedError, "Interrupt": KeyboardInterrupt}
        raise errors[self.error]("S3cr3t-message " + secret)

    def get_variable(self, key: str, team_name: str | None = None) -> Any:
        return self._fail()

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        return self._fail()


class Guarded(BaseSecretsBackend):
    def __init__(self, token: str) -> None:
        raise RuntimeError(f"bad token {token}")

    def get_variable(self, key: str, team_name: str | None = None) -> Any: ...


class WithAnything(Recorder):
    def get_variable(self, key: str, **how: Any) -> Any:
        self.calls.append((key, how))
        return self.answer


class OwnConfig(SystemsManagerParameterStoreBackend):
    """A subclass that looks configuration values up in its own way."""

    def get_config(self, key: str) -> str | None:
        return f"own {key}"


MetastoreOfOthers = type("MetastoreOfOthers", (type("MetastoreBackend", (BaseSecretsBackend,), {}),), {})


class Renaming(ChainBackend):
    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        return super().get_conn_value(f"renamed_{conn_id}", team_name)


class NoBackend:
    pass


def member(backend_class: type, answer: Any = None, **entry: Any) -> dict[str, Any]:
    kwargs = {} if answer is None else {"answer": answer}
    return {"backend": f"{HERE}.{backend_class.__name__}", "kwargs": kwargs, **entry}


# Options.


def test_short_names_are_the_modules_of_this_packages_backends() -> None:
    for short, path in SHORT_NAMES.items():
        if path.startswith("airflow_providers_secrets"):
            assert path.split(".")[-2] == short


def test_members_keep_order_name_and_position() -> None:
    backend = chain({"backend": "env"}, SSM, member(WithTeams))
    assert [(one.position, one.name) for one in backend.members] == [
        (1, "env"),
        (2, "aws_ssm"),
        (3, f"{HERE}.WithTeams"),
    ]
    assert isinstance(backend.members[1].backend, SystemsManagerParameterStoreBackend)
    assert "eu-west-1" not in repr(backend)


def test_an_empty_pattern_is_not_given_and_null_turns_a_kind_off() -> None:
    for value in ("", "{}", "[]", {}, []):
        (one,) = chain({"backend": "env", "variables": value}).members
        assert one.plan("variables", "x").reason is None
    (other,) = chain({"backend": "env", "variables": None}).members
    assert other.plan("variables", "x").reason == "its 'variables' is null, so it is never asked for variables"


def test_json_text_throughout_means_what_json_means() -> None:
    entries = [{"backend": "aws_ssm", "kwargs": json.dumps({"timeout": "3"}), "optional": "true", "config": "null"}]
    (one,) = ChainBackend(backends=json.dumps(entries)).members
    assert one.optional is True
    assert one.backend.options["timeout"] == 3.0
    assert one.plan("config", "x").reason == "its 'config' is null, so it is never asked for config"


@pytest.mark.parametrize(
    ("backends", "said"),
    [
        (None, "option 'backends' is missing"),
        ([], "option 'backends' is missing"),
        ({}, "option 'backends' is missing"),
        ({"backend": "env"}, "option 'backends' must be a list of objects"),
        (["env"], "option 'backends' must be a list of objects"),
        ('[{"backend": "S3cr3t"', "option 'backends' is not valid JSON (line 1, column 22)"),
        ("[" * 100_000, "option 'backends' is not valid JSON"),
    ],
)
def test_unusable_list_is_refused(backends: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ChainBackend(backends=backends)
    assert str(raised.value).startswith(f"ChainBackend: {said}")
    assert "S3cr3t" not in str(raised.value)


def test_unknown_option_of_the_chain_names_the_likely_one() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'backend'; did you mean 'backends'"):
        ChainBackend(backend=[])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "ChainBackend member 2: option 'backend' is missing: name a class by its path, or one of aws_ssm, "),
        ({"backend": "aws_smm"}, "ChainBackend member 2 (aws_smm): unknown backend; did you mean 'aws_ssm'?"),
        ({"backend": "zz"}, "ChainBackend member 2 (zz): unknown backend; name a class by its path, or one of "),
        ({**SSM, "conections": "x"}, "ChainBackend member 2 (aws_ssm): unknown option 'conections'; did you mean 'connections'?"),
        ({**SSM, "timeout": 3}, "ChainBackend member 2 (aws_ssm): option 'timeout' is the backend's own. Move it into 'kwargs'."),
        ({**SSM, "connections": "("}, "ChainBackend member 2 (aws_ssm): option 'connections' is not a regular expression: "),
        ({**SSM, "optional": "S3cr3t"}, "ChainBackend member 2 (aws_ssm): option 'optional' must be true or false."),
        ({**SSM, "kwargs": ["S3cr3t"]}, "ChainBackend member 2 (aws_ssm): option 'kwargs' must be a JSON object."),
        (
            {"backend": "aws_ssm", "kwargs": {"connection_prefix": "S3cr3t"}},
            "ChainBackend member 2 (aws_ssm): SystemsManagerParameterStoreBackend: unknown option 'connection_prefix'; did",
        ),
        ({"backend": "no_such_package.X"}, "ChainBackend member 2 (no_such_package.X): it cannot be imported (no module named 'no_such_package')."),
        ({"backend": f"{HERE}.Absent"}, f"ChainBackend member 2 ({HERE}.Absent): it cannot be imported ({HERE} has no 'Absent')."),
        ({"backend": f"{HERE}.chain"}, f"ChainBackend member 2 ({HERE}.chain): it is not a class."),
        ({"backend": f"{HERE}.NoBackend"}, f"ChainBackend member 2 ({HERE}.NoBackend): it has no method by which Airflow"),
        (
            {"backend": f"{HERE}.Recorder", "kwargs": {"answr": "S3cr3t"}},
            f"ChainBackend member 2 ({HERE}.Recorder): got an unexpected keyword argument 'answr'",
        ),
        (
            {"backend": f"{HERE}.Guarded", "kwargs": {"token": "S3cr3t"}},
            f"ChainBackend member 2 ({HERE}.Guarded): Guarded raised RuntimeError when constructed. Fix its 'kwargs'.",
        ),
        ({"backend": "env", "kwargs": {"x": 1}}, "ChainBackend member 2 (env): it has no options. Remove 'kwargs'."),
        ({"backend": "file"}, "ChainBackend member 2 (file): file: no file is named. Set one of connections_file_path, "),
        (
            {"backend": "file", "kwargs": {"connection_file_path": "x"}},
            "ChainBackend member 2 (file): file: unknown option 'connection_file_path'; did you mean 'connections_file_path'?",
        ),
        (
            {"backend": "file", "kwargs": {"connections_file_path": "connections.toml"}},
            "ChainBackend member 2 (file): file: option 'connections_file_path' holds 'connections.toml', which does not end in",
        ),
        (
            {"backend": "file", "kwargs": {"variables_file_path": "a\0b.json"}, "optional": True},
            r"ChainBackend member 2 (file): file: option 'variables_file_path' holds 'a\x00b.json', which has a NUL character",
        ),
        (
            {"backend": "file", "kwargs": {"connections_file_path": "/absent.json"}},
            "ChainBackend member 2 (file): connections_file_path '/absent.json' cannot be read: No such file or directory.",
        ),
        (
            {"backend": "chain", "kwargs": {"backends": [SSM]}},
            "ChainBackend member 2 (chain): a chain cannot be a member. List its members here instead.",
        ),
        (
            {"backend": "airflow_providers_secrets.backends.chain.ChainBackend", "kwargs": {"backends": [SSM]}},
            "ChainBackend member 2 (airflow_providers_secrets.backends.chain.ChainBackend): a chain cannot be a member.",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:40],
)  # fmt: skip
def test_wrong_entry_is_named_by_position_and_class(entry: dict[str, Any], said: str) -> None:
    message = refusal(SSM, entry)
    assert message.startswith(said)
    assert "S3cr3t" not in message


@pytest.mark.parametrize(
    "name",
    [
        "metastore",
        "airflow.secrets.metastore.MetastoreBackend",
        "airflow.sdk.execution_time.secrets.execution_api.ExecutionAPISecretsBackend",
    ],
)
def test_airflows_database_is_refused_with_the_reason(name: str) -> None:
    assert "workers have no access to it" in refusal({"backend": name})


def test_lost_backend_kwargs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", '{"backends": [{"S3cr3t": ')
    with pytest.raises(ConfigurationError, match="backend_kwargs is not valid JSON") as raised:
        ChainBackend()
    assert "S3cr3t" not in str(raised.value)


# Backends of other packages.


def test_a_team_is_named_to_whom_takes_one() -> None:
    backend = chain(member(WithTeams), member(WithoutTeams), member(VariablesAlone))
    assert backend.get_conn_value("c", "red") is None
    assert backend.get_variable("v", team_name="red") is None
    assert backend.get_config("k") is None
    assert [one.backend.calls for one in backend.members[:2]] == [[("c", "red"), ("v", "red")], ["c", "v", "k"]]


def test_a_team_is_named_to_whom_takes_anything() -> None:
    backend = chain(member(WithAnything))
    assert backend.get_variable("v", team_name="red") is None
    assert backend.members[0].backend.calls == [("v", {"team_name": "red"})]


def test_a_plan_for_a_team_names_its_own_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    ((_, plan),) = chain(SSM).plan("variables", "x", "red")
    assert plan.names == SystemsManagerParameterStoreBackend(**SSM["kwargs"]).plan("variables", "x", "red").names
    assert "red" in plan.names[0]


def test_a_subclass_looks_configuration_values_up_in_its_own_way() -> None:
    assert chain({**SSM, "backend": f"{HERE}.OwnConfig"}).get_config("k") == "own k"


def test_a_class_that_is_made_of_the_databases_is_refused() -> None:
    assert "Airflow's database cannot be a member" in refusal({"backend": f"{HERE}.MetastoreOfOthers"})


@pytest.mark.parametrize(
    ("chain_class", "pattern", "expected"), [(ChainBackend, "y", "of-another"), (Renaming, ".", "renamed")]
)
def test_what_is_awaited_is_what_is_looked_up(
    chain_class: type[ChainBackend], pattern: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the patterns of members, and by a subclass's own way, although the environment has an answer at hand."""
    monkeypatch.setenv("AIRFLOW_CONN_X", "http://of-env")
    monkeypatch.setenv("AIRFLOW_CONN_RENAMED_X", "http://renamed")
    backend = chain_class(backends=[{"backend": "env", "connections": pattern}, member(WithTeams, "http://of-another")])
    assert backend.get_conn_value("y") == "http://of-another"  # after which it is at hand
    assert asyncio.run(backend.aget_connection("x")).host == expected


@pytest.mark.parametrize("answer", ["", "text", "0"])
def test_a_variables_text_counts_even_if_it_is_empty(answer: str) -> None:
    assert chain(member(VariablesAlone, answer), member(WithTeams, "other")).get_variable("x") == answer


def test_an_empty_connection_is_none_as_for_airflow() -> None:
    assert chain(member(WithTeams, ""), member(WithTeams, "http://h")).get_conn_value("x") == "http://h"


@pytest.mark.parametrize("text", ["  ", "S3cr3t-only", "http://h:S3cr3t/x", '{"password": "S3cr3t"'])
def test_a_connection_that_airflow_would_swallow_is_named(text: str) -> None:
    with pytest.raises(InvalidSecret) as raised:
        chain(member(WithTeams, text), member(WithTeams, "http://h")).get_conn_value("x")
    assert str(raised.value).startswith(f"Chain member 1 ({HERE}.WithTeams) could not give 'x': ")
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"conn_type": "http", "host": "https://example.com", "port": 8080, "description": "why"},
        {"conn_type": "postgres", "login": "ü@/:", "password": "p%40:/?#", "schema": "s/s", "host": "h"},
        {"conn_type": "aws", "extra": '{"a": {"b": [1, null]}, "__extra__": "x"}'},
        {"uri": "google-cloud-platform://?extra__google_cloud_platform__key_path=%2Fkeys%2Fkey.json"},
        {"uri": "postgres://u:%40%2F%3A@[::1]:5432/db?sslmode=require"},
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_connection_object_loses_nothing(fields: dict[str, Any]) -> None:
    from airflow.models.connection import Connection

    made = Connection(conn_id="x", **fields)
    given = chain(member(OfObjects, fields)).get_connection("x")
    names = ("conn_id", "conn_type", "description", "host", "login", "password", "schema", "port", "extra")
    assert {name: getattr(given, name) for name in names} == {name: getattr(made, name) for name in names}


def test_an_absent_connection_object_is_none() -> None:
    assert chain(member(OfObjects)).get_conn_value("x") is None


def test_a_connection_in_a_format_of_its_own_is_read_by_its_own_class() -> None:
    given = chain(member(OfAnotherFormat, "postgres|u:p@h")).get_connection("x")
    assert (given.conn_type, given.login, given.password, given.host) == ("postgres", "u", "p", "h")
    assert chain(member(OfAnotherFormat)).get_connection("x") is None


def test_a_kind_that_a_class_does_not_look_up_is_skipped() -> None:
    backend = chain(member(VariablesAlone, "v"), member(WithTeams, "http://h"))
    assert backend.get_conn_value("x") == "http://h"
    assert [plan.reason for _, plan in backend.plan("connections", "x")] == [
        "this backend does not look up connections",
        None,
    ]


@pytest.mark.parametrize("method", ["get_variable", "get_conn_value"])
def test_another_packages_error_stops_the_chain_without_its_words(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    backend = chain(member(Failing), member(WithTeams, "http://decoy"))
    with pytest.raises(StoreUnavailable) as raised:
        getattr(backend, method)("x")
    assert str(raised.value) == (
        f"Chain member 1 ({HERE}.Failing) could not give 'x': ValueError. "
        "Fix what that backend reports, or set 'optional' of member 1 to true to pass it over."
    )
    assert "S3cr3t" not in locals_on(raised.tb) + caplog.text
    assert backend.members[1].backend.calls == []
    assert len(warned(caplog)) == 1


@pytest.mark.parametrize("error", ["InvalidSecret", "AirflowSecretsBackendAccessDenied"])
@pytest.mark.parametrize("method", ["get_variable", "get_conn_value"])
def test_no_error_of_another_package_keeps_its_words(error: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also one of this package's classes, and the one by which Airflow ends its search."""
    kind: Any = StoreUnavailable
    if error != "InvalidSecret":
        kind = getattr(pytest.importorskip("airflow.sdk.exceptions"), error, None)
        if kind is None:
            pytest.skip("no Airflow before 3.2.2 has it")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(kind, match=rf"Chain member 1 \({HERE}.Failing\) could not give 'x': {error}\. ") as raised:
        getattr(chain({"backend": f"{HERE}.Failing", "kwargs": {"error": error}}), method)("x")
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None
    assert "S3cr3t" not in str(raised.value) + locals_on(raised.tb) + caplog.text


def test_the_last_members_failure_is_warned_about_if_it_is_of_another_package(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those of this package warn by themselves."""
    with pytest.raises(StoreUnavailable):
        chain(member(WithTeams), member(Failing)).get_variable("x")
    (warning,) = warned(caplog)
    assert warning.startswith(f"Chain member 2 ({HERE}.Failing) failed, and no other member is asked: ")


def test_what_is_not_implemented_is_told_how_to_turn_off() -> None:
    failing = {"backend": f"{HERE}.Failing", "kwargs": {"error": "NotImplementedError"}}
    with pytest.raises(StoreUnavailable, match=r"NotImplementedError\. Set 'variables' of member 1 to null\."):
        chain(failing).get_variable("x")


def test_an_optional_one_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    backend = chain(member(Failing, optional=True), member(WithTeams, "http://h"))
    assert backend.get_variable("x") == "http://h"
    assert warned(caplog)[0].startswith(f"Chain member 1 ({HERE}.Failing) failed, and is passed over: ")


def test_airflows_denial_and_interrupts_pass_through_an_optional_member() -> None:
    decoy = member(WithTeams, "http://decoy")
    with pytest.raises(KeyboardInterrupt):
        chain({**member(Failing, optional=True), "kwargs": {"error": "Interrupt"}}, decoy).get_variable("x")
    denials = pytest.importorskip("airflow.sdk.exceptions")
    denial = getattr(denials, "AirflowSecretsBackendAccessDenied", None)
    if denial is None:
        pytest.skip("no Airflow before 3.2.2 has it")
    backend = chain({**member(Failing, optional=True), "kwargs": {"error": denial.__name__}}, decoy)
    with pytest.raises(denial):
        backend.get_variable("x")
    assert backend.members[1].backend.calls == []


@pytest.mark.parametrize("secret_id", [7, None, b"x"])
def test_an_id_that_is_no_text_reaches_nobody(secret_id: Any) -> None:
    backend = chain({"backend": "env"}, member(WithTeams, "x"), member(WithTeams, "x", variables="."))
    assert backend.get_variable(secret_id) is None
    assert all(plan.names == () for _, plan in backend.plan("variables", secret_id))


def test_no_pattern_is_tried_on_an_overlong_id() -> None:
    backend = chain(member(WithTeams, "x", variables="(a+)+$"))
    assert backend.get_variable("a" * 600 + "b") is None


def test_pattern_matches_from_the_start_and_ignores_case() -> None:
    backend = chain(member(WithTeams, "x", variables="prod_"))
    assert backend.get_variable("PROD_x") == "x"
    assert backend.get_variable("x_prod_") is None


def test_connection_class_reaches_every_member() -> None:
    if not hasattr(BaseSecretsBackend, "_set_connection_class"):
        pytest.skip("Airflow before 3.2 sets none")

    class Ours:
        pass

    backend = chain(member(WithTeams), SSM, {"backend": "env"})
    backend._set_connection_class(Ours)
    assert backend._get_connection_class() is Ours
    assert backend.members[0].backend._get_connection_class() is Ours
    assert backend.members[1].backend._get_connection_class() is Ours


# The environment.


def test_environment_is_read_as_airflow_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = chain({"backend": "env"}, member(WithoutTeams, "http://behind"))
    assert backend.get_conn_value("local_db") == "http://behind"
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_DB", "postgres://local")
    monkeypatch.setenv("AIRFLOW_VAR_GREETING", "")
    assert backend.get_conn_value("local_db") == "postgres://local"
    assert backend.get_variable("greeting") == ""
    assert backend.get_config("x") == "http://behind"
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_DB", "S3cr3t")
    with pytest.raises(InvalidSecret, match="'AIRFLOW_CONN_LOCAL_DB': it is neither") as raised:
        backend.get_conn_value("local_db")
    assert "S3cr3t" not in str(raised.value)


def test_class_path_of_airflows_own_backend_is_the_short_name(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"a": "1"}')
    for short in ("env", "file"):
        kwargs = {"variables_file_path": str(tmp_path / "v.json")} if short == "file" else {}
        by_path = chain({"backend": SHORT_NAMES[short], "kwargs": kwargs}).members[0].backend
        assert type(by_path) is type(chain({"backend": short, "kwargs": kwargs}).members[0].backend)


# Files.


def file_member(**kwargs: Any) -> dict[str, Any]:
    return {"backend": "file", "kwargs": {name: str(path) for name, path in kwargs.items()}}


@pytest.mark.parametrize(
    ("suffix", "connections", "variables"),
    [
        (".json", '{"a": "http://u:p@h", "b": {"conn_type": "x", "extra_dejson": {"k": 1}}}', '{"v": "one"}'),
        (".yaml", "a: http://u:p@h\nb:\n  conn_type: x\n  extra_dejson: {k: 1}\n", "v: one\n"),
        (".yml", "a: http://u:p@h\nb:\n  conn_type: x\n  extra_dejson: {k: 1}\n", "v: one\n"),
        (".env", "a=http://u:p@h\n# comment\nb=x://?k=1\n", "v=one\n"),
    ],
)  # fmt: skip
def test_files_are_of_airflows_formats(tmp_path: Path, suffix: str, connections: str, variables: str) -> None:
    (tmp_path / f"c{suffix}").write_text(connections)
    (tmp_path / f"v{suffix}").write_text(variables)
    backend = chain(
        file_member(
            connections_file_path=tmp_path / f"c{suffix}",
            variables_file_path=tmp_path / f"v{suffix}",
            configs_file_path=tmp_path / f"v{suffix}",
        )
    )
    assert backend.get_connection("a").password == "p"
    assert str(backend.get_connection("b").extra_dejson["k"]) == "1"
    assert backend.get_conn_value("absent") is None
    assert (backend.get_variable("v"), backend.get_variable("absent")) == ("one", None)
    assert backend.get_config("v") == "one"


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.secrets import local_filesystem

    parsed: list[str] = []
    parse = local_filesystem._parse_secret_file
    monkeypatch.setattr(local_filesystem, "_parse_secret_file", lambda path: parsed.append(path) or parse(path))
    path = tmp_path / "v.json"
    path.write_text('{"a": "1"}')
    entry = file_member(variables_file_path=path)
    backend = chain(entry, member(WithTeams, "behind"))
    assert parsed == []
    assert [backend.get_variable("a"), backend.get_variable("b"), chain(entry).get_variable("a")] == [
        "1",
        "behind",
        "1",
    ]
    assert len(parsed) == 1
    path.write_text('{"a": "2"}')
    os.utime(path, (1, 1))
    assert [backend.get_variable("a"), backend.get_variable("a")] == ["2", "2"]
    assert len(parsed) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": "S3cr3t",\n "b" "S3cr3t"}', "AirflowFileParseException in line 2"),
        ('{"a": {"S3cr3t": 1}}', "AirflowException"),
        ('{"a": {"conn_type": "x", "port": "S3cr3t"}, "b": ["http://S3cr3t", "http://S3cr3t"]}', "ConnectionNotUnique"),
    ],
)
def test_a_file_that_airflow_cannot_read_stops_the_chain_without_its_text(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InvalidSecret) as raised:
        chain(file_member(connections_file_path=path), member(WithTeams, "http://decoy")).get_conn_value("x")
    assert (
        str(raised.value)
        == f"File {str(path)!r} could not give 'x': {reason}. Fix the file; until then, none of it is used."
    )
    assert "S3cr3t" not in locals_on(raised.tb)


def test_a_file_that_is_gone_stops_the_chain_unless_it_is_optional(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.json"
    path.write_text("{}")
    entry = file_member(variables_file_path=path)
    backend = chain(entry, member(WithTeams, "behind"))
    path.unlink()
    with pytest.raises(StoreUnavailable, match=r"v.json' could not give 'x': No such file or directory\. "):
        backend.get_variable("x")
    caplog.clear()
    optional = chain({**entry, "optional": True}, member(WithTeams, "behind"))
    assert "cannot be read: No such file or directory" in warned(caplog)[0]
    assert optional.get_variable("x") == "behind"
    path.write_text('{"x": "here"}')
    assert optional.get_variable("x") == "here"


def test_construction_imports_no_more_than_the_members_own_classes() -> None:
    code = """
    import sys, airflow.configuration
    before = set(sys.modules)
    from airflow_providers_secrets.backends.chain import ChainBackend
    ChainBackend(backends=[{"backend": "env"}, {"backend": "file", "kwargs": {"variables_file_path": "/x.json"},
        "optional": True}, {"backend": "aws_ssm"}, {"backend": "aws_secrets_manager"}])
    print(sorted(m for m in set(sys.modules) - before if not m.startswith("airflow_providers_secrets.backends")
        and m.split(".")[0] in ("airflow", "boto3", "botocore", "sqlalchemy")
        or m.startswith(("airflow_providers_secrets.lookup.resolve", "airflow_providers_secrets.stores"))))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout.splitlines()[-1:] == ["[]"], run.stdout + run.stderr


# Pickles.


class OfOneFile(ChainBackend):
    """A subclass whose constructor takes other arguments."""

    def __init__(self, path: str) -> None:
        super().__init__(backends=[file_member(variables_file_path=path)])


def test_a_pickled_chain_looks_up_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_LOCAL", "S3cr3t-1")
    monkeypatch.setenv("AIRFLOW_VAR_UNASKED", "S3cr3t-2")
    (tmp_path / "v.json").write_text('{"unasked": "3", "v": "4"}')
    backend = chain(
        {"backend": "env", "variables": "local", "config": None},
        file_member(variables_file_path=tmp_path / "v.json"),
        {"backend": f"{__name__}.WithTeams", "connections": None, "kwargs": {"answer": "5"}},
        {"backend": "aws_ssm", "variables": "^prod", "kwargs": {"variables_prefix": "/team/vars"}, "optional": True},
    )
    assert backend.get_variable("v") == "4"  # which makes a member's own objects
    again = pickle.loads(pickle.dumps(backend))  # our own
    assert repr(again) == repr(backend)
    found = {key: again.get_variable(key) for key in ("local", "unasked", "v", "prod_db")}
    assert found == {"local": "S3cr3t-1", "unasked": "3", "v": "4", "prod_db": "5"}
    for kind, secret_id in (("variables", "prod_db"), ("variables", "x"), ("connections", "x"), ("config", "x")):
        planned = [(plan.names, plan.reason) for _, plan in again.plan(kind, secret_id)]
        assert planned == [(plan.names, plan.reason) for _, plan in backend.plan(kind, secret_id)]
    assert [member.optional for member in again.members] == [False, False, False, True]

    subclass = pickle.loads(pickle.dumps(OfOneFile(f"{tmp_path}/v.json")))  # our own
    assert (type(subclass), subclass.get_variable("v")) == (OfOneFile, "4")


@pytest.mark.skipif(
    not hasattr(BaseSecretsBackend, "_set_connection_class"), reason="Airflow before 3.2 sets no class of connections"
)
def test_the_members_of_a_pickled_chain_know_the_class_of_connections() -> None:
    backend = chain({"backend": f"{__name__}.WithTeams"}, SSM)
    backend._set_connection_class(dict)
    again = pickle.loads(pickle.dumps(backend))  # our own
    assert {member.backend._get_connection_class() for member in again.members} == {dict}
