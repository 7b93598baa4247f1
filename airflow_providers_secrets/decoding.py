"""From the store's text to the string that Airflow parses.

Airflow swallows what it cannot parse ("connection not defined") and silently mangles some of what it can.
So the text of a connection is checked here first, and a fault is named, without the value.

Airflow's own rules: ``Connection.from_json`` and ``Connection.from_uri`` (2.11 and 3.x), described under
"Storing connections in environment variables" in Airflow's documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_providers_secrets.errors import shown

TEXT_FIELDS: Final = ("conn_type", "description", "login", "password", "host", "schema")
CONNECTION_FIELDS: Final = (*TEXT_FIELDS, "port", "extra")
"""The fields of a connection's JSON; Airflow's constructor fails on any other."""

_LAST_PORT: Final = 65535
_CONN_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


class Fault(Exception):
    """Why a stored text cannot be used, as the end of a sentence; never holds any of the text."""


class Words:
    """How a store's JSON objects name a connection's fields.

    :param by_field: the words for each field.
    :param dropped: names of what belongs to nothing in a connection.
    """

    __slots__ = ("by_field", "dropped")

    def __init__(self, by_field: Mapping[str, Sequence[str]], dropped: Sequence[str] = ()) -> None:
        self.by_field = by_field
        self.dropped = dropped


def connection(stored: str, words: Words | None = None) -> str:
    """Check the text of a connection, and give the text that Airflow parses.

    :param stored: a connection as URI or JSON object.
    :param words: how the fields of a JSON object may be named. What is none of them moves into ``extra``;
        without *words*, it is a fault.
    :raises Fault: naming what is wrong with it.
    """
    stripped = stored.strip()
    if not stripped:
        raise Fault("it is blank")
    if not stripped.startswith("{"):
        _check_uri(stripped)
        return stored
    fields = _object(stripped)
    if words is not None:
        return json.dumps(_checked(_renamed(fields, words)))
    checked = _checked(fields)
    return stored if checked == fields else json.dumps(checked)


def _object(stored: str) -> dict[str, Any]:
    try:
        fields = json.loads(stored)
    except ValueError as error:
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        # The decoding error carries the whole document, so nothing of it may be chained.
        fault = Fault(f"it starts as JSON and is not valid JSON{at}")
    except RecursionError:
        fault = Fault("it is JSON nested too deeply")
    else:
        assert isinstance(fields, dict)  # it starts with a brace
        return fields
    raise fault


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give *fields* as Airflow's constructor takes them, or name what it would fail on."""
    if unknown := [name for name in fields if name not in CONNECTION_FIELDS]:
        raise Fault(
            f"its field {shown(unknown[0], 48)} is none of a connection's, which are {', '.join(CONNECTION_FIELDS)}"
        )
    checked = dict(fields)
    for name in TEXT_FIELDS:
        value = fields.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # A password of digits only. Airflow's server refuses to encrypt a number.
            checked[name] = str(value)
        elif not (value is None or isinstance(value, str)):
            raise Fault(f"its field {name!r} is not text")
    if fields.get("port"):
        checked["port"] = _port(fields["port"])
    extra = fields.get("extra")
    if not (extra is None or isinstance(extra, (str, dict))):
        raise Fault("its field 'extra' is neither an object nor text")
    return checked


def _port(value: Any) -> int:
    digits = str(value).strip()
    # int() accepts more than a port: underscores, signs, digits of other scripts.
    if isinstance(value, bool) or not (digits.isascii() and digits.isdigit()) or int(digits) > _LAST_PORT:
        raise Fault("its port is not a number from 0 to 65535")
    return int(digits)


def _renamed(fields: Mapping[str, Any], words: Words) -> dict[str, Any]:
    """Re-key *fields*: for each of a connection's fields, the first of its words in the secret's own order."""
    renamed: dict[str, Any] = {}
    for field, accepted in words.by_field.items():
        for word, value in fields.items():
            # A real conn_type beats the conn_id that also goes for one.
            if word in accepted and (field not in renamed or word == field == "conn_type"):
                renamed[field] = value
    known = {*words.dropped, *(word for accepted in words.by_field.values() for word in accepted)}
    rest = {name: value for name, value in fields.items() if name not in known}
    if rest:
        renamed["extra"] = _with_rest(renamed.get("extra"), rest)
    return renamed


def _with_rest(extra: Any, rest: dict[str, Any]) -> Any:
    """Add *rest* to *extra*, whose own entries win. An extra that is no JSON object stays as it was written."""
    if not extra:
        return rest
    if isinstance(extra, str):
        try:
            parsed = json.loads(extra)
        except (ValueError, RecursionError):
            return extra
        return {**rest, **parsed} if isinstance(parsed, dict) else extra
    return {**rest, **extra} if isinstance(extra, dict) else extra


def _check_uri(uri: str) -> None:
    if uri[0] in "\"'":
        raise Fault("it is in quotation marks")
    conn_type, found, rest = uri.partition("://")
    if not found:
        raise Fault("it is neither a JSON object nor a URI (conn-type://login:password@host:port/schema)")
    if not _CONN_TYPE.fullmatch(conn_type):
        if _CONN_TYPE.fullmatch(conn_type.replace("_", "-")):
            raise Fault("its connection type has an underscore, which a URI cannot hold: write '-'")
        raise Fault("it is a URI without a proper connection type before '://'")
    protocol, nested, after = rest.partition("://")
    if "://" in after or (nested and ("@" in protocol or ":" in protocol)):
        raise Fault("it has a second '://' out of place: percent-encode the parts of the URI")
    try:
        port = urlsplit(f"//{after}" if nested else f"//{rest}").port
    except ValueError:
        port = -1
    if port == -1:
        raise Fault("its host and port cannot be read: percent-encode the parts of the URI")
