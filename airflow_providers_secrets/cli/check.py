"""Check the configured store as this host's Airflow would use it. Prints no value.

Each finding is marked as fine, as a fault with its one remedy, or as advice (!), which does not count as unhealthy.
In a chain, every member is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets import __version__
from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import add_backend, add_output
from airflow_providers_secrets.cli.exits import OK

if TYPE_CHECKING:
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.cli.configuration import Configured
    from airflow_providers_secrets.cli.findings import Finding
    from airflow_providers_secrets.lookup.plan import Kind
    from airflow_providers_secrets.stores.base import Store

NAME: Final = "check"
HELP: Final = "check the configured store: configuration, identity, rights, latency"
EXAMPLE: Final = "airflow-secrets check --connection smtp_default"

DISTRIBUTIONS: Final = {
    "aws": ("boto3", "botocore"),
    "vault": ("hvac", "requests"),
    "google": ("google-cloud-secret-manager", "google-auth", "grpcio"),
    "azure": ("azure-keyvault-secrets", "azure-identity"),
    "kubernetes": ("kubernetes",),
    "redis": ("redis",),
}
"""The distributions whose versions are reported, by this package's extra. Not all of them are named in its metadata."""


LONGEST_LINE: Final = 110
"""Maximum length of a line about the defaults, in characters; a narrower terminal has shorter ones."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets check``."""
    parser.add_argument("--connection", metavar="ID", action="append", default=[], help="look this one up; repeatable")
    parser.add_argument("--variable", metavar="KEY", action="append", default=[], help="look this one up; repeatable")
    parser.add_argument("--listing", action="store_true", help="also check that the store may be listed")
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything, and print each finding at once.

    :return: ``OK``; ``NOT_OK`` if there is a fault; ``USAGE`` if the configuration is wrong; ``NO_ANSWER`` if the store
        gave no answer.
    """
    from airflow_providers_secrets.cli import configuration

    configured = configuration.configured(args)
    report: dict[str, Any]
    if configuration.members_of(configured):
        report, found = _check_chain(configured, args)
    else:
        report, found = _check_store(configured, args, _asked_for(args))
    codes = [finding.code for finding in found if finding.ok is output.FAULT]
    faults = len(codes)
    verdict = f"unhealthy: {faults} fault{'s' if faults > 1 else ''}" if faults else "healthy"
    if args.output == "table":
        print(verdict)
    elif args.output != "plain":
        report["verdict"] = "unhealthy" if faults else "healthy"
        output.show_record(report, args.output)
    return max(codes, default=OK)


def _check_store(
    configured: Configured, args: argparse.Namespace, ids: Iterable[tuple[Kind, str]], of: str = ""
) -> tuple[dict[str, Any], list[Finding]]:
    """Check one of this package's backends; return the report and the findings.

    :param ids: what to look up.
    :param of: the prefix of each finding in plain text, which has no headings.
    """
    from airflow_providers_secrets.cli import configuration, findings

    backend = configuration.ours(configured)
    report: dict[str, Any] = {
        "backend": configured.class_path,
        "store": backend.store,
        "configured_by": configured.origin,
        "options": _options(configured),
        "versions": versions(backend),
    }
    if args.output == "table":
        _show_configuration(report)
    found = _shown(findings.of_store(configured, backend, ids, listing=args.listing), args.output, of)
    return {**report, "findings": _records(found)}, found


def _check_chain(chain: Configured, args: argparse.Namespace) -> tuple[dict[str, Any], list[Finding]]:
    """Check every member of a chain, then look the ids up through all of them."""
    from airflow_providers_secrets.cli import configuration, findings

    members = configuration.members_of(chain)
    in_words = args.output == "table"
    if in_words:
        print(f"chain of {len(members)}: {chain.class_path}\nconfigured by {chain.origin}")
    all_found = _shown(findings.of_warnings(chain), args.output)
    reports: list[dict[str, Any]] = []
    for member in members:
        if in_words:
            print(f"\n{member.title}{', optional' if member.optional else ''}")
        if member.is_ours:
            one = configuration.member_of(chain, member.position)
            report, found = _check_store(one, args, (), f"{member.title}: ")
        else:
            found = _shown(findings.of_foreign_member(member), args.output, f"{member.title}: ")
            report = {"findings": _records(found)}
        reports.append({"position": member.position, "name": member.name, "optional": member.optional, **report})
        all_found += found
    if in_words:
        print()
    looked_up = (findings.of_id_in_chain(members, kind, secret_id) for kind, secret_id in _asked_for(args))
    found = _shown(looked_up, args.output)
    report = {"backend": chain.class_path, "configured_by": chain.origin, "members": reports}
    return {**report, "findings": _records(found)}, all_found + found


def _shown(findings: Iterable[Finding], form: str, of: str = "") -> list[Finding]:
    """Print each finding at once if *form* is table or plain, and return all findings."""
    told = []
    for finding in findings:
        told.append(finding)
        if form == "table":
            output.show_finding(*finding[:3])
        elif form == "plain":
            row = {"state": output.STATES[finding.ok], "finding": f"{of}{finding.what}", "cure": finding.cure}
            output.show_rows([row], tuple(row), form)
    return told


def _records(found: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {"ok": None if finding.ok == output.NEUTRAL else finding.ok, "finding": finding.what, "cure": finding.cure}
        for finding in found
    ]


def _options(configured: Configured) -> list[dict[str, str]]:
    from airflow_providers_secrets.cli.masking import shown_value

    return [
        {
            "option": option.name,
            "value": shown_value(option.name, configured.backend.options[option.name]),
            "source": configured.origins.get(option.name, "default"),
        }
        for option in type(configured.backend).declared_options()
        if option.name in configured.origins or configured.backend.options[option.name] not in (None, {}, ())
    ]


def versions(backend: SecretLookupMixin) -> dict[str, str]:
    """Return the versions of everything that takes part in a lookup."""
    import importlib.metadata
    import platform

    from airflow_providers_secrets.lookup.access import store_of

    taking_part = ["apache-airflow", *_distributions_of(store_of(backend.config))]
    if any(not where.startswith("file") for where in backend.config.shared_cache):
        taking_part += DISTRIBUTIONS["redis"]
    found = {"airflow-providers-secrets": __version__, "python": platform.python_version()}
    for name in taking_part:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _distributions_of(store: Store) -> list[str]:
    """Return the distributions of a store's SDKs, preceded by that of its own package if it is of another one."""
    import importlib.metadata

    extras = dict.fromkeys(store.imports().values())
    if store.distribution == "airflow-providers-secrets":
        return [name for extra in extras for name in DISTRIBUTIONS.get(extra, ())]
    needed: list[str] = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        needed = importlib.metadata.requires(store.distribution) or []
    by_extra = [re.match(r"([\w.-]+).*;.*\bextra *== *['\"]([^'\"]+)", one) for one in needed]
    return [store.distribution, *(found[1] for found in by_extra if found and found[2] in extras)]


def _show_configuration(report: dict[str, Any]) -> None:
    print(f"{report['store']}: {report['backend']}")
    print(f"configured by {report['configured_by']}")
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    given = [option for option in report["options"] if option["source"] != "default"]
    if given:
        output.show_rows(given, ("option", "value", "source"), "table")
    # A no-break space keeps a value on the line of its option.
    defaults = [
        f"{option['option']}\N{NO-BREAK SPACE}{option['value']}"
        for option in report["options"]
        if option["source"] == "default"
    ]
    lines = textwrap.wrap(
        f"defaults: {', '.join(defaults)}",
        min(output.console().width or LONGEST_LINE, LONGEST_LINE),  # COLUMNS may be 0
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    print(*(line.replace("\N{NO-BREAK SPACE}", " ") for line in lines), "", sep="\n")


def _asked_for(args: argparse.Namespace) -> list[tuple[Kind, str]]:
    return [
        *(("connections", secret_id) for secret_id in args.connection),
        *(("variables", secret_id) for secret_id in args.variable),
    ]
