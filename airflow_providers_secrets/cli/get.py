"""Show what Airflow would get for an id; values are hidden unless --show-value or --field asks for them."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any, Final

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD, add_backend, add_id, add_kind, add_output
from airflow_providers_secrets.cli.exits import NOT_OK, OK, USAGE
from airflow_providers_secrets.errors import ConfigurationError, SecretsError, Unusable, printable, quoted

NAME: Final = "get"
HELP: Final = "show a connection, variable or configuration value, masked"
EXAMPLE: Final = "airflow-secrets get conn smtp_default --field host"

MASK: Final = "***"
OPEN: Final = ("conn_type", "host", "port", "schema")
"""The fields of a connection that are not secret, if it has a type. A text without one may not be a connection at all:
Airflow's own parser turns most of a password into a schema."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets get``."""
    add_kind(parser)
    add_id(parser)
    parser.add_argument("--show-value", action="store_true", help="show values, passwords included")
    parser.add_argument(
        "--field",
        metavar="FIELD",
        help="print one field of a connection alone, as it is: password, host, extra …, or extra.KEY",
    )
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Look the id up, bypassing every cache.

    :return: ``OK``; ``NOT_OK`` if it is absent or has no such field; ``USAGE`` if it is never looked up.
    """
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.lookup import operations

    configured = configuration.configured(args)
    backend = configured.fresh()
    kind = KINDS_BY_WORD[args.kind]
    if args.field is not None and kind != "connections":
        raise ConfigurationError("--field is for connections; a variable is shown whole with --show-value.")
    with output.Progress(f"reading {output.shown(args.id)}"):
        if configured.member and not configured.member.is_ours:
            text = configured.member.look_up(kind, args.id, args.team)
        else:
            text = operations.read(backend, kind, args.id, args.team)
    if text is None:
        title = getattr(backend, "store", configured.class_path)
        reason = None
        if configuration.is_ours(backend):
            reason = backend.plan(kind, args.id, args.team).reason
        elif configured.member and kind not in configured.member.lookups:
            reason = configured.off_for(kind)
        why = f" is not asked for {quoted(args.id)}: {reason}." if reason else f" does not hold {quoted(args.id)}."
        output.say(f"airflow-secrets get: {title}{why}")
        return USAGE if reason else NOT_OK
    if kind == "connections":
        return _show_connection(args, text)
    if not isinstance(text, str):  # Airflow's reader of files, and so a chain's member, returns what JSON makes of it
        text = json.dumps(text, ensure_ascii=False)
    value = text if args.show_value else MASK
    if args.output in ("json", "yaml"):
        output.show_record({"id": args.id, "value": value}, args.output)
    else:
        print(output.as_it_is(value))
    return OK


def _show_connection(args: argparse.Namespace, text: str) -> int:
    from airflow_providers_secrets.lookup.connection_text import fields_of

    try:
        fields = fields_of(text)
    except Unusable as error:  # from another package's class, which does not check
        raise SecretsError(f"Airflow could not use the connection: {error}.") from None
    if args.field is not None:
        name, _, key = args.field.partition(".")
        value = fields.get(name)
        if key:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            has = ", ".join(printable(one, 80) for one in _fields(fields))
            output.say(f"airflow-secrets get: the connection has no field {quoted(args.field)}; it has {has}.")
            return NOT_OK
        print(output.as_it_is(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        return OK
    typed = "conn_type" in fields
    shown = fields if args.show_value else {name: _masked(name, value, typed) for name, value in fields.items()}
    if args.output in ("json", "yaml"):
        output.show_record({"id": args.id, **shown}, args.output)
        return OK
    rows = [
        {"field": name, "value": json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}
        for name, value in shown.items()
    ]
    if args.show_value:
        for row in rows:
            output.as_it_is(str(row["value"]))
    longest = None if args.show_value else output.LONGEST_CELL
    output.show_rows(rows, ("field", "value"), args.output, args.id, longest)
    return OK


def _fields(fields: dict[str, Any]) -> list[str]:
    """Return the values that ``--field`` accepts for this connection."""
    extra = fields.get("extra")
    return [*fields, *(f"extra.{key}" for key in extra)] if isinstance(extra, dict) else list(fields)


def _masked_host(host: str) -> str:
    """Return a host, which may be a URL, with its credentials, query and fragment masked."""
    scheme, nested, rest = host.partition("://")
    start, login, rest = (rest if nested else host).rpartition("@")
    # If a "?" or "#" precedes the "@", a password cannot be told from a query that contains an "@".
    shown = "" if re.search("[?#]", start) else re.sub(r"(?<=[?#]).*", MASK, rest, flags=re.DOTALL)
    return f"{scheme}://" * bool(nested) + f"{MASK}@" * bool(login) + shown


def _masked(name: str, value: Any, typed: bool) -> Any:  # noqa: FBT001  # whether it has a connection type
    if typed and name == "host" and isinstance(value, str):
        return _masked_host(value)
    if typed and name in OPEN:
        return value
    return dict.fromkeys(value, MASK) if isinstance(value, dict) else MASK
