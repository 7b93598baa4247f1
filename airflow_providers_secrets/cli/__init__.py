"""The operator's command ``airflow-secrets``.

One module for each subcommand, which gives ``NAME``, ``HELP``, ``add_arguments`` and ``run``. None of them
imports Airflow or an SDK before it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from airflow_providers_secrets import __version__
from airflow_providers_secrets.cli import check, demo, uri
from airflow_providers_secrets.cli.exits import USAGE
from airflow_providers_secrets.errors import ConfigurationError

COMMANDS: Final = (check, demo, uri)

EPILOG: Final = "Exit codes: 0 found or healthy, 1 absent or unhealthy, 2 usage or options, 3 denied or unavailable."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: the arguments without the program's name; ``None`` for those of the process.
    :return: the exit code, see :mod:`.exits`. Wrong arguments raise ``SystemExit(2)``, as argparse does.
    """
    parser = _parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        # Names only: what stands in the wrong place may be a password.
        names = [argument.partition("=")[0] for argument in unknown if argument.startswith("--")]
        parser.error(f"unknown arguments ({', '.join(names) or 'values'}); see airflow-secrets {args.command} --help")
    try:
        code: int = args.run(args)
    except ConfigurationError as error:
        print(f"airflow-secrets {args.command}: {error}", file=sys.stderr)
        return USAGE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-secrets", description="Secrets backends of Apache Airflow.", epilog=EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.NAME, help=command.HELP, description=command.__doc__, epilog=EPILOG, allow_abbrev=False
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser
