"""Watch real Airflow read connections, variables and a configuration value from both AWS stores.

Everything is local and thrown away afterwards: an embedded AWS on 127.0.0.1, an Airflow home with its
database, and made-up secrets. Your own Airflow and AWS set-up takes no part. Needs the extra "demo".
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.access import load_sdk
from airflow_providers_secrets.cli.exits import NOT_OK, OK
from airflow_providers_secrets.cli.throwaway import throwaway_airflow

if TYPE_CHECKING:
    import argparse

    from airflow_providers_secrets.lookup import SecretLookupMixin
    from airflow_providers_secrets.naming import Kind

NAME: Final = "demo"
HELP: Final = "see Airflow read secrets from an embedded AWS"

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a program by default, sent by Ctrl-C, by ``kill``, and by a terminal that closes."""
STEP_TIMEOUT: Final = 180.0
"""Seconds that one run of Airflow may take; 12 are usual."""
GRACE: Final = 5.0
"""Seconds between asking Airflow to end and ending it."""
HEARTBEAT: Final = 0.2
"""Seconds within which a signal is acted upon."""

REGION: Final = "eu-west-1"
KEYS: Final = {"aws_access_key_id": "AKIADEMO", "aws_secret_access_key": "demo"}

URI: Final = "postgres://reader:s%40fe%2Fpassw0rd@db.example.com:5432/sales?sslmode=require"
JSON: Final = json.dumps(
    {
        "conn_type": "postgres",
        "login": "reader",
        "password": "s@fe/passw0rd",
        "host": "db.example.com",
        "port": 5432,
        "schema": "sales",
        "extra": {"sslmode": "require"},
    }
)
"""The same connection: Airflow must give :data:`URI` for both."""
GREETING: Final = "hello from the store"
ELSEWHERE: Final = "hello from the environment"

