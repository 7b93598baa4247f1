"""The fields of a connection, read as Airflow reads them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_providers_secrets.errors import Unusable
from airflow_providers_secrets.lookup.connection_text import fields_of
from tests.support.airflow_process import VERSION

POSTGRES = {"conn_type": "postgres", "host": "h", "port": 5432}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("postgres://h:5432 ", POSTGRES),
        ("\n postgres://h:5432\n", POSTGRES),
        (' {"conn_type": "postgres", "host": "h", "port": "5432"}\n', POSTGRES),
        ("postgres://h/s ", {"conn_type": "postgres", "host": "h", "schema": "s"}),
        ("http://HTTPS://Api/x", {"conn_type": "http", "host": "https://api", "schema": "x"}),
        ("x://h:0", {"conn_type": "x", "host": "h", "port": 0}),
        ("x://h?a=1&b=text", {"conn_type": "x", "host": "h", "extra": {"a": "1", "b": "text"}}),
        ("x://h?a=12e5&b=10&c=true", {"conn_type": "x", "host": "h", "extra": {"a": "12e5", "b": "10", "c": "true"}}),
        ("x://h?__extra__=%7B%22a%22%3A1%7D", {"conn_type": "x", "host": "h", "extra": {"a": 1}}),
        pytest.param(
            "x://h?__extra__=text",
            {"conn_type": "x", "host": "h", "extra": "text"},
            marks=pytest.mark.skipif((3, 0) <= VERSION < (3, 2), reason="Airflow refuses it"),
        ),
    ],
)
def test_fields_are_what_airflow_reads(text: str, fields: dict[str, Any]) -> None:
    assert fields_of(text) == fields


@pytest.mark.parametrize("dropped", ["\t", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("where", ["postgres://u:pass{}word@h/db", "postgres://u:p@h/d{}b", "postgres://h?a=x{}y"])
def test_what_airflow_would_drop_from_the_midst_of_a_uri_is_named(where: str, dropped: str) -> None:
    """urllib.parse.urlsplit takes tabs and line breaks out: a password would be another one."""
    with pytest.raises(Unusable, match="a tab or a line break, which Airflow drops"):
        fields_of(where.format(dropped))
    assert fields_of(f"{where.format('')}{dropped}")["host"] == "h"
