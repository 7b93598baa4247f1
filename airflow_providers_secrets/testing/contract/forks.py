"""What a fork waits for, so that its child finds no lock held by a thread that does not exist there."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_providers_secrets.lookup import deadline, forks
from airflow_providers_secrets.lookup.workers import BACKENDS
from airflow_providers_secrets.testing.lookups import KEY
from airflow_providers_secrets.testing.processes import in_a_process
from airflow_providers_secrets.testing.rig import Rig

needs_workers = pytest.mark.skipif(
    int(importlib.metadata.version("apache-airflow").partition(".")[0]) < 3,
    reason="[workers] secrets_backend came with Airflow 3",
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by Linux alone")
def test_fork_waits_for_the_threads_of_lookups_that_have_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rig.backend()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(backend.get_variable, ["absent"] * 20))
    ours = [thread.native_id for thread in threading.enumerate() if thread.name == "secrets-lookup"]
    assert ours
    deadline.end_idle_threads()
    forks.let_threads_end()
    assert not [one for one in ours if Path(f"/proc/self/task/{one}").exists()]
    # A thread that does not end delays a fork only for a moment.
    slept: list[float] = []
    monkeypatch.setattr(forks, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.05)
    with ThreadPoolExecutor(1) as pool:
        forks.thread_ending(pool.submit(threading.get_native_id).result())
        forks.let_threads_end()
    assert sum(slept) == pytest.approx(0.05, abs=0.001)


# What a child inherits.


WATCH = """
class Watch:
    def find_spec(name, path=None, target=None):
        imported.append(name)
imported = []
opened = []
site = os.path.dirname(os.path.dirname(sys.modules["airflow"].__file__))
def audit(event, args):
    if event == "open" and str(args[0]).startswith(site):
        opened.append(args[0])
def watch_authorities():  # OpenSSL opens the file of all public ones; a private one is read in no time
    import ssl
    really = ssl.SSLContext.load_verify_locations
    def load(context, *given, **how):
        really(context, *given, **how)
        if context.cert_store_stats()["x509_ca"] > 20:
            opened.append("authorities")
    ssl.SSLContext.load_verify_locations = load
