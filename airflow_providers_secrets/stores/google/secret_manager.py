"""Google Secret Manager."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from airflow_providers_secrets.stores.base import (
    BAD_BUNDLE,
    BAD_CREDENTIAL,
    EXISTS,
    LOGIN_REFUSED,
    LOGIN_UNAVAILABLE,
    MALFORMED,
    ON_THE_WAY,
    REDIRECTS,
    UNTRUSTED,
    Answer,
    Identity,
    ListedSecret,
    Outcome,
    PageTokens,
    Store,
    StoreError,
    Written,
)
from airflow_providers_secrets.stores.google import grpc_forks

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.google.api import Api
    from airflow_providers_secrets.stores.google.login import Login, ParsedKeys

PAGE_SIZE: Final = 1000
"""Names per page of a listing; Google allows 25,000 at most."""

MAX_PAGES: Final = 10_000
"""Maximum number of pages; a longer listing counts as endless: listing so large a project would take hours."""

CHECKSUM: Final = "checksum"
COMMAND_FAILED: Final = "the credentials' command failed"
NO_CREDENTIALS: Final = "no Google credentials in the options or the environment"
NO_PROJECT: Final = "no project"
UNFIT_SDK: Final = "unfit google-cloud-secret-manager"
NO_TEXT: Final = "no text"

_RESOURCE = re.compile(r"projects/[^/]+/(?:locations/([^/]+)/)?secrets/([^/]+)(?:/versions/([^/]+))?")

_STORES = "airflow_providers_secrets.stores.google"

_OF_TYPE: Final[Mapping[str, tuple[str, ...]]] = {
    "service_account": (),
    "authorized_user": ("google.oauth2.credentials",),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "google.oauth2.credentials"),
}
"""The modules that google-auth imports for a credential configuration, by its type, beyond those of every login."""

_OF_ANY_TYPE: Final = (
    "google.oauth2.credentials",
    "google.auth.compute_engine",
    "google.auth.identity_pool",
    "google.auth.aws",
    "google.auth.pluggable",
    "google.auth.external_account_authorized_user",
    "google.auth.impersonated_credentials",
)
"""The same for a configuration whose type only its file or the machine tells."""


class Client(NamedTuple):
    """A client of the secrets of one project, and of one region if given, for one identity."""

    api: Api
    login: Login
    parent: str

    def __repr__(self) -> str:
        return f"Client({self.parent!r})"


class SecretManager(Store):
    """Google Secret Manager, over REST or gRPC.

    A process that may have inherited gRPC by a fork uses REST, whatever the options say (:mod:`.grpc_forks`).
    """

    sdk: ClassVar = {
        "google.cloud.secretmanager_v1": "google",
        "google_crc32c": "google",
        # Our modules come last: they need the others.
        f"{_STORES}.http": "google",
        f"{_STORES}.login": "google",
        f"{_STORES}.api": "google",
    }
    late_imports: Sequence[str] = ("_strptime", "google.api_core.client_logging", "grpc_status.rpc_status")
    outcomes: ClassVar = {
        # https://cloud.google.com/apis/design/errors#error_codes; everything else is UNAVAILABLE. A proxy's answer
        # without a status of Google's is none of these: gRPC calls a 404 UNIMPLEMENTED, REST has no status in it.
        "NOT_FOUND": Outcome.NOT_FOUND,
        "PERMISSION_DENIED": Outcome.DENIED,
        "FAILED_PRECONDITION": Outcome.REVOKED,
        "RESOURCE_EXHAUSTED": Outcome.THROTTLED,
        CHECKSUM: Outcome.INVALID,
        NO_TEXT: Outcome.INVALID,
        **dict.fromkeys(
            (
                "INVALID_ARGUMENT",
                "UNAUTHENTICATED",
                # Reasons: https://cloud.google.com/service-infrastructure/docs/reference/rpc/google.api/errorreason
                "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                "BILLING_DISABLED",
                "CONSUMER_INVALID",
                "SERVICE_DISABLED",
                "USER_PROJECT_DENIED",
                # Ours.
                BAD_CREDENTIAL,
                BAD_BUNDLE,
                LOGIN_REFUSED,
                NO_CREDENTIALS,
                NO_PROJECT,
                UNFIT_SDK,
                *REDIRECTS,
            ),
            Outcome.MISCONFIGURED,
        ),
        LOGIN_UNAVAILABLE: Outcome.UNAVAILABLE,
        COMMAND_FAILED: Outcome.UNAVAILABLE,  # the service that the command asks may be down
    }
    on_the_way = ON_THE_WAY | {NO_CREDENTIALS, NO_PROJECT, UNFIT_SDK}
    advice: ClassVar = {
        Outcome.DENIED: "Grant the backend's identity roles/secretmanager.secretAccessor on it, in its project.",
        Outcome.REVOKED: "Enable its latest version or add a new one; delete the secret if it shall be absent.",
        Outcome.MISCONFIGURED: "Fix the backend's project_id, location, endpoint or credentials.",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT": "Put https://www.googleapis.com/auth/cloud-platform into gcp_scopes.",
        "BILLING_DISABLED": "Enable billing for the project that the calls are billed to.",
        "CONSUMER_INVALID": "Fix project_id: there is no such project.",
        "SERVICE_DISABLED": "Enable the Secret Manager API (secretmanager.googleapis.com) in the project.",
        "USER_PROJECT_DENIED": "Grant it roles/serviceusage.serviceUsageConsumer on the project of quota_project_id.",
        "INVALID_ARGUMENT": "Check the backend's project_id, location and version: Google does not allow the name.",
        "UNAUTHENTICATED": "Replace the credentials: Google does not accept them (check the host's clock first).",
        BAD_CREDENTIAL: "Fix what the credentials' option, variable or file holds or names.",
        BAD_BUNDLE: "Fix the variable or the file.",
        UNTRUSTED: "Name the CA bundle in REQUESTS_CA_BUNDLE; for gRPC, in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.",
        LOGIN_REFUSED: "Replace the credentials: whoever issues the tokens refuses them.",
        COMMAND_FAILED: (
            "Run the credentials' command as Airflow's user, with GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1."
        ),
        NO_CREDENTIALS: "Set gcp_key_path, or run where a service account is attached.",
        NO_PROJECT: "Set project_id.",
        UNFIT_SDK: "Install another version of google-cloud-secret-manager, or set transport to 'grpc'.",
        CHECKSUM: "Read it again later; where that fails too, add its value as a new version.",
        NO_TEXT: "Add a version that is UTF-8 text.",
        MALFORMED: "Check that endpoint leads to Google Secret Manager.",
        **dict.fromkeys(
            REDIRECTS,
            "Fix endpoint, or the proxy in between: redirects are not followed.",
        ),
    }
    expired_login = frozenset({"UNAUTHENTICATED"})
    env_prefixes = ("GOOGLE_", "GCE_", "CLOUDSDK_", "GCLOUD_")
    muted_loggers = ("google", "grpc", "urllib3")
    write_settings: ClassVar[Mapping[str, str]] = {
        "locations": "regions, separated by commas, that a new global secret is replicated to; else Google chooses",
    }
    largest_value = 65_536
    writes_per_second = 4.5  # 600 requests a minute and project, and a new secret takes two

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._keys: ParsedKeys | None = None
        if options["transport"] == "grpc":
            self.late_imports = (*self.late_imports, "grpc._channel", "grpc._interceptor")

    @property
    def transport(self) -> str:
        """The transport of this process: ``rest`` or ``grpc``."""
        return str(self.options["transport"]) if grpc_forks.may_speak() else "rest"

    @property
    def forks_wait(self) -> bool:  # type: ignore[override]
        """True if it uses gRPC."""
        return self.transport == "grpc"

    def imports(self) -> Mapping[str, str]:
        """Return the SDK, our modules that need it, and what google-auth imports for these credentials."""
        configuration = self.options["gcp_credential_config_file"]
        needed: tuple[str, ...] = ()
        if isinstance(configuration, Mapping):
            needed = _OF_TYPE.get(str(configuration["type"]), _OF_ANY_TYPE)
        elif not (self.options["gcp_key_path"] or self.options["gcp_keyfile_dict"]):
            needed = _OF_ANY_TYPE
        if self.options["impersonation_chain"]:
            needed = (*needed, "google.auth.impersonated_credentials")
        return {**self.sdk, **dict.fromkeys(needed, "google")}

    def preload(self) -> None:
        """Read the CA certificates, and parse the key that the options hold or name."""
        from airflow_providers_secrets.stores.google.http import trusted_authorities
        from airflow_providers_secrets.stores.google.login import ParsedKeys

        keys = ParsedKeys()
        for read in (trusted_authorities, lambda: keys.preload(self.options)):
            with contextlib.suppress(Exception):  # connect() raises it again
                read()
        self._keys = keys

    def connect(self) -> Client:
        """Find the credentials and the project. The first call logs in.

        :raises StoreError: naming the option, if a credential cannot be used.
        """
        from airflow_providers_secrets.stores.google.api import Api
        from airflow_providers_secrets.stores.google.login import Login, ParsedKeys

        login = Login(self.options, self._keys or ParsedKeys())
        location = self.options["location"]
        parent, host = f"projects/{login.project}", f"secretmanager.{login.universe}"
        if location:
            parent, host = f"{parent}/locations/{location}", f"secretmanager.{location}.rep.{login.universe}"
        url = self.options["endpoint"] or f"https://{host}"
        return Client(Api(self.transport, url, login.metadata, self.options), login, parent)

    def address(self, client: Client) -> str:
        """Return the API's address, which depends on the credentials and the region."""
        return client.api.address

    def fetch(self, client: Client, name: str) -> Answer:
        """Read the version of a secret that the option ``version`` names (AccessSecretVersion).

        :raises StoreError: for an answer that is damaged, not text, or for another secret.
        """
        wanted = self.options["version"]
        answer = client.api.call("access_secret_version", {"name": f"{client.parent}/secrets/{name}/versions/{wanted}"})
        answered = _RESOURCE.fullmatch(answer.name)
        if not answered:
            raise StoreError(MALFORMED)
        # The answer has the project's number instead of its id, and the version's number instead of an alias.
        if (
            answered[1] != self.options["location"]
            or answered[3] is None
            or (wanted.isdigit() and answered[3] != wanted)
        ):
            raise StoreError("the answer is for another secret or version", MALFORMED)
        return Answer(_text(answer.payload), answered[2])

    def listing(self, client: Client, prefix: str) -> Iterator[ListedSecret]:
        """Yield the names that start with *prefix*, each with the time when the secret was created (ListSecrets).

        Needs ``secretmanager.secrets.list``. Google's listing contains neither texts nor versions.
        """
        request: dict[str, Any] = {"parent": client.parent, "page_size": PAGE_SIZE}
        # A substring of the name: https://cloud.google.com/secret-manager/docs/filtering
        if prefix[:1].isalnum():
            request["filter"] = f"name:{prefix}"
        tokens = PageTokens(MAX_PAGES)
        while True:
            page = next(client.api.call("list_secrets", request).pages)
            for secret in page.secrets:
                listed = _RESOURCE.fullmatch(secret.name)
                if listed and listed[2].startswith(prefix):
                    yield ListedSecret(listed[2], changed=secret.create_time)
            token = page.next_page_token
            if not token:
                return
            request["page_token"] = tokens.accept(token)

    def write(
        self,
        client: Client,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] = {},
    ) -> Written:
        """Add a version to the secret, after creating the secret if there is none.

        Labels, annotations, replication and expiry of a secret stay as they are. A secret without any version counts as
        absent, as it does for lookups.

        Needs ``secretmanager.versions.add``, and ``secretmanager.secrets.create`` to create one.
        """
        created = False
        version = None if only_if_absent else self._added(client, name, text)
        if version is None:
            created = self._created(client, name, settings)
            if not created and only_if_absent and self._has_versions(client, name):
                raise StoreError(EXISTS)
            version = self._added(client, name, text, must_exist=True)
        return Written(created=created, version=version)

    def _added(self, client: Client, name: str, text: str, *, must_exist: bool = False) -> str | None:
        """Add a version, and return its number; ``None`` if there is no such secret."""
        import google_crc32c

        data = text.encode()
        request = {
            "parent": f"{client.parent}/secrets/{name}",
            "payload": {"data": data, "data_crc32c": google_crc32c.value(data)},
        }
        try:
            answer = client.api.call("add_secret_version", request)
        except Exception as error:
            if must_exist or "NOT_FOUND" not in self.codes(error):
                raise
            return None
        written = _RESOURCE.fullmatch(answer.name)
        if not written or written[2] != name or written[3] is None:
            raise StoreError("the answer is for another secret", MALFORMED)
        return written[3]

    def _created(self, client: Client, name: str, settings: Mapping[str, str]) -> bool:
        """Create the secret; return false if it exists."""
        secret: dict[str, Any] = {}
        regions = [region for one in settings.get("locations", "").split(",") if (region := one.strip())]
        if regions:
            secret["replication"] = {"user_managed": {"replicas": [{"location": region} for region in regions]}}
        elif not self.options["location"]:  # a regional secret is not replicated
            secret["replication"] = {"automatic": {}}
        request = {"parent": client.parent, "secret_id": name, "secret": secret}
        try:
            client.api.call("create_secret", request)
        except Exception as error:
            if "ALREADY_EXISTS" not in self.codes(error):
                raise
            return False
        return True

    def _has_versions(self, client: Client, name: str) -> bool:
        request = {"parent": f"{client.parent}/secrets/{name}", "page_size": 1}
        return bool(next(client.api.call("list_secret_versions", request).pages).versions)

    def delete(self, client: Client, name: str) -> None:
        """Delete the secret with all its versions (DeleteSecret). Google keeps nothing to recover."""
        client.api.call("delete_secret", {"name": f"{client.parent}/secrets/{name}"})

    def identify(self, client: Client) -> Identity:
        """Return whose credentials these are, the project, and where that came from. Requests only a token."""
        return client.login.identity()

    def codes(self, error: Exception) -> Iterator[str]:
        """Yield Google's reason and status; for errors that are not from its API, the codes that every store yields."""
        from google.api_core.exceptions import GoogleAPICallError

        from airflow_providers_secrets.stores.google import api

        if isinstance(error, GoogleAPICallError):
            yield from api.codes(error)
        else:
            yield from super().codes(error)

    def retry_after(self, error: Exception) -> float | None:
        """Return the seconds of Google's RetryInfo or of the header Retry-After, or ``None``."""
        from google.api_core.exceptions import GoogleAPICallError

        from airflow_providers_secrets.stores.google import api

        return api.retry_after(error) if isinstance(error, GoogleAPICallError) else super().retry_after(error)


def _text(payload: Any) -> str:
    """Return the text of *payload*.

    :raises StoreError: if it is damaged or not UTF-8.
    """
    import google_crc32c

    # A presence test: a payload without a checksum cannot be checked.
    if "data_crc32c" in payload and google_crc32c.value(payload.data) != payload.data_crc32c:
        raise StoreError("its checksum does not match", CHECKSUM)
    with contextlib.suppress(UnicodeDecodeError):
        return str(payload.data, "utf-8")
    raise StoreError("it is not UTF-8 text", NO_TEXT)
