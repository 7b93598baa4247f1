"""What Kubernetes Secrets alone have: labels, keys, teams, service accounts and kubeconfigs."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from airflow_providers_secrets.backends.kubernetes_secrets import KubernetesSecretsBackend
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    SecretsError,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import inventory, operations
from airflow_providers_secrets.lookup.access import store_of
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.stores.base import EXISTS, Identity, StoreError, Written
from airflow_providers_secrets.stores.kubernetes import secrets
from airflow_providers_secrets.stores.kubernetes.secrets import _secret_name
from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs.kubernetes import (
    JSON,
    LABELS,
    NAMESPACE,
    TEAM,
    TOKEN,
    WHO,
    KubernetesRig,
    encoded,
    listed,
    secret,
    status,
)
from tests.support.sharing import anew, sharing

VARIABLE = LABELS["variables"]


@pytest.fixture
def made(kubernetes: KubernetesRig) -> Iterator[Any]:
    """Create Secrets, which are gone afterwards."""
    names: list[str] = []

    def make(name: str, labels: dict[str, str], data: dict[str, str]) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
        texts = {key: encoded(text) for key, text in data.items()}
        reply = kubernetes.proxy.do("POST", kubernetes.collection, json.dumps({**body, "data": texts}).encode())
        assert reply.status == 201, reply
        names.append(name)

    yield make
    for name in names:
        kubernetes.proxy.do("DELETE", f"{kubernetes.collection}/{name}")


def stored(rig: KubernetesRig, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rig.proxy.do("GET", f"{rig.collection}/{name}").body)
    return found


def called(backend: KubernetesSecretsBackend, name: str, act: Any) -> Any:
    return answers_of(backend.config).access.call(name, 60.0, act, "write")


# Labels and keys.


def test_the_first_by_name_counts(kubernetes: KubernetesRig, made: Any) -> None:
    for name in ("zebra", "antelope", "mule"):
        made(name, {VARIABLE: "twice"}, {"value": name})
    assert kubernetes.backend().get_variable("twice") == "antelope"
    assert kubernetes.caching(preload=["variables"]).get_variable("twice") == "antelope"
    assert [one.secret_id for one in inventory.listed_ids(kubernetes.backend(), "variables")].count("twice") == 1
    with kubernetes.proxy.fault(in_pages([stored(kubernetes, name) for name in ("zebra", "antelope")])):
        assert kubernetes.backend().get_variable("twice") == "antelope"  # no page need be in order


@pytest.mark.parametrize("data", [{}, {"other": "S3cr3t"}], ids=["none", "another"])
def test_a_secret_without_the_key_is_not_absent(kubernetes: KubernetesRig, made: Any, data: dict[str, str]) -> None:
    made("keyless", {VARIABLE: "keyless"}, data)
    with pytest.raises(InvalidSecret, match=r"the Secret has no key 'value'\. Put the value under that key"):
        kubernetes.backend().get_variable("keyless")


def test_a_value_that_is_not_text_is_named(kubernetes: KubernetesRig) -> None:
    found = secret("binary", {VARIABLE: "binary"}, {"value": base64.b64encode(b"S3cr3t\xff").decode()})
    reply = Reply(200, json.dumps(listed([found])).encode(), JSON)
    with kubernetes.proxy.fault(reply), pytest.raises(InvalidSecret, match=r"its value is not text\. Store") as raised:
        kubernetes.backend().get_variable("binary")
    assert "S3cr3t" not in str(raised.value)


def test_each_kind_has_a_key_of_its_own(kubernetes: KubernetesRig, made: Any) -> None:
    made("keyed", {LABELS["connections"]: "keyed", VARIABLE: "keyed"}, {"uri": "http://h", "text": "x", "value": "no"})
    backend = kubernetes.backend(connections_data_key="uri", variables_data_key="text")
    assert backend.get_conn_value("keyed") == "http://h"
    assert backend.get_variable("keyed") == "x"
    preloaded = kubernetes.caching(variables_data_key="text", preload=["variables"])
    assert preloaded.get_variable("keyed") == "x"


@pytest.mark.parametrize("preload", [[], ["variables"]], ids=["singly", "in bulk"])
def test_what_is_a_teams_is_never_everybodys(kubernetes: KubernetesRig, made: Any, preload: list[str]) -> None:
    made("of-red", {VARIABLE: "theirs", TEAM: "red"}, {"value": "x"})
    backend = kubernetes.caching(preload=preload)
    assert backend.get_variable("theirs") is None
    assert backend.get_variable("theirs", team_name="blue") is None
    assert backend.get_variable("theirs", team_name="red") == "x"
    assert kubernetes.caching(team_label=None, preload=preload).get_variable("theirs") == "x"


def test_an_empty_label_asks_for_the_name_by_get(kubernetes: KubernetesRig, made: Any) -> None:
    made("by-name", {}, {"value": "x"})
    backend = kubernetes.backend(variables_label="")
    assert backend.get_variable("by-name") == "x"
    assert kubernetes.requests[-1].path == f"{kubernetes.collection}/by-name"
    assert backend.get_variable("absent") is None
    with kubernetes.counted() as calls:
        assert backend.get_variable("by_name") is None  # no Secret can have that name
    assert calls == []


@pytest.mark.parametrize("secret_id", ["x" * 64, "a/b", "a,b", "a=b", "!a", "a b", "-a", "ä"])
def test_what_no_label_holds_is_not_asked_for(kubernetes: KubernetesRig, secret_id: str) -> None:
    with kubernetes.counted() as calls:
        assert kubernetes.backend().get_variable(secret_id) is None
    assert calls == []


# Logins.


def as_pod(rig: KubernetesRig, directory: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Let this process find a service account as a pod does."""
    from kubernetes.config import incluster_config

    from airflow_providers_secrets.stores.kubernetes import identity

    (directory / "token").write_text(token)
    (directory / "namespace").write_text(NAMESPACE)
    (directory / "ca.crt").write_bytes(rig.authority.bundle.read_bytes())
    monkeypatch.setattr(identity, "SERVICE_ACCOUNT", str(directory))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(directory / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(directory / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(rig.tls.ports[0]))


def test_a_pod_logs_in_as_its_service_account(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_pod(kubernetes, tmp_path, monkeypatch, TOKEN)
    made("in-pod", {VARIABLE: "in-pod"}, {"value": "x"})
    backend = KubernetesSecretsBackend(cache_ttl=0, timeout=60)
    assert backend.get_variable("in-pod") == "x"
    who: Identity = called(backend, "", lambda store, client: store.identify(client))
    assert who.who == WHO
    assert who.details == {"server": f"https://127.0.0.1:{kubernetes.tls.ports[0]}", "namespace": NAMESPACE}


@pytest.mark.parametrize("by", ["kubeconfig", "context", "no pod"])
def test_a_kubeconfig_that_is_named_counts_before_the_pods_service_account(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Outside of a pod, a token in that place means nothing."""
    as_pod(kubernetes, tmp_path, monkeypatch, "expired")
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig))
    if by == "no pod":
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    made("by-kubeconfig", {VARIABLE: "by-kubeconfig"}, {"value": "x"})
    options = {"kubeconfig": {"kubeconfig": str(kubernetes.kubeconfig)}, "context": {"context": "tests"}}.get(by, {})
    assert KubernetesSecretsBackend(**options, cache_ttl=0, timeout=60).get_variable("by-kubeconfig") == "x"


def test_a_server_of_an_authority_that_is_not_the_clusters_is_sent_nothing(
    kubernetes: KubernetesRig, tmp_path: Path
) -> None:
    configuration = json.loads(kubernetes.kubeconfig.read_text())
    configuration["clusters"][0]["cluster"]["certificate-authority"] = str(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "kubeconfig").write_text(json.dumps(configuration))
    with kubernetes.counted() as calls, pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        kubernetes.backend(kubeconfig=str(tmp_path / "kubeconfig")).get_variable("x")
    assert calls == []


def test_a_token_that_is_refused_costs_one_new_login(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_pod(kubernetes, tmp_path, monkeypatch, "expired")
    made("renewed", {VARIABLE: "renewed"}, {"value": "x"})
    backend = KubernetesSecretsBackend(cache_ttl=0, timeout=60)
    with kubernetes.counted() as calls, pytest.raises(StoreMisconfigured, match="Unauthorized"):
        backend.get_variable("renewed")
    assert len(calls) == 2
    (tmp_path / "token").write_text(TOKEN)
    assert backend.get_variable("renewed") == "x"


def token_of(subject: str, number: int) -> str:
    claims = json.dumps({"iss": "https://cluster", "sub": subject, "exp": number}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.signature"


def test_who_asks_is_the_service_account_and_not_its_token(
    kubernetes: KubernetesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_pod(kubernetes, tmp_path, monkeypatch, token_of("one", 1))
    store = store_of(KubernetesSecretsBackend().config)
    first = store.asker()
    (tmp_path / "token").write_text(token_of("one", 2))
    assert store.asker() == first
    (tmp_path / "token").write_text(token_of("another", 2))
    assert store.asker() != first


def test_who_asks_changes_with_the_kubeconfig(kubernetes: KubernetesRig, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    store = store_of(KubernetesSecretsBackend(kubeconfig=str(path)).config)
    assert store.asker()
    seen = {store.asker()}
    for token in ("one", "another"):
        path.write_text(json.dumps(kubernetes.configuration("https://127.0.0.1:1", token)))
        seen.add(store.asker())
    assert len(seen) == 3


@pytest.mark.parametrize("named", ["the first", "the second", "at home"])
def test_who_asks_changes_with_each_kubeconfig_that_is_read(
    kubernetes: KubernetesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "" if named == "at home" else os.pathsep.join((f"{tmp_path}/one", "~/two")))
    path = tmp_path / {"the first": "one", "the second": "two", "at home": ".kube/config"}[named]
    path.parent.mkdir(exist_ok=True)
    store = store_of(KubernetesSecretsBackend().config)
    seen = {store.asker()}
    for token in ("one", "another"):
        path.write_text(json.dumps(kubernetes.configuration("https://127.0.0.1:1", token)))
        seen.add(store.asker())
    assert len(seen) == 3


def test_a_kubeconfig_that_takes_the_place_of_one_of_equal_size_and_time_is_seen(
    kubernetes: KubernetesRig, tmp_path: Path
) -> None:
    path, other = tmp_path / "kubeconfig", tmp_path / "other"
    for file, token in ((path, "one"), (other, "two")):
        file.write_text(json.dumps(kubernetes.configuration("https://127.0.0.1:1", token)))
        os.utime(file, (1, 1))
    store = store_of(KubernetesSecretsBackend(kubeconfig=str(path)).config)
    first = store.asker()
    other.replace(path)
    assert store.asker() != first


@pytest.mark.parametrize("file", ["ca.crt", "namespace"])
def test_equal_service_accounts_of_two_clusters_are_told_apart(
    kubernetes: KubernetesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Clusters often have one issuer, ``https://kubernetes.default.svc``, and one address; each has its own authority."""
    as_pod(kubernetes, tmp_path, monkeypatch, token_of("one", 1))
    store = store_of(KubernetesSecretsBackend().config)
    first = store.asker()
    (tmp_path / file).write_text("of another cluster")
    assert store.asker() != first


@pytest.mark.parametrize(
    "token", [b"\xff\xfe", b"e30." + base64.urlsafe_b64encode(b"[" * 99_999) + b".x", b"a.b.c", b""]
)
def test_a_token_that_is_none_is_told_apart_too(
    kubernetes: KubernetesRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: bytes
) -> None:
    as_pod(kubernetes, tmp_path, monkeypatch, token_of("one", 1))
    store = store_of(KubernetesSecretsBackend().config)
    first = store.asker()
    (tmp_path / "token").write_bytes(token)
    assert store.asker() != first


@pytest.mark.parametrize("field", ["tokenFile", "client-certificate"])
@pytest.mark.parametrize(
    "spelled", ['{"users": [{"name": "x", "user": {"%s": "%s"}}]}', "users:\n- user:\n    %s: %s\n"]
)
@pytest.mark.parametrize("absolute", [True, False])
def test_who_asks_changes_with_a_file_that_the_kubeconfig_names(
    tmp_path: Path, field: str, spelled: str, absolute: bool
) -> None:
    path, named = tmp_path / "kubeconfig", tmp_path / "login"
    path.write_text(spelled % (field, named if absolute else "login"))
    store = store_of(KubernetesSecretsBackend(kubeconfig=str(path)).config)
    seen = {store.asker()}
    for content in ("one", token_of("one", 1), token_of("one", 2), token_of("another", 2)):
        named.write_text(content)
        seen.add(store.asker())
    assert len(seen) == 4  # a token that is renewed is the same account's


def test_the_kubeconfig_that_is_read_is_the_one_that_counts_as_who_asks(
    kubernetes: KubernetesRig, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK keeps what ``KUBECONFIG`` said when it was imported; a forked child may have another one."""
    made("of-the-environment", {VARIABLE: "of-the-environment"}, {"value": "x"})
    from kubernetes.config import kube_config

    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")
    monkeypatch.setenv("KUBECONFIG", str(kubernetes.kubeconfig))
    assert KubernetesSecretsBackend(cache_ttl=0, timeout=60).get_variable("of-the-environment") == "x"


def test_options_count_before_the_environment_and_the_kubeconfig(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("of-the-options", {VARIABLE: "of-the-options"}, {"value": "x"})
    configuration = json.loads(kubernetes.kubeconfig.read_text())
    configuration["contexts"][0]["context"]["namespace"] = "elsewhere"
    (tmp_path / "elsewhere").write_text(json.dumps(configuration))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "elsewhere"))
    assert kubernetes.backend().get_variable("of-the-options") == "x"
    named = {"kubeconfig": str(tmp_path / "elsewhere"), "namespace": NAMESPACE}
    assert kubernetes.backend(**named).get_variable("of-the-options") == "x"


def denied_to(token: str) -> Any:
    """Refuse, as RBAC does, who has this token."""
    denial = status(403, "Forbidden", "secrets is forbidden")
    return lambda request: denial if request.headers["authorization"] == f"Bearer {token}" else None


@pytest.mark.parametrize("named", ["token", "tokenFile"])
def test_a_kubeconfig_that_changes_hands_is_a_new_login(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, named: str
) -> None:
    """What the former owner may read is neither answered to the new one nor filed for them in the shared cache."""
    made("of-alice", {VARIABLE: "of-alice"}, {"value": "S3cr3t"})
    path, file = tmp_path / "kubeconfig", tmp_path / "token"

    def belongs_to(token: str) -> None:
        file.write_text(token)
        configuration = json.loads(kubernetes.kubeconfig.read_text())
        configuration["users"][0]["user"] = {named: str(file) if named == "tokenFile" else token}
        path.write_text(json.dumps(configuration))

    belongs_to(TOKEN)
    backend = sharing(kubernetes, f"file://{tmp_path}/shared", kubeconfig=str(path))
    assert backend.get_variable("nothing") is None
    belongs_to("of-bob")
    with kubernetes.proxy.fault(denied_to("of-bob")):
        for ask in (backend.get_variable, lambda name: anew(lambda: backend.get_variable(name))):
            with pytest.raises(AccessDenied):
                ask("of-alice")
    belongs_to(TOKEN)
    assert backend.get_variable("of-alice") == "S3cr3t"


KUBECONFIG_CURE = "Name a file that Airflow's user can read in the option kubeconfig or in KUBECONFIG"


@pytest.mark.parametrize("content", [None, "", "S3cr3t: [", '{"contexts": []}'])
def test_no_login_is_told_without_the_kubeconfig(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StoreMisconfigured, match=rf"no usable login \(\w+\)\. {KUBECONFIG_CURE}") as raised:
        KubernetesSecretsBackend(kubeconfig=str(path), timeout=60).get_variable("x")
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize("named", ["option", "variable", "nowhere", "variable of a pod"])
def test_a_context_that_is_not_in_the_kubeconfig_is_told(
    kubernetes: KubernetesRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    """Whoever named a file, or a context in one, is not told to name one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    options = {"context": "S3cr3t"} if named == "option" else {}
    if named == "option":
        options["kubeconfig"] = str(kubernetes.kubeconfig)
    elif named != "nowhere":
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "S3cr3t"))
    if named == "variable of a pod":  # in which it does not count
        as_pod(kubernetes, tmp_path, monkeypatch, TOKEN)
        (tmp_path / "ca.crt").unlink()
    cure = KUBECONFIG_CURE if named in ("option", "variable") else "Mount the pod's service account token"
    with pytest.raises(StoreMisconfigured, match=rf"no usable login \(ConfigException\)\. {cure}") as raised:
        KubernetesSecretsBackend(**options, timeout=60).get_variable("x")
    assert "S3cr3t" not in str(raised.value)


def by_command(rig: KubernetesRig, directory: Path, script: str) -> str:
    """A kubeconfig whose user logs in by a command."""
    configuration = json.loads(rig.kubeconfig.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]}
    configuration["users"][0]["user"] = {"exec": plugin}
    path = directory / "kubeconfig"
    path.write_text(json.dumps(configuration))
    return str(path)


def credential(**status: str) -> str:
    return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})


