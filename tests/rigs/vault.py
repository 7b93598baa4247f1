"""HashiCorp Vault's backend on OpenBao, behind a proxy that counts and injects faults."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.lookup import access
from airflow_providers_secrets.stores.vault.store import Vault
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs import PAGE, Answer, Rig, answer_to, http_faults
from tests.rigs.openbao import ROOT_TOKEN, openbao
from tests.support import needs

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.vault.client import VaultClient


def vault_error(status: int, *errors: str, **headers: str) -> Reply:
    """An error as Vault's API spells it."""
    body = json.dumps({"errors": list(errors)}).encode()
    return Reply(status, body, {"Content-Type": "application/json", **headers})


def vault_answer(data: Any, status: int = 200, **how: Any) -> Reply:
    """An answer as Vault's API spells it."""
    return Reply(status, json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}, **how)


def asking(**options: Any) -> VaultBackend:
    """A backend that asks Vault at each lookup, unless *options* say otherwise."""
    return VaultBackend(**{"cache_ttl": 0, **options})


def by_token(rig: VaultRig, **options: Any) -> VaultBackend:
    """A backend that asks Vault at each lookup, and needs no login."""
    return asking(**{"url": rig.proxy.url, "token": ROOT_TOKEN, **options})


def opened(backend: VaultBackend) -> tuple[Vault, VaultClient]:
    """The store of *backend*, and a client of its own."""
    store = access.loaded_store(backend.config)
    assert isinstance(store, Vault)
    return store, store.connect()


def is_login(request: Request) -> bool:
    """Tell logins, renewals and the question for the engine's version from reads."""
    return request.path.startswith(("/v1/auth/", "/v1/sys/"))


class VaultRig(Rig):
    """KV version 2 at its default mount, by AppRole."""

    name = "vault-openbao"
    backend_class = VaultBackend
    class_path = "airflow_providers_secrets.backends.hashicorp_vault.VaultBackend"
    ambient = ("VAULT_TOKEN", "VAULT_ROLE_ID")
    extra = "vault"
    sdk = "hvac"
    prefix_option = "{kind}_path"

    def __init__(self) -> None:
        needs.module("hvac", self.extra)
        self.server = openbao()
        self.proxy = Proxy(("127.0.0.1", self.server.port))
        self.elsewhere = Proxy()
        self.elsewhere.reply = lambda _: vault_answer({"data": {"value": "S3cr3t"}})  # type: ignore[method-assign]
        writing = ("create", "read", "update", "delete", "list")
        self.server.policy("everything-in-secret", "secret/data/*", "secret/metadata/*", capabilities=writing)
        self.server.enable("approle")
        self.server.api("POST", "auth/approle/role/airflow", {"token_policies": "everything-in-secret"})
        self.role_id = self.server.api("GET", "auth/approle/role/airflow/role-id")["data"]["role_id"]
        self.secret_id = self.server.api("POST", "auth/approle/role/airflow/secret-id")["data"]["secret_id"]

    def options(self) -> dict[str, Any]:
        return {
            "url": self.proxy.url,
            "auth_type": "approle",
            "role_id": self.role_id,
            "secret_id": self.secret_id,
        }

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        base = kind if base is None else base.rstrip("/")
        return "/".join(part for part in ("secret", base, team, secret_id) if part)

    def put(self, path: str, text: str) -> None:
        self.write(path, self.fields(text) if "connections/" in path else {"value": text})

    def fields(self, text: str) -> dict[str, Any]:
        """A connection as its fields, where *text* is a JSON object."""
        with contextlib.suppress(ValueError, RecursionError):
            parsed = json.loads(text)
            if isinstance(parsed, dict):
                return parsed
        return {"conn_uri": text}

    def write(self, path: str, data: dict[str, Any]) -> None:
        """Write a new version of a secret."""
        self.server.api("POST", self.api_path(path, "data"), {"data": data})

    def remove(self, path: str) -> None:
        self.server.api("DELETE", self.api_path(path, "metadata"))

    def api_path(self, path: str, endpoint: str) -> str:
        mount, _, within = path.partition("/")
        return f"{mount}/{endpoint}/{quote(within)}"

    @property
    def calls(self) -> list[str]:
        return [self.asked(request) for request in self.proxy.requests if not is_login(request)]

    @staticmethod
    def asked(request: Request) -> str:
        if request.method == "LIST":
            return PAGE
        return unquote(request.path).removeprefix("/v1/").replace("secret/data/", "secret/", 1)

    @property
    def logins(self) -> list[str]:
        """The paths of the logins so far."""
        return [request.path for request in self.proxy.requests if request.path.startswith("/v1/auth/")]

    def faults(self) -> dict[str, Answer]:
        found = {"data": {"value": "S3cr3t-value"}, "metadata": {"version": 1}}
        common = http_faults(
            denied=vault_error(403, "1 error occurred:\n\t* S3cr3t: permission denied\n\n"),
            throttled=vault_error(429, 'request path "S3cr3t": rate limit quota exceeded'),
            server_error=vault_error(500, "S3cr3t: internal error"),
            found=lambda _, **how: vault_answer(found, **how),
            # Vault does not echo the path; the answer to a listing is what another request could be given.
            wrong_name=vault_answer({"keys": ["S3cr3t"]}),
            content_type="application/json",
        )
        return {
            **common,
            # The proxy itself is 127.0.0.1, and a standby's redirect keeps the path.
            "redirect": lambda request: Reply(
                307, headers={"Location": f"http://localhost:{self.elsewhere.port}{request.path}"}
            ),
            "throttled-for-an-hour": vault_error(429, "S3cr3t", **{"Retry-After": "3600"}),
        }

    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        def reply(request: Request) -> Reply | None:
            spared = is_login(request) or (listings and request.method != "LIST")
            return None if spared else answer_to(request, answer)

        return self.proxy.fault(reply)

    @property
    def requests(self) -> list[Request]:
        return self.proxy.requests

    def page(self, names: list[str], more: str | None) -> Reply:
        keys = [name.rpartition("/")[2] for name in names]
        return vault_answer({"keys": [*keys, f"{more}/"] if more else keys})

    def stop(self) -> None:
        self.proxy.stop()
        self.elsewhere.stop()
