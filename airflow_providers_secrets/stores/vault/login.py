"""Login by each of Vault's auth methods: the credentials that it takes, and hvac's method for it.

Files and the environment are read here, at each login. Imported at the first lookup.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import hvac

from airflow_providers_secrets.stores.base import BAD_CREDENTIAL, StoreError
from airflow_providers_secrets.stores.vault.replies import Reply

Options = Mapping[str, Any]
Login = Callable[[hvac.Client, Options, dict[str, str]], Any]  # hvac is untyped


def log_in(api: hvac.Client, options: Options) -> Reply:
    """Log in by ``auth_type``, and return Vault's answer.

    :param api: a client without a token.
    :raises StoreError: naming the option, if a credential cannot be read.
    """
    mount: str | None = options["auth_mount_point"]
    login = _LOGINS.get(options["auth_type"])
    if login is None:
        from airflow_providers_secrets.stores.vault.cloud_login import LOGINS

        login = LOGINS[options["auth_type"]]
    # The default mounts are hvac's own.
    reply: Reply = login(api, options, {"mount_point": mount} if mount else {})
    return reply


def static_token(options: Options) -> str:
    """Return the token for the ``auth_type`` *token*: from its file, the option, or ``VAULT_TOKEN``, in this order."""
    if options["token_path"]:
        return file_content(options, "token_path")
    token = str(options["token"] or os.environ.get("VAULT_TOKEN", "")).strip()
    if not token:
        raise StoreError("option 'token' or 'token_path' is needed", BAD_CREDENTIAL)
    return token


def file_content(options: Options, path_name: str) -> str:
    """Return the content of the file that the option *path_name* names.

    :raises StoreError: naming the option, if the file cannot be read or is empty.
    """
    try:
        with Path(options[path_name]).open(encoding="utf-8") as file:
            content = file.read(1024 * 1024).strip()
    except (OSError, ValueError) as error:
        # A decoding error holds what it could not decode, so it must not be chained.
        fault = f"its file cannot be read ({type(error).__name__})"
    else:
        if content:
            return content
        fault = "its file is empty"
    raise StoreError(f"option {path_name!r}: {fault}", BAD_CREDENTIAL)


def _either(options: Options, name: str, path_name: str) -> str:
    """Return the credential in the option *name*, or else the content of the file that the option *path_name* names."""
    return str(options[name]).strip() if options[name] else file_content(options, path_name)


def _approle(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    # A role may not need a secret id (bind_secret_id=false).
    return api.auth.approle.login(options["role_id"], options["secret_id"], use_token=False, **mount)


def _cert(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    # The session presents the certificate. Without a name, Vault tries all roles that match it.
    return api.auth.cert.login(name=options["role_id"] or "", use_token=False, **_quoted(mount))


def _quoted(mount: dict[str, str]) -> dict[str, str]:
    """Quote a mount for methods of hvac that do not."""
    return {name: quote(path) for name, path in mount.items()}


def _github(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    return api.auth.github.login(_either(options, "token", "token_path"), use_token=False, **mount)


def _jwt(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    jwt = _either(options, "jwt_token", "jwt_token_path")
    return api.auth.jwt.jwt_login(options["jwt_role"], jwt, use_token=False, path=mount.get("mount_point"))


def _kubernetes(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    jwt = file_content(options, "kubernetes_jwt_path")
    return api.auth.kubernetes.login(options["kubernetes_role"], jwt, use_token=False, **mount)


def _ldap(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    return api.auth.ldap.login(options["username"], options["password"], use_token=False, **mount)


def _radius(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    return api.auth.radius.login(options["username"], options["password"], use_token=False, **mount)


def _userpass(api: hvac.Client, options: Options, mount: dict[str, str]) -> Any:
    # hvac does not quote the user name of this method.
    user = quote(options["username"], safe="")
    return api.auth.userpass.login(user, options["password"], use_token=False, **_quoted(mount))


_LOGINS: Final[Mapping[str, Login]] = {
    "approle": _approle,
    "cert": _cert,
    "github": _github,
    "jwt": _jwt,
    "kubernetes": _kubernetes,
    "ldap": _ldap,
    "radius": _radius,
    "userpass": _userpass,
}