"""


@pytest.mark.each_rig_in_ci
def test_a_child_imports_and_reads_nothing_of_its_own(rig: Rig, tmp_path: Path) -> None:
    rig.put(rig.path("variables", "inherited"), "x")
    code = WATCH + (
        "def work():\n"
        "    sys.meta_path.insert(0, Watch)\n"
        "    sys.addaudithook(audit)\n"
        "    watch_authorities()\n"
        "    print(backend.get_variable('inherited'), imported, opened)\n"
        "fork(work)\n"
    )
    shared = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    for options in ({}, shared):
        assert in_a_process(rig, code, **options)[-1:] == ["x [] []"]


@pytest.mark.each_rig_in_ci
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by Linux alone")
def test_the_parent_opens_nothing_and_starts_no_thread(rig: Rig) -> None:
    """Importing urllib3 does create a socket, to find out whether there is IPv6, and closes it."""
    code = """
    seen = []
    events = ("socket.connect", "socket.getaddrinfo", "_thread.start_new_thread", "subprocess.Popen", "os.posix_spawn")
    sys.addaudithook(lambda event, args: seen.append(event) if event in events else None)
    def held():
        return [len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")]
    before, modules = held(), len(sys.modules)
    fork(lambda: None)
    print(seen, len(sys.modules) - modules > 20, held() == before)
    """
    assert in_a_process(rig, code)[-1:] == ["[] True True"]


@pytest.mark.each_rig_in_ci
def test_a_child_connects_once(rig: Rig) -> None:
    """To each server, login included: a connection costs more than a request. And a later lookup reads no file.

    gRPC connects by itself, which is not seen here.
    """
    rig.put(rig.path("variables", "inherited"), "x")
    code = """
    resolved, connected, opened = [], [], []
    def audit(event, args):
        if event == "socket.connect":
            connected.append(args[1])
        elif event == "socket.getaddrinfo":
            resolved.append(args[:2])
        elif event == "open":
            opened.append(args[0])
    def work():
        sys.addaudithook(audit)
        first = backend.get_variable("inherited")
        opened.clear()
        print([first, backend.get_variable("absent"), backend.get_variable("inherited")])
        print(len(connected) - len(set(connected)), len(resolved) - len(set(resolved)), opened)
    fork(work)
    """
    assert in_a_process(rig, code, cache_ttl=0)[-2:] == ["['x', None, 'x']", "0 0 []"]


OPENED = """
from airflow_providers_secrets.lookup import shared_cache
opened = []
really = shared_cache.opened
def noted(*arguments):
    opened.append(os.getpid() == parent)
    return really(*arguments)
shared_cache.opened = noted
parent = os.getpid()
def work():
    print(backend.get_variable("inherited"), opened)
"""


@pytest.mark.each_rig_in_ci
def test_a_child_finds_its_shared_cache_open(rig: Rig, tmp_path: Path) -> None:
    rig.put(rig.path("variables", "inherited"), "x")
    shared = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    with rig.counted() as calls:
        printed = in_a_process(rig, OPENED + "fork(work)\nfork(work)\n", **shared)
    assert [line for line in printed if line.startswith("x ")] == ["x [True]"] * 2
    assert calls == [rig.path("variables", "inherited")]


@pytest.mark.each_rig_in_ci
def test_a_child_opens_its_shared_cache_itself_where_the_parent_s_does_not_fit(rig: Rig, tmp_path: Path) -> None:
    """Somebody else asks in the child, or the directory has been removed since."""
    rig.put(rig.path("variables", "inherited"), "x")
    code = OPENED + textwrap.dedent("""
    def somebody_else():
        os.environ["HOME"] = "elsewhere"
        work()
    fork(work)
    fork(somebody_else)
    import shutil
    shutil.rmtree(given["shared_cache"].removeprefix("file://"))
    fork(work)
    fork(work)
    """)
    shared = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    with rig.counted() as calls:
        printed = [line for line in in_a_process(rig, code, **shared) if line.startswith("x ")]  # an SDK may log
    assert printed == ["x [True]", "x [True, False]", "x [True, False]", "x [True]"]
    # Each of the first three asks the store; the last one finds what the one before it has left.
    assert calls == [rig.path("variables", "inherited")] * 3


@pytest.mark.each_rig_in_ci
def test_only_the_first_fork_loads(rig: Rig) -> None:
    code = WATCH + (
        "fork(lambda: None)\nsys.meta_path.insert(0, Watch)\nBackend(**given)\nfork(lambda: None)\nprint(imported)\n"
    )
    assert in_a_process(rig, code)[-1:] == ["[]"]


PREPARED = """
import json
from airflow_providers_secrets.lookup import resolve
prepared = []
really = resolve.prepare
def noted(config, **how):
    prepared.append(config.options["max_attempts"])
    really(config, **how)
resolve.prepare = noted
os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND"] = class_path
options = json.dumps({**given, "max_attempts": 7})
"""


def beside_workers(rig: Rig, code: str) -> list[str]:
    """Run *code* where ``[workers]`` names the same backend; 3 and 7 are the attempts of the two."""
    return in_a_process(rig, f"class_path = {rig.class_path!r}\n{PREPARED}{textwrap.dedent(code)}")


@needs_workers
@pytest.mark.each_rig_in_ci
def test_what_the_backend_of_workers_needs_is_loaded_before_a_fork(rig: Rig) -> None:
    """Airflow builds it in tasks and DAG files alone, each of which would load all of it by itself."""
    rig.put(rig.path("variables", "inherited"), "x")
    code = """
    os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"] = options
    def work():
        workers = airflow.configuration.get_custom_secret_backend(worker_mode=True)
        print(workers.options["max_attempts"], workers.get_variable("inherited"), prepared)
    fork(work)
    fork(work)
    """
    prepared = [3, 7] if rig.class_path.startswith(BACKENDS) else [3]
    assert [line for line in beside_workers(rig, code) if line.startswith("7 ")] == [f"7 x {prepared}"] * 2


@needs_workers
@pytest.mark.each_rig_in_ci
@pytest.mark.parametrize("way", ["CMD", "SECRET"])
def test_no_command_and_no_store_is_asked_for_the_options_of_workers_before_a_fork(rig: Rig, way: str) -> None:
    code = f"""
    os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS_{way}"] = "asked"
    os.environ["AIRFLOW__SECRETS__BACKEND"] = class_path
    os.environ["AIRFLOW__SECRETS__BACKEND_KWARGS"] = json.dumps(given)
    seen = []
    events = ("socket.connect", "subprocess.Popen")
    sys.addaudithook(lambda event, args: seen.append(event) if event in events else None)
    fork(lambda: None)
    print(prepared, seen)
    """
    assert beside_workers(rig, code)[-1:] == ["[3] []"]


@needs_workers
@pytest.mark.each_rig_in_ci
def test_a_backend_of_workers_that_cannot_be_built_is_left_to_children(rig: Rig) -> None:
    code = """
    os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"] = '{"max_attempts": -1}'
    fork(lambda: None)
    print(prepared)
    """
    assert beside_workers(rig, code)[-1:] == ["[3]"]


@pytest.mark.each_rig_in_ci
def test_what_is_loaded_for_children_is_frozen_where_the_heap_is(rig: Rig) -> None:
    code = """
    gc.set_threshold(700, 10, 10)  # which differs between versions of Python
    gc.freeze()
    frozen = gc.get_freeze_count()
    fork(lambda: None)
    print(gc.get_freeze_count() - frozen > 1000, len(gc.get_objects()) < 2000)
    """
    assert in_a_process(rig, code)[-1:] == ["True True"]


@pytest.mark.each_rig_in_ci
def test_no_child_counts_what_its_parent_has_frozen(rig: Rig) -> None:
    """Counting walks all of it: 12 ms and more in the children of a DAG processor or a LocalExecutor."""
    rig.put(rig.path("variables", "inherited"), "x")
    code = """
    really, counted = gc.get_freeze_count, []
    gc.get_freeze_count = lambda: counted.append(os.getpid() == parent) or really()
    parent = os.getpid()
    gc.freeze()
    def work():
        print(backend.get_variable("inherited"), backend.get_variable("absent"), False in counted)
    fork(work)
    """
    assert in_a_process(rig, code)[-1:] == ["x None False"]


@pytest.mark.each_rig_in_ci
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="its collector has two generations, and tells them otherwise")
def test_no_collection_of_what_is_young_walks_what_is_loaded_for_children(rig: Rig) -> None:
    """Each child would do so, and the system would copy each page that is walked."""
    code = """
    import types
    def loaded(objects):
        return sum(isinstance(one, types.FunctionType) for one in objects)
    gc.collect()
    before = loaded(gc.get_objects())
    gc.set_threshold(700, 10, 10)
    fork(lambda: None)
    young = loaded([*gc.get_objects(generation=0), *gc.get_objects(generation=1)])
    print(loaded(gc.get_objects()) - before > 500, young < 100)
    """
    assert in_a_process(rig, code)[-1:] == ["True True"]


@pytest.mark.each_rig_in_ci
def test_a_heap_that_is_not_frozen_stays_so(rig: Rig) -> None:
    """Python 3.12 freezes some hundred objects of its own when it starts."""
    code = """
    frozen = gc.get_freeze_count()
    fork(lambda: None)
    print(gc.get_freeze_count() <= frozen)
    """
    assert in_a_process(rig, code)[-1:] == ["True"]


def test_backends_of_one_store_keep_their_own_prefixes(rig: Rig) -> None:
    """They share one client and cache; each backend looks up under its own prefixes."""
    option = rig.prefix_option.format(kind="variables")
    rig.put(rig.path("variables", "whose", base="one"), "of one")
    rig.put(rig.path("variables", "whose", base="two"), "of two")
    one, two = rig.backend(**{option: "one"}), rig.backend(**{option: "two"})
    assert one.config.fingerprint == two.config.fingerprint
    assert (one.get_variable("whose"), two.get_variable("whose")) == ("of one", "of two")
