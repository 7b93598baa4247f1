"""Google Secret Manager's REST API on loopback, written from its documentation, and its gRPC API in front of it.

https://cloud.google.com/secret-manager/docs/reference/rest; errors: https://cloud.google.com/apis/design/errors.
What google-auth logs in at is here, too.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import datetime as dt
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import google.auth.jwt
import google_crc32c
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend
from airflow_providers_secrets.testing.processes import next_line
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs import FROM_THE_STORE, PAGE, Answer, Rig, answer_to, http_faults
from tests.support import needs
from tests.support.tcp import TcpProxy

PROJECT = "test-project"
TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"
PROJECT_NUMBER = "123456789098"
SERVICE_ACCOUNT = f"airflow@{PROJECT}.iam.gserviceaccount.com"
WIRE_FAULTS = frozenset({"proxy-404", "truncated", "reset", "drip"})
"""What is injected between gRPC's client and server, rather than behind the server."""

CREATED = "2026-03-04T05:06:07.000008Z"
"""When every secret was created."""

LOCALGCP = "SECRETS_TEST_LOCALGCP"
"""The variable that says where a `localgcp` listens, an implementation of the gRPC API by others: host:port."""


class Version(NamedTuple):
    data: bytes
    state: str = "ENABLED"
    crc32c: int | None = None


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public_key() -> bytes:
    encoding, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return _key().public_key().public_bytes(encoding, kind)


def service_account_key(token_uri: str = TOKEN_ENDPOINT) -> dict[str, str]:
    """A key file of the tests' service account."""
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = _key().private_bytes(encoding, kind, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "0123456789abcdef",
        "private_key": private.decode(),
        "client_email": SERVICE_ACCOUNT,
        "client_id": "1",
        "token_uri": token_uri,
    }


def google_error(status: int, code: str, message: str = "S3cr3t-message", **error: Any) -> Reply:
    """An error as Google's APIs spell it."""
    body = json.dumps({"error": {"code": status, "status": code, "message": message, **error}}).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=UTF-8"})


def throttled_for(seconds: str) -> Reply:
    """Throttling that names its end."""
    told = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds}s"}]
    return google_error(429, "RESOURCE_EXHAUSTED", details=told)


def google_answer(data: Any, status: int = 200, *, undecodable: bool = False, **how: Any) -> Reply:
    """An answer as Google's APIs spell it, or with *undecodable* one with a byte too many for UTF-8."""
    body = json.dumps({**data, "etag": "S3cr3t"} if undecodable else data).encode()
    body = body.replace(b"S3cr3t", b"S3cr3t\xff") if undecodable else body
    return Reply(status, body, {"Content-Type": "application/json; charset=UTF-8"}, **how)


def header(request: Request, name: str) -> str:
    """Give a header by its name in lower case; none is empty."""
    return {key.lower(): value for key, value in request.headers.items()}.get(name, "")


