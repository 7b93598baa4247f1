"""Show or clear the shared cache: entries, ages and sizes; no values. Names are shown only for --id.

Whatever is cleared here, a running process keeps what it has read in its own memory for up to cache_ttl seconds more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD, add_backend, add_output, add_team
from airflow_providers_secrets.cli.exits import NOT_OK, OK
from airflow_providers_secrets.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin

NAME: Final = "cache"
HELP: Final = "show or clear the shared cache"
EXAMPLE: Final = "airflow-secrets cache clear --id conn:smtp_default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets cache``."""
    parser.add_argument("act", choices=("show", "clear"), help="what to do")
    parser.add_argument(
        "--id",
        metavar="KIND:ID",
        action="append",
        default=[],
        help="one secret alone, as conn:smtp_default or var:KEY; repeatable",
    )
    add_team(parser)
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Show or clear the shared cache.

    :return: ``OK``, or ``NOT_OK`` if there is nothing.
    """
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.lookup.answers import NOT_CACHED, answers_of

    if args.team and not args.id:
        raise ConfigurationError("--team is for an id; add --id KIND:ID, or leave it out.")
    backend = configuration.ours(configuration.configured(args))
    answers = answers_of(backend.config)
    with output.collected_warnings() as said:
        shared = answers.shared_cache()
    if shared is None:  # the default directory cannot be used, or the options turn the cache off
        off = "there is no shared cache: option 'shared_cache' is off, or cache_ttl is 0."
        raise ConfigurationError(next(iter(said), off))
    titles = _titles(backend, args.id, args.team)
    if args.act == "clear":
        number = sum(shared.remove(name) for name in titles) if args.id else shared.clear()
        removed = "1 entry removed" if number == 1 else f"{number} entries removed"
        seconds = backend.options["cache_ttl"]
        with output.result(removed):
            if args.output in ("json", "yaml"):
                output.show_record({"removed": number, "kept_in_processes_for_s": seconds}, args.output)
            else:
                print(removed)
                output.say(f"Running processes keep a value in their own memory for up to {seconds:g} s more.")
        return OK if number else NOT_OK
    if args.id:
        rows: list[dict[str, Any]] = [
            {"name": title, "state": answers.cached(name)[1]} for name, title in titles.items()
        ]
        output.show_rows(rows, ("name", "state"), args.output)
        return OK if any(row["state"] != NOT_CACHED for row in rows) else NOT_OK
    entries = sorted((entry.age, entry.size) for entry in shared.entries())
    ages = [age for age, _ in entries]
    summary = {
        "where": shared.where,
        "entries": len(entries),
        "bytes": sum(size for _, size in entries),
        "newest_s": round(ages[0]) if ages else None,
        "oldest_s": round(ages[-1]) if ages else None,
        "fresh": sum(age < backend.options["cache_ttl"] for age in ages),
        "kept_for_s": round(shared.lifetime, 1),
    }
    output.show_rows([summary], tuple(summary), args.output)
    return OK if entries else NOT_OK


def _titles(backend: SecretLookupMixin, ids: Sequence[str], team: str | None) -> dict[str, str]:
    """Return the names of the entries from which lookups of *ids* are answered, each with a title for the output.

    :raises ConfigurationError: if one is not written as ``KIND:ID``, or is never looked up.
    """
    from airflow_providers_secrets.lookup import operations
    from airflow_providers_secrets.lookup.answers import LISTING

    titles: dict[str, str] = {}
    for one in ids:
        word, _, secret_id = one.partition(":")
        if word not in KINDS_BY_WORD or not secret_id:
            raise ConfigurationError("--id takes conn:ID, var:KEY or config:KEY.")
        steps = operations.asked_plan(backend, KINDS_BY_WORD[word], secret_id, team).steps
        titles |= {name: name for name, _ in steps}
        # A preloaded kind is answered from one entry, the listing of all names.
        titles |= {f"{LISTING}{prefix}": f"everything under {prefix}" for _, prefix in steps if prefix is not None}
    return titles
