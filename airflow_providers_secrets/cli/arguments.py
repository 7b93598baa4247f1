"""The arguments that several subcommands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.plan import Kind

KINDS_BY_WORD: Final[dict[str, Kind]] = {"conn": "connections", "var": "variables", "config": "config"}
"""The kinds by their words on the command line."""

WORDS: Final[dict[Kind, str]] = {kind: word for word, kind in KINDS_BY_WORD.items()}
"""The words of the kinds."""

SINGULAR: Final[dict[Kind, str]] = {
    "connections": "connection",
    "variables": "variable",
    "config": "configuration value",
}
"""The singular of each kind in a sentence."""


def counted(kind: Kind, number: int | None = None) -> str:
    """Return *number* with the name of a kind; without a number, only the plural."""
    words = SINGULAR[kind] + ("" if number == 1 else "s")
    return words if number is None else f"{number} {words}"


FORMATS: Final = ("table", "json", "yaml", "plain")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Declare ``--output`` and ``--verbose``."""
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="format of the output (table)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show log lines, warnings and tracebacks")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that select the backend: the configured one, the workers', or one to try."""
    parser.add_argument("--worker", action="store_true", help="the backend of [workers], as tasks have it")
    parser.add_argument(
        "--backend", metavar="CLASS", help="try this one instead: a short name (aws_ssm) or a class path"
    )
    parser.add_argument(
        "--member", metavar="N", type=whole_number(1, 999), help="of a chain, the member at this place, from 1"
    )
    parser.add_argument(
        "--kwargs",
        metavar="JSON",
        help="backend_kwargs to use instead of the configured ones; @FILE reads a file, - standard input",
    )


def add_kind(parser: argparse.ArgumentParser, *words: str) -> None:
    """Declare the kind as the first argument."""
    parser.add_argument("kind", choices=words or tuple(KINDS_BY_WORD), help="what it is")


def add_id(parser: argparse.ArgumentParser) -> None:
    """Declare an id, and the team that looks it up."""
    parser.add_argument("id", metavar="ID", help="connection id, variable key, or key of a configuration value")
    add_team(parser)


def add_team(parser: argparse.ArgumentParser) -> None:
    """Declare the team that looks an id up."""
    parser.add_argument("--team", metavar="T", type=not_blank, help="as the team's own lookups ask (multi-team mode)")


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Declare how secrets are written."""
    parser.add_argument("--as-uri", action="store_true", help="write connections as URI instead of JSON")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        type=setting,
        action="append",
        default=[],
        help="the store's own settings of a write (key_id=…, tier=…); repeatable",
    )


def setting(text: str) -> tuple[str, str]:
    """Accept one of the store's settings of a write."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def not_blank(text: str) -> str:
    """Accept a text that is not blank: an unset shell variable must not mean "no team"."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is blank; name one, or leave it out")
    return text


def whole_number(first: int, last: int) -> Callable[[str], int]:
    """Return a function that accepts a whole number from *first* to *last*."""

    def accepted(text: str) -> int:
        number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
        if not first <= number <= last:
            raise argparse.ArgumentTypeError(f"must be a whole number from {first} to {last}")
        return number

    return accepted


def pattern(text: str) -> re.Pattern[str]:
    """Accept a regular expression for ids, matched from the start and ignoring case, like the lookup patterns."""
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from None
