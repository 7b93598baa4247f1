"""Explain one lookup: which names are requested, what the store says, which source Airflow uses. No value is shown.

For a chain, each member's part: which one answers, which are skipped and why.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import (
    KINDS_BY_WORD,
    SINGULAR,
    WORDS,
    add_backend,
    add_id,
    add_kind,
    add_output,
    counted,
)
from airflow_providers_secrets.cli.exits import NO_ANSWER, NOT_OK, OK, USAGE
from airflow_providers_secrets.errors import quoted, shown_id

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.cli.configuration import Configured
    from airflow_providers_secrets.lookup.explanation import ChainExplanation, Elsewhere, Explanation, MemberAnswer
    from airflow_providers_secrets.lookup.inventory import MakePlan

NAME: Final = "explain"
HELP: Final = "explain one lookup: names, answers, who wins, who is shadowed"
EXAMPLE: Final = "airflow-secrets explain conn smtp_default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets explain``."""
    add_kind(parser)
    add_id(parser)
    parser.add_argument("--no-metastore", action="store_true", help="leave Airflow's database out")
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Explain one lookup.

    :return: ``OK`` if some source has the id; ``NOT_OK`` if none has; ``USAGE`` if the store's configuration is
        wrong; ``NO_ANSWER`` if the store gave no answer, or if a source that may have the id could not be asked.
    """
    from airflow_providers_secrets.cli import airflow_conf, configuration
    from airflow_providers_secrets.lookup import explanation, inventory
    from airflow_providers_secrets.lookup.sources import Environment, Metastore, Source

    configured = configuration.configured(args)
    members = configuration.members_of(configured)
    kind = KINDS_BY_WORD[args.kind]
    others: list[Source] = []
    if args.kind != "config":
        others = [Environment(), *(() if args.no_metastore else (Metastore(),))]
    with output.Progress(f"looking {output.shown(args.id)} up"):
        explained: Explanation | ChainExplanation
        if members:
            explained = explanation.explain_chain(members, kind, args.id, args.team, others)
        else:
            explained = explanation.explain(configuration.ours(configured), kind, args.id, args.team, others)
    if args.worker and args.kind != "config" and airflow_conf.has_workers_backend():
        why = "It asks the backend of [secrets] once more. Explain that one, too: leave --worker out."
        server = explanation.Elsewhere("API server", None, why)
        explained = dataclasses.replace(explained, elsewhere=(*explained.elsewhere, server))
    near: tuple[str, ...] = ()
    if not explained.winner and not explained.final and not _without_answer(explained):
        with output.Progress("looking for similar ids"):
            near = inventory.near_ids(_asked(configured, explained), kind, args.id, args.team)
    if args.output in ("json", "yaml"):
        output.show_record({**_record(explained), "near": near}, args.output)
    else:
        _show(explained, near)
    if explained.failed and explained.failed.outcome == explanation.MISCONFIGURED:
        return USAGE
    if _without_answer(explained) or (not explained.winner and explanation.not_asked(explained)):
        return NO_ANSWER
    return OK if explained.winner else NOT_OK


def _record(explained: Explanation | ChainExplanation) -> dict[str, Any]:
    record = _with_id(dataclasses.asdict(explained))
    for member in record.get("members", ()):
        member["way"] = member["way"] and _with_id(member["way"])
    ways = [record, *(member["way"] for member in record.get("members", ()) if member["way"])]
    for way in ways:
        way["id"] = shown_id(way["id"])
    for answer in (answer for way in ways for answer in way.get("names", ())):
        answer["name"] = shown_id(answer["name"])
        if answer["milliseconds"] is not None:
            answer["milliseconds"] = round(answer["milliseconds"], 1)
        if answer["cached_for"] is not None:
            answer["cached_for"] = round(answer["cached_for"], 1)
    return record


def _with_id(way: dict[str, Any]) -> dict[str, Any]:
    """Return *way* with the key ``id`` for the id, as in all output."""
    return {"id" if key == "secret_id" else key: value for key, value in way.items()}


def _asked(
    configured: Configured, explained: Explanation | ChainExplanation
) -> list[tuple[SecretLookupMixin, MakePlan]]:
    """Return the backends of this package that were asked for the id, each with the function that makes its plan."""
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.lookup.explanation import ChainExplanation

    if isinstance(explained, ChainExplanation):
        members = zip(configuration.members_of(configured), explained.members, strict=True)
        return [(member.backend, member.plan) for member, answer in members if answer.way and not answer.way.reason]
    return [] if explained.reason else [(configured.backend, (configured.member or configured.backend).plan)]


def _without_answer(explained: Explanation | ChainExplanation) -> bool:
    return bool(explained.failed or getattr(explained, "unusable", None) or _cached_for(explained))


def _cached_for(explained: Explanation | ChainExplanation) -> float | None:
    """Return the seconds for which Airflow uses the shared cache's value although the store that answers has failed."""
    from airflow_providers_secrets.lookup.explanation import ANSWERS, ChainExplanation

    way: Explanation | None
    if isinstance(explained, ChainExplanation):
        way = next((member.way for member in explained.members if member.role == ANSWERS), None)
    else:
        way = explained
    return way.failed.cached_for if way and way.failed else None


