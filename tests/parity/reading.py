"""What Airflow makes of a connection's text."""

from __future__ import annotations

from typing import Any

from airflow.models import Connection

FIELDS = ("conn_type", "host", "login", "password", "schema", "port", "extra_dejson", "description")


def read(text: str) -> dict[str, Any]:
    """Return the fields that Airflow's server reads in *text*, or raise what it does."""
    if text.startswith("{"):
        connection = Connection.from_json(text, conn_id="parity")  # noqa: AIR311  # the server's, on both lines
    else:
        connection = Connection(conn_id="parity", uri=text)  # noqa: AIR311
    return {name: getattr(connection, name) or None for name in FIELDS}
