"""The boto3 clients that the options of an AWS connection describe.

botocore itself does credentials, refresh, endpoints, signing and parsing. This module gives it the options, a loader
whose files a forked child inherits, and a transport that limits what is read. Imported with the SDK, before the first
lookup.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import boto3.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    AssumeRoleWithWebIdentityCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, DataNotFoundError, NoCredentialsError
from botocore.utils import FileWebIdentityTokenLoader

from airflow_providers_secrets.errors import ConfigurationError, did_you_mean, quoted
from airflow_providers_secrets.files import version
from airflow_providers_secrets.stores.aws.loader import loader_for
from airflow_providers_secrets.stores.aws.store import given_keys
from airflow_providers_secrets.stores.aws.transport import Body, BoundedSession, bounds, no_prompt
from airflow_providers_secrets.stores.base import (
    LOGIN_UNAVAILABLE,
    MAX_CONNECTIONS,
    USER_AGENT,
    StoreError,
    environment,
)

Options = Mapping[str, Any]

STS: Final = "sts"


class AwsClient:
    """A store's client, and the session that it came from.

    :param service: boto3's client of the store.
    :param session: the source of credentials and region.
    :param options: the options that it was made from.
    """

    __slots__ = ("_options", "_session", "service")

    def __init__(self, service: Any, session: boto3.session.Session, options: Options) -> None:
        self.service = service
        self._session = session
        self._options = options

    @property
    def region(self) -> str:
        """The region of the store's client."""
        region: str = self.service.meta.region_name
        return region

    def sts(self) -> Any:
        """Return a new client of STS with the same credentials."""
        return _client(self._session, STS, self._options)


class _Session(BoundedSession):
    """A bounded session that may look for its credentials later.

    :param pending: if given, the clients are made before the credentials are looked for, and the pending credentials
        are appended here.
    """

    def __init__(self, profile: str | None, pending: list[PendingCredentials] | None) -> None:
        super().__init__(profile=profile)
        self._pending: PendingCredentials | None = None
        if pending is not None:
            resolver = functools.partial(self.get_component, "credential_provider")
            self._pending = PendingCredentials(super().get_credentials, resolver)
            pending.append(self._pending)

    def get_credentials(self) -> Any:
        return self._pending or super().get_credentials()


