"""Google Secret Manager's part of a published guide, followed to the letter with only the class path changed.

Google is played at its real names, behind HTTPS proxies that the environment names, and the metadata server where
the environment says: https://www.astronomer.io/docs/learn/secrets-management. The transport is the one addition, for gRPC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs.google import (
    PROJECT,
    Accounts,
    GoogleGrpcRig,
    GoogleRestRig,
    google_error,
    is_page,
    service_account_key,
)
from tests.rigs.identities import Internet
from tests.support.airflow_process import Airflow
from tests.support.authority import Authority

PREFIXES = {"connections_prefix": "airflow-connections", "variables_prefix": "airflow-variables"}
HOST = "secretmanager.googleapis.com"


@pytest.fixture
def accounts(google: GoogleRestRig, tmp_path: Path) -> Iterator[Accounts]:
    accounts = Accounts(google.server, tmp_path)
    yield accounts
    accounts.stop()


@pytest.fixture
def in_google(airflow: Airflow, google: GoogleRestRig, accounts: Accounts, tmp_path: Path) -> Iterator[Airflow]:
    """An Airflow that is told of the backend by environment variables alone."""
    for memory in (google.server.requests, google.server.tokens, google.server.secrets):
        memory.clear()
    authority = Authority(tmp_path)
    bundle = str(authority.bundle)
    port = google.wire.port if isinstance(google, GoogleGrpcRig) else accounts.port
    internet = Internet(port, authority.issue(HOST))
    if isinstance(google, GoogleGrpcRig):
        internet.tls.set_alpn_protocols(["h2"])
        airflow.environment.update(grpc_proxy=internet.url, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=bundle)
    else:
        airflow.environment.update(HTTPS_PROXY=internet.url, REQUESTS_CA_BUNDLE=bundle)
    airflow.environment["AIRFLOW__SECRETS__BACKEND"] = google.class_path
    use(airflow, google, gcp_keyfile_dict=json.dumps(service_account_key()))
    yield airflow
    internet.stop()


def use(airflow: Airflow, google: GoogleRestRig, **options: Any) -> None:
    """Configure the guide's prefixes and *options*."""
    transport = {"transport": "grpc"} if isinstance(google, GoogleGrpcRig) else {}
    airflow.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = json.dumps({**PREFIXES, **options, **transport})


DAG = """
print("VARIABLE", Variable.get("my_variable"))
c = BaseHook.get_connection("my_connection")
print("CONNECTION", (c.conn_type, c.login, len(c.password), c.host, c.port, c.schema, c.extra_dejson))
"""


def look_up_in_a_dag(airflow: Airflow, google: GoogleRestRig, database: Path) -> None:
    google.put("airflow-variables-my_variable", "astronomer")
    google.put("airflow-connections-my_connection", "postgres://u:p%40ss@h:5432/db?sslmode=require")
    airflow.use_database(database)
    airflow.dag("s3", DAG)
    run = airflow.run("dags", "test", "s3")
    assert run.printed("VARIABLE") == ["astronomer"], run.everything
    assert run.printed("CONNECTION") == [repr(("postgres", "u", 4, "h", 5432, "db", {"sslmode": "require"}))]


@pytest.mark.long
def test_s3_astronomer_by_a_key(in_google: Airflow, google: GoogleRestRig, accounts: Accounts, database: Path) -> None:
    look_up_in_a_dag(in_google, google, database)
    # The key signs for itself.
    assert {request.headers["Host"] for request in accounts.requests} <= {HOST}


@pytest.mark.long
def test_s3_astronomer_by_a_key_as_an_object(in_google: Airflow, google: GoogleRestRig) -> None:
    google.put("airflow-variables-key", "astronomer")
    use(in_google, google, gcp_keyfile_dict=service_account_key())
    assert in_google.run("variables", "get", "key").last_line == "astronomer"
    assert google.calls == ["airflow-variables-key"]


@pytest.mark.long
def test_s3_astronomer_by_workload_identity(
    in_google: Airflow, google: GoogleRestRig, accounts: Accounts, database: Path
) -> None:
    """No key: the cluster's metadata server gives tokens of a service account."""
    metadata = accounts.url.removeprefix("http://")
    in_google.environment.update(GCE_METADATA_HOST=metadata, GCE_METADATA_IP=metadata)
    use(in_google, google, project_id=PROJECT)
    look_up_in_a_dag(in_google, google, database)
    authorised = {_lower(request)["authorization"] for request in google.server.requests}
    assert authorised <= {f"Bearer {token}" for token in google.server.tokens}
    assert any(path.endswith("/service-accounts/default/token") for path in accounts.asked)