@pytest.mark.parametrize("answered", ["echo S3cr3t >&2; exit 1", "echo S3cr3t", "echo '{}'"])
def test_a_command_that_fails_sends_nothing_and_is_run_again_at_the_next_lookup(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, answered: str
) -> None:
    """The SDK goes on without a login, which an API server denies to the anonymous user."""
    made("by-command", {VARIABLE: "by-command"}, {"value": "x"})
    answer = tmp_path / "answer"
    path = by_command(kubernetes, tmp_path, f"if test -e {answer}; then cat {answer}; else {answered}; fi")
    backend = KubernetesSecretsBackend(kubeconfig=path, cache_ttl=0, timeout=60, max_attempts=1)
    with kubernetes.counted() as calls:
        with pytest.raises(StoreUnavailable, match=r"the kubeconfig's user gave no login\. Run the command") as raised:
            backend.get_variable("by-command")
    assert calls == []
    assert "S3cr3t" not in caplog.text + str(raised.value)
    answer.write_text(credential(token=TOKEN))
    assert backend.get_variable("by-command") == "x"


def test_a_command_that_fails_once_its_token_has_ended_sends_no_other_request(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made("renewed", {VARIABLE: "renewed"}, {"value": "x"})
    answer = tmp_path / "answer"
    path = by_command(kubernetes, tmp_path, f"cat {answer}")
    backend = KubernetesSecretsBackend(kubeconfig=path, cache_ttl=0, timeout=60, max_attempts=1)
    answer.write_text(credential(token=TOKEN, expirationTimestamp="2001-01-01T00:00:00Z"))
    assert backend.get_variable("renewed") == "x"
    answer.unlink()
    gone = status(401, "Unauthorized", "Unauthorized")
    with kubernetes.proxy.fault(gone), kubernetes.counted() as calls:
        with pytest.raises(StoreUnavailable, match="the kubeconfig's user gave no login"):
            backend.get_variable("renewed")
    assert len(calls) == 1
    assert str(answer) not in caplog.text  # of which the command told
    answer.write_text(credential(token=TOKEN))
    assert backend.get_variable("renewed") == "x"


def test_a_user_who_is_not_in_the_kubeconfig_is_not_nobody(kubernetes: KubernetesRig, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({**json.loads(kubernetes.kubeconfig.read_text()), "users": []}))
    with kubernetes.counted() as calls, pytest.raises(StoreUnavailable, match="the kubeconfig's user gave no login"):
        KubernetesSecretsBackend(kubeconfig=str(path), timeout=60, max_attempts=1).get_variable("x")
    assert calls == []


@pytest.mark.parametrize("named", [True, False])
def test_a_kubeconfig_may_say_that_nobody_logs_in(kubernetes: KubernetesRig, tmp_path: Path, named: bool) -> None:
    """As behind ``kubectl proxy``, which logs in by itself."""
    configuration = kubernetes.configuration(kubernetes.proxy.url)
    configuration["users"][0]["user"] = {}
    if not named:
        del configuration["contexts"][0]["context"]["user"]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(configuration))
    found = Reply(200, json.dumps(listed([secret("any", {VARIABLE: "x"}, {"value": encoded("x")})])).encode(), JSON)
    backend = KubernetesSecretsBackend(kubeconfig=str(path), cache_ttl=0, timeout=60, max_attempts=1)
    with kubernetes.proxy.fault(found):
        assert backend.get_variable("x") == "x"


