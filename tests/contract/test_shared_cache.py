"""The cache that processes share, in a directory and in Redis."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import gc
import hmac
import json
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import statistics
import sys
import threading
import time
import timeit
import traceback
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf import hkdf

from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    LookupFailed,
    NoSharedKeyError,
    SecretsError,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import (
    access,
    answers,
    cache,
    forks,
    notices,
    operations,
    shared_answers,
    shared_cache,
)
from airflow_providers_secrets.lookup.access import StoreAccess
from airflow_providers_secrets.lookup.cache import Breaker
from airflow_providers_secrets.lookup.shared_cache import SharedCache, entries, redis_server
from airflow_providers_secrets.lookup.shared_cache import directory as directory_cache
from airflow_providers_secrets.lookup.shared_cache.directory import SUBDIRECTORY, DirectoryCache
from airflow_providers_secrets.stores.base import Outcome
from airflow_providers_secrets.testing.lookups import (
    MAX_STALE,
    NEGATIVE_TTL,
    ONE_TRY,
    TTL,
    Clock,
    failing,
    stored,
    warned,
)
from airflow_providers_secrets.testing.processes import in_a_process
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from airflow_providers_secrets.testing.signals import TimeIsUp
from airflow_providers_secrets.testing.speed import slowness
from tests.rigs import PAGE, Rig
from tests.rigs.aws import CREDENTIALS, SecretsManagerRig, SsmRig
from tests.rigs.redis import redis_url
from tests.support.sharing import KEY, OTHER_KEY, anew, sharing

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the shared cache is: empty."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    import redis

    url = redis_url()
    redis.Redis.from_url(url).flushdb()
    return url


@pytest.fixture
def both_clocks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A process's own clock and the one that processes have in common."""
    clock = Clock()
    monkeypatch.setattr(cache, "clock", clock)
    monkeypatch.setattr(entries, "wall_clock", clock)
    return clock


# Entries.


@pytest.mark.each_rig_in_ci
def test_one_process_asks_for_all(rig: Rig, place: str) -> None:
    path = stored(rig, "shared", "S3cr3t-value")
    backend = sharing(rig, place)
    with rig.counted() as calls:
        for _ in range(5):
            assert anew(lambda: backend.get_variable("shared")) == "S3cr3t-value"
            assert anew(lambda: backend.get_variable("absent")) is None
    assert calls == [path, rig.path("variables", "absent")]


