"""The login for a cache in Redis: given once, or read again for each connection."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError
from redis.exceptions import TimeoutError as RedisTimeoutError

from airflow_providers_secrets.errors import ConfigurationError, quoted
from airflow_providers_secrets.jwt import claims_of
from airflow_providers_secrets.stores.base import StoreError, deadline, seconds_left

Login = tuple[str] | tuple[str, str]

TOKEN_KINDS: Final = ("aws-iam", "entra-id")
"""The values of ``credentials``: the clouds' own short-lived tokens instead of a password."""

PARAMETERS: Final = frozenset({
    "credentials", "username", "password", "password_file", "password_env", "cluster_name", "user", "region", "service",
    "serverless", "client_id",
})  # fmt: skip
"""The names of credential parameters in ``shared_cache_credentials`` and in a URL's query."""

AWS_TOKEN_SECONDS: Final = 900
"""Seconds for which AWS accepts a token after it was signed (ElastiCache user guide, "Authenticating with IAM")."""

ENTRA_SCOPE: Final = "https://redis.azure.com/.default"
"""The scope of a token for Azure Managed Redis and Azure Cache for Redis."""

LOGIN_SECONDS: Final = 2.0
"""Additional seconds that an exchange may take if a cloud is asked for a token first."""

TOKEN_SECONDS: Final = 10.0
"""Seconds after which the making of a token ends, as long as azure-identity lets a command take. A lookup waits less;
a token that comes later is there for the next connection."""

_TIMEOUTS: Final = {"connect_timeout": LOGIN_SECONDS, "read_timeout": LOGIN_SECONDS}
"""The options of the stores' transports."""

RENEWED_BEFORE: Final = 60.0
"""Seconds before a token expires from which a new one is requested."""


class Unreadable(AuthenticationError):
    """There are no credentials to log in with. The text is this package's own, and holds no credentials."""


class FileOrVariable(CredentialProvider):
    """A password that is read again for each connection; a refused one is read again at once, but only once."""

    def __init__(self, username: str | None, path: str | None, variable: str | None) -> None:
        self._username = username
        self._path = path
        self._variable = variable

    def get_credentials(self) -> Login:
        """Return what the file or variable holds now, without the line ending.

        :raises Unreadable: naming the file or variable.
        """
        fault = ""
        password = ""
        if self._path:
            try:
                with open(self._path, encoding="utf-8") as file:  # noqa: PTH123  # pathlib is not loaded otherwise
                    password = file.read().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                fault = getattr(error, "strerror", None) or "it is not UTF-8"
        else:
            password = os.environ.get(self._variable or "", "")
        if fault or not password:
            source = f"file {quoted(self._path)}" if self._path else f"variable {quoted(str(self._variable))}"
            raise Unreadable(f"the password cannot be read from {source}: {fault or 'it is empty'}")
        return (self._username, password) if self._username else (password,)


class Token(CredentialProvider):
    """A cloud's token, kept until shortly before it expires, or until the server refuses it."""

    def __init__(self) -> None:
        self._held: tuple[Login, float] | None = None
        """A single attribute: any number of threads may read it while another one clears it."""

    def get_credentials(self) -> Login:
        """Return the user and a token that is still valid.

        :raises Unreadable: if the cloud's SDK has no credentials, or is not installed.
        :raises RedisTimeoutError: if a new one is needed, and the deadline has passed.
        """
        held = self._held
        if held is None or time.time() >= held[1] - RENEWED_BEFORE:
            failure: str | None = None
            if not seconds_left():  # redis-py tries again, and nobody waits for that
                raise RedisTimeoutError
            try:
                held = self._held = self._made_in_time()
            except ImportError:
                package, extra = self.needs
                failure = (
                    f"{package} is not installed. Install it with: pip install 'airflow-providers-secrets[{extra}]'"
                )
            except Exception as error:  # noqa: BLE001  # an SDK may raise anything; its text may hold anything
                reason = str(error) if isinstance(error, (ConfigurationError, StoreError)) else type(error).__name__
                failure = f"{self.source} has no credentials to give ({reason})"
            if failure:
                raise Unreadable(failure)
        assert held is not None
        return held[0]

    source: str
    """What makes the token, in words."""
    needs: tuple[str, str]
    """The distribution that makes the token, and this package's extra that installs that."""

    def _made_in_time(self) -> tuple[Login, float]:
        of_the_exchange = deadline.set(time.monotonic() + TOKEN_SECONDS)
        try:
            return self.made()
        finally:
            deadline.reset(of_the_exchange)

    def made(self) -> tuple[Login, float]:
        """Return a new token with its user, and when it expires (Unix time)."""
        raise NotImplementedError

    def forget(self) -> None:
        """Make the next connection ask for a new token."""
        self._held = None