def holding_its_certificates(rig: KubernetesRig, directory: Path) -> Path:
    """A kubeconfig that holds the authority's certificate itself, and a client's."""
    configuration = json.loads(rig.kubeconfig.read_text())
    cluster, user = configuration["clusters"][0]["cluster"], configuration["users"][0]["user"]
    authority = Path(cluster.pop("certificate-authority"))
    cluster["certificate-authority-data"] = base64.b64encode(authority.read_bytes()).decode()
    for name, file in zip(("certificate", "key"), rig.authority.issue("client"), strict=True):
        user[f"client-{name}-data"] = base64.b64encode(Path(file).read_bytes()).decode()
    path = directory / "kubeconfig"
    path.write_text(json.dumps(configuration))
    return path


@pytest.mark.parametrize("rewrites", [True, False], ids=["", "older SDK"])
@pytest.mark.parametrize("gone", ["ssl_ca_cert", "cert_file", "key_file"])
def test_certificates_that_the_sdk_wrote_are_written_again_once_they_are_gone(
    kubernetes: KubernetesRig, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, rewrites: bool
) -> None:
    """The SDK writes them below ``/tmp`` once for a process; a host's clean-up removes them, and a child's end does."""
    from kubernetes.config import kube_config

    if not rewrites:
        once = kube_config._create_temp_file_with_content
        monkeypatch.setattr(kube_config, "_create_temp_file_with_content", lambda *args, **_: once(*args[:2]))
    made("written-again", {VARIABLE: "written-again"}, {"value": "x"})
    path = holding_its_certificates(kubernetes, tmp_path)
    backend = KubernetesSecretsBackend(kubeconfig=str(path), cache_ttl=0, timeout=60, max_attempts=1)
    assert backend.get_variable("written-again") == "x"
    (client,) = answers_of(backend.config).access.clients
    Path(getattr(client._configuration, gone)).unlink()
    client._pool.clear()  # as where the server has closed the connection
    assert backend.get_variable("written-again") == "x"


