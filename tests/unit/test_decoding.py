"""What a connection's text becomes, and what is named; against Airflow's own parsers: test_connection_property.py."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from airflow_providers_secrets.errors import Unusable
from airflow_providers_secrets.lookup.decoding import FieldAliases, connection
from tests.support.airflow_process import VERSION


@pytest.mark.parametrize(
    "text",
    [
        "aws:///?endpoint_url=http://minio:9000&region_name=us-east-1",
        "aws://?endpoint_url=https://s3.example.com&role_arn=arn:aws:iam::123456789012:role/x",
        "spark://spark%3A%2F%2Fspark-master:7077",
        "http://https://u:p@api.example.com:8443/x?a=b",
        "postgres://u:p@ss@h/db",
        " postgres://h \n",
        "//u:p@h:5432/db?a=b",  # what Airflow's get_uri() gives for a connection without a type
        "aws:?region_name=eu-west-1",
        "fs:/tmp",
        '{"conn_type": "postgres", "host": "h", "port": 5432.0}',
        '{"conn_type": "http", "host": "h", "extra": false}',
    ],
)
def test_what_airflow_reads_is_handed_on_as_typed(text: str) -> None:
    assert connection(text) == text


@pytest.mark.parametrize(
    "text",
    [
        '{"conn_type": "http", "extra": "S3cr3t"}',
        '{"conn_type": "http", "extra": "[5]"}',
        '{"uri": "http://h?__extra__=S3cr3t"}',
        "http://h?__extra__=5",
        "http://h?__extra__=" + "[" * 100_000,
    ],
)
def test_an_extra_that_is_no_object_is_refused_where_airflow_refuses_it(text: str) -> None:
    """Airflow 2 accepts it, and so do tasks from Airflow 3.2 on; in 3.0 and 3.1 they have the server's parser alone."""
    if (3, 0) <= VERSION < (3, 2):
        with pytest.raises(Unusable, match="its extra is not a JSON object") as raised:
            connection(text)
        assert "S3cr3t" not in str(raised.value)
        assert raised.value.__context__ is None
    else:
        assert connection(text) in (text, "http://h?__extra__=S3cr3t")


@pytest.mark.parametrize(
    "text", ['{"conn_type": "http", "extra": "{\\"a\\": 1}"}', "http://h?__extra__=%7B%22a%22%3A+1%7D", "http://h?a=5"]
)
def test_an_extra_that_is_an_object_is_handed_on(text: str) -> None:
    assert connection(text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("spark://spark://spark-master:7077", "second '://'"),
        ("http://http://api.example.com", "second '://'"),
        ("aws://key:S3cr3t@/?endpoint_url=http://minio:9000", "second '://'"),
        ("aws://h/?a=http://S3cr3t&b=http://x", "second '://'"),
        ("http://https:///S3cr3t", "no host"),
        ("postgres:/u:S3cr3t@h:5432/db", "no '//'"),
        ("postgres://u:12#S3cr3t@h/db", "'#'"),
        ("x://h?a=S3cr3t&a=2", "twice"),
        ("x://h?__extra__=%7B%7D&S3cr3t=1", "beside __extra__"),
        ("x://u:S3cr3t%ff@h", "not UTF-8"),
        ("postgres://u:S3cr3t@h:" + "9" * 5000, "percent-encode"),
        ('{"conn_type": "x", "port": "' + "9" * 5000 + '"}', "its port"),
        ('{"conn_type": "x", "port": ' + "9" * 5000 + "}", "not valid JSON|its port"),
        ('{"conn_type": "x", "port": 1e999}', "its port"),
        ('{"conn_type": "x", "port": 5432.5}', "its port"),
        ('{"conn_type": "x", "port": true}', "its port"),
        ('{"uri": "postgres://h", "login": "S3cr3t"}', "'uri' stands beside 'login'"),
        ('{"uri": "spark://spark://S3cr3t"}', "second '://'"),
        ('{"uri": 5}', "unknown connection field 'uri'"),
        ('{"conn_type": "x", "environment": "S3cr3t"}', "unknown connection field 'environment'"),
    ],
)
def test_what_airflow_would_lose_is_named_without_a_value(text: str, problem: str) -> None:
    with pytest.raises(Unusable, match=problem) as raised:
        connection(text)
    assert "S3cr3t" not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("at", ["extra", "environment"])
