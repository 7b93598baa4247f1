"""Make the URI (or JSON) of an Airflow connection from its fields, as a store is to hold it.

It prints the whole connection, password included: that is its purpose. Nothing else of it is printed, logged
or kept.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import json
import sys
from typing import Any, Final

from airflow_providers_secrets import decoding
from airflow_providers_secrets.cli.exits import OK
from airflow_providers_secrets.cli.throwaway import throwaway_airflow
from airflow_providers_secrets.errors import ConfigurationError

NAME: Final = "uri"
HELP: Final = "make a connection's URI or JSON from its fields"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets uri``."""
    parser.add_argument("--conn-type", required=True, help="connection type: postgres, aws, http …")
    parser.add_argument("--host")
    parser.add_argument("--login")
    parser.add_argument("--port", type=_port, help="0 to 65535")
    parser.add_argument("--schema", help="schema, or the database's name")
    parser.add_argument(
        "--extra", metavar="JSON", help="further fields as a JSON object; '-' reads it from standard input"
    )
    password = parser.add_mutually_exclusive_group()
    password.add_argument("--ask-password", action="store_true", help="prompt for the password")
    password.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--json", action="store_true", help="print the JSON form instead of the URI")


def run(args: argparse.Namespace) -> int:
    """Print the connection's text, and nothing else, to standard output.

    :raises ConfigurationError: naming the field that cannot be used.
    """
    if args.password_stdin and args.extra == "-":
        raise ConfigurationError("--password-stdin and --extra - both want standard input; use --ask-password.")
    # The Airflow name of a type has underscores; a URI's scheme cannot (RFC 3986, section 3.1).
    given = {"conn_type": args.conn_type, "host": args.host, "login": args.login, "schema": args.schema}
    fields: dict[str, Any] = {**given, "password": _password(args), "port": args.port, "extra": _extra(args.extra)}
    fields = {name: value for name, value in fields.items() if value is not None}
    print(json.dumps(fields, ensure_ascii=False) if args.json else _uri(fields))
    return OK


def _port(text: str) -> int:
    port = int(text)
    if port not in range(65536):
        raise ValueError
    return port


def _password(args: argparse.Namespace) -> str | None:
    if args.ask_password:
        return getpass.getpass("Password: ")
    if args.password_stdin:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    return None


def _extra(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        extra = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError('--extra is not a JSON object; write it as {"region_name": "eu-west-1"}.')
    return extra


def _uri(fields: dict[str, Any]) -> str:
    """Encode by Airflow's own ``Connection``, and make sure that Airflow reads the same fields back."""
    fields = {**fields, "conn_type": fields["conn_type"].replace("_", "-")}
    extra = json.dumps(fields["extra"]) if fields.get("extra") else None
    # Airflow logs to standard output, here about its masking only; the URI's is the one line of it.
    with throwaway_airflow(), contextlib.redirect_stdout(io.StringIO()):
        from airflow.models.connection import Connection

        uri: str = Connection(**{**fields, "extra": extra}).get_uri()
        back = Connection(uri=uri)
        lost = [
            name
            for name in fields
            if name != "conn_type" and (back.extra_dejson if name == "extra" else getattr(back, name)) != fields[name]
        ]
    if lost:
        raise ConfigurationError(f"Airflow cannot carry this {' and '.join(lost)} in a URI; use --json.")
    try:
        decoding.connection(uri)
    except decoding.Fault as fault:
        reason = str(fault)
    else:
        return uri
    raise ConfigurationError(f"no usable URI comes of these fields: {reason}; use --json.")
