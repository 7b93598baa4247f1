"""Turn a connection's fields into its URI or JSON, and a URI or JSON back into fields. Needs no Airflow.

It prints the whole connection, password included: that is its purpose. It logs and keeps nothing of it.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from airflow_providers_secrets.cli.arguments import whole_number
from airflow_providers_secrets.cli.exits import OK
from airflow_providers_secrets.cli.output import as_it_is, show_record
from airflow_providers_secrets.errors import ConfigurationError, Unusable

NAME: Final = "uri"
HELP: Final = "make a connection's URI or JSON from fields, and back"
EXAMPLE: Final = "airflow-secrets uri --conn-type postgres --host db.example.com --login reader --ask-password"

FIELDS: Final = ("conn_type", "description", "host", "login", "port", "schema", "extra")
"""The fields given as arguments; the password is not one of them."""


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Declare the fields of a connection."""
    parser.add_argument("--conn-type", metavar="TYPE", help="connection type: postgres, aws, http …")
    parser.add_argument("--description", metavar="TEXT", help="what the connection is for")
    parser.add_argument("--host", metavar="HOST", help="host name, address or URL")
    parser.add_argument("--login", metavar="NAME", help="user name")
    parser.add_argument("--port", metavar="N", type=whole_number(0, 65535), help="0 to 65535")
    parser.add_argument("--schema", metavar="NAME", help="schema, or the database's name")
    parser.add_argument("--extra", metavar="JSON", help="further fields as a JSON object; - reads standard input")
    password = parser.add_mutually_exclusive_group()
    password.add_argument("--ask-password", action="store_true", help="prompt for the password")
    password.add_argument("--password-stdin", action="store_true", help="read the password from standard input")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets uri``."""
    add_fields(parser)
    parser.add_argument("--parse", action="store_true", help="read a URI or JSON from standard input, print its fields")
    parser.add_argument("--json", action="store_true", help="print the JSON form instead of the URI")


def run(args: argparse.Namespace) -> int:
    """Print the connection's text, or its fields, and nothing else.

    :raises ConfigurationError: naming the field that cannot be used.
    """
    from airflow_providers_secrets.cli.reading import standard_input
    from airflow_providers_secrets.lookup.connection_text import fields_of, json_of, uri_of

    reason: str
    try:
        if args.parse:
            if any_field(args):
                raise ConfigurationError("--parse reads a connection; leave it or the fields out.")
            fields = fields_of(standard_input())
            if args.json:
                print(as_it_is(json_of(fields)))
            else:
                show_record(fields, "yaml")
            return OK
        need_type(args)
        fields = fields_from(args)
        print(as_it_is(json_of(fields) if args.json else uri_of(fields)))
        return OK
    except Unusable as error:
        reason = str(error)
    except RecursionError:
        raise ConfigurationError("the connection is JSON nested too deeply.") from None
    cure = "" if args.parse or args.json else "; --json prints it"
    raise ConfigurationError(f"{reason}{cure}.")


def any_field(args: argparse.Namespace) -> bool:
    """Tell whether any field is given."""
    return args.ask_password or args.password_stdin or any(getattr(args, name) is not None for name in FIELDS)


def need_type(args: argparse.Namespace) -> None:
    """Refuse fields without a connection type, by which Airflow finds the hook.

    :raises ConfigurationError: if it is not given.
    """
    if not args.conn_type:
        raise ConfigurationError("--conn-type is needed: postgres, aws, http …")


def refuse_two_readers(args: argparse.Namespace) -> None:
    """Refuse two arguments that both read standard input: the second would find it empty.

    :raises ConfigurationError: naming both.
    """
    from airflow_providers_secrets.cli import reading

    reads = {
        "--kwargs -": getattr(args, "kwargs", None) == "-",
        "--stdin": getattr(args, "stdin", False),
        "--password-stdin": args.password_stdin,
        "--extra -": args.extra == "-",
    }
    cure = "--kwargs takes a file, too: @FILE" if reads["--kwargs -"] else "use --ask-password"
    reading.refuse_two_readers(reads, cure)


def fields_from(args: argparse.Namespace) -> dict[str, Any]:
    """Return the given fields, including the password, as Airflow will read them.

    :raises ConfigurationError: for an extra that is not a JSON object, a missing password, or two readers of standard
        input.
    :raises Unusable: if Airflow could not use them.
    """
    from airflow_providers_secrets.lookup.connection_text import fields_of, json_of

    refuse_two_readers(args)
    if args.ask_password and args.password_stdin:  # Airflow's parser has no mutually exclusive groups
        raise ConfigurationError("--ask-password and --password-stdin both give the password; leave one of them out.")
    fields = {name: getattr(args, name) for name in FIELDS}
    fields |= {"password": _password(args), "extra": _extra(args.extra)}
    return fields_of(json_of(fields))


def _password(args: argparse.Namespace) -> str | None:
    from airflow_providers_secrets.cli.reading import ask_secret, standard_input

    if args.ask_password:
        return ask_secret("Password: ", "--password-stdin")
    if not args.password_stdin:
        return None
    password = standard_input()
    if not password:  # usually, the command before the pipe has failed
        raise ConfigurationError("no password came on standard input; leave --password-stdin out where there is none.")
    return password


def _extra(text: str | None) -> dict[str, Any] | None:
    from airflow_providers_secrets.cli.reading import standard_input

    if text is None:
        return None
    try:
        extra = json.loads(standard_input() if text == "-" else text)
    except (ValueError, RecursionError):  # RecursionError: nested too deeply
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError('--extra is not a JSON object; write it as {"region_name": "eu-west-1"}.')
    return extra
