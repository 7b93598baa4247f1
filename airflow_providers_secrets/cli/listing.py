"""List the ids that the store holds under the backend's prefixes, with version and age where the store has them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD, add_backend, add_kind, add_output, counted, pattern
from airflow_providers_secrets.cli.exits import NOT_OK, OK
from airflow_providers_secrets.errors import quoted
from airflow_providers_secrets.lookup.plan import Kind, team_and_id

if TYPE_CHECKING:
    import re

    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.cli.configuration import Configured
    from airflow_providers_secrets.lookup.inventory import ListedId

NAME: Final = "list"
HELP: Final = "list the ids that the store holds, or what they shadow"
EXAMPLE: Final = "airflow-secrets list conn --shadowed"

COLUMNS: Final = ("id", "name", "version", "changed")
SHADOWED: Final = ("id", "name", "shadows")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets list``."""
    add_kind(parser)
    parser.add_argument("--match", metavar="REGEX", type=pattern, help="only ids that match from their start")
    parser.add_argument(
        "--shadowed", action="store_true", help="only ids that the environment or the metastore holds as well"
    )
    parser.add_argument("--no-metastore", action="store_true", help="compare with the environment alone")
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """List the ids as the store's pages arrive.

    :return: ``OK``, or ``NOT_OK`` if there is none.
    """
    from airflow_providers_secrets.cli import configuration

    configured = configuration.configured(args)
    backend = configuration.ours(configured)
    kind = KINDS_BY_WORD[args.kind]
    with output.Progress(f"listing {kind}") as progress:
        ids = _ids(configured, kind, args.match, progress)
        if args.shadowed:
            rows = _shadowed(backend, kind, ids, metastore=not args.no_metastore)
            number = output.show_rows(rows, SHADOWED, args.output)
        else:
            # A heading may have spaces, a JSON key should not.
            last = "not looked up" if args.output == "table" else "not_looked_up"
            number = output.show_rows((_row(one, last) for one in ids), (*COLUMNS, last), args.output)
    if args.output == "table":
        shadowing = (" shadows" if number == 1 else " shadow") + " another source" if args.shadowed else ""
        output.say(f"{counted(kind, number)}{shadowing} in {backend.store}")
    return OK if number else NOT_OK


def _ids(
    configured: Configured, kind: Kind, match: re.Pattern[str] | None, progress: output.Progress
) -> Iterator[ListedId]:
    from airflow_providers_secrets.lookup import inventory

    for one in inventory.listed_ids(configured.backend, kind):
        progress.step()
        if match is None or match.match(one.secret_id):
            reason = one.refused or configured.passed_over_for(kind, one.secret_id)
            yield dataclasses.replace(one, refused=reason)


def _row(one: ListedId, last: str) -> dict[str, Any]:
    return {
        "id": one.secret_id,
        "name": one.name,
        "version": one.version,
        "changed": one.changed,
        last: one.refused or _of_team(one.secret_id),
    }


def _of_team(listed: str) -> str | None:
    """Return which team alone looks an id up, or ``None`` if it is not a team's own secret."""
    team, secret_id = team_and_id(listed)
    return f"but by team {output.shown(team)}, as {quoted(secret_id)}" if team else None


def _shadowed(
    backend: SecretLookupMixin, kind: Kind, ids: Iterator[ListedId], *, metastore: bool
) -> Iterator[dict[str, Any]]:
    from airflow_providers_secrets.lookup import inventory
    from airflow_providers_secrets.lookup.sources import Environment, Metastore, Source

    others: list[Source] = [Environment(), *((Metastore(),) if metastore else ())]
    for found in inventory.shadowing(backend, kind, ids, others):
        yield {"id": found.listed.secret_id, "name": found.listed.name, "shadows": list(found.sources)}
