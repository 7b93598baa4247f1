"""Delete a connection or variable from the store, recoverably if the store supports it."""

from __future__ import annotations

import argparse
from typing import Final

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD, add_backend, add_id, add_kind, add_output
from airflow_providers_secrets.cli.exits import NOT_OK, OK
from airflow_providers_secrets.errors import quoted

NAME: Final = "delete"
HELP: Final = "delete a connection or variable, after a question"
EXAMPLE: Final = "airflow-secrets delete var old_flag --yes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets delete``."""
    add_kind(parser, "conn", "var")
    add_id(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Delete one secret.

    :return: ``OK``, or ``NOT_OK`` if it is kept; an absent one raises, which ends with ``NOT_OK`` as well.
    """
    from airflow_providers_secrets.cli import configuration, reading
    from airflow_providers_secrets.lookup import operations

    backend = configuration.ours(configuration.configured(args))
    kind = KINDS_BY_WORD[args.kind]
    name = operations.target_name(backend, kind, args.id, args.team)
    if not args.yes and not reading.confirmed(f"Delete {quoted(name)} from {backend.store}?"):
        output.say("Nothing was deleted.")
        return NOT_OK
    with output.Progress(f"deleting {output.shown(name)}"):
        operations.delete(backend, kind, args.id, args.team)
    with output.result(f"{quoted(name)} was deleted"):
        if args.output in ("json", "yaml"):
            output.show_record({"id": args.id, "name": name, "state": "deleted"}, args.output)
        else:
            print(f"{backend.store}: {quoted(name)} deleted")
    return OK