class SecretManager(Proxy):
    """The API. Who asks needs a token of :attr:`tokens`, or one that the tests' service account has signed.

    :ivar secrets: the versions of each secret, by its resource name with the project's id.
    :ivar aliases: the versions' numbers by their aliases.
    :ivar created: what each secret was created with, of those that were created by the API.
    """

    AUDIENCE = "https://secretmanager.googleapis.com/"

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, list[Version]] = {}
        self.aliases: dict[str, int] = {}
        self.created: dict[str, dict[str, Any]] = {}
        self.tokens: set[str] = set()
        self.page_size = 1000

    def put(self, name: str, *versions: Version) -> None:
        self.secrets[name] = [*self.secrets.get(name, ()), *versions]

    def reply(self, request: Request) -> Reply | None:
        return super().reply(request) or self.answer(request)

    def answer(self, request: Request) -> Reply:
        if not self._known(header(request, "authorization")):
            return google_error(401, "UNAUTHENTICATED")
        url = urlsplit(request.path)
        path = unquote(url.path).removeprefix("/v1/")
        query = dict(parse_qsl(url.query))
        if path.endswith(":access"):
            reply = self._access(*path.removesuffix(":access").rsplit("/versions/", 1))
        elif path.endswith(":addVersion"):
            reply = self._add(path.removesuffix(":addVersion"), json.loads(request.body))
        elif path.endswith("/versions"):
            reply = self._versions(path.removesuffix("/versions"))
        elif request.method == "POST":
            reply = self._create(path, query["secretId"], json.loads(request.body))
        elif request.method == "DELETE":
            reply = self._delete(path)
        else:
            reply = self._list(path, query)
        reply.headers[FROM_THE_STORE] = "yes"
        return reply

    def _known(self, authorization: str) -> bool:
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer":
            return False
        if token in self.tokens:
            return True
        with contextlib.suppress(Exception):
            claims = google.auth.jwt.decode(token, certs=public_key())
            # Scopes, or the service: https://developers.google.com/identity/protocols/oauth2/service-account
            fit = "cloud-platform" in claims.get("scope", "") or claims.get("aud") == self.AUDIENCE
            return claims["iss"] == SERVICE_ACCOUNT and fit
        return False

    def _access(self, secret: str, version: str) -> Reply:
        versions = self.secrets.get(secret, [])
        number = len(versions) if version == "latest" else self.aliases.get(version) or int(version)
        if not 1 <= number <= len(versions):
            return google_error(404, "NOT_FOUND", f"Secret [{secret}] not found or has no versions.")
        found = versions[number - 1]
        if found.state != "ENABLED":
            return google_error(400, "FAILED_PRECONDITION", f"Secret Version is in {found.state} state.")
        return google_answer(access_answer(f"{secret}/versions/{number}", found))

    def _add(self, secret: str, body: dict[str, Any]) -> Reply:
        if secret not in self.secrets:
            return google_error(404, "NOT_FOUND", f"Secret [{secret}] not found.")
        data = base64.b64decode(body["payload"]["data"])
        if int(body["payload"]["dataCrc32c"]) != google_crc32c.value(data):
            return google_error(400, "INVALID_ARGUMENT")
        self.put(secret, Version(data))
        return google_answer({"name": _answered(f"{secret}/versions/{len(self.secrets[secret])}"), "state": "ENABLED"})

    def _versions(self, secret: str) -> Reply:
        if secret not in self.secrets:
            return google_error(404, "NOT_FOUND", f"Secret [{secret}] not found.")
        numbers = range(len(self.secrets[secret]), 0, -1)
        return google_answer({"versions": [{"name": _answered(f"{secret}/versions/{number}")} for number in numbers]})

    def _create(self, path: str, secret_id: str, body: dict[str, Any]) -> Reply:
        name = f"{path}/{secret_id}"
        if name in self.secrets:
            return google_error(409, "ALREADY_EXISTS", f"Secret [{name}] already exists.")
        if ("replication" in body) == ("/locations/" in path):
            return google_error(400, "INVALID_ARGUMENT", "replication: for global secrets, and for these alone")
        self.put(name)
        self.created[name] = body
        return google_answer({"name": _answered(name), **body})

    def _delete(self, secret: str) -> Reply:
        if self.secrets.pop(secret, None) is None:
            return google_error(404, "NOT_FOUND", f"Secret [{secret}] not found.")
        return google_answer({})

    def _list(self, path: str, query: dict[str, str]) -> Reply:
        wanted = query.get("filter", "name:").removeprefix("name:")
        names = sorted(name for name in self.secrets if name.rpartition("/")[0] == path and wanted in name)
        start, size = int(query.get("pageToken") or 0), min(int(query.get("pageSize", "25000")), self.page_size)
        listed = [{"name": _answered(name), "createTime": CREATED} for name in names[start : start + size]]
        more = {"nextPageToken": str(start + size)} if start + size < len(names) else {}
        return google_answer({"secrets": listed, **more})


def access_answer(name: str, version: Version) -> dict[str, Any]:
    crc32c = google_crc32c.value(version.data) if version.crc32c is None else version.crc32c
    return {
        "name": _answered(name),
        "payload": {"data": base64.b64encode(version.data).decode(), "dataCrc32c": str(crc32c)},
    }


def _answered(name: str) -> str:
    """Google answers with the project's number."""
    return name.replace(f"projects/{PROJECT}/", f"projects/{PROJECT_NUMBER}/")


