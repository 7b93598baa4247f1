"""Every way to log in to Vault: on the server itself where it has the auth method, else by the request it is sent."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    LookupFailed,
    MissingDependencyError,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import access, answers
from airflow_providers_secrets.stores.base import LOGIN_REFUSED, Outcome, StoreError
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs.identities import Directory, Internet, Radius
from tests.rigs.openbao import ROOT_TOKEN, OpenBao
from tests.rigs.vault import VaultRig, asking, vault_answer, vault_error
from tests.support import needs
from tests.support.ports import free_port
from tests.support.servers import BehindTls

POLICIES = {"token_policies": "everything-in-secret"}


@pytest.fixture
def server(vault: VaultRig) -> OpenBao:
    vault.write("secret/variables/behind-a-login", {"value": "seen"})
    vault.proxy.requests.clear()
    return vault.server


def looks_up(rig: VaultRig, **options: Any) -> list[str]:
    """Look up twice by *options*; give the logins that this took."""
    for _ in range(2):
        assert asking(**{"url": rig.proxy.url, **options}).get_variable("behind-a-login") == "seen"
    return rig.logins


def refused(rig: VaultRig, **options: Any) -> None:
    backend = asking(**{"url": rig.proxy.url, **options})
    with pytest.raises(StoreMisconfigured, match="login refused") as raised:
        backend.get_variable("behind-a-login")
    assert "S3cr3t" not in str(raised.value)


# On OpenBao.


def test_token(vault: VaultRig, server: OpenBao) -> None:
    assert looks_up(vault, token=ROOT_TOKEN) == []


def test_token_of_the_environment(vault: VaultRig, server: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    assert looks_up(vault) == []


def test_token_file_is_read_again_when_its_token_ended(vault: VaultRig, server: OpenBao, tmp_path: Path) -> None:
    """As a Vault Agent's sink is."""
    file = tmp_path / "token"
    tokens = [server.api("POST", "auth/token/create", {"ttl": "1h"})["auth"]["client_token"] for _ in range(2)]
    file.write_text(f"{tokens[0]}\n")
    backend = asking(url=vault.proxy.url, token_path=str(file))
    assert backend.get_variable("behind-a-login") == "seen"
    server.api("POST", "auth/token/revoke", {"token": tokens[0]})
    with pytest.raises(StoreMisconfigured):
        backend.get_variable("behind-a-login")
    file.write_text(tokens[1])
    assert backend.get_variable("behind-a-login") == "seen"
    # One read, one refused, and one read: a file that changed is noticed before the request.
    assert [request.headers["X-Vault-Token"] for request in vault.proxy.requests] == [*[tokens[0]] * 2, tokens[1]]


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfeS3cr3t"], ids=repr)
@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("token_path", {}),
        ("token_path", {"auth_type": "github"}),
        ("jwt_token_path", {"auth_type": "jwt", "jwt_role": "r"}),
        ("kubernetes_jwt_path", {"auth_type": "kubernetes", "kubernetes_role": "r"}),
        ("gcp_key_path", {"auth_type": "gcp", "role_id": "r"}),
    ],
    ids=str,
)
def test_unreadable_file_is_named(
    vault: VaultRig, tmp_path: Path, option: str, options: dict[str, Any], content: bytes | None
) -> None:
    file = tmp_path / "credential"
    if content is not None:
        file.write_bytes(content)
    backend = asking(**{"url": vault.proxy.url, **options, option: str(file)})
    with pytest.raises(StoreMisconfigured, match=f"option '{option}': its file ") as raised:
        backend.get_variable("x")
    assert "S3cr3t" not in str(raised.value)


def test_token_that_no_header_can_hold(vault: VaultRig) -> None:
    for token in ("S3cr3t\u2713", "S3cr3t\nX-Evil: 1"):
        with pytest.raises(StoreMisconfigured) as raised:
            asking(url=vault.proxy.url, token=token).get_variable("x")
        assert "S3cr3t" not in str(raised.value)


