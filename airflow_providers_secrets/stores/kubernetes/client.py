"""A client of the Kubernetes API on the SDK's login, TLS and connections. Imported at the first lookup.

The SDK's typed operations are not used. Importing them takes a second of CPU and 95 MB more than its configuration does
(kubernetes 37.0.1), they read answers of any length, and their errors contain the answer's text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, kube_config, load_incluster_config
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from airflow_providers_secrets.stores.base import (
    ABSENT,
    MALFORMED,
    MAX_CONNECTIONS,
    USER_AGENT,
    StoreError,
    codes_of_page,
    seconds_left,
    seconds_to_wait,
    whole_body,
    wrapped,
)
from airflow_providers_secrets.stores.kubernetes import identity
from airflow_providers_secrets.stores.kubernetes.secrets import BAD_KUBECONFIG, FILES_GONE, NO_LOGIN, NOT_LOGGED_IN

Options = Mapping[str, Any]

UNREADABLE: Final = (AttributeError, ConfigException, LookupError, OSError, TypeError, ValueError, yaml.YAMLError)
"""What the SDK raises if a kubeconfig, or a pod's service account file, is missing or invalid."""

MAX_BODY: Final = 16 * 1024 * 1024
"""Maximum length of an answer, in bytes: one Secret has 1 MiB at most, a page of a listing more."""


class KubernetesClient:
    """A client of the API server for one identity. Any number of threads may use one; it starts none.

    Redirects are not followed, and nothing is retried. The SDK reads a service account's token again each minute, and
    runs the command of a kubeconfig once its token has expired.

    :param options: the store's options.
    :raises StoreError: if there is no usable login.
    """

    def __init__(self, options: Options) -> None:
        self._timeouts = options["connect_timeout"], options["read_timeout"]
        self._configuration = Configuration()
        failure: StoreError | None = None
        try:
            self.namespace = _logged_in(self._configuration, options)
        except UNREADABLE as error:
            code = BAD_KUBECONFIG if identity.is_named(options) else NO_LOGIN
            failure = StoreError(f"no usable login ({type(error).__name__})", code)
        if failure:  # outside the handler: the SDK's message may quote the kubeconfig
            raise failure
        self._configuration.connection_pool_maxsize = MAX_CONNECTIONS
        self.server = str(self._configuration.host).rstrip("/")
        self._pool: urllib3.PoolManager = RESTClientObject(self._configuration).pool_manager

    def secrets(self, name: str = "", query: Mapping[str, str | int] | None = None) -> str:
        """Return the path of one Secret, or of all Secrets."""
        path = f"/api/v1/namespaces/{quote(self.namespace, safe='')}/secrets"
        return path + (f"/{quote(name, safe='')}" if name else "") + (f"?{urlencode(query)}" if query else "")

    def ask(self, method: str, path: str, body: Any = None, form: str = "application/json") -> dict[str, Any]:
        """Send one request and return the JSON object of its answer.

        :param form: the content type of *body*.
        :raises StoreError: for every unsuccessful answer, with Kubernetes' own reason, then the status.
        :raises TimeoutError: once the deadline has passed.
        """
        left = seconds_left()
        if not left:
            raise TimeoutError
        connect, read = self._timeouts
        try:
            response: Any = self._pool.request(
                method,
                self.server + path,
                body=None if body is None else json.dumps(body).encode(),
                headers={**self._headers(), **({"Content-Type": form} if body is not None else {})},
                timeout=urllib3.Timeout(connect=min(connect, left), read=min(read, left)),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # A write whose answer was lost fails otherwise, and must not be repeated.
            lacks_a_file = any(isinstance(one, FileNotFoundError) for one in wrapped(error))
            if not lacks_a_file or self._has_its_files():
                raise
            raise StoreError(FILES_GONE) from None
        try:
            answer = _parsed(whole_body(response, response.headers.get("Content-Length"), MAX_BODY))
        finally:
            response.close()  # ends the connection, unless all was read
            response.release_conn()
        if not 200 <= response.status < 300:  # noqa: PLR2004
            raise _refusal(response, answer)
        if not isinstance(answer, dict):
            raise StoreError("the answer is not JSON", MALFORMED)
        return answer

    def _has_its_files(self) -> bool:
        """Return whether the certificate files, which each new connection reads, are still there.

        The SDK writes certificates embedded in a kubeconfig to files below /tmp. Hosts clean up there, and the SDK
        removes the files when a process ends, even if it is a forked child. The next client's login writes them again.
        """
        made_of = self._configuration
        files = (made_of.ssl_ca_cert, made_of.cert_file, made_of.key_file)
        return all(os.path.exists(file) for file in files if file)  # noqa: PTH110

    def _headers(self) -> dict[str, str]:
        logins = self._configuration.auth_settings().values()
        return {
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
            **{str(one["key"]): str(one["value"]) for one in logins if one["in"] == "header" and one["value"]},
        }


def _logged_in(configuration: Configuration, options: Options) -> str:
    """Let the SDK log in, and return the namespace of the Secrets."""
    named: str | None = options["namespace"]
    if identity.in_pod(options):
        load_incluster_config(client_configuration=configuration)
        return named or Path(identity.SERVICE_ACCOUNT, "namespace").read_text(encoding="utf-8").strip()
    kubeconfig = KubeConfigMerger(identity.kubeconfig(options)).config
    _forget_gone_files()
    loader = KubeConfigLoader(kubeconfig, options["context"], config_base_path=None)
    loader.load_and_set(configuration)
    context = loader.current_context["context"]
    # If the kubeconfig's command fails, the SDK goes on without a login. The denial that follows would not say so.
    if not (configuration.api_key or configuration.cert_file or _is_anonymous(kubeconfig, context)):
        raise StoreError(NOT_LOGGED_IN)
    return named or str(context.get("namespace") or "default")


def _forget_gone_files() -> None:
    """Let older SDKs (33, for one) write a kubeconfig's certificates again; they would refuse the login."""
    written: dict[str, str] = getattr(kube_config, "_temp_files", {})
    for content, path in list(written.items()):
        if not os.path.exists(path):  # noqa: PTH110
            written.pop(content, None)


def _is_anonymous(kubeconfig: Any, context: Mapping[str, Any]) -> bool:
    """Tell whether a context has no login, as for ``kubectl proxy``, which logs in itself."""
    if not context.get("user"):
        return True
    user = kubeconfig["users"].get_with_name(context["user"], safe=True)
    return user is not None and not len(user["user"])


def _parsed(body: bytes) -> Any:
    """Return *body* parsed as JSON, or ``None`` if it is not JSON or not UTF-8."""
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        return None


def _refusal(response: Any, answer: Any) -> StoreError:
    """Return the error for an unsuccessful answer, with Kubernetes' own reason ("API Conventions", Status)."""
    codes = list(codes_of_page(response.status))
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        codes = [f"HTTP {response.status}"]
        reason, details = answer.get("reason"), answer.get("details")
        if isinstance(reason, str) and reason.isascii() and reason.isalpha():
            codes.insert(0, reason[:60])
            if reason == "NotFound" and isinstance(details, dict) and details.get("kind") == "secrets":
                codes.insert(0, ABSENT)
    return StoreError(*codes, retry_after=seconds_to_wait(response.headers.get("Retry-After", "")))