@pytest.mark.parametrize("unknown", ["refuse", "drop", "extra"])
def test_deep_json_near_the_recursion_limit_is_unusable_at_most(at: str, unknown: str) -> None:
    text = '{"conn_type": 5, "%s": %s1%s}' % (at, '{"a":' * 900, "}" * 900)  # noqa: UP031  # braces

    def deeper(frames: int) -> str:
        return deeper(frames - 1) if frames else connection(text, FieldAliases(unknown=unknown))

    outcomes = set()
    for frames in range(0, sys.getrecursionlimit() - 60, 20):
        try:
            outcomes.add(type(deeper(frames)))
        except Unusable as unusable:
            assert unusable.__context__ is None
            outcomes.add(Unusable)
        except RecursionError:  # before connection() was reached: pytest itself stands on the stack
            assert frames > sys.getrecursionlimit() - 250
    # How deep is too deep is the interpreter's: from 3.12 on it is not that of Python's own frames.
    assert outcomes <= {str, Unusable}
    assert Unusable in outcomes or sys.version_info >= (3, 12)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ({"uri": "postgres://u:p@h:5432/db"}, "postgres://u:p@h:5432/db"),
        ({"uri": " postgres://h ", "host": None, "extra": {}}, "postgres://h"),
        (
            {"uri": "my-type://u:p%40@H:1/d?a=b", "description": "why"},
            {"conn_type": "my-type", "login": "u", "password": "p@", "host": "h", "port": 1, "schema": "d",
             "extra": {"a": "b"}, "description": "why"},
        ),
        ({"conn_type": "x", "password": 1234}, {"conn_type": "x", "password": "1234"}),
        ({"conn_type": "x", "host": False}, {"conn_type": "x", "host": None}),
        ({"conn_type": "x", "port": "5432"}, {"conn_type": "x", "port": 5432}),
        ({"conn_type": "x", "team_name": "red", "uri": None}, {"conn_type": "x"}),
    ],
)  # fmt: skip
def test_what_becomes_of_fields(stored: dict[str, Any], given: Any) -> None:
    text = connection(json.dumps(stored))
    assert (text if isinstance(given, str) else json.loads(text)) == given


@pytest.mark.parametrize(
    ("unknown", "stored", "given"),
    [
        ("drop", {"host": "h", "environment": "prod"}, {"host": "h"}),
        ("drop", {"host": "h", "uri": "x://y"}, {"host": "h"}),
        ("extra", {"host": "h", "environment": "prod"}, {"host": "h", "extra": {"environment": "prod"}}),
        ("extra", {"a": 1, "extra": {"a": 2, "b": 3}}, {"extra": {"a": 2, "b": 3}}),
        ("extra", {"a": 1, "extra": '{"b": 3}'}, {"extra": {"a": 1, "b": 3}}),
        ("extra", {"a": 1, "uri": "x://h?b=3"}, {"conn_type": "x", "host": "h", "extra": {"a": 1, "b": "3"}}),
    ],
)
def test_unknown_fields(unknown: str, stored: dict[str, Any], given: dict[str, Any]) -> None:
    assert json.loads(connection(json.dumps(stored), FieldAliases(unknown=unknown))) == given


def test_unknown_field_beside_an_extra_that_is_not_an_object_is_named() -> None:
    with pytest.raises(Unusable, match="'a' cannot move into 'extra'"):
        connection('{"a": 1, "extra": "no JSON"}', FieldAliases(unknown="extra"))


@pytest.mark.parametrize("unknown", ["refuse", "drop", "extra"])
def test_words_and_what_a_store_writes_for_itself(unknown: str) -> None:
    aliases = FieldAliases({"login": ("login", "username")}, {"user": ["benutzer"]}, ("masterarn",), unknown)
    text = connection('{"benutzer": "u", "username": "second", "host": "h", "masterarn": "arn"}', aliases)
    assert json.loads(text) == {"login": "u", "host": "h"}
