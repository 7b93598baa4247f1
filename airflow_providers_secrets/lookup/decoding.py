"""Turn the store's text into the string that Airflow parses.

Airflow swallows what it cannot parse ("connection not defined") and silently mangles some of what it can. So the text
of a connection is checked here first, and errors name the problem without the value. The rule: a text that one of
Airflow's parsers reads without loss is passed on with its meaning unchanged; one that all of them would misread or
refuse is :class:`~airflow_providers_secrets.errors.Unusable`.

Airflow's own rules: ``Connection.from_json``, ``Connection.from_uri`` and ``Connection(uri=…)`` (2.11, 3.x and the Task
SDK), described under "Storing connections in environment variables" in Airflow's documentation. Its parsers are not
called: they log and mask what they read, quote it in their errors, and do not report what they mangle.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from airflow_providers_secrets.errors import Unusable, json_place, quoted
from airflow_providers_secrets.options import CONNECTION_FIELDS

TEXT_FIELDS: Final = tuple(field for field in CONNECTION_FIELDS if field not in ("port", "extra"))

EXTRA_KEY: Final = "__extra__"
"""The query parameter of a URI that holds the whole ``extra``; Airflow drops any other parameter beside it."""

_LAST_PORT: Final = 65535
_MAX_PORT_LENGTH: Final = 64  # of its text; the time that int() takes grows with the square
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")  # RFC 3986, section 3.1
_NO_AUTHORITY = re.compile(rf"({_SCHEME.pattern}):((?:/(?!/)|\?).*)?", re.DOTALL)  # aws:?region_name=eu-west-1
_HOST: Final = re.compile(r"[^\[\]]*|\[[^\[\]]*\](?::[^\[\]]*)?")
_NESTED = re.compile(rf"({_SCHEME.pattern})://(.*)", re.DOTALL)


class FieldAliases:
    """How a store's JSON objects name a connection's fields, and what happens to unknown fields.

    :param words: the words for each field. A field without any goes by its own name.
    :param more: further words for each field; ``user`` stands for ``login``.
    :param dropped: names of fields that are no part of a connection and are always dropped.
    :param unknown: what happens to other fields: ``drop``, move into ``extra``, or ``refuse``.
    """

    __slots__ = ("by_field", "dropped", "known", "unknown")

    def __init__(
        self,
        words: Mapping[str, Sequence[str]] = {},
        more: Mapping[str, Sequence[str]] = {},
        dropped: Sequence[str] = (),
        unknown: str = "refuse",
    ) -> None:
        more = {"login" if field == "user" else field: added for field, added in more.items()}
        self.by_field = {field: (*words.get(field, (field,)), *more.get(field, ())) for field in CONNECTION_FIELDS}
        # team_name: Airflow's server has such a field since 3.2. A secret's name says whose it is.
        self.dropped = frozenset(("team_name", *dropped))
        self.known = self.dropped.union(*self.by_field.values())
        self.unknown = unknown


def connection(stored: str, aliases: FieldAliases | None = None) -> str:
    """Check the text of a connection, and return the text that Airflow parses.

    :param stored: a connection as URI or JSON object.
    :param aliases: how the fields of a JSON object may be named; ``None`` for Airflow's own names only.
    :raises Unusable: naming what is wrong with it.
    """
    text = stored.strip()
    if not text:
        raise Unusable("it is blank")
    if not text.startswith("{"):
        fields_of_uri(text)
        return stored
    try:
        fields = _object(text)
        checked = _from_fields(fields, aliases or FieldAliases())
        if isinstance(checked, str):
            return checked
        return stored if checked == fields else json.dumps(checked)
    except RecursionError:
        unusable = Unusable("it is JSON nested too deeply")
    raise unusable


# JSON.


def _object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        # The decoding error holds the whole document, so it must not be chained.
        unusable = Unusable(f"it starts as JSON and is not valid JSON{json_place(error)}")
    else:
        assert isinstance(fields, dict)  # it starts with a brace
        return fields
    raise unusable


def _from_fields(fields: Mapping[str, Any], aliases: FieldAliases) -> dict[str, Any] | str:
    """Return the fields as Airflow's constructor accepts them, or the URI that replaces them."""
    renamed = _renamed(fields, aliases)
    # Airflow ignores an empty "uri".
    rest = {name: value for name, value in fields.items() if name not in aliases.known and (value or name != "uri")}
    given = next((field for field, value in renamed.items() if value and field != "description"), None)
    uri = rest.pop("uri").strip() if given is None and isinstance(rest.get("uri"), str) else ""
    if rest and aliases.unknown == "refuse":
        unknown = next(iter(rest))
        if unknown == "uri" and given:
            raise Unusable(f"its field 'uri' stands beside {given!r}: keep the URI or the fields")
        raise Unusable(f"unknown connection field {quoted(unknown, 48)}; known: {', '.join(CONNECTION_FIELDS)}")
    moved = rest if aliases.unknown == "extra" else {}
    if uri:
        from_uri = fields_of_uri(uri)
        if not moved and not renamed.get("description"):
            return str(uri)
        # Nothing else is given. A description of 0 counts as none, as it does when the URI is passed on alone.
        renamed = {**{field: value for field, value in renamed.items() if value}, **from_uri}
    if moved:
        renamed["extra"] = _with_rest(renamed.get("extra"), moved)
    return _checked(renamed)


