"""Kubernetes Secrets: what the API's answers mean, and what can be asked of it. Imports no SDK.

A name is a label and its value, ``airflow.apache.org/connection-id=my_db``; with a team, both labels; before them, with
a colon, the key of the Secret's data where that is not ``value``. A name without ``=`` is that of the Secret itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
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
    Answer,
    Identity,
    ListedSecret,
    Outcome,
    Store,
    StoreError,
    Written,
    seconds_left,
)
from airflow_providers_secrets.stores.kubernetes.identity import asker

if TYPE_CHECKING:
    from airflow_providers_secrets.stores.kubernetes.client import KubernetesClient

DATA_KEY: Final = "value"
"""The key of a Secret's data that holds the value, unless its name says another one."""

NO_LOGIN: Final = "no login"
NOT_LOGGED_IN: Final = "the kubeconfig's user gave no login"
NO_KEY: Final = "the Secret lacks the key"
NO_TEXT: Final = "its value is not text"

PAGE: Final = 500
"""Secrets on one page of a listing, as kubectl asks for."""

MAX_PAGES: Final = 2_000
"""Pages after which a listing counts as endless; a million Secrets."""

MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "airflow-secrets"}
"""The label of Secrets that this package has created (Kubernetes, "Recommended Labels")."""


class _Name(NamedTuple):
    """A name's parts.

    :param labels: what the Secret must be labelled with; none where it is asked for by its own name.
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
    """The Secrets of one namespace, asked for by one identity.

    A Secret is found by its label, whatever it is called, so a lookup lists what has that label: RBAC cannot narrow the
    right to list by labels. Answers are consistent: never from the API server's watch cache alone.
    """

    sdk: ClassVar = {
        "kubernetes.config": "kubernetes",
        "airflow_providers_secrets.stores.kubernetes.client": "kubernetes",
    }
    # Beside Kubernetes' own, what the commands read that kubeconfigs name: aws, kubelogin, gke-gcloud-auth-plugin.
    env_prefixes = ("KUBECONFIG", "KUBERNETES_SERVICE_", "AAD_", "AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_")
    outcomes: ClassVar = {
        # Kubernetes, "API Conventions": HTTP status codes. The rest is UNAVAILABLE: 5xx, 410 for a page token that has
        # expired, and a 404 that is not for a Secret.
        "AlreadyExists": Outcome.INVALID,
        "HTTP 403": Outcome.DENIED,
        "HTTP 422": Outcome.INVALID,
        "HTTP 429": Outcome.THROTTLED,
        NOT_LOGGED_IN: Outcome.UNAVAILABLE,  # whatever the command asks may be down; the SDK does not tell
        NO_KEY: Outcome.INVALID,
        NO_TEXT: Outcome.INVALID,
        **dict.fromkeys(
            (NO_LOGIN, *REDIRECTS, *(f"HTTP {status}" for status in (400, 401, 405, 406, 415))),
            Outcome.MISCONFIGURED,
        ),
    }
    advice: ClassVar[Mapping[str | Outcome, str]] = {
        NO_LOGIN: "Mount the pod's service account token, or name a file in the option kubeconfig.",
        NOT_LOGGED_IN: "Run the command that the kubeconfig names, as Airflow's user, or put a token into it.",
        NO_KEY: "Put the value under that key of the Secret's data, or name its key in the option *_data_key.",
        NO_TEXT: "Store text in UTF-8: binary values cannot be looked up.",
        "AlreadyExists": "Delete the Secret of that name, or label it so that it is found.",
        "HTTP 401": "Check that the API server accepts the service account's token, or log in to the kubeconfig anew.",
        "HTTP 404": "Check the server's address: what answers there does not know Secrets.",
        "HTTP 422": "Delete the Secret and write it again: it is immutable, or not one that Kubernetes stores.",
        **dict.fromkeys((MALFORMED, FOREIGN), "Fix the server's url in the kubeconfig, or the proxy in between."),
        **dict.fromkeys(
            REDIRECTS,
            "Fix the server's address in the kubeconfig; redirects are not followed.",
        ),
        "CERTIFICATE_VERIFY_FAILED": "Name the cluster's certificate authority in the kubeconfig.",
        Outcome.DENIED: "Allow it by a Role in the namespace: airflow-secrets policy prints one.",
        Outcome.MISCONFIGURED: "Fix the kubeconfig, or the option namespace.",
    }
    on_the_way = ON_THE_WAY | {NO_LOGIN}
    expired_login = frozenset({"HTTP 401"})
    # What a kubeconfig's command writes to stderr is logged by the root logger.
    muted_loggers = ("urllib3.connectionpool", "kubernetes.client.rest", "root")
    write_settings: ClassVar[Mapping[str, str]] = {}

    def asker(self) -> bytes:
        """Return a digest of who asks which cluster: the service account, or the kubeconfig and the files it names."""
        return asker(self.options)

    def connect(self) -> KubernetesClient:
        """Log in as the pod's service account, or as the kubeconfig says.

        :raises StoreError: where neither is there.
        """
        from airflow_providers_secrets.stores.kubernetes.client import KubernetesClient

        return KubernetesClient(self.options)

    def fetch(self, client: KubernetesClient, name: str) -> Answer:
        """Read the Secret with these labels, or of this name. Needs ``list`` on Secrets; ``get`` for a name.

        Of several Secrets with the same labels, the first by name counts, as with the official class.
        """
        found = self._find(client, name)
        if found is None:
            raise StoreError(ABSENT)
        return Answer(_text(found, _parts(name).data_key), self._name_of(found, name))

    def listing(self, client: KubernetesClient, prefix: str) -> Iterator[ListedSecret]:
        """Yield what has the label that *prefix* names, with its text, page by page. Needs ``list`` on Secrets."""
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
        settings: Mapping[str, str] | None = None,  # noqa: ARG002  # it has none
    ) -> Written:
        """Set one key of the Secret's data; labels, type and other keys stay. Needs ``list``, ``create``, ``patch``.

        A Secret that is created is called after its labels, so that who creates it at the same time is noticed: what
        somebody else creates in between is written over.

        :raises StoreError: with :data:`EXISTS` where it is *only_if_absent* and the name exists.
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
        """Delete the Secret, with all keys of its data. Needs ``list`` and ``delete`` on Secrets."""
        found = self._find(client, name)
        if found is None:
            raise StoreError(ABSENT)
        client.ask("DELETE", client.secrets(_metadata(found, "name")))

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
        """Return the Secret that *name* stands for, or ``None`` where the API proves that there is none."""
        asked = _parts(name)
        if not asked.labels:
            try:
                return client.ask("GET", client.secrets(asked.secret))
            except StoreError as error:
                if ABSENT not in error.codes:
                    raise
                return None
        selector = ",".join(f"{label}={value}" for label, value in asked.labels.items())
        team = self.options["team_label"]
        if team and team not in asked.labels:
            selector += f",!{team}"
        # A page may be empty although others follow. What is on later ones comes after by name.
        found = next(filter(None, _pages(client, selector, 2)), [])
        return min(found, key=lambda item: _metadata(item, "name"), default=None)

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
    """Yield the Secrets that *selector* selects, all where it is empty, page by page.

    :raises StoreError: for a page that is none, or that goes on where it has been, or for ever.
    """
    token, tokens = "", set[str]()
    while True:
        if not seconds_left():  # nobody waits any more, and an empty page would not tell the caller
            raise TimeoutError
        query: dict[str, str | int] = {"limit": limit}
        query |= {"labelSelector": selector} if selector else {}
        query |= {"continue": token} if token else {}
        items, token = _page(client.ask("GET", client.secrets(query=query)))
        yield items
        if not token:
            return
        if token in tokens or len(tokens) >= MAX_PAGES:
            raise StoreError("the listing does not end", MALFORMED)
        tokens.add(token)


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

    :raises StoreError: where it has no such key, or that holds no text.
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
    raise failure  # outside the handler: a decoding error carries the value


def _text_or_none(secret: Mapping[str, Any], data_key: str) -> str | None:
    """Return the same, or ``None`` where a read of its own is to say what is wrong."""
    try:
        return _text(secret, data_key)
    except StoreError:
        return None


def _secret_name(name: str) -> str:
    """Return what a new Secret is called: a DNS name of its labels' values, and a digest that tells them apart."""
    values = "-".join(_parts(name).labels.values()).lower()
    readable = re.sub("[^a-z0-9]+", "-", values)[:40].strip("-")
    return f"airflow-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"
