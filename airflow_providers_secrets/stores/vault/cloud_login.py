"""The auth methods whose credentials come from a cloud, each through that cloud's own SDK.

Imported at the first lookup of a backend that uses one of them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import hvac

from airflow_providers_secrets.stores.base import (
    BAD_BUNDLE,
    BAD_CREDENTIAL,
    LOGIN_REFUSED,
    UNTRUSTED,
    Outcome,
    StoreError,
    codes_of_certificate,
)
from airflow_providers_secrets.stores.google.identity import service_account_key
from airflow_providers_secrets.stores.vault.login import Login, Options, file_content
from airflow_providers_secrets.stores.vault.replies import LOGIN_UNTRUSTED, SIGNING_REFUSED

if TYPE_CHECKING:
    import requests

    from airflow_providers_secrets.stores.google.login import Asking

IAM_CREDENTIALS_URL: Final = "https://iamcredentials.googleapis.com/v1"
"""Google's IAM Service Account Credentials API."""

GCP_JWT_LIFE: Final = 900
"""Lifetime, in seconds, of a JWT for Vault's gcp auth method: the maximum by default of its roles."""


@contextlib.contextmanager
def _asking_a_cloud() -> Iterator[None]:
    """Tell a certificate that is not trusted from Vault's own, for which ``verify`` would help.

    :raises StoreError: with its codes.
    """
    try:
        yield
    except Exception as error:
        codes = tuple(codes_of_certificate(error))
        if not codes:
            raise
    else:
        return
    raise StoreError(*_of_login(codes))


def _of_login(codes: Sequence[str]) -> Iterator[str]:
    return (LOGIN_UNTRUSTED if code == UNTRUSTED else code for code in codes)


