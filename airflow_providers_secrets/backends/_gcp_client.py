"""What is read from Google Secret Manager, over gRPC or REST. Imported at the first lookup.

google-cloud-secret-manager is not loaded. Importing it costs more than all the rest of a cold start here, for what is
two unary calls; its retries outlast any deadline of Airflow's, and its channel does not survive a fork.
"""

from __future__ import annotations

import base64
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from airflow_providers_secrets import __version__
from airflow_providers_secrets.access import load_sdk
from airflow_providers_secrets.backends._gcp import MALFORMED, transport
from airflow_providers_secrets.backends._gcp_credentials import Login
from airflow_providers_secrets.outcomes import TLS_REASONS
from airflow_providers_secrets.store import Answer, StoreFault, seconds_to_wait

Options = Mapping[str, Any]

SDK: Final[Mapping[str, tuple[str, ...]]] = {
    "grpc": ("grpc", "google.protobuf.descriptor_pb2", "google.protobuf.message_factory", "google_crc32c"),
    "rest": ("requests", "google_crc32c"),
}
"""The modules that each transport needs."""

USER_AGENT: Final = f"airflow-providers-secrets/{__version__}"

PAGE_SIZE: Final = 1000
"""Names in one page of a listing; Google gives 25,000 at most."""

_RESOURCE = re.compile(r"projects/[^/]+/(?:locations/([^/]+)/)?secrets/([^/]+)(?:/versions/([^/]+))?")
_REASON = re.compile("|".join(TLS_REASONS))


class Version(NamedTuple):
    """An answer to AccessSecretVersion."""

    name: str
    data: bytes
    crc32c: int | None

    def __repr__(self) -> str:
        return f"Version(name={self.name!r})"


class Page(NamedTuple):
    """An answer to ListSecrets."""

    names: tuple[str, ...]
    next_token: str


class Transport(ABC):
    """How the API is spoken to."""

    @abstractmethod
    def access(self, name: str) -> Version:
        """Read one version of a secret, by its resource name."""

    @abstractmethod
    def page(self, parent: str, filtered: str, token: str) -> Page:
        """Read one page of the names of secrets."""


class GoogleClient:
    """One identity's way to the secrets of one project, and region where there is one.

    Safe to share between threads. It starts none of its own; gRPC has some while a channel is open.

    :param options: the backend's options.
    :raises StoreFault: naming the option, where a credential cannot be used.
    """

    def __init__(self, options: Options) -> None:
        spoken = transport(options)
        load_sdk(SDK[spoken], "google")
        login = Login(options)
        self._location: str | None = options["location"]
        self._version: str = options["version"]
        self._parent = f"projects/{login.project}"
        host = f"secretmanager.{login.universe}"
        if self._location:
            self._parent += f"/locations/{self._location}"
            host = f"secretmanager.{self._location}.rep.{login.universe}"
        transports: Mapping[str, type[GrpcTransport | RestTransport]] = {"grpc": GrpcTransport, "rest": RestTransport}
        self._transport = transports[spoken](options["endpoint"] or f"https://{host}", login, options)

    def read(self, secret: str) -> Answer:
        """Read the version of a secret that the options say.

        :raises StoreFault: if there is none, or no answer.
        """
        version = self._transport.access(f"{self._parent}/secrets/{secret}/versions/{self._version}")
        answered = _RESOURCE.fullmatch(version.name)
        # The project is answered by its number, and an alias or "latest" by the version's.
        if (
            not answered
            or answered[1] != self._location
            or answered[3] is None
            or (self._version.isdigit() and answered[3] != self._version)
        ):
            raise StoreFault("the answer is for another secret or version", MALFORMED)
        return Answer(_checked(version), answered[2])

    def names(self, prefix: str) -> Iterator[str]:
        """Give the names of all secrets that start with *prefix*, page by page."""
        # A substring of the name: https://cloud.google.com/secret-manager/docs/filtering
        filtered = f"name:{prefix}" if prefix[:1].isalnum() else ""
        token = ""
        while True:
            page = self._transport.page(self._parent, filtered, token)
            for name in page.names:
                listed = _RESOURCE.fullmatch(name)
                if listed and listed[2].startswith(prefix):
                    yield listed[2]
            if not page.next_token:
                return
            if page.next_token == token:
                raise StoreFault("the listing does not end", MALFORMED)
            token = page.next_token


def _checked(version: Version) -> str:
    """Give the text, unless it is damaged or none."""
    import google_crc32c

    if version.crc32c is not None and google_crc32c.value(version.data) != version.crc32c:
        raise StoreFault("its checksum does not match", "checksum")
    try:
        return version.data.decode()
    except UnicodeDecodeError:
        fault = StoreFault("it is not UTF-8 text", MALFORMED)
    raise fault


