"""Real Airflow, with a decoy in the environment for every id: a store that gives no answer must not let it step in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_providers_secrets.backends.mixin import airflow_knows_denials
from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs import Rig
from tests.support.airflow_process import Airflow

JSON = {"Content-Type": "application/json"}
ANSWERS = {
    "forbidden": Reply(403, b"{}", JSON),
    "page": Reply(404, b"<html></html>", {"Content-Type": "text/html"}),
    "broken": Reply(500, b"{}", JSON),
    "malformed": Reply(200, b'{"a": ', JSON),
    "nested": Reply(200, b'{"data":' * 900 + b"1" + b"}" * 900, JSON),
    "undecodable": Reply(200, b'{"value": "\xff"}', JSON),
    "empty": Reply(200, b"", JSON),
    "redirected": Reply(307, headers={"Location": "http://localhost:9/v1/x"}),
    "reset": Reply(reset=True),
}
UNUSABLE = {
    "port": "postgres://u:p@h:" + "9" * 5000,
    "list": '["http://h"]',
    "fields": '{"conn_type": "x", "port": "p"}',
}
"""Connections that are in the store, and that nobody can use."""

CODE = """
import airflow.settings
from airflow.models import Variable
from airflow.models.connection import Connection
from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied
def ended(look_up):
    try:
        return "ANSWERED" if "decoy" in str(look_up()) else "OTHER"
    except AirflowSecretsBackendAccessDenied:
        return "refused"
    except Exception as error:
        return type(error).__name__
for name in {names!r}:
    print("VARIABLE", name, ended(lambda: Variable.get("d-" + name)))
for name in {names!r} + {unusable!r}:
    print("CONNECTION", name, ended(lambda: Connection.get_connection_from_secrets("d-" + name).host))
"""

pytestmark = [
    pytest.mark.skipif(not airflow_knows_denials(), reason="needs Airflow 3.2.2"),
    pytest.mark.each_rig_in_ci,
]


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    airflow = Airflow(tmp_path)
    for name in (*ANSWERS, *UNUSABLE):
        key = f"D-{name}".upper()
        airflow.environment[f"AIRFLOW_VAR_{key}"] = "decoy"
        airflow.environment[f"AIRFLOW_CONN_{key}"] = "http://decoy"
    return airflow


def ended(rig: Rig, airflow: Airflow, policy: str) -> list[str]:
    """How each lookup ended."""
    for name, text in UNUSABLE.items():
        rig.put(rig.path("connections", f"d-{name}"), text)
    policies = dict.fromkeys(("on_denied", "on_unavailable", "on_invalid", "on_revoked"), policy)
    airflow.environment["AIRFLOW__SECRETS__BACKEND"] = rig.class_path
    airflow.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = json.dumps(
        {**rig.options(), **policies, "max_attempts": 1, "cache_ttl": 0}
    )

    def answer(request: Request) -> Reply | None:
        asked = request.path + request.body.decode(errors="replace")
        return next((reply for name, reply in ANSWERS.items() if f"d-{name}" in asked), None)

    with rig.answering(answer):
        run = airflow.python(CODE.format(names=list(ANSWERS), unusable=list(UNUSABLE)))
    assert run.code == 0, run.everything
    return run.printed("VARIABLE") + run.printed("CONNECTION")


def test_no_decoy_answers(rig: Rig, airflow: Airflow, tally: dict[str, int]) -> None:
    found = ended(rig, airflow, "fail")
    assert len(found) == 2 * len(ANSWERS) + len(UNUSABLE)
    assert [one for one in found if not one.endswith(" refused")] == []
    tally["decoys in real Airflow"] = len(found)


def test_decoys_are_there(rig: Rig, airflow: Airflow) -> None:
    """The control: where the options say so, each does answer."""
    assert [one for one in ended(rig, airflow, "next") if not one.endswith(" ANSWERED")] == []
