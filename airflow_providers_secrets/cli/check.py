"""Ask the configured store, as this host's Airflow would, and say what came of it. Prints no value.

Without arguments each kind is asked for an id that nobody has, which shows that the store can be reached, logged
in to and read.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_providers_secrets.cli.exits import NO_ANSWER, NOT_OK, OK
from airflow_providers_secrets.errors import ConfigurationError, LookupFailed

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup import SecretLookupMixin
    from airflow_providers_secrets.naming import Kind

NAME: Final = "check"
HELP: Final = "ask the configured store and say what came of it"

PROBE: Final = "airflow-secrets-check"
"""The id that is asked for where none is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets check``."""
    parser.add_argument("--connection", metavar="ID", action="append", default=[], help="look this one up; repeatable")
    parser.add_argument("--variable", metavar="KEY", action="append", default=[], help="look this one up; repeatable")


class Result(NamedTuple):
    """How one lookup ended.

    :param code: its exit code.
    """

    kind: str
    secret_id: str
    came_to: str
    milliseconds: float
    code: int


def run(args: argparse.Namespace) -> int:
    """Look the ids up and print how each lookup ended, and what this process's lookups came to.

    :return: ``OK``; ``NOT_OK`` where a given id is absent; ``NO_ANSWER`` where the store gave none.
    :raises ConfigurationError: where Airflow's configuration names none of this package's backends, or the
        options cannot be used.
    """
    backend = _configured()
    asked: list[tuple[Kind, str]] = [
        *(("connections", secret_id) for secret_id in args.connection),
        *(("variables", secret_id) for secret_id in args.variable),
    ]
    probing = not asked
    if probing:
        asked = [(kind, PROBE) for kind in ("connections", "variables") if backend.plan(kind, PROBE).names]
    results = [_looked_up(backend, kind, secret_id, probing=probing) for kind, secret_id in asked]
    _print(backend, results)
    return max((result.code for result in results), default=OK)


def _configured() -> SecretLookupMixin:
    from airflow.configuration import ensure_secrets_loaded

    from airflow_providers_secrets.lookup import SecretLookupMixin

    for backend in ensure_secrets_loaded():
        if isinstance(backend, SecretLookupMixin):
            return backend
    raise ConfigurationError("Airflow's configuration names no backend of this package in [secrets] backend.")


def _looked_up(backend: SecretLookupMixin, kind: Kind, secret_id: str, *, probing: bool) -> Result:
    look_up = backend.get_conn_value if kind == "connections" else backend.get_variable
    plan = backend.plan(kind, secret_id)
    started = time.perf_counter()
    code = OK
    try:
        found = look_up(secret_id) is not None
    except LookupFailed as error:
        came_to, code = str(error), NO_ANSWER
    else:
        came_to = "found" if found else plan.reason or "absent"
        if not found and not probing:
            code = NOT_OK
    return Result(kind, secret_id, came_to, (time.perf_counter() - started) * 1000, code)


def _print(backend: SecretLookupMixin, results: list[Result]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from airflow_providers_secrets.answers import counts_of_this_process

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for column in ("kind", "id", "came to", "ms"):
        table.add_column(column, justify="right" if column == "ms" else "left", overflow="fold")
    for result in results:
        table.add_row(result.kind, result.secret_id, result.came_to, f"{result.milliseconds:.1f}")
    console.print(backend.store, markup=False)
    console.print(table, markup=False)
    for module, counts in counts_of_this_process().items():
        counted = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        console.print(f"{module}: {counted}", markup=False)
