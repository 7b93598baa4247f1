"""The options of HashiCorp Vault's backend: what each accepts, what each auth type needs, which exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_providers_secrets.options import (
    Option,
    certificate,
    flag,
    flag_or_path,
    lacking,
    listed,
    mapping,
    one_of,
    proxies,
    server_url,
    strict_text,
    text,
)

KUBERNETES_JWT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""Where Kubernetes mounts a pod's service account token."""

NEEDED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "approle": (("role_id",),),
    "aws_iam": (),
    "agent": (),
    "azure": (("role_id",), ("azure_resource",)),
    "cert": (("cert",),),
    "gcp": (("role_id",),),
    "github": (("token", "token_path"),),
    "jwt": (("jwt_role",), ("jwt_token", "jwt_token_path")),
    "kubernetes": (("kubernetes_role",),),
    "ldap": (("username",), ("password",)),
    "radius": (("username",), ("password",)),
    "token": (("token", "token_path"),),
    "userpass": (("username",), ("password",)),
}
"""The auth types, and the options that each needs: one from each group."""

FROM_ENVIRONMENT: Final[Mapping[tuple[str, str], str]] = {
    ("token", "token"): "VAULT_TOKEN",
    ("cert", "cert"): "VAULT_CLIENT_CERT",
}
"""The environment variable that can replace an option, by auth type and option."""

PRECEDENCE: Final[Mapping[tuple[str, str, str], str]] = {
    ("token", "token", "token_path"): "token_path",
    ("github", "token", "token_path"): "token",
    ("jwt", "jwt_token", "jwt_token_path"): "jwt_token",
    ("aws_iam", "key_id", "assume_role_kwargs"): "key_id",
}
"""For two options of an auth type that contradict each other: which one counts, as in the official provider."""

# The pattern excludes what a client or proxy could turn into other path segments: empty ones, "." and "..", and
# percent-encoded dots, slashes, backslashes and percent signs, which some proxies decode a second time. Some
# treat a backslash as a slash.
PATH: Final = re.compile(r"(?!(?:.*/)?\.{0,2}(?:/|$))(?!.*%(?:2[eEfF5]|5[cC]))[^\\\x00-\x1f\x7f-\x9f]+")
"""A path in Vault that no client or proxy can mistake for another one."""


def tidy(path: str) -> str:
    """Return *path* without leading, trailing and repeated slashes, as Vault's own command reads it."""
    return "/".join(filter(None, path.split("/")))


def vault_path(value: Any) -> str:
    """Accept a path in Vault; leading and trailing slashes do not count."""
    path = tidy(strict_text(value))
    if path and not PATH.fullmatch(path):
        raise ValueError("must be a path without '.' and '..' segments, backslashes and control characters")
    return path


def mount_path(value: Any) -> str:
    """Accept the path of a mount, which must not be empty."""
    path = vault_path(value)
    if not path:
        raise ValueError("must be the path of a mount")
    return path


def paths(value: Any) -> tuple[str, ...]:
    """Accept one path, or a list of paths, also as JSON text."""
    return tuple(map(vault_path, listed(value)))


def scopes(value: Any) -> tuple[str, ...]:
    """Accept OAuth 2.0 scopes, as a list or separated by commas."""
    return tuple(scope.strip() for given in listed(value, ",") for scope in given.split(",") if scope.strip())


def namespace(value: Any) -> str:
    """Accept the name of a namespace, which every request has in a header."""
    name = text(value).strip()
    if not re.fullmatch("[!-~](?:[ -~]*[!-~])?", name):
        raise ValueError("must be ASCII text without line breaks, as an HTTP header holds it")
    return name


BY_USER_NAME: Final = frozenset(("ldap", "radius", "userpass"))
"""The auth types whose login request has the user's name in its path."""


def engine_version(value: Any) -> str:
    """Accept the version of the KV secrets engine."""
    return str(one_of("1", "2", "auto")(str(value)))


def vault_url(value: Any) -> str:
    """Accept the address of Vault."""
    return server_url(value).rstrip("/")


def google_key(value: Any) -> dict[str, Any]:
    """Accept the key of a Google service account."""
    from airflow_providers_secrets.stores.google.identity import service_account_key  # rarely needed

    return service_account_key(value)


def ignored(value: Any) -> Any:  # noqa: ARG001  # whatever it is
    """Accept anything and discard it."""
    return None


