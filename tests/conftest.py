"""Fixtures: the rigs, and a process state that starts anew for every test."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Iterator

import pytest

_AMBIENT = ("AIRFLOW", "AWS_", "AZURE_", "GCE_", "GOOGLE_", "IDENTITY_", "VAULT_")
# Before Airflow is imported anywhere: nothing of the developer's own Airflow or cloud set-up takes part.
for _name in [name for name in os.environ if name.startswith(_AMBIENT)]:
    if _name != "AWS_CA_BUNDLE":
        del os.environ[_name]
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")

from airflow_providers_secrets import answers, notices  # noqa: E402
from tests.rigs import Rig  # noqa: E402
from tests.rigs.aws import SecretsManagerRig, SsmRig  # noqa: E402
from tests.rigs.azure import LOWKEY_VAULT, AzureRig, LowkeyVaultRig  # noqa: E402
from tests.rigs.google import LOCALGCP, GoogleGrpcRig, GoogleRestRig, LocalGcpRig  # noqa: E402
from tests.rigs.vault import VaultRig  # noqa: E402

EMULATORS = {LOCALGCP: LocalGcpRig, LOWKEY_VAULT: LowkeyVaultRig}
"""Rigs on servers by others that no package index brings: those run that a variable names (docs/development.md)."""

RIGS = (
    *(SsmRig, SecretsManagerRig, VaultRig, AzureRig, GoogleGrpcRig, GoogleRestRig),
    *(rig for variable, rig in EMULATORS.items() if os.environ.get(variable)),
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for variable, rig in EMULATORS.items():
        if not os.environ.get(variable):
            terminalreporter.write_line(f"NOT RUN: rig {rig.name}; {variable} names no server (docs/development.md)")


@functools.cache
def _running(rig: type[Rig]) -> Rig:
    return rig()


@pytest.fixture(params=RIGS, ids=lambda rig: rig.name)
def rig(request: pytest.FixtureRequest) -> Rig:
    return _running(request.param)


@pytest.fixture
def ssm() -> SsmRig:
    rig = _running(SsmRig)
    assert isinstance(rig, SsmRig)
    return rig


@pytest.fixture
def secrets_manager() -> SecretsManagerRig:
    rig = _running(SecretsManagerRig)
    assert isinstance(rig, SecretsManagerRig)
    return rig


@pytest.fixture
def vault() -> VaultRig:
    rig = _running(VaultRig)
    assert isinstance(rig, VaultRig)
    return rig


@pytest.fixture
def azure() -> AzureRig:
    rig = _running(AzureRig)
    assert isinstance(rig, AzureRig)
    return rig


@pytest.fixture(params=(GoogleGrpcRig, GoogleRestRig), ids=lambda rig: rig.name)
def google(request: pytest.FixtureRequest) -> GoogleRestRig:
    rig = _running(request.param)
    assert isinstance(rig, GoogleRestRig)
    return rig


@pytest.fixture(autouse=True)
def process_state(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No client and no memory of warnings from another test."""
    answers.start_anew()
    notices._warned.clear()
    # Airflow's logging set-up may have ended propagation to pytest's handler.
    monkeypatch.setattr(logging.getLogger("airflow_providers_secrets"), "propagate", True)
    yield