def test_a_write_whose_answer_is_lost_is_not_repeated_although_certificates_are_gone(
    kubernetes: KubernetesRig, tmp_path: Path
) -> None:
    path = holding_its_certificates(kubernetes, tmp_path)
    backend = KubernetesSecretsBackend(kubeconfig=str(path), cache_ttl=0, timeout=60, max_attempts=1)
    assert backend.get_variable("absent") is None
    (client,) = answers_of(backend.config).access.clients
    Path(client._configuration.ssl_ca_cert).unlink()
    posted: list[Request] = []

    def lost(request: Request) -> Reply | None:
        if request.method != "POST":
            return None
        posted.append(request)
        return Reply(reset=True)

    with kubernetes.proxy.fault(lost), pytest.raises(StoreUnavailable, match="connection closed without an answer"):
        operations.write(backend, "variables", "lost", "x")
    assert len(posted) == 1


# Ids.


@pytest.mark.parametrize("label", [f"env=prod,{VARIABLE}", f"!{TEAM}", f"{VARIABLE}=x", "UPPER.example/x", "a/b/c"])
def test_a_label_that_would_be_a_selector_is_refused(label: str) -> None:
    with pytest.raises(ConfigurationError, match="'variables_label' must be the name of one label, without a value"):
        KubernetesSecretsBackend(variables_label=label)


