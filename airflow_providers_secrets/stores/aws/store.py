"""What the two AWS stores share: the client, the meaning of AWS's codes, and who is asking."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets.errors import SecretsError
from airflow_providers_secrets.stores.base import (
    BAD_BUNDLE,
    FOREIGN,
    LOGIN_REFUSED,
    MALFORMED,
    NO_TLS,
    ON_THE_WAY,
    REDIRECTS,
    UNTRUSTED,
    Identity,
    Outcome,
    PageTokens,
    Store,
    StoreError,
    codes_of_page,
    seconds_to_wait,
)

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.aws.session import AwsClient, SpareClient

BAD_SETTING: Final = "bad setting"
"""The code of an unusable setting of a write."""

BAD_URL: Final = "an address that is no URL"
BAD_CREDENTIALS: Final = "credentials that cannot be read"
BAD_CONFIG: Final = "settings that botocore cannot use"
BAD_REQUEST: Final = "a request that cannot be sent"
BAD_PROXY: Final = "a proxy's address that is no URL"
WHITE_SPACE: Final = "white space around a variable"
CLIENT_CERTIFICATE: Final = "unusable client certificate"
CONTAINER_REFUSED: Final = "container refused"
"""The code, besides :data:`LOGIN_REFUSED`, of a refusal by the service that AWS_CONTAINER_CREDENTIALS_* names."""

UNREADABLE: Final = ("ArithmeticError", "AttributeError", "LookupError", "RecursionError", "TypeError", "ValueError")
"""What botocore and the stores raise for an answer that does not match the API's specification. botocore raises the
same for settings and credentials that it cannot use; see :func:`unusable`."""

REFUSED_SETTINGS: Final = (
    # botocore.exceptions, of options and of the environment.
    "BaseEndpointResolverError",
    "EndpointProviderError",
    "InvalidChecksumConfigError",
    "InvalidDefaultsMode",
    "InvalidEndpointConfigurationError",
    "InvalidEndpointDiscoveryConfigurationError",
    "InvalidIMDSEndpointError",
    "InvalidIMDSEndpointModeError",
    "InvalidProxiesConfigError",
    "InvalidRetryConfigurationError",
    "InvalidS3AddressingStyleError",
    "InvalidS3UsEast1RegionalEndpointConfigError",
    "InvalidSTSRegionalEndpointsConfigError",
    "MissingDependencyException",
    "RefreshWithMFAUnsupportedError",
    "UnknownCredentialError",
    "UnknownRegionError",
    "UnknownSignatureVersionError",
    "UnsupportedSignatureVersionError",
)
"""What botocore raises for a setting's value that it does not accept, before it sends anything."""

LOCAL: Final = (
    # botocore.exceptions; an outage of EC2's metadata service also shows as NoCredentialsError.
    "ConfigNotFound",
    "ConfigParseError",
    "DataNotFoundError",
    "InvalidConfigError",
    "InvalidRegionError",
    "NoCredentialsError",
    "NoRegionError",
    "ParamValidationError",  # of a login: for an empty token, for example
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "UnknownServiceError",
    BAD_URL,
    BAD_CREDENTIALS,
    BAD_CONFIG,
    BAD_REQUEST,
    BAD_PROXY,
    WHITE_SPACE,
    BAD_BUNDLE,
    CLIENT_CERTIFICATE,
    *REFUSED_SETTINGS,
    "DefaultCredentialsError",  # google.auth.exceptions
    "JSONDecodeError",  # of the output of a credential_process
    # Of a token's file, a credential_process or a CA bundle.
    "FileNotFoundError",
    "IsADirectoryError",
    "NotADirectoryError",
    "PermissionError",
)
"""The codes of failures before AWS is asked. All are faults of the configuration."""

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
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
            "ValidationException",
            "ValidationError",
            *REDIRECTS,
            "HTTP 400",
            # botocore.exceptions, which an answer of AWS may have caused.
            "SSOError",
            "TokenRetrievalError",
            "UnauthorizedSSOTokenError",
            *LOCAL,
            BAD_SETTING,
            CONTAINER_REFUSED,
            LOGIN_REFUSED,
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
    **dict.fromkeys(("ResponseParserError", *UNREADABLE), Outcome.INVALID),
    # Transient, with the status 400 (botocore's own retries know them: retries/standard.py, data/_retry.json).
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException", "IDPCommunicationError"), Outcome.UNAVAILABLE),
    # Everything else, a bare 404 of a proxy and 5xx included, is UNAVAILABLE.
}