VAULT_OPTIONS: Final = (
    Option(
        "use_team_secrets_path",
        flag,
        default=True,
        doc="In multi-team mode, a team's secrets are under {path}/{team}.",
        identifies_client=False,
    ),
    Option(
        "global_secrets_path",
        vault_path,
        doc="One more path for all three kinds.",
        deprecated="lists of paths in 'connections_path', 'variables_path' and 'config_path'",
        identifies_client=False,
        empty_is_unset=False,
    ),
    Option("url", vault_url, doc="Address of Vault; else VAULT_ADDR, else http://localhost:8200."),
    Option("namespace", namespace, doc="Namespace (Vault Enterprise, HCP, OpenBao)."),
    Option("mount_point", mount_path, "secret", "Where the KV engine is; null: the ids start with it.", nullable=True),
    Option("kv_engine_version", engine_version, "2", '1, 2, or "auto" to ask the server.'),
    Option("auth_type", one_of(*NEEDED), "token", "How to log in."),
    Option("auth_mount_point", mount_path, doc="Where the auth method is, if not at its default."),
    Option("token", text, doc="token, github: the token; for token, else VAULT_TOKEN."),
    Option("token_path", strict_text, doc="token, github: a file with the token, read at each login."),
    Option("role_id", text, doc="approle: the role id; aws_iam, azure, cert, gcp: the role's name."),
    Option("secret_id", text, doc="approle: the secret id; aws_iam: the secret key; azure: the client secret."),
    Option("key_id", text, doc="aws_iam: the access key; azure: the client id."),
    Option("username", text, doc="ldap, radius, userpass: the user."),
    Option("password", text, doc="ldap, radius, userpass: the user's password."),
    Option("assume_role_kwargs", mapping, {}, "aws_iam: arguments of STS AssumeRole, to log in as that role."),
    Option("region", strict_text, doc="aws_iam: region that the request is signed for; else the session's."),
    Option("header_value", strict_text, doc="aws_iam: value of the header X-Vault-AWS-IAM-Server-ID."),
    Option("kubernetes_role", strict_text, doc="kubernetes: the role's name."),
    Option("kubernetes_jwt_path", strict_text, KUBERNETES_JWT_PATH, "kubernetes: file of the JWT, read at each login."),
    Option("jwt_role", strict_text, doc="jwt: the role's name."),
    Option("jwt_token", strict_text, doc="jwt: the JWT."),
    Option("jwt_token_path", strict_text, doc="jwt: a file with the JWT, read at each login."),
    Option("gcp_key_path", strict_text, doc="gcp: file of a service account key; else the environment's credentials."),
    Option("gcp_keyfile_dict", google_key, doc="gcp: the service account key itself."),
    Option("gcp_scopes", scopes, ("https://www.googleapis.com/auth/cloud-platform",), "gcp: OAuth 2.0 scopes."),
    Option("azure_tenant_id", strict_text, doc="azure: the tenant, needed with 'key_id' and 'secret_id'."),
    Option("azure_resource", strict_text, doc="azure: the resource that the auth method is configured with."),
    Option("radius_host", strict_text, doc="Ignored.", ignored="Vault itself knows its RADIUS server"),
    Option("radius_secret", text, doc="Ignored.", ignored="Vault itself knows its RADIUS server"),
    Option("radius_port", text, doc="Ignored.", ignored="Vault itself knows its RADIUS server"),
    Option("verify", flag_or_path, doc="false, or the CA bundle; else VAULT_CACERT, VAULT_CAPATH, the system's."),
    Option("cert", certificate, doc="Client certificate: path, or [certificate, key]; else VAULT_CLIENT_CERT, …_KEY."),
    Option("proxies", proxies, {}, 'HTTP proxies: {"https": "http://proxy:3128"}; else the environment\'s.'),
    Option("allow_redirects", flag, default=True, doc="Follow a standby's redirect, to the same host and path alone."),
    Option("request_header", flag, default=True, doc="Send X-Vault-Request, which an Agent may require."),
    Option("strict_http", flag, default=False, doc="List by GET with list=true instead of the method LIST."),
    Option(
        "cache_approle_token",
        flag,
        default=True,
        doc="Accepted: every login is kept until it ends, by any method.",
        identifies_client=False,
    ),
    Option(
        "ignore_exceptions",
        flag,
        default=False,
        doc="Ignored.",
        ignored="every answer is classified",
        identifies_client=False,
    ),
    Option(
        "session",
        ignored,
        doc="Ignored.",
        deprecated="'verify', 'cert' and 'proxies': the session is the backend's own",
        identifies_client=False,
    ),
    Option(
        "adapter",
        ignored,
        doc="Ignored.",
        ignored="the adapter is the backend's own",
        identifies_client=False,
    ),
)


def overruled(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield pairs of options of which one overrules the other: first the one that counts, then the ignored one."""
    for (auth_type, one, other), winner in PRECEDENCE.items():
        if auth_type == options["auth_type"] and options[one] and options[other]:
            yield winner, other if winner == one else one


def option_conflict(options: Mapping[str, Any]) -> str | None:
    """Return a message about the first option that is missing or contradicts another one, or ``None``."""
    auth_type = options["auth_type"]
    if needed := lacking(options, NEEDED[auth_type], auth_type, FROM_ENVIRONMENT):
        return f"option {needed} is needed for auth_type {auth_type!r}"
    if auth_type == "agent" and options["shared_cache"] and not options["shared_cache_scope"]:
        return "option 'shared_cache_scope' is needed with 'shared_cache': an Agent's address does not say who logs in"
    if auth_type == "gcp" and options["gcp_key_path"] and options["gcp_keyfile_dict"]:
        return "options 'gcp_key_path' and 'gcp_keyfile_dict' contradict each other: give one"
    if auth_type == "aws_iam" and bool(options["key_id"]) != bool(options["secret_id"]):
        return "options 'key_id' and 'secret_id' are needed both or neither"
    # The other way round is fine: 'key_id' alone selects a managed identity of Azure by its client id.
    if auth_type == "azure" and options["secret_id"] and not options["key_id"]:
        return "option 'key_id' is needed with 'secret_id'"
    if auth_type == "azure" and options["secret_id"] and not options["azure_tenant_id"]:
        return "option 'azure_tenant_id' is needed with 'secret_id'"
    if auth_type == "cert" and options["verify"] is False:
        return "option 'verify' is false, with which auth_type 'cert' sends no certificate: name the CA bundle"
    if auth_type in BY_USER_NAME and not {"", ".", ".."}.isdisjoint(options["username"].split("/")):
        return "option 'username' is not a user's name: it would be another path of Vault's"
    return None