class PendingCredentials(Credentials):  # type: ignore[misc]  # botocore is untyped
    """Credentials that are looked for only after their client was made.

    :param find: looks for them.
    :param prepare: creates the resolver that looks for them.
    """

    def __init__(self, find: Callable[[], Any], prepare: Callable[[], object]) -> None:
        self.found: Any = None
        self.prepare = prepare
        self._find = find

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the credentials found: ``access_key``, ``token`` and so on."""
        return getattr(self.__dict__.get("found"), name, None)

    def load(self) -> None:
        """Look for the credentials, as botocore would have done when it made the client."""
        self.found = self._find()

    def get_frozen_credentials(self) -> Any:
        """Return the credentials found.

        :raises NoCredentialsError: if there are none.
        """
        if self.found is None:
            raise NoCredentialsError
        return self.found.get_frozen_credentials()


def load_files(services: Iterable[str], api_version: str | None) -> None:
    """Read the data files that clients of *services* are made from, once for a process and all its children.

    Missing files are reported by the client that needs them.
    """
    loader = loader_for(os.environ.get("AWS_DATA_PATH"))
    for name in ("endpoints", "sdk-default-configuration"):
        loader.load_data(name)
    for service in services:
        for kind in ("service-2", "endpoint-rule-set-1"):
            with contextlib.suppress(DataNotFoundError):
                loader.load_service_model(service, kind, None if service == STS else api_version)


def connect(
    service: str, session_name: str, options: Options, pending: list[PendingCredentials] | None = None
) -> AwsClient:
    """Return a new client of *service* as *options* describe it.

    :param session_name: the role session's name, which trust policies may require.
    :param pending: if given, credentials are not looked for yet, but appended here in the order to load them.
    :raises ConfigurationError: for options that only botocore can check.
    """
    session = _session(options, pending)
    if role_arn(options):
        session = _session_in_role(session, session_name, options, pending)
    return AwsClient(_client(session, service, options), session, options)


class SpareClient:
    """A client that is made before a fork for the child to use: it has no credentials and has never opened a socket.

    A rehearsed call that sends nothing also creates what botocore creates at a client's first call. A child that uses
    this client spends half the CPU time on its first lookup.

    :param fetch: the store's method that reads a name.
    """

    def __init__(
        self, service: str, session_name: str, options: Options, fetch: Callable[[AwsClient, str], object]
    ) -> None:
        self._made_by = os.getpid()
        self._made_of = _what_clients_read()
        self._pending: list[PendingCredentials] = []
        self._client = connect(service, session_name, options, self._pending)
        for credentials in self._pending:
            credentials.prepare()
        self._rehearse(fetch)

    def taken(self) -> AwsClient | None:
        """Return the client with the credentials of this process, or ``None`` if this process must not use it.

        That is the process that made it, and any whose environment or AWS files have changed since it was made.
        """
        if self._made_by == os.getpid() or self._made_of != _what_clients_read():
            return None
        for credentials in self._pending:
            credentials.load()
        return self._client

    def _rehearse(self, fetch: Callable[[AwsClient, str], object]) -> None:
        events = self._client.service.meta.events
        events.register("before-send", _answer_nothing)
        for credentials in self._pending:
            credentials.found = Credentials("rehearsal", "rehearsal")
        try:
            with contextlib.suppress(Exception):  # the rehearsed answer holds no value
                fetch(self._client, "/rehearsal")
        finally:
            events.unregister("before-send", _answer_nothing)
            for credentials in self._pending:
                credentials.found = None


def _answer_nothing(request: Any, **_: Any) -> AWSResponse:
    """Answer in place of AWS: botocore then sends nothing."""
    return AWSResponse(request.url, 200, {}, Body(b"{}"))


def _what_clients_read() -> list[object]:
    """Return what a client is made from besides options: environment variables, and the version of each AWS file."""
    found: list[object] = list(
        environment(lambda name: name == "HOME" or name.startswith("AWS_") or name.upper().endswith(_READ_BY_CLIENTS))
    )
    for variable, default in _FILES.items():
        try:
            found.append(version(os.path.expanduser(os.environ.get(variable) or default)))  # noqa: PTH111  # as botocore
        except OSError:
            found.append(None)
    return found


_READ_BY_CLIENTS: Final = ("_PROXY", "_CA_BUNDLE")
"""Suffixes of the other environment variables, besides AWS's own, that a client is made from."""
_FILES: Final = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
"""The default paths of the AWS files, by the variable that overrides each."""


def role_arn(options: Options) -> str | None:
    """Return the role to assume; from the old options, its ARN is built as by official releases before 3.0."""
    if options["role_arn"] or not options["aws_iam_role"]:
        role: str | None = options["role_arn"]
        return role
    return f"arn:aws:iam::{options['aws_account_id']}:role/{options['aws_iam_role']}"


def _client(
    session: boto3.session.Session, service: str, options: Options, config: Config | None = None, **keys: str | None
) -> Any:
    """Return a new client. One of STS never uses the store's own endpoint, and its TLS follows the environment.

    :param config: what botocore's fetchers of a role's credentials ask for: a call that is not signed.
    :param keys: the credentials that they pass, in place of the session's.
    """
    is_sts = service == STS
    own_endpoint = None if is_sts else options["endpoint_url"]
    return session.client(
        service,
        region_name=session.region_name,
        api_version=None if is_sts else options["api_version"],
        use_ssl=is_sts or options["use_ssl"],
        verify=None if is_sts else options["verify"],
        endpoint_url=options["service_config"].get(service, {}).get("endpoint_url") or own_endpoint,
        config=_config(options).merge(config) if config else _config(options),
        **keys,
    )


def _session(options: Options, pending: list[PendingCredentials] | None) -> boto3.session.Session:
    keys = given_keys(options)
    session = _Session(options["profile_name"], pending if keys is None else None)
    session.register_component("data_loader", loader_for(session.get_config_variable("data_path")))
    # This includes clients that botocore makes itself: of STS for a pod's or a profile's role, of IAM Identity Center.
    session.set_default_client_config(bounds(options))
    if keys is not None:
        session.set_credentials(*keys)
    return boto3.session.Session(botocore_session=session, region_name=options["region_name"])