class Accounts(Proxy):
    """All that google-auth asks about an identity: tokens of every kind, the metadata server, and a project's id.

    https://developers.google.com/identity/protocols/oauth2/service-account, https://cloud.google.com/iam/docs/reference,
    https://cloud.google.com/compute/docs/metadata/overview

    :param api: gets the tokens to know; it is given the requests for its own host, too.
    :param directory: for the files that credential configurations name.
    :ivar life: seconds that tokens live.
    """

    REFRESH_TOKEN = "refresh-token-of-the-tests"
    SUBJECT_TOKEN = "token-of-another-cloud"

    def __init__(self, api: SecretManager, directory: Path) -> None:
        super().__init__()
        self._api = api
        self._directory = directory
        self._numbers = itertools.count(1)
        self.life = 3600
        self.project: str | None = PROJECT

    @property
    def asked(self) -> list[str]:
        """The paths of the requests so far. Where an account may be used from, some google-auth ask in between."""
        paths = [urlsplit(request.path).path for request in self.requests if not _is_for_api(request)]
        return [path for path in paths if not path.endswith("/allowedLocations")]

    def token(self) -> str:
        token = f"T0k3n-{next(self._numbers)}"
        self._api.tokens.add(token)
        return token

    def authorized_user(self) -> dict[str, str]:
        """A credential file as ``gcloud auth application-default login`` leaves it."""
        return {
            "type": "authorized_user",
            "client_id": "client",
            "client_secret": "client-secret-of-the-tests",
            "refresh_token": self.REFRESH_TOKEN,
        }

    def federation(self, subject_token: str = SUBJECT_TOKEN) -> dict[str, Any]:
        """A credential configuration as ``gcloud iam workload-identity-pools create-cred-config`` writes it."""
        pool = f"projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/pool/providers/provider"
        file = self._directory / "subject-token"
        file.write_text(subject_token)
        return {
            "type": "external_account",
            "audience": f"//iam.googleapis.com/{pool}",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/v1/token",
            "credential_source": {"file": str(file)},
        }

    def reply(self, request: Request) -> Reply | None:
        if _is_for_api(request):
            self._api.requests.append(request)
            return self._api.reply(request)
        return super().reply(request) or self._answer(request)

    def _answer(self, request: Request) -> Reply:
        path = urlsplit(request.path).path
        if path in ("/token", "/v1/token"):
            form = dict(parse_qsl(request.body.decode()))
            return self._granted() if self._proven(form) else google_answer({"error": "invalid_grant"}, 400)
        if path.endswith(":generateAccessToken"):
            if header(request, "authorization").removeprefix("Bearer ") not in self._api.tokens:
                return google_error(401, "UNAUTHENTICATED")
            ends = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=self.life)
            return google_answer({"accessToken": self.token(), "expireTime": f"{ends:%Y-%m-%dT%H:%M:%SZ}"})
        if path == f"/v1/projects/{PROJECT_NUMBER}":
            return google_answer({"projectId": self.project})
        return self._metadata(path)

    def _proven(self, form: dict[str, str]) -> bool:
        if form["grant_type"].endswith("jwt-bearer"):
            with contextlib.suppress(ValueError):
                claims = google.auth.jwt.decode(form["assertion"], certs=public_key(), audience=TOKEN_ENDPOINT)
                return bool(claims["iss"] == SERVICE_ACCOUNT)
            return False
        if form["grant_type"].endswith("token-exchange"):
            return form["subject_token"] == self.SUBJECT_TOKEN
        return form["refresh_token"] == self.REFRESH_TOKEN

    def _granted(self) -> Reply:
        return google_answer({"access_token": self.token(), "expires_in": self.life, "token_type": "Bearer"})

    def _metadata(self, path: str) -> Reply:
        # Older google-auth asks for the token by the account's address.
        path = path.replace(f"/service-accounts/{SERVICE_ACCOUNT}/", "/service-accounts/default/")
        account = "/computeMetadata/v1/instance/service-accounts/default/"
        texts = {
            "/": "",
            "/computeMetadata/v1/project/project-id": self.project,
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
        }
        flavour = {"Metadata-Flavor": "Google"}
        if (text := texts.get(path)) is not None:
            return Reply(200, text.encode(), {"Content-Type": "application/text", **flavour})
        if path == account:
            return google_answer({"email": SERVICE_ACCOUNT, "scopes": [], "aliases": ["default"]})
        if path == f"{account}token":
            return self._granted()
        return google_error(404, "NOT_FOUND")


def _is_for_api(request: Request) -> bool:
    return request.headers["Host"].startswith("secretmanager.")


def is_page(request: Request) -> bool:
    return request.method == "GET" and urlsplit(request.path).path.endswith("/secrets")


def asked(request: Request) -> str:
    """The name of the secret that is read or written."""
    url = urlsplit(request.path)
    created = dict(parse_qsl(url.query)).get("secretId")
    return created or unquote(url.path).split("/secrets/")[1].split("/")[0].split(":")[0]