def _show(explained: Explanation | ChainExplanation, near: Sequence[str]) -> None:
    from airflow_providers_secrets.lookup.explanation import ChainExplanation, not_asked

    kind = SINGULAR[explained.kind]
    team = f" for the team {output.shown(explained.team)}" if explained.team else ""
    asked = f"{kind} {output.shown(explained.secret_id)}{team}, asked of"
    if isinstance(explained, ChainExplanation):
        print(f"{asked} a chain of {len(explained.members)}")
        for member in explained.members:
            _show_member(member)
    else:
        print(f"{asked} {explained.store}")
        _show_way(explained)
    for other in explained.elsewhere:
        _show_other(other)
    if explained.winner:
        shadowed = f", which shadows {' and '.join(explained.shadowed)}" if explained.shadowed else ""
        seconds = _cached_for(explained)
        cached = f" (the cached value, for {seconds:.0f} s more at most)" if seconds else ""
        print(f"Airflow takes it from: {explained.winner}{cached}{shadowed}.")
    elif explained.final:
        print("Airflow has no answer: its lookup ends here, and no further source is asked.")
    elif _without_answer(explained):
        print(f"Airflow has no answer, and will say that the {kind} is not found.")
    else:
        missed = not_asked(explained)
        were = "were" if len(missed) > 1 else "was"
        print(
            f"Not found in what could be asked: {' and '.join(missed)} {were} not."
            if missed
            else "Airflow finds it nowhere."
        )
        if near:
            *others, last = map(quoted, near)
            print(f"    Did you mean {', '.join(others) + ' or ' if others else ''}{last}?")
        if command := _listing(explained):
            print(f"    What is there: {command}.")


def _show_other(other: Elsewhere) -> None:
    if other.holds is None:
        output.show_finding(None, f"{other.source}: not to be asked", other.problem)
    elif other.problem:
        output.show_finding(output.FAULT, f"{other.source}: holds it, but Airflow cannot use it: {other.problem}")
    else:
        output.show_finding(
            other.holds or output.NEUTRAL, f"{other.source}: {'holds it' if other.holds else 'does not hold it'}"
        )


def _listing(explained: Explanation | ChainExplanation) -> str | None:
    """Return the command that lists what is there; ``None`` if no store that can list is asked for this kind."""
    from airflow_providers_secrets.lookup.explanation import ChainExplanation

    word = WORDS[explained.kind]
    if not isinstance(explained, ChainExplanation):
        return f"airflow-secrets list {word}" if explained.enabled and explained.lists else None
    asked = [
        str(member.position) for member in explained.members if member.way and member.way.enabled and member.way.lists
    ]
    # The command lists one store at a time.
    return f"airflow-secrets list {word} --member {' or '.join(asked)}" if asked else None


def _show_member(member: MemberAnswer) -> None:
    from airflow_providers_secrets.lookup import explanation

    reason = f": {member.reason}" if member.reason else ""
    print(f"{member.title}: {member.role}{reason}")
    if member.way:
        _show_way(member.way)
    elif member.message:
        output.show_finding(output.FAULT, f"{member.outcome}: {member.message}")
    elif member.outcome != explanation.NOT_ASKED:
        output.show_finding(output.FINE if member.outcome == "found" else output.ADVICE, member.outcome)


def _show_way(explained: Explanation) -> None:
    output.show_finding(
        explained.enabled or output.NEUTRAL,
        f"{counted(explained.kind)} are {'looked up' if explained.enabled else 'not looked up'} here",
    )
    if explained.enabled and (explained.pattern or explained.exclude_pattern):
        patterns = (("lookup", explained.pattern), ("exclude", explained.exclude_pattern))
        output.show_finding(
            explained.reason is None,
            "patterns: " + ", ".join(f"{name} {pattern}" for name, pattern in patterns if pattern),
        )
    if explained.reason:
        output.show_finding(output.FAULT, f"the store is not asked: {explained.reason}")
    for answer in explained.names:
        included = ", login included" if answer.connected else ""
        took = f" ({answer.milliseconds:.0f} ms{included})" if answer.milliseconds is not None else ""
        shared = f", shared cache: {answer.shared}" if answer.shared else ""
        code = f", {answer.code}" if answer.code else ""
        ok = {"found": True, "not found": None, "not asked": output.NEUTRAL}.get(answer.outcome, False)
        cure = answer.message.rpartition(f"{answer.code}. ")[2] if answer.message and answer.code else answer.message
        output.show_finding(ok, f"{shown_id(answer.name)}: {answer.outcome}{code}{took}{shared}", cure)
    if explained.unusable:
        cure = "Rewrite it: airflow-secrets put." if explained.writes else f"Rewrite it in {explained.store}."
        output.show_finding(output.FAULT, f"Airflow could not use it: {explained.unusable}", cure)
    elif explained.form:
        fields = f" with {', '.join(explained.fields)}" if explained.fields else ""
        output.show_finding(output.FINE, f"it reads as {explained.form}{fields}")
