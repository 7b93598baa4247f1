"""What an answer of Vault's means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_providers_secrets.stores.base import ABSENT, MALFORMED, StoreError
from airflow_providers_secrets.stores.vault.codes import (
    DELETED,
    DESTROYED,
    MEANINGS,
    NO_MOUNT,
    OTHER_VERSION,
    URL_PATH,
)

Options = Mapping[str, Any]

DEFAULT_ADDRESS: Final = "http://localhost:8200"
"""Where hvac looks for a server that nothing tells of."""

WRONG_PATHS: Final = ("ui", "v1")
"""What people copy into ``url`` from a browser or an example; hvac adds the API's path itself."""


class DeletedVersion(StoreError):
    """The latest version of a secret is deleted or destroyed.

    :param version: its number, after which a write would come.
    """

    def __init__(self, *codes: str, version: int) -> None:
        super().__init__(*codes)
        self.version = version


class Reply:
    """One answer of Vault's.

    :param status: its HTTP status.
    :param content: its JSON; ``None`` where it is none.
    :param retry_after: the seconds that it asks to wait.
    """

    __slots__ = ("content", "retry_after", "status")

    def __init__(self, status: int, content: Any, retry_after: float | None = None) -> None:
        self.status = status
        self.content = content
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"Reply({self.status})"


def address(options: Options) -> str:
    """Return the server's address."""
    url: str = options["url"] or os.environ.get("VAULT_ADDR") or DEFAULT_ADDRESS
    return url.rstrip("/")


def contents(reply: Reply, options: Options) -> dict[str, Any]:
    """Return the JSON object of a successful answer.

    :raises StoreError: for any other answer.
    """
    if reply.status == HTTPStatus.NO_CONTENT and reply.content is None:
        return {}
    if reply.status == HTTPStatus.OK and isinstance(reply.content, dict):
        return reply.content
    raise failed(reply, options)


def read_contents(reply: Reply, options: Options) -> dict[str, Any]:
    """Return the object ``data`` of an answer to a read.

    :raises StoreError: for any other answer.
    """
    if reply.status != HTTPStatus.OK or not isinstance(reply.content, dict):
        raise failed(reply, options)
    data = reply.content.get("data")
    if not isinstance(data, dict):
        raise StoreError("the answer holds no data", MALFORMED)
    return data


def failed(reply: Reply, options: Options) -> StoreError:
    """Return what an answer means that is not what was asked for. A 404 proves absence only in Vault's own words."""
    error = _meaning_of_404(reply.content) if reply.status == HTTPStatus.NOT_FOUND else None
    if error is None:
        shown = [MEANINGS[reply.status]] if reply.status in MEANINGS else []
        code = MALFORMED if reply.status == HTTPStatus.OK else f"HTTP {reply.status}"
        error = StoreError(*shown, code, retry_after=reply.retry_after)
    healthy = reply.status < HTTPStatus.INTERNAL_SERVER_ERROR and reply.status != HTTPStatus.TOO_MANY_REQUESTS
    if healthy and error.codes != (ABSENT,) and (cause := wrong_path(address(options))):
        return StoreError(*cause)
    return error


def wrong_path(url: str) -> tuple[str, ...]:
    """Name the path of ``url`` where it is one that the API cannot be under, as codes; or return none."""
    first = urlsplit(url).path.strip("/").partition("/")[0]
    return (f"option 'url' has the path '/{first}'", URL_PATH) if first in WRONG_PATHS else ()


def _meaning_of_404(content: Any) -> StoreError:
    foreign = StoreError("HTTP 404, which is not Vault's own answer")
    if not isinstance(content, dict):
        return foreign
    errors = content.get("errors")
    if errors == []:
        return StoreError(ABSENT)
    if errors:
        return StoreError("HTTP 404, no such mount, namespace or path", NO_MOUNT)
    data = content.get("data")
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict):
        version = metadata.get("version")
        version = version if isinstance(version, int) else 0
        if metadata.get("destroyed"):
            return DeletedVersion("its latest version is destroyed", DESTROYED, version=version)
        if metadata.get("deletion_time"):
            return DeletedVersion("its latest version is deleted", DELETED, version=version)
    if content.get("warnings"):
        return StoreError("HTTP 404, the mount is a KV 2 engine", OTHER_VERSION)
    return foreign