STORE: Final = "the store"
ENVIRONMENT: Final = "environment"
NOWHERE: Final = "nowhere"
"""Where Airflow may find something."""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Declare nothing: the demo takes no arguments."""


def run(_: argparse.Namespace) -> int:
    """Run the demo.

    :return: 0; 1 if anything differs from what was seeded; 128 + its number after a signal. In every case
        all processes have ended and all files are removed.
    :raises MissingDependencyError: where moto is not installed.
    """
    load_sdk(("moto.server", "botocore.session"), "demo")
    stop = _Stop()
    try:
        with stop.on_signals(), throwaway_airflow() as home:
            rows = _looked_up(_Airflow(home, stop))
    except _Stopped:
        _say(f"Stopped by {stop.name}; everything is cleaned up.")
        return 128 + stop.number
    return _report(rows)


# What is shown.


def _say(text: str, end: str = "\n") -> None:
    """Tell how far the demo is. The table alone goes to standard output."""
    print(text, end=end, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    _say(f"{title} …", end=" ")
    started = time.monotonic()
    try:
        yield
    finally:
        _say(f"{time.monotonic() - started:.1f} s")


@dataclass(frozen=True)
class Row:
    """One lookup of the table.

    :param store: the store in words.
    :param asked: what asked for it.
    :param name: the name that the store was asked for.
    :param found: where it was found.
    :param expected: where it had to be found.
    :param seconds: how long it took.
    :param run: the run of Airflow that asked.
    """

    store: str
    asked: str
    name: str
    found: str
    expected: str
    seconds: float
    run: _Run


def _report(rows: list[Row]) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    for store, group in itertools.groupby(rows, lambda row: row.store):
        table = Table(title=store, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        for title in ("asked", "name in the store", "found in"):
            table.add_column(title, overflow="fold")
        table.add_column("took", justify="right", no_wrap=True)
        for row in group:
            table.add_row(row.asked, row.name, row.found, _duration(row.seconds))
        console.print(table)
    wrong = [row for row in rows if row.found != row.expected]
    for row in wrong:
        print(f"{row.store}, {row.asked}: found in {row.found}, not in {row.expected}. Airflow said:\n{row.run.tail()}")
    print("A command took as long as its whole Airflow process; in the DAG, the lookup alone is timed.")
    print(f"{len(rows) - len(wrong)} of {len(rows)} lookups gave what was seeded.")
    return NOT_OK if wrong else OK


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


# What is looked up.


@dataclass(frozen=True)
class DemoStore:
    """One of the embedded AWS's stores.

    :param class_path: the backend's class.
    :param service: botocore's name of the service.
    :param path: how the store spells a secret. Written out, so that the demo proves the backend's spelling.
    """

    class_path: str
    service: str
    path: str

    def put(self, client: Any, kind: Kind, secret_id: str, text: str) -> None:
        """Write one secret."""
        name = self.path.format(kind=kind, id=secret_id)
        if self.service == "ssm":
            client.put_parameter(Name=name, Value=text, Type="SecureString")
        else:
            client.create_secret(Name=name, SecretString=text)

    def backend(self, options: Mapping[str, Any]) -> SecretLookupMixin:
        """Make the backend as Airflow does."""
        module, _, name = self.class_path.rpartition(".")
        backend: SecretLookupMixin = getattr(importlib.import_module(module), name)(**options)
        return backend


STORES: Final = (
    DemoStore(
        "airflow_providers_secrets.backends.aws_ssm.SystemsManagerParameterStoreBackend",
        "ssm",
        "/airflow/{kind}/{id}",
    ),
    DemoStore(
        "airflow_providers_secrets.backends.aws_secrets_manager.SecretsManagerBackend",
        "secretsmanager",
        "airflow/{kind}/{id}",
    ),
)


def _looked_up(airflow: _Airflow) -> list[Row]:
    database = f"sqlite:///{airflow.home}/demo.db"
    dags = airflow.home / "dags"
    dags.mkdir()
    shutil.copy(Path(__file__).with_name("_demo_dag.py"), dags / "demo.py")
    rows: list[Row] = []
    with contextlib.ExitStack() as servers:
        with _step("starting an embedded AWS and seeding both stores"):
            url = servers.enter_context(_embedded_aws())
            for store in STORES:
                _seed(store, url, database)
        for number, store in enumerate(STORES):
            options = {"region_name": REGION, "endpoint_url": url}
            settings = {
                "AIRFLOW__SECRETS__BACKEND": store.class_path,
                "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(options),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET": "demo_database",
            }
            _say("")
            for setting in settings.items():
                _say("=".join(setting))
            airflow.settings = settings
            if number == 0:
                airflow.run("db", "migrate")
            rows += _rows(store.backend(options), airflow, database)
    return rows


@contextlib.contextmanager
def _embedded_aws() -> Iterator[str]:
    """Give the URL of moto's server, in this process, on 127.0.0.1 and a free port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def _seed(store: DemoStore, url: str, database: str) -> None:
    from botocore.config import Config
    from botocore.session import Session

    direct = Config(proxies={})
    client = Session().create_client(store.service, region_name=REGION, endpoint_url=url, config=direct, **KEYS)
    store.put(client, "connections", "demo_uri", URI)
    store.put(client, "connections", "demo_json", JSON)
    store.put(client, "variables", "demo_var", GREETING)
    store.put(client, "config", "demo_database", database)


def _rows(backend: SecretLookupMixin, airflow: _Airflow, database: str) -> Iterator[Row]:
    seeded = {"demo_uri": URI, "demo_json": URI, "demo_var": GREETING, "demo_database": database}

    def row(asked: str, kind: Kind, secret_id: str, answer: str | None, run: _Run) -> Row:
        (name,) = backend.plan(kind, secret_id).names
        found = NOWHERE
        if answer == ELSEWHERE:
            found = ENVIRONMENT
        elif answer and answer == seeded.get(secret_id):
            found = STORE
        return Row(backend.store, asked, name, found, STORE if secret_id in seeded else ENVIRONMENT, run.seconds, run)

    for conn_id in ("demo_uri", "demo_json"):
        run = airflow.run("connections", "get", conn_id, "--output", "json")
        yield row(f"connections get {conn_id}", "connections", conn_id, run.connection_uri, run)

    run = airflow.run("variables", "get", "demo_var")
    yield row("variables get demo_var", "variables", "demo_var", run.last_line, run)

    run = airflow.run("config", "get-value", "database", "sql_alchemy_conn")
    yield row("config sql_alchemy_conn", "config", "demo_database", run.last_line, run)

    run = airflow.run("dags", "test", "demo")
    answers = airflow.answers_of_dag()
    for kind, secret_id in DAG_LOOKUPS:
        answer, seconds = answers.get(secret_id, (None, run.seconds))
        in_dag = row(f"DAG: {kind[:-1]} {secret_id}", kind, secret_id, answer, run)
        yield dataclasses.replace(in_dag, seconds=seconds)


