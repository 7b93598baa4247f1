"""Convert a connection between its fields and its two texts: the URI and the JSON object. Needs no Airflow.

The rules are those of ``Connection.get_uri`` and ``Connection.from_uri`` (2.11 and 3.x): "Managing Connections" in
Airflow's documentation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from airflow_providers_secrets.errors import Unusable
from airflow_providers_secrets.lookup.decoding import EXTRA_KEY, connection, fields_of_uri
from airflow_providers_secrets.options import CONNECTION_FIELDS


def fields_of(text: str) -> dict[str, Any]:
    """Return the fields that a connection's URI or JSON sets; ``extra`` as an object if it is one.

    A value in a URI's query stays text, as tasks read it: in Airflow 2 and 3.0, and from 3.2 on by the Task SDK. The
    server parses JSON there from 3.1 on, which loses the spelling (``12e5``); in 3.1, tasks have no other parser.

    :param text: what :func:`~airflow_providers_secrets.lookup.decoding.connection` has accepted or would accept.
    :raises Unusable: naming what is wrong with *text*, without any of it.
    """
    checked = connection(text).strip()  # as Airflow does
    fields = json.loads(checked) if checked.startswith("{") else fields_of_uri(checked)
    given = {name: fields[name] for name in CONNECTION_FIELDS if fields.get(name) not in (None, "")}
    if "port" in given:
        given["port"] = int(given["port"])
    if "conn_type" in given:
        given["conn_type"] = normal_type(given["conn_type"])
    if extra := object_or_text(given.pop("extra", None)):
        given["extra"] = extra
    return given


def normal_type(conn_type: str) -> str:
    """Return a connection type as Airflow names it: ``-`` is ``_``, and ``postgresql`` is ``postgres``."""
    return "postgres" if conn_type == "postgresql" else conn_type.replace("-", "_")


def object_or_text(extra: Any) -> Any:
    """Return *extra* as an object if it is the JSON text of one, else as it is."""
    if isinstance(extra, str):
        try:
            parsed = json.loads(extra)
        except (ValueError, RecursionError):
            return extra
        return parsed if isinstance(parsed, dict) else extra
    return extra


def json_of(fields: Mapping[str, Any]) -> str:
    """Return *fields* as a JSON object, in the order of Airflow's own names, without those that are not set."""
    given = {name: fields[name] for name in CONNECTION_FIELDS if fields.get(name) not in (None, "", {})}
    return json.dumps(given, ensure_ascii=False)


def uri_of(fields: Mapping[str, Any]) -> str:
    """Return *fields* as a URI.

    :raises Unusable: if a URI cannot carry them: ``description``, and what Airflow would not read back.
    """
    given = {name: value for name, value in fields.items() if value not in (None, "", {})}
    if "description" in given:
        raise Unusable("a URI has no place for the description: use JSON")
    if "conn_type" not in given:
        raise Unusable("a URI needs a connection type")
    if not is_text(json_of(given)):
        raise Unusable("a URI cannot carry characters that UTF-8 cannot encode: use JSON")
    protocol, nested, host = str(given.get("host", "")).rpartition("://")
    uri = f"{given['conn_type'].lower().replace('_', '-')}://" + (f"{protocol}://" if nested else "")
    login, password = given.get("login"), given.get("password")
    authority = quote(login, safe="") if login else ""
    authority += f":{quote(password, safe='')}" if password else ""
    uri += f"{authority}@" if authority else ""
    uri += quote(host, safe="")
    if "port" in given:
        uri += f":{given['port']}" if host or authority else f"@:{given['port']}"
    if "schema" in given:
        uri += f"/{quote(given['schema'], safe='')}"
    expected = {**given, "conn_type": normal_type(given["conn_type"].lower())}
    if extra := given.get("extra"):
        uri += ("?" if "schema" in given else "/?") + _query(extra)
        expected["extra"] = object_or_text(extra)
    try:
        back = fields_of(uri)
    except Unusable:
        back = {}
    if lost := [name for name in expected if back.get(name) != expected[name]]:
        raise Unusable(f"a URI cannot carry this {' and '.join(lost)}: use JSON")
    return uri


def is_text(text: str) -> bool:
    """Return whether UTF-8 can encode *text*: no lone surrogate of JSON, no undecodable byte of the environment."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _query(extra: Any) -> str:
    """Return *extra* as a query; as a whole, under one key, if some Airflow would not read its values back."""
    entries = object_or_text(extra)
    if isinstance(entries, dict) and all(isinstance(v, str) and not _is_json(v) for v in entries.values()):
        return urlencode(entries)
    return urlencode({EXTRA_KEY: extra if isinstance(extra, str) else json.dumps(extra)})


def _is_json(value: str) -> bool:
    """Return whether the server of Airflow 3.1 or later would turn *value* into something else in a query."""
    try:
        json.loads(value)
    except ValueError:
        return False
    except RecursionError:
        pass  # it fails there
    return True