def _aws_iam(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    access_key, secret_key, session_token, region = _aws_credentials(options)
    return api.auth.aws.iam_login(
        access_key,
        secret_key,
        session_token=session_token,
        header_value=options["header_value"],
        role=options["role_id"] or "",  # without one, Vault uses the name of the AWS role
        use_token=False,
        region=options["region"] or region or "us-east-1",
        **mount,
    )


def _aws_credentials(options: Options) -> tuple[str, str, str | None, str | None]:
    """Return access key, secret key and session token, and the region of the session that they come from."""
    if options["key_id"]:
        return options["key_id"], options["secret_id"], None, None
    from botocore.exceptions import ClientError

    try:
        with _asking_a_cloud():
            return _session_credentials(options)
    except (ClientError, StoreError) as error:
        fault = _aws_failure(error)
    raise fault


def _aws_failure(error: Exception) -> StoreError:
    """Return the error that AWS's answer means, as in the AWS stores: a refused login, or one to try again."""
    from airflow_providers_secrets.stores.aws.store import COMMON_OUTCOMES, LOCAL, answer_codes

    if isinstance(error, StoreError):  # of the session: this host's fault, whose code Vault's tables may lack
        is_local = BAD_BUNDLE not in error.codes and any(code in LOCAL for code in error.codes)
        return StoreError(error.codes[0], "NoCredentialsError") if is_local else error
    codes = answer_codes(error)
    outcome = next((COMMON_OUTCOMES[code] for code in codes if code in COMMON_OUTCOMES), Outcome.UNAVAILABLE)
    if outcome in (Outcome.DENIED, Outcome.MISCONFIGURED):
        return StoreError(f"AWS login refused ({codes[0]})", LOGIN_REFUSED)
    return StoreError(f"AWS login: {codes[0]}", *(("HTTP 429",) if outcome is Outcome.THROTTLED else ()))


def _session_credentials(options: Options) -> tuple[str, str, str | None, str | None]:
    from airflow_providers_secrets.stores.aws.transport import BoundedSession, bounds

    session = BoundedSession()
    session.set_default_client_config(bounds(options))  # also for the client that assumes a profile's role
    region = session.get_config_variable("region")
    if options["assume_role_kwargs"]:
        sts = session.create_client("sts", region_name=options["region"] or region or "us-east-1")
        assumed = sts.assume_role(**{"RoleSessionName": "airflow", **options["assume_role_kwargs"]})["Credentials"]
        return assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"], region
    credentials = session.get_credentials()
    if credentials is None:
        raise StoreError("no AWS credentials", "NoCredentialsError")
    frozen = credentials.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token, region


def _azure(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    from airflow_providers_secrets.stores.azure.credentials import LoginTransport

    transport = LoginTransport(options, verify=True, chain=not options["secret_id"])
    http: dict[str, Any] = {"transport": transport, "retry_total": 0}  # retries are the lookup's task
    credential: Any
    try:
        if options["secret_id"]:
            credential = ClientSecretCredential(
                options["azure_tenant_id"], options["key_id"], options["secret_id"], **http
            )
        else:
            credential = DefaultAzureCredential(managed_identity_client_id=options["key_id"], **http)
        with credential:
            jwt = credential.get_token(f"{options['azure_resource']}/.default").token
    except Exception as error:  # noqa: BLE001  # azure-identity lets its libraries' errors through
        fault = transport.failure("Azure", error)
    else:
        return api.auth.azure.login(options["role_id"], jwt, use_token=False, **mount)
    raise StoreError(*_of_login(fault.codes), retry_after=fault.retry_after)


def _gcp(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    import google.auth.jwt
    from google.oauth2 import service_account

    from airflow_providers_secrets.stores.google.login import Asking, Http

    asking = Asking(Http(options["connect_timeout"], options["read_timeout"]))
    now = int(time.time())
    claims: dict[str, Any] = {"aud": f"vault/{options['role_id']}", "iat": now, "exp": now + GCP_JWT_LIFE}
    key = _google_key(options)
    if key is None:
        credentials = _google_credentials(options, asking)
    else:
        try:
            credentials = service_account.Credentials.from_service_account_info(key)
        except (ValueError, TypeError, AttributeError, KeyError):
            # The message may quote parts of the key.
            credentials = None
        if credentials is None:
            option = "gcp_key_path" if options["gcp_key_path"] else "gcp_keyfile_dict"
            raise StoreError(f"option {option!r} is no service account key", BAD_CREDENTIAL)
    if isinstance(credentials, service_account.Credentials):
        claims["sub"] = credentials.service_account_email
        jwt = google.auth.jwt.encode(credentials.signer, claims).decode()
    else:
        with _asking_a_cloud():
            jwt = _signed_by_google(credentials, claims, options, asking)
    return api.auth.gcp.login(options["role_id"], jwt, use_token=False, **mount)


def _google_credentials(options: Options, asking: Asking) -> Any:
    """Return the environment's credentials, with a token: a machine's account is known only once it has one."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.oauth2 import service_account

    try:
        credentials, _ = google.auth.default(scopes=options["gcp_scopes"], request=asking)
        if not (isinstance(credentials, service_account.Credentials) or credentials.valid):
            credentials.refresh(asking)
    except DefaultCredentialsError:  # there are no credentials
        raise
    except GoogleAuthError as error:
        codes = asking.fault(error).codes
    else:
        return credentials
    raise StoreError(f"Google {codes[0]}", *_of_login(codes))


def _google_key(options: Options) -> dict[str, Any] | None:
    if options["gcp_keyfile_dict"]:
        return dict(options["gcp_keyfile_dict"])
    if not options["gcp_key_path"]:
        return None
    try:
        return service_account_key(file_content(options, "gcp_key_path"))
    except ValueError as error:
        fault = str(error)
    raise StoreError(f"option 'gcp_key_path': its file {fault}", BAD_CREDENTIAL)


def _signed_by_google(credentials: Any, claims: dict[str, Any], options: Options, asking: Asking) -> str:
    """Have Google sign *claims* for credentials that hold no key, such as a virtual machine's.

    google-auth only supports signBlob (``google.auth.iam.Signer``), with which a JWT cannot name the key that Vault
    looks for.
    """
    from google.auth.transport.requests import AuthorizedSession

    from airflow_providers_secrets.stores.google.http import BoundedAdapter
    from airflow_providers_secrets.stores.https import secured

    email = getattr(credentials, "service_account_email", None)
    if not email or email == "default":
        raise StoreError("the environment's Google credentials are no service account's", BAD_CREDENTIAL)
    authorized = AuthorizedSession(credentials, auth_request=asking)
    secured(authorized, BoundedAdapter(options["connect_timeout"], options["read_timeout"]))
    try:
        answer = authorized.post(
            f"{IAM_CREDENTIALS_URL}/projects/-/serviceAccounts/{quote(email)}:signJwt",
            json={"payload": json.dumps({**claims, "sub": email})},
        )
    except StoreError as error:  # a redirect, or an answer that is too long
        failed = str(error)
    else:
        return _signed(answer)
    raise StoreError(f"Google's signJwt failed ({failed})")


def _signed(answer: requests.Response) -> str:
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        # The account needs roles/iam.serviceAccountTokenCreator on itself.
        raise StoreError(f"Google's signJwt refused with HTTP {answer.status_code}", SIGNING_REFUSED, LOGIN_REFUSED)
    if answer.status_code != HTTPStatus.OK:
        raise StoreError(f"Google's signJwt failed (HTTP {answer.status_code})")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(answer.json()["signedJwt"])
    raise StoreError("Google's signJwt gave no JWT")


LOGINS: Final[Mapping[str, Login]] = {"aws_iam": _aws_iam, "azure": _azure, "gcp": _gcp}
"""The login functions by ``auth_type``."""
