"""Side by side with the official class, in the same namespace: the same labels asked for, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.secrets.kubernetes_secrets_backend import KubernetesSecretsBackend as Official
from kubernetes.config import incluster_config

from airflow_providers_secrets.backends.kubernetes_secrets import KubernetesSecretsBackend
from airflow_providers_secrets.errors import AccessDenied, InvalidSecret
from airflow_providers_secrets.testing.lookups import LOOKUP
from tests.parity.reading import STORED, observed, read
from tests.rigs import running
from tests.rigs.kubernetes import JSON, LABELS, NAMESPACE, TEAM, TOKEN, KubernetesRig, encoded, status

IDS = ["smtp_default", "Upper", "with-dash", "with.dot", "a--b", "a__b", "x" * 63, "absent"]
Backends = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def rig() -> KubernetesRig:
    rig = running("tests.rigs.kubernetes:KubernetesRig")
    assert isinstance(rig, KubernetesRig)
    return rig


@pytest.fixture(autouse=True)
def in_a_pod(rig: KubernetesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's service account, by which alone the official class logs in."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(rig.tls.ports[0]))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(rig.authority.bundle))


@pytest.fixture
def backends(rig: KubernetesRig) -> Backends:
    """Ours logs in by a kubeconfig, which the official class has no option for."""

    def make(**options: Any) -> tuple[Any, Any]:
        given = {"namespace": NAMESPACE, **options}
        return KubernetesSecretsBackend(**given, **rig.options(), cache_ttl=0), Official(**given)

    return make


def create(rig: KubernetesRig, name: str, labels: dict[str, str], data: dict[str, str]) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
    rig.proxy.do("DELETE", f"{rig.collection}/{name}")
    reply = rig.proxy.do("POST", rig.collection, json.dumps({**body, "data": data}).encode())
    assert reply.status == 201, reply


@pytest.mark.parametrize("label", ["default", "example.com/id", "plain"])
@pytest.mark.parametrize("kind", LOOKUP)
def test_names_and_answers(rig: KubernetesRig, backends: Backends, kind: str, label: str) -> None:
    own = LABELS[kind] if label == "default" else label
    rig.put(f"{own}=smtp_default", "postgres://u:p@h:5432/db")
    ours, theirs = backends(**({} if label == "default" else {f"{kind}_label": label}))
    for secret_id in IDS:
        how = (LOOKUP[kind], secret_id)
        assert observed(rig, ours, *how) == observed(rig, theirs, *how), secret_id


@pytest.mark.parametrize("kind", LOOKUP)
def test_a_kind_turned_off(rig: KubernetesRig, backends: Backends, kind: str) -> None:
    for backend in backends(**{f"{kind}_label": None}):
        assert observed(rig, backend, LOOKUP[kind], "smtp_default") == (None, [])


@pytest.mark.parametrize("kind", LOOKUP)
def test_keys_of_the_data(rig: KubernetesRig, backends: Backends, kind: str) -> None:
    data = {"value": encoded("http://not-this"), "other.key": encoded("http://this")}
    create(rig, f"keys-of-{kind}", {LABELS[kind]: "keys"}, data)
    ours, theirs = backends(**{f"{kind}_data_key": "other.key"})
    answer, calls = observed(rig, ours, LOOKUP[kind], "keys")
    assert answer == "http://this"
    assert (answer, calls) == observed(rig, theirs, LOOKUP[kind], "keys")


def test_of_several_the_first_counts(rig: KubernetesRig, backends: Backends) -> None:
    for name in ("zebra", "antelope"):
        create(rig, name, {LABELS["variables"]: "twice"}, {"value": encoded(name)})
    ours, theirs = backends()
    assert observed(rig, ours, "get_variable", "twice") == observed(rig, theirs, "get_variable", "twice")
    assert ours.get_variable("twice") == "antelope"


@pytest.mark.parametrize("team_label", [TEAM, "example.com/team", None])
def test_teams(rig: KubernetesRig, backends: Backends, team_label: str | None) -> None:
    label = LABELS["variables"]
    for name, team in (("own", "red"), ("both", "red"), ("theirs", "blue"), ("both", None), ("shared", None)):
        labels = {label: name, **({team_label: team} if team_label and team else {})}
        create(rig, f"team-{name}-{team or 'none'}".lower(), labels, {"value": encoded(f"{name} of {team}")})
    ours, theirs = backends(team_label=team_label)
    for key in ("own", "both", "theirs", "shared", "absent"):
        for team in ("red", "Blue_1", None):
            how = {"team_name": team}
            found = [observed_selectors(rig, backend, key, **how) for backend in (ours, theirs)]
            assert found[0] == found[1], (key, team)


def observed_selectors(rig: KubernetesRig, backend: Any, key: str, **how: Any) -> tuple[Any, list[str]]:
    """Also what another team's label keeps out, which the rig's own names leave away."""
    start = len(rig.requests)
    answer = backend.get_variable(key, **how)
    paths = [request.path for request in rig.requests[start:]]
    return answer, [path.partition("labelSelector=")[2].partition("&")[0] for path in paths]


@pytest.mark.parametrize("stored", STORED)
def test_the_same_connections_are_given(rig: KubernetesRig, backends: Backends, stored: str) -> None:
    rig.put(f"{LABELS['connections']}=parity", stored)
    ours, theirs = (backend.get_conn_value("parity") for backend in backends())
    assert read(ours) == read(theirs)


def test_listed_a_missing_key_is_no_absence(rig: KubernetesRig, backends: Backends) -> None:
    create(rig, "keyless", {LABELS["variables"]: "keyless"}, {"other": encoded("x")})
    ours, theirs = backends()
    assert theirs.get_variable("keyless") is None
    with pytest.raises(InvalidSecret):
        ours.get_variable("keyless")


def test_listed_a_denial_is_an_error_of_its_own(rig: KubernetesRig, backends: Backends) -> None:
    ours, theirs = backends()
    denied = status(403, "Forbidden", "secrets is forbidden")
    assert denied.headers == JSON
    with rig.answering(denied):
        with pytest.raises(Exception, match="Forbidden"):
            theirs.get_variable("denied")
        with pytest.raises(AccessDenied):
            ours.get_variable("denied")


@pytest.mark.parametrize("secret_id", ["a/b", "a b", "é", "-a", "x" * 64])
def test_listed_ids_that_are_no_labels_value_are_not_asked_for(
    rig: KubernetesRig, backends: Backends, secret_id: str
) -> None:
    """The official class sends them, and an API server refuses a selector that it cannot parse."""
    ours, theirs = backends()
    assert observed(rig, ours, "get_variable", secret_id) == (None, [])
    assert len(observed(rig, theirs, "get_variable", secret_id)[1]) == 1


def test_listed_what_is_stored_is_read_not_the_watch_cache(rig: KubernetesRig, backends: Backends) -> None:
    ours, theirs = backends()
    for backend, cached in ((ours, False), (theirs, True)):
        start = len(rig.requests)
        backend.get_variable("absent")
        assert all(("resourceVersion=0" in request.path) is cached for request in rig.requests[start:])
