"""What the two AWS backends share: the options of an AWS connection, and the meaning of AWS's codes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from airflow_providers_secrets.lookup import SecretLookupMixin
from airflow_providers_secrets.options import Option, flag, flag_or_path, mapping, one_of, strict_text, text
from airflow_providers_secrets.outcomes import Outcome
from airflow_providers_secrets.store import seconds_to_wait

Client = Any
"""A botocore client; botocore is untyped."""

AWS_OPTIONS: Final = (
    Option("region_name", strict_text, doc="AWS region; else the environment's or profile's."),
    Option("profile_name", strict_text, doc="Profile of the shared AWS configuration files."),
    Option("aws_access_key_id", strict_text, doc="Access key; else botocore's own chain of credentials."),
    Option("aws_secret_access_key", strict_text, doc="Secret key to the access key."),
    Option("aws_session_token", strict_text, doc="Session token of temporary credentials."),
    Option("session_kwargs", mapping, {}, "Credentials in an object.", deprecated="the options inside it"),
    Option("role_arn", strict_text, doc="Role to assume; its credentials are refreshed in time."),
    Option(
        "assume_role_method",
        one_of("assume_role", "assume_role_with_web_identity", "assume_role_with_saml"),
        "assume_role",
        "How the role is assumed.",
    ),
    Option("assume_role_kwargs", mapping, {}, "Further arguments of the STS call (ExternalId, DurationSeconds …)."),
    Option("assume_role_with_saml", mapping, doc="Not supported; see the documentation for the way around."),
    Option("assume_role_with_web_identity_federation", one_of("file", "google"), doc="Where the token comes from."),
    Option("assume_role_with_web_identity_token_file", strict_text, doc="Else AWS_WEB_IDENTITY_TOKEN_FILE."),
    Option("assume_role_with_web_identity_federation_audience", strict_text, doc="Audience of Google's token."),
    Option("endpoint_url", strict_text, doc="Another endpoint of the store, a VPC endpoint for example."),
    Option("service_config", mapping, {}, 'Endpoints by service: {"sts": {"endpoint_url": …}}.'),
    Option("verify", flag_or_path, doc="false, or the CA bundle to verify TLS with."),
    Option("use_ssl", flag, default=True, doc="false speaks plain HTTP."),
    Option("api_version", text, doc="The service's API version; else the latest."),
    Option("config_kwargs", mapping, {}, "Arguments of botocore.config.Config, applied to every client."),
)

COMMON_OUTCOMES: Final[Mapping[str, Outcome]] = {
    # https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html, and Secrets Manager's.
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "NotAuthorized", "HTTP 403"), Outcome.DENIED),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidIdentityToken",
            "InvalidParameterException",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "OptInRequired",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
            "ValidationException",
            "ValidationError",
            "HTTP 301",
            "HTTP 302",
            "HTTP 307",
            "HTTP 308",
            "HTTP 400",
            # botocore.exceptions
            "ConfigNotFound",
            "ConfigParseError",
            "InvalidConfigError",
            "InvalidRegionError",
            "NoCredentialsError",
            "NoRegionError",
            "ParamValidationError",
            "PartialCredentialsError",
            "ProfileNotFound",
            "SSOError",
            "TokenRetrievalError",
            "UnknownServiceError",
            "DataNotFoundError",
            "ValueError",  # an endpoint_url that is no URL
        ),
        Outcome.MISCONFIGURED,
    ),
    # https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
    **dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "EC2ThrottledException",
            "LimitExceededException",
            "PriorRequestNotComplete",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "TransactionInProgressException",
            "HTTP 429",
        ),
        Outcome.THROTTLED,
    ),
    "ResponseParserError": Outcome.INVALID,
    # Everything else, a bare 404 of a proxy and 5xx included, is UNAVAILABLE.
}

COMMON_ADVICE: Final[Mapping[Outcome, str]] = {
    Outcome.MISCONFIGURED: "Mend the backend's region, endpoint, profile, role, credentials or verify.",
    Outcome.INVALID: "Write it anew: a URI or JSON object for a connection, text for everything else.",
}


class AwsLookupMixin(SecretLookupMixin):
    """A backend on one AWS service, through botocore."""

    sdk = ("botocore.session",)
    extra = "aws"
    ambient = ("AWS_",)
    service: ClassVar[str]
    """botocore's name of the service."""
    late_imports = ("encodings.idna",)  # of socket, for a host's name
    own_options: ClassVar[tuple[Option, ...]] = AWS_OPTIONS
    outcomes = COMMON_OUTCOMES
    advice = COMMON_ADVICE
    telltale_loggers = ("botocore.auth", "botocore.endpoint", "botocore.hooks", "botocore.parsers", "botocore.utils")
    expired_login = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})

    @property
    def max_attempts(self) -> int:
        """How often the store is asked; once, where ``config_kwargs`` leaves the retries to botocore."""
        return 1 if "retries" in self.options["config_kwargs"] else super().max_attempts

    def option_fault(self) -> str | None:
        """Name half a pair of keys, or a way to a role that is incomplete."""
        given = self.options
        if bool(given["aws_access_key_id"]) != bool(given["aws_secret_access_key"]):
            return "options 'aws_access_key_id' and 'aws_secret_access_key' are needed both or neither"
        if not given["role_arn"]:
            return None
        method = given["assume_role_method"]
        if method == "assume_role_with_saml":
            return (
                "option 'assume_role_method' is 'assume_role_with_saml', which no maintained library carries. Let a "
                "profile's credential_process fetch the credentials, and name the profile in 'profile_name'"
            )
        federation = given["assume_role_with_web_identity_federation"]
        if method == "assume_role_with_web_identity" and not federation:
            return "option 'assume_role_with_web_identity_federation' must be 'file' or 'google'"
        if federation == "google" and not given["assume_role_with_web_identity_federation_audience"]:
            return "option 'assume_role_with_web_identity_federation_audience' is needed for Google"
        return None

    def connect(self) -> Client:
        """Make the client. Credentials that botocore must fetch are fetched here or at the first call."""
        from airflow_providers_secrets.backends._aws_session import make_client

        # The official provider's session name, lower case, which trust policies may ask for.
        session_name = f"airflow_{type(self).__name__.lower()}__connection"[:64]
        return make_client(self.service, session_name, self.options)

    def codes(self, error: Exception) -> Iterator[str]:
        """Give AWS's code of an answer, then its HTTP status; or the class names of botocore's own errors."""
        response = getattr(error, "response", None)
        if not isinstance(response, dict):
            yield from super().codes(error)
            return
        code = str(response.get("Error", {}).get("Code"))
        # An answer that is not AWS's own (a proxy's page) has its status for a code.
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9.:]{0,79}", code):
            yield code
        yield f"HTTP {response.get('ResponseMetadata', {}).get('HTTPStatusCode')}"

    def retry_after(self, error: Exception) -> float | None:
        """Give the answer's Retry-After (RFC 9110, section 10.2.3), where it is in seconds."""
        response = getattr(error, "response", None)
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if isinstance(response, dict) else {}
        return seconds_to_wait(str(headers.get("retry-after", "")))