@pytest.mark.parametrize("label", ["a\n", "a b", f"{TEAM}=red", f"{TEAM},other", "!x"])
def test_a_team_label_that_would_be_a_selector_is_refused(label: str) -> None:
    with pytest.raises(ConfigurationError, match="'team_label' must be the name of one label, without a value"):
        KubernetesSecretsBackend(team_label=label)


@pytest.mark.parametrize("namespace", ["air\nflow", " ", "a/b", "a.b", "Airflow", "-a", "a" * 64])
def test_a_namespace_that_cannot_be_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="'namespace' must be the name of a namespace"):
        KubernetesSecretsBackend(namespace=namespace)


@pytest.mark.parametrize("options", [{}, {"variables_label": ""}, {"variables_label": "", "variables_data_key": "k"}])
@pytest.mark.parametrize("team", [None, "red", "blue"])
@pytest.mark.parametrize(
    "secret_id",
    [
        f"db,{TEAM}=red",
        f"db,{TEAM}",
        f"{VARIABLE}=db",
        f"{VARIABLE}=db,{TEAM}=red",
        "airflow.apache.org/connection-id=prod",
        "tls.key:ingress-tls",
        "value:db",
        f"value:{VARIABLE}=db",
    ],
)
def test_an_id_names_no_other_label_key_or_kind(
    kubernetes: KubernetesRig, made: Any, options: dict[str, Any], team: str | None, secret_id: str
) -> None:
    made("of-red", {VARIABLE: "db", TEAM: "red"}, {"value": "S3cr3t", "k": "S3cr3t"})
    made("of-a-connection", {"airflow.apache.org/connection-id": "prod"}, {"value": "S3cr3t", "k": "S3cr3t"})
    made("ingress-tls", {}, {"tls.key": "S3cr3t"})
    backend = kubernetes.backend(**options)
    with kubernetes.counted() as calls:
        assert backend.get_variable(secret_id, team_name=team) is None
    assert not calls
    assert backend.plan("variables", secret_id, team).refused
    with pytest.raises(ConfigurationError):
        operations.write(backend, "variables", secret_id, "x")


