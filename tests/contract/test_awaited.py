"""What the Task SDK awaits: it is answered as ``get_connection`` and ``get_variable`` do, and blocks no event loop."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.backends.chain import ChainBackend
from airflow_providers_secrets.errors import LookupFailed, StoreUnavailable
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.awaiting import MAX_AT_A_TIME
from airflow_providers_secrets.testing.contract.forks import WATCH
from airflow_providers_secrets.testing.lookups import Clock, Waits
from airflow_providers_secrets.testing.processes import in_a_process
from airflow_providers_secrets.testing.speed import slowness
from tests.rigs import PATIENT, Rig
from tests.rigs.aws import SsmRig

URI = "postgres://u:p@h:5432/db"
MANY = 500


def put(rig: Rig, conn_id: str) -> str:
    path = rig.path("connections", conn_id)
    rig.put(path, URI)
    return path


def at_once(lookup: Coroutine[Any, Any, Any]) -> Any:
    """What *lookup* returns without ever giving its thread to an event loop."""
    try:
        lookup.send(None)
    except StopIteration as ended:
        return ended.value
    lookup.close()
    return pytest.fail("it waited")


def members(backend: Any) -> list[Any]:
    return [member.backend for member in getattr(backend, "members", ())] or [backend]


def flights(backend: Any) -> dict[str, Any]:
    return {name: flight for one in members(backend) for name, flight in answers_of(one.config)._cache._flights.items()}


@pytest.mark.each_rig_in_ci
def test_a_child_that_awaits_imports_nothing_of_its_own(rig: Rig) -> None:
    put(rig, "awaited")
    code = WATCH + (
        "import asyncio\n"
        "def work():\n"
        "    sys.meta_path.insert(0, Watch)\n"
        "    connection = asyncio.run(backend.aget_connection('awaited'))\n"
        "    print(connection.host, [name for name in imported if name.startswith('airflow_providers_secrets')])\n"
        "fork(work)\n"
    )
    assert in_a_process(rig, code)[-1:] == ["h []"]


@pytest.mark.usefixtures("clock")
def test_the_same_connection_and_then_without_a_thread(rig: Rig) -> None:
    path = put(rig, "awaited")
    backend = rig.caching()
    with rig.counted() as calls:
        awaited = asyncio.run(backend.aget_connection("awaited"))
        cached = at_once(backend.aget_connection("awaited"))
    assert calls == [path]
    expected = rig.caching().get_connection("awaited")
    assert (awaited.get_uri(), cached.get_uri()) == (expected.get_uri(), expected.get_uri())
    assert (awaited.conn_id, type(awaited)) == ("awaited", type(expected))


@pytest.mark.usefixtures("clock")
def test_the_same_variable_and_then_without_a_thread(rig: Rig) -> None:
    path, absent = (rig.path("variables", key) for key in ("awaited", "awaited_absent"))
    rig.put(path, '{"a": 1}')
    backend = rig.caching()
    with rig.counted() as calls:
        assert [asyncio.run(backend.aget_variable(key)) for key in ("awaited", "awaited_absent")] == ['{"a": 1}', None]
        assert [at_once(backend.aget_variable(key)) for key in ("awaited", "awaited_absent")] == ['{"a": 1}', None]
    assert calls == [path, absent]


def test_an_empty_variable_is_no_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_AWAITED", "")
    chain = ChainBackend(backends=[{"backend": "env"}])
    assert asyncio.run(chain.aget_variable("awaited")) == ""
    assert at_once(chain.aget_variable("awaited")) == ""


class Objects(SystemsManagerParameterStoreBackend):
    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        connection = super().get_connection(conn_id)
        connection.host = "elsewhere"
        return connection


class ObjectsWithoutTeam(SystemsManagerParameterStoreBackend):
    def get_connection(self, conn_id: str) -> Any:  # type: ignore[override]
        connection = super().get_connection(conn_id)
        connection.host = "elsewhere"
        return connection


class Texts(SystemsManagerParameterStoreBackend):
    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        return elsewhere(super().get_conn_value(conn_id, team_name))

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        return elsewhere(super().get_variable(key, team_name))


class TextsWithoutTeam(SystemsManagerParameterStoreBackend):
    """As one that was written before Airflow had teams."""

    def get_conn_value(self, conn_id: str) -> str | None:  # type: ignore[override]
        return elsewhere(super().get_conn_value(conn_id))

    def get_variable(self, key: str) -> str | None:  # type: ignore[override]
        return elsewhere(super().get_variable(key))


class Parsed(SystemsManagerParameterStoreBackend):
    def deserialize_connection(self, conn_id: str, value: str) -> Any:
        return super().deserialize_connection(conn_id, value.replace("@h", "@elsewhere"))


def elsewhere(text: str | None) -> str | None:
    return text and text.replace("@h", "@elsewhere")


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("options", [{}, {"preload": ["connections", "variables"]}], ids=["one by one", "in bulk"])
@pytest.mark.parametrize("in_chain", [False, True], ids=["alone", "in a chain"])
@pytest.mark.parametrize("own", [Objects, ObjectsWithoutTeam, Texts, TextsWithoutTeam, Parsed])
def test_a_subclass_answers_in_its_own_way(ssm: SsmRig, own: type, options: dict[str, Any], in_chain: bool) -> None:
    """Awaited or not, also from memory; a method without a team is called as Airflow calls it."""
    put(ssm, "in-its-own-way")
    ssm.put(ssm.path("variables", "in-its-own-way"), "x@h")
    kwargs = {**ssm.options(), **PATIENT, **options}
    entry = {"backend": f"{own.__module__}.{own.__name__}", "kwargs": kwargs}
    backend: Any = ChainBackend(backends=[entry]) if in_chain else own(**kwargs)
    for _ in range(2):
        assert backend.get_connection(conn_id="in-its-own-way").host == "elsewhere"
        assert asyncio.run(backend.aget_connection("in-its-own-way")).host == "elsewhere"
    if "get_variable" in vars(own):
        for _ in range(2):
            assert backend.get_variable(key="in-its-own-way") == "x@elsewhere"
            assert asyncio.run(backend.aget_variable("in-its-own-way")) == "x@elsewhere"


@pytest.mark.usefixtures("clock")
def test_one_getter_of_a_subclass_leaves_the_other_kind_in_memory(ssm: SsmRig) -> None:
    class Changing(SystemsManagerParameterStoreBackend):
        def get_variable(self, key: str, team_name: str | None = None) -> str | None:
            return elsewhere(super().get_variable(key, team_name))

    put(ssm, "of-one-kind")
    ssm.put(ssm.path("variables", "of-one-kind"), "x@h")
    backend = Changing(**ssm.options(), **PATIENT)
    assert backend.get_variable("of-one-kind") == "x@elsewhere"
    assert backend.value_in_memory("connections", "of-one-kind") is None
    assert backend.get_conn_value("of-one-kind") == URI
    assert backend.value_in_memory("connections", "of-one-kind") == (URI,)
    assert backend.value_in_memory("variables", "of-one-kind") is None


def test_a_subclass_of_the_chain_answers_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(ChainBackend):
        def get_connection(self, conn_id: str) -> Any:  # type: ignore[override]
            connection = super().get_connection(conn_id)
            connection.host = "elsewhere"
            return connection

        def get_variable(self, key: str) -> str | None:  # type: ignore[override]
            return elsewhere(super().get_variable(key))

    monkeypatch.setenv("AIRFLOW_CONN_AWAITED", URI)
    monkeypatch.setenv("AIRFLOW_VAR_AWAITED", "x@h")
    chain = Changing(backends=[{"backend": "env"}])
    for _ in range(2):
        assert asyncio.run(chain.aget_connection("awaited")).host == "elsewhere"
        assert asyncio.run(chain.aget_variable("awaited")) == "x@elsewhere"


def test_one_getter_of_a_subclass_of_the_chain_leaves_the_other_kind_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Texts(ChainBackend):
        def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
            return elsewhere(super().get_conn_value(conn_id, team_name))

    class Variables(ChainBackend):
        def get_variable(self, key: str, team_name: str | None = None) -> str | None:
            return elsewhere(super().get_variable(key, team_name))

    monkeypatch.setenv("AIRFLOW_CONN_AWAITED", URI)
    monkeypatch.setenv("AIRFLOW_VAR_AWAITED", "x@h")
    texts, variables = Texts(backends=[{"backend": "env"}]), Variables(backends=[{"backend": "env"}])
    for chain in (texts, variables):
        asyncio.run(chain.aget_connection("awaited"))  # imports what later answers need
    assert at_once(texts.aget_variable("awaited")) == "x@h"
    assert at_once(variables.aget_connection("awaited")).host == "h"
    assert asyncio.run(texts.aget_connection("awaited")).host == "elsewhere"
    assert asyncio.run(variables.aget_variable("awaited")) == "x@elsewhere"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("in_chain", [False, True], ids=["alone", "a chain"])
def test_what_a_subclass_parses_with_holds_up_no_event_loop(
    ssm: SsmRig, monkeypatch: pytest.MonkeyPatch, in_chain: bool
) -> None:
    """It is code of others, which may ask a server for a key."""
    parsed_in = []

    class Reads:
        def deserialize_connection(self, conn_id: str, value: str) -> Any:
            parsed_in.append(threading.get_ident())
            return super().deserialize_connection(conn_id, value)  # type: ignore[misc]

    put(ssm, "in-its-own-way")
    kwargs = {**ssm.options(), **PATIENT}
    backend: Any = (
        type("Chain", (Reads, ChainBackend), {})(backends=[{"backend": "aws_ssm", "kwargs": kwargs}])
        if in_chain
        else type("Parsed", (Reads, SystemsManagerParameterStoreBackend), {})(**kwargs)
    )
    for _ in range(2):
        assert asyncio.run(backend.aget_connection("in-its-own-way")).host == "h"
    assert len(parsed_in) == 2
    assert threading.get_ident() not in parsed_in


@pytest.mark.usefixtures("clock")
def test_an_absence_and_then_without_a_thread(rig: Rig) -> None:
    backend = rig.caching()
    with rig.counted() as calls:
        assert asyncio.run(backend.aget_connection("awaited_absent")) is None
        assert at_once(backend.aget_connection("awaited_absent")) is None
    assert calls == [rig.path("connections", "awaited_absent")]


def test_what_the_options_keep_from_the_store_is_told_without_a_thread(rig: Rig) -> None:
    backend = rig.caching(**{rig.prefix_option.format(kind="connections"): None})
    asyncio.run(backend.aget_connection("any"))
    with rig.counted() as calls:
        assert at_once(backend.aget_connection("any")) is None
    assert calls == []


def test_what_has_expired_is_asked_for_again(rig: Rig, clock: Clock) -> None:
    path = put(rig, "awaited")
    backend = rig.caching()
    with rig.counted() as calls:
        asyncio.run(backend.aget_connection("awaited"))
        clock.now += 61
        asyncio.run(backend.aget_connection("awaited"))
    assert calls == [path, path]


@pytest.mark.parametrize("fault", ("denied", "malformed", "reset"))
def test_the_same_error(rig: Rig, fault: str) -> None:
    put(rig, "awaited")
    backend = rig.backend(max_attempts=1)
    for look_up, awaited in (
        (backend.get_conn_value, backend.aget_connection),
        (backend.get_variable, backend.aget_variable),
    ):
        with rig.fault(fault):
            with pytest.raises(LookupFailed) as expected:
                look_up("awaited")
            with pytest.raises(LookupFailed) as raised:
                asyncio.run(awaited("awaited"))
        assert (type(raised.value), str(raised.value)) == (type(expected.value), str(expected.value))


@pytest.mark.parametrize("known", [False, True])
def test_what_airflow_makes_nothing_of_is_on_no_frame(rig: Rig, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    put(rig, "awaited")
    backend = rig.caching()
    if known:
        asyncio.run(backend.aget_connection("awaited"))

    def deserialize(conn_id: str, value: str) -> Any:
        raise ValueError(conn_id, len(value))

    monkeypatch.setattr(backend, "deserialize_connection", deserialize)
    with pytest.raises(ValueError, match="awaited") as raised:
        asyncio.run(backend.aget_connection("awaited"))
    frames = [frame for frame, _ in traceback.walk_tb(raised.value.__traceback__)]
    ours = [frame for frame in frames if "/airflow_providers_secrets/" in frame.f_code.co_filename]
    assert ours
    assert URI not in "".join(repr(frame.f_locals) for frame in ours)


def test_the_policy_is_the_same(rig: Rig) -> None:
    denial = pytest.importorskip("airflow.sdk.exceptions", reason="Airflow 3 only")
    if not hasattr(denial, "AirflowSecretsBackendAccessDenied"):
        pytest.skip("Airflow 3.2.2 and later")
    backend = rig.backend(max_attempts=1, on_denied="fail")
    with rig.fault("denied"), pytest.raises(denial.AirflowSecretsBackendAccessDenied):
        asyncio.run(backend.aget_connection("awaited"))


def test_the_deadline_is_the_same(rig: Rig, waits: Waits) -> None:
    backend = rig.backend(max_attempts=1, timeout=0.5)
    with rig.fault("hang"), pytest.raises(StoreUnavailable):
        asyncio.run(backend.aget_connection("awaited"))
    assert waits.granted
    assert max(waits.granted) <= 0.5


def test_a_cancelled_caller_ends_at_once_and_leaves_no_flight(rig: Rig) -> None:
    path = put(rig, "awaited")
    backend = rig.caching()
    asyncio.run(backend.aget_connection("awaited_warm"))  # whatever a first lookup takes is not what hangs
    arrived, go_on = threading.Event(), threading.Event()

    def held(_: Any) -> None:
        arrived.set()
        assert go_on.wait(PATIENT["timeout"])

    async def scenario() -> str:
        first = asyncio.create_task(backend.aget_connection("awaited"))
        assert await asyncio.to_thread(arrived.wait, PATIENT["timeout"])
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(flights(backend)) == 1  # it is still asked for
        second = asyncio.create_task(backend.aget_connection("awaited"))
        await asyncio.sleep(0)
        go_on.set()
        uri: str = (await second).get_uri()
        return uri

    with rig.counted() as calls, rig.answering(held):
        assert asyncio.run(scenario())
    assert calls == [path]
    assert flights(backend) == {}


def test_five_hundred_at_once_make_one_request_for_each_name(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"awaited_{number}" for number in range(20)]
    paths = [put(rig, name) for name in names]
    backend = rig.caching()
    look_up = backend.get_conn_value
    going_on: set[int] = set()
    most = 0

    def watched(conn_id: str, team_name: str | None = None) -> str | None:
        nonlocal most
        going_on.add(threading.get_ident())
        most = max(most, len(going_on))
        try:
            text: str | None = look_up(conn_id, team_name)
            return text
        finally:
            going_on.discard(threading.get_ident())

    monkeypatch.setattr(backend, "get_conn_value", watched)

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(backend.aget_connection(names[at % len(names)]) for at in range(MANY)))

    with rig.counted() as calls:
        found = asyncio.run(scenario())
    assert [connection.conn_id for connection in found] == [names[at % len(names)] for at in range(MANY)]
    assert Counter(calls) == Counter(paths)
    assert 0 < most <= MAX_AT_A_TIME


@pytest.mark.measured
def test_five_hundred_at_once_keep_the_event_loop_for_five_milliseconds_at_most(vault: Rig) -> None:
    """CPU time of the loop's thread in each single callback: what other threads take meanwhile is not counted."""
    names = [f"awaited_{number}" for number in range(50)]
    for name in names:
        put(vault, name)
    taken: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        started = time.thread_time()
        run(handle)
        taken.append(time.thread_time() - started)

    async def scenario(backend: Any) -> None:
        lookups = [asyncio.create_task(backend.aget_connection(names[at % len(names)])) for at in range(MANY)]
        taken.clear()  # so far this test's own work
        await asyncio.wait(lookups)
        assert not [lookup.exception() for lookup in lookups if lookup.exception()]

    longest: list[float] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncio.Handle, "_run", timed)
        while len(longest) < 5 and max(longest[-2:], default=1.0) > 0.005 * slowness():  # the machine's noise only adds
            backend = vault.caching()
            for _ in ("asked", "cached"):
                asyncio.run(scenario(backend))
                assert len(taken) > MANY
                longest.append(max(taken[1:]))
    assert max(longest[-2:]) <= 0.005 * slowness(), longest
