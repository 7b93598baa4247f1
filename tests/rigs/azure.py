"""Azure Key Vault's backend on a vault played here, with the token endpoints that azure-identity logs in at.

The vault keeps to https://learn.microsoft.com/rest/api/keyvault/secrets and its challenge to
https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import ssl
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
from tests.proxy import Proxy, Reply, Request
from tests.rigs import Rig, needs
from tests.rigs.openbao import Authority

TENANT = "8a5ea0f4-0000-4000-8000-000000000001"
CLIENT = "8a5ea0f4-0000-4000-8000-00000000000c"
CLIENT_SECRET = "client-secret-of-the-tests"
RESOURCE = "https://vault.azure.net"
API_VERSIONS = ("7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01")
NAME = re.compile(r"[0-9A-Za-z-]{1,127}")


def json_reply(status: int, body: Any, how: dict[str, Any] | None = None, **headers: str) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}, **(how or {}))


def azure_error(status: int, code: str, message: str, inner: str | None = None, **headers: str) -> Reply:
    """An error as Key Vault spells it."""
    error: dict[str, Any] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return json_reply(status, {"error": error}, **headers)


def is_login(request: Request) -> bool:
    """Tell the request that asks for the challenge from those with a token."""
    return "Authorization" not in request.headers


class TlsServer(Proxy):
    """Answers by itself over TLS.

    :param certificate: paths of the certificate and its key; without, it speaks in the clear.
    """

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            # The handshake is the handling thread's business, so that a slow client holds up no other.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def reply(self, request: Request) -> Reply | None:
        return super().reply(request) or self.answer(request)

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError


class Entra(TlsServer):
    """A Microsoft Entra authority for every tenant: it knows one application, by secret, certificate or another's token.

    :ivar life: seconds that its tokens live.
    :ivar certificate: the application's certificate in PEM, for assertions signed by it.
    :ivar federated: the token of another issuer that it takes for the application.
    """

    def __init__(self, certificate: tuple[str, str]) -> None:
        super().__init__(certificate)
        self.life = 3600
        self.certificate: bytes | None = None
        self.federated: str | None = None
        self.tokens: dict[str, tuple[str, float]] = {}
        self._numbers = itertools.count(1)

    @property
    def logins(self) -> list[dict[str, str]]:
        """The token requests so far."""
        forms = (request for request in self.requests if request.path.endswith("/oauth2/v2.0/token"))
        return [{k: v[0] for k, v in parse_qs(form.body.decode()).items()} for form in forms]

    def issued(self, resource: str) -> dict[str, Any]:
        """Give a token for *resource*."""
        token = f"T0k3n-{next(self._numbers)}"
        self.tokens[token] = (resource, time.monotonic() + self.life)
        return {"token_type": "Bearer", "access_token": token, "expires_in": self.life, "ext_expires_in": self.life}

    def answer(self, request: Request) -> Reply:
        path = urlsplit(request.path).path
        tenant = path.split("/")[1]
        if path.endswith("/.well-known/openid-configuration"):
            here = f"{self.url}/{tenant}"
            return json_reply(
                200,
                {
                    "issuer": f"{here}/v2.0",
                    "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{here}/oauth2/v2.0/token",
                },
            )
        if not path.endswith("/oauth2/v2.0/token"):
            return json_reply(404, {"error": "not_found"})
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("client_id") != CLIENT or not self._proven(form, f"{self.url}{path}"):
            # https://learn.microsoft.com/entra/identity-platform/reference-error-codes
            words = f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}"
            return json_reply(401, {"error": "invalid_client", "error_description": words})
        return json_reply(200, self.issued(form["scope"].removesuffix("/.default")))

    def _proven(self, form: dict[str, str], endpoint: str) -> bool:
        if "client_secret" in form:
            return form["client_secret"] == CLIENT_SECRET
        assertion = form.get("client_assertion", "")
        if self.federated is not None and assertion == self.federated:
            return True
        if self.certificate is None:
            return False
        import jwt
        from cryptography.x509 import load_pem_x509_certificate

        key: Any = load_pem_x509_certificate(self.certificate).public_key()
        with contextlib.suppress(jwt.InvalidTokenError):
            claims = jwt.decode(assertion, key, algorithms=["RS256", "PS256", "ES256"], audience=endpoint)
            return bool(claims["iss"] == CLIENT)
        return False


class Metadata(TlsServer):
    """The managed identity endpoints of a virtual machine (IMDS) and of App Service, in the clear as those are.

    :ivar assigned: client ids of the user-assigned identities; ``None`` is the system-assigned one.
    """

    HEADER = "header-of-the-app-service"

    def __init__(self, entra: Entra) -> None:
        super().__init__()
        self._entra = entra
        self.assigned: set[str | None] = {None}

    def answer(self, request: Request) -> Reply:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        machine = parts.path == "/metadata/identity/oauth2/token" and request.headers.get("Metadata") == "true"
        service = parts.path == "/msi/token" and request.headers.get("X-IDENTITY-HEADER") == self.HEADER
        if not machine and not service:
            return json_reply(400, {"error": "invalid_request", "error_description": "Required metadata header"})
        if query.get("client_id") not in self.assigned:
            return json_reply(400, {"error": "invalid_request", "error_description": "Identity not found"})
        token = self._entra.issued(query["resource"])
        token["expires_on"] = str(int(time.time()) + self._entra.life)
        return json_reply(200, {**token, "resource": query["resource"], "expires_in": str(token["expires_in"])})


class Vault(TlsServer):
    """A vault that takes the tokens of *entra*.

    :ivar claims: what it asks the next token to hold besides, as JSON.
    """

    def __init__(self, certificate: tuple[str, str], entra: Entra) -> None:
        super().__init__(certificate)
        self._entra = entra
        self.resource = RESOURCE
        self.claims: str | None = None
        self.secrets: dict[str, dict[str, Any]] = {}
        self.deleted: dict[str, dict[str, Any]] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Reply:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if query.get("api-version") not in API_VERSIONS:
            return azure_error(400, "BadParameter", "The specified version is not recognized.")
        if refusal := self._refusal(request):
            return refusal
        return self.do(request.method, parts.path, query, request.body)

    def _refusal(self, request: Request) -> Reply | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        resource, ends = self._entra.tokens.get(token, ("", 0.0))
        if resource == self.resource and time.monotonic() < ends and not self.claims:
            return None
        challenge = f'Bearer authorization="{self._entra.url}/{TENANT}", resource="{self.resource}"'
        if token and self.claims:
            encoded = base64.b64encode(self.claims.encode()).decode()
            challenge += f', error="insufficient_claims", claims="{encoded}"'
            self.claims = None
        return azure_error(401, "Unauthorized", "AKV10000: S3cr3t", **{"WWW-Authenticate": challenge})

    def do(self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"") -> Reply:
        """Answer a request that may do what it likes."""
        _, collection, *rest = unquote(path).split("/")
        name = rest[0] if rest else ""
        with self._lock:
            if (method, collection, name) == ("GET", "secrets", ""):
                return self._page(query or {})
            if not NAME.fullmatch(name):
                return azure_error(400, "BadParameter", f"The request URI contains an invalid name: {name}")
            key = name.lower()
            if (method, collection) == ("PUT", "secrets"):
                if key in self.deleted:
                    return azure_error(
                        409, "Conflict", "Secret is currently in a deleted state", "ObjectIsDeletedButRecoverable"
                    )
                given = json.loads(body)
                known = self.secrets.get(key)
                self.secrets[key] = {
                    "value": given["value"],
                    "id": f"{self.url}/secrets/{_name(known) if known else name}/{next(self._versions):032x}",
                    "attributes": {"enabled": True, "recoveryLevel": "Recoverable", **given.get("attributes", {})},
                }
                return json_reply(200, self.secrets[key])
            if (method, collection) == ("DELETE", "deletedsecrets"):
                return Reply(204) if self.deleted.pop(key, None) else self._absent(name)
            if key not in self.secrets or collection != "secrets":
                return self._absent(name)
            if method == "DELETE":
                self.deleted[key] = self.secrets.pop(key)
                return json_reply(200, {**self.deleted[key], "recoveryId": f"{self.url}/deletedsecrets/{name}"})
            if not self.secrets[key]["attributes"]["enabled"]:
                words = "Operation get is not allowed on a disabled secret."
                return azure_error(403, "Forbidden", words, "SecretDisabled")
            return json_reply(200, self.secrets[key])

    def _page(self, query: dict[str, str]) -> Reply:
        size = int(query.get("maxresults", "25"))
        if not 1 <= size <= 25:
            return azure_error(400, "BadParameter", "maxresults is out of range")
        after = query.get("$skiptoken", "")
        keys = sorted(key for key in self.secrets if key > after)
        items = [
            {"id": self.secrets[key]["id"].rpartition("/")[0], "attributes": self.secrets[key]["attributes"]}
            for key in keys[:size]
        ]
        # As the service spells them: with the port, and with an empty last page now and then.
        version, token = query.get("api-version", ""), quote(keys[size - 1]) if len(keys) >= size else ""
        link = f"{self.url}/secrets?api-version={version}&$skiptoken={token}&maxresults={size}" if token else None
        return json_reply(200, {"value": items, "nextLink": link})

    def _absent(self, name: str) -> Reply:
        words = (
            f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you "
            "may be able to recover it using the correct recovery command."
        )
        return azure_error(404, "SecretNotFound", words)


def _name(secret: dict[str, Any]) -> str:
    return str(secret["id"]).split("/secrets/")[1].split("/")[0]


class AzureRig(Rig):
    """A vault, asked by an application with a client secret."""

    name = "azure-loopback"
    backend_class = AzureKeyVaultBackend
    class_path = "airflow_providers_secrets.backends.azure_key_vault.AzureKeyVaultBackend"
    extra = "azure"
    sdk = "azure.identity"

    def __init__(self) -> None:
        needs.module("azure.identity", self.extra)
        self.directory = Path(tempfile.mkdtemp(prefix="azure-"))
        self.authority = Authority(self.directory)
        certificate = self.authority.issue("server")
        self.entra = Entra(certificate)
        self.metadata = Metadata(self.entra)
        self.proxy = Vault(certificate, self.entra)

    def options(self) -> dict[str, Any]:
        return {
            **self.vault_options(),
            "authority": self.entra.url,
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
        }

    def vault_options(self) -> dict[str, Any]:
        """Where the vault is, without who asks. Its host is not of the domain that it asks tokens for."""
        return {
            "vault_url": self.proxy.url,
            "connection_verify": str(self.authority.bundle),
            "verify_challenge_resource": False,
        }

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        base = f"airflow-{kind}" if base is None else base.rstrip("-")
        name = f"{team}--{secret_id}" if team else secret_id
        # The vault ignores case.
        return (f"{base}-{name}" if base else name).replace("_", "-").lower()

    def put(self, path: str, text: str, **attributes: Any) -> None:
        body = json.dumps({"value": text, "attributes": attributes}).encode()
        assert self.proxy.do("PUT", f"/secrets/{path}", body=body).status == 200

    def remove(self, path: str) -> None:
        self.proxy.do("DELETE", f"/secrets/{path}")
        self.proxy.do("DELETE", f"/deletedsecrets/{path}")

    @property
    def calls(self) -> list[str]:
        asked = [urlsplit(request.path).path for request in self.proxy.requests if not is_login(request)]
        return [path.removeprefix("/secrets/") for path in asked]

    def fault(self, fault: str) -> contextlib.AbstractContextManager[None]:
        def found(**how: Any) -> Reply:
            name = how.pop("name", "airflow-variables-found")
            return json_reply(200, {"value": "S3cr3t-value", "id": f"{self.proxy.url}/secrets/{name}/1"}, how)

        faults: dict[str, Reply] = {
            "denied": azure_error(403, "Forbidden", "S3cr3t is not authorized", "ForbiddenByRbac"),
            "throttled": azure_error(429, "Throttled", "S3cr3t: too many requests"),
            "server-error": azure_error(500, "InternalServerError", "S3cr3t"),
            "proxy-404": Reply(404, b"<html>S3cr3t-page: not found</html>", {"Content-Type": "text/html"}),
            "malformed": Reply(200, b'{"S3cr3t": ', {"Content-Type": "application/json"}),
            "truncated": found(truncate=True),
            "reset": Reply(reset=True),
            "hang": Reply(hang=True),
            "drip": found(drip=0.1),
            "wrong-name": found(name="another-name"),
        }
        return self.proxy.fault(lambda request: None if is_login(request) else faults[fault])

    def stop(self) -> None:
        for server in (self.proxy, self.metadata, self.entra):
            server.stop()