@pytest.mark.parametrize("multi_team", [True, False])
def test_a_team_s_secret_is_listed_as_what_its_team_alone_reads(
    kubernetes: KubernetesRig, made: Any, monkeypatch: pytest.MonkeyPatch, multi_team: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", str(multi_team))
    made("of-red", {VARIABLE: "listed", TEAM: "red"}, {"value": "x"})
    made("of-all", {VARIABLE: "everybody-s"}, {"value": "x"})
    listed = {one.secret_id: one.refused for one in inventory.listed_ids(kubernetes.backend(), "variables")}
    assert listed["everybody-s"] is None
    if multi_team:
        assert listed["red--listed"] is None
    else:
        assert listed[f"listed,{TEAM}=red"]


# Answers.


def test_a_bare_404_proves_nothing(kubernetes: KubernetesRig) -> None:
    backend = kubernetes.backend(variables_label="", max_attempts=1)
    for body in (b"", b'{"kind": "Status", "reason": "NotFound", "details": {}}'):
        with kubernetes.proxy.fault(Reply(404, body, JSON)), pytest.raises(StoreUnavailable):
            backend.get_variable("absent")


def in_pages(*pages: list[dict[str, Any]]) -> Any:
    """Answer a listing page by page, whatever its limit: "clients should only use the presence of the continue field"."""

    def answer(request: Request) -> Reply | None:
        if request.method != "GET":
            return None
        number = int(parse_qs(urlsplit(request.path).query).get("continue", ["0"])[0])
        more = str(number + 1) if number + 1 < len(pages) else None
        return Reply(200, json.dumps(listed(pages[number], more)).encode(), JSON)

    return answer


def test_an_empty_page_that_goes_on_proves_nothing(kubernetes: KubernetesRig, made: Any) -> None:
    made("paged", {VARIABLE: "paged"}, {"value": "x"})
    backend = kubernetes.backend()
    with kubernetes.proxy.fault(in_pages([], [], [stored(kubernetes, "paged")])):
        assert backend.get_variable("paged") == "x"
        assert not called(backend, "paged", lambda store, client: store.write(client, f"{VARIABLE}=paged", "y")).created
    with kubernetes.proxy.fault(in_pages([], [])):
        assert backend.get_variable("paged") is None
    assert backend.get_variable("paged") == "y"


def test_empty_pages_without_end_are_no_answer(kubernetes: KubernetesRig) -> None:
    page = Reply(200, json.dumps(listed([], "again")).encode(), JSON)
    with kubernetes.proxy.fault(page), pytest.raises(InvalidSecret, match="the listing does not end"):
        kubernetes.backend().get_variable("found")


def test_a_namespace_stays_in_its_segment(kubernetes: KubernetesRig, tmp_path: Path) -> None:
    configuration = json.loads(kubernetes.kubeconfig.read_text())
    configuration["contexts"][0]["context"]["namespace"] = "a/../b?c"
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(configuration))
    with contextlib.suppress(SecretsError):
        kubernetes.backend(kubeconfig=str(path)).get_variable("x")
    assert kubernetes.requests[-1].path.startswith("/api/v1/namespaces/a%2F..%2Fb%3Fc/secrets?")


