"""What each of Vault's auth methods is sent to log in.

One function for each: from the options to the path under the auth method's mount and the JSON body. Facts: the
API documentation of the auth methods, https://developer.hashicorp.com/vault/api-docs/auth. Files and the
environment are read here, at each login. Imported at the first lookup.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from airflow_providers_secrets.access import load_sdk
from airflow_providers_secrets.backends._vault import UNREADABLE
from airflow_providers_secrets.store import StoreFault

Options = Mapping[str, Any]

IAM_CREDENTIALS_URL: Final = "https://iamcredentials.googleapis.com/v1"
"""Google's IAM Service Account Credentials API."""

GCP_JWT_LIFE: Final = 900
"""Seconds that a JWT for Vault's gcp auth method may live at most, by default of its roles."""

STS_REQUEST: Final = ("POST", "https://sts.amazonaws.com/", "Action=GetCallerIdentity&Version=2011-06-15")
"""Method, URL and body of the request that aws_iam signs; Vault sends it to the endpoint that it is configured with."""


class LoginRequest(NamedTuple):
    """What is posted to an auth method's mount."""

    path: str
    body: dict[str, Any]

    def __repr__(self) -> str:
        return f"LoginRequest(path={self.path!r})"


def login_request(options: Options) -> LoginRequest:
    """Make the login request of ``auth_type``.

    :raises StoreFault: naming the option, where a credential cannot be read.
    :raises MissingDependencyError: where ``auth_type`` needs an SDK that is not installed.
    """
    return _REQUESTS[options["auth_type"]](options)


def static_token(options: Options) -> str:
    """Give the token of ``auth_type`` *token*: from the option, its file, or ``VAULT_TOKEN``."""
    token = _either(options, "token", "token_path") or os.environ.get("VAULT_TOKEN", "").strip()
    if not token:
        raise StoreFault("option 'token' or 'token_path' is needed", UNREADABLE)
    return token


def _either(options: Options, name: str, path_name: str) -> str:
    """Give the credential of the option *name*, or else the content of the file that *path_name* says."""
    if options[path_name]:
        return _content(options, path_name)
    return str(options[name] or "").strip()


def _content(options: Options, path_name: str) -> str:
    try:
        with Path(options[path_name]).open(encoding="utf-8") as file:
            content = file.read(1024 * 1024).strip()
    except (OSError, ValueError) as error:
        # A decoding error carries what it could not decode, so nothing of it may be chained.
        fault = f"its file cannot be read ({type(error).__name__})"
    else:
        if content:
            return content
        fault = "its file is empty"
    raise StoreFault(f"option {path_name!r}: {fault}", UNREADABLE)


def _approle(options: Options) -> LoginRequest:
    body = {"role_id": options["role_id"]}
    # A role may do without (bind_secret_id=false).
    return LoginRequest("login", {**body, "secret_id": options["secret_id"]} if options["secret_id"] else body)


def _aws_iam(options: Options) -> LoginRequest:
    load_sdk(("botocore.session", "botocore.auth", "botocore.awsrequest"), "aws")
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    credentials, session_region = _aws_credentials(options)
    method, url, body = STS_REQUEST
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "Host": "sts.amazonaws.com"}
    if options["header_value"]:
        headers["X-Vault-AWS-IAM-Server-ID"] = options["header_value"]
    request = AWSRequest(method, url, headers, body)
    SigV4Auth(credentials, "sts", options["region"] or session_region or "us-east-1").add_auth(request)
    signed = {name: [value] for name, value in request.headers.items()}
    return LoginRequest(
        "login",
        {
            "iam_http_request_method": method,
            "iam_request_url": _base64(url),
            "iam_request_body": _base64(body),
            "iam_request_headers": _base64(json.dumps(signed)),
            **({"role": options["role_id"]} if options["role_id"] else {}),
        },
    )


