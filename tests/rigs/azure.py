"""Azure Key Vault's backend on a vault played here, with the token endpoints that azure-identity logs in at.

The vault keeps to https://learn.microsoft.com/rest/api/keyvault/secrets and its challenge to
https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses.
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
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from airflow_providers_secrets.testing.tls import TlsFront
from tests.rigs import PAGE, Answer, Rig, answer_to, http_faults
from tests.rigs.identities import Internet
from tests.support import needs
from tests.support.authority import Authority

TENANT = "8a5ea0f4-0000-4000-8000-000000000001"
CLIENT = "8a5ea0f4-0000-4000-8000-00000000000c"
PRINCIPAL = "8a5ea0f4-0000-4000-8000-0000000000a1"
CLIENT_SECRET = "client-secret-of-the-tests"
RESOURCE = "https://vault.azure.net"
WRITTEN = 1_790_000_000
"""When every version was written, by the clock of the vault."""
JSON = {"Content-Type": "application/json"}
LOWKEY_VAULT = "SECRETS_TEST_LOWKEY_VAULT"
"""The variable that says where a `lowkey-vault` listens, a Key Vault by others: host:port."""
API_VERSIONS = ("7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01")


def json_reply(status: int, body: Any, how: dict[str, Any] | None = None, **headers: str) -> Reply:
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}, **(how or {}))


def azure_error(status: int, code: str, message: str, inner: str | None = None, **headers: str) -> Reply:
    """An error as Key Vault spells it."""
    error: dict[str, Any] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return json_reply(status, {"error": error}, **headers)


def _segment(part: dict[str, Any]) -> str:
    """Spell a part of a JSON Web Token (RFC 7519)."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def is_login(request: Request) -> bool:
    """Tell the request that asks for the challenge from those with a token."""
    return "Authorization" not in request.headers


class Server(Proxy):
    """Answers by itself.

    :ivar tls_port: where it is reached with TLS, if it is.
    """

    tls_port: int | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}" if self.tls_port else super().url

    def reply(self, request: Request) -> Reply | None:
        return super().reply(request) or self.answer(request)

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError


class Entra(Server):
    """A Microsoft Entra authority for every tenant: it knows one application, by secret, certificate or another's token.

    :ivar life: seconds that its tokens live.
    :ivar certificate: the application's certificate in PEM, for assertions signed by it.
    :ivar federated: the token of another issuer that it takes for the application.
    """

    def __init__(self) -> None:
        super().__init__()
        self.life = 3600
        self.certificate: bytes | None = None
        self.federated: str | None = None
        self.tokens: dict[str, tuple[str, float]] = {}
        self._numbers = itertools.count(1)

    @property
    def logins(self) -> list[dict[str, str]]:
        """The token requests so far."""
        forms = (request for request in self.requests if request.path.endswith("/oauth2/v2.0/token"))
        return [dict(parse_qsl(form.body.decode())) for form in forms]

    def issued(self, resource: str) -> dict[str, Any]:
        """Give a token for *resource*."""
        claims = {"aud": resource, "appid": CLIENT, "oid": PRINCIPAL, "tid": TENANT}
        token = ".".join((_segment({"alg": "none"}), _segment(claims), f"T0k3n-{next(self._numbers)}"))
        self.tokens[token] = (resource, time.monotonic() + self.life)
        return {"token_type": "Bearer", "access_token": token, "expires_in": self.life, "ext_expires_in": self.life}

    def answer(self, request: Request) -> Reply:
        path = urlsplit(request.path).path
        tenant = path.split("/")[1]
        here = f"https://{request.headers['Host']}/{tenant}"
        if path.endswith("/.well-known/openid-configuration"):
            return json_reply(
                200,
                {
                    "issuer": f"{here}/v2.0",
                    "authorization_endpoint": f"{here}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{here}/oauth2/v2.0/token",
                },
            )
        if path == "/common/discovery/instance":
            host = request.headers["Host"]
            metadata = {"preferred_network": host, "preferred_cache": host, "aliases": [host]}
            return json_reply(200, {"api-version": "1.1", "metadata": [metadata]})
        if not path.endswith("/oauth2/v2.0/token"):
            return json_reply(404, {"error": "not_found"})
        form = dict(parse_qsl(request.body.decode()))
        if form.get("client_id") != CLIENT or not self._proven(form, f"{here}/oauth2/v2.0/token"):
            # https://learn.microsoft.com/entra/identity-platform/reference-error-codes
            words = "AADSTS7000215: Invalid client secret provided. Ensure that it is not the secret's ID."
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


