"""A botocore session from the options of an AWS connection.

Credentials, refresh, endpoints, signing and error parsing are botocore's own; this module only hands it the
options, and a loader that spares it what we never call. Imported at the first lookup, with botocore.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    AssumeRoleWithWebIdentityCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import NoCredentialsError
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import FileWebIdentityTokenLoader

from airflow_providers_secrets import __version__
from airflow_providers_secrets.access import load_sdk
from airflow_providers_secrets.backends._aws_models import MODELS
from airflow_providers_secrets.errors import ConfigurationError

Options = Mapping[str, Any]


class LeanLoader(Loader):  # type: ignore[misc]  # botocore is untyped
    """Loads botocore's data without the service models that we have in short, and without ``endpoints.json``.

    Since botocore takes endpoints from each service's own rules, ``endpoints.json`` (1.2 MB) serves only to
    tell partitions apart, which ``partitions.json`` (7 kB) does as well.
    """

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
        """Load one model of a service, without first listing all services there are."""
        version = api_version or self.determine_latest_version(service_name, type_name)
        model = MODELS.get(service_name)
        if type_name == "service-2" and model and model["metadata"]["apiVersion"] == version:
            return model
        return self.load_data(f"{service_name}/{version}/{type_name}")

    def load_data_with_path(self, name: str) -> tuple[Any, str]:
        """Load a data file and tell where it was."""
        if name != "endpoints":
            data, path = super().load_data_with_path(name)
            return data, path
        rules, path = super().load_data_with_path("partitions")
        return {"version": 3, "partitions": [_legacy_partition(rule) for rule in rules["partitions"]]}, path


def _legacy_partition(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Give a partition as ``endpoints.json`` spells it, without the services that stand there."""
    names = rule["outputs"]
    plain, dual = names["dnsSuffix"], names["dualStackDnsSuffix"]
    fips, host = "{service}-fips.{region}.{dnsSuffix}", "{service}.{region}.{dnsSuffix}"
    return {
        "partition": rule["id"],
        "dnsSuffix": plain,
        "regionRegex": rule["regionRegex"],
        "regions": rule["regions"],
        "services": {},
        "defaults": {
            "hostname": host,
            "protocols": ["https"],
            "signatureVersions": ["v4"],
            "variants": [
                {"tags": ["fips"], "hostname": fips, "dnsSuffix": plain},
                {"tags": ["dualstack"], "hostname": host, "dnsSuffix": dual},
                {"tags": ["dualstack", "fips"], "hostname": fips, "dnsSuffix": dual},
            ],
        },
    }


def make_client(service: str, session_name: str, options: Options) -> Any:
    """Make the client of *service* that *options* describe.

    :param session_name: the role session's name, which trust policies may ask for.
    :raises ConfigurationError: for options that only botocore can judge.
    """
    session = _session(options)
    if options["role_arn"]:
        session = _session_in_role(session, session_name, options)
    return session.create_client(
        service,
        region_name=_region(session, options),
        api_version=options["api_version"],
        use_ssl=options["use_ssl"],
        verify=options["verify"],
        endpoint_url=(options["service_config"].get(service) or {}).get("endpoint_url") or options["endpoint_url"],
        config=_config(options),
    )


def _session(options: Options) -> Session:
    session = Session(profile=options["profile_name"])
    session.register_component("data_loader", _loader(session))
    if options["region_name"]:
        session.set_config_variable("region", options["region_name"])
    for given in (options, options["session_kwargs"]):
        if given.get("aws_access_key_id") and given.get("aws_secret_access_key"):
            session.set_credentials(
                given["aws_access_key_id"],
                given["aws_secret_access_key"],
                options["aws_session_token"] or options["session_kwargs"].get("aws_session_token"),
            )
            break
    return session


def _loader(session: Session) -> LeanLoader:
    """Make the loader; it searches where botocore's own would (``AWS_DATA_PATH``)."""
    more = session.get_config_variable("data_path") or ""
    return LeanLoader(more.split(os.pathsep) if more else None)