COMMON_ADVICE: Final[Mapping[str | Outcome, str]] = {
    Outcome.MISCONFIGURED: "Correct the backend's AWS options or the environment's AWS settings.",
    Outcome.INVALID: "Rewrite it: a URI or JSON object for a connection, text for everything else.",
    **dict.fromkeys(
        (MALFORMED, FOREIGN, *UNREADABLE),
        "Check that 'endpoint_url' and every proxy in between lead to AWS itself.",
    ),
    BAD_SETTING: "Write the tags as KEY=VALUE,KEY=VALUE.",
    **dict.fromkeys(
        ("NoCredentialsError", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
        "Give this process AWS credentials: a role of its host or pod, 'profile_name', or keys.",
    ),
    **dict.fromkeys(("NoRegionError", "InvalidRegionError"), "Name the store's region in 'region_name'."),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException"),
        "Replace the session token, or use credentials that are renewed by themselves (a role, a profile).",
    ),
    **dict.fromkeys(
        ("InvalidClientTokenId", "UnrecognizedClientException"), "Replace the access key: AWS does not know it."
    ),
    **dict.fromkeys(
        ("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"),
        "Replace the secret access key, unless this host's clock is wrong.",
    ),
    **dict.fromkeys(("RequestExpired", "RequestTimeTooSkewed"), "Set this host's clock."),
    **dict.fromkeys(
        ("SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError"), "Log in anew: aws sso login."
    ),
    **dict.fromkeys(
        REDIRECTS,
        "Name the store's own address in 'endpoint_url': redirects are not followed.",
    ),
    BAD_URL: "Correct 'endpoint_url', or AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_* in the environment.",
    BAD_CREDENTIALS: (
        "Fix what the profile's credential_process prints, or AWS_CONTAINER_*, AWS_METADATA_*, AWS_EC2_METADATA_*, "
        "AWS_ENDPOINT_URL_STS."
    ),
    BAD_CONFIG: "Correct 'config_kwargs' and 'assume_role_kwargs': a value in them is of another type.",
    BAD_REQUEST: "Remove line breaks from the AWS credentials, or correct 'config_kwargs'.",
    BAD_PROXY: "Correct HTTP_PROXY, HTTPS_PROXY, or 'proxies' in 'config_kwargs'.",
    WHITE_SPACE: "Remove the line break or spaces from the variable's value.",
    CLIENT_CERTIFICATE: "Let 'config_kwargs' name readable files in PEM: a certificate and its key without a password.",
    BAD_BUNDLE: "Correct 'verify', AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or the profile's ca_bundle, whichever names it.",
    **dict.fromkeys(
        ("FileNotFoundError", "IsADirectoryError", "NotADirectoryError", "PermissionError"),
        "Make the file readable that the AWS settings name: a token's, a credential_process, certificates.",
    ),
    "JSONDecodeError": "Run the profile's credential_process by hand and fix what it prints.",
    "CredentialRetrievalError": (
        "Run the profile's credential_process by hand, or check the service that AWS_CONTAINER_CREDENTIALS_* names."
    ),
    CONTAINER_REFUSED: (
        "Check the role of the pod or task: the service that AWS_CONTAINER_CREDENTIALS_* names refuses it."
    ),
    LOGIN_REFUSED: "Replace Google's credentials: whoever issues the tokens refuses them.",
    "ProfileNotFound": "Name a profile of the AWS configuration files in 'profile_name'.",
    "PartialCredentialsError": (
        "Complete the pair of access key and secret access key; a profile with a role_arn needs a source_profile or "
        "credential_source."
    ),
    **dict.fromkeys(("ConfigNotFound", "ConfigParseError"), "Fix the file that AWS_CONFIG_FILE names."),
    **dict.fromkeys(
        ("DataNotFoundError", "UnknownServiceError"), "Remove 'api_version': botocore has no such version."
    ),
    "DefaultCredentialsError": "Name a file of Google credentials in GOOGLE_APPLICATION_CREDENTIALS.",
    UNTRUSTED: (
        "Name the CA bundle of the store's certificate in 'verify', STS's in AWS_CA_BUNDLE, Google's in "
        "REQUESTS_CA_BUNDLE."
    ),
    NO_TLS: "Correct the scheme or port of 'endpoint_url': that port does not speak TLS.",
    "AccessDenied of AssumeRole": "Allow the credentials sts:AssumeRole on the role, and trust them in its policy.",
    "AccessDenied of AssumeRoleWithWebIdentity": "Trust the token's issuer, audience and subject in the role's policy.",
}
"""The one thing to do about each code, the most specific first; "CODE of OPERATION" if the operation matters."""