DAG_LOOKUPS: Final[tuple[tuple[Kind, str], ...]] = (
    ("connections", "demo_uri"),
    ("variables", "demo_var"),
    ("variables", "demo_env"),
)
"""What the DAG asks for."""


# Airflow, in processes of its own.


@dataclass(frozen=True)
class _Run:
    """An ended run of Airflow."""

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def last_line(self) -> str | None:
        """What a command gives; Airflow's log lines stand before it."""
        lines = self.output.splitlines()
        return lines[-1] if lines and self.code == 0 else None

    @property
    def connection_uri(self) -> str | None:
        """The URI in what ``connections get --output json`` printed."""
        try:
            (connection,) = json.loads(self.last_line or "")
            uri: str = connection["get_uri"]
        except (ValueError, LookupError, TypeError):
            return None
        return uri

    def tail(self) -> str:
        """Give the last lines, for whoever looks for the cause of a failure."""
        return "\n".join([*self.output.splitlines()[-10:], *self.errors.splitlines()[-20:], f"exit code {self.code}"])


class _Airflow:
    """Runs ``airflow`` of this Python, in *home*, until *stop*."""

    def __init__(self, home: Path, stop: _Stop) -> None:
        self.home = home
        self.settings: Mapping[str, str] = {}
        self._stop = stop

    def run(self, *arguments: str) -> _Run:
        """Run one command to its end.

        :raises _Stopped: after a signal; the command's whole process group has ended then.
        """
        self._stop.check()
        environment = {
            **os.environ,
            **self.settings,
            **{name.upper(): value for name, value in KEYS.items()},
            "AIRFLOW_VAR_DEMO_VAR": ELSEWHERE,  # the store is asked first
            "AIRFLOW_VAR_DEMO_ENV": ELSEWHERE,  # and then the environment
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        started = time.monotonic()
        with _step(f"airflow {' '.join(arguments)}"):
            process = subprocess.Popen(  # noqa: S603  # our own arguments
                [sys.executable, "-m", "airflow", *arguments],
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # the terminal's Ctrl-C is ours alone to pass on
            )
            output, errors = self._outlived(process, started + STEP_TIMEOUT)
        return _Run(process.returncode, output, errors, time.monotonic() - started)

    def _outlived(self, process: subprocess.Popen[str], deadline: float) -> tuple[str, str]:
        """Wait for the end of *process* and of all that hold its output, and bring it about where it must be."""
        while not self._stop.number and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=HEARTBEAT)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            ended = process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            ended = process.communicate()
        self._stop.check()
        return ended

    def answers_of_dag(self) -> dict[str, tuple[str, float]]:
        """Give what the DAG got, and the seconds that each lookup took; nothing, if it did not get that far."""
        path = self.home / "answers.json"
        try:
            answers: dict[str, tuple[str, float]] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        path.unlink()
        return answers


class _Stopped(Exception):
    """A signal asked the demo to end."""


class _Stop:
    """Notes the first signal that asks the demo to end, so that none ever interrupts a start or a clean-up."""

    number = 0

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Note :data:`STOPPING` meanwhile."""
        before = {number: signal.signal(number, self._note) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.number = self.number or number

    def check(self) -> None:
        """Raise :class:`_Stopped` if a signal came."""
        if self.number:
            raise _Stopped
