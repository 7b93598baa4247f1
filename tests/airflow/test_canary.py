"""No value from a store reaches Airflow's output or logs by a lookup that fails, at DEBUG and for every cause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs.aws import AwsRig, aws_error
from tests.support.airflow_process import Airflow

CANARY = "S3cr3t"

MALFORMED = {
    "blank": "   ",
    "no_uri": f"{CANARY}-only",
    "quoted": f'"postgres://u:{CANARY}@h"',
    "slash": f"postgres://u:{CANARY}/x@h",
    "bad_port": f"postgres://u:p@h:{CANARY}/x",
    "underscore": f"my_type://u:{CANARY}@h",
    "bad_json": f'{{"conn_type": "x", "password": "{CANARY}"',
    "json_port": f'{{"conn_type": "x", "password": "{CANARY}", "port": "{CANARY}"}}',
    "json_list": f'{{"conn_type": "x", "password": ["{CANARY}"]}}',
    "json_extra": f'{{"conn_type": "x", "password": "{CANARY}", "extra": 5}}',
}
"""Connections as they must not be stored."""

ANSWERED = ("denied", "throttled", "server_error", "page", "not_json", "truncated", "wrong_name", "reset")
"""Ids for which the proxy answers instead of the store."""

LOOK_UP = f"""
import logging
failures = []
for secret_id in {[*MALFORMED, *ANSWERED]!r}:
    for look_up in (BaseHook.get_connection, Variable.get):
        try:
            look_up(secret_id)
        except Exception as error:
            logging.getLogger("airflow.task").exception("lookup failed")
            failures.append(type(error).__name__)
print("FAILURES", len(failures))
raise RuntimeError("so that the task fails too")
"""


@pytest.fixture
def failing(aws: AwsRig) -> AwsRig:
    for conn_id, text in MALFORMED.items():
        aws.put(aws.path("connections", conn_id), text)
    return aws


def reply(aws: AwsRig, request: Request) -> Reply | None:
    """Answer as the id says."""
    name = json.loads(request.body)[aws.name_field]
    secret_id = name.rpartition("/")[2]
    kind = {"Content-Type": "application/x-amz-json-1.1"}

    def found(name: str) -> bytes:
        return json.dumps(aws.answer(name, f"{CANARY}-value")).encode()

    replies = {
        "denied": aws_error("AccessDeniedException"),
        "throttled": aws_error("ThrottlingException"),
        "server_error": aws_error("InternalServerError", 500),
        "page": Reply(404, f"<html>{CANARY}</html>".encode(), {"Content-Type": "text/html"}),
        "not_json": Reply(200, f'{{"{CANARY}": '.encode(), kind),
        "truncated": Reply(200, found(name), kind, truncate=True),
        "wrong_name": Reply(200, found("another/name"), kind),
        "reset": Reply(reset=True),
    }
    return replies.get(secret_id)


@pytest.mark.long
def test_failed_lookups_leave_no_value(airflow: Airflow, failing: AwsRig, database: Path) -> None:
    airflow.use_database(database)
    airflow.use(failing, {"max_attempts": 1, "cache_ttl": 0}, AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG")
    airflow.dag("canary", LOOK_UP)
    with failing.proxy.fault(lambda request: reply(failing, request)), failing.counted() as calls:
        run = airflow.run("dags", "test", "canary")
    # The malformed ones have no variable, the answered ones neither: every lookup fails.
    assert run.printed("FAILURES") == [str(2 * len([*MALFORMED, *ANSWERED]))], run.everything
    assert {failing.path("connections", secret_id) for secret_id in (*MALFORMED, *ANSWERED)} <= set(calls)
    assert "DEBUG" in run.everything.upper()
    # The cause is named, in our WARNING.
    assert "lookup failed: " in run.everything
    written = {str(path): path.read_text(errors="replace") for path in airflow.home.glob("logs/**/*") if path.is_file()}
    for where, text in {"the output": run.output, "the errors": run.errors, **written}.items():
        assert CANARY not in text, (where, [line for line in text.splitlines() if CANARY in line])
        assert failing.client._request_signer._credentials.secret_key not in text, where