UNKNOWN_KEY: Final = frozenset(
    {"InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"}
)
"""The codes for keys that AWS does not know, or no longer: the file that they came from may have new ones."""

GOOGLE_MODULES: Final = (
    "google.auth.compute_engine",
    "google.auth.transport.requests",
    "google.oauth2.id_token",
    "google.oauth2.service_account",
    "airflow_providers_secrets.stores.google.login",
)
"""The modules for a web identity from Google, including those that google-auth imports when asked for a token."""

MAX_PAGES: Final = 20_000
"""Maximum number of pages of one listing. A page has ten parameters, and an account at most 110,000."""


class AwsStore(Store):
    """One AWS service.

    Threads share its client; a forked child has its own, which its parent prepared before the fork if it could.
    """

    service: ClassVar[str]
    """botocore's name of the service."""
    session_name: ClassVar[str]
    """The official provider's name of the role session, in lower case, which trust policies may require."""
    sdk: ClassVar = {"boto3.session": "aws"}
    outcomes = COMMON_OUTCOMES
    advice: ClassVar = COMMON_ADVICE
    on_the_way = ON_THE_WAY | {*LOCAL, "ResponseParserError", *UNREADABLE}
    late_imports = ("_strptime",)  # for dates in answers and credentials
    muted_loggers = ("boto3", "botocore", "urllib3")
    expired_login = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._spare: SpareClient | None = None
        if not given_keys(options):
            self.expired_login = self.expired_login | UNKNOWN_KEY
        self._by_google = (
            options["assume_role_method"] == "assume_role_with_web_identity"
            and options["assume_role_with_web_identity_federation"] == "google"
            and bool(options["role_arn"] or options["aws_iam_role"])
        )
        self.env_prefixes = ("AWS_", "CLOUDSDK_", "GCE_METADATA_", "GOOGLE_") if self._by_google else ("AWS_",)

    def imports(self) -> Mapping[str, str]:
        """Return boto3, and google-auth if a role is assumed with Google's token."""
        return {**self.sdk, **dict.fromkeys(GOOGLE_MODULES, "google")} if self._by_google else self.sdk

    def preload(self) -> None:
        """Read botocore's files about the service, and about STS if a role is assumed."""
        from airflow_providers_secrets.stores.aws import session

        in_role = session.role_arn(self.options)
        session.load_files([self.service, session.STS] if in_role else [self.service], self.options["api_version"])

    def prepare_for_children(self) -> None:
        """Make the client for the children, unless it needs Google's token: google-auth would use the network."""
        from airflow_providers_secrets.stores.aws import session

        if not self._by_google:
            self._spare = session.SpareClient(self.service, self.session_name, self.options, self.fetch)

    def connect(self) -> AwsClient:
        """Return the prepared client or a new one. Credentials are fetched here or at the first call."""
        from airflow_providers_secrets.stores.aws import session

        with unusable(BAD_CONFIG):
            client = self._spare.taken() if self._spare else None
            if client is None:
                return session.connect(self.service, self.session_name, self.options)
        self._spare = None
        return client

    def address(self, client: AwsClient) -> str | None:
        """Return the endpoint that botocore has chosen."""
        url: str | None = client.service.meta.endpoint_url
        return url

    def codes(self, error: Exception) -> Iterator[str]:
        """Yield AWS's code in an answer, then its HTTP status; or the class names of botocore's own errors."""
        yield from answer_codes(error) or super().codes(error)

    def retry_after(self, error: Exception) -> float | None:
        """Return the seconds of the answer's Retry-After, or ``None``."""
        response = getattr(error, "response", None)
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if isinstance(response, dict) else {}
        return seconds_to_wait(str(headers.get("retry-after", "")))

    def identify(self, client: AwsClient) -> Identity:
        """Ask STS whose credentials these are. Needs no permission."""
        caller = client.sts().get_caller_identity()
        return Identity(caller["Arn"], {"account": caller["Account"], "region": client.region})