def _renamed(fields: Mapping[str, Any], aliases: FieldAliases) -> dict[str, Any]:
    """Rename *fields* to the connection's: for each, the first of its words wins, in the secret's own order."""
    renamed: dict[str, Any] = {}
    for field, accepted in aliases.by_field.items():
        for word, value in fields.items():
            # A real conn_type beats the conn_id that may be an alias of it.
            if word in accepted and (field not in renamed or word == field == "conn_type"):
                renamed[field] = value
    return renamed


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* as Airflow's constructor accepts them; raise for what it would fail on."""
    checked = dict(fields)
    for name in TEXT_FIELDS:
        value = fields.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # A password of digits only. Airflow's server refuses to encrypt a number.
            checked[name] = str(value)
        elif not (value is None or isinstance(value, str)):
            if value:
                raise Unusable(f"its field {name!r} is not text")
            checked[name] = None
    if fields.get("port"):
        checked["port"] = _port(fields["port"])
    extra = fields.get("extra")
    if extra and not isinstance(extra, (str, dict)):
        raise Unusable("its field 'extra' is neither an object nor text")
    _see_that_airflow_takes(extra)
    return checked


def _see_that_airflow_takes(extra: str | dict[str, Any] | None) -> None:
    """Refuse an extra that is not a JSON object, where all of Airflow's parsers refuse it."""
    if not isinstance(extra, str) or not extra or _takes_any_extra():
        return
    try:
        taken = isinstance(json.loads(extra), dict)
    except (ValueError, RecursionError):
        taken = False
    if not taken:
        raise Unusable("its extra is not a JSON object, which Airflow 3.0 and 3.1 need")


def _takes_any_extra() -> bool:
    """Tell whether a parser of this process's Airflow accepts any extra: that of 2.11, and the Task SDK's from 3.2 on.

    In 3.0 and 3.1, tasks have the server's parser alone, which wants an object. Its error is only logged for debugging.
    """
    version = getattr(sys.modules.get("airflow"), "__version__", "")
    return not version.startswith(("3.0.", "3.1."))


def _port(value: Any) -> int:
    """Parse a port as Airflow does, by ``int()``, and refuse what that would truncate."""
    port = -1
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and len(value) <= _MAX_PORT_LENGTH):
        with contextlib.suppress(ValueError, OverflowError):
            port = int(value)
    if not 0 <= port <= _LAST_PORT or (is_number and port != value):
        raise Unusable("its port is not a number from 0 to 65535")
    return port


def _with_rest(extra: Any, rest: dict[str, Any]) -> Any:
    """Add *rest* to *extra*, whose own entries win."""
    parsed = extra
    if extra and isinstance(extra, str):
        try:
            parsed = json.loads(extra)
        except ValueError:
            parsed = None
    if extra and not isinstance(parsed, dict):
        raise Unusable(f"its field {quoted(next(iter(rest)), 48)} cannot move into 'extra', which is not an object")
    return {**rest, **(parsed or {})}


# URIs.