def test_agent(vault: VaultRig, server: OpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token at all is sent, whatever the environment holds: the Agent adds its own."""
    monkeypatch.setenv("VAULT_TOKEN", "S3cr3t")
    agent = Proxy()
    with agent.fault(vault_answer({"data": {"value": "by agent"}})):
        assert asking(url=agent.url, auth_type="agent").get_variable("x") == "by agent"
        with pytest.raises(ConfigurationError, match="shared_cache_scope"):
            vault.backend_class(url=agent.url, auth_type="agent", shared_cache="file")
        assert vault.backend_class(url=agent.url, auth_type="agent", shared_cache="file", shared_cache_scope="payroll")
    with agent.fault(vault_error(403)), pytest.raises(AccessDenied):
        asking(url=agent.url, auth_type="agent").get_variable("x")
    assert [request.headers.get("X-Vault-Token") for request in agent.requests] == [None, None]
    agent.stop()


def test_approle(vault: VaultRig, server: OpenBao) -> None:
    assert looks_up(vault, **vault.options()) == ["/v1/auth/approle/login"]


def test_approle_on_another_mount_without_a_secret_id(vault: VaultRig, server: OpenBao) -> None:
    server.enable("approle", "approles/of-airflow")
    cidrs = ["127.0.0.0/8"]
    role = "auth/approles/of-airflow/role/airflow"
    server.api(
        "POST", role, {**POLICIES, "bind_secret_id": False, "secret_id_bound_cidrs": cidrs, "token_bound_cidrs": cidrs}
    )
    role_id = server.api("GET", f"{role}/role-id")["data"]["role_id"]
    options = {"auth_type": "approle", "role_id": role_id, "auth_mount_point": "/approles/of-airflow/"}
    assert looks_up(vault, **options) == ["/v1/auth/approles/of-airflow/login"]


@pytest.mark.parametrize("user", ["alice", "bob.of-the_team"])
def test_userpass(vault: VaultRig, server: OpenBao, user: str) -> None:
    server.enable("userpass")
    server.api("POST", f"auth/userpass/users/{user}", {**POLICIES, "password": "pä ss/1"})
    options = {"auth_type": "userpass", "username": user}
    assert looks_up(vault, **options, password="pä ss/1") == [f"/v1/auth/userpass/login/{user}"]
    refused(vault, **options, password="S3cr3t-wrong")


@pytest.mark.parametrize(
    ("auth_type", "user", "sent"),
    [
        ("userpass", "a/../b?#%2f", None),
        ("userpass", "a/b?#%2f", "a%2Fb%3F%23%252f"),
        ("ldap", "CORP\\a?#%2f", "CORP%5Ca%3F%23%252f"),
        ("radius", "a?#@b", "a%3F%23%40b"),
    ],
)
def test_user_name_stays_in_its_segment(vault: VaultRig, auth_type: str, user: str, sent: str | None) -> None:
    """hvac does not quote that of userpass at all, and lets dot segments through."""
    options = {"auth_type": auth_type, "password": "p", "username": user}
    if sent is None:
        with pytest.raises(ConfigurationError, match="username"):
            asking(url=vault.proxy.url, **options)
        return
    with vault.proxy.fault(vault_error(400)), pytest.raises(StoreMisconfigured):
        asking(url=vault.proxy.url, **options).get_variable("x")
    assert vault.logins[-1] == f"/v1/auth/{auth_type}/login/{sent}"


@pytest.mark.parametrize(
    ("options", "login"),
    [
        ({"auth_type": "approle", "role_id": "r"}, "login"),
        ({"auth_type": "cert"}, "login"),
        ({"auth_type": "github", "token": "t"}, "login"),
        ({"auth_type": "jwt", "jwt_role": "r", "jwt_token": "t"}, "login"),
        ({"auth_type": "ldap", "username": "u", "password": "p"}, "login/u"),
        ({"auth_type": "radius", "username": "u", "password": "p"}, "login/u"),
        ({"auth_type": "userpass", "username": "u", "password": "p"}, "login/u"),
    ],
    ids=lambda one: one["auth_type"] if isinstance(one, dict) else "",
)
def test_mount_stays_in_its_segments(vault: VaultRig, server: OpenBao, options: dict[str, Any], login: str) -> None:
    """hvac does not quote those of cert and userpass."""
    if options["auth_type"] == "cert":
        options = {**options, "cert": list(server.authority.issue("airflow-client"))}
    with vault.proxy.fault(vault_error(400)), pytest.raises(StoreMisconfigured):
        asking(url=vault.proxy.url, auth_mount_point="of airflow/a?#b", **options).get_variable("x")
    assert vault.logins[-1] == f"/v1/auth/of%20airflow/a%3F%23b/{login}"


def test_digits_as_a_password(vault: VaultRig, server: OpenBao) -> None:
    server.enable("userpass")
    server.api("POST", "auth/userpass/users/digits", {**POLICIES, "password": "123456"})
    looks_up(vault, auth_type="userpass", username="digits", password=123456)


def test_ldap(vault: VaultRig, server: OpenBao) -> None:
    directory = Directory("uid=alice,ou=people,dc=example", "right")
    server.enable("ldap")
    server.api(
        "POST",
        "auth/ldap/config",
        {
            "url": f"ldap://127.0.0.1:{directory.port}",
            "userdn": "ou=people,dc=example",
            "userattr": "uid",
            "groupdn": "ou=groups,dc=example",
            **POLICIES,
        },
    )
    options = {"auth_type": "ldap", "username": "alice"}
    assert looks_up(vault, **options, password="right") == ["/v1/auth/ldap/login/alice"]
    refused(vault, **options, password="S3cr3t-wrong")
    directory.stop()


def test_radius(vault: VaultRig, server: OpenBao) -> None:
    radius = Radius("alice", "right")
    server.enable("radius")
    secret = Radius.SECRET.decode()
    server.api("POST", "auth/radius/config", {"host": "127.0.0.1", "port": radius.port, "secret": secret, **POLICIES})
    server.api("POST", "auth/radius/users/alice", {"policies": "everything-in-secret"})
    options = {"auth_type": "radius", "username": "alice"}
    assert looks_up(vault, **options, password="right") == ["/v1/auth/radius/login/alice"]
    refused(vault, **options, password="S3cr3t-wrong")
    # The official backend would have overwritten it.
    assert server.api("GET", "auth/radius/config")["data"]["host"] == "127.0.0.1"
    radius.stop()


KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEY = (
    KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
)


def signed(**claims: Any) -> str:
    now = int(time.time())
    return jwt.encode({"iat": now, "exp": now + 600, **claims}, KEY, "ES256")


def test_jwt(vault: VaultRig, server: OpenBao, tmp_path: Path) -> None:
    server.enable("jwt", jwt_validation_pubkeys=[PUBLIC_KEY])
    role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], **POLICIES}
    server.api("POST", "auth/jwt/role/airflow", role)
    token = signed(sub="airflow", aud="vault")
    options = {"auth_type": "jwt", "jwt_role": "airflow"}
    assert looks_up(vault, **options, jwt_token=token) == ["/v1/auth/jwt/login"]
    file = tmp_path / "jwt"
    file.write_text(signed(sub="airflow", aud="S3cr3t-other"))
    refused(vault, **options, jwt_token_path=str(file))
    # A fresh process; the file is read again at the login.
    answers.reset_after_fork()
    file.write_text(f"{token}\n")
    looks_up(vault, **options, jwt_token_path=str(file))


def test_kubernetes(vault: VaultRig, server: OpenBao, tmp_path: Path) -> None:
    """The server asks a Kubernetes API server to review the token, which is stood in for."""
    kubernetes = Proxy()
    account = {"name": "airflow", "uid": "1234"}
    pod = signed(
        sub="system:serviceaccount:default:airflow",
        **{"kubernetes.io": {"namespace": "default", "serviceaccount": account}},
    )

    def review(request: Request) -> Reply:
        asked = json.loads(request.body)["spec"]["token"]
        user = {
            "username": "system:serviceaccount:default:airflow",
            "uid": "1234",
            "groups": ["system:serviceaccounts"],
        }
        status = {"authenticated": asked == pod, "user": user if asked == pod else {}}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        return Reply(201, json.dumps(body).encode(), {"Content-Type": "application/json"})

    config = {"kubernetes_ca_cert": server.authority.bundle.read_text(), "token_reviewer_jwt": signed(sub="reviewer")}
    server.enable("kubernetes", kubernetes_host=kubernetes.url, disable_local_ca_jwt=True, **config)
    bound = {"bound_service_account_names": "airflow", "bound_service_account_namespaces": "default"}
    server.api("POST", "auth/kubernetes/role/airflow", {**bound, **POLICIES})
    file = tmp_path / "token"
    file.write_text(pod)
    options = {"auth_type": "kubernetes", "kubernetes_role": "airflow", "kubernetes_jwt_path": str(file)}
    with kubernetes.fault(review):
        assert looks_up(vault, **options) == ["/v1/auth/kubernetes/login"]
        answers.reset_after_fork()
        file.write_text(signed(sub="S3cr3t"))
        refused(vault, **options)
    kubernetes.stop()


@pytest.mark.parametrize("spelled", [list, json.dumps, "one file"], ids=["list", "json", "file"])
def test_cert(vault: VaultRig, server: OpenBao, spelled: Any, tmp_path: Path) -> None:
    server.enable("cert")
    authority = server.authority
    server.api("POST", "auth/cert/certs/airflow", {"certificate": authority.bundle.read_text(), **POLICIES})
    certificate, key = authority.issue("airflow-client")
    if spelled == "one file":
        both = tmp_path / "both.pem"
        both.write_text(Path(certificate).read_text() + Path(key).read_text())
        cert: Any = str(both)
    else:
        cert = spelled([certificate, key])
    options = {"url": f"https://127.0.0.1:{server.tls_port}", "verify": str(authority.bundle), "auth_type": "cert"}
    looks_up(vault, **options, cert=cert)
    looks_up(vault, **options, cert=cert, role_id="airflow")
    refused(vault, **options, cert=cert, role_id="S3cr3t-other")


def both(certificate: str, key: str) -> str:
    return Path(certificate).read_text() + Path(key).read_text()


def test_cert_that_was_replaced_is_the_one_that_logs_in(vault: VaultRig, server: OpenBao, tmp_path: Path) -> None:
    """Also while connections are kept, which were opened with the one before."""
    server.enable("cert", "replaced")
    authority = server.authority
    for name, policy in (("client-one", "only-one"), ("client-two", "only-two")):
        server.policy(policy, f"secret/data/variables/{name}")
        vault.write(f"secret/variables/{name}", {"value": name})
        role = {"certificate": authority.bundle.read_text(), "allowed_common_names": name, "token_policies": policy}
        server.api("POST", f"auth/replaced/certs/{name}", role)
    file, following = tmp_path / "client.pem", tmp_path / "following.pem"
    file.write_text(both(*authority.issue("client-one")))
    following.write_text(both(*authority.issue("client-two")))
    url = f"https://127.0.0.1:{server.tls_port}"
    options = {"auth_type": "cert", "auth_mount_point": "replaced", "cert": str(file)}
    backend = asking(url=url, verify=str(authority.bundle), **options)
    assert backend.get_variable("client-one") == "client-one"
    following.rename(file)
    assert backend.get_variable("client-two") == "client-two"
    with pytest.raises(AccessDenied):
        backend.get_variable("client-one")


# By the request: OpenBao has no aws, azure, gcp and github auth methods.


@pytest.fixture
def recorder() -> Iterator[Proxy]:
    """A server that takes any login and has one secret; what it was sent is looked at."""
    proxy = Proxy()
    granted = {"auth": {"client_token": "granted", "lease_duration": 3600, "renewable": True}}

    def answer(request: Request) -> Reply:
        if request.method == "POST":
            return Reply(200, json.dumps(granted).encode(), {"Content-Type": "application/json"})
        assert request.headers["X-Vault-Token"] == "granted"
        return vault_answer({"data": {"value": "seen"}})

    with proxy.fault(answer):
        yield proxy
    proxy.stop()


def login_of(recorder: Proxy, **options: Any) -> tuple[str, dict[str, Any]]:
    """Look up twice; give the path and body of the one login, the first request."""
    recorder.requests.clear()
    for _ in range(2):
        assert asking(**{"url": recorder.url, **options}).get_variable("x") == "seen"
    login, *reads = recorder.requests
    assert [request.method for request in reads] == ["GET", "GET"]
    assert login.method == "POST"
    assert "X-Vault-Token" not in login.headers
    body: dict[str, Any] = json.loads(login.body)
    return login.path, body


def test_github(recorder: Proxy, tmp_path: Path) -> None:
    """https://developer.hashicorp.com/vault/api-docs/auth/github#login"""
    file = tmp_path / "token"
    file.write_text("ghp_of_the_file\n")
    assert login_of(recorder, auth_type="github", token="ghp_x") == ("/v1/auth/github/login", {"token": "ghp_x"})
    path, body = login_of(recorder, auth_type="github", token_path=str(file), auth_mount_point="gh")
    assert (path, body) == ("/v1/auth/gh/login", {"token": "ghp_of_the_file"})


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BACKOFF", dict.fromkeys(access.BACKOFF, (0.001, 0.002)))


def told(outcome: Any, code: str, recorder: Proxy, cloud: Proxy, **options: Any) -> None:
    """Check what is made of a *cloud* that gives no credentials: an outage is tried again, a refusal is remembered."""
    backend = asking(url=recorder.url, max_attempts=2, timeout=20, **options)
    with pytest.raises(StoreMisconfigured if outcome is LOGIN_REFUSED else StoreUnavailable, match=code) as raised:
        backend.get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    asked = len(cloud.requests)
    if outcome is LOGIN_REFUSED:
        for _ in range(3):
            with pytest.raises(StoreMisconfigured, match=code):
                backend.get_variable("x")
        assert len(cloud.requests) == asked
    else:
        store = access.loaded_store(backend.config)
        with pytest.raises(StoreError) as fault:
            store.fetch(store.connect(), "secret/variables/x")
        assert access.StoreAccess(backend.config)._outcome(store, fault.value) is outcome
        # Two attempts before, and one now.
        assert len(cloud.requests) * 2 == asked * 3
    assert recorder.requests == []


# aws_iam: https://developer.hashicorp.com/vault/api-docs/auth/aws#login


def verified_signature(body: dict[str, Any], secret_key: str) -> tuple[dict[str, str], str]:
    """Check the signed request that *body* carries, as STS would; give its headers and what it was signed for.

    Written from "Create a signed AWS API request" (AWS IAM user guide), without the signer under test.
    """
    assert body["iam_http_request_method"] == "POST"
    url = base64.b64decode(body["iam_request_url"]).decode()
    payload = base64.b64decode(body["iam_request_body"])
    assert (url, payload) == ("https://sts.amazonaws.com/", b"Action=GetCallerIdentity&Version=2011-06-15")
    several = json.loads(base64.b64decode(body["iam_request_headers"]))
    headers = {name.lower(): values[0] for name, values in several.items() if len(values) == 1}
    assert len(headers) == len(several)
    assert headers["host"] == urlsplit(url).hostname
    algorithm, _, rest = headers["authorization"].partition(" ")
    assert algorithm == "AWS4-HMAC-SHA256"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    signed_names = parts["SignedHeaders"].split(";")
    assert signed_names == sorted(set(headers) - {"authorization"})
    _, date, region, service, end = parts["Credential"].rsplit("/", 4)
    assert (service, end) == ("sts", "aws4_request")
    canonical = "\n".join(
        [
            "POST",
            "/",
            "",
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed_names),
            "",
            ";".join(signed_names),
            hashlib.sha256(payload).hexdigest(),
        ]
    )
    stamp = headers["x-amz-date"]
    to_sign = "\n".join(
        [algorithm, stamp, f"{date}/{region}/sts/aws4_request", hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, "sts", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    assert hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest() == parts["Signature"]
    signed_at = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.timezone.utc)
    assert abs(dt.datetime.now(dt.timezone.utc) - signed_at) < dt.timedelta(minutes=5)  # AWS takes no older one
    return headers, region


@pytest.fixture
def no_aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs.module("botocore", "aws")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_by_keys(recorder: Proxy) -> None:
    keys = {"auth_type": "aws_iam", "key_id": "AKIAEXAMPLE", "secret_id": "S3cr3t+/key"}
    path, body = login_of(recorder, **keys, role_id="airflow")
    assert path == "/v1/auth/aws/login"
    assert body.pop("role") == "airflow"
    headers, region = verified_signature(body, "S3cr3t+/key")
    assert region == "us-east-1"
    assert "Credential=AKIAEXAMPLE/" in headers["authorization"]
    assert "x-amz-security-token" not in headers
    path, body = login_of(
        recorder, **keys, region="eu-west-1", header_value="vault.example.org", auth_mount_point="aws-x"
    )
    assert path == "/v1/auth/aws-x/login"
    assert body["role"] == ""
    headers, region = verified_signature(body, "S3cr3t+/key")
    assert region == "eu-west-1"
    assert headers["x-vault-aws-iam-server-id"] == "vault.example.org"


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_by_the_environments_session(recorder: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-token")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    _, body = login_of(recorder, auth_type="aws_iam")
    headers, region = verified_signature(body, "S3cr3t")
    assert headers["x-amz-security-token"] == "session-token"
    assert region == "eu-central-1"


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_by_keys_that_no_request_can_hold_is_this_hosts_fault(
    recorder: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t\n")
    backend = asking(url=recorder.url, auth_type="aws_iam", max_attempts=3)
    with pytest.raises(StoreMisconfigured, match="white space around AWS_SECRET_ACCESS_KEY") as raised:
        backend.get_variable("x")
    assert raised.value.on_the_way
    assert recorder.requests == []


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_in_a_role(recorder: Proxy, sts: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t")
    role = {"RoleArn": "arn:aws:iam::123456789012:role/airflow", "RoleSessionName": "me"}
    _, body = login_of(recorder, auth_type="aws_iam", assume_role_kwargs=json.dumps(role))
    (assumed,) = sts.requests
    asked = parse_qs(assumed.body.decode())
    assert (asked["Action"], asked["RoleArn"]) == (["AssumeRole"], [role["RoleArn"]])
    headers = json.loads(base64.b64decode(body["iam_request_headers"]))
    assert "X-Amz-Security-Token" in headers
    assert "AKIAEXAMPLE" not in headers["Authorization"][0]


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_by_a_command_that_hangs_once(recorder: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next lookup does not wait for the one that was left behind, nor does that one go on."""
    keys = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "S3cr3t"}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\n[ -e {tmp_path}/fixed ] || exec sleep 3600\ncat {tmp_path}/keys.json\n")
    command.chmod(0o700)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {command}\n")
    backend = asking(url=recorder.url, auth_type="aws_iam", timeout=2, max_attempts=1)
    before = set(threading.enumerate())
    with pytest.raises(StoreUnavailable, match="no answer within"):
        backend.get_variable("x")
    (tmp_path / "fixed").touch()
    assert backend.get_variable("x") == "seen"
    for thread in set(threading.enumerate()) - before:
        if thread.name == "secrets-lookup":
            thread.join(60)
            assert not thread.is_alive()


def test_login_that_hangs_holds_up_no_other(recorder: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds up the thread that was left behind, and for however long."""
    from airflow_providers_secrets.stores.vault import login as vault_login

    hanging, go_on = threading.Event(), threading.Event()

    def content(*_: object) -> str:
        if not hanging.is_set():
            hanging.set()
            go_on.wait(60)
        return "ghp_x"

    monkeypatch.setattr(vault_login, "file_content", content)
    backend = asking(url=recorder.url, auth_type="github", token_path="/of/a/network", timeout=1, max_attempts=1)
    try:
        with pytest.raises(StoreUnavailable, match="no answer within"):
            backend.get_variable("x")
        assert backend.get_variable("x") == "seen"
    finally:
        go_on.set()


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_by_a_profile_that_asks_for_a_code(
    recorder: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is there to type it; botocore would read it from the terminal."""
    (tmp_path / "config").write_text(
        "[profile keys]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = S3cr3t\n"
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/airflow\nsource_profile = keys\n"
        "mfa_serial = arn:aws:iam::123456789012:mfa/me\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "role")
    with pytest.raises(ConfigurationError, match="MFA"):
        asking(url=recorder.url, auth_type="aws_iam").get_variable("x")


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_without_credentials(recorder: Proxy) -> None:
    with pytest.raises(StoreMisconfigured, match="no AWS credentials"):
        asking(url=recorder.url, auth_type="aws_iam").get_variable("x")
    assert recorder.requests == []


def sts_error(status: int, code: str) -> Reply:
    """https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"""
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>S3cr3t</Message></Error></ErrorResponse>"
    return Reply(status, body.encode(), {"Content-Type": "text/xml"})


@pytest.mark.usefixtures("no_aws_environment", "short_pauses")
@pytest.mark.parametrize(
    ("reply", "code", "outcome"),
    [
        (sts_error(503, "ServiceUnavailable"), "AWS login: ServiceUnavailable", Outcome.UNAVAILABLE),
        (Reply(502, b"<html>S3cr3t"), "AWS login: HTTP 502", Outcome.UNAVAILABLE),
        (sts_error(400, "Throttling"), "AWS login: Throttling", Outcome.THROTTLED),
        (sts_error(400, "IDPCommunicationError"), "AWS login: IDPCommunicationError", Outcome.UNAVAILABLE),
        (sts_error(403, "AccessDenied"), r"AWS login refused \(AccessDenied\)", LOGIN_REFUSED),
        (sts_error(403, "InvalidClientTokenId"), r"AWS login refused \(InvalidClientTokenId\)", LOGIN_REFUSED),
    ],
    ids=["down", "proxy", "throttled", "passing", "denied", "unknown-key"],
)
def test_aws_iam_that_sts_gives_no_role(
    recorder: Proxy, monkeypatch: pytest.MonkeyPatch, reply: Reply, code: str, outcome: Any
) -> None:
    sts = Proxy()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t")
    role = json.dumps({"RoleArn": "arn:aws:iam::123456789012:role/airflow"})
    with sts.fault(reply):
        told(outcome, code, recorder, sts, auth_type="aws_iam", assume_role_kwargs=role)
    sts.stop()


@pytest.mark.usefixtures("no_aws_environment")
def test_aws_iam_that_is_refused_a_containers_credentials(recorder: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    container = Proxy()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{container.url}/credentials")
    with container.fault(Reply(403, b"S3cr3t")):
        told(LOGIN_REFUSED, "credentials refused with HTTP 403", recorder, container, auth_type="aws_iam")
    container.stop()


@pytest.mark.usefixtures("no_aws_environment")
def test_certificate_of_an_sts_that_nobody_trusts(
    recorder: Proxy, sts: Proxy, behind_tls: BehindTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bundle = behind_tls(sts.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t")
    options = {"auth_type": "aws_iam", "assume_role_kwargs": {"RoleArn": "arn:aws:iam::123456789012:role/airflow"}}
    said = r"CERTIFICATE_VERIFY_FAILED: .*\. Name the CA bundle of the login's server in REQUESTS_CA_BUNDLE, or in AWS_CA_BUNDLE for STS\."
    with pytest.raises(StoreMisconfigured, match=said) as raised:
        asking(url=recorder.url, **options).get_variable("x")
    assert raised.value.on_the_way
    assert sts.requests == recorder.requests == []
    answers.reset_after_fork()  # as a process that has just started
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    login_of(recorder, **options)


@pytest.mark.usefixtures("no_aws_environment")
@pytest.mark.parametrize("role", [{"Foo": "S3cr3t"}, {"RoleArn": 5}, {}], ids=repr)
def test_aws_iam_with_arguments_that_sts_does_not_know(
    recorder: Proxy, monkeypatch: pytest.MonkeyPatch, role: dict[str, Any]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cr3t")
    said = r"ParamValidationError\. Correct 'assume_role_kwargs'"
    given = {"DurationSeconds": 900, **role}
    with pytest.raises(StoreMisconfigured, match=said) as raised:
        asking(url=recorder.url, auth_type="aws_iam", assume_role_kwargs=given).get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    assert recorder.requests == []


# gcp: https://developer.hashicorp.com/vault/api-docs/auth/gcp#login and /vault/docs/auth/gcp#generating-jwts


@pytest.fixture
def google_auth() -> None:
    needs.module("google.auth", "google")


RSA_KEY = rsa.generate_private_key(65537, 2048)
ACCOUNT = "airflow@project.iam.gserviceaccount.com"
ACCOUNT_KEY = {
    "type": "service_account",
    "project_id": "project",
    "private_key_id": "key-id",
    "private_key": RSA_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode(),
    "client_email": ACCOUNT,
    "client_id": "1",
    "token_uri": "https://oauth2.googleapis.com/token",
}


@pytest.mark.usefixtures("google_auth")
@pytest.mark.parametrize("given", ["dict", "json", "file", "escaped", "escaped file"])
def test_gcp_by_key(recorder: Proxy, given: str, tmp_path: Path) -> None:
    # As keys from environment variables often are.
    escaped = {**ACCOUNT_KEY, "private_key": ACCOUNT_KEY["private_key"].replace("\n", "\\n")}
    file = tmp_path / "key.json"
    file.write_text(json.dumps(escaped if given == "escaped file" else ACCOUNT_KEY))
    options = {
        "dict": {"gcp_keyfile_dict": ACCOUNT_KEY},
        "json": {"gcp_keyfile_dict": json.dumps(ACCOUNT_KEY), "gcp_scopes": "https://a,https://b"},
        "file": {"gcp_key_path": str(file)},
        "escaped": {"gcp_keyfile_dict": json.dumps(escaped)},
        "escaped file": {"gcp_key_path": str(file)},
    }[given]
    path, body = login_of(recorder, auth_type="gcp", role_id="airflow", **options)
    assert path == "/v1/auth/gcp/login"
    assert body["role"] == "airflow"
    assert set(body) == {"role", "jwt"}
    assert jwt.get_unverified_header(body["jwt"])["kid"] == "key-id"
    claims = jwt.decode(body["jwt"], RSA_KEY.public_key(), ["RS256"], audience="vault/airflow", leeway=5)
    assert claims["sub"] == ACCOUNT
    assert 0 < claims["exp"] - claims["iat"] <= 900


@pytest.mark.usefixtures("google_auth")
@pytest.mark.parametrize("by", ["gcp_keyfile_dict", "gcp_key_path"])
@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (
            {"type": "service_account", "private_key": "S3cr3t"},
            "must be a service account key, and lacks 'client_email'",
        ),
        ({**ACCOUNT_KEY, "type": "S3cr3t"}, "must be a service account key, whose 'type'"),
        ({**ACCOUNT_KEY, "private_key": "S3cr3t"}, "is no service account key"),
    ],
    ids=["part", "type", "bad"],
)
def test_gcp_by_a_key_that_is_none(recorder: Proxy, key: dict[str, Any], fault: str, by: str, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(key))
    given = {"gcp_keyfile_dict": key, "gcp_key_path": str(tmp_path / "key.json")}[by]
    with pytest.raises(ConfigurationError, match=f"'{by}':? (its file )?{fault}") as raised:
        asking(url=recorder.url, auth_type="gcp", role_id="r", **{by: given}).get_variable("x")
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


def test_gcp_by_part_of_a_key_is_refused_at_construction() -> None:
    with pytest.raises(ConfigurationError, match="'gcp_keyfile_dict' must be a service account key, and lacks"):
        VaultBackend(url="https://vault", auth_type="gcp", role_id="r", gcp_keyfile_dict={"type": "service_account"})


GOOGLE_JSON = {"Content-Type": "application/json"}


@pytest.fixture
def google(google_auth: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """Google's APIs, and credentials of the environment that hold no key: a workload's own, traded for an account's.

    https://google.aip.dev/auth/4117
    """
    from airflow_providers_secrets.stores.vault import cloud_login

    proxy = Proxy()
    (tmp_path / "token").write_text("of-the-workload")
    credentials = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/locations/global/workforcePools/pool/providers/provider",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{proxy.url}/v1/token",
        "credential_source": {"file": str(tmp_path / "token")},
        "service_account_impersonation_url": f"{proxy.url}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken",
    }
    (tmp_path / "credentials.json").write_text(json.dumps(credentials))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    monkeypatch.setattr(cloud_login, "IAM_CREDENTIALS_URL", f"{proxy.url}/v1")
    yield proxy
    proxy.stop()


def access_token(request: Request) -> Reply | None:
    """Answer the two steps to the account's access token."""
    if request.path == "/v1/token":
        body: dict[str, Any] = {
            "access_token": "federated",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }
    elif request.path.endswith(":generateAccessToken"):
        body = {"accessToken": "of-the-account", "expireTime": "2999-01-01T00:00:00Z"}
    else:
        return None
    return Reply(200, json.dumps(body).encode(), GOOGLE_JSON)


SIGNED = Reply(200, b'{"keyId": "k", "signedJwt": "signed-by-google"}', GOOGLE_JSON)


def checked_sign_request(request: Request, token: str) -> None:
    """https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signJwt"""
    assert request.method == "POST"
    assert request.path == f"/v1/projects/-/serviceAccounts/{ACCOUNT.replace('@', '%40')}:signJwt"
    assert request.headers["authorization"] == f"Bearer {token}"
    claims = json.loads(json.loads(request.body)["payload"])
    assert (claims["aud"], claims["sub"]) == ("vault/airflow", ACCOUNT)
    assert 0 < claims["exp"] - claims["iat"] <= 900


def test_gcp_by_credentials_without_a_key(recorder: Proxy, google: Proxy) -> None:
    with google.fault(lambda request: access_token(request) or SIGNED):
        path, body = login_of(recorder, auth_type="gcp", role_id="airflow")
    assert (path, body) == ("/v1/auth/gcp/login", {"role": "airflow", "jwt": "signed-by-google"})
    checked_sign_request(google.requests[-1], "of-the-account")


@pytest.mark.usefixtures("google_auth")
def test_gcp_by_a_machines_account(recorder: Proxy, tmp_path: Path) -> None:
    """https://cloud.google.com/compute/docs/metadata/overview; in a process of its own, since google-auth reads
    where the metadata server is when it is imported."""

    def answer(request: Request) -> Reply:
        headers = {"Metadata-Flavor": "Google", **GOOGLE_JSON}
        path = urlsplit(request.path).path
        if path.endswith(":signJwt"):
            return SIGNED
        if path.endswith("/token"):
            body = {"access_token": "of-the-machine", "expires_in": 3600, "token_type": "Bearer"}
            return Reply(200, json.dumps(body).encode(), headers)
        if path.endswith("/service-accounts/default/"):
            return Reply(200, json.dumps({"email": ACCOUNT, "scopes": []}).encode(), headers)
        return Reply(
            200, b"googleapis.com" if "universe" in path else b"project", {**headers, "Content-Type": "text/plain"}
        )

    machine = Proxy()
    host = f"127.0.0.1:{machine.port}"
    environment = {
        "GCE_METADATA_HOST": host,
        "GCE_METADATA_IP": host,
        "CLOUDSDK_CONFIG": str(tmp_path),
        "HOME": str(tmp_path),
    }
    code = (
        "from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend\n"
        "from airflow_providers_secrets.stores.vault import cloud_login\n"
        f"cloud_login.IAM_CREDENTIALS_URL = '{machine.url}/v1'\n"
        f"print(VaultBackend(url='{recorder.url}', auth_type='gcp', role_id='airflow').get_variable('x'))\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GOOGLE_")}
    with machine.fault(answer):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**inherited, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "seen" in run.stdout.splitlines(), run.stderr  # google-auth may log what it still looks for
    assert json.loads(recorder.requests[0].body) == {"role": "airflow", "jwt": "signed-by-google"}
    checked_sign_request(machine.requests[-1], "of-the-machine")
    machine.stop()


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (Reply(403, b"S3cr3t"), StoreMisconfigured, "signJwt refused with HTTP 403"),
        (Reply(503, b"S3cr3t"), StoreUnavailable, r"signJwt failed \(HTTP 503\)"),
        (Reply(200, b"S3cr3t"), StoreUnavailable, "signJwt gave no JWT"),
        (Reply(200, b"S3cr3t" * 9999, endless=True), StoreUnavailable, r"signJwt failed \(the answer is longer than"),
    ],
    ids=["denied", "down", "malformed", "endless"],
)
def test_gcp_that_does_not_sign(
    recorder: Proxy, google: Proxy, reply: Reply, error: type[Exception], code: str
) -> None:
    backend = asking(url=recorder.url, auth_type="gcp", role_id="airflow", max_attempts=1)
    with google.fault(lambda request: access_token(request) or reply), pytest.raises(error, match=code) as raised:
        backend.get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    assert recorder.requests == []


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(
    ("reply", "code", "outcome"),
    [
        (Reply(503, b"S3cr3t"), r"Google login unavailable \(HTTP 503\)", Outcome.UNAVAILABLE),
        (
            Reply(429, b'{"error": "S3cr3t"}', GOOGLE_JSON),
            r"Google login unavailable \(HTTP 429\)",
            Outcome.UNAVAILABLE,
        ),
        (Reply(reset=True), "Google login unavailable: connection closed without an answer", Outcome.UNAVAILABLE),
        (Reply(400, b'{"error": "S3cr3t"}', GOOGLE_JSON), r"Google login refused \(HTTP 400\)", LOGIN_REFUSED),
    ],
    ids=["down", "throttled", "reset", "refused"],
)
def test_gcp_that_google_gives_no_token(recorder: Proxy, google: Proxy, reply: Reply, code: str, outcome: Any) -> None:
    with google.fault(reply):
        told(outcome, code, recorder, google, auth_type="gcp", role_id="airflow")


def test_certificate_of_googles_token_endpoint_that_nobody_trusts(
    recorder: Proxy, google: Proxy, behind_tls: BehindTls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bundle = behind_tls(google.port)
    file = tmp_path / "credentials.json"
    file.write_text(file.read_text().replace(google.url, url))
    said = r"CERTIFICATE_VERIFY_FAILED: .*\. Name the CA bundle of the login's server in REQUESTS_CA_BUNDLE, or in AWS_CA_BUNDLE for STS\."
    with pytest.raises(StoreMisconfigured, match=said):
        asking(url=recorder.url, auth_type="gcp", role_id="airflow").get_variable("x")
    assert google.requests == recorder.requests == []
    answers.reset_after_fork()  # as a process that has just started
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    with google.fault(lambda request: access_token(request) or SIGNED):
        login_of(recorder, auth_type="gcp", role_id="airflow")


def test_gcp_whose_signing_is_redirected_asks_nobody_else(recorder: Proxy, google: Proxy) -> None:
    """A JWT of another host would be sent to Vault, and what it is to say to that host."""
    elsewhere = Proxy()
    moved = Reply(307, headers={"Location": f"{elsewhere.url}/v1"})
    backend = asking(url=recorder.url, auth_type="gcp", role_id="airflow", max_attempts=1)
    with (
        elsewhere.fault(SIGNED),
        google.fault(lambda request: access_token(request) or moved),
        pytest.raises(StoreUnavailable, match=r"signJwt failed \(HTTP 307\)"),
    ):
        backend.get_variable("x")
    elsewhere.stop()
    assert elsewhere.requests == []
    assert recorder.requests == []


def test_gcp_that_may_not_sign_is_remembered(recorder: Proxy, google: Proxy) -> None:
    denied = Reply(403, b"S3cr3t")
    with google.fault(lambda request: access_token(request) or denied):
        told(LOGIN_REFUSED, "signJwt refused with HTTP 403", recorder, google, auth_type="gcp", role_id="airflow")


# azure: https://developer.hashicorp.com/vault/api-docs/auth/azure#login


@pytest.fixture
def no_azure_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    needs.module("azure.identity", "azure")
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_azure_environment")
@pytest.mark.parametrize("client_id", [None, "00000000-1111-2222-3333-444444444444"])
def test_azure_by_managed_identity(recorder: Proxy, monkeypatch: pytest.MonkeyPatch, client_id: str | None) -> None:
    """https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference"""
    azure = Proxy()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    expires = int(time.time()) + 3600
    body = {"access_token": "of-azure", "expires_on": str(expires), "resource": "r", "token_type": "Bearer"}
    reply = Reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
    options = {"azure_resource": "https://vault.example.org", **({"key_id": client_id} if client_id else {})}
    with azure.fault(reply):
        path, sent = login_of(recorder, auth_type="azure", role_id="airflow", **options)
    assert (path, sent) == ("/v1/auth/azure/login", {"role": "airflow", "jwt": "of-azure"})
    asked = parse_qs(urlsplit(azure.requests[0].path).query)
    assert asked["resource"] == ["https://vault.example.org"]
    assert asked.get("client_id") == ([client_id] if client_id else None)
    assert azure.requests[0].headers["X-IDENTITY-HEADER"] == "header"
    azure.stop()


@pytest.mark.usefixtures("no_azure_environment")
def test_azure_token_that_is_cut_short_is_in_no_log(
    recorder: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    azure = Proxy()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    cut = Reply(200, b'{"access_token": "S3cr3t-token", "expires_on": "1', {"Content-Type": "application/json"})
    asked = asking(url=recorder.url, auth_type="azure", role_id="airflow", azure_resource="https://v", max_attempts=1)
    with azure.fault(cut), pytest.raises(LookupFailed):
        asked.get_variable("x")
    assert "S3cr3t" not in caplog.text
    azure.stop()


@pytest.mark.usefixtures("no_azure_environment", "short_pauses")
@pytest.mark.parametrize(
    ("reply", "code", "outcome"),
    [
        (Reply(503, b"S3cr3t"), r"Azure login: HTTP 503\. Check that the server of the login", Outcome.UNAVAILABLE),
        (Reply(429, b"S3cr3t"), "Azure login: HTTP 429", Outcome.THROTTLED),
        (Reply(500, b"S3cr3t"), "Azure login: HTTP 500", Outcome.UNAVAILABLE),
        (
            Reply(reset=True),
            r"Azure login: connection closed without an answer\. Check that the server of the login",
            Outcome.UNAVAILABLE,
        ),
        (Reply(400, b'{"error": "S3cr3t"}', GOOGLE_JSON), "Azure login refused", LOGIN_REFUSED),
    ],
    ids=["down", "throttled", "failing", "reset", "refused"],
)
def test_azure_that_gives_no_token(
    recorder: Proxy, monkeypatch: pytest.MonkeyPatch, reply: Reply, code: str, outcome: Any
) -> None:
    azure = Proxy()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    with azure.fault(reply):
        told(outcome, code, recorder, azure, auth_type="azure", role_id="airflow", azure_resource="https://v")
    azure.stop()


@pytest.mark.usefixtures("no_azure_environment")
def test_azure_by_client_secret(recorder: Proxy, vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
    authority = vault.server.authority
    entra = Proxy()
    internet = Internet(entra.port, authority.issue("login.microsoftonline.com"))
    monkeypatch.setenv("HTTPS_PROXY", internet.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    tenant = "99999999-1111-2222-3333-444444444444"
    base = f"https://login.microsoftonline.com/{tenant}"
    discovery = {
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "issuer": f"{base}/v2.0",
    }
    token = {"access_token": "of-entra", "expires_in": 3600, "token_type": "Bearer"}

    def answer(request: Request) -> Reply:
        body = token if request.method == "POST" else discovery
        return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    secret = {"azure_tenant_id": tenant, "key_id": "client", "secret_id": "S3cr3t"}
    with entra.fault(answer):
        path, sent = login_of(recorder, auth_type="azure", role_id="airflow", azure_resource="https://v", **secret)
    assert (path, sent) == ("/v1/auth/azure/login", {"role": "airflow", "jwt": "of-entra"})
    request = entra.requests[-1]
    assert request.path == f"/{tenant}/oauth2/v2.0/token"
    asked = parse_qs(request.body.decode())
    assert (asked["client_id"], asked["client_secret"]) == (["client"], ["S3cr3t"])
    assert (asked["grant_type"], asked["scope"]) == (["client_credentials"], ["https://v/.default"])
    with entra.fault(Reply(401, b'{"error": "invalid_client", "error_description": "S3cr3t"}')):
        answers.reset_after_fork()
        with pytest.raises(StoreMisconfigured, match="ClientAuthenticationError") as raised:
            asking(
                url=recorder.url, auth_type="azure", role_id="airflow", azure_resource="https://v", **secret
            ).get_variable("x")
    assert "S3cr3t" not in str(raised.value)
    with entra.fault(Reply(503, b"S3cr3t")):
        answers.reset_after_fork()
        with pytest.raises(StoreUnavailable, match="Azure login: HTTP 503"):
            asking(
                url=recorder.url, auth_type="azure", role_id="airflow", azure_resource="https://v", **secret
            ).get_variable("x")
    internet.stop()
    entra.stop()


@pytest.mark.usefixtures("no_azure_environment")
def test_certificate_of_entra_that_nobody_trusts(
    recorder: Proxy, vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    entra = Proxy()
    internet = Internet(entra.port, vault.server.authority.issue("login.microsoftonline.com"))
    monkeypatch.setenv("HTTPS_PROXY", internet.url)
    tenant = "99999999-1111-2222-3333-444444444444"
    secret = {"azure_tenant_id": tenant, "key_id": "client", "secret_id": "S3cr3t"}
    said = (
        r"Azure login: CERTIFICATE_VERIFY_FAILED: .*\. Name the CA bundle of the login's server in REQUESTS_CA_BUNDLE"
    )
    with pytest.raises(StoreMisconfigured, match=said) as raised:
        asking(
            url=recorder.url, auth_type="azure", role_id="airflow", azure_resource="https://v", **secret
        ).get_variable("x")
    assert raised.value.on_the_way
    assert entra.requests == recorder.requests == []
    internet.stop()
    entra.stop()


@pytest.mark.usefixtures("no_azure_environment")
def test_entra_that_cannot_be_reached_is_told_with_the_cause(recorder: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    said = rf"Azure login: connection refused \(127\.0\.0\.1 port {port}\)\. Check that host and port are right"
    credentials = {"azure_tenant_id": "tenant", "key_id": "client", "secret_id": "S3cr3t"}
    with pytest.raises(StoreUnavailable, match=said):
        asking(
            url=recorder.url,
            auth_type="azure",
            role_id="airflow",
            azure_resource="https://v",
            max_attempts=1,
            **credentials,
        ).get_variable("x")
    assert recorder.requests == []


@pytest.mark.parametrize("auth_type", ["aws_iam", "azure", "gcp"])
def test_missing_sdk_of_a_login_names_its_extra(
    recorder: Proxy, auth_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra, module = {
        "aws_iam": ("aws", "botocore.session"),
        "azure": ("azure", "azure.identity"),
        "gcp": ("google", "google.auth"),
    }[auth_type]
    monkeypatch.setitem(sys.modules, module, None)
    options = {"role_id": "r", "azure_resource": "x"}
    with pytest.raises(MissingDependencyError, match=rf"airflow-providers-secrets\[{extra}\]"):
        asking(url=recorder.url, auth_type=auth_type, **options).get_variable("x")
