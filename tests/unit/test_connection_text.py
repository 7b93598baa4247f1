"""The fields of a connection, read as Airflow reads them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_providers_secrets.lookup.connection_text import fields_of

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
        ("x://h?a=1&b=text", {"conn_type": "x", "host": "h", "extra": {"a": 1, "b": "text"}}),
        ("x://h?__extra__=%7B%22a%22%3A1%7D", {"conn_type": "x", "host": "h", "extra": {"a": 1}}),
        ("x://h?__extra__=text", {"conn_type": "x", "host": "h", "extra": "text"}),
    ],
)
def test_fields_are_what_airflow_reads(text: str, fields: dict[str, Any]) -> None:
    assert fields_of(text) == fields