class AwsToken(Token):
    """A request signed by the AWS SDK, which ElastiCache and MemoryDB accept as a password."""

    source = "the AWS SDK"
    needs = ("boto3", "aws")

    def __init__(self, user: str, cluster: str, region: str | None, service: str, *, serverless: bool) -> None:
        super().__init__()
        self._user = user
        self._cluster = cluster
        self._region = region
        self._service = service
        self._serverless = serverless

    def made(self) -> tuple[Login, float]:
        """Sign a request; this asks the instance for credentials if the environment has none."""
        from botocore.model import ServiceId
        from botocore.signers import RequestSigner

        from airflow_providers_secrets.stores.aws.transport import BoundedSession, bounds

        session = BoundedSession()
        session.set_default_client_config(bounds(_TIMEOUTS))  # for the client that assumes a profile's role
        region = self._region or session.get_config_variable("region")
        events = session.get_component("event_emitter")
        signer = RequestSigner(ServiceId(self._service), region, self._service, "v4", session.get_credentials(), events)
        kind = "&ResourceType=ServerlessCache" if self._serverless else ""
        url = signer.generate_presigned_url(
            {
                "method": "GET",
                "url": f"https://{self._cluster}/?Action=connect&User={self._user}{kind}",
                "body": {},
                "headers": {},
                "context": {},
            },
            operation_name="connect",
            expires_in=AWS_TOKEN_SECONDS,
            region_name=region,
        )
        return (self._user, url.removeprefix("https://")), time.time() + AWS_TOKEN_SECONDS


class EntraToken(Token):
    """An Entra ID token from ``DefaultAzureCredential``, for the principal's object id unless another user is named."""

    source = "azure-identity"
    needs = ("azure-identity", "azure")

    def __init__(self, user: str | None, client_id: str | None) -> None:
        super().__init__()
        self._user = user
        self._client_id = client_id

    def made(self) -> tuple[Login, float]:
        """Ask Entra ID for a token."""
        from azure.identity import DefaultAzureCredential

        from airflow_providers_secrets.stores.azure.credentials import LoginTransport

        given: dict[str, Any] = {
            "transport": LoginTransport(_TIMEOUTS, verify=True, chain=True),
            "retry_total": 0,
            "permit_redirects": False,
        }
        if self._client_id:
            given["managed_identity_client_id"] = self._client_id
        with contextlib.closing(DefaultAzureCredential(**given)) as credential:
            token = credential.get_token(ENTRA_SCOPE)
        user = self._user or str(claims_of(token.token)["oid"])
        return (user, token.token), float(token.expires_on)


def provider(given: Mapping[str, str]) -> CredentialProvider | None:
    """Return the provider of the credentials that *given* describes; ``None`` for a password that is simply given.

    :param given: parameters among :data:`PARAMETERS`.
    :raises ConfigurationError: if they contradict each other or are incomplete.
    """
    kind = given.get("credentials")
    user = given.get("user") or given.get("username")
    sources = sorted({"credentials", "password", "password_file", "password_env"} & set(given))
    if len(sources) > 1:
        raise ConfigurationError(f"Option 'shared_cache': {' and '.join(sources)} are given; keep one of them.")
    if kind is None:
        path, variable = given.get("password_file"), given.get("password_env")
        return FileOrVariable(user, path, variable) if path or variable else None
    if kind not in TOKEN_KINDS:
        raise ConfigurationError(f"Option 'shared_cache': credentials must be one of {', '.join(TOKEN_KINDS)}.")
    if kind == "entra-id":
        return EntraToken(user, given.get("client_id"))
    cluster = given.get("cluster_name")
    if not user or not cluster:
        raise ConfigurationError("Option 'shared_cache': credentials=aws-iam needs user and cluster_name.")
    return AwsToken(
        user, cluster, given.get("region"), given.get("service", "elasticache"),
        serverless=given.get("serverless", "").lower() in ("true", "1", "yes"),
    )  # fmt: skip


def load(of: CredentialProvider | None) -> None:
    """Import what *of* needs, and read its certificates; the first connection reports what is not installed."""
    with contextlib.suppress(ImportError):
        if isinstance(of, AwsToken):
            import botocore.signers  # noqa: F401

            import airflow_providers_secrets.stores.aws.transport  # noqa: F401
        elif isinstance(of, EntraToken):
            from airflow_providers_secrets.stores.azure.credentials import LoginTransport

            LoginTransport(_TIMEOUTS, verify=True, chain=True)  # reads the certificates, which children inherit
