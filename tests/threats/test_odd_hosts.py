"""A host on which something is odd: no locks, an environment that changes, a signal, a child of a fork, an equal twin."""

from __future__ import annotations

import base64
import collections
import errno
import fcntl
import gc
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend
from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.backends.kubernetes_secrets import KubernetesSecretsBackend
from airflow_providers_secrets.errors import AccessDenied
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.lookup.cache import Entry
from airflow_providers_secrets.lookup.shared_answers import SharedAnswers
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.testing.lookups import TTL, Clock, Waits, failing, stored, warned
from tests.rigs import PATIENT, Rig
from tests.rigs.aws import CREDENTIALS
from tests.rigs.openbao import ROOT_TOKEN

pytestmark = pytest.mark.each_rig_in_ci

KEY = base64.urlsafe_b64encode(b"o" * 32).decode()


def sharing(rig: Rig, place: Path, **options: Any) -> Any:
    return rig.caching(shared_cache=f"file://{place}/shared", shared_cache_key=KEY, **options)


def test_file_system_without_locks_fails_no_lookup(ssm: Rig, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    stored(ssm, "found", "x")

    def flock(_: int, operation: int) -> None:
        if operation != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert sharing(ssm, tmp_path).get_variable("found") == "x"
    assert any(os.strerror(errno.ENOLCK) in message for message in warned(caplog))


def test_environment_that_changes_meanwhile_fails_no_lookup(ssm: Rig, tmp_path: Path, monkeypatch: Any) -> None:
    class Changing(collections.UserDict[str, str]):
        changes = 0

        def __getitem__(self, name: str) -> str:
            Changing.changes += 1
            if Changing.changes < 5:
                raise KeyError(name)  # its list of names was made before
            return super().__getitem__(name)

    stored(ssm, "found", "x")
    monkeypatch.setattr(base.os, "environ", Changing(os.environ))
    assert sharing(ssm, tmp_path).get_variable("found") == "x"
    assert Changing.changes >= 5


def test_lookup_in_a_signals_handler_answers(rig: Rig, waits: Waits) -> None:
    """As a task's ``on_kill`` at SIGTERM does, while the very same name is being looked up."""
    stored(rig, "found", "x")
    backend, answered = rig.caching(), []

    def on_kill(*_: object) -> None:
        answered.append(backend.get_variable("found"))

    def kill_once() -> None:
        waits.on_wait = lambda: None
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, on_kill)
    try:
        waits.on_wait = kill_once
        assert backend.get_variable("found") == "x"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert answered == ["x"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_child_reaches_no_value_of_its_parent_through_our_objects(ssm: Rig) -> None:
    """Raw memory is another matter (docs/security.md)."""
    stored(ssm, "found", "S3cr3t-of-the-parent")
    backend = ssm.caching()
    assert backend.get_variable("found") == "S3cr3t-of-the-parent"
    assert held()  # the control: the parent does
    child = os.fork()
    if child == 0:
        os._exit(1 if held() else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def held() -> list[object]:
    return [one for one in gc.get_objects() if type(one) is Entry and one.text == "S3cr3t-of-the-parent"]


@pytest.mark.parametrize("code", ["a\nWARNING forged", "\x1b[31mred", "x" * 5000, "a\u2028b", "a\rb"])
def test_code_of_whoever_answers_forges_no_line(code: str) -> None:
    message = str(AccessDenied("AWS", "name", code, "Do this."))
    assert message.isprintable()
    assert len(message) < 400


# A file that tells who asks.


def read_from(rig: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write a login into *file*, and return the options of a backend that reads it there."""
    options = rig.options()
    match rig.extra:
        case "aws":
            keys = "".join(f"{name} = {options.pop(name)}\n" for name in CREDENTIALS)
            file.write_text(f"[airflow]\n{keys}")
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
            return {**options, "profile_name": "airflow"}
        case "vault":
            file.write_text(ROOT_TOKEN)
            return {"url": options["url"], "auth_type": "token", "token_path": str(file)}
        case "google":
            file.write_text(options.pop("gcp_keyfile_dict"))
            return {**options, "gcp_key_path": str(file)}
        case "azure":
            file.write_text("token-of-the-cluster")
            monkeypatch.setattr(rig.entra, "federated", "token-of-the-cluster")
            monkeypatch.setenv("AZURE_AUTHORITY_HOST", rig.entra.url)
            who = {"workload_identity_tenant_id": options["tenant_id"], "client_id": options["client_id"]}
            workload = {"credential": "workload_identity", "workload_identity_token_file": str(file)}
            return {**rig.vault_options(), **who, **workload}
        case _:
            shutil.copyfile(options["kubeconfig"], file)
            return {"kubeconfig": str(file)}


def as_new_login(backend: Any) -> None:
    """Have the next call log in, as the first one of a process does."""
    answers.answers_of(backend.config).access._clients.clear()


def test_unreadable_login_leaves_the_last_known_value_and_is_told_to_nobody(
    rig: Rig, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(rig, "known", "x")
    stored(rig, "new", "y")
    file, aside = tmp_path / "login.json", tmp_path / "aside"
    options = read_from(rig, file, monkeypatch)
    place = {"shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    backend = rig.backend_class(**options, **PATIENT, **place, max_attempts=1)
    assert backend.get_variable("known") == "x"
    clock.now += TTL + 1
    file.rename(aside)
    as_new_login(backend)
    with rig.counted() as calls:
        assert backend.get_variable("known") == "x"
        (error,) = failing(lambda: backend.get_variable("new"))
    assert calls == []
    assert error.on_the_way, error
    aside.rename(file)
    answers.reset_after_fork()  # another process
    assert backend.get_variable("new") == "y"


# Who asks.

GCP = {"auth_type": "gcp", "role_id": "r", "url": "https://v"}
IDENTITIES: list[tuple[type, dict[str, Any], str]] = [
    (VaultBackend, {"auth_type": "azure", "role_id": "r", "azure_tenant_id": "t", "azure_resource": "x", "url": "https://v"},
     "AZURE_CLIENT_ID"),
    (VaultBackend, {"auth_type": "azure", "role_id": "r", "azure_tenant_id": "t", "azure_resource": "x", "url": "https://v"},
     "IDENTITY_ENDPOINT"),
    (VaultBackend, GCP, "CLOUDSDK_CONFIG"),
    (VaultBackend, GCP, "GCE_METADATA_HOST"),
    (VaultBackend, GCP, "GOOGLE_APPLICATION_CREDENTIALS"),
    (VaultBackend, {"auth_type": "aws_iam", "role_id": "r", "url": "https://v"}, "AWS_PROFILE"),
    (VaultBackend, {"token": "t"}, "VAULT_ADDR"),
    (SystemsManagerParameterStoreBackend, {}, "AWS_ACCESS_KEY_ID"),
    (SystemsManagerParameterStoreBackend, {}, "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    (SystemsManagerParameterStoreBackend,
     {"role_arn": "arn:aws:iam::123456789012:role/x", "assume_role_method": "assume_role_with_web_identity",
      "assume_role_with_web_identity_federation": "google",
      "assume_role_with_web_identity_federation_audience": "a"},
     "GOOGLE_APPLICATION_CREDENTIALS"),
    (AzureKeyVaultBackend, {"vault_url": "https://v"}, "AZURE_CLIENT_ID"),
    (AzureKeyVaultBackend, {"vault_url": "https://v"}, "IDENTITY_ENDPOINT"),
    (CloudSecretManagerBackend, {}, "GOOGLE_APPLICATION_CREDENTIALS"),
    (CloudSecretManagerBackend, {}, "GCE_METADATA_HOST"),
    (KubernetesSecretsBackend, {}, "KUBECONFIG"),
    (KubernetesSecretsBackend, {}, "KUBERNETES_SERVICE_HOST"),
    # What the commands read that a kubeconfig names: aws eks get-token, kubelogin, gke-gcloud-auth-plugin.
    (KubernetesSecretsBackend, {"kubeconfig": "/k"}, "AWS_PROFILE"),
    (KubernetesSecretsBackend, {"kubeconfig": "/k"}, "AZURE_CLIENT_ID"),
    (KubernetesSecretsBackend, {"kubeconfig": "/k"}, "AAD_SERVICE_PRINCIPAL_CLIENT_ID"),
    (KubernetesSecretsBackend, {"kubeconfig": "/k"}, "CLOUDSDK_CONFIG"),
    (KubernetesSecretsBackend, {"kubeconfig": "/k"}, "GOOGLE_APPLICATION_CREDENTIALS"),
]  # fmt: skip


@pytest.mark.parametrize(("backend_class", "options", "variable"), IDENTITIES, ids=lambda value: str(value)[:40])
def test_variable_that_tells_who_asks_tells_them_apart(
    backend_class: Any, options: dict[str, Any], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = set()
    for value in (None, "one", "another"):
        if value:
            monkeypatch.setenv(variable, value)
        identities.add(SharedAnswers(backend_class(**options).config)._identity())
    assert len(identities) == 3


def test_scope_tells_equal_twins_apart(ssm: Rig, tmp_path: Path) -> None:
    """Two pods whose options and environment are equal, and whose roles are not."""
    path = stored(ssm, "found", "x")
    for scope, expected in (("pod-a", [path]), ("pod-b", [path]), (None, [path]), ("pod-a", []), ("pod-b", [])):
        answers.reset_after_fork()
        with ssm.counted() as calls:
            assert sharing(ssm, tmp_path, shared_cache_scope=scope).get_variable("found") == "x"
        assert calls == expected, scope
