"""Connection texts against Airflow's own parsers, whichever are installed.

What any of them reads without loss is handed on unchanged in meaning, and what all of them refuse, mangle or lose is
:class:`Unusable`. What a text means is told here by the grammar of RFC 3986, appendix B, and by the types of
a connection's fields, independently of the code under test.
"""

from __future__ import annotations

import functools
import json
import os
import re
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlencode

import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st

from airflow_providers_secrets.errors import Unusable
from airflow_providers_secrets.lookup.decoding import FieldAliases, connection
from airflow_providers_secrets.options import CONNECTION_FIELDS
from tests.support.airflow_process import VERSION

many = settings(
    max_examples=int(os.environ.get("SECRETS_TEST_EXAMPLES", "300")),
    # The same in every run, so that none fails by luck; whoever names a number searches anew.
    derandomize="SECRETS_TEST_EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Fields = dict[str, Any]
Lost = None
"""What a text means that no connection can hold whole."""


# What Airflow reads.


@functools.cache
def parsers() -> dict[str, Callable[[str], Any]]:
    import airflow.models.connection as server

    server.mask_secret = lambda *_: None  # it takes longer with each secret

    found: dict[str, Callable[[str], Any]] = {
        "server": lambda text: (
            server.Connection.from_json(text, conn_id="x")
            if text[0] == "{"
            else server.Connection(conn_id="x", uri=text)
        )
    }
    if VERSION < (3, 2):  # tasks, too, read what a backend returns by the server's
        return found
    from airflow.sdk import Connection

    found["task"] = lambda text: (
        Connection.from_json(text, conn_id="x") if text[0] == "{" else Connection.from_uri(text, conn_id="x")
    )
    return found


def read_by_airflow(text: str) -> dict[str, Fields]:
    """The fields that each parser reads, as far as it reads anything."""
    readings = {}
    for name, parse in parsers().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read = parse(text.strip())
                fields = {field: getattr(read, field) for field in CONNECTION_FIELDS}
            except Exception:  # whatever it is, Airflow swallows it
                continue
        readings[name] = fields
    return readings


def same(meant: Fields, read: Fields) -> bool:
    for field in CONNECTION_FIELDS:
        ours, theirs = meant.get(field), read.get(field)
        if isinstance(theirs, (int, float)) and not isinstance(theirs, bool) and field != "port":
            theirs = str(theirs)
        if field == "host":  # whose case does not count; Python lowers what precedes a percent sign
            ours, theirs = (host.lower() if isinstance(host, str) else host for host in (ours, theirs))
        if field == "extra":
            if not same_extra(ours, theirs):
                return False
        elif (ours or None) != (theirs or None) or isinstance(theirs, bool):
            return False
    return True


def same_extra(meant: Any, read: str | None) -> bool:
    if isinstance(meant, str) and read == meant:
        return True
    meant, read = parsed(meant), parsed(read)
    if not (isinstance(meant, dict) and isinstance(read, dict)):
        return (meant or None) == (read or None)
    # The server of Airflow 3.3 takes a query's values for JSON.
    return meant.keys() == read.keys() and all(
        read[key] == value or (isinstance(value, str) and read[key] == parsed(value)) for key, value in meant.items()
    )


def parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def check(text: str, meant: Fields | None, aliases: FieldAliases | None = None) -> None:
    readings = read_by_airflow(text)
    faithful = [name for name, read in readings.items() if meant is not Lost and same(meant, read)]
    try:
        handed_on = connection(text, aliases)
    except Unusable as unusable:
        event(f"refused: {re.sub(chr(39) + '.*' + chr(39), '…', str(unusable))}")
        assert not faithful, f"{text!r} is refused ({unusable}), and {faithful} reads it as {readings}"
        return
    event("handed on")
    readings = read_by_airflow(handed_on)
    assert meant is not Lost, f"{text!r} is handed on as {handed_on!r}, read as {readings}"
    assert any(same(meant, read) for read in readings.values()), f"{text!r} means {meant}: {handed_on!r}, {readings}"
    for name in faithful:
        assert same(meant, readings[name]), f"{text!r} is no longer read by {name}: {handed_on!r}"


# URIs.


def meaning_of_uri(uri: str) -> Fields | None:
    """What *uri* says by its grammar."""
    uri = re.sub(r"[\t\r\n]", "", uri.strip())  # as the WHATWG's URL standard and Python have it
    found = re.fullmatch(
        r"(?:([A-Za-z][A-Za-z0-9+.-]*):|(?=//))(?://(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/?#]*))?(/[^?#]*)?(?:\?([^#]*))?",
        uri,
    )
    if not found or (not found[1] and "://" in uri):  # without a type, Airflow drops the colon
        return Lost
    if found[3] is None and "@" in (found[4] or ""):  # a password, which Airflow would not mask in a schema
        return Lost
    conn_type, protocol, authority, path, query = (part or "" for part in found.groups())
    userinfo, _, location = authority.rpartition("@")
    login, _, password = userinfo.partition(":")
    located = re.fullmatch(r"(\[[0-9A-Fa-f:.%a-z]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?", location)
    if not located or int(located[2] or 0) > 65535:
        return Lost
    try:
        host = unquote(located[1].strip("[]"), errors="strict")
        login, password, schema = (unquote(part, errors="strict") for part in (login, password, path[1:]))
        pairs = [part.partition("=")[::2] for part in query.split("&") if part]
        pairs = [(unquote_plus(key, errors="strict"), unquote_plus(value, errors="strict")) for key, value in pairs]
    except UnicodeDecodeError:
        return Lost
    extra: Any = dict(pairs)
    if len(extra) < len(pairs) or ("__extra__" in extra and len(extra) > 1) or (protocol and not host):
        return Lost
    conn_type = conn_type.lower().replace("-", "_")
    return {
        "conn_type": "postgres" if conn_type == "postgresql" else conn_type,
        "login": login,
        "password": password,
        "host": f"{protocol.lower()}://{host}" if protocol else host,
        "port": int(located[2] or 0),
        "schema": schema,
        "extra": extra.get("__extra__", extra),
    }


words = st.text("abZ09é日-_. :/@?#%&=+[]{}\"'", max_size=8) | st.sampled_from(
    ["http://minio:9000", "https://s3.example.com", "arn:aws:iam::123456789012:role/x", "5", "true", "null", '{"a": 1}']
)
types = st.sampled_from(
    ["aws", "http", "https", "postgres", "postgresql", "spark", "google-cloud-platform", "HTTP", "s"]
)
ports = st.none() | st.integers(0, 70000)


@st.composite
def written_uris(draw: st.DrawFn) -> str:
    """A URI as people write it: each part percent-encoded whole, in part, or not at all."""
    safe = st.sampled_from(["", ":/", ":/?#[]@!$&'()*+,;=%"])
    part = st.builds(lambda text, safe: quote(text, safe=safe), words, safe)
    uri = draw(types.map(lambda conn_type: conn_type + ":") | st.just("")) + "//"
    uri += draw(st.just("") | types.map(lambda protocol: protocol + "://"))
    if draw(st.booleans()):
        uri += draw(part) + draw(st.just("") | part.map(lambda password: ":" + password)) + "@"
    uri += draw(st.just("") | st.sampled_from(["h", "DB.example.com", "[::1]", "10.0.0.1"]) | part)
    port = draw(ports)
    uri += "" if port is None else f":{port}"
    uri += draw(st.just("") | st.just("/") | part.map(lambda schema: "/" + schema))
    if draw(st.booleans()):
        pairs = draw(st.lists(st.tuples(st.sampled_from(["a", "b", "endpoint_url", "__extra__"]), words), max_size=3))
        uri += "?" + urlencode(pairs, safe=draw(safe))
    return uri


pieces = st.lists(
    st.sampled_from(
        ["http", "spark", "aws", "://", "://", ":", "/", "?", "#", "@", "&", "=", "a", "h", "%40", "%2F", "%ff", "%", "80",
         "99999", "[", "]", "::1", "é", " ", "_", "__extra__", "{}", "+", "\n", "'", "\u2100"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@many
@given(written_uris())
@example("aws:///?endpoint_url=http://minio:9000&region_name=us-east-1")
@example("aws://?endpoint_url=https://s3.example.com&role_arn=arn:aws:iam::123456789012:role/x")
@example("spark://spark://spark-master:7077")
@example("spark://spark%3A%2F%2Fspark-master:7077")
@example("http://http://api.example.com")
@example("http://https://u:p@api.example.com:8443/x?a=b")
@example("http://https:///x")
@example("aws://key:secret@/?endpoint_url=http://minio:9000")
@example("http://h/?next=http://x")
@example("postgres://u:p@h:" + "9" * 5000)
@example("postgres://u:12#ss@h/db")
@example("x://h?a=1&a=2")
@example("x://h?a=1&__extra__=%7B%7D")
@example("x://u:%ff@h")
@example("//u:p@h:5432/db?a=b")
@example("///db")
@example("//h?a=http://x")
@example("//http://h")
@example("aws:")
@example("aws:?region_name=eu-west-1")
@example("aws:?endpoint_url=http://minio:9000")
@example("fs:/tmp/x?a=b")
@example("fs:tmp")
@example("postgres:/u:p@h/db")
def test_uri(uri: str) -> None:
    check(uri, meaning_of_uri(uri))


@many
@given(st.builds("{}://{}".format, types, pieces) | pieces)
@example("aws://http\n://http")
def test_text_of_pieces(text: str) -> None:
    assume(not text.lstrip().startswith("{"))
    meant = meaning_of_uri(text)
    try:
        handed_on = connection(text)
    except Unusable:
        # The grammar is wider here than what a host may be, so that Airflow alone says what it reads. A line broken in
        # the middle, which urlsplit() joins again, may be refused all the same.
        broken = re.search(r"[\t\r\n]", text.strip())
        assert broken or meant is Lost or not any(same(meant, read) for read in read_by_airflow(text).values())
        return
    assert handed_on == text
    check(text, meant)


# JSON.


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
numbers = st.integers(-5, 70000) | st.sampled_from([5432.0, 5432.5, 0.0])
odd = st.none() | st.booleans() | st.sampled_from([[], {}, [1], {"a": 1}, "", 0])
values = {
    **dict.fromkeys(("description", "login", "password", "host", "schema"), texts | numbers | odd),
    "conn_type": types | odd | numbers,
    "port": ports | numbers | odd | st.sampled_from(["5432", " 5432 ", "5432.0", "x", "9" * 5000, "5_432", "-1", "+1"]),
    "extra": st.dictionaries(texts, texts | numbers | odd, max_size=3) | texts | odd | st.just('{"a": "b"}'),
    "uri": written_uris() | odd,
    "team_name": texts | st.none(),
    "environment": texts | odd,
}
objects = st.fixed_dictionaries({}, optional=values)


def meaning_of_object(fields: Fields) -> Fields | None:  # noqa: C901  # one rule for each field
    """What *fields* say of a connection, where each has the type that Airflow declares for it."""
    if "environment" in fields:
        return Lost
    meant: Fields = {}
    for field in ("conn_type", "description", "login", "password", "host", "schema"):
        value = fields.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if value and not isinstance(value, str):
            return Lost
        meant[field] = value or None
    port = fields.get("port")
    if port:
        try:
            meant["port"] = int(port)
        except (ValueError, TypeError):
            return Lost
        if isinstance(port, bool) or not 0 <= meant["port"] <= 65535:
            return Lost
        if isinstance(port, float) and port != meant["port"]:
            return Lost
    extra = fields.get("extra")
    if extra and not isinstance(extra, (str, dict)):
        return Lost
    meant["extra"] = extra or None
    uri = fields.get("uri")
    if uri:
        from_uri = meaning_of_uri(uri) if isinstance(uri, str) else Lost
        others = any(fields.get(field) for field in CONNECTION_FIELDS if field != "description")  # 0 is none here
        if from_uri is Lost or others:
            return Lost
        return {**from_uri, "description": meant["description"] if fields.get("description") else None}
    if meant["conn_type"]:
        normal = meant["conn_type"].replace("-", "_")
        meant["conn_type"] = "postgres" if normal == "postgresql" else normal
    return meant


@many
@given(objects)
@example({"conn_type": "postgres", "host": "h", "port": 5432.0})
@example({"conn_type": "http", "host": "h", "extra": False})
@example({"uri": "postgres://u:p@h:5432/db"})
@example({"uri": "postgres://u:p@h:5432/db", "description": "why"})
@example({"uri": "postgres://u:p@h:5432/db", "host": "h"})
@example({"conn_type": "x", "uri": None, "team_name": "red"})
@example({"conn_type": "x", "port": "9" * 5000})
@example({"conn_type": "x", "host": False})
def test_json(fields: Fields) -> None:
    check(json.dumps(fields), meaning_of_object(fields))


@many
@given(objects, st.sampled_from(["drop", "extra"]))
@example({"uri": "aws://", "description": 0.0, "environment": None}, "extra")
def test_json_with_unknown_fields(fields: Fields, unknown: str) -> None:
    rest = {name: value for name, value in fields.items() if name == "environment"}
    known = {name: value for name, value in fields.items() if name not in rest}
    others = [known.get(field) for field in CONNECTION_FIELDS if field != "description"]
    if known.get("uri") and (any(others) or not isinstance(known["uri"], str)):
        rest["uri"] = known.pop("uri")  # which is then a field like any other that Airflow has not
    meant = meaning_of_object(known)
    faithful = meant is not Lost and any(same(meant, read) for read in read_by_airflow(json.dumps(known)).values())
    if unknown == "extra" and rest and meant is not Lost:
        extra = parsed(meant.get("extra") or {})
        meant = {**meant, "extra": {**rest, **extra}} if isinstance(extra, dict) else Lost
    try:
        handed_on = connection(json.dumps(fields), FieldAliases(unknown=unknown))
    except Unusable:
        assert meant is Lost or not faithful
        return
    assert meant is not Lost
    assert any(same(meant, read) for read in read_by_airflow(handed_on).values()), handed_on


@many
@given(
    st.text(max_size=40)
    | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
    | st.text('{}[]":,\\ a1.e-n', max_size=40)
)
def test_nothing_but_unusable_leaves(text: str) -> None:
    for tried in (text, "{" + text, "x://" + text):
        try:
            assert isinstance(connection(tried), str)
        except Unusable as unusable:
            assert unusable.__context__ is None or isinstance(unusable.__context__, Unusable)


@pytest.mark.parametrize("parser", ["server", "task"])
def test_a_parser_is_installed(parser: str) -> None:
    if parser == "task" and VERSION < (3, 2):
        pytest.skip("tasks have no parser of their own")
    assert read_by_airflow("postgres://u:p@h:5432/db?a=b")[parser] == {
        "conn_type": "postgres",
        "description": None,
        "login": "u",
        "password": "p",
        "host": "h",
        "port": 5432,
        "schema": "db",
        "extra": '{"a": "b"}',
    }
