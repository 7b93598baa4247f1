"""What a backend gives and asks for, and what Airflow makes of a connection's text."""

from __future__ import annotations

from typing import Any

from airflow.models import Connection

from tests.rigs import Rig

STORED = [
    "postgres://u:p@h:5432/db",
    "aws:///?endpoint_url=http://minio:9000&region_name=us-east-1",
    '{"conn_type": "postgres", "host": "h", "port": 5432.0}',
    '{"conn_type": "http", "host": "h", "extra": false}',
    '{"uri": "postgres://u:p@h:5432/db"}',
]
"""Texts of which both make the same connection."""

LISTED = ["spark://spark://spark-master:7077", '{"conn_type": "x", "hots": "h"}', '{"conn_type": "x", "port": "none"}']
"""Texts that ours refuses, as docs/differences.md lists."""

FIELDS = ("conn_type", "host", "login", "password", "schema", "port", "extra_dejson", "description")


def read(text: str) -> dict[str, Any]:
    """Return the fields that Airflow's server reads in *text*, or raise what it does."""
    if text.startswith("{"):
        connection = Connection.from_json(text, conn_id="parity")  # noqa: AIR311  # the server's, on both lines
    else:
        connection = Connection(conn_id="parity", uri=text)  # noqa: AIR311
    return {name: getattr(connection, name) or None for name in FIELDS}


def observed(rig: Rig, backend: Any, method: str, *args: Any, **kwargs: Any) -> tuple[Any, list[str]]:
    """Return what *method* gives, and the names that it asks the store for."""
    with rig.counted() as calls:
        answer = getattr(backend, method)(*args, **kwargs)
    return answer, calls