def test_a_denial_names_the_reason(kubernetes: KubernetesRig) -> None:
    with kubernetes.fault("denied"), pytest.raises(AccessDenied, match=r": Forbidden\. Allow it by a Role"):
        kubernetes.backend().get_variable("x")


@pytest.mark.parametrize("reason", ["all is well. Ignore the rest", "Nur für Sie", "", 5, None, ["x"]])
def test_a_reason_that_is_none_is_not_shown(kubernetes: KubernetesRig, reason: Any) -> None:
    with kubernetes.proxy.fault(status(403, reason, "no")), pytest.raises(AccessDenied) as raised:
        kubernetes.backend().get_variable("x")
    assert raised.value.code == "HTTP 403"


# Writing.


def test_a_write_keeps_what_else_the_secret_has(kubernetes: KubernetesRig, made: Any) -> None:
    made("kept", {VARIABLE: "kept", "mine": "yes"}, {"value": "one", "other": "stays"})
    backend = kubernetes.backend()
    written: Written = called(backend, "kept", lambda store, client: store.write(client, f"{VARIABLE}=kept", "two"))
    assert not written.created
    after = stored(kubernetes, "kept")
    assert after["data"] == {"value": encoded("two"), "other": encoded("stays")}
    assert after["metadata"]["labels"] == {VARIABLE: "kept", "mine": "yes"}
    (listed,) = (one for one in inventory.listed_ids(backend, "variables") if one.secret_id == "kept")
    assert written.version == listed.version == after["metadata"]["resourceVersion"]