class GoogleRestRig(Rig):
    """REST, by the key of a service account."""

    name = "google-rest"
    backend_class = CloudSecretManagerBackend
    class_path = "airflow_providers_secrets.backends.gcp_secret_manager.CloudSecretManagerBackend"
    ambient = ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "GCE_METADATA_HOST")
    extra = "google"
    sdk = "google.cloud.secretmanager_v1"

    def __init__(self) -> None:
        needs.module("google.cloud.secretmanager_v1", self.extra)
        _key()  # threads of a test that needed it at once would make several
        self.server = SecretManager()
        self.elsewhere = Proxy()
        self.elsewhere.reply = lambda _: google_answer(  # type: ignore[method-assign]
            access_answer(f"{self.resource('other')}/versions/1", Version(b"S3cr3t-elsewhere"))
        )

    @property
    def url(self) -> str:
        return self.server.url

    def options(self) -> dict[str, Any]:
        key = json.dumps(service_account_key())
        return {"transport": "rest", "endpoint": self.url, "gcp_keyfile_dict": key}

    def path(self, kind: str, secret_id: str, base: str | None = None, team: str | None = None) -> str:
        base = f"airflow-{kind}" if base is None else base
        return f"{base}-{team}--{secret_id}" if team else f"{base}-{secret_id}"

    def resource(self, path: str) -> str:
        return f"projects/{PROJECT}/secrets/{path}"

    def put(self, path: str, text: str) -> None:
        self.server.put(self.resource(path), Version(text.encode()))

    def remove(self, path: str) -> None:
        del self.server.secrets[self.resource(path)]

    @property
    def calls(self) -> list[str]:
        return [PAGE if is_page(request) else asked(request) for request in self.server.requests]

    def faults(self) -> dict[str, Answer]:
        found = access_answer(f"{self.resource('other')}/versions/1", Version(b"S3cr3t-value"))
        common = http_faults(
            denied=google_error(403, "PERMISSION_DENIED"),
            throttled=google_error(429, "RESOURCE_EXHAUSTED"),
            server_error=google_error(500, "INTERNAL"),
            found=lambda _, **how: google_answer(found, **how),
            wrong_name=google_answer(found),
            content_type="application/json",
        )
        return {
            **common,
            "redirect": Reply(307, headers={"Location": f"{self.elsewhere.url}/v1/stolen"}),
            "undecodable": google_answer(found, undecodable=True),  # values are in base64
            "throttled-for-an-hour": throttled_for("3600"),
        }

    def answering(self, answer: Answer, *, listings: bool = False) -> contextlib.AbstractContextManager[None]:
        return self.server.fault(
            lambda request: answer_to(request, answer) if is_page(request) or not listings else None
        )

    @property
    def requests(self) -> list[Request]:
        return self.server.requests

    def page(self, names: list[str], more: str | None) -> Reply:
        listed = [{"name": _answered(self.resource(name)), "createTime": CREATED} for name in names]
        return google_answer({"secrets": listed, **({"nextPageToken": more} if more else {})})

    def stop(self) -> None:
        self.elsewhere.stop()
        self.server.stop()


class GoogleGrpcRig(GoogleRestRig):
    """gRPC, by the key of a service account."""

    name = "google-grpc"
    missing_faults = frozenset({"redirect", "proxy-403"})

    def __init__(self) -> None:
        super().__init__()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.rigs.google_grpc", str(self.server.port), *self.upstream()],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which may still need their servers to clean up
        )
        owner = os.getpid()
        atexit.register(lambda: self.stop() if os.getpid() == owner else None)
        self.wire = TcpProxy(("127.0.0.1", int(next_line(self.process))), ("127.0.0.1", self.server.port))

    def upstream(self) -> list[str]:
        """Where another implementation has the secrets, if one has."""
        return []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.wire.port}"

    def options(self) -> dict[str, Any]:
        return {**super().options(), "transport": "grpc"}

    def faults(self) -> dict[str, Answer]:
        # A message says how long it is: one that is too long is refused before it is read.
        too_long = access_answer(f"{self.resource('other')}/versions/1", Version(b"S3cr3t" * 4_000_000))
        return {**super().faults(), "endless": google_answer(too_long)}

    @contextlib.contextmanager
    def fault(self, fault: str, *, listings: bool = False) -> Iterator[None]:
        # The wire has no names: what is for listings alone happens behind the server.
        on_wire = fault in WIRE_FAULTS and not listings
        with self.wire.fault(fault) if on_wire else super().fault(fault, listings=listings):
            yield

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        self.wire.stop()
        self.process.kill()  # a forked child may hold open the pipe by which it would end
        self.process.communicate(timeout=30)
        super().stop()


class LocalGcpRig(GoogleGrpcRig):
    """gRPC by a running localgcp, which has the secrets; the rig's own server checks, counts and injects before it.

    Forked children, which speak REST, are answered by that alone: localgcp knows gRPC only.
    """

    name = "google-localgcp"

    def upstream(self) -> list[str]:
        return [os.environ[LOCALGCP]]

    def put(self, path: str, text: str) -> None:
        super().put(path, text)
        self._tell("put", path, base64.b64encode(text.encode()).decode())

    def remove(self, path: str) -> None:
        super().remove(path)
        self._tell("remove", path)

    def _tell(self, method: str, path: str, *arguments: str) -> None:
        assert self.process.stdin
        print(json.dumps([method, f"projects/{PROJECT}", path, *arguments]), file=self.process.stdin, flush=True)
        assert next_line(self.process) == "done\n"