def fields_of_uri(uri: str) -> dict[str, Any]:
    """Parse a URI by its grammar, and check that Airflow reads the same.

    :return: the fields of the connection.
    :raises Unusable: naming what Airflow would refuse, mangle or lose.
    """
    if uri[0] in "\"'":
        raise Unusable("it is in quotation marks")
    conn_type, rest = _type_and_rest(uri)
    nested = _NESTED.fullmatch(rest)
    protocol, after = nested.groups() if nested else ("", rest)
    try:
        parts = urlsplit(f"//{after}")
        port = parts.port
        unquote(after, errors="strict")
    except UnicodeDecodeError:
        problem = "it has percent-encoded bytes that are not UTF-8"
    except ValueError:
        problem = "its host and port cannot be read: percent-encode the parts of the URI"
    else:
        problem = _loss(uri, protocol, parts)
    if problem:
        raise Unusable(problem)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    host = unquote(parts.hostname or "")
    if "/" in host:  # not a host, but for the hook to interpret: Airflow keeps its capital letters, too
        host = unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
    extra = query.get(EXTRA_KEY, query)
    _see_that_airflow_takes(extra)
    fields = {
        "conn_type": conn_type.lower(),
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": f"{protocol.lower()}://{host}" if protocol else host,
        "port": port,
        "schema": unquote(parts.path[1:]),
        "extra": extra,
    }
    return {name: value for name, value in fields.items() if value not in (None, "", {})}


def _type_and_rest(uri: str) -> tuple[str, str]:
    """Split *uri* into the connection's type, empty if there is none, and what follows its ``//``."""
    if uri.startswith("//"):  # as Airflow writes a connection without a type
        return "", uri[2:]
    if short := _NO_AUTHORITY.fullmatch(uri):
        rest = short[2] or ""
        if "@" in rest.partition("?")[0]:  # Airflow would read all of it as the schema, which it does not mask
            raise Unusable("it has an '@', but no '//' after its connection type")
        return short[1], rest
    conn_type, found, rest = uri.partition("://")
    if not found:
        raise Unusable("it is neither a JSON object nor a URI (conn-type://login:password@host:port/schema)")
    if not _SCHEME.fullmatch(conn_type):
        if _SCHEME.fullmatch(conn_type.replace("_", "-")):
            raise Unusable("its connection type has an underscore, which a URI cannot hold: write '-'")
        raise Unusable("it is a URI without a proper connection type before '://'")
    return conn_type, rest


def _loss(uri: str, protocol: str, meant: SplitResult) -> str:
    """Describe what Airflow loses of *uri*, as its grammar reads it, or return an empty string."""
    if any(dropped in uri for dropped in "\t\r\n"):  # urllib.parse.urlsplit removes them silently
        return "it has a tab or a line break, which Airflow drops: percent-encode it"
    if not _HOST.fullmatch(meant.netloc.rpartition("@")[2]):  # Python 3.10 accepts any brackets, and loses the host
        return "its host has brackets that enclose no address: percent-encode the parts of the URI"
    if protocol and not meant.hostname:
        return "it has a protocol and no host: percent-encode the parts of the URI"
    if _as_airflow_splits(uri) != (protocol.lower(), meant.netloc, meant.path, meant.query):
        return "it has a second '://' where Airflow misreads it: write '%3A%2F%2F' for it"
    if "#" in uri:
        return "it has a '#', and Airflow drops what follows: write '%23'"
    keys = [key for key, _ in parse_qsl(meant.query, keep_blank_values=True)]
    if len(keys) > 1 and EXTRA_KEY in keys:
        return f"it has parameters beside {EXTRA_KEY}, which Airflow drops"
    if len(keys) != len(set(keys)):
        return "it has a parameter twice, of which Airflow keeps the last"
    return ""


def _as_airflow_splits(uri: str) -> tuple[str, str, str, str] | None:
    """Return protocol, authority, path and query as all of Airflow's parsers see them, or ``None`` if they raise.

    They count every ``://`` in the text, including the query. If there are two, they take the first for the connection
    type's and the second for a protocol's, and remove each ``{conn-type}://``.
    """
    separators = uri.count("://")
    if separators > 2:  # noqa: PLR2004
        return None
    nested = separators == 2  # noqa: PLR2004
    try:
        rest = uri.replace(f"{urlsplit(uri).scheme}://", "" if nested else "//")
        before = rest.partition("://")[0]
        if nested and ("@" in before or ":" in before):
            return None
        parts = urlsplit(rest)
    except ValueError:
        return None
    protocol = parts.scheme if nested and parts.hostname else ""  # without a host it has no effect
    return (protocol, parts.netloc, parts.path, parts.query)
