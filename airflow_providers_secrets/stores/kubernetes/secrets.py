"""Kubernetes Secrets: what the API's answers mean, and the operations on it. Imports no SDK.

A name is a label and its value, ``airflow.apache.org/connection-id=my_db``; with a team, both labels. If the key of the
Secret's data is not ``value``, it precedes them, with a colon. A name without ``=`` is the name of the Secret itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from airflow_providers_secrets.stores.base import (
    ABSENT,
    EXISTS,
    FOREIGN,
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
from airflow_providers_secrets.stores.kubernetes.identity import asker

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.kubernetes.client import KubernetesClient

DATA_KEY: Final = "value"
"""The key of a Secret's data that holds the value, unless the name contains another one."""

NO_LOGIN: Final = "no login"
BAD_KUBECONFIG: Final = "unusable kubeconfig"
NOT_LOGGED_IN: Final = "the kubeconfig's user gave no login"
FILES_GONE: Final = "the login's certificates are gone"
NO_KEY: Final = "the Secret lacks the key"
NO_TEXT: Final = "its value is not text"
AMBIGUOUS: Final = "several Secrets have these labels"

PAGE: Final = 500
"""Secrets per page of a listing, as kubectl requests."""

MAX_PAGES: Final = 2_000
"""Maximum number of pages, a million Secrets; a longer listing counts as endless."""

MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "airflow-secrets"}
"""The label of Secrets that this package creates (Kubernetes, "Recommended Labels")."""


class _Name(NamedTuple):
    """A name's parts.

    :param labels: the labels that the Secret must have; empty if it is requested by its own name.
    """

    data_key: str
    labels: dict[str, str]
    secret: str


def _parts(name: str) -> _Name:
    data_key, found, rest = name.partition(":")
    if not found:
        data_key, rest = DATA_KEY, name
    if "=" not in rest:
        return _Name(data_key, {}, rest)
    return _Name(data_key, dict(label.split("=", 1) for label in rest.split(",")), "")