class Metadata(Server):
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
        query = dict(parse_qsl(parts.query))
        machine = parts.path == "/metadata/identity/oauth2/token" and request.headers.get("Metadata") == "true"
        service = parts.path == "/msi/token" and request.headers.get("X-IDENTITY-HEADER") == self.HEADER
        if not machine and not service:
            return json_reply(400, {"error": "invalid_request", "error_description": "Required metadata header"})
        if query.get("client_id") not in self.assigned:
            return json_reply(400, {"error": "invalid_request", "error_description": "Identity not found"})
        token = self._entra.issued(query["resource"])
        token["expires_on"] = str(int(time.time()) + self._entra.life)
        return json_reply(200, {**token, "resource": query["resource"], "expires_in": str(token["expires_in"])})


class Vault(Server):
    """A vault that takes the tokens of *entra*.

    :ivar tenant: whose tokens it says to take.
    :ivar resource: what it says that they must be for.
    :ivar claims: what it asks the next token to hold besides, as JSON.
    """

    def __init__(self, entra: Entra) -> None:
        super().__init__()
        self._entra = entra
        self.tenant = TENANT
        self.resource = RESOURCE
        self.claims: str | None = None
        self.secrets: dict[str, dict[str, Any]] = {}
        self.deleted: dict[str, dict[str, Any]] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Reply:
        parts = urlsplit(request.path)
        query = dict(parse_qsl(parts.query))
        if query.get("api-version") not in API_VERSIONS:
            return azure_error(400, "BadParameter", "The specified version is not recognized.")
        return self.challenge(request) or self.do(
            request.method, parts.path, request.body, query, f"https://{request.headers['Host']}"
        )

    def challenge(self, request: Request) -> Reply | None:
        """Say how to log in, where the request has no valid token."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        resource, ends = self._entra.tokens.get(token, ("", 0.0))
        if resource == RESOURCE and time.monotonic() < ends and not self.claims:
            return None
        header = f'Bearer authorization="https://login.windows.net/{self.tenant}", resource="{self.resource}"'
        if token and self.claims:
            encoded = base64.b64encode(self.claims.encode()).decode()
            header += f', error="insufficient_claims", claims="{encoded}"'
            self.claims = None
        return azure_error(401, "Unauthorized", "AKV10000: S3cr3t", **{"WWW-Authenticate": header})

    def do(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        query: dict[str, str] | None = None,
        base: str = "https://vault",
    ) -> Reply:
        """Answer a request of somebody who may do anything."""
        _, collection, name = (*unquote(path).split("/"), "")[:3]
        with self._lock:
            if (method, collection, name) == ("GET", "secrets", ""):
                return self._page(query or {}, base)
            if not re.fullmatch("[0-9A-Za-z-]{1,127}", name):
                return azure_error(400, "BadParameter", f"The request URI contains an invalid name: {name}")
            if (method, collection) == ("PUT", "secrets"):
                return self._set(name, json.loads(body), base)
            if (method, collection) == ("DELETE", "deletedsecrets"):
                return Reply(204) if self.deleted.pop(name.lower(), None) else absent(name)
            secret = self.secrets.get(name.lower()) if collection == "secrets" else None
            if secret is None:
                return absent(name)
            if method == "DELETE":
                self.deleted[name.lower()] = self.secrets.pop(name.lower())
                return json_reply(200, {**quoted(secret, base), "recoveryId": f"{base}/deletedsecrets/{name}"})
            if not secret["attributes"]["enabled"]:
                words = "Operation get is not allowed on a disabled secret."
                return azure_error(403, "Forbidden", words, "SecretDisabled")
            return json_reply(200, {**quoted(secret, base), "value": secret["value"]})

    def _set(self, name: str, given: dict[str, Any], base: str) -> Reply:
        if name.lower() in self.deleted:
            words = "Secret is currently in a deleted but recoverable state, and its name cannot be reused"
            return azure_error(409, "Conflict", words, "ObjectIsDeletedButRecoverable")
        # Names ignore case and stay as they were first written.
        known = self.secrets.get(name.lower(), {"name": name})["name"]
        self.secrets[name.lower()] = {
            "name": known,
            "version": f"{next(self._versions):032x}",
            "value": given["value"],
            "attributes": {
                "enabled": True,
                "created": WRITTEN,
                "updated": WRITTEN,
                "recoveryLevel": "Recoverable",
                **given.get("attributes", {}),
            },
            # A new version has nothing of the one before.
            "described": {name: given[name] for name in ("contentType", "tags") if given.get(name) is not None},
        }
        return json_reply(200, quoted(self.secrets[name.lower()], base))

    def _page(self, query: dict[str, str], base: str) -> Reply:
        size = int(query.get("maxresults", "25"))
        if not 1 <= size <= 25:
            return azure_error(400, "BadParameter", "maxresults is out of range")
        keys = sorted(key for key in self.secrets if key > query.get("$skiptoken", ""))[:size]
        items = [quoted(self.secrets[key], base, version=False) for key in keys]
        link = None
        if len(keys) == size:  # a full last page is followed by an empty one, as the service may
            version = query.get("api-version", "")
            link = f"{base}/secrets?api-version={version}&$skiptoken={quote(keys[-1])}&maxresults={size}"
        return json_reply(200, {"value": items, "nextLink": link})


def quoted(secret: dict[str, Any], base: str, *, version: bool = True) -> dict[str, Any]:
    """Give a secret's identifier and attributes."""
    identifier = f"{base}/secrets/{secret['name']}"
    return {
        "id": f"{identifier}/{secret['version']}" if version else identifier,
        "attributes": secret["attributes"],
        **secret["described"],
    }


