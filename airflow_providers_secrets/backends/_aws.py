"""What the two AWS backends share: the options of an AWS connection."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from airflow_providers_secrets.backends.mixin import SecretLookupMixin
from airflow_providers_secrets.errors import quoted
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.options import (
    Option,
    flag,
    flag_or_path,
    mapping,
    one_of,
    path_or_pair,
    server_url,
    strict_text,
    stripped,
    text,
)

OURS: Final = {"retries": "max_attempts", "connect_timeout": "connect_timeout", "read_timeout": "read_timeout"}
"""Arguments of botocore's Config that are not passed on, each with the option that replaces it. All others are."""


def _config_kwargs(value: Any) -> dict[str, Any]:
    """Accept the arguments of botocore's Config, without those that would set a second time limit or retry count."""
    given = mapping(value)
    for name in OURS.keys() & given.keys():
        warn(
            ("config_kwargs", name),
            "Option 'config_kwargs' holds %r, which is ignored: set the backend's option %r.",
            name,
            OURS[name],
        )
    # botocore would find these only while it signs or sends a request.
    if not isinstance(given.get("signature_version", ""), str | None):
        raise ValueError("needs a string for 'signature_version'")
    proxies = given.get("proxies") or {}
    if not isinstance(proxies, dict) or not all(isinstance(url, str | None) for url in proxies.values()):
        raise ValueError("needs an object of strings for 'proxies'")
    own = {name: value for name, value in given.items() if name not in OURS}
    _take_certificate(own, "client_cert")
    if isinstance(own.get("proxies_config"), dict):
        own["proxies_config"] = dict(own["proxies_config"])
        _take_certificate(own["proxies_config"], "proxy_client_cert")
    return own


def _take_certificate(given: dict[str, Any], name: str) -> None:
    """Let *given* name a client certificate as botocore wants it."""
    if given.get(name):
        try:
            given[name] = path_or_pair(given[name])
        except ValueError as error:
            raise ValueError(f"cannot use {name!r}: it {error}") from None


KEYS: Final = ("aws_access_key_id", "aws_secret_access_key")
SESSION: Final = (*KEYS, "aws_session_token", "profile_name", "region_name")
"""The keys that the official classes accept in ``session_kwargs``. Each is also an option here."""


def _session_kwargs(value: Any) -> dict[str, str]:
    """Accept the keys of :data:`SESSION` with string values; an empty string means "not given"."""
    given = mapping(value)
    if unknown := sorted(given.keys() - set(SESSION)):
        raise ValueError(
            f"holds {', '.join(quoted(name, 48) for name in unknown)}; known: {', '.join(SESSION)}. Give anything else "
            "as an option of its own"
        )
    for name, one in given.items():
        if not isinstance(one, str | None):
            raise ValueError(f"needs a string for {name!r}")
    return {name: kept for name, one in given.items() if one and (kept := one.strip())}


SERVICES: Final = ("secretsmanager", "ssm", "sts")
"""The services that the AWS backends ask, by botocore's names."""

ENDPOINT: Final = "endpoint_url"


def _endpoint(value: Any) -> str:
    """Accept the address of a service."""
    return server_url(strict_text(value).strip())


def _service_config(value: Any) -> dict[str, dict[str, str]]:
    """Accept an object with an endpoint for each of some services; what it holds for services not asked is ignored."""
    endpoints: dict[str, dict[str, str]] = {}
    for service, settings in mapping(value).items():
        if service not in SERVICES:
            _refuse_misspelled(service)
            warn(
                ("service_config", service),
                "Option 'service_config' holds %s, which is ignored; known: %s.",
                quoted(service, 48),
                ", ".join(SERVICES),
            )
        elif not isinstance(settings or {}, dict):
            raise ValueError(f'needs {{"{ENDPOINT}": "https://…"}} for {service!r}')
        elif settings:
            for unknown in sorted(settings.keys() - {ENDPOINT}):
                warn(
                    ("service_config", service, unknown),
                    "Option 'service_config' holds %s for %s, which is ignored; known: %s.",
                    quoted(unknown, 48),
                    service,
                    ENDPOINT,
                )
            if settings.get(ENDPOINT):
                endpoints[service] = {ENDPOINT: _endpoint_of(service, settings[ENDPOINT])}
    return endpoints


def _refuse_misspelled(service: str) -> None:
    """Refuse another spelling of a service that is asked: without its endpoint, requests would go elsewhere."""
    meant = service.lower().replace("-", "").replace("_", "").replace(" ", "")
    if meant in SERVICES:
        raise ValueError(f"holds {quoted(service, 48)}; did you mean {meant!r}?")


def _endpoint_of(service: str, url: Any) -> str:
    try:
        return _endpoint(url)
    except ValueError as error:
        raise ValueError(f"cannot use the {ENDPOINT!r} of {service!r}: it {error}") from None


