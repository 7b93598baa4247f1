"""The same subcommands under Airflow's own command: ``airflow secrets-store …`` (Airflow 3.2 and later)."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

GROUP: Final = "secrets-store"
"""The group's name; the bare ``secrets`` is left to Airflow."""


class _Recorder:
    """Records the arguments that a subcommand declares, for Airflow's parser."""

    def __init__(self) -> None:
        self.declared: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def add_argument(self, *flags: str, **how: Any) -> None:
        self.declared.append((flags, how))

    def add_mutually_exclusive_group(self, **_: Any) -> _Recorder:
        return self


def get_cli_commands() -> list[Any]:
    """Return the group in the form that Airflow's command expects."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    from airflow_providers_secrets.cli import COMMANDS

    class _Argument(Arg):
        def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
            _end_in_one_line(parser)
            super().add_to_parser(parser)

    make_arg: Any = _Argument
    subcommands = []
    for command in COMMANDS:
        recorder = _Recorder()
        command.add_arguments(recorder)  # type: ignore[arg-type]  # it only records
        subcommands.append(
            ActionCommand(
                name=command.NAME,
                help=command.HELP,
                func=_Run(command.NAME),
                args=tuple(make_arg(flags=flags, **how) for flags, how in recorder.declared),
                description=command.__doc__,
                epilog=f"example: {command.EXAMPLE.replace('airflow-secrets', f'airflow {GROUP}', 1)}",
            )
        )
    return [
        GroupCommand(
            name=GROUP, help="See, check and change secrets in the secrets backend's store", subcommands=subcommands
        )
    ]


def _end_in_one_line(parser: argparse.ArgumentParser) -> None:
    """Make wrong arguments of one subcommand end as they do without Airflow, whose parser prints the whole help first.

    Airflow also repeats what is wrong, which may be a secret value. A subparser leaves arguments that it does not know
    to the parser above, which would be Airflow's own.
    """
    from airflow_providers_secrets.cli import end_by_usage, refuse_unknown

    parse = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        known, unknown = parse(args, namespace)
        if unknown:
            refuse_unknown(parser, unknown)
        return known, unknown

    if "error" not in vars(parser):
        parser.allow_abbrev = False
        vars(parser).update(error=lambda message: end_by_usage(parser, message), parse_known_args=parse_known_args)


class _Run:
    """Runs one subcommand as :func:`airflow_providers_secrets.cli.main` does."""

    def __init__(self, name: str) -> None:
        self.__name__ = self._name = name

    def __call__(self, args: argparse.Namespace) -> None:
        from airflow_providers_secrets.cli import COMMANDS, run

        (command,) = (command for command in COMMANDS if self._name == command.NAME)
        args.typed = ("airflow", *sys.argv[1:])
        sys.exit(run(self._name, command.run, args))