def absent(name: str) -> Reply:
    words = (
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you "
        "may be able to recover it using the correct recovery command."
    )
    return azure_error(404, "SecretNotFound", words)


class Cloud(Server):
    """The vault and the authority by their real hosts, behind an HTTPS proxy.

    :ivar environment: the variables that make a process find them there, and trust them.
    """

    VAULT_URL = "https://airflow-tests.vault.azure.net"

    def __init__(self, vault: Vault, entra: Entra, certificate: tuple[str, str], bundle: Path) -> None:
        super().__init__()
        self._vault, self._entra = vault, entra
        self._internet = Internet(self.port, certificate)
        self.environment = {
            "HTTPS_PROXY": self._internet.url,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(bundle),
        }

    def reply(self, request: Request) -> Reply | None:
        server = self._entra if request.headers["Host"].startswith("login.") else self._vault
        server.requests.append(request)
        return server.reply(request)

    def stop(self) -> None:
        self._internet.stop()
        super().stop()


class AzureRig(Rig):
    """A vault, asked by an application with a client secret."""

    name = "azure-loopback"
    backend_class = AzureKeyVaultBackend
    class_path = "airflow_providers_secrets.backends.azure_key_vault.AzureKeyVaultBackend"
    ambient = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "IDENTITY_ENDPOINT", "AZURE_FEDERATED_TOKEN_FILE")
    extra = "azure"
    sdk = "azure.keyvault.secrets"

    def __init__(self) -> None:
        needs.module("azure.keyvault.secrets", self.extra)
        self.directory = Path(tempfile.mkdtemp(prefix="azure-"))
        self.authority = Authority(self.directory)
        self.bundle = self.authority.bundle
        certificate = self.authority.issue("127.0.0.1", "*.vault.azure.net", "login.microsoftonline.com")
        self.entra = Entra()
        self.metadata = Metadata(self.entra)
        self.proxy = self.vault()
        self.tls = TlsFront(certificate, self.entra.port, self.proxy.port)
        self.entra.tls_port, self.proxy.tls_port = self.tls.ports
        self.elsewhere = Proxy()
        self.elsewhere.reply = lambda _: json_reply(  # type: ignore[method-assign]
            200, {"value": "S3cr3t-elsewhere", "id": f"{self.proxy.url}/secrets/airflow-variables-found/1"}
        )
        self.cloud = Cloud(self.proxy, self.entra, certificate, self.bundle)

    def vault(self) -> Vault:
        """Make the vault."""
        return Vault(self.entra)

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
            "connection_verify": str(self.bundle),
            "verify_challenge_resource": False,
        }

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        base = f"airflow-{kind}" if base is None else base.rstrip("-")
        name = f"{team}--{secret_id}" if team else secret_id
        # The vault ignores case.
        return (f"{base}-{name}" if base else name).replace("_", "-").lower()

    def put(self, path: str, text: str, **attributes: Any) -> None:
        body = json.dumps({"value": text, "attributes": attributes}).encode()
        assert self.proxy.do("PUT", f"/secrets/{path}", body).status == 200

    def remove(self, path: str) -> None:
        self.proxy.do("DELETE", f"/secrets/{path}")
        self.proxy.do("DELETE", f"/deletedsecrets/{path}")

    @property
    def calls(self) -> list[str]:
        asked = [urlsplit(request.path).path for request in self.proxy.requests if not is_login(request)]
        return [
            PAGE if path.rstrip("/") == "/secrets" else path.removeprefix("/secrets/").rstrip("/") for path in asked
        ]

    def faults(self) -> dict[str, Answer]:
        def found(_: Request, *, name: str = "airflow-variables-found", **how: Any) -> Reply:
            return json_reply(200, {"value": "S3cr3t-value", "id": f"{self.proxy.url}/secrets/{name}/1"}, how)

        common = http_faults(
            denied=azure_error(403, "Forbidden", "S3cr3t is not authorized", "ForbiddenByRbac"),
            throttled=azure_error(429, "Throttled", "S3cr3t: too many requests"),
            server_error=azure_error(500, "InternalServerError", "S3cr3t"),
            found=found,
            wrong_name=lambda request: found(request, name="another-name"),
            content_type="application/json",
        )
        return {
            **common,
            "redirect": Reply(307, headers={"Location": f"{self.elsewhere.url}/secrets/airflow-variables-found"}),
            "throttled-for-an-hour": azure_error(429, "Throttled", "S3cr3t", **{"Retry-After": "3600"}),
        }

    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        def reply(request: Request) -> Reply | None:
            spared = is_login(request) or (listings and urlsplit(request.path).path.rstrip("/") != "/secrets")
            return None if spared else answer_to(request, answer)

        return self.proxy.fault(reply)

    @property
    def requests(self) -> list[Request]:
        return [*self.proxy.requests, *self.entra.requests]

    def page(self, names: list[str], more: str | None) -> Reply:
        listed = [{"id": f"{self.proxy.url}/secrets/{name}", "attributes": {"enabled": True}} for name in names]
        link = f"{self.proxy.url}/secrets?api-version=7.4&$skiptoken={more}"
        return json_reply(200, {"value": listed, "nextLink": link if more else None})

    def stop(self) -> None:
        for server in (self.tls, self.cloud, self.elsewhere, self.proxy, self.metadata, self.entra):
            server.stop()