def _assume_role_kwargs(value: Any) -> dict[str, Any]:
    """Accept further arguments of the STS call; a session policy as an object, too, or as its JSON text."""
    given = mapping(value)
    if given.get("Policy") is None:
        return given
    try:
        policy = mapping(given["Policy"])
    except ValueError:
        raise ValueError("needs a JSON object for 'Policy'") from None
    return given if isinstance(given["Policy"], str) else {**given, "Policy": json.dumps(policy)}


AWS_OPTIONS: Final = (
    Option("region_name", stripped, doc="AWS region; else the environment's or profile's."),
    Option("profile_name", stripped, doc="Profile of the shared AWS configuration files."),
    Option("aws_access_key_id", stripped, doc="Access key; else botocore's own chain of credentials."),
    Option("aws_secret_access_key", stripped, doc="Secret key to the access key."),
    Option("aws_session_token", stripped, doc="Session token of temporary credentials."),
    Option(
        "session_kwargs",
        _session_kwargs,
        {},
        "Keys, session token, profile and region in an object.",
        deprecated="the options inside it",
    ),
    Option("role_arn", stripped, doc="Role to assume; its credentials are refreshed in time."),
    Option(
        "assume_role_method",
        one_of("assume_role", "assume_role_with_web_identity", "assume_role_with_saml"),
        "assume_role",
        "How the role is assumed.",
    ),
    Option(
        "assume_role_kwargs",
        _assume_role_kwargs,
        {},
        "Further arguments of the STS call (ExternalId, DurationSeconds …).",
    ),
    Option("assume_role_with_saml", mapping, doc="Not supported; see the documentation for the way around."),
    Option("assume_role_with_web_identity_federation", one_of("file", "google"), doc="Where the token comes from."),
    Option("assume_role_with_web_identity_token_file", strict_text, doc="Else AWS_WEB_IDENTITY_TOKEN_FILE."),
    Option("assume_role_with_web_identity_federation_audience", strict_text, doc="Audience of Google's token."),
    Option("endpoint_url", _endpoint, doc="Another endpoint of the store, a VPC endpoint for example."),
    Option("service_config", _service_config, {}, 'Endpoints by service: {"sts": {"endpoint_url": …}}.'),
    Option("verify", flag_or_path, doc="false, or the CA bundle of the store; STS's is AWS_CA_BUNDLE."),
    Option("use_ssl", flag, default=True, doc="false speaks plain HTTP."),
    Option("api_version", text, doc="The service's API version; else the latest."),
    Option(
        "config_kwargs",
        _config_kwargs,
        {},
        "Arguments of botocore.config.Config for every client; its retries and time-outs are ignored.",
    ),
    Option("external_id", text, doc="ExternalId of the role's STS call.", deprecated="'assume_role_kwargs'"),
    Option("aws_account_id", text, doc="Account of the role in 'aws_iam_role'.", deprecated="'role_arn'"),
    Option("aws_iam_role", strict_text, doc="Name of the role to assume.", deprecated="'role_arn'"),
)


class AwsLookupMixin(SecretLookupMixin):
    """Base class of the AWS backends."""

    own_options: ClassVar[tuple[Option, ...]] = AWS_OPTIONS

    def check_options(self) -> None:
        """Merge ``session_kwargs`` into the options, which win; refuse options that contradict each other."""
        given = self.options
        inside, given["session_kwargs"] = given["session_kwargs"], {}
        # An access key from one place and a secret key from the other do not belong together.
        left_out = KEYS if any(given[name] for name in KEYS) else ()
        given |= {name: one for name, one in inside.items() if not given[name] and name not in left_out}
        super().check_options()

    def option_conflict(self) -> str | None:
        """Return why the options conflict: half a pair of keys, or incomplete options for a role; else ``None``."""
        given = self.options
        if bool(given["aws_access_key_id"]) != bool(given["aws_secret_access_key"]):
            return "options 'aws_access_key_id' and 'aws_secret_access_key' are needed both or neither"
        if given["aws_iam_role"] and not (given["role_arn"] or given["aws_account_id"]):
            return "option 'aws_iam_role' needs 'aws_account_id'; better give the whole ARN in 'role_arn'"
        if not (given["role_arn"] or given["aws_iam_role"]):
            return None
        method = given["assume_role_method"]
        if method == "assume_role_with_saml":
            return (
                "option 'assume_role_method' is 'assume_role_with_saml', which no maintained library supports. Let a "
                "profile's credential_process fetch the credentials, and name the profile in 'profile_name'"
            )
        federation = given["assume_role_with_web_identity_federation"]
        if method == "assume_role_with_web_identity" and not federation:
            return "option 'assume_role_with_web_identity_federation' must be 'file' or 'google'"
        if federation == "google" and not given["assume_role_with_web_identity_federation_audience"]:
            return "option 'assume_role_with_web_identity_federation_audience' is needed for Google"
        return None
