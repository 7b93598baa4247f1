"""The operator's command ``airflow-secrets``.

One module for each subcommand: ``NAME``, ``HELP``, ``EXAMPLE``, ``add_arguments`` and ``run``. Importing them imports
neither Airflow nor an SDK; a subcommand does that when it runs and needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, Protocol, TextIO

from airflow_providers_secrets import __version__
from airflow_providers_secrets.cli import cache, check, copy, delete, demo, explain, get, listing, policy, put, uri
from airflow_providers_secrets.cli.exits import CLOSED_PIPE, EPILOG, INTERRUPTED, NO_ANSWER, NOT_OK, USAGE
from airflow_providers_secrets.cli.output import STDERR, STDOUT, drop, quiet, say
from airflow_providers_secrets.errors import ConfigurationError, SecretNotFound, SecretsError

SAFER: Final = "a password comes from --ask-password or --password-stdin"
INSTEAD: Final = {
    "put --password": SAFER,
    "uri --password": SAFER,
    "copy --dry-run": "without --apply nothing is written",
    "delete --dry-run": "without --yes it asks first",
}
"""What to do instead, for arguments that a subcommand looks as if it had."""


class Command(Protocol):
    """One subcommand's module."""

    __doc__: str | None
    NAME: str
    HELP: str
    EXAMPLE: str
    """A command line to show in the help."""

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Run the subcommand, and return the exit code."""


COMMANDS: Final[tuple[Command, ...]] = (check, explain, listing, get, put, delete, copy, policy, cache, uri, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: the arguments without the program's name; ``None`` for those of the process.
    :return: the exit code, see :mod:`.exits`. Wrong arguments raise ``SystemExit(2)``, as argparse does.
    """
    parser = make_parser()
    argv = sys.argv[1:] if argv is None else argv
    args, unknown = parser.parse_known_args(argv)
    args.typed = (parser.prog, *argv)
    if unknown:
        refuse_unknown(args.parser, unknown)
    return run(args.command, args.run, args)


def run(name: str, command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run one subcommand so that it always ends with an exit code and prints at most one line about a failure."""
    verbose = getattr(args, "verbose", False)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a test's stream, or a closed one
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with quiet(verbose=verbose):
        try:
            code = command(args)
            sys.stdout.flush()
            return code
        except SecretNotFound as error:
            return _ended(name, str(error), NOT_OK)
        except ConfigurationError as error:
            return _ended(name, str(error), USAGE)
        except SecretsError as error:
            return _ended(name, str(error), NO_ANSWER)
        except KeyboardInterrupt as error:
            return _ended(name, str(error) or "interrupted.", INTERRUPTED)
        except BrokenPipeError:
            drop(STDOUT)
            return CLOSED_PIPE
        except Exception as error:  # noqa: BLE001  # a defect, whose message and variables may hold values
            _flush(sys.stdout, STDOUT)
            if verbose:
                say(_where(error))
                return _ended(name, f"unexpected {_in_words(error)}.", NO_ANSWER)
            return _ended(name, f"unexpected {_in_words(error)}; add --verbose to see where.", NO_ANSWER)
        finally:
            _flush(sys.stderr, STDERR)  # it may hold log lines


def _flush(stream: TextIO, descriptor: int) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):  # the disk is full
        drop(descriptor)


def _where(error: Exception) -> str:
    """Return the lines of code that led to *error*, without its message and without any variable's value."""
    import traceback

    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{frames}".rstrip()


def _open_streams() -> None:
    """Open the null device for each stream that the shell has closed (``<&-``, ``>&-``) and is thus ``None``."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  # until the end


def _in_words(error: Exception) -> str:
    """Return the class of *error*, whose message may contain anything, and the system's reason for an ``OSError``."""
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno and type(error).__module__ == "builtins":
        return f"{name} ({os.strerror(error.errno)})"
    return name


def _ended(name: str, text: str, code: int) -> int:
    line = " ".join(text.split())
    say(f"airflow-secrets {name}: {line}")
    return code


def refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """Say which arguments a subcommand does not know, by name only: a misplaced value may be a password. Then exit."""
    names = [argument.partition("=")[0] for argument in unknown if argument.startswith("--")]
    command = parser.prog.rpartition(" ")[2]
    cures = (f": {INSTEAD[key]}" for name in names if (key := f"{command} {name}") in INSTEAD)
    end_by_usage(parser, f"unknown arguments ({', '.join(names) or 'values'}){next(cures, '')}")


def end_by_usage(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Print in one line what is wrong, without values that may be passwords, and how to see the usage; then exit."""
    for told, instead in (
        (r"ignored explicit argument .*", "it takes no value"),
        (r"invalid choice: .*? \(choose from (.*)\)", r"takes one of \1"),
    ):
        message = re.sub(told, instead, message, flags=re.DOTALL)

    say(f"{parser.prog}: {' '.join(message.split())}; see {parser.prog} --help")
    parser.exit(USAGE)


class _Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph to the terminal's width; one with an example stays as it is, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph if "\n  " in paragraph else super(_Paragraphs, self)._fill_text(paragraph, width, indent)
            for paragraph in text.strip().split("\n\n")
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with a one-line message."""
        end_by_usage(self, message)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all subcommands."""
    parser = _Parser(
        prog="airflow-secrets",
        description="See, check and change the secrets that Apache Airflow reads from a secrets backend.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.__doc__,
            epilog=f"example:\n  {command.EXAMPLE}\n\n{EPILOG}",
            formatter_class=_Paragraphs,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=subparser)
    return parser