def _lower(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.each_rig_in_ci
def test_database_url_from_the_store_takes_one_call(in_google: Airflow, google: GoogleRestRig) -> None:
    """Airflow builds many backends while it starts: they share one client."""
    google.put("airflow-config-boot", "sqlite:////tmp/from-google.db")
    run = in_google.python(
        "import airflow.settings; print(airflow.settings.SQL_ALCHEMY_CONN)",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET="boot",
    )
    assert run.last_line == "sqlite:////tmp/from-google.db"
    assert "Traceback" not in run.everything
    assert google.calls == ["airflow-config-boot"]


FAULTS = {
    "denied": google_error(403, "PERMISSION_DENIED"),
    "disabled": google_error(400, "FAILED_PRECONDITION"),
    "throttled": google_error(429, "RESOURCE_EXHAUSTED"),
    "server_error": google_error(500, "INTERNAL"),
    "refused": google_error(401, "UNAUTHENTICATED"),
    "not_json": Reply(200, b'{"S3cr3t": ', {"Content-Type": "application/json"}),
}
MALFORMED = {
    "bad": "S3cr3t-only",
    "slash": "postgres://u:S3cr3t/x@h",
    "bad_json": '{"conn_type": "x", "password": "S3cr3t"',
}


def answer(request: Request) -> Reply | None:
    """Answer as the id says."""
    secret_id = "" if is_page(request) else request.path.split("/versions/")[0].rpartition("-")[2]
    return FAULTS.get(secret_id)


@pytest.mark.long
def test_failed_lookups_leave_no_credential_and_no_value(
    in_google: Airflow, google: GoogleRestRig, accounts: Accounts, database: Path
) -> None:
    """At DEBUG, with answers that are none, connections that are none, and a key that is none."""
    in_google.use_database(database)
    in_google.environment["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "DEBUG"
    use(in_google, google, gcp_keyfile_dict=json.dumps(service_account_key()), max_attempts=1)
    for conn_id, text in MALFORMED.items():
        google.put(f"airflow-connections-{conn_id}", text)
    google.put("airflow-variables-good", "sixteen letters.")
    in_google.dag(
        "canary",
        f"""
        import logging
        failures = 0
        for secret_id in {[*MALFORMED, *FAULTS]!r}:
            try:
                BaseHook.get_connection(secret_id)
            except Exception:
                logging.getLogger("airflow.task").exception("lookup failed")
                failures += 1
        print("FAILURES", failures)
        print("LENGTH", len(Variable.get("good")))
        raise RuntimeError("so that the task fails too")
        """,
    )
    with google.server.fault(answer):
        run = in_google.run("dags", "test", "canary")
    assert run.printed("FAILURES") == [str(len([*MALFORMED, *FAULTS]))], run.everything
    assert run.printed("LENGTH") == ["16"], run.everything
    assert {f"airflow-connections-{secret_id}" for secret_id in (*MALFORMED, *FAULTS)} <= set(google.calls)
    assert "DEBUG" in run.everything.upper()
    broken = {**service_account_key(), "private_key": "S3cr3t-key"}
    use(in_google, google, gcp_keyfile_dict=json.dumps(broken))
    refused = in_google.python(
        """
        import logging
        from airflow.configuration import ensure_secrets_loaded
        try:
            ensure_secrets_loaded()[0].get_variable("x")
        except Exception:
            logging.getLogger("airflow.task").exception("lookup failed")
        """
    )
    assert "option 'gcp_keyfile_dict' is no service account key" in refused.everything
    tokens = {_lower(request)["authorization"].removeprefix("Bearer ") for request in google.server.requests}
    secrets = {"S3cr3t", service_account_key()["private_key"].splitlines()[1], *tokens}
    written = [path.read_text(errors="replace") for path in in_google.home.glob("logs/**/*") if path.is_file()]
    assert tokens
    for text in (run.everything, refused.everything, *written):
        for secret in secrets:
            assert secret not in text, [line for line in text.splitlines() if secret in line]
