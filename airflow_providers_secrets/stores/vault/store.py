"""A KV secrets engine of HashiCorp Vault or OpenBao."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import quote

from airflow_providers_secrets.stores.base import (
    ABSENT,
    EXISTS,
    MALFORMED,
    Answer,
    Identity,
    ListedSecret,
    Store,
    StoreError,
    Written,
)
from airflow_providers_secrets.stores.vault.replies import (
    ADVICE,
    BEFORE_VAULT,
    CONTENDED,
    NO_MOUNT,
    OTHER_VERSION,
    OUTCOMES,
    DeletedVersion,
    Reply,
    contents,
    errors_of,
    read_contents,
)

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.vault.client import VaultClient

Result = TypeVar("Result")

_STORES = "airflow_providers_secrets.stores"

LOGIN_SDKS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "aws_iam": (
        "aws",
        (
            "botocore.session",
            "botocore.config",
            "botocore.credentials",
            f"{_STORES}.aws.store",
            f"{_STORES}.aws.transport",
        ),
    ),
    "azure": ("azure", ("azure.identity", "msal", f"{_STORES}.azure.credentials")),
    "gcp": ("google", ("google.auth", "google.auth.jwt", f"{_STORES}.google.login")),
}
"""The extra that an auth type needs beyond hvac, and the modules to import from it."""

LOGIN_LOGGERS: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_iam": ("botocore",),
    "azure": ("azure", "azure.core.pipeline.policies.http_logging_policy", "msal", "msal.oauth2cli.oauth2"),
    "gcp": ("google",),
}
"""The loggers of those modules."""

ENV_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "aws_iam": ("AWS_",),
    "azure": ("AZURE_", "IDENTITY_", "IMDS_", "MSI_"),
    "gcp": ("CLOUDSDK_", "GCE_", "GOOGLE_", "NO_GCE_CHECK"),
}
"""Prefixes of the variables that those modules take credentials from, besides ``VAULT_``."""

BY_OPTIONS_ALONE: Final = frozenset(("agent", "approle", "ldap", "radius", "userpass"))
"""The auth types that read no file, so that no file can tell who asks."""

MAX_FOLDERS: Final = 10_000
"""Maximum number of folders that one listing reads, each with its own request."""

MAX_DEPTH: Final = 64
"""Maximum depth of folders in one listing."""

HOUR: Final = 3600

MAX_WRITES: Final = 3
"""Maximum number of attempts at a write that other writers overtake."""


class Vault(Store):
    """A KV secrets engine, in version 1 or 2.

    A name is ``{mount}/{path}``, as Vault's command spells it. The text of a secret is the JSON object of its data.
    """

    sdk: ClassVar = {"hvac": "vault"}
    env_prefixes: Sequence[str] = ("VAULT_",)  # and others by auth type
    outcomes = OUTCOMES
    advice = ADVICE
    on_the_way = BEFORE_VAULT
    muted_loggers: Sequence[str] = ("hvac", "urllib3")  # and others by auth type
    write_settings: ClassVar[Mapping[str, str]] = {}
    largest_value = 1024 * 1024

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        auth_type = options["auth_type"]
        if auth_type not in BY_OPTIONS_ALONE:
            # Import it here, while no fork can happen; asker() is called in other places, too.
            from airflow_providers_secrets.stores.vault import identity  # noqa: F401
        self.env_prefixes = (*type(self).env_prefixes, *ENV_PREFIXES.get(auth_type, ()))
        self.muted_loggers = (*type(self).muted_loggers, *LOGIN_LOGGERS.get(auth_type, ()))

    def imports(self) -> Mapping[str, str]:
        """Return hvac, and what the login with these options needs."""
        extra, modules = LOGIN_SDKS.get(self.options["auth_type"], ("", ()))
        needed = () if self.options["auth_type"] == "aws_iam" and self.options["key_id"] else modules
        return {**self.sdk, **dict.fromkeys(needed, extra)}

    def preload(self) -> None:
        """Import the modules that use hvac, and those that TLS and the login with these options need."""
        from airflow_providers_secrets.stores.vault import client, wire  # noqa: F401

        if wire.is_encrypted(self.options):
            from airflow_providers_secrets.stores import https  # noqa: F401
        if self.options["auth_type"] in LOGIN_SDKS:
            from airflow_providers_secrets.stores.vault import cloud_login  # noqa: F401

    def prepare_for_children(self) -> None:
        """Read the CA certificates for the server: 20 ms, most of a child's first lookup over TLS."""
        from airflow_providers_secrets.stores.vault import wire

        wire.load_certificates(self.options)

    def asker(self) -> bytes:
        """Return a digest of whom the files that the login reads identify."""
        if self.options["auth_type"] in BY_OPTIONS_ALONE:
            return b""
        from airflow_providers_secrets.stores.vault.identity import credential_digest

        return credential_digest(self.options)

    def connect(self) -> VaultClient:
        """Return a new client; it logs in at its first request."""
        from airflow_providers_secrets.stores.vault.client import VaultClient

        return VaultClient(self.options)

    def address(self, client: VaultClient) -> str:
        """Return Vault's address."""
        return client.address

    def fetch(self, client: VaultClient, name: str) -> Answer:
        """Read the latest version of one secret, as the JSON text of its data."""
        data, _ = self._secret(client, name)
        with contextlib.suppress(ValueError, RecursionError):
            return Answer(json.dumps(data, ensure_ascii=False, allow_nan=False))
        raise StoreError("the answer holds what JSON cannot", MALFORMED)

    def listing(self, client: VaultClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield the names of all secrets that start with *prefix*, folder by folder.

        Needs the capability ``list`` on the path (KV 2: under ``metadata/``). A folder's names come in one answer.

        :raises StoreError: if there are more than :data:`MAX_FOLDERS`, or one is deeper than :data:`MAX_DEPTH`.
        """
        mount, within = self._split(prefix)
        folders = [within.rpartition("/")[0]]
        read = 0
        while folders:
            folder = folders.pop()
            read += 1
            if read > MAX_FOLDERS or folder.count("/") >= MAX_DEPTH:
                raise StoreError(f"it has more than {MAX_FOLDERS} folders, or {MAX_DEPTH} inside each other", MALFORMED)
            for key in self._keys(client, mount, folder):
                path = f"{folder}/{key}" if folder else key
                if not path.startswith(within):
                    continue
                if not key.endswith("/"):
                    yield ListedSecret(f"{mount}/{path}")
                elif key.strip("/") not in ("", ".", ".."):  # no id has such a segment
                    folders.append(path.rstrip("/"))

    def write(
        self,
        client: VaultClient,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] = {},  # noqa: ARG002  # there are none
    ) -> Written:
        """Merge the JSON object *text* into the secret's data (RFC 7396): null removes a key, others stay.

        KV 2 writes use check-and-set, so that no write in between is lost; KV 1 has nothing like it. A secret whose
        latest version is deleted is written again, unless *only_if_absent* is set. Needs ``create`` on the path and,
        except for KV 2 with *only_if_absent*, also ``read`` and ``update``.

        :raises StoreError: with :data:`~.base.EXISTS` if *only_if_absent* is set and the name exists; or if other
            writers keep overtaking this one.
        """
        patch: dict[str, Any] = json.loads(text)
        blindly = only_if_absent and self._version(client, name) == "2"
        for _ in range(MAX_WRITES):
            data, version = ({}, 0) if blindly else self._current(client, name)
            if only_if_absent and version:
                raise StoreError(EXISTS)
            merged = {key: value for key, value in {**data, **patch}.items() if value is not None or key not in patch}
            reply = self._put(client, name, merged, version)
            if not _overtaken(reply):
                answer = contents(reply, self.options).get("data")
                written = answer.get("version") if isinstance(answer, dict) else None
                return Written(created=not data, version=None if written is None else str(written))
            if only_if_absent:
                raise StoreError(EXISTS)
        raise StoreError(CONTENDED)

    def delete(self, client: VaultClient, name: str) -> None:
        """Delete the latest version, recoverably; in KV 1, for good. Needs ``read`` and ``delete`` on the path.

        :raises StoreError: with :data:`~.base.ABSENT` if there is none, or the code of one that is deleted already.
        """
        self._secret(client, name)
        mount, path = self._split(name)
        if self._version(client, name) == "1":
            reply = client.ask(lambda api: api.secrets.kv.v1.delete_secret(path, mount_point=mount))
        else:
            reply = client.ask(lambda api: api.secrets.kv.v2.delete_latest_version_of_secret(path, mount_point=mount))
        contents(reply, self.options)

    def identify(self, client: VaultClient) -> Identity:
        """Look up the token of the login."""
        about = read_contents(client.ask(lambda api: api.auth.token.lookup_self()), self.options)
        policies = [*(about.get("policies") or ()), *(about.get("identity_policies") or ())]
        details = {
            "entity": about.get("entity_id"),
            "policies": ", ".join(dict.fromkeys(map(str, policies))),
            "token lives": _lifetime(about.get("ttl")),
            "login": about.get("path"),
            "namespace": self.options["namespace"],
        }
        known = {name: str(value) for name, value in details.items() if value not in (None, "")}
        return Identity(str(about.get("display_name") or about.get("entity_id") or "unknown"), known)

    # The engine.

    def _split(self, name: str) -> tuple[str, str]:
        """Return the mount, and the path under it."""
        mount = self.options["mount_point"] or name.partition("/")[0]
        return mount, name[len(mount) + 1 :]

    def _version(self, client: VaultClient, name: str) -> str:
        """Return the version of the KV engine; with ``"auto"``, the server is asked once every five minutes."""
        configured: str = self.options["kv_engine_version"]
        if configured != "auto":
            return configured
        mount, _ = self._split(name)
        return client.version(mount, lambda: self._version_from_vault(client, mount))

    def _version_from_vault(self, client: VaultClient, mount: str) -> str:
        # Vault's own command sends the same request before it reads; any identity with access below the mount may send
        # it. hvac has no method for it, and its read() does not quote.
        path = f"sys/internal/ui/mounts/{quote(mount)}"
        about = read_contents(client.ask(lambda api: api.read(path)), self.options)
        if about.get("type") not in ("kv", "generic"):
            raise StoreError("the mount is no KV engine", NO_MOUNT)
        engine = about.get("options")
        version = engine.get("version") if isinstance(engine, dict) else None
        return "2" if version == "2" else "1"

    def _for_version(self, client: VaultClient, name: str, exchange: Callable[[str], Result]) -> Result:
        """Call *exchange* with the version of the KV engine; with ``"auto"``, again if the mount was upgraded."""
        try:
            return exchange(self._version(client, name))
        except StoreError as error:
            if OTHER_VERSION not in error.codes or self.options["kv_engine_version"] != "auto":
                raise
            client.forget_version(self._split(name)[0])
        return exchange(self._version(client, name))

    def _secret(self, client: VaultClient, name: str) -> tuple[dict[str, Any], int]:
        """Return the data of a secret, and its version, which is always 1 in KV 1."""
        return self._for_version(client, name, lambda version: self._secret_of(version, client, name))

    def _secret_of(self, version: str, client: VaultClient, name: str) -> tuple[dict[str, Any], int]:
        mount, path = self._split(name)
        if version == "1":
            reply = client.ask(lambda api: api.secrets.kv.v1.read_secret(path, mount_point=mount))
            return read_contents(reply, self.options), 1
        reply = client.ask(
            # The flag only affects exceptions that hvac's own adapter raises; ours returns the answer.
            lambda api: api.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
        )
        answer = read_contents(reply, self.options)
        data = answer.get("data")
        if not isinstance(data, dict):
            raise StoreError("the answer holds no secret", MALFORMED)
        return data, _version_of(answer)

    def _current(self, client: VaultClient, name: str) -> tuple[dict[str, Any], int]:
        """Return the data and version that a write starts from: ``{}`` and 0 if there is nothing."""
        try:
            return self._secret(client, name)
        except StoreError as error:
            if ABSENT in error.codes:
                return {}, 0
            if not isinstance(error, DeletedVersion):
                raise
            return {}, error.version

    def _put(self, client: VaultClient, name: str, data: dict[str, Any], version: int) -> Reply:
        mount, path = self._split(name)
        if self._version(client, name) == "1":
            return client.ask(
                lambda api: api.secrets.kv.v1.create_or_update_secret(path, data, method="POST", mount_point=mount)
            )
        return client.ask(
            lambda api: api.secrets.kv.v2.create_or_update_secret(path, data, cas=version, mount_point=mount)
        )

    def _keys(self, client: VaultClient, mount: str, folder: str) -> list[str]:
        return self._for_version(client, f"{mount}/", lambda version: self._keys_of(version, client, mount, folder))

    def _keys_of(self, version: str, client: VaultClient, mount: str, folder: str) -> list[str]:
        reply = client.ask(lambda api: getattr(api.secrets.kv, f"v{version}").list_secrets(folder, mount_point=mount))
        try:
            keys = read_contents(reply, self.options).get("keys")
        except StoreError as error:
            if ABSENT in error.codes:
                return []
            raise
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise StoreError("the answer holds no list", MALFORMED)
        return list(dict.fromkeys(keys))


def _version_of(answer: Mapping[str, Any]) -> int:
    metadata = answer.get("metadata")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    return version if isinstance(version, int) else 0


def _overtaken(reply: Reply) -> bool:
    """Tell whether a write was refused because the secret is no longer at the expected version."""
    refused = reply.status == HTTPStatus.BAD_REQUEST
    return refused and any("check-and-set parameter did not match" in error for error in errors_of(reply))


def _lifetime(ttl: Any) -> str | None:
    """Return a token's remaining lifetime for people; in the API, 0 means that it never expires."""
    if not isinstance(ttl, int):
        return None
    if ttl <= 0:
        return "for ever"
    return f"{ttl} s" if ttl < 2 * HOUR else f"{ttl // HOUR} h"
