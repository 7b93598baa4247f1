"""Short tasks that look up secrets, run by Airflow's own scheduler, API server and LocalExecutor, or a Celery worker.

    python benchmarks/tasks.py --official PYTHON [--broker redis://HOST:PORT/DATABASE]

PYTHON is the interpreter of an environment with ``apache-airflow-providers-amazon`` and the same Airflow;
without it the official class is left out. Each of 200 tasks looks up two variables and a connection, out of 100
names of which 70 are absent. The arms are those of ``dag_parse.py``.

Airflow asks a backend twice about an absent name: in the task's process, and then in the API server, which the task
asks next.

"CPU" is that of the scheduler, the tasks and the API server, from the first task's lookups to the last one's. With
``--broker``, a Redis, a Celery worker's prefork pool runs the tasks and counts, too; each environment then needs
``apache-airflow-providers-celery``.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.arms import Arm, Home, Names, Used, add_arguments, compare, end, read_journal, summary
from benchmarks.store import Store

PARALLELISM = 2
TIMEOUT = 600.0
"""Maximum seconds for one arm in one round, even on a busy machine."""
SECRET = "known-to-all-components-of-the-benchmark-and-long-enough"

DAG_FILE = """
import os, time
from datetime import datetime
from airflow.sdk import DAG, BaseHook, Variable, task

present = {present!r}

def look_up(number):
    started, cpu_started = time.time(), time.process_time()
    expected, answers = {{}}, {{}}
    for name in [f"bench_variable_{{(2 * number + position) % 70}}" for position in range(2)]:
        expected[name] = present["variables"].get(name, "absent")
        answers[name] = Variable.get(name, "absent")
    name = f"bench_connection_{{number % 30}}"
    expected[name] = name if name in present["connections"] else "absent"
    try:
        answers[name] = BaseHook.get_connection(name).host
    except Exception as error:
        answers[name] = "absent" if "isn't defined" in str(error) else repr(error)
    used, ended = time.process_time() - cpu_started, time.time()
    journal = os.open({journal!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{{started}} {{ended}} {{used}} {{answers == expected}}\\n".encode())
    os.close(journal)

with DAG("short_tasks", schedule="@once", start_date=datetime(2024, 1, 1), catchup=False):
    for number in range({tasks}):
        task(task_id=f"look_up_{{number}}")(look_up)(number)
"""


def run(arm: Arm, home: Home, store: Store, tasks: int, broker: str | None) -> dict[str, float]:
    """Run the tasks, and return the figures."""
    journal = home.path / "journal"
    dag_file = DAG_FILE.format(present=Names.present(), journal=str(journal), tasks=tasks)
    (home.path / "dags" / "short_tasks.py").write_text(dag_file)
    port = _free_port()
    home.environment |= {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__SECRET_KEY": SECRET,
        "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    }
    if broker:
        home.environment |= {
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": broker,
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(PARALLELISM),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": f"benchmark-{port}",  # a late message of another arm is not run here
        }
    home.run("dags", "reserialize")
    store.counts()
    running = []
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            running.append(home.start(*arguments))
            stack.callback(end, running[-1])
            return running[-1]

        server = start("api-server")
        home.wait_until(lambda: _is_open(port), server, TIMEOUT)
        if broker:
            start("celery", "worker")
        scheduler = start("scheduler")
        home.wait_until(lambda: bool(read_journal(journal)), scheduler, TIMEOUT)
        before, first = Used.by(*running), len(read_journal(journal))
        home.wait_until(lambda: len(read_journal(journal)) >= tasks, scheduler, TIMEOUT)
        used, lines = Used.by(*running).since(before), read_journal(journal)
        counts, count = store.counts(), len(lines) - first
    return summary(arm.label, lines, counts, used, count)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--broker", metavar="URL", help="a Redis: a Celery worker runs the tasks")
    given = parser.parse_args()
    compare(
        f"{given.tasks} tasks of 3 lookups each",
        given,
        lambda arm, home, store: run(arm, home, store, given.tasks, given.broker),
    )


if __name__ == "__main__":
    main()