def test_threads_that_start_together_open_one_cache(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two caches one would be dropped, with the answers that its threads are about to write."""
    names = [f"together-{number}" for number in range(8)]
    for name in names:
        stored(ssm, name, name)
    arrived, opened, real = threading.Semaphore(0), [], shared_cache.opened

    class Door:
        """The lock behind which the cache is opened, which tells who stands before it."""

        def __init__(self, lock: Any) -> None:
            self._lock = lock

        def acquire(self, timeout: float) -> bool:
            arrived.release()
            acquired: bool = self._lock.acquire(timeout=timeout)
            return acquired

        def release(self) -> None:
            self._lock.release()

    def slowly(*args: Any) -> Any:
        if not opened:
            for _ in names:
                assert arrived.acquire(timeout=60)
        opened.append(1)
        return real(*args)

    backend = sharing(ssm, place)
    known = answers.answers_of(backend.config)
    monkeypatch.setattr(known, "_opening", Door(known._opening))
    monkeypatch.setattr(shared_cache, "opened", slowly)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(backend.get_variable, names)) == names
    assert len(opened) == 1
    with ssm.counted() as calls:
        assert anew(lambda: [backend.get_variable(name) for name in names]) == names
    assert calls == []


def test_what_a_lookup_asks_of_the_shared_cache(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each exchange is a round trip to a server, in every child."""
    stored(ssm, "asked-of", "x")
    backend = sharing(ssm, place)
    kind = type(answers.answers_of(backend.config).shared_cache())
    made: list[str] = []

    def noted(exchange: str) -> Callable[..., Any]:
        really = getattr(kind, exchange)
        return lambda *given: made.append(exchange) or really(*given)

    for exchange in ("_read", "_write", "_locked"):
        monkeypatch.setattr(kind, exchange, noted(exchange))

    def asked(key: str) -> list[str]:
        made.clear()
        backend.get_variable(key)
        return list(made)

    for key in ("asked-of", "absent"):
        # Its entry, before and in the flight, and an outage's, before and after the store's answer.
        assert anew(lambda key=key: asked(key)) == ["_read", "_locked", "_read", "_read", "_write", "_read"]
        assert anew(lambda key=key: asked(key)) == ["_read"]
        assert asked(key) == []


@pytest.mark.each_rig_in_ci
def test_denials_are_shared(rig: Rig, place: str) -> None:
    backend = sharing(rig, place)
    with rig.fault("denied"):
        failing(lambda: backend.get_variable("denied"))
        with rig.counted() as calls:
            errors = anew(lambda: failing(lambda: backend.get_variable("denied")))
    assert calls == []
    assert [type(error) for error in errors] == [AccessDenied]
    assert "could not give" in str(errors[0])


def test_rotation_is_seen_by_every_process_within_the_time_to_live(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    path, backend = stored(ssm, "rotated", "one"), sharing(ssm, place)
    assert backend.get_variable("rotated") == "one"
    ssm.put(path, "two")
    both_clocks.now += TTL * cache.JITTER[0] - 0.1
    # A process that starts late takes the value over, and its age with it.
    late = anew(lambda: backend.get_variable("rotated"))
    both_clocks.now = 1000.0 + TTL
    assert (late, backend.get_variable("rotated")) == ("one", "two")


def test_absences_expire_as_fast_as_ever(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    backend, path = sharing(ssm, place), ssm.path("variables", "come")
    assert backend.get_variable("come") is None
    ssm.put(path, "x")
    both_clocks.now += NEGATIVE_TTL
    assert anew(lambda: backend.get_variable("come")) == "x"
    ssm.remove(path)


@pytest.mark.parametrize("negative_ttl", [NEGATIVE_TTL, 0])
def test_an_unusable_value_expires_as_fast_as_an_absence(
    ssm: SsmRig, place: str, both_clocks: Clock, negative_ttl: float
) -> None:
    backend, path = sharing(ssm, place, cache_negative_ttl=negative_ttl), ssm.path("connections", "repaired")
    ssm.put(path, "postgres//broken")
    failing(lambda: backend.get_conn_value("repaired"))
    both_clocks.now += max(negative_ttl, 1)
    ssm.put(path, "postgres://h/db")
    # For the process that knows it, and for one that finds it.
    assert backend.get_conn_value("repaired") == "postgres://h/db"
    ssm.put(path, "postgres//broken")
    both_clocks.now += TTL
    anew(lambda: failing(lambda: backend.get_conn_value("repaired")))
    both_clocks.now += max(negative_ttl, 1)
    with ssm.counted() as calls:
        anew(lambda: failing(lambda: backend.get_conn_value("repaired")))
    assert calls == [path]
    both_clocks.now += max(negative_ttl, 1)
    ssm.remove(path)
    assert anew(lambda: backend.get_conn_value("repaired")) is None


def test_an_unusable_value_that_takes_long_to_be_shared_is_asked_for_once(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is this lookup's own, and not one that another process left some time ago."""
    backend, path = sharing(ssm, place, cache_negative_ttl=0), ssm.path("connections", "slowly-shared")
    ssm.put(path, "postgres//broken")
    put = SharedCache.put

    def slow_put(*args: Any) -> None:
        put(*args)
        both_clocks.now += 2

    monkeypatch.setattr(SharedCache, "put", slow_put)
    with ssm.counted() as calls:
        failing(lambda: backend.get_conn_value("slowly-shared"))
    assert calls == [path]
    ssm.remove(path)


def test_a_lookup_in_a_signals_handler_while_its_thread_loads_the_shared_cache_goes_without(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread would wait for its own import."""
    backend, path = sharing(ssm, place), stored(ssm, "in-a-handler", "x")
    with monkeypatch.context() as loading, ssm.counted() as calls:
        loading.setitem(sys.modules, answers.SHARED, types.ModuleType(answers.SHARED))
        assert backend.get_variable("in-a-handler") == "x"
        assert answers._answers == {}
        loading.undo()
        for _ in range(2):
            assert anew(lambda: backend.get_variable("in-a-handler")) == "x"
    assert calls == [path, path]  # once without, and once for all who share


def test_a_missing_module_of_the_shared_cache_is_told(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = sharing(ssm, place)
    monkeypatch.delitem(sys.modules, answers.SHARED)
    monkeypatch.setitem(sys.modules, "airflow_providers_secrets.lookup.shared_cache.entries", None)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match="ModuleNotFoundError"):
        backend.get_variable("x")


def test_a_file_that_changes_hands_while_others_open_the_cache_answers_no_other(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread has seen who asked before, and opens their cache after another has opened its own."""
    backend, path = sharing(ssm, place), stored(ssm, "whose", "one")
    store_class = type(access.store_of(backend.config))
    askers = {"before": b"before", "now": b"now"}
    asking = ["before"]
    monkeypatch.setattr(store_class, "asker", lambda _: askers[asking[0]])
    assert anew(lambda: backend.get_variable("whose")) == "one"
    ssm.put(path, "two")
    asked = answers.new_answers(backend.config)
    assert isinstance(asked, shared_answers.SharedAnswers)
    opened = shared_answers.SharedAnswers._opened

    def overtaken(self: shared_answers.SharedAnswers, **how: Any) -> Any:
        asking[0] = "now"
        found = opened(self, **how)
        asking[0] = "before"
        opened(self)  # the other thread's
        asking[0] = "now"
        return found

    monkeypatch.setattr(shared_answers.SharedAnswers, "_opened", overtaken)
    assert asked.read(path).text == "two"


def test_whoever_a_file_names_now_has_a_cache_of_their_own(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the process that sees the change, and in those that start later."""
    before, now = (stored(ssm, key, "x") for key in ("before", "now"))
    backend = sharing(ssm, place)
    asking = [b"before"]
    monkeypatch.setattr(type(access.store_of(backend.config)), "asker", lambda _: asking[0])
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("before")) == "x"
        asking[0] = b"now"
        assert backend.get_variable("now") == "x"
        assert anew(lambda: [backend.get_variable(key) for key in ("now", "before")]) == ["x", "x"]
    assert calls == [before, now, before]


@pytest.mark.parametrize("by_now", ["nobody", "another thread"])
def test_a_denial_that_another_one_was_given_meanwhile_is_told_to_nobody(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch, by_now: str
) -> None:
    """A file changed hands while the store was asked: the cache is of whom the file named before.

    Whom it names now has a cache of their own, which *by_now* has opened.
    """
    backend, path = sharing(ssm, place, **ONE_TRY), stored(ssm, "whose-denial", "x")
    asking = [b"before"]
    monkeypatch.setattr(type(access.store_of(backend.config)), "asker", lambda _: asking[0])
    denied = ssm.faults()["denied"]

    def deny(_: Request) -> Any:
        asking[0] = b"now"
        if by_now == "another thread":
            answers.answers_of(backend.config).shared_cache()
        return denied

    with ssm.proxy.fault(deny):
        (error,) = anew(lambda: failing(lambda: backend.get_variable("whose-denial")))
    assert isinstance(error, AccessDenied)
    asking[0] = b"before"
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("whose-denial")) == "x"
    assert calls == [path]


def test_what_a_parent_opened_is_used_by_whom_it_was_opened_for(ssm: SsmRig, place: str) -> None:
    """And a child that asks as somebody else by then opens its own."""
    path = stored(ssm, "opened-before", "x")
    code = """
        def work():
            print(backend.get_variable("opened-before"))
        def as_another():
            os.environ["AWS_PROFILE_OF_SOME_KIND"] = "another"
            work()
        fork(work)
        fork(work)
        fork(as_another)
    """
    with ssm.counted() as calls:
        printed = in_a_process(ssm, code, shared_cache=place, shared_cache_key=KEY)
    assert printed[-3:] == ["x"] * 3
    assert calls == [path] * 2


def test_what_a_parent_opened_is_checked_once(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its keys are not derived again for each entry."""
    backend, keys = sharing(ssm, place), [f"absent-{number}" for number in range(3)]
    assert [backend.get_variable(key) for key in keys] == [None] * 3
    answers.prepare_for_children(backend.config)
    answers._after_in_child()
    done: list[str] = []

    def noted(owner: Any, name: str) -> None:
        really = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **how: done.append(name) or really(*given, **how))

    noted(type(answers.answers_of(backend.config)._shared), "is_there")
    noted(shared_answers, "environment")
    noted(hkdf, "HKDF")
    assert [backend.get_variable(key) for key in keys] == [None] * 3
    assert sorted(done) == ["environment", "is_there"]


def test_a_farther_cache_is_asked_once_the_nearer_one_s_entry_counts_no_more(
    ssm: SsmRig, both_clocks: Clock, tmp_path: Path
) -> None:
    """A text by its own time to live, which is longer than an absence's."""
    near, far = f"file://{tmp_path}/near", f"file://{tmp_path}/far"
    path = stored(ssm, "layered", "one")
    assert sharing(ssm, near).get_variable("layered") == "one"
    both_clocks.now += NEGATIVE_TTL + 1
    ssm.put(path, "two")
    assert anew(lambda: sharing(ssm, far).get_variable("layered")) == "two"
    ssm.put(path, "three")
    both = sharing(ssm, f"{near},{far}")
    assert anew(lambda: both.get_variable("layered")) == "one"
    both_clocks.now = 1000.0 + TTL * cache.JITTER[0]
    assert anew(lambda: both.get_variable("layered")) == "two"


def test_a_hit_is_copied_to_nearer_caches_alone_and_once(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = f"file://{tmp_path}/near", f"file://{tmp_path}/far"
    stored(ssm, "copied", "x")
    assert sharing(ssm, far).get_variable("copied") == "x"
    written: list[str] = []
    write = DirectoryCache._write

    def noted(self: DirectoryCache, token: str, raw: bytes) -> bool:
        written.append(self.where)
        return write(self, token, raw)

    monkeypatch.setattr(DirectoryCache, "_write", noted)
    for _ in range(2):
        assert anew(lambda: sharing(ssm, f"{near},{far}").get_variable("copied")) == "x"
    assert written == [f"{tmp_path}/near/{SUBDIRECTORY}"]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("seconds", "believed"), [(2, True), (2.5, False), (86400, False)])
def test_what_is_from_the_future_is_not_believed(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch, seconds: float, believed: bool
) -> None:
    """The host's clock was set back, or another host's is ahead; the process's own goes on."""
    in_common = Clock()
    monkeypatch.setattr(entries, "wall_clock", in_common)
    path, backend = stored(ssm, "future", "one"), sharing(ssm, place)
    backend.get_variable("future")
    ssm.put(path, "two")
    in_common.now -= seconds
    assert anew(lambda: backend.get_variable("future")) == ("one" if believed else "two")
    if believed:
        assert answers.answers_of(backend.config).cached(path) == ("present", "present, 0 s old")


def test_an_answer_dates_from_when_the_store_was_asked(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    """A store that answers slowly says what was so before."""
    path, backend = stored(ssm, "slowly", "one"), sharing(ssm, place)

    def slowly(_: Request) -> None:
        both_clocks.now += 20

    with ssm.proxy.fault(slowly):
        assert backend.get_variable("slowly") == "one"
    ssm.put(path, "two")
    both_clocks.now += TTL - 20
    assert anew(lambda: backend.get_variable("slowly")) == "two"


def test_an_expired_value_stands_in_for_new_processes_too(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    stored(ssm, "outlived", "old")
    backend = sharing(ssm, place, **ONE_TRY)
    backend.get_variable("outlived")
    both_clocks.now += TTL + 1
    with ssm.fault("server-error"):
        assert anew(lambda: backend.get_variable("outlived")) == "old"
        both_clocks.now += MAX_STALE
        anew(lambda: failing(lambda: backend.get_variable("outlived")))


@pytest.mark.parametrize("preload", [[], ["variables"]], ids=["reads", "listings"])
def test_what_is_written_or_deleted_is_seen_at_once(ssm: SsmRig, place: str, preload: list[str]) -> None:
    stored(ssm, "changed", "old")
    backend = sharing(ssm, place, preload=preload)
    assert anew(lambda: backend.get_variable("changed")) == "old"
    operations.write(backend, "variables", "changed", "new")
    assert backend.get_variable("changed") == "new"
    assert anew(lambda: backend.get_variable("changed")) == "new"
    operations.delete(backend, "variables", "changed")
    assert backend.get_variable("changed") is None
    assert anew(lambda: backend.get_variable("changed")) is None


@pytest.mark.parametrize("act", ["write", "delete"])
def test_a_change_whose_answer_is_lost_is_seen_at_once(ssm: SsmRig, place: str, act: str) -> None:
    """It may have been made all the same."""
    stored(ssm, "changed-and-lost", "old")
    backend = sharing(ssm, place)
    assert backend.get_variable("changed-and-lost") == "old"

    def lost(request: Request) -> Reply | None:
        changes = request.headers["X-Amz-Target"].endswith((".PutParameter", ".DeleteParameter"))
        return Reply(reset=True, lost=True) if changes else None

    def change() -> object:
        if act == "write":
            return operations.write(backend, "variables", "changed-and-lost", "new")
        return operations.delete(backend, "variables", "changed-and-lost")

    with ssm.proxy.fault(lost):
        failing(change)
    after = "new" if act == "write" else None
    assert backend.get_variable("changed-and-lost") == after
    assert anew(lambda: backend.get_variable("changed-and-lost")) == after


def test_what_is_written_for_a_team_is_seen_at_once(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    ssm.put(ssm.path("variables", "changed-by-red", team="red"), "old")
    backend = sharing(ssm, place)
    assert backend.get_variable("changed-by-red", team_name="red") == "old"
    operations.write(backend, "variables", "changed-by-red", "new", team="red")
    assert backend.get_variable("changed-by-red", team_name="red") == "new"
    assert anew(lambda: backend.get_variable("changed-by-red", team_name="red")) == "new"


def test_what_is_written_is_seen_at_once_through_every_layer(ssm: SsmRig, tmp_path: Path) -> None:
    near, far = f"file://{tmp_path}/near", f"file://{tmp_path}/far"
    stored(ssm, "layers", "old")
    backend = sharing(ssm, f"{near},{far}")
    assert anew(lambda: backend.get_variable("layers")) == "old"
    operations.write(backend, "variables", "layers", "new")
    for place in (near, far, f"{near},{far}"):
        other = sharing(ssm, place)
        assert anew(lambda other=other: other.get_variable("layers")) == "new", place


def test_what_is_cleared_by_name_is_gone_under_every_key_and_in_every_layer(ssm: SsmRig, tmp_path: Path) -> None:
    near, far = f"file://{tmp_path}/near", f"file://{tmp_path}/far"
    path = stored(ssm, "cleared", "x")
    whole = sharing(ssm, f"{near},{far}", shared_cache_key=f"{OTHER_KEY}, {KEY}")
    for place in (near, far):
        for key in (KEY, OTHER_KEY):
            shared = answers.answers_of(sharing(ssm, place, shared_cache_key=key).config)._opened()
            assert shared is not None
            shared.put(path, "x")
    shared = answers.answers_of(whole.config)._opened()
    assert shared is not None
    assert len(list(shared.entries())) == 4
    assert shared.remove(path)
    assert list(shared.entries()) == []
    assert not shared.remove(path)


def test_a_directory_that_cannot_be_used_any_more_fails_no_write(
    ssm: SsmRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = sharing(ssm, f"file://{tmp_path}/shared")
    operations.write(backend, "variables", "unshared", "before")
    assert backend.get_variable("unshared") == "before"
    shutil.rmtree(tmp_path / "shared")
    (tmp_path / "shared").write_text("")
    operations.write(backend, "variables", "unshared", "after")
    assert backend.get_variable("unshared") == "after"
    assert [warning for warning in warned(caplog) if "Not a directory" in warning]


@pytest.mark.parametrize("before", ["old", None, "denied"])
def test_what_a_process_knows_stands_in_before_what_is_older(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """A cache that cannot be written to, a full server for example, still holds what was said before."""
    key = f"known-{before}-{place.partition(':')[0]}"
    path = ssm.path("variables", key)
    backend = sharing(ssm, place, **ONE_TRY)
    if before == "denied":
        with ssm.fault("denied"):
            failing(lambda: backend.get_variable(key))
    else:
        if before:
            ssm.put(path, before)
        assert backend.get_variable(key) == before
    both_clocks.now += TTL + 1
    ssm.put(path, "new")
    with monkeypatch.context() as full:
        full.setattr(entries.SharedCache, "put", lambda *_, **__: None)
        assert backend.get_variable(key) == "new"
    both_clocks.now += TTL + 1
    with ssm.fault("server-error"):
        assert backend.get_variable(key) == "new"


@pytest.mark.parametrize("told", ["denied", "absent"])
def test_what_another_process_was_told_counts_at_every_lookup(ssm: SsmRig, place: str, told: str) -> None:
    """By clocks that run: its time comes out a little different each time that it is reckoned."""
    key = f"told-{told}-{place.partition(':')[0]}"
    backend = sharing(ssm, place)

    def asked() -> Any:
        if told == "denied":
            return [type(error) for error in failing(lambda: backend.get_variable(key))]
        answers.answers_of(backend.config)._cache._entries.clear()
        return backend.get_variable(key)

    with ssm.fault("denied") if told == "denied" else contextlib.nullcontext():
        first = anew(asked)
        with ssm.counted() as calls:
            assert anew(lambda: [asked() for _ in range(100)]) == [first] * 100
    assert calls == []


@pytest.mark.parametrize("told", ["denied", "absent"])
def test_what_a_process_was_told_last_counts_before_what_is_older(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """A cache that could not be asked for a moment gives back what the store has taken away since."""
    key = f"taken-away-{told}-{place.partition(':')[0]}"
    path, backend = stored(ssm, key, "old"), sharing(ssm, place, **ONE_TRY)
    assert anew(lambda: backend.get_variable(key)) == "old"
    both_clocks.now += 2
    with monkeypatch.context() as away:
        away.setattr(entries.SharedCache, "get", lambda *_: None)
        away.setattr(entries.SharedCache, "put", lambda *_, **__: None)
        if told == "denied":
            with ssm.fault("denied"):
                anew(lambda: failing(lambda: backend.get_variable(key)))
        else:
            ssm.remove(path)
            assert anew(lambda: backend.get_variable(key)) is None
            both_clocks.now += NEGATIVE_TTL + 1
    with ssm.counted() as calls:
        if told == "denied":
            assert [type(error) for error in failing(lambda: backend.get_variable(key))] == [AccessDenied]
        else:
            assert backend.get_variable(key) is None
    assert calls == ([] if told == "denied" else [path])


def test_a_denial_is_no_newer_than_when_another_process_was_told(
    ssm: SsmRig, both_clocks: Clock, tmp_path: Path
) -> None:
    """What the store has said since counts, wherever it is kept."""
    near, far = f"file://{tmp_path}/near", f"file://{tmp_path}/far"
    stored(ssm, "denied-before", "x")
    with ssm.fault("denied"):
        failing(lambda: sharing(ssm, near).get_variable("denied-before"))
    both_clocks.now += 10
    assert anew(lambda: sharing(ssm, far).get_variable("denied-before")) == "x"
    both_clocks.now += 10
    both = sharing(ssm, [near, far])
    anew(lambda: failing(lambda: both.get_variable("denied-before")))
    both_clocks.now += NEGATIVE_TTL - 20
    with ssm.counted() as calls:
        assert both.get_variable("denied-before") == "x"
    assert calls == []


@contextlib.contextmanager
def full(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have nothing be written at *place* meanwhile."""
    if place.startswith("file"):
        with monkeypatch.context() as patched:
            patched.setattr(directory_cache, "ROOM_LEFT", 1.0)  # no file system is that empty
            yield
        return
    import redis

    client = redis.Redis.from_url(place)
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize("keys", [KEY, f"{OTHER_KEY}, {KEY}"], ids=["one key", "a new key"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_value_does_not_come_back_after_a_denial_that_cannot_be_written(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: str, layers: int
) -> None:
    key = f"withdrawn-{place.partition(':')[0]}-{len(keys)}-{layers}"
    stored(ssm, key, "old")
    where: Any = [f"file://{tmp_path}/nearer", place][-layers:]
    sharing(ssm, where).get_variable(key)
    backend = sharing(ssm, where, shared_cache_key=keys, **ONE_TRY)
    both_clocks.now += TTL + 1
    with full(place, monkeypatch), ssm.fault("denied"):
        anew(lambda: failing(lambda: backend.get_variable("another")))  # the server refuses a first one
        (error,) = failing(lambda: backend.get_variable(key))
    assert isinstance(error, AccessDenied)
    both_clocks.now += TTL + 1
    with ssm.fault("server-error"):
        (error,) = anew(lambda: failing(lambda: backend.get_variable(key)))
    assert isinstance(error, StoreUnavailable)


def test_a_value_does_not_come_back_after_one_that_is_too_large_to_share(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, backend = stored(ssm, "grown", "old"), sharing(ssm, place, **ONE_TRY)
    backend.get_variable("grown")
    both_clocks.now += TTL + 1
    monkeypatch.setattr(entries, "MAX_ENTRY_BYTES", 500)
    ssm.put(path, "x" * 1000)
    assert anew(lambda: backend.get_variable("grown")) == "x" * 1000
    both_clocks.now += TTL + 1
    with ssm.fault("server-error"):
        anew(lambda: failing(lambda: backend.get_variable("grown")))


def test_a_server_keeps_an_entry_for_as_long_as_it_may_stand_in(ssm: SsmRig) -> None:
    import redis

    client = redis.Redis.from_url(redis_url())
    client.flushdb()
    stored(ssm, "standing-in", "x")
    sharing(ssm, redis_url()).get_variable("standing-in")
    kept = [client.pttl(key) for key in client.scan_iter("airflow-secrets:*")]
    assert kept
    assert all(milliseconds > (TTL + MAX_STALE) * 1000 for milliseconds in kept)


def test_what_the_caches_hold_is_told_in_words(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer counts until its time is over, and no longer."""
    monkeypatch.setattr(cache, "JITTER", (1.0, 1.0))
    present = stored(ssm, "told", "x")
    absent, denied = ssm.path("variables", "untold"), ssm.path("variables", "denied")
    backend = sharing(ssm, place, **ONE_TRY)
    known = answers.answers_of(backend.config)
    assert {known.cached(name) for name in (present, absent, denied)} == {("not cached", "not cached")}
    assert (backend.get_variable("told"), backend.get_variable("untold")) == ("x", None)
    with ssm.fault("denied"):
        failing(lambda: backend.get_variable("denied"))
    assert known.cached(present) == ("present", "present, 0 s old")
    assert known.cached(absent) == ("absent", "absent, 0 s old")
    assert known.cached(denied) == ("not cached", "AccessDeniedException, 0 s old")
    both_clocks.now += NEGATIVE_TTL
    assert known.cached(present) == ("present", "present, 30 s old")
    assert known.cached(absent) == ("not cached", "absent, 30 s old, expired")
    assert known.cached(denied) == ("not cached", "AccessDeniedException, 30 s old, expired")
    both_clocks.now += TTL - NEGATIVE_TTL
    assert known.cached(present) == ("present, expired", "present, 60 s old, expired")
    alone = ssm.caching()
    alone.get_variable("told")
    assert answers.answers_of(alone.config).cached(present) == ("present", None)


def test_an_outage_costs_a_bounded_number_of_calls_in_all_processes(
    ssm: SsmRig, place: str, both_clocks: Clock
) -> None:
    stored(ssm, "back", "x")
    backend = sharing(ssm, place, **ONE_TRY)
    with ssm.fault("server-error"), ssm.counted() as calls:
        for number in range(40):
            anew(functools.partial(failing, lambda: backend.get_variable(f"outage-{number}")))  # noqa: B023
    assert len(calls) == cache.Breaker.FAILURES
    anew(lambda: failing(lambda: backend.get_variable("back")))
    both_clocks.now += cache.Breaker.PAUSE
    assert anew(lambda: backend.get_variable("back")) == "x"
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("outage-1")) is None
    assert len(calls) == 1


@pytest.fixture
def store_that_is_down(ssm: SsmRig, place: str, both_clocks: Clock) -> Any:
    """A backend whose store processes have just found to be down, and may try again."""
    backend = sharing(ssm, place, **ONE_TRY)
    with ssm.fault("server-error"):
        for number in range(cache.Breaker.FAILURES):
            anew(functools.partial(failing, lambda: backend.get_variable(f"down-{number}")))  # noqa: B023
    answers.reset_after_fork()
    both_clocks.now += cache.Breaker.PAUSE
    return backend


def asked_in_another_process(backend: Any, name: str) -> str:
    """Look *name* up as another process would meanwhile, and return the code of what became of it."""
    with pytest.raises(StoreUnavailable) as raised:
        answers.new_answers(backend.config).read(name)
    return raised.value.code


def test_one_process_of_all_finds_out_whether_an_outage_is_over(
    store_that_is_down: Any, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    meanwhile: list[str] = []

    def ask(access: StoreAccess, name: str, _: float) -> str:
        calls.append(name)
        if name in {"first", "second"}:
            meanwhile.extend(asked_in_another_process(store_that_is_down, f"{name}/{other}") for other in range(3))
        raise access.failure(name, Outcome.UNAVAILABLE, "still down")

    monkeypatch.setattr(StoreAccess, "ask", ask)
    for name in ("first", "second"):
        assert asked_in_another_process(store_that_is_down, name) == "still down"
        assert asked_in_another_process(store_that_is_down, "soon after").startswith("5 lookups in a row")
        both_clocks.now += cache.Breaker.PAUSE
    assert calls == ["first", "second"]
    assert [code[:18] for code in meanwhile] == ["5 lookups in a row"] * 6


@pytest.mark.parametrize("shared", [True, False])
def test_the_end_of_an_outage_is_noticed_within_one_pause(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(Breaker, "PAUSE_JITTER", (0.9, 0.9))
    path = stored(ssm, "back", "x")
    answers.reset_after_fork()
    backend = sharing(ssm, place, **ONE_TRY) if shared else ssm.caching(**ONE_TRY)
    with ssm.fault("server-error"):
        for number in range(Breaker.FAILURES):
            failing(lambda number=number: backend.get_variable(f"lost-{number}"))
    waited = 0
    for _ in range(int(Breaker.PAUSE)):
        both_clocks.now += 1
        waited += 1
        with ssm.counted() as calls, contextlib.suppress(StoreUnavailable):
            backend.get_variable("back")
        if calls:
            break
    assert calls == [path]
    assert waited >= 0.9 * Breaker.PAUSE


def test_of_processes_that_would_find_out_at_once_one_does(
    store_that_is_down: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one comes between this one's look at the outage and its claim to be the one that asks."""
    calls: list[str] = []
    flight = entries.CachePlace.flight

    def ask(access: StoreAccess, name: str, _: float) -> str:
        calls.append(name)
        raise access.failure(name, Outcome.UNAVAILABLE, "still down")

    def claimed_late(shared: SharedCache, name: str, *args: Any) -> Any:
        if name.startswith(shared_answers.OUTAGE):
            monkeypatch.setattr(entries.CachePlace, "flight", flight)
            assert asked_in_another_process(store_that_is_down, "first") == "still down"
        return flight(shared, name, *args)

    monkeypatch.setattr(StoreAccess, "ask", ask)
    monkeypatch.setattr(entries.CachePlace, "flight", claimed_late)
    assert asked_in_another_process(store_that_is_down, "second").startswith("5 lookups in a row")
    assert calls == ["first"]


def test_a_shared_failure_keeps_its_advice(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come from a code that is not shown, which another process does not know."""
    calls: list[str] = []

    def ask(access: StoreAccess, name: str, _: float) -> str:
        calls.append(name)
        raise access.failure(name, Outcome.DENIED, "no role", "AccessDenied of AssumeRole")

    monkeypatch.setattr(StoreAccess, "ask", ask)
    config = sharing(ssm, place).config
    told = [str(error) for _ in range(2) for error in failing(lambda: answers.new_answers(config).read("x"))]
    assert calls == ["x"]
    assert told[0] == told[1]
    assert "sts:AssumeRole" in told[1]


def test_a_shared_failure_of_a_listing_names_its_prefix(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ask_for_all(access: StoreAccess, prefix: str, _: float) -> dict[str, str | None]:
        raise access.failure(prefix, Outcome.DENIED, "no listing")

    monkeypatch.setattr(StoreAccess, "ask_for_all", ask_for_all)
    stored(ssm, "listed", "x")
    name = ssm.path("variables", "listed")
    config = sharing(ssm, place).config
    for _ in range(2):
        notices._warned.clear()
        assert answers.new_answers(config).read(name, name.removesuffix("listed")).text == "x"
    told = [message for message in warned(caplog) if "single reads" in message]
    assert len(told) == 2
    assert told[0] == told[1]
    assert f"could not give '{name.removesuffix('listed')}'" in told[1]


def test_an_outage_is_over_when_the_store_says_no(ssm: SsmRig, store_that_is_down: Any) -> None:
    with ssm.fault("denied"):
        assert [type(e) for e in failing(lambda: store_that_is_down.get_variable("denied"))] == [AccessDenied]
    assert anew(lambda: store_that_is_down.get_variable("absent")) is None


def test_an_outage_of_long_ago_keeps_nobody_waiting(
    store_that_is_down: Any, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was asked since: the store may be back for hours, and those who ask first are not refused."""
    both_clocks.now += cache.Breaker.WITHIN
    read: list[str | None] = []

    def ask(_: StoreAccess, name: str, __: float) -> str:
        if name == "first":
            read.append(answers.new_answers(store_that_is_down.config).read("second").text)
        return f"of {name}"

    monkeypatch.setattr(StoreAccess, "ask", ask)
    assert answers.new_answers(store_that_is_down.config).read("first").text == "of first"
    assert read == ["of second"]


def test_a_listing_is_as_old_as_its_first_page(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    """What is denied while the rest of it comes does not come back."""
    path = stored(ssm, "listed-and-denied", "old")
    backend = sharing(ssm, place, preload=["variables"])
    known = answers.answers_of(backend.config)

    def slowly(request: Request) -> Reply | None:
        if not ssm.is_page(request):
            return None
        both_clocks.now += 10
        known._cache.forget(path, both_clocks.now - 5)  # as a denial of a read of its own does
        return None

    with ssm.proxy.fault(slowly), ssm.counted() as calls:
        assert backend.get_variable("listed-and-denied") == "old"
    assert calls[-1] == path  # after the pages


def test_an_outage_of_all_processes_is_of_failures_in_a_row(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    stored(ssm, "between", "x")
    backend = sharing(ssm, place, **ONE_TRY)

    def asked_of(lookups: int) -> int:
        with ssm.fault("server-error"), ssm.counted() as calls:
            for _ in range(lookups):
                anew(functools.partial(failing, lambda: backend.get_variable("outage")))
        return len(calls)

    too_few = cache.Breaker.FAILURES - 1
    assert asked_of(too_few) == too_few
    assert anew(lambda: backend.get_variable("between")) == "x"
    assert asked_of(too_few) == too_few
    both_clocks.now += cache.Breaker.WITHIN + 1  # too long after the last one
    assert asked_of(too_few) == too_few
    both_clocks.now += cache.Breaker.WITHIN
    assert asked_of(3) == 1


def test_an_outage_is_remembered_for_as_long_as_it_counts(ssm: SsmRig, place: str) -> None:
    """However short a time everything else is of use."""
    backend = sharing(ssm, place, cache_ttl=1, cache_negative_ttl=1, max_stale=0)
    shared = answers.answers_of(backend.config)._opened()
    assert shared is not None
    assert shared.lifetime >= cache.Breaker.WITHIN + cache.Breaker.PAUSE


@pytest.mark.each_rig_in_ci
def test_a_listing_is_shared(rig: Rig, place: str) -> None:
    paths = [rig.path("variables", f"listed-{number}", base="shared-bulk") for number in range(5)]
    for path in paths:
        rig.put(path, path)
    option = rig.prefix_option.format(kind="variables")
    backend = sharing(rig, place, preload=["variables"], **{option: "shared-bulk"})
    with rig.counted() as calls:
        assert [backend.get_variable(f"listed-{number}") for number in range(5)] == paths
    assert set(calls) in ({PAGE}, {PAGE, *paths})
    with rig.counted() as calls:
        for _ in range(3):
            answers.reset_after_fork()
            assert [backend.get_variable(f"listed-{number}") for number in range(5)] == paths
            assert [backend.get_variable(f"absent-{number}") for number in range(20)] == [None] * 20
    assert calls == []


# Who may read what.


def raw_entries(place: str) -> list[bytes]:
    """Every name and entry of the cache at *place*, as an intruder reads them."""
    if place.startswith("file"):
        files = [path for path in Path(place.removeprefix("file://"), SUBDIRECTORY).iterdir() if path.is_file()]
        return [part for path in files for part in (path.name.encode(), path.read_bytes())]
    import redis

    client = redis.Redis.from_url(place)
    return [part for key in client.keys("*") for part in (key, client.get(key))]


def overwrite(place: str, written: Callable[[list[bytes]], list[bytes]]) -> None:
    """Give every entry another content."""
    if place.startswith("file"):
        paths = [path for path in Path(place.removeprefix("file://"), SUBDIRECTORY).iterdir() if len(path.name) == 64]
        for path, raw in zip(paths, written([path.read_bytes() for path in paths]), strict=True):
            path.write_bytes(raw)
        return
    import redis

    client = redis.Redis.from_url(place)
    keys = client.keys("*")
    for key, raw in zip(keys, written([client.get(key) for key in keys]), strict=True):
        client.set(key, raw)


@pytest.mark.each_rig_in_ci
def test_nothing_can_be_read_without_the_key(rig: Rig, place: str) -> None:
    stored(rig, "canary-name", "S3cr3t-value")
    sharing(rig, place).get_variable("canary-name")
    found = b"\n".join(raw_entries(place))
    assert found
    for canary in (b"S3cr3t", b"canary", KEY.encode(), base64.b64encode(b"S3cr3t-value"), b"connections", b"variables"):
        assert canary not in found


def test_an_absence_and_a_short_value_are_of_one_size(ssm: SsmRig, place: str) -> None:
    backend = sharing(ssm, place)
    for key, value in (("short", "x"), ("longer", "correct horse"), ("long", "x" * 200)):
        stored(ssm, key, value)
        backend.get_variable(key)
    backend.get_variable("absent")
    shared = answers.answers_of(backend.config).shared_cache()
    assert shared is not None
    assert sorted(entry.size for entry in shared.entries()) == [92] * 3 + [284]


def test_no_nonce_is_used_twice() -> None:
    """Two entries of one key and nonce would tell of both, and how to forge others (NIST SP 800-38D, appendix A)."""
    seal, entry = entries.Seal(KEY, b""), entries.SharedEntry("S3cr3t", 0.0)
    assert len({seal.close("token", entry)[: entries.NONCE_BYTES] for _ in range(100)}) == 100


def test_an_entry_is_sealed_as_the_documentation_says() -> None:
    """Other versions open it, and the given key, which may be Airflow's own, encrypts nothing."""
    given, version = base64.urlsafe_b64decode(KEY), b"airflow-providers-secrets 2"
    seal, entry = entries.Seal(KEY, b"whose"), entries.SharedEntry("S3cr3t", 1.0)
    token = hmac.new(given, version + b"\0whose\0name", "sha256").hexdigest()
    assert seal.token("name") == token
    raw = seal.close(token, entry)
    derived = AESGCM(hkdf.HKDF(SHA256(), length=32, salt=None, info=version).derive(given))
    assert json.loads(derived.decrypt(raw[:12], raw[12:], token.encode())) == ["S3cr3t", 1.0, None]
    assert (seal.open(token, raw), seal.open(seal.token("another"), raw)) == (entry, None)


def test_another_key_is_another_cache(ssm: SsmRig, place: str) -> None:
    path = stored(ssm, "keyed", "x")
    with ssm.counted() as calls:
        for key in (KEY, OTHER_KEY, KEY, OTHER_KEY):
            backend = sharing(ssm, place, shared_cache_key=key)
            assert anew(functools.partial(backend.get_variable, "keyed")) == "x"
    assert calls == [path] * 2


def test_versions_with_formats_of_their_own_use_one_place(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while components are restarted one after the other; and an older version comes back to its own entries."""
    path = stored(ssm, "kept", "x")
    with ssm.counted() as calls:
        for version in (b"older", b"newer", b"older", b"newer"):
            monkeypatch.setattr(entries, "FORMAT", version)
            assert anew(functools.partial(sharing(ssm, place).get_variable, "kept")) == "x"
    assert calls == [path] * 2


def test_a_key_is_changed_without_a_call(ssm: SsmRig, place: str) -> None:
    stored(ssm, "keyed", "x")
    sharing(ssm, place).get_variable("keyed")
    both = sharing(ssm, place, shared_cache_key=f"{OTHER_KEY}, {KEY}")
    with ssm.counted() as calls:
        assert anew(lambda: both.get_variable("keyed")) == "x"
    assert calls == []


def test_what_is_written_while_a_key_is_changed_is_for_those_who_have_the_new_one(ssm: SsmRig, place: str) -> None:
    path = stored(ssm, "keyed", "x")
    both = sharing(ssm, place, shared_cache_key=f"{OTHER_KEY}, {KEY}")
    with ssm.counted() as calls:
        assert anew(lambda: both.get_variable("keyed")) == "x"
        assert anew(lambda: sharing(ssm, place, shared_cache_key=OTHER_KEY).get_variable("keyed")) == "x"
    assert calls == [path]


def test_what_an_older_key_wrote_last_counts(ssm: SsmRig, place: str, both_clocks: Clock) -> None:
    """While a key is changed, some processes have the older one alone."""
    stored(ssm, "keyed", "old")
    both = sharing(ssm, place, shared_cache_key=f"{OTHER_KEY}, {KEY}", **ONE_TRY)
    assert both.get_variable("keyed") == "old"
    both_clocks.now += TTL + 1
    with ssm.fault("denied"):
        anew(lambda: failing(lambda: sharing(ssm, place).get_variable("keyed")))
    both_clocks.now += TTL + 1
    with ssm.fault("server-error"):
        (error,) = anew(lambda: failing(lambda: both.get_variable("keyed")))
    assert isinstance(error, StoreUnavailable)


def test_airflows_own_key_is_the_default(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(ssm, "keyed", "x")
    sharing(ssm, place).get_variable("keyed")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", KEY)
    with ssm.counted() as calls:
        assert anew(lambda: sharing(ssm, place, shared_cache_key=None).get_variable("keyed")) == "x"
    assert calls == []


def test_identities_prefixes_and_stores_never_answer_for_each_other(
    ssm: SsmRig, secrets_manager: SecretsManagerRig, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssm.put("/elsewhere/same", "elsewhere")
    stored(ssm, "same", "of SSM")
    stored(secrets_manager, "same", "of Secrets Manager")
    asking: list[tuple[Rig, dict[str, Any], str]] = [
        (ssm, {}, "of SSM"),
        (ssm, {"variables_prefix": "/elsewhere"}, "elsewhere"),
        (secrets_manager, {}, "of Secrets Manager"),
        (ssm, {"aws_access_key_id": "AKIAANOTHER"}, "of SSM"),
        (ssm, {"region_name": "eu-west-2"}, None),  # type: ignore[list-item]
    ]
    for expected_calls in (1, 0):
        for rig, options, expected in asking:
            with rig.counted() as calls:
                backend = sharing(rig, place, **options)
                assert anew(functools.partial(backend.get_variable, "same")) == expected
            assert len(calls) == expected_calls
    # Who asks may also be said by the environment.
    monkeypatch.setenv("AWS_PROFILE_OF_SOME_KIND", "another")
    with ssm.counted() as calls:
        anew(lambda: sharing(ssm, place).get_variable("same"))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("changed", "asked"),
    [("AWS_ACCESS_KEY_ID", 1), ("AWS_SECRET_ACCESS_KEY", 0), ("AWS_SESSION_TOKEN", 0), ("HOME", 1)],
)
def test_who_asks_is_told_by_what_names_them_and_not_by_a_secret(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str, asked: int
) -> None:
    """What is told apart is kept, so no secret is among it; files of credentials are below the home directory."""
    stored(ssm, "of-whom", "x")
    backend = sharing(ssm, place)
    for name, calls_made in (("one", 1), ("another", asked)):
        monkeypatch.setenv(changed, str(tmp_path / name))
        with ssm.counted() as calls:
            assert anew(lambda: backend.get_variable("of-whom")) == "x"
        assert len(calls) == calls_made


@pytest.mark.parametrize(("scope", "asked"), [(None, 1), ("fleet", 0)])
def test_with_a_scope_the_variables_of_one_instance_do_not_count(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch, scope: str | None, asked: int
) -> None:
    """Each task of Amazon ECS has a path of its own to the same credentials."""
    stored(ssm, "of-a-fleet", "x")
    backend = sharing(ssm, place, shared_cache_scope=scope)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/one")
    assert anew(lambda: backend.get_variable("of-a-fleet")) == "x"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/two")
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("of-a-fleet")) == "x"
    assert len(calls) == asked


def test_another_scope_is_another_cache(ssm: SsmRig, place: str) -> None:
    """For identities that no option and no variable tells apart."""
    path = stored(ssm, "scoped", "x")
    with ssm.counted() as calls:
        for scope in ("one", "another", None) * 2:
            backend = sharing(ssm, place, shared_cache_scope=scope)
            assert anew(functools.partial(backend.get_variable, "scoped")) == "x"
    assert calls == [path] * 3


def test_another_class_is_another_cache(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may ask another store, whatever its options."""
    path = stored(ssm, "of-a-class", "x")
    classes = ssm.backend_class, type("Theirs", (ssm.backend_class,), {})
    with ssm.counted() as calls:
        for look_up in (lambda own: own(), lambda own: own(), anew):  # in one process, and in others
            for backend_class in classes:
                monkeypatch.setattr(ssm, "backend_class", backend_class)
                assert look_up(lambda: sharing(ssm, place).get_variable("of-a-class")) == "x"
    assert calls == [path] * 2


def test_a_worker_whose_proxy_is_dead_says_nothing_of_the_others_way(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(ssm, "reached", "x")
    backend = sharing(ssm, place, **ONE_TRY)
    with monkeypatch.context() as of_one_worker:
        for name in ("no_proxy", "NO_PROXY"):
            of_one_worker.delenv(name, raising=False)
        of_one_worker.setenv("http_proxy", "http://127.0.0.1:9")
        for number in range(cache.Breaker.FAILURES + 1):
            error = anew(functools.partial(failing, functools.partial(backend.get_variable, f"unreached-{number}")))
        assert "lookups in a row had no answer" in str(error)
    assert anew(lambda: backend.get_variable("reached")) == "x"


def test_a_worker_before_whose_store_a_proxy_answers_says_nothing_of_the_others(ssm: SsmRig, place: str) -> None:
    stored(ssm, "answered", "x")
    backend = sharing(ssm, place, **ONE_TRY)
    with ssm.fault("proxy-404"):
        for number in range(cache.Breaker.FAILURES + 1):
            anew(functools.partial(failing, functools.partial(backend.get_variable, f"unanswered-{number}")))
    assert anew(lambda: backend.get_variable("answered")) == "x"


def test_teams_never_share_an_answer(ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    stored(ssm, "owned", "everybody's")
    ssm.put(ssm.path("variables", "owned", team="red"), "red's")
    backend = sharing(ssm, place)
    for _ in range(2):
        assert anew(lambda: backend.get_variable("owned", team_name="red")) == "red's"
        assert anew(lambda: backend.get_variable("owned", team_name="blue")) == "everybody's"
        assert anew(lambda: backend.get_variable("owned")) == "everybody's"


@pytest.mark.parametrize(
    "written",
    [
        lambda raw: [b""] * len(raw),
        lambda raw: [b"\x80\x04garbage"] * len(raw),
        lambda raw: [one[: len(one) // 2] for one in raw],
        lambda raw: [one[:-5] + b"AAAA=" for one in raw],
        lambda raw: [*raw[1:], raw[0]],
    ],
    ids=["empty", "garbage", "truncated", "forged", "exchanged"],
)
def test_entries_that_were_tampered_with_are_ignored_and_replaced(
    ssm: SsmRig, place: str, written: Callable[[list[bytes]], list[bytes]]
) -> None:
    backend = sharing(ssm, place)
    keys = [f"tampered-{number}" for number in range(3)]
    for key in keys:
        stored(ssm, key, key)
        backend.get_variable(key)
    overwrite(place, written)
    with ssm.counted() as calls:
        assert anew(lambda: [backend.get_variable(key) for key in keys]) == keys
        assert anew(lambda: [backend.get_variable(key) for key in keys]) == keys
    assert len(calls) == len(keys)


def test_a_time_out_just_as_an_entry_was_written_is_not_lost(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler raises where it likes, ``AirflowTaskTimeout`` for example."""
    stored(ssm, "timed-out", "x")
    backend = sharing(ssm, f"file://{tmp_path}/shared")
    replace = os.replace

    def interrupted(*paths: str) -> None:
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.get_variable("timed-out")
    monkeypatch.undo()
    assert anew(lambda: backend.get_variable("timed-out")) == "x"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), TimeIsUp()], ids=["full", "signal"]
)
def test_an_entry_that_cannot_be_written_leaves_nothing_behind(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """On a full file system, a file for each try would be more of the same."""
    stored(ssm, "unwritten", "x")
    backend = sharing(ssm, f"file://{tmp_path}/shared")

    def fail(*_: str) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with contextlib.suppress(TimeIsUp):
        assert backend.get_variable("unwritten") == "x"
    assert [file for file in (tmp_path / "shared" / SUBDIRECTORY).iterdir() if file.name.startswith("new-")] == []


# Processes.


def _cold(rig: Rig, place: str, barrier: Any, results: Any) -> None:
    backend = sharing(rig, place)
    barrier.wait(60)
    results.put([backend.get_variable(f"cold-{number}") for number in range(20)])


def test_8_processes_ask_once_for_each_of_20_names(ssm: SsmRig, place: str) -> None:
    for number in range(10):
        stored(ssm, f"cold-{number}", f"value {number}")
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    children = [context.Process(target=_cold, args=(ssm, place, barrier, results)) for _ in range(8)]
    with ssm.counted() as calls:
        for child in children:
            child.start()
        values = [results.get(timeout=120) for _ in children]
        for child in children:
            child.join(60)
    assert values == [[f"value {number}" for number in range(10)] + [None] * 10] * 8
    assert len(calls) == 20


def _hang(rig: Rig, place: str) -> None:
    sharing(rig, place).get_variable("orphaned")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long others were waited for: here, for a few looks instead of so many seconds."""
    waited: list[float] = []

    def pauses(seconds: float) -> Iterator[float]:
        waited.append(seconds)
        yield from (0.01,) * 5

    for module in (directory_cache, redis_server):
        monkeypatch.setattr(module, "pauses", pauses)
    return waited


def asking_child(rig: Rig, place: str) -> multiprocessing.process.BaseProcess:
    """Start a process that has asked the store, which gives it no answer."""
    child = multiprocessing.get_context("fork").Process(target=_hang, args=(rig, place))
    before = len(rig.calls)
    child.start()
    while len(rig.calls) == before:
        assert child.is_alive()
        os.sched_yield()
    return child


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_process_that_ends_while_it_asks_costs_others_half_their_time(
    ssm: SsmRig, place: str, end: signal.Signals, patience: list[float]
) -> None:
    """None where it holds a file's lock and is killed; Redis cannot see a process end."""
    stored(ssm, "orphaned", "x")
    with ssm.fault("hang"):
        child = asking_child(ssm, place)
        assert child.pid
        os.kill(child.pid, end)
        if end == signal.SIGKILL:
            child.join(60)
    try:
        assert sharing(ssm, place, timeout=50).get_variable("orphaned") == "x"
    finally:
        child.kill()
        child.join(60)
    assert [seconds for seconds in patience if not 20 < seconds <= 25] == []
    assert patience


def test_nobody_waits_for_another_process_for_longer_than_they_would(ssm: SsmRig, place: str) -> None:
    backend = sharing(ssm, place)
    asking, waiting = (answers.new_answers(backend.config).shared_cache() for _ in range(2))
    assert asking
    assert waiting
    asked: list[str] = []

    def wait() -> None:
        with waiting.flight("x", 0.05):
            asked.append("x")

    waiter = threading.Thread(target=wait, daemon=True)
    with asking.flight("x", 60):
        waiter.start()
        waiter.join(60)
        assert asked == ["x"]


# The directory.


@pytest.mark.parametrize("end", ["", "/"])
def test_entries_are_the_users_alone(ssm: SsmRig, tmp_path: Path, end: str) -> None:
    before = os.umask(0)
    try:
        sharing(ssm, f"file://{tmp_path}/deep/shared{end}").get_variable("absent")
    finally:
        os.umask(before)
    directory = tmp_path / "deep" / "shared"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / SUBDIRECTORY).stat().st_mode) == 0o700
    files = list((directory / SUBDIRECTORY).iterdir())
    assert len(files) >= 2
    assert {stat.S_IMODE(file.stat().st_mode) & 0o177 for file in files} == {0}


def test_the_default_directory_is_the_users_own_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime, in_memory = tmp_path / "run", f"/dev/shm/airflow-secrets-{os.geteuid()}"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert shared_cache.default_directory() == f"{runtime}/airflow-secrets"
    runtime.chmod(0o770)  # or anybody of the group could have made what is in it
    assert shared_cache.default_directory() == in_memory
    runtime.chmod(0o700)
    link = tmp_path / "link"  # whoever made it can let it lead elsewhere
    link.symlink_to(runtime)
    for other in (link, tmp_path / "missing"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(other))
        assert shared_cache.default_directory() == in_memory
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    another = os.geteuid() + 1  # as after su, which keeps the variable
    monkeypatch.setattr(os, "geteuid", lambda: another)
    assert shared_cache.default_directory() == f"/dev/shm/airflow-secrets-{another}"


def private(directory: Path) -> Path:
    directory.mkdir(mode=0o700)
    return directory


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: path.mkdir(mode=0o755), "open to other users"),
        (lambda path: path.mkdir(mode=0o750), "open to other users"),
        (lambda path: path.write_text(""), "not a directory"),
        (lambda path: path.symlink_to(private(path.parent / "elsewhere")), "not a directory"),
        (lambda path: (path.mkdir(mode=0o700), os.chown(path, 12345, -1)), "another user"),
        (lambda path: path.parent.joinpath("file").write_text(""), None),
    ],
    ids=["open", "open to the group", "a file", "a link", "another's", "fine"],
)
@pytest.mark.parametrize("end", ["", "/", "/."])
def test_a_directory_that_the_user_must_fix(
    ssm: SsmRig, tmp_path: Path, make: Callable[[Path], Any], fault: str | None, end: str
) -> None:
    directory = tmp_path / "shared"
    if fault == "another user" and os.geteuid() != 0:
        directory = Path("/proc/1")  # of root's
        fault = "another user|open to"
    else:
        make(directory)
    backend = sharing(ssm, f"file://{directory}{end}")
    if fault is None:
        assert backend.get_variable("absent") is None
        return
    with pytest.raises(ConfigurationError, match=rf"shared_cache.*{fault}"):
        backend.get_variable("x")


def test_a_directory_that_cannot_be_made(ssm: SsmRig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"shared_cache.*cannot be used"):
        sharing(ssm, f"file://{tmp_path}/file/shared").get_variable("x")


def test_a_directory_that_is_removed_meanwhile_fails_no_lookup(
    ssm: SsmRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(ssm, "kept", "x")
    backend = sharing(ssm, f"file://{tmp_path}/shared")
    assert backend.get_variable("absent") is None
    shutil.rmtree(tmp_path / "shared")
    assert backend.get_variable("kept") == "x"
    assert [message for message in warned(caplog) if "No such file" in message]
    with ssm.counted() as calls:  # it is made again
        assert anew(lambda: backend.get_variable("kept")) == "x"
    assert calls == []
    shutil.rmtree(tmp_path / "shared" / SUBDIRECTORY)
    (tmp_path / "shared").chmod(0o755)  # and where it cannot be, no lookup fails
    assert backend.get_variable("another") is None
    shutil.rmtree(tmp_path / "shared")
    (tmp_path / "shared").write_text("")
    assert backend.get_variable("yet-another") is None


@pytest.mark.parametrize("name", ["pages", "swept", "an entry"])
def test_a_named_pipe_in_the_place_of_a_file_keeps_nobody_waiting(ssm: SsmRig, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    stored(ssm, "piped", "x")
    backend = sharing(ssm, f"file://{directory.parent}")
    assert backend.get_variable("piped") == "x"
    paths = [directory / name] if name != "an entry" else [path for path in directory.iterdir() if len(path.name) == 64]
    for path in paths:
        path.unlink()
        os.mkfifo(path)
    assert anew(lambda: backend.get_variable("piped")) == "x"
    assert backend.get_variable("absent") is None


@pytest.mark.parametrize("name", ["pages", "swept", "an entry"])
def test_a_link_in_the_place_of_a_file_is_not_followed(ssm: SsmRig, tmp_path: Path, name: str) -> None:
    directory, other = tmp_path / "shared" / SUBDIRECTORY, tmp_path / "other"
    path = stored(ssm, "linked", "x")
    backend = sharing(ssm, f"file://{directory.parent}")
    assert backend.get_variable("linked") == "x"
    (entry,) = [file for file in directory.iterdir() if len(file.name) == 64]
    file = entry if name == "an entry" else directory / name
    file.rename(other)
    os.utime(other, (1, 1))
    before = other.read_bytes()
    file.symlink_to(other)
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("linked")) == "x"
        assert backend.get_variable("absent") is None
    assert (path in calls) == (name == "an entry")
    assert (other.read_bytes(), other.stat().st_mtime) == (before, 1)


@pytest.mark.parametrize("behind", ["nothing", "redis"])
def test_a_directory_that_was_opened_to_others_since_a_parent_looked_is_refused(
    ssm: SsmRig, behind: str, tmp_path: Path
) -> None:
    stored(ssm, "opened-before", "x")
    code = f"""
        def work():
            try:
                print("read", backend.get_variable("opened-before"))
            except Exception as error:
                print("read", error)
        fork(work)
        os.chmod("{tmp_path}/shared/{SUBDIRECTORY}", 0o777)
        fork(work)
    """
    places = [f"file://{tmp_path}/shared", *([redis_url()] if behind == "redis" else [])]
    printed = in_a_process(ssm, code, shared_cache=places, shared_cache_key=KEY)
    value, refused = [line for line in printed if line.startswith("read ")]
    assert value == "read x"
    assert "is open to other users" in refused


def test_what_is_from_the_future_does_not_count_when_the_clock_is_there(
    ssm: SsmRig, tmp_path: Path, both_clocks: Clock
) -> None:
    stored(ssm, "future", "old")
    both_clocks.now += 86400
    backend = sharing(ssm, f"file://{tmp_path}/shared", **ONE_TRY)
    assert backend.get_variable("future") == "old"
    both_clocks.now -= 3600
    anew(lambda: backend.get_variable("absent"))
    both_clocks.now += 3600
    with ssm.fault("server-error"):
        anew(lambda: failing(lambda: backend.get_variable("future")))


def test_what_is_of_no_use_any_more_is_removed(ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    backend = sharing(ssm, f"file://{directory.parent}")
    for number in range(5):
        backend.get_variable(f"swept-{number}")
    old = {path for path in directory.iterdir() if len(path.name) == 64}
    for path in [*old, directory / "swept"]:
        os.utime(path, (1000, 1000))
    backend.get_variable("another")
    assert old.isdisjoint(directory.iterdir())
    monkeypatch.setattr(directory_cache, "MAX_FILES", 3)
    os.utime(directory / "swept", (1000, 1000))
    for number in range(5):
        backend.get_variable(f"later-{number}")
    os.utime(directory / "swept", (1000, 1000))
    backend.get_variable("last")
    assert len([path for path in directory.iterdir() if len(path.name) == 64]) == 3


def test_a_directory_is_swept_once_a_minute(
    ssm: SsmRig, tmp_path: Path, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes: a sweep looks at each of up to 20,000 files."""
    swept: list[float] = []
    sweep = DirectoryCache._sweep

    def noted(self: DirectoryCache, **how: bool) -> None:
        swept.append(both_clocks.now)
        sweep(self, **how)

    monkeypatch.setattr(DirectoryCache, "_sweep", noted)
    for now in (1000.0, 1001.0, 1059.0, 1060.0, 1061.0):
        both_clocks.now = now
        anew(lambda now=now: sharing(ssm, f"file://{tmp_path}/shared").get_variable(f"absent-{now:.0f}"))
    assert swept == [1000.0, 1060.0]


def test_another_store_s_short_lifetimes_remove_nothing_that_is_of_use(
    ssm: SsmRig, tmp_path: Path, both_clocks: Clock
) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    path = stored(ssm, "long", "old")
    long = sharing(ssm, f"file://{directory.parent}", **ONE_TRY)
    short = sharing(ssm, f"file://{directory.parent}", cache_ttl=1, cache_negative_ttl=1, max_stale=0)
    assert long.get_variable("long") == "old"
    (kept,) = [path for path in directory.iterdir() if len(path.name) == 64]
    both_clocks.now += TTL + directory_cache.SWEEP_INTERVAL
    anew(lambda: short.get_variable("first"))
    with ssm.fault("server-error"):
        assert anew(lambda: long.get_variable("long")) == "old"
    # When it is of no use to its own store either, whoever writes next removes it.
    both_clocks.now = 1000.0 + TTL + NEGATIVE_TTL + MAX_STALE + 1
    anew(lambda: short.get_variable("second"))
    assert not kept.exists()
    ssm.remove(path)


def test_an_entry_s_age_is_told_from_when_it_was_written(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    backend = sharing(ssm, f"file://{directory.parent}")
    backend.get_variable("absent")
    (path,) = [path for path in directory.iterdir() if len(path.name) == 64]
    written = path.stat().st_ctime
    found = answers.answers_of(backend.config).shared_cache()
    assert found is not None
    for passed, age in ((100, 100), (-100, 0)):  # the clock may have been set back
        monkeypatch.setattr(entries, "wall_clock", lambda: written + passed)  # noqa: B023
        assert [entry.age for entry in found.entries()] == [pytest.approx(age)]


def test_what_goes_while_an_operator_looks_is_neither_told_nor_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096)
    for number in range(4):
        shared.put(str(number), None)
    looking = shared.entries()
    next(looking)
    files = list(shared._files())
    for file in files[:2]:
        Path(file).unlink()
    assert len(list(looking)) == 2
    monkeypatch.setattr(shared, "_files", lambda: iter(files))  # as when they were listed before
    assert shared.clear() == 2


def test_a_sweep_leaves_what_another_process_is_writing(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    backend = sharing(ssm, f"file://{directory.parent}")
    backend.get_variable("absent")
    unfinished = directory / "new-x"
    unfinished.write_text("x")
    begun = unfinished.stat().st_ctime
    for passed, is_there in ((1, True), (directory_cache.SWEEP_INTERVAL + 2, False)):
        monkeypatch.setattr(entries, "wall_clock", lambda: begun + passed)  # noqa: B023
        os.utime(directory / "swept", (1000, 1000))
        anew(lambda: backend.get_variable(f"another-{passed}"))  # noqa: B023
        assert unfinished.exists() is is_there


def test_nothing_but_its_own_entries_is_ever_removed(ssm: SsmRig, tmp_path: Path) -> None:
    """Pointed at an Airflow home, for example."""
    directory = tmp_path / "shared"
    backend = sharing(ssm, f"file://{directory}")
    backend.get_variable("absent")
    others = [directory / "airflow.cfg", directory / ("a" * 64), directory / SUBDIRECTORY / "airflow.db"]
    for other in others:
        other.write_text("x")
        os.utime(other, (1000, 1000))
    os.utime(directory / SUBDIRECTORY / "swept", (1000, 1000))
    backend.get_variable("another")
    assert [other.exists() for other in others] == [True, True, True]


def test_a_directory_takes_no_more_than_it_may(ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    most = 40 * 4096
    backend = sharing(ssm, f"file://{directory.parent}", shared_cache_max_bytes=most)
    swept: list[int] = []
    sweep = DirectoryCache._sweep
    monkeypatch.setattr(DirectoryCache, "_sweep", lambda self, **how: swept.append(number) or sweep(self, **how))
    for number in range(60):
        backend.get_variable(f"absent-{number}")
        entries_now = [path for path in directory.iterdir() if len(path.name) == 64]
        assert len(entries_now) * 4096 <= most
        if len(entries_now) >= 30:
            with ssm.counted() as calls:  # the newest is there, for a new process
                anew(lambda: backend.get_variable(f"absent-{number}"))  # noqa: B023
            assert calls == []
    assert len(entries_now) >= 25
    assert len(swept) <= 4  # each looks at every file


def test_an_entry_for_which_there_is_no_room_at_all_takes_that_of_no_other(ssm: SsmRig, tmp_path: Path) -> None:
    backend = sharing(ssm, f"file://{tmp_path}/shared", shared_cache_max_bytes=40 * 4096)
    shared = answers.answers_of(backend.config).shared_cache()
    assert shared
    for number in range(35):
        shared.put(f"small-{number}", None)
    shared.put("large", "x" * 41 * 4096)
    assert len(list(shared.entries())) == 35


def test_a_file_that_is_too_large_for_an_entry_is_not_read(ssm: SsmRig, tmp_path: Path) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    path, backend = stored(ssm, "grown", "x"), sharing(ssm, f"file://{directory.parent}")
    assert backend.get_variable("grown") == "x"
    (entry,) = [file for file in directory.iterdir() if len(file.name) == 64]
    os.truncate(entry, 2**40)  # takes no room on the file system, and more in memory than there is
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("grown")) == "x"
    assert calls == [path]


def test_a_directory_in_the_place_of_an_entry_is_told_and_fails_no_lookup(
    ssm: SsmRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "shared" / SUBDIRECTORY
    path, backend = stored(ssm, "replaced", "x"), sharing(ssm, f"file://{directory.parent}")
    assert backend.get_variable("replaced") == "x"
    (entry,) = [file for file in directory.iterdir() if len(file.name) == 64]
    entry.unlink()
    entry.mkdir()
    with ssm.counted() as calls:
        assert anew(lambda: backend.get_variable("replaced")) == "x"
    assert calls == [path]
    assert [message for message in warned(caplog) if "Is a directory" in message]


def test_a_full_file_system_is_left_alone(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(directory_cache, "ROOM_LEFT", 1.0)  # no file system is that empty
    backend = sharing(ssm, f"file://{tmp_path}/shared")
    assert backend.get_variable("absent") is None
    assert not [path for path in (tmp_path / "shared" / SUBDIRECTORY).iterdir() if len(path.name) == 64]
    assert [message for message in warned(caplog) if "full" in message]


@pytest.mark.parametrize(("available", "written"), [(50, False), (51, True)])
def test_a_twentieth_of_a_file_system_is_left_to_others(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, written: bool
) -> None:
    """Of what a user other than root may write."""
    told = os.statvfs(tmp_path)
    nearly_full = os.statvfs_result((4096, 4096, 1000, 500, available, *told[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: nearly_full)
    assert sharing(ssm, f"file://{tmp_path}/shared").get_variable("absent") is None
    assert any(len(path.name) == 64 for path in (tmp_path / "shared" / SUBDIRECTORY).iterdir()) is written


def test_an_operator_is_told_that_a_directory_is_full_and_a_probe_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096)
    shared.probe()
    assert list((tmp_path / "shared" / SUBDIRECTORY).iterdir()) == []
    monkeypatch.setattr(directory_cache, "ROOM_LEFT", 1.0)  # no file system is that empty
    with pytest.raises(SecretsError, match="its file system is full"):
        shared.probe()


def test_a_file_system_without_a_limit_is_not_full(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ramfs, or a tmpfs with size=0, reports neither blocks nor free ones."""
    told = os.statvfs(tmp_path)
    none = os.statvfs_result((told.f_bsize, told.f_frsize, 0, 0, 0, *told[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: none)
    backend = sharing(ssm, f"file://{tmp_path}/shared")
    assert backend.get_variable("absent") is None
    assert [path for path in (tmp_path / "shared" / SUBDIRECTORY).iterdir() if len(path.name) == 64]


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096)
    with shared.flight("name", 1):
        (lock,) = (tmp_path / "shared" / SUBDIRECTORY).iterdir()
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with shared.flight("name", 1):  # without a lock
        assert not (tmp_path / "elsewhere").exists()


def test_no_file_stays_open(tmp_path: Path) -> None:
    """A scheduler lives for months."""
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096)
    with shared.flight("name", 1):
        shared.put("name", "x")  # the first one sweeps
        assert shared.get("name")
    still_open = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # listing itself takes one
            still_open.append(descriptor.readlink())
    assert [path for path in still_open if path.is_relative_to(tmp_path)] == []


def test_an_older_key_s_entry_is_not_read_beside_a_young_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server, each would be a round trip in every child, for as long as the older key is named."""
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY, OTHER_KEY], b"", TTL, 10 * 4096)
    shared.put("name", "x")
    tokens: list[str] = []
    really = shared._read
    monkeypatch.setattr(shared, "_read", lambda token: tokens.append(token) or really(token))
    for young, reads in ((True, 1), (False, 2)):
        tokens.clear()
        assert shared.get("name", lambda _: young)  # noqa: B023
        assert len(set(tokens)) == reads


def test_processes_that_sweep_at_once_lose_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096)
    shared.put("old", "x")
    directory = tmp_path / "shared" / SUBDIRECTORY
    for path in directory.iterdir():
        os.utime(path, (1000, 1000))
    unlink = os.unlink

    def after_another(path: str) -> None:
        unlink(path)
        unlink(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", after_another)
        shared.put("new", "x")
    assert shared.get("old") is None
    assert shared.get("new")


def test_names_are_not_all_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one slow answer would hold up every process of the host."""
    shared = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096)
    tries: list[int] = []
    monkeypatch.setattr(directory_cache, "pauses", lambda _: (tries.append(1) or 0.0 for _ in range(3)))
    with contextlib.ExitStack() as flights:
        for name in ("one", "another"):
            flights.enter_context(shared.flight(name, 5))
    assert len(tries) == 2  # both are free at the first try


def test_a_file_system_without_locks_is_told_and_fails_no_lookup(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def none(_: object, operation: int) -> None:
        tries.append(operation)
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(directory_cache.fcntl, "flock", none)
    path, backend = stored(ssm, "unlocked", "x"), sharing(ssm, f"file://{tmp_path}/shared")
    with ssm.counted() as calls:
        assert [anew(lambda: backend.get_variable("unlocked")) for _ in range(2)] == ["x", "x"]
    assert calls == [path]
    assert len(tries) == 2  # to lock and to unlock: nobody waits for what cannot be had
    assert [message for message in warned(caplog) if "No locks available" in message]


def test_a_default_place_that_another_user_made_first_fails_no_lookup(
    ssm: SsmRig, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again a minute later."""
    stored(ssm, "kept", "x")
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    monkeypatch.setattr(shared_cache, "default_directory", lambda: str(theirs))
    backend = sharing(ssm, "file")
    assert [backend.get_variable("kept") for _ in range(2)] == ["x", "x"]
    assert [message for message in warned(caplog) if "not shared" in message]
    theirs.chmod(0o700)
    clock.now += shared_answers.REOPENING_PAUSE - 0.1
    assert backend.get_variable("absent") is None
    assert not list(theirs.iterdir())
    clock.now += 0.1
    assert backend.get_variable("absent-too") is None
    assert list(theirs.iterdir())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_keep_its_killed_parents_lock(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"file://{tmp_path}/shared"
    stored(ssm, "locked", "x")
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe()

    def wait() -> None:
        writer.send(os.getpid())  # from here: by now it has let the lock go
        signal.pause()

    def parent() -> None:
        backend = sharing(ssm, place)
        backend.get_variable("absent")
        shared = answers.answers_of(backend.config)._opened()
        assert shared
        with shared.flight(ssm.path("variables", "locked"), 1):
            context.Process(target=wait).start()
            signal.pause()

    process = context.Process(target=parent)
    process.start()
    grandchild = reader.recv()
    try:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()  # with a time-out it would wait for the grandchild, too: for its end of a pipe
        other = answers.new_answers(sharing(ssm, place).config)
        shared = other._opened()
        assert shared
        tries: list[int] = []
        with monkeypatch.context() as patched:
            patched.setattr(directory_cache, "pauses", lambda _: (tries.append(1) or 0.0 for _ in range(3)))
            with shared.flight(ssm.path("variables", "locked"), 5):
                assert len(tries) == 1  # free at the first try
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_no_child_starts_between_the_opening_and_the_listing_of_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep the lock for its whole life: it closes what is listed."""
    shared, held = DirectoryCache(str(tmp_path / "shared"), [KEY], b"", TTL, 10 * 4096), []
    really = directory_cache._open_lock
    monkeypatch.setattr(
        directory_cache, "_open_lock", lambda *given: held.append(forks.holds_forks()) or really(*given)
    )
    with shared.flight("name", 1):
        held.append(forks.holds_forks())
    assert held == [True, False]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_a_signals_handler_forks_in_a_flight_ends_it(ssm: SsmRig, tmp_path: Path) -> None:
    """The parent's lock is closed there, and its descriptor may be somebody else's."""
    shared = answers.new_answers(sharing(ssm, f"file://{tmp_path}/shared").config)._opened()
    assert shared
    parent, status = os.getpid(), 1
    try:
        with shared.flight("name", 1):
            child = os.fork()
            if child == 0:
                reused = os.open(tmp_path, os.O_RDONLY)
        if child == 0:
            os.fstat(reused)
            status = 0
    finally:
        if os.getpid() != parent:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert directory_cache._lock_files == set()  # or a process that lives long would have more and more


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_a_signals_handler_forks_before_a_flight_goes_on_without_its_parents_lock(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would otherwise fail: what its parent waits for is closed there."""
    config = sharing(ssm, f"file://{tmp_path}/shared").config
    asking, waiting = (answers.new_answers(config).shared_cache() for _ in range(2))
    assert asking
    assert waiting
    parent, status = os.getpid(), 1
    children: list[int] = []

    def pauses(_: float) -> Iterator[float]:
        yield 0.0
        children.append(os.fork())
        yield 0.0

    try:
        with asking.flight("name", 1):
            monkeypatch.setattr(directory_cache, "pauses", pauses)
            with waiting.flight("name", 1):
                status = 0
    finally:
        if os.getpid() != parent:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_a_signal_that_raises_as_a_flight_ends_leaves_it_unlocked(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise TimeIsUp

    shared = answers.new_answers(sharing(ssm, f"file://{tmp_path}/shared").config)._opened()
    assert shared
    with monkeypatch.context() as patched, pytest.raises(TimeIsUp) as raised, shared.flight("name", 1):
        patched.setattr(directory_cache.fcntl, "flock", interrupted)
    del raised
    gc.collect()
    tries: list[int] = []
    monkeypatch.setattr(directory_cache, "pauses", lambda _: (tries.append(1) or 0.0 for _ in range(3)))
    with shared.flight("name", 5):
        assert len(tries) == 1  # free at the first try


@pytest.mark.measured
@pytest.mark.each_rig_in_ci
def test_a_hit_takes_150_microseconds(rig: Rig, tmp_path: Path) -> None:
    """Who asks is found out anew at each: some logins have files for it."""
    stored(rig, "warm", "x" * 200)
    backend = sharing(rig, f"file://{tmp_path}/shared")
    backend.get_variable("warm")
    (known,) = answers._answers.values()
    medians: list[float] = []

    def hit() -> None:
        known._cache.clear()
        assert backend.get_variable("warm")

    with rig.counted() as calls:
        while len(medians) < 20 and min(medians, default=1.0) > 150e-6:  # the machine's noise only adds
            medians.append(
                statistics.median(timeit.repeat(hit, number=1, repeat=200, timer=time.process_time)) / slowness()
            )
    assert min(medians) <= 150e-6, medians
    assert calls == []


# Redis.


class Silent:
    """A server that accepts connections, counts them and never answers."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self._server.accept()[0])

    def stop(self) -> None:
        self._server.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.stop()


@pytest.mark.parametrize("answers_nothing", [True, False])
def test_redis_that_cannot_be_reached_costs_little_and_fails_nothing(
    ssm: SsmRig,
    silent: Silent,
    answers_nothing: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_server, "REDIS_PAUSE", 3600.0)  # a busy machine may need 15 s for what follows
    for number in range(20):
        stored(ssm, f"without-{number}", "x")
    backend = sharing(ssm, f"redis://:S3cr3t@127.0.0.1:{silent.port if answers_nothing else 1}/0")
    assert [backend.get_variable(f"without-{number}") for number in range(20)] == ["x"] * 20
    assert len(silent.connections) == answers_nothing
    (warning,) = warned(caplog)
    assert "Redis is left out for 3600 s" in warning
    assert "S3cr3t" not in caplog.text


@pytest.mark.parametrize("form", ["a link's", "the default", "a server's"])
def test_a_place_that_is_named_twice_is_one(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Its second layer would wait for the flight of its first."""
    (tmp_path / "linked").symlink_to(tmp_path)
    monkeypatch.setattr(shared_cache, "default_directory", lambda: f"{tmp_path}/shared")
    server = redis_url() if form == "a server's" else ""
    where = {
        "a link's": [f"file://{tmp_path}/shared", f"file://{tmp_path}/linked/shared"],
        "the default": ["file", f"file://{tmp_path}/shared"],
        "a server's": [server, f"{server.replace('/0?', '?db=0&')}&protocol=2"],
    }[form]
    found = answers.answers_of(sharing(ssm, where).config).shared_cache()
    assert found is not None
    assert "," not in found.where


def test_redis_drops_entries_by_itself(ssm: SsmRig) -> None:
    import redis

    client = redis.Redis.from_url(redis_url())
    client.flushdb()
    sharing(ssm, redis_url()).get_variable("absent")
    (key,) = client.keys("*")
    assert 0 < client.pttl(key) <= (TTL + NEGATIVE_TTL + MAX_STALE) * 1000


# Options.


@pytest.mark.parametrize(
    "where",
    ["memory", "file://relative", "file:///", "http://h", "redis://", "redis://:S3cr3t@/0", "rediss://h:S3cr3t", 5],
)
def test_a_place_that_is_none_is_refused(ssm: SsmRig, where: Any) -> None:
    with pytest.raises(ConfigurationError, match="'shared_cache' must be 'file'") as raised:
        sharing(ssm, where)
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize("key", ["S3cr3t", f"{KEY},S3cr3t", KEY[:-4], [5], 7])
def test_a_key_that_is_none_is_refused(ssm: SsmRig, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="'shared_cache_key' must be a Fernet key") as raised:
        sharing(ssm, "file", shared_cache_key=key)
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize("key", ["", "S3cr3t"])
def test_a_missing_key_is_told_and_fails_no_lookup(
    ssm: SsmRig, place: str, key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", key)
    backend = sharing(ssm, place, shared_cache_key=None)
    stored(ssm, "x", "y")
    assert backend.get_variable("x") == "y"
    (told,) = warned(caplog)
    assert told.startswith("Answers are not shared between processes: ")
    assert "[core] fernet_key holds no Fernet key" in told
    assert "shared_cache_key" in told
    assert "S3cr3t" not in told
    # Who asks for the cache itself is told by an error.
    with pytest.raises(ConfigurationError, match=r"\[core\] fernet_key.*shared_cache_key") as raised:
        answers.answers_of(backend.config).shared_cache()
    assert "S3cr3t" not in str(raised.value)
    # Once Airflow has one, it is used.
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", KEY)
    assert answers.answers_of(backend.config).shared_cache() is not None


def test_airflow_s_key_that_cannot_be_read_is_told_and_fails_no_lookup(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow's error has what the command wrote in its text."""
    monkeypatch.delenv("AIRFLOW__CORE__FERNET_KEY", raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY_CMD", "sh -c 'echo S3cr3t; echo S3cr3t >&2; exit 1'")
    backend = sharing(ssm, place, shared_cache_key=None)
    stored(ssm, "x", "y")
    assert backend.get_variable("x") == "y"
    (told,) = warned(caplog)
    assert told.startswith("Answers are not shared between processes: ")
    assert "[core] fernet_key cannot be read (AirflowConfigException)" in told
    assert "shared_cache_key" in told
    assert "S3cr3t" not in caplog.text
    with pytest.raises(ConfigurationError, match=r"\[core\] fernet_key.*shared_cache_key") as raised:
        answers.answers_of(backend.config).shared_cache()
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__context__ is None  # what reports errors may follow it, suppressed or not
    # Once it can be read, it is used.
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY_CMD", f"echo {KEY}")
    assert answers.answers_of(backend.config).shared_cache() is not None


def test_a_missing_key_is_looked_for_once_a_minute(
    ssm: SsmRig, place: str, both_clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's may be the output of a command, which takes its time and fails again."""
    asked: list[float] = []

    def airflow_keys() -> tuple[str, ...]:
        asked.append(both_clocks.now)
        if len(asked) == 1:
            raise NoSharedKeyError("none yet")
        return (KEY,)

    monkeypatch.setattr(shared_cache, "airflow_keys", airflow_keys)
    backend = sharing(ssm, place, shared_cache_key=None)
    known = answers.answers_of(backend.config)
    for passed in (0.0, 1.0, shared_answers.REOPENING_PAUSE - 0.1):
        both_clocks.now = 1000.0 + passed
        assert backend.get_variable(f"keyless-{passed}") is None
    assert asked == [1000.0]
    both_clocks.now = 1000.0 + shared_answers.REOPENING_PAUSE
    assert backend.get_variable("keyless") is None
    assert asked == [1000.0, 1000.0 + shared_answers.REOPENING_PAUSE]
    said = known.cached(ssm.path("variables", "keyless"))
    assert said == ("absent", "absent, 0 s old")


def test_a_key_that_takes_long_holds_up_no_other_thread(
    ssm: SsmRig, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's may be the output of a command. Who waits for it goes on without, in the half of its time."""
    asked, given = threading.Event(), threading.Event()

    def airflow_keys() -> tuple[str, ...]:
        asked.set()
        assert given.wait(60)
        return (KEY,)

    monkeypatch.setattr(shared_cache, "airflow_keys", airflow_keys)
    stored(ssm, "unshared", "x")
    backend = sharing(ssm, place, shared_cache_key=None, timeout=4)
    opener = threading.Thread(target=answers.answers_of(backend.config).shared_cache)
    opener.start()
    try:
        assert asked.wait(60)
        assert backend.get_variable("unshared") == "x"
        assert not given.is_set()
    finally:
        given.set()
        opener.join(60)
    assert answers.answers_of(backend.config).shared_cache() is not None


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """The only one to give this host credentials of AWS, as on EC2."""
    service = Proxy()
    for name in CREDENTIALS:
        monkeypatch.delenv(name.upper(), raising=False)
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    yield service
    service.stop()


def credentials_of_a_host(request: Request) -> Reply:
    given = {"Code": "Success", "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "S3cr3t", "Token": "t"}
    if request.path.endswith("/api/token"):
        return Reply(200, b"token")
    if request.path.endswith("/security-credentials/"):
        return Reply(200, b"airflow")
    return Reply(200, json.dumps({**given, "Expiration": "2999-01-01T00:00:00Z"}).encode())


@pytest.mark.parametrize("max_stale", [900, 0])
def test_a_host_without_credentials_for_a_moment_takes_no_value_away(
    ssm: SsmRig, place: str, both_clocks: Clock, metadata: Proxy, max_stale: int
) -> None:
    """An outage of EC2's metadata looks like that. What the store said before still counts, and nobody is told."""
    path = stored(ssm, "kept", "one")
    keyless = dict.fromkeys(CREDENTIALS)
    backend = sharing(ssm, place, max_stale=max_stale, **keyless)
    with metadata.fault(credentials_of_a_host):
        assert anew(lambda: backend.get_variable("kept")) == "one"
    both_clocks.now += TTL + 1
    with metadata.fault(Reply(503)):
        if max_stale:
            assert anew(lambda: backend.get_variable("kept")) == "one"
        else:
            with pytest.raises(StoreMisconfigured, match="NoCredentialsError"):
                anew(lambda: backend.get_variable("kept"))
    ssm.put(path, "two")
    with metadata.fault(credentials_of_a_host):
        assert anew(lambda: backend.get_variable("kept")) == "two"


def test_a_host_without_credentials_leaves_a_team_what_is_everybodys(
    ssm: SsmRig, place: str, both_clocks: Clock, metadata: Proxy
) -> None:
    stored(ssm, "kept-for-all", "one")
    backend = sharing(ssm, place, **dict.fromkeys(CREDENTIALS))
    with metadata.fault(credentials_of_a_host):
        assert anew(lambda: backend.get_variable("kept-for-all", "red")) == "one"
    both_clocks.now += TTL + 1
    with metadata.fault(Reply(503)):
        assert anew(lambda: backend.get_variable("kept-for-all", "red")) == "one"


def test_keys_may_be_a_json_list(ssm: SsmRig, place: str) -> None:
    assert sharing(ssm, place, shared_cache_key=json.dumps([OTHER_KEY, KEY])).config.options["shared_cache_key"] == (
        OTHER_KEY,
        KEY,
    )
    assert sharing(ssm, place, shared_cache_key=[KEY]).config.options["shared_cache_key"] == (KEY,)


def test_nothing_is_shared_where_nothing_is_kept(ssm: SsmRig, place: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'shared_cache'.*'cache_ttl'"):
        sharing(ssm, place, cache_ttl=0)


def test_an_error_of_the_lookup_is_no_error_of_the_cache(ssm: SsmRig, place: str) -> None:
    with ssm.fault("malformed"), pytest.raises(LookupFailed):
        sharing(ssm, place, **ONE_TRY).get_variable("x")