def given_keys(options: Mapping[str, Any]) -> tuple[str, str, str | None] | None:
    """Return the access key, secret key and session token of *options*, or ``None`` if they hold no keys."""
    key, secret = options["aws_access_key_id"], options["aws_secret_access_key"]
    return (key, secret, options["aws_session_token"]) if key and secret else None


@contextlib.contextmanager
def unusable(code: str, address: str | None = None) -> Iterator[None]:
    """Tell by *code* what Python itself raises in the block, which reads no answer of the store.

    Without this it would count as :data:`UNREADABLE`, and so as an invalid secret.

    :param address: the code of a plain ValueError instead, which is what botocore raises for an address.
    :raises StoreError: for an error that no table knows better, with its class name.
    """
    fault: tuple[str, ...] = ()
    try:
        yield
    except Exception as error:
        if not is_pythons(error):
            raise
        fault = (address,) if address and type(error) is ValueError else (f"{code} ({type(error).__name__})", code)
    if fault:
        raise StoreError(*fault)


def is_pythons(error: Exception) -> bool:
    """Return whether Python raised *error*, or a subclass that no table knows, for a value of another form."""
    known = (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in COMMON_OUTCOMES)
    return next(known, None) in UNREADABLE and not isinstance(error, SecretsError)


def answer_codes(error: Exception) -> tuple[str, ...]:
    """Return AWS's code in an answer, the code with the operation, and the HTTP status; empty for other errors."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ()
    code = str(response.get("Error", {}).get("Code"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    # For an answer that is not AWS's own (a proxy's page), botocore puts the status there.
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.:]{0,79}", code):
        return codes_of_page(status)
    return code, f"{code} of {getattr(error, 'operation_name', None)}", f"HTTP {status}"


def pages(ask: Callable[..., Any], holds: str, **arguments: Any) -> Iterator[Any]:
    """Yield each page of a listing. boto3 has no paginator for these operations, or one that trusts every token.

    :param ask: the client's operation.
    :param holds: the page's field that holds the list.
    :raises StoreError: for a page without it, a token that was seen before, or more than :data:`MAX_PAGES`.
    :raises TimeoutError: once the deadline has passed.
    """
    tokens = PageTokens(MAX_PAGES)
    while True:
        page = ask(**arguments)
        if not isinstance(page.get(holds), list):
            raise StoreError("the answer holds no list", MALFORMED)
        yield page
        token = page.get("NextToken")
        if not token:
            return
        arguments["NextToken"] = tokens.accept(token)


def tags_of(setting: str) -> list[dict[str, str]]:
    """Return the tags in a setting ``KEY=VALUE,KEY=VALUE``.

    :raises StoreError: for anything else.
    """
    tags = [tag.partition("=") for tag in setting.split(",") if tag]
    if not all(key.strip() and equals for key, equals, _ in tags):
        raise StoreError("the setting 'tags' holds something else", BAD_SETTING)
    return [{"Key": key.strip(), "Value": value.strip()} for key, _, value in tags]
