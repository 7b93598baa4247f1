"""What a fork waits for, so that its child finds no lock held by a thread that does not exist there."""

from __future__ import annotations

import multiprocessing
import os
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from airflow_providers_secrets.lookup import forks
from airflow_providers_secrets.testing.contract.forks import *
from airflow_providers_secrets.testing.contract.forks import OPENED, WATCH, in_a_process
from tests.rigs import Rig
from tests.support.airflow_process import VERSION
from tests.support.sharing import KEY

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_fork_waits_for_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_sdk.py").write_text(
        textwrap.dedent("""
        import threading
        started, go_on = threading.Event(), threading.Event()
        import sys
        sys.modules["slow_sdk_events"] = sys.modules[__name__]
        started.set()
        go_on.wait(0.3)
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def import_it() -> None:
        with forks.no_fork():
            __import__("slow_sdk")

    thread = threading.Thread(target=import_it)
    thread.start()
    while "slow_sdk_events" not in sys.modules:
        os.sched_yield()
    child = multiprocessing.get_context("fork").Process(target=__import__, args=("slow_sdk",))
    child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    thread.join(60)
    del sys.modules["slow_sdk"], sys.modules["slow_sdk_events"]
    assert not alive
    assert child.exitcode == 0


def test_an_import_that_hangs_holds_a_fork_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.05)
    holds, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        with forks.no_fork():
            holds.set()
            may_end.wait(120)

    thread = threading.Thread(target=hang)
    thread.start()
    assert holds.wait(60)
    child = multiprocessing.get_context("fork").Process(target=forks.no_fork().__enter__)
    child.start()
    assert forks._busy  # it was not waited for: it still hangs
    child.join(60)
    assert child.exitcode == 0
    may_end.set()
    thread.join(60)
    # The lock is as it was: nobody holds it.
    with forks.no_fork():
        pass


# What a child inherits.


@pytest.mark.skipif(VERSION < (3,), reason="[workers] secrets_backend came with Airflow 3")
def test_children_give_the_warnings_of_the_backend_of_workers(ssm: Rig) -> None:
    """A task's log has them; of the scheduler's, nobody would think."""
    code = f"""
    import json, logging, warnings
    os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND"] = {ssm.class_path!r}
    odd = {{"config_kwargs": {{"retries": {{}}}}, "full_url_mode": False, "max_attempts": 7}}
    os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"] = json.dumps({{**given, **odd}})
    given_here = []
    class Handler(logging.Handler):
        def emit(self, record):
            if record.levelno >= logging.WARNING:
                given_here.append(record.name)
    logging.getLogger("airflow_providers_secrets").addHandler(Handler())
    warnings.showwarning = lambda message, category, *_: given_here.append(category.__name__)
    warnings.simplefilter("default")
    def work():
        airflow.configuration.get_custom_secret_backend(worker_mode=True)
        print("child", sorted(given_here))
    fork(work)
    from airflow_providers_secrets.lookup import forks
    print("parent", given_here, len(forks._prepared))
    """
    printed = in_a_process(ssm, textwrap.dedent(code))
    assert printed[-2:] == [
        "child ['DeprecationWarning', 'airflow_providers_secrets.lookup.notices']",
        "parent [] 2",
    ]


OTHERS = """
made = []
class Recording(airflow.secrets.base_secrets.BaseSecretsBackend):
    def __init__(self):
        made.append(os.getpid() == parent)
    def get_variable(self, key):
        return None
parent = os.getpid()
sys.modules["airflow_providers_secrets_of_others"] = sys.modules["__main__"]
others = {"backend": "airflow_providers_secrets_of_others.Recording"}
"""
"""A class of another package, which records whether it is constructed in the parent."""


@pytest.mark.skipif(VERSION < (3,), reason="[workers] secrets_backend came with Airflow 3")
@pytest.mark.parametrize(
    ("path", "members", "printed"),
    [
        ("ChainBackend", "[{'backend': 'env'}, ours]", "parent 2 child None [] 2"),
        ("ChainBackend", "[others, ours]", "parent 2 child None [False] 2"),
        ("ChainBackend", "[ours, others]", "parent 2 child None [False] 2"),
        ("ChainBackend", "[file, ours]", "parent 2 child None [] 2"),
        ("Recording", None, "parent 1 child None [False] 1"),
    ],
    ids=[
        "own members",
        "a member of others",
        "and in another order",
        "a member that opens a file",
        "a class of others",
    ],
)
def test_no_code_of_others_runs_before_a_fork(
    ssm: Rig, path: str, members: str | None, printed: str, tmp_path: Path
) -> None:
    """A thread pool that it starts, or a fork, would wait for a lock of Python's that the hooks hold."""
    held = tmp_path / "held.json"
    held.write_text("{}")
    module = "airflow_providers_secrets.backends.chain" if members else "airflow_providers_secrets_of_others"
    code = f"""
    import json
    from airflow_providers_secrets.lookup import forks
    ours = {{"backend": "aws_ssm", "kwargs": {{**given, "max_attempts": 7}}}}
    file = {{"backend": "file", "kwargs": {{"variables_file_path": {str(held)!r}}}}}
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
    os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND"] = "{module}.{path}"
    if {members}:
        os.environ["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"] = json.dumps({{"backends": {members}}})
    fork(lambda: None)
    prepared = len(forks._prepared)
    assert {str(held)!r} not in opened
    def work():
        value = airflow.configuration.get_custom_secret_backend(worker_mode=True).get_variable("absent")
        print("parent", prepared, "child", value, made, len(forks._prepared))
    fork(work)
    """
    assert in_a_process(ssm, OTHERS + textwrap.dedent(code))[-1:] == [printed]


@pytest.mark.parametrize("source", ["fernet_key_secret", "fernet_key_cmd"])
def test_no_key_is_fetched_in_a_fork(ssm: Rig, tmp_path: Path, source: str) -> None:
    """A command or a lookup for it would run in the hook."""
    ssm.put(ssm.path("variables", "inherited"), "x")
    ssm.put(ssm.path("config", "key"), KEY)
    said = "key" if source.endswith("secret") else f"echo {KEY}"
    code = f"""
    os.environ.pop("AIRFLOW__CORE__FERNET_KEY", None)
    os.environ["AIRFLOW__CORE__{source.upper()}"] = {said!r}
    fork(lambda: None)
    print(opened)
    """
    shared = {"shared_cache": f"file://{tmp_path}/shared"}
    with ssm.counted() as calls:
        assert in_a_process(ssm, OPENED + textwrap.dedent(code), **shared)[-1:] == ["[]"]
    assert calls == []


TIMEOUT_IN_THE_HOOK = """
class TimeIsUp(BaseException):
    pass
def raise_it(*_):
    raise TimeIsUp
signal.signal(signal.SIGALRM, raise_it)
class Alarm:
    def find_spec(name, path=None, target=None):
        if name == "airflow_providers_secrets.lookup.resolve":
            sys.meta_path.remove(Alarm)
            {signal}
"""


@pytest.mark.parametrize(
    "signalled", ["os.kill(os.getpid(), signal.SIGALRM)", "signal.raise_signal(signal.SIGALRM)"], ids=["kill", "raise"]
)
def test_a_time_out_that_arrives_while_the_parent_loads_is_raised_after_the_fork(ssm: Rig, signalled: str) -> None:
    """What is raised inside an at-fork hook is printed and lost."""
    ssm.put(ssm.path("variables", "inherited"), "x")
    code = TIMEOUT_IN_THE_HOOK.format(signal=signalled) + (
        "sys.meta_path.insert(0, Alarm)\n"
        "reader, writer = os.pipe()\n"
        "try:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.write(writer, backend.get_variable('inherited').encode())\n"
        "        os._exit(0)\n"
        "    print('not raised')\n"
        "except TimeIsUp:\n"
        "    print('raised', 'airflow_providers_secrets.lookup.resolve' in sys.modules)\n"
        "os.close(writer)\n"
        "print(os.read(reader, 10).decode(), signal.getsignal(signal.SIGALRM) is raise_it)\n"
        "fork(lambda: print('again'))\n"  # the signal is raised once
        "print('end')\n"
    )
    assert in_a_process(ssm, code)[-4:] == ["raised True", "x True", "again", "end"]


def test_two_threads_that_import_do_not_wait_for_each_other() -> None:
    inside = threading.Barrier(2)

    def enter() -> None:
        with forks.no_fork():
            inside.wait(60)  # each waits for the other inside

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not inside.broken


@pytest.mark.parametrize("store", ["ssm", pytest.param("vault", marks=pytest.mark.long)])
def test_a_process_for_one_task_leaves_a_heavy_sdk_to_its_child(store: str, request: pytest.FixtureRequest) -> None:
    """The pod of a KubernetesExecutor forks once: what it loads is of use to nobody where the task looks nothing up."""
    rig: Rig = request.getfixturevalue(store)
    rig.put(rig.path("variables", "inherited"), "x")
    code = WATCH + (
        "{mark}\n"
        "sys.meta_path.insert(0, Watch)\n"
        "fork(lambda: print(backend.get_variable('inherited')))\n"
        "print('loaded' if 'airflow_providers_secrets.lookup.resolve' in sys.modules else 'left')\n"
    )
    pod = "import types; sys.modules['__main__'].__spec__ = types.SimpleNamespace(name={!r})"
    in_a_pod = "loaded" if store == "vault" else "left"
    for mark, expected in (
        (pod.format("airflow.sdk.execution_time.execute_workload"), in_a_pod),
        ("sys.argv = ['airflow', 'tasks', 'run', 'a', 'b']", in_a_pod),
        ("sys.argv = ['airflow', 'dag-processor']", "loaded"),
    ):
        assert in_a_process(rig, code.replace("{mark}", mark))[-2:] == ["x", expected]