class KubernetesSecrets(Store):
    """The Secrets of one namespace, read with one identity.

    A Secret is found by its label, whatever its name, so a lookup lists the Secrets with that label. RBAC cannot narrow
    the right to list by labels. Answers are consistent: never from the API server's watch cache alone.
    """

    sdk: ClassVar = {
        "kubernetes.config": "kubernetes",
        "airflow_providers_secrets.stores.kubernetes.client": "kubernetes",
    }
    # Besides Kubernetes' own variables, those of commands in kubeconfigs: aws, kubelogin, gke-gcloud-auth-plugin.
    env_prefixes = ("KUBECONFIG", "KUBERNETES_SERVICE_", "AAD_", "AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_")
    outcomes: ClassVar = {
        # Kubernetes, "API Conventions": HTTP status codes. Everything else is UNAVAILABLE: 5xx, 410 for an expired page
        # token, and a 404 that is not for a Secret.
        "AlreadyExists": Outcome.INVALID,
        AMBIGUOUS: Outcome.INVALID,
        "HTTP 403": Outcome.DENIED,
        "HTTP 422": Outcome.INVALID,
        "HTTP 429": Outcome.THROTTLED,
        NOT_LOGGED_IN: Outcome.UNAVAILABLE,  # the service that the command asks may be down; the SDK does not tell
        NO_KEY: Outcome.INVALID,
        NO_TEXT: Outcome.INVALID,
        **dict.fromkeys(
            (NO_LOGIN, BAD_KUBECONFIG, *REDIRECTS, *(f"HTTP {status}" for status in (400, 401, 405, 406, 415))),
            Outcome.MISCONFIGURED,
        ),
    }
    advice: ClassVar[Mapping[str | Outcome, str]] = {
        NO_LOGIN: "Mount the pod's service account token, or name a file in the option kubeconfig.",
        BAD_KUBECONFIG: (
            "Name a file that Airflow's user can read in the option kubeconfig or in KUBECONFIG, and in context one "
            "that it has."
        ),
        NOT_LOGGED_IN: "Run the command that the kubeconfig names, as Airflow's user, or put a token into it.",
        NO_KEY: "Put the value under that key of the Secret's data, or name its key in the option *_data_key.",
        NO_TEXT: "Store text in UTF-8: binary values cannot be looked up.",
        "AlreadyExists": "Delete the Secret of that name, or label it so that it is found.",
        AMBIGUOUS: "Delete with kubectl those that are not wanted: without the first, a lookup finds the next.",
        "HTTP 401": "Check that the API server accepts the service account's token, or log in to the kubeconfig anew.",
        "HTTP 404": "Check the server's address: what answers there does not know Secrets.",
        "HTTP 422": "Delete the Secret and write it again: it is immutable, or not one that Kubernetes stores.",
        **dict.fromkeys((MALFORMED, FOREIGN), "Fix the server's url in the kubeconfig, or the proxy in between."),
        **dict.fromkeys(
            REDIRECTS,
            "Fix the server's address in the kubeconfig; redirects are not followed.",
        ),
        UNTRUSTED: "Name the cluster's certificate authority in the kubeconfig.",
        Outcome.DENIED: "Allow it by a Role in the namespace: airflow-secrets policy prints one.",
        Outcome.MISCONFIGURED: "Fix the kubeconfig, or the option namespace.",
    }
    on_the_way = ON_THE_WAY | {NO_LOGIN, BAD_KUBECONFIG, FILES_GONE}
    expired_login = frozenset({"HTTP 401", FILES_GONE})
    # The SDK logs the stderr of a kubeconfig's command with the root logger.
    muted_loggers = ("urllib3.connectionpool", "kubernetes.client.rest", "root")
    write_settings: ClassVar[Mapping[str, str]] = {}
    largest_value = 1024 * 1024

    def asker(self) -> bytes:
        """Return a digest of who asks which cluster: the service account, or the kubeconfig and the files it names."""
        return asker(self.options)

    def connect(self) -> KubernetesClient:
        """Log in as the pod's service account, or as the kubeconfig says.

        :raises StoreError: if there is neither.
        """
        from airflow_providers_secrets.stores.kubernetes.client import KubernetesClient

        return KubernetesClient(self.options)

    def address(self, client: KubernetesClient) -> str:
        """Return the API server's address."""
        return client.server

    def fetch(self, client: KubernetesClient, name: str) -> Answer:
        """Read the Secret with these labels or this name. Needs ``list`` on Secrets; ``get`` for a name.

        Of several Secrets with the same labels, the first by name counts, as with the official class.
        """
        found = self._find(client, name)
        if found is None:
            raise StoreError(ABSENT)
        return Answer(_text(found, _parts(name).data_key), self._name_of(found, name))

    def listing(self, client: KubernetesClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield the Secrets with the label that *prefix* names, and their text, page by page. Needs ``list``."""
        data_key, separator, rest = prefix.rpartition(":")
        key = data_key or DATA_KEY
        label = rest.removesuffix("=") if rest.endswith("=") else ""
        seen: set[str] = set()
        for items in _pages(client, label, PAGE):
            for item in items:
                spelled = self._labelled(item, label) if label else _metadata(item, "name")
                name = f"{data_key}{separator}{spelled}"
                if spelled and name.startswith(prefix) and name != prefix and name not in seen:
                    seen.add(name)  # of several, the first counts
                    yield ListedSecret(name, _text_or_none(item, key), _metadata(item, "resourceVersion"))

    def write(
        self,
        client: KubernetesClient,
        name: str,
        text: str,
        *,
        only_if_absent: bool = False,
        settings: Mapping[str, str] = {},  # noqa: ARG002  # there are none
    ) -> Written:
        """Set one key of the Secret's data; labels, type and other keys stay. Needs ``list``, ``create``, ``patch``.

        A new Secret is named after its labels, so that a simultaneous creation by somebody else is noticed: their
        Secret is then written over.

        :raises StoreError: with :data:`EXISTS` if *only_if_absent* is set and the name exists.
        """
        asked = _parts(name)
        data = {asked.data_key: base64.b64encode(text.encode()).decode()}
        former = self._find(client, name)
        if former is None:
            made = {"name": asked.secret or _secret_name(name), "labels": {**MANAGED_BY, **asked.labels}}
            body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": made, "data": data}
            try:
                return _written(client.ask("POST", client.secrets(), body), created=True)
            except StoreError as error:
                # Somebody else was first, or a Secret of that name lacks the label.
                if "AlreadyExists" not in error.codes or (former := self._find(client, name)) is None:
                    raise
        if only_if_absent:
            raise StoreError(EXISTS)
        path = client.secrets(_metadata(former, "name"))
        return _written(client.ask("PATCH", path, {"data": data}, "application/merge-patch+json"), created=False)

    def delete(self, client: KubernetesClient, name: str) -> None:
        """Delete the Secret, with all keys of its data. Needs ``list`` and ``delete`` on Secrets.

        :raises StoreError: also if several Secrets have the labels: without the first, a lookup would find the next.
        """
        found = list(itertools.islice(self._all(client, name), 2))
        if not found:
            raise StoreError(ABSENT)
        if len(found) > 1:
            raise StoreError(AMBIGUOUS)
        client.ask("DELETE", client.secrets(_metadata(found[0], "name")))

    def identify(self, client: KubernetesClient) -> Identity:
        """Ask the API server who is asking (SelfSubjectReview, Kubernetes 1.28)."""
        group = "authentication.k8s.io"
        review = {"apiVersion": f"{group}/v1", "kind": "SelfSubjectReview"}
        answer = client.ask("POST", f"/apis/{group}/v1/selfsubjectreviews", review)
        try:
            who = str(answer["status"]["userInfo"]["username"])
        except (LookupError, TypeError):
            raise StoreError("the answer names nobody", MALFORMED) from None
        return Identity(who, {"server": client.server, "namespace": client.namespace})

    def _find(self, client: KubernetesClient, name: str) -> Mapping[str, Any] | None:
        """Return the Secret that *name* stands for, or ``None`` if the API proves that there is none."""
        return next(self._all(client, name), None)

    def _all(self, client: KubernetesClient, name: str) -> Iterator[Mapping[str, Any]]:
        """Yield the Secrets that *name* can stand for, the one that counts first."""
        asked = _parts(name)
        if not asked.labels:
            try:
                yield client.ask("GET", client.secrets(asked.secret))
            except StoreError as error:
                if ABSENT not in error.codes:
                    raise
            return
        selector = ",".join(f"{label}={value}" for label, value in asked.labels.items())
        team = self.options["team_label"]
        if team and team not in asked.labels:
            selector += f",!{team}"
        # A page may be empty although others follow. Secrets on later pages come later by name.
        for items in _pages(client, selector, 2):
            yield from sorted(items, key=lambda item: _metadata(item, "name"))

    def _name_of(self, secret: Mapping[str, Any], name: str) -> str:
        """Return the name that an answer is for, spelled as *name* is."""
        asked = _parts(name)
        start = name.rpartition(":")[0] + ":" if ":" in name else ""
        label = next(iter(asked.labels), "")
        return start + (self._labelled(secret, label) if label else _metadata(secret, "name"))

    def _labelled(self, secret: Mapping[str, Any], label: str) -> str:
        labels = (secret.get("metadata") or {}).get("labels") or {}
        team = self.options["team_label"]
        if not isinstance(labels, dict) or label not in labels:
            return ""
        return f"{label}={labels[label]}" + (f",{team}={labels[team]}" if team and team in labels else "")


def _pages(client: KubernetesClient, selector: str, limit: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the Secrets that *selector* selects, or all if it is empty, page by page.

    :raises StoreError: for a malformed page, a repeated page token, or too many pages.
    """
    token, tokens = "", PageTokens(MAX_PAGES)
    while True:
        query: dict[str, str | int] = {"limit": limit}
        query |= {"labelSelector": selector} if selector else {}
        query |= {"continue": token} if token else {}
        items, token = _page(client.ask("GET", client.secrets(query=query)))
        yield items
        if not token:
            return
        tokens.accept(token)


def _page(answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return the Secrets of a page, and the token of the next one."""
    items, metadata = answer.get("items"), answer.get("metadata")
    if not isinstance(items, list) or not isinstance(metadata, dict) or not all(isinstance(one, dict) for one in items):
        raise StoreError("the answer holds no page", MALFORMED)
    return items, str(metadata.get("continue") or "")


def _metadata(secret: Mapping[str, Any], field: str) -> str:
    metadata = secret.get("metadata")
    value = metadata.get(field) if isinstance(metadata, dict) else None
    if not isinstance(value, str):
        raise StoreError(f"the answer holds no {field}", MALFORMED)
    return value


def _written(secret: Mapping[str, Any], *, created: bool) -> Written:
    return Written(created=created, version=_metadata(secret, "resourceVersion") or None)


def _text(secret: Mapping[str, Any], data_key: str) -> str:
    """Return the text under one key of a Secret's data.

    :raises StoreError: if it has no such key, or the value is not text.
    """
    data = secret.get("data")
    encoded = data.get(data_key) if isinstance(data, dict) else None
    if not isinstance(encoded, str):
        raise StoreError(f"the Secret has no key {data_key!r}", NO_KEY)
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except UnicodeDecodeError:
        failure = StoreError(NO_TEXT)
    except (binascii.Error, ValueError):
        failure = StoreError("its value is not base64", MALFORMED)
    raise failure  # outside the handler: a decoding error holds the value


def _text_or_none(secret: Mapping[str, Any], data_key: str) -> str | None:
    """Return the same, or ``None`` if it fails: a separate read then reports what is wrong."""
    try:
        return _text(secret, data_key)
    except StoreError:
        return None


def _secret_name(name: str) -> str:
    """Return the name of a new Secret: a DNS name from its labels' values, and a digest that makes it unique."""
    values = "-".join(_parts(name).labels.values()).lower()
    readable = re.sub("[^a-z0-9]+", "-", values)[:40].strip("-")
    return f"airflow-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