def _config(options: Options) -> Config:
    ours = bounds(options).merge(Config(max_pool_connections=MAX_CONNECTIONS, user_agent_extra=USER_AGENT))
    given = dict(options["config_kwargs"])
    if given.get("signature_version") == "unsigned":
        given["signature_version"] = UNSIGNED
    for name in given.keys() - Config.OPTION_DEFAULTS.keys():
        cure = did_you_mean(name, Config.OPTION_DEFAULTS)
        raise ConfigurationError(
            f"option 'config_kwargs' holds {quoted(name)}, which botocore.config.Config does not accept; {cure}"
        )
    try:
        return ours.merge(Config(**given))
    except Exception as error:  # noqa: BLE001  # botocore raises Python's errors and several classes of its own
        # Python's say nothing of the option: 'int' object has no attribute 'get'.
        reason = f": {str(error).rstrip('.')}" if isinstance(error, BotoCoreError) else ""
    refused = ", ".join(repr(name) for name, value in given.items() if not _is_taken(name, value))
    raise ConfigurationError(
        f"option 'config_kwargs' holds a value for {refused} that botocore.config.Config does not take{reason}."
    )


def _is_taken(name: str, value: Any) -> bool:
    try:
        Config(**{name: value})
    except Exception:  # noqa: BLE001  # as above
        return False
    return True


# Roles.


class _Given(CredentialProvider):  # type: ignore[misc]  # botocore is untyped
    """A provider of one given set of credentials."""

    METHOD = "assume-role-by-option"
    CANONICAL_NAME = None

    def __init__(self, credentials: DeferredRefreshableCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> DeferredRefreshableCredentials:
        return self._credentials


def _session_in_role(
    base: boto3.session.Session, session_name: str, options: Options, pending: list[PendingCredentials] | None
) -> boto3.session.Session:
    """Return a session whose credentials are those of the role, fetched at first use and refreshed in time."""
    fetcher = _ROLE_FETCHERS[options["assume_role_method"]](base, session_name, options)
    credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, options["assume_role_method"])
    session = _Session(None, pending)  # only the base uses the profile, as in the official provider
    session.register_component("data_loader", loader_for(session.get_config_variable("data_path")))
    session.register_component("credential_provider", CredentialResolver([_Given(credentials)]))
    return boto3.session.Session(botocore_session=session, region_name=base.region_name)


def _by_role(base: boto3.session.Session, session_name: str, options: Options) -> AssumeRoleCredentialFetcher:
    source = base.get_credentials()
    if source is None:
        raise NoCredentialsError
    external_id = {"ExternalId": options["external_id"]} if options["external_id"] else {}
    return AssumeRoleCredentialFetcher(
        functools.partial(_client, base, options=options),
        source,
        role_arn(options),
        extra_args={"RoleSessionName": session_name, **external_id, **options["assume_role_kwargs"]},
        mfa_prompter=no_prompt("option 'assume_role_kwargs'"),
    )


def _by_web_identity(
    base: boto3.session.Session,
    session_name: str,  # noqa: ARG001  # the token names the session
    options: Options,
) -> AssumeRoleWithWebIdentityCredentialFetcher:
    return AssumeRoleWithWebIdentityCredentialFetcher(
        functools.partial(_client, base, options=options),
        _TOKENS[options["assume_role_with_web_identity_federation"]](options),
        role_arn(options),
        extra_args=dict(options["assume_role_kwargs"]),
    )


def _token_of_file(options: Options) -> Callable[[], str]:
    path = options["assume_role_with_web_identity_token_file"] or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if not path:
        raise ConfigurationError(
            "option 'assume_role_with_web_identity_token_file' is not set, nor is AWS_WEB_IDENTITY_TOKEN_FILE."
        )
    loader: Callable[[], str] = FileWebIdentityTokenLoader(path)
    return loader


def _token_of_google(options: Options) -> Callable[[], str]:
    from google.oauth2.id_token import fetch_id_token_credentials

    from airflow_providers_secrets.stores.google.login import Asking, Http

    http = Http(options["connect_timeout"], options["read_timeout"])
    credentials = fetch_id_token_credentials(
        options["assume_role_with_web_identity_federation_audience"], request=Asking(http)
    )

    def token() -> str:
        if not credentials.valid:
            asking = Asking(http)
            codes: tuple[str, ...] = ()
            try:
                credentials.refresh(asking)
            except TimeoutError:
                raise
            except Exception as error:  # noqa: BLE001  # google-auth lets errors of reading an answer through
                # The key was read before. An impersonated account asks in a session of its own, not through `asking`.
                codes = asking.fault(error, LOGIN_UNAVAILABLE).codes
            if codes:
                raise StoreError(f"Google {codes[0]}", *codes)
        current: str = credentials.token
        return current

    return token


_TOKENS: Final = {"file": _token_of_file, "google": _token_of_google}
_ROLE_FETCHERS: Final = {"assume_role": _by_role, "assume_role_with_web_identity": _by_web_identity}
