"""Rules for every backend, on every server of its store."""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import os
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.backends.mixin import airflow_knows_denials
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import access, deadline, notices
from airflow_providers_secrets.stores.base import Store
from airflow_providers_secrets.testing.lookups import HOSTILE, LOOKUP, ONE_TRY, VALUE, Waits, ask, credentials, warned
from airflow_providers_secrets.testing.processes import BLOCKED_AFTER_AIRFLOW, run_python
from airflow_providers_secrets.testing.proxy import Request
from airflow_providers_secrets.testing.rig import FAULTS, Rig
from airflow_providers_secrets.testing.signals import (
    TimeIsUp,
    raised_in_the_main_thread,
    raised_where_a_wait_has_let_its_lock_go,
)

# Found and absent.


@pytest.mark.parametrize("kind", LOOKUP)
def test_found_by_one_request(rig: Rig, kind: str) -> None:
    rig.put(rig.path(kind, "found"), VALUE[kind])
    with rig.counted() as calls:
        assert ask(rig.backend(), kind, "found") == VALUE[kind]
    assert calls == [rig.path(kind, "found")]


@pytest.mark.parametrize("kind", LOOKUP)
def test_absent_is_none_after_one_request(rig: Rig, kind: str) -> None:
    with rig.counted() as calls:
        assert ask(rig.backend(), kind, "absent") is None
    assert calls == [rig.path(kind, "absent")]


def test_removed_is_seen_at_the_next_lookup(rig: Rig) -> None:
    backend, path = rig.backend(), rig.path("variables", "rotated")
    rig.put(path, "one")
    assert backend.get_variable("rotated") == "one"
    rig.put(path, "two")
    assert backend.get_variable("rotated") == "two"
    rig.remove(path)
    assert backend.get_variable("rotated") is None