class LowkeyVault(Vault):
    """Gives challenges and checks tokens by itself, and asks a running lowkey-vault, which has the secrets.

    That takes any token, and its challenge names no tenant.
    """

    def __init__(self, entra: Entra, address: str) -> None:
        super().__init__(entra)
        self._address = address
        # A vault of this process's own, in which a name can be used again.
        self._host = f"airflow-{os.getpid()}-{self.port}.localhost:{address.rpartition(':')[2]}"
        made = {"baseUri": f"https://{self._host}", "recoveryLevel": "CustomizedRecoverable+Purgeable"}
        reply = self.ask("POST", "/management/vault", json.dumps({**made, "recoverableDays": 7}).encode())
        assert reply.status == 200, reply

    def answer(self, request: Request) -> Reply:
        if reply := self.challenge(request):
            return reply
        path = urlsplit(request.path).path.rstrip("/")
        if path.removeprefix("/secrets/") in self.secrets:
            return self.do(request.method, path)
        reply = self.ask(request.method, request.path, request.body)
        # Identifiers and links name the vault; here it is called by the rig's own address.
        reply.body = reply.body.replace(f"//{self._host}".encode(), f"//{request.headers['Host']}".encode())
        return reply

    def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Send one request there, for this process's vault."""
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(self._address, timeout=30, context=trusting)
        try:
            headers = {"Host": self._host, "Authorization": "Bearer any", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = answer.read()
        finally:
            connection.close()
        # Its codes are the names of its classes; the service's own: learn.microsoft.com/azure/key-vault/secrets
        found = re.sub(rb'"code":"com\.github\.[A-Za-z.]+\.NotFoundException"', b'"code":"SecretNotFound"', found)
        return Reply(answer.status, found, {"Content-Type": answer.getheader("Content-Type") or ""})


class LowkeyVaultRig(AzureRig):
    """lowkey-vault behind the rig's own server, which counts and injects faults."""

    name = "azure-lowkey-vault"
    api = "?api-version=7.4"

    def vault(self) -> Vault:
        return LowkeyVault(self.entra, os.environ[LOWKEY_VAULT])

    def put(self, path: str, text: str, **attributes: Any) -> None:
        if not text.strip():  # which Key Vault takes, and lowkey-vault does not
            super().put(path, text, **attributes)
            return
        self.proxy.secrets.pop(path, None)
        body = json.dumps({"value": text, "attributes": attributes}).encode()
        reply = self._ask("PUT", f"/secrets/{path}", body)
        assert reply.status == 200, reply

    def remove(self, path: str) -> None:
        assert self._ask("DELETE", f"/secrets/{path}").status == 200
        assert self._ask("DELETE", f"/deletedsecrets/{path}").status == 204

    def _ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        assert isinstance(self.proxy, LowkeyVault)
        return self.proxy.ask(method, path + self.api, body)
