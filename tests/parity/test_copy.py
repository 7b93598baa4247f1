"""``airflow-secrets copy`` from the official classes, as docs/switching.md compares before a switch and moves between stores.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.conftest import Command, Said, base, command, connecting
from tests.rigs import Rig, running
from tests.rigs.azure import CLIENT, CLIENT_SECRET, TENANT, AzureRig
from tests.rigs.openbao import ROOT_TOKEN

__all__ = ["base", "command"]

OFFICIAL = {
    "aws:SsmRig": "airflow.providers.amazon.aws.secrets.systems_manager.SystemsManagerParameterStoreBackend",
    "aws:SecretsManagerRig": "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
    "vault:VaultRig": "airflow.providers.hashicorp.secrets.vault.VaultBackend",
    "azure:AzureRig": "airflow.providers.microsoft.azure.secrets.key_vault.AzureKeyVaultBackend",
}


class Both(NamedTuple):
    """A store, the official class of it, and a file with the options that both take."""

    rig: Rig
    official: str
    kwargs: Path
    prefix: str

    def put(self, kind: str, secret_id: str, text: str) -> None:
        self.rig.put(self.rig.path(kind, secret_id, f"{kind}{self.prefix}"), text)


@pytest.fixture(params=OFFICIAL)
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str) -> Both:
    rig = running(f"tests.rigs.{request.param}")
    options: dict[str, Any] = rig.options()
    prefix = f"/{base}"
    if isinstance(rig, AzureRig):
        for name, value in rig.cloud.environment.items():
            monkeypatch.setenv(name, value)
        options = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": CLIENT_SECRET}
        options["vault_url"] = rig.cloud.VAULT_URL
        prefix = f"-{base}"
    elif rig.extra == "vault":
        options = {"url": options["url"], "auth_type": "token", "token": ROOT_TOKEN, "mount_point": "secret"}
    for kind in ("connections", "variables"):
        options[rig.prefix_option.format(kind=kind)] = f"{kind}{prefix}"
    kwargs = tmp_path / "kwargs.json"
    kwargs.write_text(json.dumps(options))
    return Both(rig, OFFICIAL[request.param], kwargs, prefix)


def states(said: Said) -> dict[str, tuple[str, str | None]]:
    assert said.out.startswith("["), said.everything
    return {item["id"]: (item["state"], item["reason"]) for item in said.json}


def test_the_same_options_read_the_same(command: Command, both: Both) -> None:
    both.put("connections", "smtp-default", "postgres://u:S3cr3t@h:5432/db")
    both.put("connections", "json", '{"conn_type": "http", "host": "h", "password": "S3cr3t", "extra": {"a": 1}}')
    both.put("variables", "flag", "S3cr3t")
    at = f"@{both.kwargs}"
    said = command("copy", "--from", both.official, "--from-kwargs", at, "--to", both.rig.class_path, "--to-kwargs", at,
                   "-o", "json")  # fmt: skip
    assert (said.code, states(said)) == (0, dict.fromkeys(("smtp-default", "json", "flag"), ("same", None))), (
        said.everything
    )
    assert "S3cr3t" not in said.everything


def test_names_of_a_file_are_asked_of_the_official_class(
    command: Command, both: Both, tmp_path: Path, ssm: Rig
) -> None:
    """Into another store; what it does not hold is told, and what it cannot give is no difference."""
    both.put("variables", "flag", "S3cr3t")
    both.put("connections", "db", "http://S3cr3t@h")
    (tmp_path / "names").write_text("conn:db\nvar:flag\nvar:absent\n")
    to = {**connecting(ssm), "connections_prefix": f"/c{both.prefix}-to", "variables_prefix": f"/v{both.prefix}-to"}
    copy = ["copy", "--from", both.official, "--from-kwargs", f"@{both.kwargs}", "--names", f"{tmp_path}/names"]
    copy += ["--to", ssm.class_path, "--to-kwargs", json.dumps(to), "-o", "json"]
    said = command(*copy)
    absent = ("invalid", "the source does not hold it")
    assert states(said) == {"db": ("create", None), "flag": ("create", None), "absent": absent}, said.everything
    said = command(*copy, "--apply", "--journal", f"{tmp_path}/j")
    assert states(said) == {"db": ("created", None), "flag": ("created", None), "absent": absent}, said.everything
    said = command(*copy)
    assert states(said) == {"db": ("same", None), "flag": ("same", None), "absent": absent}, said.everything
    assert "S3cr3t" not in said.everything
