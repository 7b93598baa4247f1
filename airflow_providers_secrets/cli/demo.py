"""Watch real Airflow read secrets from an embedded store, then the cache, an outage and a clear error.

Everything is local and removed afterwards: a store on 127.0.0.1, an Airflow home with its database, and made-up
secrets. Your own Airflow and cloud are not used. The AWS stores need the extra "demo", Vault "demo-vault".
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.cli.arguments import SINGULAR, add_output
from airflow_providers_secrets.cli.exits import NOT_OK, OK
from airflow_providers_secrets.cli.output import say, show_record, show_rows
from airflow_providers_secrets.errors import StoreUnavailable

if TYPE_CHECKING:
    from airflow_providers_secrets.cli.embedded import Embedded
    from airflow_providers_secrets.lookup.plan import Kind

NAME: Final = "demo"
HELP: Final = "see Airflow read secrets from an embedded store"
EXAMPLE: Final = "airflow-secrets demo --store hashicorp_vault"

EXPECTED_SECONDS: Final = 60
"""How long it takes on a machine with two cores."""
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals of Ctrl-C, of ``kill``, and of a terminal that closes, which end a program by default."""
STEP_TIMEOUT: Final = 180.0
"""Seconds that one run of Airflow may take; 12 are usual."""
GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL for Airflow."""
HEARTBEAT: Final = 0.2
"""Seconds within which the demo reacts to a signal."""

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
"""The same connection: Airflow must return :data:`URI` for both."""
GREETING: Final = "hello from the store"
ELSEWHERE: Final = "hello from the environment"

STORE: Final = "the store"
ENVIRONMENT: Final = "environment"
NOWHERE: Final = "nowhere"
"""The places where Airflow may find something."""

COLUMNS: Final = ("asked", "found in", "lookup", "whole process")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets demo``."""
    parser.add_argument(
        "--store",
        choices=("aws_ssm", "aws_secrets_manager", "hashicorp_vault"),
        default="aws_ssm",
        help="which store to embed (aws_ssm)",
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    :return: 0; 1 if anything differs from what was seeded; 128 + the signal's number after a signal. In every case
        all processes have ended and all files are removed.
    :raises MissingDependencyError: if the embedded store is not installed.
    """
    from airflow_providers_secrets.cli import embedded
    from airflow_providers_secrets.cli.throwaway import throwaway_airflow

    embedded.require(args.store)
    started = time.monotonic()
    say(f"This takes about {EXPECTED_SECONDS} s; Ctrl-C ends it and cleans up.")
    stop = _Stop()
    try:
        with stop.on_signals(), throwaway_airflow() as home, contextlib.ExitStack() as servers:
            with _step("starting an embedded store and seeding it"):
                store = servers.enter_context(embedded.running(args.store, home))
                database = f"sqlite:///{home}/demo.db"
                for kind, secret_id, text in (
                    ("connections", "demo_uri", URI),
                    ("connections", "demo_json", JSON),
                    ("variables", "demo_var", GREETING),
                    ("config", "demo_database", database),
                ):
                    store.put(kind, secret_id, text)
            rows = [*_by_airflow(_Airflow(home, stop), store, database), *_by_this_process(store, stop)]
    except _Stopped:
        say(f"Stopped by {stop.name}; everything is cleaned up.")
        return 128 + stop.number
    return _report(args, rows, time.monotonic() - started)


# What is shown.


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    say(f"{title} …", end=" ")
    started = time.monotonic()
    try:
        yield
    finally:
        say(f"{time.monotonic() - started:.1f} s")


@dataclass(frozen=True)
class Row:
    """One lookup in the table.

    :param asked: what made the lookup.
    :param found: where it was found, or what was returned instead.
    :param right: whether that is the expected result.
    :param lookup: seconds of the lookup itself.
    :param process: seconds of the whole Airflow process around it; ``None`` if there was none.
    :param problem: the text to print if it is not right.
    """

    asked: str
    found: str
    right: bool
    lookup: float | None
    process: float | None = None
    problem: str = ""


def _report(args: argparse.Namespace, rows: list[Row], took: float) -> int:
    wrong = [row for row in rows if not row.right]
    if args.output in ("json", "yaml"):
        record = [
            {
                "asked": r.asked,
                "found": r.found,
                "right": r.right,
                "lookup_ms": _ms(r.lookup),
                "process_ms": _ms(r.process),
            }
            for r in rows
        ]
        show_record({"store": args.store, "lookups": record}, args.output)
    else:
        cells = ((r.asked, r.found, _duration(r.lookup), _duration(r.process)) for r in rows)
        show_rows((dict(zip(COLUMNS, row, strict=True)) for row in cells), COLUMNS, args.output)
    if args.output == "table":
        print("The difference between the last two columns is Airflow's own start-up.")
    for row in wrong:
        say(f"{row.asked}: {row.found}. {row.problem}")
    say(f"{len(rows) - len(wrong)} of {len(rows)} lookups gave what was seeded, in {took:.0f} s.")
    return NOT_OK if wrong else OK


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds * 1000 >= 1 else f"{seconds * 1e6:.0f} µs"


# What is looked up.


def _by_airflow(airflow: _Airflow, store: Embedded, database: str) -> Iterator[Row]:
    dags = airflow.home / "dags"
    dags.mkdir()
    (dags / "demo.py").write_text(
        Path(__file__).with_name("_demo_dag.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    airflow.settings = {
        "AIRFLOW__SECRETS__BACKEND": store.class_path,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(store.options),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET": "demo_database",
    }
    airflow.credentials = store.credentials
    for setting in airflow.settings.items():
        say("=".join(setting))
    airflow.run("db", "migrate")
    airflow.lookups()
    seeded = {"demo_uri": URI, "demo_json": URI, "demo_var": GREETING, "demo_database": database}

    def row(asked: str, secret_id: str, answer: str | None, run: _Run, seconds: float | None) -> Row:
        found = NOWHERE
        if answer == ELSEWHERE:
            found = ENVIRONMENT
        elif answer and answer == seeded.get(secret_id):
            found = STORE
        expected = STORE if secret_id in seeded else ENVIRONMENT
        return Row(asked, found, found == expected, seconds, run.seconds, f"Airflow said:\n{run.tail()}")

    for conn_id in ("demo_uri", "demo_json"):
        run = airflow.run("connections", "get", conn_id, "--output", "json")
        took = airflow.lookups().get(("connections", conn_id))
        yield row(f"airflow connections get {conn_id}", conn_id, run.connection_uri, run, took)
    run = airflow.run("variables", "get", "demo_var")
    took = airflow.lookups().get(("variables", "demo_var"))
    yield row("airflow variables get demo_var", "demo_var", run.last_line, run, took)
    run = airflow.run("config", "get-value", "database", "sql_alchemy_conn")
    took = airflow.lookups().get(("config", "demo_database"))
    yield row("airflow config: sql_alchemy_conn", "demo_database", run.last_line, run, took)
    run = airflow.run("dags", "test", "demo")
    answers, lookups = airflow.answers_of_dag(), airflow.lookups()
    for kind, secret_id in DAG_LOOKUPS:
        took = lookups.get((kind, secret_id))
        yield row(f"DAG: {SINGULAR[kind]} {secret_id}", secret_id, answers.get(secret_id), run, took)


DAG_LOOKUPS: Final[tuple[tuple[Kind, str], ...]] = (
    ("connections", "demo_uri"),
    ("variables", "demo_var"),
    ("variables", "demo_env"),
)
"""What the DAG looks up."""


def _by_this_process(store: Embedded, stop: _Stop) -> Iterator[Row]:
    """Look up in this process: from the store, from memory, and while the store is down."""
    stop.check()
    os.environ.update(store.credentials, NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    with _step("starting Airflow in this process"), contextlib.redirect_stdout(sys.stderr):
        module, _, name = store.class_path.rpartition(".")
        backend = getattr(importlib.import_module(module), name)(
            **store.options, cache_ttl=0.5, timeout=2, connect_timeout=1, max_attempts=1
        )

    def timed() -> tuple[bool, float]:
        started = time.perf_counter()
        right = backend.get_variable("demo_var") == GREETING
        return right, time.perf_counter() - started

    yield Row("a first lookup: SDK, login, request", STORE, *timed())
    yield Row("the same again", "memory", *timed())
    stop.check()
    with _step("stopping the store"):
        store.stop()
        time.sleep(0.6)  # until the value has expired
    yield Row("the same, expired, while the store is down", "last known value", *timed())
    started = time.perf_counter()
    try:
        backend.get_variable("demo_other")
        said = "no error"
    except StoreUnavailable as error:
        said = str(error)
    yield Row("another one while the store is down", said, "could not give" in said, time.perf_counter() - started)


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
        """The result of a command, which Airflow prints after its log lines."""
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
        """Return the last lines, for debugging a failure."""
        return "\n".join([*self.output.splitlines()[-10:], *self.errors.splitlines()[-20:], f"exit code {self.code}"])


class _Airflow:
    """Runs ``airflow`` with this Python, in *home*, until *stop*."""

    def __init__(self, home: Path, stop: _Stop) -> None:
        self.home = home
        self.settings: Mapping[str, str] = {}
        self.credentials: Mapping[str, str] = {}
        self._stop = stop

    def run(self, *arguments: str) -> _Run:
        """Run one command to its end.

        :raises _Stopped: after a signal, once the command's whole process group has ended.
        """
        self._stop.check()
        environment = {
            **os.environ,
            **self.settings,
            **self.credentials,
            "AIRFLOW_VAR_DEMO_VAR": ELSEWHERE,  # the store is asked first
            "AIRFLOW_VAR_DEMO_ENV": ELSEWHERE,  # and then the environment
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        started = time.monotonic()
        with _step(f"airflow {' '.join(arguments)}"):
            process = subprocess.Popen(  # noqa: S603  # our own arguments
                [sys.executable, "-m", "airflow_providers_secrets.cli._demo_airflow", *arguments],
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # only this process gets the terminal's Ctrl-C, and passes it on
            )
            output, errors = self._outlived(process, started + STEP_TIMEOUT)
        return _Run(process.returncode, output, errors, time.monotonic() - started)

    def _outlived(self, process: subprocess.Popen[str], deadline: float) -> tuple[str, str]:
        """Wait until *process*, and all that have its output open, end; after a signal or the *deadline*, end them."""
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

    def lookups(self) -> dict[tuple[str, str], float]:
        """Return the seconds that each lookup of the last run took, by kind and id; of several, the longest."""
        path = self.home / "lookups.jsonl"
        took: dict[tuple[str, str], float] = {}
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8").splitlines():
                kind, secret_id, seconds = json.loads(line)
                took[kind, secret_id] = max(seconds, took.get((kind, secret_id), 0.0))
            path.unlink()
        return took

    def answers_of_dag(self) -> dict[str, str]:
        """Return what the DAG got; empty if it did not get that far."""
        path = self.home / "answers.json"
        try:
            answers: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        path.unlink()
        return answers


class _Stopped(Exception):
    """A signal asked the demo to end."""


class _Stop:
    """Records the first signal that asks the demo to end, so that no signal interrupts a start or a clean-up."""

    number = 0

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Record :data:`STOPPING` signals while inside."""
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
