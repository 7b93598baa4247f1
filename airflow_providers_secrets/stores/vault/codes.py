"""What Vault's answers are called here, what they mean for a lookup, and the one thing to do about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from airflow_providers_secrets.stores.base import ABSENT, MALFORMED, Outcome

REFUSED: Final = "login refused"
UNREADABLE: Final = "unusable credential"
DELETED: Final = "deleted"
DESTROYED: Final = "destroyed"
NO_MOUNT: Final = "no such mount"
OTHER_VERSION: Final = "another kv_engine_version"
REDIRECTED: Final = "redirect to another host"
TOO_LONG: Final = "answer too long"
URL_PATH: Final = "path in the url"
SIGNING_REFUSED: Final = "signing refused"

MEANINGS: Final[Mapping[int, str]] = {
    412: "HTTP 412, this node has not yet seen the latest write",
    472: "HTTP 472, a disaster recovery secondary",
    473: "HTTP 473, a performance standby",
    503: "HTTP 503, sealed or down for maintenance",
}
"""What to show of a status whose meaning is Vault's own."""

OUTCOMES: Final[Mapping[str, Outcome]] = {
    # https://developer.hashicorp.com/vault/api-docs#http-status-codes, and what OpenBao was seen to answer. The
    # rest is UNAVAILABLE: 412 (not yet replicated), 472 and 473 (secondary or standby node), 5xx, 503 when sealed.
    ABSENT: Outcome.NOT_FOUND,
    DELETED: Outcome.REVOKED,
    DESTROYED: Outcome.REVOKED,
    MALFORMED: Outcome.INVALID,
    TOO_LONG: Outcome.INVALID,
    "HTTP 403": Outcome.DENIED,
    "HTTP 429": Outcome.THROTTLED,
    **dict.fromkeys(
        (
            REFUSED,
            UNREADABLE,
            NO_MOUNT,
            OTHER_VERSION,
            REDIRECTED,
            URL_PATH,
            SIGNING_REFUSED,
            *(f"HTTP {status}" for status in (301, 302, 303, 307, 308, 400, 401, 405)),
            # requests.exceptions
            "InvalidHeader",
            "InvalidProxyURL",
            "InvalidSchema",
            "InvalidURL",
            "MissingSchema",
            "TooManyRedirects",
            "UnicodeEncodeError",  # a token that no header can hold
            # OpenSSL's reasons
            "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            # botocore.exceptions, google.auth.exceptions, azure.core.exceptions
            "NoCredentialsError",
            "PartialCredentialsError",
            "ProfileNotFound",
            "ClientError",
            "DefaultCredentialsError",
            "MalformedError",
            "OAuthError",
            "RefreshError",
            "ClientAuthenticationError",
        ),
        Outcome.MISCONFIGURED,
    ),
}

ADVICE: Final[Mapping[str | Outcome, str]] = {
    DELETED: "Undelete its latest version, or delete its metadata if it is to be absent.",
    DESTROYED: "Write a new version, or delete its metadata if it is to be absent.",
    REFUSED: "Check the credentials, role and 'auth_mount_point' of the login.",
    UNREADABLE: "Let the option name a file that Airflow's user can read and that holds the credential.",
    SIGNING_REFUSED: "Grant the Google account roles/iam.serviceAccountTokenCreator on itself.",
    NO_MOUNT: "Check 'mount_point' and 'namespace'.",
    OTHER_VERSION: "Set 'kv_engine_version' to 2, or to \"auto\".",
    REDIRECTED: "Set 'url' to the address that Vault itself announces (api_addr), without a path.",
    URL_PATH: "Remove the path from 'url': scheme, host and port are enough.",
    TOO_LONG: "Check that 'url' is Vault's own address.",
    MALFORMED: "Check that 'url' is Vault's own address.",
    "HTTP 301": "Set 'url' to the address that Vault itself announces (api_addr).",
    "HTTP 302": "Set 'url' to the address that Vault itself announces (api_addr).",
    "HTTP 303": "Set 'url' to the address that Vault itself announces (api_addr).",
    "HTTP 307": "Set 'url' to the address that Vault itself announces (api_addr).",
    "HTTP 308": "Set 'url' to the address that Vault itself announces (api_addr).",
    "HTTP 400": "Check the 'namespace', and look into Vault's log for what it refuses.",
    "HTTP 405": "Check 'mount_point': what is mounted there is no KV engine.",
    "HTTP 503, sealed or down for maintenance": "Unseal Vault.",
    "InvalidHeader": "Remove the characters from the token that no HTTP header can hold.",
    "UnicodeEncodeError": "Remove the characters from the token that no HTTP header can hold.",
    "TooManyRedirects": "Set 'url' to the address that Vault itself announces (api_addr).",
    "CERTIFICATE_VERIFY_FAILED": "Set 'verify' to the bundle of the CA that signed Vault's certificate.",
    "WRONG_VERSION_NUMBER": "Check the scheme and port of 'url': that port does not speak TLS.",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "Set 'cert' to the client certificate that Vault asks for.",
    "NoCredentialsError": "Give Airflow's host or pod AWS credentials, or set 'key_id' and 'secret_id'.",
    "ProfileNotFound": "Correct AWS_PROFILE.",
    "DefaultCredentialsError": "Set 'gcp_key_path', or give Airflow's host or pod Google credentials.",
    "ClientAuthenticationError": "Check the Azure identity ('azure_tenant_id', 'key_id', 'secret_id', or the host's).",
    Outcome.DENIED: "Allow 'read' on its path (with data/ after the mount for KV 2) in a policy of the login's role.",
    Outcome.REVOKED: "Write a new version of it.",
    Outcome.MISCONFIGURED: "Check the backend's options for 'url', TLS and login.",
    Outcome.INVALID: (
        "Rewrite it: a connection as 'conn_uri' or by its fields, a variable or configuration value as 'value'."
    ),
}