class GrpcTransport(Transport):
    """gRPC, with deadlines and no retries of its own.

    :param url: of the server.
    """

    def __init__(self, url: str, login: Login, options: Options) -> None:
        # The module needs protobuf, which REST does not.
        from airflow_providers_secrets.backends._gcp_messages import SERVICE, message

        self._login = login
        self._timeout: float = options["read_timeout"]
        self._service, self._message = SERVICE, message
        self._channel = _channel(url, options)

    def access(self, name: str) -> Version:
        request = self._message("AccessSecretVersionRequest")(name=name)
        answer = self._call("AccessSecretVersion", request, f"name={quote(name, safe='')}")
        payload = answer.payload
        return Version(answer.name, payload.data, payload.data_crc32c if payload.HasField("data_crc32c") else None)

    def page(self, parent: str, filtered: str, token: str) -> Page:
        request = self._message("ListSecretsRequest")(
            parent=parent, page_size=PAGE_SIZE, page_token=token, filter=filtered
        )
        answer = self._call("ListSecrets", request, f"parent={quote(parent, safe='')}")
        return Page(tuple(secret.name for secret in answer.secrets), answer.next_page_token)

    def _call(self, method: str, request: Any, routed_by: str) -> Any:
        import grpc
        from google.protobuf.message import DecodeError

        headers = {"x-goog-request-params": routed_by, **self._login.headers()}
        metadata = [(name.lower(), value) for name, value in headers.items()]
        fault: StoreFault
        try:
            octets = self._channel.unary_unary(f"/{self._service}/{method}")(
                request.SerializeToString(), timeout=self._timeout, metadata=metadata
            )
            # Here rather than in gRPC, which would log what it cannot read.
            return self._message(f"{method}Response").FromString(octets)
        except DecodeError:
            fault = StoreFault(MALFORMED)
        except grpc.RpcError as error:
            fault = self._fault(error)
        raise fault

    def _fault(self, error: Any) -> StoreFault:
        codes = [*_REASON.findall(error.details() or "")[:1], error.code().name]
        retry_after = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                retry_after = self._detailed(value, codes)
        return StoreFault(*codes, retry_after=retry_after)

    def _detailed(self, octets: bytes, codes: list[str]) -> float | None:
        """Give the seconds to wait, and put Google's reason before *codes*, where the details say so."""
        from google.protobuf.message import DecodeError

        try:
            details = {any_.type_url: any_.value for any_ in self._message("Status").FromString(octets).details}
            if reason := self._message("ErrorInfo").FromString(details.get(_TYPE + "ErrorInfo", b"")).reason:
                codes.insert(0, str(reason))
            delay = self._message("RetryInfo").FromString(details.get(_TYPE + "RetryInfo", b"")).retry_delay
            return (delay.seconds + delay.nanos / 1e9) or None
        except DecodeError:
            return None


_TYPE: Final = "type.googleapis.com/google.rpc."


def _channel(url: str, options: Options) -> Any:
    """Open a channel; https:// takes the certificates of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, or else gRPC's own."""
    import grpc

    connect = int(options["connect_timeout"] * 1000)
    arguments = [
        ("grpc.primary_user_agent", USER_AGENT),
        ("grpc.enable_retries", 0),
        # Seconds to connect, under a name that says it of reconnecting alone; and pauses that fit the core's.
        ("grpc.min_reconnect_backoff_ms", connect),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A new channel starts with a connection of its own, and not in the pause after another one's failure.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    target = urlsplit(url)
    if target.scheme == "http":
        return grpc.insecure_channel(target.netloc, arguments)
    address = target.netloc if target.port else f"{target.netloc}:443"
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(), arguments)


class RestTransport(Transport):
    """JSON over HTTP, with bounded waits, no retries of its own, and no redirects.

    :param url: of the server.
    """

    def __init__(self, url: str, login: Login, options: Options) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._login = login
        self._url = f"{url}/v1"
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        pooled = HTTPAdapter(pool_maxsize=64)  # one connection for each thread of a busy API server or triggerer
        self._session.mount("https://", pooled)
        self._session.mount("http://", pooled)
        self._timeout = (options["connect_timeout"], options["read_timeout"])

    def access(self, name: str) -> Version:
        answer = self._get(f"{name}:access", {})
        payload = answer.get("payload") or {}
        try:
            crc32c = payload.get("dataCrc32c")
            return Version(
                str(answer.get("name")),
                base64.b64decode(payload.get("data") or "", validate=True),
                None if crc32c is None else int(crc32c),
            )
        except (ValueError, TypeError, AttributeError):
            fault = StoreFault(MALFORMED)
        raise fault

    def page(self, parent: str, filtered: str, token: str) -> Page:
        query = {"pageSize": str(PAGE_SIZE), "pageToken": token, "filter": filtered}
        answer = self._get(f"{parent}/secrets", {name: value for name, value in query.items() if value})
        try:
            names = tuple(str(secret["name"]) for secret in answer.get("secrets") or ())
        except (TypeError, KeyError):
            names = None
        if names is None:
            raise StoreFault(MALFORMED)
        return Page(names, str(answer.get("nextPageToken") or ""))

    def _get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        headers = self._login.headers()

        def authorised(request: Any) -> Any:
            # As an auth callable, or requests would prefer what ~/.netrc says.
            request.headers.update(headers)
            return request

        response = self._session.get(
            f"{self._url}/{quote(path, safe='/:')}",
            params=query,
            auth=authorised,
            timeout=self._timeout,
            allow_redirects=False,
        )
        answer: Any
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = None
        if response.status_code == HTTPStatus.OK:
            if isinstance(answer, dict):
                return answer
            raise StoreFault(MALFORMED)
        raise _rest_fault(response.status_code, response.headers.get("Retry-After", ""), answer)


def _rest_fault(status: int, retry_after: str, answer: Any) -> StoreFault:
    """Say what an answer means, by the status that Google writes into it. A page of a proxy's has none."""
    after = seconds_to_wait(retry_after)
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("status"), str):
        return StoreFault(f"HTTP {status}", retry_after=after)
    codes = [error["status"]]
    for detail in error.get("details") or ():
        if not isinstance(detail, dict):
            continue
        kind = detail.get("@type")
        if kind == _TYPE + "ErrorInfo" and isinstance(detail.get("reason"), str):
            codes.insert(0, detail["reason"])
        delay = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay")))
        if kind == _TYPE + "RetryInfo" and delay:
            after = float(delay[1])
    return StoreFault(*codes, retry_after=after)