def _region(session: Session, options: Options) -> str | None:
    region: str | None = options["region_name"] or session.get_config_variable("region")
    return region


def _config(options: Options) -> Config:
    ours = Config(
        connect_timeout=options["connect_timeout"],
        read_timeout=options["read_timeout"],
        retries={"mode": "standard", "total_max_attempts": 1},  # attempts are the core's
        max_pool_connections=64,  # one for each thread of a busy API server or triggerer
        user_agent_extra=f"airflow-providers-secrets/{__version__}",
    )
    given = dict(options["config_kwargs"])
    if given.get("signature_version") == "unsigned":
        given["signature_version"] = UNSIGNED
    try:
        return ours.merge(Config(**given))
    except Exception as error:  # noqa: BLE001  # botocore raises TypeError and several of its own
        reason = f"{type(error).__name__}: {error}"
    raise ConfigurationError(f"option 'config_kwargs' is not one that botocore.config.Config takes: {reason}")


class _Given(CredentialProvider):  # type: ignore[misc]  # botocore is untyped
    """Gives one set of credentials."""

    METHOD = "assume-role-by-option"
    CANONICAL_NAME = None

    def __init__(self, credentials: DeferredRefreshableCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> DeferredRefreshableCredentials:
        return self._credentials


def _session_in_role(base: Session, session_name: str, options: Options) -> Session:
    """Give a session whose credentials are those of ``role_arn``, fetched at first use and refreshed in time."""
    fetcher = _ROLE_FETCHERS[options["assume_role_method"]](base, session_name, options)
    credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, options["assume_role_method"])
    session = Session(profile=options["profile_name"])
    session.register_component("data_loader", base.get_component("data_loader"))
    session.register_component("credential_provider", CredentialResolver([_Given(credentials)]))
    session.set_config_variable("region", _region(base, options))
    return session


def _sts_creator(base: Session, options: Options) -> Callable[..., Any]:
    def create(service: str, **kwargs: Any) -> Any:
        config = _config(options)
        if "config" in kwargs:
            config = config.merge(kwargs.pop("config"))
        return base.create_client(
            service,
            region_name=_region(base, options),
            endpoint_url=(options["service_config"].get("sts") or {}).get("endpoint_url"),
            verify=options["verify"],
            config=config,
            **kwargs,
        )

    return create


def _by_role(base: Session, session_name: str, options: Options) -> AssumeRoleCredentialFetcher:
    source = base.get_credentials()
    if source is None:
        raise NoCredentialsError
    return AssumeRoleCredentialFetcher(
        _sts_creator(base, options),
        source,
        options["role_arn"],
        extra_args={"RoleSessionName": session_name, **options["assume_role_kwargs"]},
        mfa_prompter=_no_prompt,
    )


def _no_prompt(_: str) -> str:
    raise ConfigurationError("option 'assume_role_kwargs' asks for an MFA code, which nobody can type here.")


def _by_web_identity(
    base: Session,
    session_name: str,  # noqa: ARG001  # the token names the session
    options: Options,
) -> AssumeRoleWithWebIdentityCredentialFetcher:
    return AssumeRoleWithWebIdentityCredentialFetcher(
        _sts_creator(base, options),
        _TOKENS[options["assume_role_with_web_identity_federation"]](options),
        options["role_arn"],
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
    load_sdk(("google.oauth2.id_token", "google.auth.transport.requests"), "google")
    from google.auth.transport.requests import Request
    from google.oauth2.id_token import fetch_id_token_credentials

    request = Request()
    credentials = fetch_id_token_credentials(
        options["assume_role_with_web_identity_federation_audience"], request=request
    )

    def token() -> str:
        if not credentials.valid:
            credentials.refresh(request)
        current: str = credentials.token
        return current

    return token


_TOKENS = {"file": _token_of_file, "google": _token_of_google}
_ROLE_FETCHERS = {"assume_role": _by_role, "assume_role_with_web_identity": _by_web_identity}