def test_absent_config_value_is_warned_about_since_airflow_takes_its_default(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    backend = rig.backend()
    assert backend.get_config("no_such_option") is None
    assert backend.get_config("no_such_option") is None
    (warning,) = warned(caplog)
    assert "'no_such_option'" in warning
    assert "default" in warning


@pytest.mark.parametrize("kind", LOOKUP)
def test_null_base_turns_the_kind_off(rig: Rig, kind: str) -> None:
    rig.put(rig.path(kind, "switched-off"), VALUE[kind])
    for null in (None, "null"):
        backend = rig.backend(**{rig.prefix_option.format(kind=kind): null})
        with rig.counted() as calls:
            assert ask(backend, kind, "switched-off") is None
        assert calls == []


# Values.


@pytest.mark.parametrize(
    "value", ["14", '"mystring"', '{"a": [1]}', " padded ", "multi\nline", "日本語 ✓ é", "null", "x" * 4000]
)
def test_variable_is_given_as_typed(rig: Rig, value: str) -> None:
    rig.put(rig.path("variables", "typed"), value)
    assert rig.backend().get_variable("typed") == value


@pytest.mark.parametrize(
    "uri",
    [
        "http://https%3A%2F%2Fexample.com",
        "spark://spark%3A%2F%2Fspark-master-0.spark-master.spark:7077",
        "aws://?region_name=eu-west-1&role_arn=arn%3Aaws%3Aiam%3A%3A123456789098%3Arole%2Fx",
        "google-cloud-platform://?extra__google_cloud_platform__key_path=%2Fkeys%2Fkey.json",
        "postgres://ü:%40%2F%3A@[::1]:5432/db?sslmode=require",
        "http://https://example.com",
    ],
)
def test_connection_uri_is_given_as_typed(rig: Rig, uri: str) -> None:
    rig.put(rig.path("connections", "uri"), uri)
    assert rig.backend().get_conn_value("uri") == uri


@pytest.mark.parametrize(
    "fields",
    [
        {"conn_type": "http", "host": "https://example.com"},
        {"conn_type": "spark", "host": "spark://spark-master-0.spark-master.spark", "port": 7077},
        {"conn_type": "postgres", "login": "u", "password": "p", "schema": "s", "port": "5432", "extra": {"a": 1}},
        {"conn_type": "x", "description": "why", "extra": '{"a": 1}'},
    ],
)
def test_connection_json_keeps_its_fields(rig: Rig, fields: dict[str, Any]) -> None:
    rig.put(rig.path("connections", "json"), json.dumps(fields))
    given = json.loads(rig.backend().get_conn_value("json"))
    if "port" in fields:
        fields = {**fields, "port": int(fields["port"])}
    assert given == fields


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ("   ", "blank"),
        ("S3cr3t-only", "neither a JSON object nor a URI"),
        ('"postgres://u:S3cr3t@h"', "quotation marks"),
        ("postgres://u:S3cr3t/x@h", "percent-encode"),
        ("postgres://u:p@h:S3cr3t/x", "percent-encode"),
        ("my_type://u:S3cr3t@h", "underscore"),
        ("://u:S3cr3t@h", "connection type"),
        ("a://b://c://S3cr3t", "second '://'"),
        ('{"conn_type": "x", "password": "S3cr3t"', "not valid JSON"),
        ('{"conn_type": "x", "password": "S3cr3t", "port": "S3cr3t"}', "port"),
        ('{"conn_type": "x", "password": "S3cr3t", "port": 70000}', "port"),
        ('{"conn_type": "x", "password": ["S3cr3t"]}', "'password' is not text"),
        ('{"conn_type": "x", "password": "S3cr3t", "extra": 5}', "'extra'"),
    ],
)
def test_connection_that_airflow_would_swallow_is_named(
    rig: Rig, stored: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.put(rig.path("connections", "faulty"), stored)
    caplog.clear()  # of what the rig's own client logged
    with pytest.raises(InvalidSecret) as raised:
        rig.backend().get_conn_value("faulty")
    assert fault in str(raised.value)
    assert "S3cr3t" not in str(raised.value) + caplog.text


def test_password_of_digits_becomes_text(rig: Rig) -> None:
    rig.put(rig.path("connections", "digits"), '{"conn_type": "x", "password": 1234}')
    assert json.loads(rig.backend().get_conn_value("digits")) == {"conn_type": "x", "password": "1234"}


def test_no_value_is_logged_at_any_level(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.put(rig.path("variables", "canary"), "S3cr3t-canary")
    caplog.clear()  # of what the rig's own client logged
    caplog.set_level(logging.DEBUG)
    backend = rig.backend()
    assert backend.get_variable("canary") == "S3cr3t-canary"
    assert "S3cr3t" not in caplog.text
    for secret in credentials(rig):
        assert secret not in caplog.text


# Rules of lookup.


@pytest.mark.parametrize("kind", LOOKUP)
def test_lookup_pattern_keeps_other_ids_from_the_store(rig: Rig, kind: str) -> None:
    backend = rig.backend(**{f"{kind}_lookup_pattern": "^Test"})
    rig.put(rig.path(kind, "testing"), VALUE[kind])
    with rig.counted() as calls:
        assert ask(backend, kind, "a-test") is None
        assert ask(backend, kind, "testing") == VALUE[kind]
    assert calls == [rig.path(kind, "testing")]


@pytest.mark.parametrize("kind", LOOKUP)
def test_exclude_pattern_beats_lookup_pattern(rig: Rig, kind: str) -> None:
    backend = rig.backend(**{f"{kind}_lookup_pattern": "a", f"{kind}_exclude_pattern": "AWS"})
    with rig.counted() as calls:
        assert ask(backend, kind, "aws_default") is None
        assert ask(backend, kind, "another") is None
    assert calls == [rig.path(kind, "another")]


def test_empty_pattern_is_none(rig: Rig) -> None:
    rig.put(rig.path("variables", "found"), "x")
    assert rig.backend(variables_lookup_pattern="", variables_exclude_pattern="").get_variable("found") == "x"


def test_id_that_is_not_allowed_is_refused_with_one_warning(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    backend = rig.backend()
    with rig.counted() as calls:
        for kind in LOOKUP:
            for secret_id in (*HOSTILE, "x" * 513):
                notices._warned.clear()
                caplog.clear()
                assert ask(backend, kind, secret_id) is None
                assert ask(backend, kind, secret_id) is None
                (refusal,) = [message for message in warned(caplog) if "not looked up" in message]
                assert refusal.isprintable()
                assert len(refusal) < 400
    assert calls == []


# Teams (Airflow 3.2+, [core] multi_team).


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize("kind", ["connections", "variables"])
def test_team_reads_its_own_secret_first(rig: Rig, kind: str) -> None:
    own = VALUE[kind] + "-own"
    rig.put(rig.path(kind, "shared"), VALUE[kind])
    rig.put(rig.path(kind, "shared", team="red"), own)
    lookup_of = getattr(rig.backend(), LOOKUP[kind])
    with rig.counted() as calls:
        assert lookup_of("shared", team_name="red") == own
        assert lookup_of("shared") == VALUE[kind]
    assert calls == [rig.path(kind, "shared", team="red"), rig.path(kind, "shared")]


@pytest.mark.usefixtures("multi_team")
def test_no_two_teams_share_a_name(rig: Rig) -> None:
    """It tries short teams and ids made from the characters that names are built with."""
    backend = rig.backend()
    words = ["a", "b", "a-b", "a--b", "a-", "-b", "a_b", "-", "--", "b--c", "c", "a/b", "_"]
    owners: dict[str, set[tuple[str | None, str]]] = {}
    for team in [None, *words]:
        for secret_id in words:
            plan = backend.plan("variables", secret_id, team)
            own = plan.names[:1] if team else plan.names
            for name in own:
                if team and name == rig.path("variables", secret_id):
                    continue
                owners.setdefault(name, set()).add((team, secret_id))
    assert owners
    shared = {name: who for name, who in owners.items() if len({team for team, _ in who}) > 1}
    assert shared == {}


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize("team", ["..", "a/b", "../red", "", "é"])
def test_team_that_is_no_name_reaches_nothing_of_another_team(rig: Rig, team: str) -> None:
    with rig.counted() as calls:
        assert rig.backend().get_variable("absent", team_name=team) is None
    assert set(calls) <= {rig.path("variables", "absent")}


# Options.


def test_unknown_option_names_the_likely_one(rig: Rig) -> None:
    near = rig.prefix_option.format(kind="connection")
    with pytest.raises(ConfigurationError, match=f"did you mean '{rig.prefix_option.format(kind='connections')}'"):
        rig.backend(**{near: "x"})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("connections_lookup_pattern", "(S3cr3t"),
        ("variables_exclude_pattern", 5),
        ("timeout", "S3cr3t"),
        ("timeout", 0),
        ("connect_timeout", True),
        ("read_timeout", "inf"),
        ("max_attempts", 0),
        ("max_attempts", "2.5"),
        ("on_denied", "S3cr3t"),
        ("BASE", 5),
        ("BASE", True),
        ("BASE", {"S3cr3t": 1}),
        ("BASE", "S3cr3t\n"),
    ],
)
def test_unusable_option_is_refused_at_construction(rig: Rig, option: str, value: Any) -> None:
    option = option.replace("BASE", rig.prefix_option.format(kind="variables"))
    with pytest.raises(ConfigurationError, match=option) as raised:
        rig.backend(**{option: value})
    assert isinstance(raised.value, ValueError)
    if option.endswith(("timeout", "on_denied")):
        assert "S3cr3t" not in str(raised.value)


def test_raw_strings_mean_what_json_means(rig: Rig) -> None:
    backend = rig.backend(timeout="20", max_attempts="2", connections_lookup_pattern="null", on_denied="next")
    assert (backend.config.timeout, backend.config.max_attempts) == (20.0, 2)
    with rig.counted() as calls:
        assert backend.get_conn_value("absent") is None
    assert len(calls) == 1


@pytest.mark.parametrize("option", ["full_url_mode", "are_secret_values_urlencoded"])
def test_option_removed_upstream_is_ignored_with_a_warning(rig: Rig, option: str) -> None:
    with pytest.warns(DeprecationWarning, match=option):
        rig.backend(**{option: False})


def test_repr_holds_no_option(rig: Rig) -> None:
    quoted = repr(rig.backend())
    for value in rig.options().values():
        assert str(value) not in quoted


@pytest.mark.parametrize("policy", ["on_denied", "on_unavailable", "on_invalid", "on_revoked"])
def test_authoritative_denial_needs_an_airflow_that_knows_it(rig: Rig, policy: str) -> None:
    if not airflow_knows_denials():
        with pytest.raises(ConfigurationError, match=rf"{policy}.*3\.2\.2"):
            rig.backend(**{policy: "fail"})
        return
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

    backend = rig.backend(on_denied="fail", **ONE_TRY)
    with rig.fault("denied"), pytest.raises(AirflowSecretsBackendAccessDenied, match="could not give"):
        backend.get_variable("x")


@pytest.mark.each_rig_in_ci
def test_authoritative_denial_covers_a_missing_sdk(rig: Rig) -> None:
    if not airflow_knows_denials():
        with pytest.raises(ConfigurationError, match=r"3\.2\.2"):
            rig.backend(on_unavailable="fail")
        return
    module, _, name = rig.class_path.rpartition(".")
    code = BLOCKED_AFTER_AIRFLOW.format(sdk=rig.sdk) + (
        f"from {module} import {name} as Backend\n"
        f"backend = Backend(on_unavailable='fail', **{rig.options()!r})\n"
        "try:\n"
        "    backend.get_variable('x')\n"
        "except PermissionError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    run = run_python(code)
    assert "AirflowSecretsBackendAccessDenied" in run.stdout, run.stderr


# Faults.


ERROR = {
    "denied": AccessDenied,
    "throttled": StoreUnavailable,
    "server-error": StoreUnavailable,
    "proxy-404": LookupFailed,
    "malformed": LookupFailed,
    "truncated": LookupFailed,
    "reset": StoreUnavailable,
    "hang": StoreUnavailable,
    "drip": StoreUnavailable,
    "wrong-name": InvalidSecret,
}


NEVER_ENDING = ("hang", "drip")
"""Faults that only the deadline ends: no SDK's own time-outs do so in time."""


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_a_typed_error_in_time_that_tells_no_value(
    rig: Rig, fault: str, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    backend = rig.backend(**ONE_TRY)
    if fault in NEVER_ENDING:
        backend.get_variable("found")  # logs in, which may take a busy machine longer than the wait below
        waits.shortened = lambda _: 0.2
    with rig.fault(fault), pytest.raises(ERROR[fault]) as raised:
        backend.get_variable("found")
    assert ("no answer within 60 s" in str(raised.value)) is (fault in NEVER_ENDING)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    error = raised.value
    assert str(error).startswith(f"{backend.store} could not give {rig.path('variables', 'found')!r}: ")
    assert str(error).endswith(".")
    told = "".join(traceback.format_exception(error)) + repr(error) + "".join(warned(caplog))
    assert "S3cr3t" not in told
    for secret in credentials(rig):
        assert secret not in told


def test_a_fault_is_warned_about_once_a_minute(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(notices, "clock", lambda: now)
    backend = rig.backend(**ONE_TRY)
    with rig.fault("denied"):
        for passed, expected in ((0, 1), (59, 1), (61, 2)):
            now = 1000.0 + passed
            with pytest.raises(AccessDenied):
                backend.get_variable("found")
            assert len(warned(caplog)) == expected


def test_failure_is_retried_as_often_as_the_option_says(rig: Rig) -> None:
    for attempts in (1, 3):
        backend = rig.backend(max_attempts=attempts)
        with rig.fault("server-error"), rig.counted() as calls, pytest.raises(StoreUnavailable):
            backend.get_variable("found")
        assert len(calls) == attempts


def test_denial_is_not_retried(rig: Rig) -> None:
    backend = rig.backend()
    with pytest.raises(AccessDenied), rig.fault("denied"):
        backend.get_variable("found")  # a backend may log in again once
    with rig.fault("denied"), rig.counted() as calls, pytest.raises(AccessDenied):
        backend.get_variable("found")
    assert len(calls) == 1


def test_retries_end_at_the_deadline(rig: Rig, waits: Waits) -> None:
    backend = rig.backend(max_attempts=1000)
    waits.shortened = lambda _: 0.3
    others = set(threading.enumerate())
    with rig.fault("server-error"), pytest.raises(StoreUnavailable):
        backend.get_variable("found")
    # A thousand attempts with their pauses would take a quarter of an hour.
    for thread in set(threading.enumerate()) - others:
        if thread.name == "secrets-lookup":
            thread.join(60)
            assert not thread.is_alive()


def test_recovers_after_a_fault(rig: Rig) -> None:
    rig.put(rig.path("variables", "found"), "x")
    backend = rig.backend(**ONE_TRY)
    for fault in ("reset", "truncated", "denied"):
        with rig.fault(fault), pytest.raises(LookupFailed):
            backend.get_variable("found")
        assert rig.backend(max_attempts=3).get_variable("found") == "x"


def test_calls_that_hang_are_bounded(rig: Rig, waits: Waits) -> None:
    """Either the store's client gives up at the deadline by itself, or it hangs on and further calls are refused."""
    backend = rig.backend(**ONE_TRY)
    backend.get_variable("x")  # creates the client, so that no call waits for another one to do so
    waits.shortened = lambda _: 0.2
    others = set(threading.enumerate())
    with rig.fault("hang"), ThreadPoolExecutor(access.MAX_OVERDUE) as pool:
        for _ in range(4):
            hanging = [pool.submit(backend.get_variable, "x") for _ in range(access.MAX_OVERDUE)]
            assert [type(future.exception()) for future in hanging] == [StoreUnavailable] * access.MAX_OVERDUE
        left = {thread for thread in threading.enumerate() if thread.name == "secrets-lookup"} - others
        # The calls that may hang, and those that started together while one fewer did: not four times as many.
        assert len(left) < 2 * access.MAX_OVERDUE


def test_exception_from_a_signal_leaves_no_lock_held(rig: Rig, waits: Waits) -> None:
    """Airflow ends a slow DAG import by a BaseException raised in a SIGALRM handler."""
    rig.put(rig.path("variables", "found"), "x")
    backend = rig.backend()
    with rig.fault("hang"), raised_in_the_main_thread() as raise_it, pytest.raises(TimeIsUp):
        waits.on_wait = raise_it
        backend.get_variable("found")
    waits.on_wait = lambda: None
    assert backend.get_variable("found") == "x"


@pytest.mark.parametrize("as_a_thread_starts", [True, False])
def test_exception_from_a_signal_is_told_from_what_the_interpreter_makes_of_it(
    rig: Rig, as_a_thread_starts: bool
) -> None:
    """It fails to release a lock that a wait has released, and raises that error instead."""
    rig.put(rig.path("variables", "found"), "x")
    backend = rig.backend()
    deadline.end_idle_threads()
    with (
        rig.fault("hang"),
        pytest.raises(TimeIsUp),
        raised_where_a_wait_has_let_its_lock_go(as_a_thread_starts=as_a_thread_starts),
    ):
        backend.get_variable("found")
    assert backend.get_variable("found") == "x"


# Processes and threads.


@pytest.fixture
def connects(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process ids in which clients were created, one for each."""
    made: list[int] = []
    store_class = type(access.store_of(rig.backend().config))
    connect = store_class.connect

    @functools.wraps(connect)
    def counting(self: Any) -> Any:
        made.append(os.getpid())
        return connect(self)

    monkeypatch.setattr(store_class, "connect", counting)
    return made


def test_any_number_of_instances_share_one_client(rig: Rig, connects: list[int]) -> None:
    rig.put(rig.path("variables", "found"), "x")
    assert [rig.backend().get_variable("found") for _ in range(8)] == ["x"] * 8
    rig.backend(variables_lookup_pattern="f").get_variable("found")
    assert len(connects) == 1
    rig.backend(read_timeout=4).get_variable("found")
    assert len(connects) == 2


def test_an_sdk_is_loaded_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, load = rig.backend(), access._load
    loaded: list[Store] = []

    def noted(store: Store) -> None:
        loaded.append(store)
        load(store)

    monkeypatch.setattr(access, "_loaded", set())
    monkeypatch.setattr(access, "_load", noted)
    for _ in range(3):
        assert backend.get_variable("absent") is None
    assert len(loaded) == 1


def test_whoever_asks_by_now_gets_a_client_of_their_own(
    rig: Rig, connects: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the login reads changes hands: what its first owner may read must not go to the second."""
    backend = rig.backend()
    store_class = type(access.store_of(backend.config))
    for asker in (b"first", b"first", b"second", b"second", b"first"):
        monkeypatch.setattr(store_class, "asker", lambda _, asker=asker: asker)
        assert backend.get_variable("absent") is None
    assert len(connects) == 3


def test_64_threads_share_one_client(rig: Rig, connects: list[int], caplog: pytest.LogCaptureFixture) -> None:
    names = [f"threaded-{number}" for number in range(8)]
    for name in names:
        rig.put(rig.path("variables", name), name)
    barrier = threading.Barrier(64)

    def look_up(number: int) -> tuple[str, str | None, str | None]:
        backend = rig.backend()
        barrier.wait(60)
        name = names[number % len(names)]
        return name, backend.get_variable(name), backend.get_variable("absent")

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(look_up, range(64)))
    assert [answer for answer in answers if answer[0] != answer[1] or answer[2] is not None] == []
    assert len(connects) == 1
    assert [record.getMessage() for record in caplog.records if record.name.startswith("urllib3")] == []


def test_lookups_do_not_wait_for_each_other(rig: Rig) -> None:
    """Each of two requests is answered once the other has arrived, too."""
    backend, together = rig.caching(max_attempts=1), threading.Barrier(2)
    backend.get_variable("absent")  # logs in

    def answer(_: Request) -> None:
        together.wait(60)

    with rig.answering(answer), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(backend.get_variable, ["absent-1", "absent-2"])) == [None] * 2


def _look_up_in_child(rig: Rig, number: int, results: Any) -> None:
    backend, name = rig.backend(), f"forked-{number}"
    wrong = [value for value in (backend.get_variable(name) for _ in range(40)) if value != name]
    results.put((number, wrong))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_children_get_their_own_answers(rig: Rig) -> None:
    for number in range(4):
        rig.put(rig.path("variables", f"forked-{number}"), f"forked-{number}")
    assert rig.backend().get_variable("forked-0") == "forked-0"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_look_up_in_child, args=(rig, number, results)) for number in range(4)]
    for child in children:
        child.start()
    backend = rig.backend()
    assert [backend.get_variable("forked-1") for _ in range(40)] == ["forked-1"] * 40
    assert sorted(results.get(timeout=120) for _ in children) == [(number, []) for number in range(4)]
    for child in children:
        child.join(60)
        assert child.exitcode == 0


@pytest.mark.each_rig_in_ci
def test_lookup_works_while_the_interpreter_ends(rig: Rig) -> None:
    """It works where threads can no longer start (Python 3.12.1, at exit), and where they can."""
    rig.put(rig.path("variables", "found"), "x")
    module, _, name = rig.class_path.rpartition(".")
    code = (
        "import atexit\n"
        f"from {module} import {name} as Backend\n"
        f"backend = Backend(**{rig.options()!r})\n"
        "backend.get_variable('found')\n"  # an SDK may not be importable any more by then
        "atexit.register(lambda: print(backend.get_variable('found')))\n"
    )
    run = run_python(code)
    assert run.stdout.strip().splitlines()[-1:] == ["x"], run.stdout + run.stderr


# Start-up. In processes of their own, since this one has imported everything.


@pytest.mark.each_rig_in_ci
def test_missing_sdk_is_told_at_first_use_with_its_extra(rig: Rig) -> None:
    module, _, name = rig.class_path.rpartition(".")
    code = BLOCKED_AFTER_AIRFLOW.format(sdk=rig.sdk) + (
        f"from {module} import {name} as Backend\n"
        f"backend = Backend(**{rig.options()!r})\n"
        "try:\n"
        "    backend.get_variable('x')\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    run = run_python(code)
    assert "MissingDependencyError" in run.stdout, run.stderr
    assert f"{rig.distribution}[{rig.extra}]" in run.stdout


@pytest.mark.each_rig_in_ci
def test_construction_imports_no_sdk_and_opens_nothing(rig: Rig) -> None:
    module, _, name = rig.class_path.rpartition(".")
    code = (
        "import sys, socket, airflow.configuration\n"
        "before = set(sys.modules)\n"  # Airflow 2.11 imports requests by itself
        f"from {module} import {name} as Backend\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(event) if event in ('open', 'socket.__new__') else None)\n"
        f"backend = Backend(**{rig.options()!r})\n"
        "print(opened, [m for m in set(sys.modules) - before if m.split('.')[0] in "
        "('botocore', 'boto3', 'hvac', 'grpc', 'azure', 'urllib3', 'requests') or m.startswith('google.cloud') "
        f"or m == {rig.sdk!r} or m.startswith({rig.sdk!r} + '.')])\n"
    )
    run = run_python(code)
    assert run.stdout.strip().endswith("[] []"), run.stdout + run.stderr


@pytest.mark.each_rig_in_ci
def test_a_fork_waits_for_whatever_a_lookup_imports(rig: Rig, tmp_path: Path) -> None:
    """Otherwise a child forked at that moment would wait for the module for ever. Imports run in the caller's thread,
    since another thread would wait for whatever package the caller is importing. And no collection walks Airflow's heap
    because of an SDK's many objects.
    """
    rig.put(rig.path("variables", "found"), "x")
    rig.put(rig.path("connections", "found"), "postgres://h")
    module, _, name = rig.class_path.rpartition(".")
    options = {**rig.options(), "shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": "c" * 43 + "="}
    code = (
        "import gc, sys, threading, airflow.configuration\n"
        f"from {module} import {name} as Backend\n"
        "from airflow_providers_secrets.lookup import forks\n"
        "me = threading.get_ident()\n"
        "class Watch:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        (held if forks.holds_forks() and threading.get_ident() == me else free).append(name)\n"
        "        if gc.isenabled():\n"
        "            collected.append(name)\n"
        "held, free, collected = [], [], []\n"
        f"backend = Backend(preload=['variables'], **{options!r})\n"
        "sys.meta_path.insert(0, Watch)\n"
        "print(backend.get_variable('found'), backend.get_conn_value('absent'), backend.get_conn_value('found'))\n"
        "print(len(held) > 5, free)\n"
        f"large = ('airflow_providers_secrets.lookup.resolve', {rig.sdk!r})\n"
        "print([name for name in collected if name.startswith(large)], len(collected) < 20)\n"
    )
    run = run_python(code)
    assert run.stdout.splitlines()[-3:] == ["x None postgres://h", "True []", "[] True"], run.stdout + run.stderr


@pytest.mark.measured
def test_import_costs_little_cpu(rig: Rig) -> None:
    """The limit is 5 ms on a machine whose dict lookup takes 0.06 µs, and proportionally more on a slower one.

    An import takes 3.8 to 5.0 ms where a dict lookup takes 0.07 µs.
    """
    module = rig.class_path.rpartition(".")[0]
    code = (
        "import gc, time, airflow.configuration, airflow.secrets.base_secrets\n"
        "gc.collect()  # of Airflow's own heap, which may be due at any moment\n"
        "started = time.process_time()\n"
        f"import {module}\n"
        "cost = time.process_time() - started\n"
        "from airflow_providers_secrets.testing.speed import slowness\n"
        "print(cost * 1000, 5.0 * slowness())\n"
    )
    run_python(code, PYTHONDONTWRITEBYTECODE="")  # writes the bytecode
    costs: list[tuple[float, ...]] = []
    while len(costs) < 20 and not any(cost <= most for cost, most in costs):  # the machine's noise only adds
        run = run_python(code, PYTHONDONTWRITEBYTECODE="")
        costs.append(tuple(map(float, run.stdout.splitlines()[-1].split())))
    assert any(cost <= most for cost, most in costs), costs


def test_no_warning_at_import(rig: Rig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rig.backend()
