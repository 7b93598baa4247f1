"""Side by side with the official class, on the same project: the same names asked, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.google.cloud.secrets.secret_manager import CloudSecretManagerBackend as Official

from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend
from airflow_providers_secrets.errors import AccessDenied, ConfigurationError, InvalidSecret, SecretRevoked
from tests.parity.reading import LISTED, STORED, observed, read
from tests.rigs import running
from tests.rigs.google import PROJECT, GoogleGrpcRig, Version, google_error, service_account_key
from tests.rigs.identities import Internet
from tests.support.authority import Authority

PREFIXES = ["airflow-connections", "airflow-connections-", "airflow_connections", "Upper", "-", "", None]
IDS = ["smtp_default", "Upper", "with-dash", "a--b", "a__b", "-", "x" * 200]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleGrpcRig]:
    """The service, which the official class finds at its real name alone."""
    rig = running("tests.rigs.google:GoogleGrpcRig")
    assert isinstance(rig, GoogleGrpcRig)
    authority = Authority(tmp_path_factory.mktemp("tls"))
    internet = Internet(rig.wire.port, authority.issue("secretmanager.googleapis.com"))
    internet.tls.set_alpn_protocols(["h2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("grpc_proxy", internet.url)
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(authority.bundle))
        # Where an account may be used from is asked by a thread, of a host that is not played here.
        patch.setenv("GOOGLE_AUTH_TRUST_BOUNDARY_ENABLED", "false")
        yield rig
    internet.stop()


def backends(**options: Any) -> tuple[Any, Any]:
    given = {"gcp_keyfile_dict": service_account_key(), **options}
    return CloudSecretManagerBackend(**given, cache_ttl=0, transport="grpc"), Official(**given)


@pytest.mark.parametrize("sep", ["-", "", "_", "--"])
@pytest.mark.parametrize("prefix", PREFIXES, ids=repr)
def test_names_and_answers(rig: GoogleGrpcRig, prefix: str | None, sep: str) -> None:
    rig.put(f"{prefix}{sep}smtp_default", "postgres://u:p@h:5432/db")
    ours, theirs = backends(connections_prefix=prefix, sep=sep)
    for conn_id in IDS:
        assert observed(rig, ours, "get_conn_value", conn_id) == observed(rig, theirs, "get_conn_value", conn_id)


@pytest.mark.parametrize("conn_id", ["with.dot", "a/b", "../x"])
def test_ids_that_make_no_name_have_the_same_answer(rig: GoogleGrpcRig, conn_id: str) -> None:
    """The official class sends them, and Google calls them invalid."""
    ours, theirs = backends()
    with rig.server.fault(google_error(400, "INVALID_ARGUMENT")):
        assert observed(rig, ours, "get_conn_value", conn_id) == (None, [])
        answer, calls = observed(rig, theirs, "get_conn_value", conn_id)
    assert answer is None
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["get_conn_value", "get_variable", "get_config"])
def test_default_prefixes(rig: GoogleGrpcRig, kind: str) -> None:
    ours, theirs = backends()
    assert observed(rig, ours, kind, "absent") == observed(rig, theirs, kind, "absent")


def test_teams(rig: GoogleGrpcRig) -> None:
    rig.put("airflow-variables-red--own", "red's")
    rig.put("airflow-variables-shared", "everybody's")
    ours, theirs = backends()
    for key in ("own", "shared", "absent", "with_underscore"):
        how = ("get_variable", key)
        assert observed(rig, ours, *how, team_name="red") == observed(rig, theirs, *how, team_name="red")


@pytest.mark.parametrize("stored", STORED)
def test_the_same_connections_are_given(rig: GoogleGrpcRig, stored: str) -> None:
    rig.put("airflow-connections-parity", stored)
    ours, theirs = (backend.get_conn_value("parity") for backend in backends())
    assert read(ours) == read(theirs)


@pytest.mark.parametrize("stored", LISTED)
def test_listed_connections_are_named(rig: GoogleGrpcRig, stored: str) -> None:
    rig.put("airflow-connections-refused", stored)
    ours, theirs = backends()
    assert theirs.get_conn_value("refused") == stored
    with pytest.raises(InvalidSecret):
        ours.get_conn_value("refused")


@pytest.mark.parametrize("team", ["team_a", "Red", "a-b"])
def test_teams_of_any_name(rig: GoogleGrpcRig, team: str) -> None:
    rig.put(f"airflow-variables-{team}--of-team", team)
    ours, theirs = backends()
    for key in ("of-team", "shared"):
        how = ("get_variable", key)
        assert observed(rig, ours, *how, team_name=team) == observed(rig, theirs, *how, team_name=team)


def test_ids_in_multi_team_mode(rig: GoogleGrpcRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration is of no team."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    rig.put("airflow-config-some--option", "x")
    ours, theirs = backends()
    assert observed(rig, ours, "get_config", "some--option") == observed(rig, theirs, "get_config", "some--option")
    assert ours.get_config("some--option") == "x"
    for method in ("get_variable", "get_conn_value"):
        assert observed(rig, ours, method, "some--option") == observed(rig, theirs, method, "some--option")


EMPTY = ["gcp_key_path", "gcp_credential_config_file", "gcp_scopes", "project_id", "impersonation_chain"]


@pytest.mark.parametrize("name", EMPTY)
def test_empty_options(rig: GoogleGrpcRig, name: str) -> None:
    ours, theirs = backends(**{name: ""})
    assert observed(rig, ours, "get_variable", "absent") == observed(rig, theirs, "get_variable", "absent")


@pytest.mark.parametrize("empty", ["", {}], ids=repr)
def test_empty_key(rig: GoogleGrpcRig, tmp_path: Path, empty: Any) -> None:
    key = tmp_path / "key.json"
    key.write_text(json.dumps(service_account_key()))
    ours, theirs = backends(gcp_keyfile_dict=empty, gcp_key_path=str(key))
    assert observed(rig, ours, "get_variable", "absent") == observed(rig, theirs, "get_variable", "absent")


def test_listed_answers_are_no_absence(rig: GoogleGrpcRig) -> None:
    ours, theirs = backends()
    with rig.server.fault(google_error(403, "PERMISSION_DENIED")):
        assert theirs.get_variable("denied") is None
        with pytest.raises(AccessDenied):
            ours.get_variable("denied")
    rig.server.put(f"projects/{PROJECT}/secrets/airflow-variables-disabled", Version(b"x", "DISABLED"))
    with pytest.raises(Exception, match="DISABLED"):
        theirs.get_variable("disabled")
    with pytest.raises(SecretRevoked):
        ours.get_variable("disabled")


@pytest.mark.parametrize("name", ["full_url_mode", "are_secret_values_urlencoded"])
def test_listed_options_of_other_releases(name: str) -> None:
    with pytest.raises(TypeError):
        Official(gcp_keyfile_dict=service_account_key(), **{name: True})
    with pytest.warns(DeprecationWarning, match=name):
        CloudSecretManagerBackend(**{name: True})
    with pytest.raises(ConfigurationError, match="did you mean 'project_id'"):
        CloudSecretManagerBackend(projectid="x")
