"""Write a connection or variable by the store's own means, after checking that Airflow can parse it.

The value comes from standard input (--stdin), from a prompt or, for a connection, from fields. A password never comes
from an argument, which other users of the host and the shell's history would see.
"""

from __future__ import annotations

import argparse
import re
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_providers_secrets.cli import output, uri
from airflow_providers_secrets.cli.arguments import (
    KINDS_BY_WORD,
    add_backend,
    add_id,
    add_kind,
    add_output,
    add_writing,
)
from airflow_providers_secrets.cli.exits import NOT_OK, OK
from airflow_providers_secrets.errors import ConfigurationError, Unusable, quoted

NAME: Final = "put"
HELP: Final = "write a connection or variable"
EXAMPLE: Final = "airflow-secrets put conn db --conn-type postgres --host db.example.com --login reader --ask-password"


BEFORE_HOST: Final = re.compile(r"[^:/?#]*:?(?://[^:/?#@]+:(?=//))?")
"""The start of a URI of a connection: its type and, for ``http://https://host``, the host's protocol."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets put``."""
    add_kind(parser, "conn", "var")
    add_id(parser)
    parser.add_argument("--stdin", action="store_true", help="read the whole value from standard input")
    uri.add_fields(parser)
    add_writing(parser)
    parser.add_argument("--if-not-exists", action="store_true", help="leave one that exists as it is, and end with 1")
    parser.add_argument("--dry-run", action="store_true", help="check everything, and write nothing")
    add_backend(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Write one secret.

    :return: ``OK``, or ``NOT_OK`` if it exists and must be left as it is.
    """
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.lookup import operations

    if args.kwargs == "-":
        uri.refuse_two_readers(args)
    backend = configuration.ours(configuration.configured(args))
    kind = KINDS_BY_WORD[args.kind]
    settings = dict(args.set)
    operations.store_for_write(backend, settings)
    name = operations.target_name(backend, kind, args.id, args.team)
    text = _value(args)
    done: dict[str, Any] = {"id": args.id, "name": name, "version": None}
    code = OK
    unusable: str | None = None
    try:
        if args.dry_run:
            with output.Progress(f"reading {output.shown(name)}"):
                operations.encoded(backend, kind, name, text, only_if_absent=args.if_not_exists)
                exists = operations.exists(backend, name)
            done["state"] = ("exists" if args.if_not_exists else "would be replaced") if exists else "would be created"
            code = NOT_OK if exists and args.if_not_exists else OK
        else:
            with output.Progress(f"writing {output.shown(name)}"):
                written = operations.write(
                    backend,
                    kind,
                    args.id,
                    text,
                    team=args.team,
                    only_if_absent=args.if_not_exists,
                    settings=settings,
                )
            done |= {"state": "created" if written.created else "replaced", "version": written.version}
    except operations.AlreadyExists:
        done["state"], code = "exists", NOT_OK
    except Unusable as error:
        unusable = str(error)
    if unusable:
        raise ConfigurationError(f"Airflow could not use it, so it is not written: {unusable}.")
    changed = f"{quoted(name)} was written" if done["state"] in ("created", "replaced") else "nothing was written"
    with output.result(changed):
        if args.output in ("json", "yaml"):
            output.show_record(done, args.output)
        else:
            version = f", version {done['version']}" if done["version"] else ""
            print(f"{backend.store}: {quoted(name)} {done['state']}{version}")
    return code


def _value(args: argparse.Namespace) -> str:
    """Return the text to write, as Airflow will parse it.

    :raises ConfigurationError: if there is none, or Airflow could not parse it.
    """
    from airflow_providers_secrets.cli import reading
    from airflow_providers_secrets.lookup.connection_text import fields_of, json_of, uri_of

    fields_given = uri.any_field(args)
    if args.kind == "var":
        if fields_given:
            raise ConfigurationError("a variable has no fields; send its value on standard input (--stdin).")
        text = reading.standard_input() if args.stdin else reading.ask_secret("Value: ", "--stdin")
        if not text.strip():
            raise ConfigurationError("the value is blank, which not every store can hold.")
        return text
    if args.stdin and fields_given:
        raise ConfigurationError("--stdin reads the whole connection; leave it or the fields out.")
    reason: str
    try:
        if fields_given:
            uri.need_type(args)
            fields = uri.fields_from(args)
        else:
            ask = "Connection (URI or JSON): "
            text = reading.standard_input() if args.stdin else reading.ask_secret(ask, "--stdin")
            fields = fields_of(text)
            if _may_be_cut_off(text.strip()):
                raise ConfigurationError(
                    "this URI has an '@' after the '/' at which its host ends; in login, password and schema, write "
                    "%40 for '@' and %2F for '/'."
                )
            if not args.as_uri:
                return text if text.lstrip().startswith("{") else json_of(fields)
        return uri_of(fields) if args.as_uri else json_of(fields)
    except Unusable as error:
        reason = str(error)
    except RecursionError:
        reason = "it is JSON nested too deeply"
    raise ConfigurationError(f"Airflow could not use this connection: {reason}.")


def _may_be_cut_off(text: str) -> bool:
    """Tell whether *text* is a URI with an ``@`` in its path: usually the one before the host, after a ``/``."""
    return not text.startswith("{") and "@" in urlsplit(BEFORE_HOST.sub("", text, count=1)).path