def _aws_credentials(options: Options) -> tuple[Any, str | None]:
    """Give the credentials to sign with, and the region of the session that they come from."""
    from botocore.config import Config
    from botocore.credentials import Credentials
    from botocore.exceptions import NoCredentialsError
    from botocore.session import Session

    if options["key_id"]:
        return Credentials(options["key_id"], options["secret_id"]), None
    session = Session()
    region = session.get_config_variable("region")
    if options["assume_role_kwargs"]:
        bounded = Config(
            connect_timeout=options["connect_timeout"],
            read_timeout=options["read_timeout"],
            retries={"mode": "standard", "total_max_attempts": 1},  # attempts are the core's
        )
        sts = session.create_client("sts", region_name=options["region"] or region or "us-east-1", config=bounded)
        assumed = sts.assume_role(**{"RoleSessionName": "airflow", **options["assume_role_kwargs"]})["Credentials"]
        return Credentials(assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"]), region
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    return credentials.get_frozen_credentials(), region


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _azure(options: Options) -> LoginRequest:
    load_sdk(("azure.identity",), "azure")
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    bounded = {
        "connection_timeout": options["connect_timeout"],
        "read_timeout": options["read_timeout"],
        "retry_total": 0,  # attempts are the core's
    }
    credential: Any
    if options["secret_id"]:
        credential = ClientSecretCredential(
            options["azure_tenant_id"], options["key_id"], options["secret_id"], **bounded
        )
    else:
        credential = DefaultAzureCredential(managed_identity_client_id=options["key_id"], **bounded)
    with credential:
        jwt = credential.get_token(f"{options['azure_resource']}/.default").token
    return LoginRequest("login", {"role": options["role_id"], "jwt": jwt})


def _cert(options: Options) -> LoginRequest:
    # Without a name, Vault tries all the roles whose certificate fits.
    return LoginRequest("login", {"name": options["role_id"]} if options["role_id"] else {})


def _gcp(options: Options) -> LoginRequest:
    load_sdk(("google.auth", "google.auth.jwt", "google.auth.transport.requests", "google.oauth2"), "google")
    import google.auth
    import google.auth.jwt
    from google.oauth2 import service_account

    now = int(time.time())
    claims: dict[str, Any] = {"aud": f"vault/{options['role_id']}", "iat": now, "exp": now + GCP_JWT_LIFE}
    key = _google_key(options)
    if key is None:
        credentials, _ = google.auth.default(scopes=options["gcp_scopes"])
    else:
        try:
            credentials = service_account.Credentials.from_service_account_info(key)
        except (ValueError, TypeError, AttributeError, KeyError):
            # What is wrong with a key is told with parts of it.
            credentials = None
        if credentials is None:
            option = "gcp_key_path" if options["gcp_key_path"] else "gcp_keyfile_dict"
            raise StoreFault(f"option {option!r} is no service account key", UNREADABLE)
    if isinstance(credentials, service_account.Credentials):
        claims["sub"] = credentials.service_account_email
        jwt = google.auth.jwt.encode(credentials.signer, claims).decode()
    else:
        jwt = _signed_by_google(credentials, claims, options)
    return LoginRequest("login", {"role": options["role_id"], "jwt": jwt})


def _google_key(options: Options) -> dict[str, Any] | None:
    if options["gcp_keyfile_dict"]:
        return dict(options["gcp_keyfile_dict"])
    if not options["gcp_key_path"]:
        return None
    content = _content(options, "gcp_key_path")
    try:
        key = json.loads(content)
    except ValueError:
        key = None
    if not isinstance(key, dict):
        raise StoreFault("option 'gcp_key_path': its file is not a JSON object", UNREADABLE)
    return key


def _signed_by_google(credentials: Any, claims: dict[str, Any], options: Options) -> str:
    """Have Google sign *claims* for credentials that hold no key, such as a virtual machine's."""
    from google.auth.transport.requests import AuthorizedSession, Request

    timeout = (options["connect_timeout"], options["read_timeout"])
    if not credentials.valid:
        # Which account a machine has is known once it has a token.
        credentials.refresh(Request())
    email = getattr(credentials, "service_account_email", None)
    if not email or email == "default":
        raise StoreFault("the environment's Google credentials are no service account's", UNREADABLE)
    answer = AuthorizedSession(credentials).post(
        f"{IAM_CREDENTIALS_URL}/projects/-/serviceAccounts/{quote(email)}:signJwt",
        json={"payload": json.dumps({**claims, "sub": email})},
        timeout=timeout,
    )
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        # The account needs roles/iam.serviceAccountTokenCreator on itself.
        raise StoreFault(f"Google's signJwt refused with HTTP {answer.status_code}", UNREADABLE)
    if answer.status_code != HTTPStatus.OK:
        raise StoreFault(f"Google's signJwt failed with HTTP {answer.status_code}")
    try:
        return str(answer.json()["signedJwt"])
    except (ValueError, KeyError, TypeError):
        fault = StoreFault("Google's signJwt gave no JWT")
    raise fault


def _github(options: Options) -> LoginRequest:
    return LoginRequest("login", {"token": _either(options, "token", "token_path")})


def _jwt(options: Options) -> LoginRequest:
    return LoginRequest("login", {"role": options["jwt_role"], "jwt": _either(options, "jwt_token", "jwt_token_path")})


def _kubernetes(options: Options) -> LoginRequest:
    return LoginRequest("login", {"role": options["kubernetes_role"], "jwt": _content(options, "kubernetes_jwt_path")})


def _by_password(options: Options) -> LoginRequest:
    return LoginRequest(f"login/{quote(options['username'], safe='')}", {"password": options["password"]})


_REQUESTS: Final[Mapping[str, Callable[[Options], LoginRequest]]] = {
    "approle": _approle,
    "aws_iam": _aws_iam,
    "azure": _azure,
    "cert": _cert,
    "gcp": _gcp,
    "github": _github,
    "jwt": _jwt,
    "kubernetes": _kubernetes,
    "ldap": _by_password,
    "radius": _by_password,
    "userpass": _by_password,
}