def test_what_is_created_has_the_labels_and_a_name_of_its_own(kubernetes: KubernetesRig) -> None:
    backend = kubernetes.backend()
    names = [f"{VARIABLE}={secret_id}" for secret_id in ("New.One", "new_one")]
    all_names = (*names, f"{LABELS['connections']}=new_one", f"{names[0]},{TEAM}=red")
    for name in all_names:
        written: Written = called(backend, name, lambda store, client, name=name: store.write(client, name, name))
        assert written.created
    metadata = stored(kubernetes, _secret_name(names[0]))["metadata"]
    assert metadata["labels"] == {"app.kubernetes.io/managed-by": "airflow-secrets", VARIABLE: "New.One"}
    assert [backend.get_variable(secret_id) for secret_id in ("New.One", "new_one")] == names
    assert backend.get_variable("New.One", team_name="red") == f"{names[0]},{TEAM}=red"
    for name in all_names:
        called(backend, name, lambda store, client, name=name: store.delete(client, name) or True)
    assert backend.get_variable("new_one") is None


@pytest.mark.parametrize("paged", [False, True], ids=["one page", "pages of one"])
def test_an_id_that_two_secrets_have_is_not_deleted(
    kubernetes: KubernetesRig, made: Any, monkeypatch: pytest.MonkeyPatch, *, paged: bool
) -> None:
    for name in ("first", "second"):
        made(name, {VARIABLE: "twice"}, {"value": name})
    if paged:  # a page may hold fewer than were asked for
        pages = secrets._pages
        monkeypatch.setattr(secrets, "_pages", lambda client, selector, _: pages(client, selector, 1))
    backend = kubernetes.backend()
    with pytest.raises(InvalidSecret, match=r"several Secrets have these labels\. Delete with kubectl"):
        called(backend, "twice", lambda store, client: store.delete(client, f"{VARIABLE}=twice") or True)
    assert backend.get_variable("twice") == "first"
    assert stored(kubernetes, "second")["data"] == {"value": encoded("second")}


@pytest.fixture
def raced(kubernetes: KubernetesRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesSecretsBackend]:
    """A backend before whose writes another one creates the same name, once the name was looked for."""
    backend = kubernetes.backend()
    name = f"{VARIABLE}=raced"
    store: Any = store_of(backend.config)
    called(backend, name, lambda store, client: store.write(client, name, "first"))
    find, looked = type(store)._find, itertools.count()
    monkeypatch.setattr(type(store), "_find", lambda *asked: find(*asked) if next(looked) else None)
    yield backend
    kubernetes.remove(name)


def test_who_creates_it_at_the_same_time_is_noticed(raced: Any) -> None:
    name = f"{VARIABLE}=raced"

    def write(store: Any, client: Any) -> Any:
        with pytest.raises(StoreError) as raised:
            store.write(client, name, "second", only_if_absent=True)
        return raised.value.codes

    assert called(raced, name, write) == (EXISTS,)
    assert raced.get_variable("raced") == "first"


def test_who_loses_the_race_writes_over_it(raced: Any) -> None:
    name = f"{VARIABLE}=raced"
    written: Written = called(raced, name, lambda store, client: store.write(client, name, "second"))
    assert not written.created
    assert raced.get_variable("raced") == "second"


@pytest.mark.parametrize("only_if_absent", [True, False])
def test_a_secret_of_that_name_without_the_label_is_left(
    kubernetes: KubernetesRig, made: Any, *, only_if_absent: bool
) -> None:
    name = f"{VARIABLE}=unlabelled"
    made(_secret_name(name), {"mine": "yes"}, {"value": "x"})
    with pytest.raises(InvalidSecret, match=r"AlreadyExists.*label it so that it is found"):
        called(
            kubernetes.backend(),
            name,
            lambda store, client: store.write(client, name, "y", only_if_absent=only_if_absent),
        )
    assert stored(kubernetes, _secret_name(name))["data"] == {"value": encoded("x")}


def test_exists_is_told_as_such(kubernetes: KubernetesRig, made: Any) -> None:
    made("there", {VARIABLE: "there"}, {"value": "x"})
    backend = kubernetes.backend()

    def write(store: Any, client: Any) -> Any:
        with pytest.raises(StoreError) as raised:
            store.write(client, f"{VARIABLE}=there", "y", only_if_absent=True)
        return raised.value.codes

    assert called(backend, "there", write) == (EXISTS,)
