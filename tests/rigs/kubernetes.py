"""Kubernetes Secrets' backend on an API server played here, or on a real one that a variable names.

The one played here keeps to https://kubernetes.io/docs/reference/kubernetes-api/ and to the conventions in
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from airflow_providers_secrets.backends.kubernetes_secrets import KubernetesSecretsBackend
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from airflow_providers_secrets.testing.tls import TlsFront
from tests.rigs import FROM_THE_STORE, PAGE, Answer, Rig, answer_to, http_faults
from tests.support import needs
from tests.support.authority import Authority

KUBECONFIG = "SECRETS_TEST_KUBERNETES"
"""The variable that names the kubeconfig of a real cluster, in whose namespaces the tests may write."""
NAMESPACE = "airflow"
TOKEN = "T0ken-of-the-tests"
WHO = f"system:serviceaccount:{NAMESPACE}:worker"
TEAM = "airflow.apache.org/team"
LABELS = {
    "connections": "airflow.apache.org/connection-id",
    "variables": "airflow.apache.org/variable-key",
    "config": "airflow.apache.org/config-key",
}
JSON = {"Content-Type": "application/json"}
PATCHES = {f"application/{kind}-patch+json" for kind in ("merge", "strategic-merge")}
"""The content types of a change that names nothing but what it changes."""

SECRETS = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret"}
VERBS = ["create", "delete", "get", "list", "patch"]
DISCOVERY = {
    ("GET", "/api"): {"kind": "APIVersions", "versions": ["v1"]},
    ("GET", "/apis"): {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    ("GET", "/api/v1"): {"kind": "APIResourceList", "groupVersion": "v1", "resources": [{**SECRETS, "verbs": VERBS}]},
    ("GET", "/openapi/v3"): {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=any"}}},
    ("GET", "/openapi/v3/api/v1"): {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": {
            "/api/v1/namespaces/{namespace}/secrets/{name}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query"}],  # the server checks, not kubectl
                    "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "Secret"},
                }
            }
        },
    },
}
"""What kubectl asks first: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api."""


def json_reply(status: int, body: Any, how: dict[str, Any] | None = None, **headers: str) -> Reply:
    return Reply(status, json.dumps(body).encode(), {**JSON, **headers}, **(how or {}))


def status(code: int, reason: str, message: str, details: Any = None, **headers: str) -> Reply:
    """A refusal as the API server spells it."""
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return json_reply(code, {**body, "reason": reason, "details": details or {}, "code": code}, **headers)


def absent(name: str) -> Reply:
    return status(404, "NotFound", f'secrets "{name}" not found', {"name": name, "kind": "secrets"})


def secret(name: str, labels: dict[str, str], data: dict[str, str], version: str = "1") -> dict[str, Any]:
    """A Secret whose *data* is in base64."""
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "resourceVersion": version},
        "data": data,
        "type": "Opaque",
    }


def listed(secrets: list[dict[str, Any]], more: str | None = None) -> dict[str, Any]:
    """A page as the API server spells it, whose items go without kind and version."""
    items = [{name: part for name, part in one.items() if name not in ("kind", "apiVersion")} for one in secrets]
    metadata = {"resourceVersion": "1", **({"continue": more} if more else {})}
    return {"kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": items}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def is_listing(request: Request) -> bool:
    """Tell a page of a kind's Secrets from a lookup, which lists what has one label's one value."""
    parts = urlsplit(request.path)
    selector = dict(parse_qsl(parts.query)).get("labelSelector", "")
    return request.method == "GET" and parts.path.endswith("/secrets") and "=" not in selector


class ApiServer(Proxy):
    """The part of an API server that serves Secrets, to whoever has the token.

    :ivar secrets: by namespace and name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, dict[str, Any]] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def reply(self, request: Request) -> Reply | None:
        if reply := super().reply(request):
            return reply
        reply = self.answer(request)
        reply.headers[FROM_THE_STORE] = "yes"
        return reply

    def answer(self, request: Request) -> Reply:
        headers = {name.lower(): value for name, value in request.headers.items()}
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if (scheme.lower(), token) != ("bearer", TOKEN):  # the scheme's case does not count (RFC 9110, section 11.1)
            return status(401, "Unauthorized", "Unauthorized")
        if request.method == "PATCH" and headers.get("content-type") not in PATCHES:
            return status(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        return self.do(request.method, request.path, request.body)

    def do(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Answer a request of somebody who may do anything."""
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        if (method, parts.path) == ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"):
            return json_reply(201, {"kind": "SelfSubjectReview", "status": {"userInfo": {"username": WHO}}})
        if (method, parts.path) in DISCOVERY:
            return json_reply(200, DISCOVERY[method, parts.path])
        found = re.fullmatch(rf"/api/v1/namespaces/{NAMESPACE}/secrets(?:/([^/]+))?", parts.path)
        if not found:
            return status(404, "NotFound", "the server could not find the requested resource")
        name = unquote(found[1] or "")
        with self._lock:
            if not name:
                return self._created(json.loads(body)) if method == "POST" else self._page(query)
            known = self.secrets.get(name)
            if known is None:
                return absent(name)
            if method == "DELETE":
                return self._deleted(name)
            if method == "PATCH":
                known["data"] = {**known.get("data", {}), **json.loads(body)["data"]}
                known["metadata"]["resourceVersion"] = str(next(self._versions))
            return json_reply(200, known)

    def _deleted(self, name: str) -> Reply:
        del self.secrets[name]
        return json_reply(200, {"kind": "Status", "status": "Success", "details": {"name": name, "kind": "secrets"}})

    def _created(self, given: dict[str, Any]) -> Reply:
        name = given["metadata"]["name"]
        if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
            return status(422, "Invalid", f'Secret "{name}" is invalid')
        if name in self.secrets:
            return status(409, "AlreadyExists", f'secrets "{name}" already exists')
        labels = given["metadata"].get("labels", {})
        data = given.get("data", {}) | {key: encoded(text) for key, text in given.get("stringData", {}).items()}
        self.secrets[name] = secret(name, labels, data, str(next(self._versions)))
        return json_reply(201, self.secrets[name])

    def _page(self, query: dict[str, str]) -> Reply:
        start, size = query.get("continue", ""), int(query.get("limit", "0")) or len(self.secrets) + 1
        terms = [term for term in query.get("labelSelector", "").split(",") if term]
        names = [name for name in sorted(self.secrets) if name > start and self._has(name, terms)]
        page = [self.secrets[name] for name in names[:size]]
        return json_reply(200, listed(page, names[size - 1] if len(names) > size else None))

    def _has(self, name: str, terms: list[str]) -> bool:
        labels = self.secrets[name]["metadata"]["labels"]
        for term in terms:
            label, equals, value = term.partition("=")
            fits = (
                labels.get(label) == value
                if equals
                else (label[1:] not in labels if label[0] == "!" else label in labels)
            )
            if not fits:
                return False
        return True


class KubernetesRig(Rig):
    """A namespace, looked into by the token of a kubeconfig."""

    name = "kubernetes-loopback"
    backend_class = KubernetesSecretsBackend
    class_path = "airflow_providers_secrets.backends.kubernetes_secrets.KubernetesSecretsBackend"
    prefix_option = "{kind}_label"
    ambient = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")
    extra = "kubernetes"
    sdk = "kubernetes"

    def __init__(self) -> None:
        needs.module("kubernetes", self.extra)
        self.directory = Path(tempfile.mkdtemp(prefix="kubernetes-"))
        self.authority = Authority(self.directory)
        self.proxy = self.api_server()
        self.tls = TlsFront(self.authority.issue("127.0.0.1"), self.proxy.port)
        self.elsewhere = Proxy()
        found = secret("elsewhere", {LABELS["variables"]: "found"}, {"value": encoded("S3cr3t-elsewhere")})
        self.elsewhere.reply = lambda _: json_reply(200, listed([found]))  # type: ignore[method-assign]
        self.kubeconfig = self.directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(self.configuration(f"https://127.0.0.1:{self.tls.ports[0]}")))

    def api_server(self) -> ApiServer:
        """Make the server."""
        return ApiServer()

    def configuration(self, server: str, token: str = TOKEN) -> dict[str, Any]:
        """A kubeconfig, which may be JSON."""
        cluster = {"server": server, "certificate-authority": str(self.authority.bundle)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "worker", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "worker", "namespace": NAMESPACE}}],
            "current-context": "tests",
        }

    def options(self) -> dict[str, Any]:
        return {"kubeconfig": str(self.kubeconfig)}

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        label = LABELS[kind] if base is None else base
        name = f"{label}={secret_id}" if label else secret_id
        return f"{name},{TEAM}={team}" if team else name

    def put(self, path: str, text: str) -> None:
        self.remove(path)
        labels = dict(label.split("=", 1) for label in path.split(",")) if "=" in path else {}
        name = f"any-name-{encoded(path).encode().hex()[-200:]}" if labels else path
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
        reply = self.proxy.do("POST", self.collection, json.dumps({**made, "data": {"value": encoded(text)}}).encode())
        assert reply.status == 201, reply

    def remove(self, path: str) -> None:
        items = json.loads(self.proxy.do("GET", self.collection).body)["items"]
        for item in items:
            labels = item["metadata"].get("labels") or {}
            spelled = {
                f"{label}={labels[label]}" + (f",{TEAM}={labels[TEAM]}" if TEAM in labels else "") for label in labels
            }
            if path in spelled or path == item["metadata"]["name"]:
                assert self.proxy.do("DELETE", f"{self.collection}/{item['metadata']['name']}").status == 200

    @property
    def collection(self) -> str:
        return f"/api/v1/namespaces/{NAMESPACE}/secrets"

    @property
    def calls(self) -> list[str]:
        asked = [request for request in self.proxy.requests if request.path.startswith("/api/")]
        return [PAGE if is_listing(request) else self.asked(request) for request in asked]

    @staticmethod
    def asked(request: Request) -> str:
        parts = urlsplit(request.path)
        selector = dict(parse_qsl(parts.query)).get("labelSelector", "")
        return selector.removesuffix(f",!{TEAM}") or unquote(parts.path.rpartition("/")[2])

    def faults(self) -> dict[str, Answer]:
        def found(_: Request, *, key: str = "found", **how: Any) -> Reply:
            held = secret("any", {LABELS["variables"]: key}, {"value": encoded("S3cr3t-value")})
            return json_reply(200, listed([held]), how)

        common = http_faults(
            denied=status(403, "Forbidden", 'secrets is forbidden: User "S3cr3t" cannot list resource "secrets"'),
            throttled=status(429, "TooManyRequests", "S3cr3t: too many requests"),
            server_error=status(500, "InternalError", "Internal error occurred: S3cr3t"),
            found=found,
            wrong_name=lambda request: found(request, key="another"),
            content_type="application/json",
        )
        return {
            **common,
            "redirect": lambda request: Reply(307, headers={"Location": f"{self.elsewhere.url}{request.path}"}),
            "undecodable": Reply(200, found(Request("GET", "/", {}, b"")).body.replace(b'"any"', b'"any\xff"'), JSON),
            "throttled-for-an-hour": status(429, "TooManyRequests", "S3cr3t", **{"Retry-After": "3600"}),
        }

    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        return self.proxy.fault(
            lambda request: None if listings and not is_listing(request) else answer_to(request, answer)
        )

    @property
    def requests(self) -> list[Request]:
        return self.proxy.requests

    def page(self, names: list[str], more: str | None) -> Reply:
        labels = [dict(label.split("=", 1) for label in name.split(",")) for name in names]
        return json_reply(200, listed([secret("any", one, {"value": encoded("listed")}) for one in labels], more))

    def stop(self) -> None:
        for server in (self.tls, self.elsewhere, self.proxy):
            server.stop()


class RealApiServer(ApiServer):
    """Checks tokens by itself, and asks a real API server, by a kubeconfig's token or certificate."""

    def __init__(self, kubeconfig: str) -> None:
        super().__init__()
        given = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = given["clusters"][0]["cluster"], given["users"][0]["user"]
        self._host = urlsplit(cluster["server"]).netloc
        self._tls = ssl.create_default_context(cafile=cluster.get("certificate-authority"))
        if "client-certificate" in user:
            self._tls.load_cert_chain(user["client-certificate"], user["client-key"])
        self._login = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        assert self.do("POST", "/api/v1/namespaces", json.dumps(made).encode()).status in (201, 409)

    def do(self, method: str, path: str, body: bytes = b"") -> Reply:
        connection = http.client.HTTPSConnection(self._host, timeout=30, context=self._tls)
        form = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            connection.request(method, path, body, {"Content-Type": form, **self._login})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), {"Content-Type": answer.getheader("Content-Type") or ""})
        finally:
            connection.close()


class RealKubernetesRig(KubernetesRig):
    """A real API server behind the rig's own, which counts and injects faults."""

    name = "kubernetes-api-server"

    def api_server(self) -> ApiServer:
        return RealApiServer(os.environ[KUBECONFIG])
