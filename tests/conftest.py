"""Fixtures: the rigs, and a process state that starts anew for every test; which tests run, and what a run leaves."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from typing import Any

import pytest

from tests.support import leftovers

_AMBIENT = ("AIRFLOW", "AWS_", "AZURE_", "GCE_", "GOOGLE_", "IDENTITY_", "VAULT_")
# Before Airflow is imported anywhere: nothing of the developer's own Airflow or cloud set-up takes part.
for _name in [name for name in os.environ if name.startswith(_AMBIENT)]:
    if _name != "AWS_CA_BUNDLE":
        del os.environ[_name]
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# Everything that the run writes, by this process, its workers and their children, is below one directory.
os.environ["TMPDIR"] = tempfile.tempdir = leftovers.directory()
os.environ["AIRFLOW_HOME"] = leftovers.directory("airflow-home")
leftovers.bind_children()

from tests.rigs import Rig, running  # noqa: E402

pytest_plugins = ["airflow_providers_secrets.testing.plugin"]

RIGS = {
    "ssm-moto": "tests.rigs.aws:SsmRig",
    "secrets-manager-moto": "tests.rigs.aws:SecretsManagerRig",
    "vault-openbao": "tests.rigs.vault:VaultRig",
    "azure": "tests.rigs.azure:AzureRig",
    "google-grpc": "tests.rigs.google:GoogleGrpcRig",
    "google-rest": "tests.rigs.google:GoogleRestRig",
    "kubernetes": "tests.rigs.kubernetes:KubernetesRig",
}
"""Every rig by its name. Its module is imported when a test asks for it."""

EMULATORS = {
    "SECRETS_TEST_LOCALGCP": ("google-localgcp", "tests.rigs.google:LocalGcpRig"),
    "SECRETS_TEST_LOWKEY_VAULT": ("azure-lowkey-vault", "tests.rigs.azure:LowkeyVaultRig"),
    "SECRETS_TEST_KUBERNETES": ("kubernetes-api-server", "tests.rigs.kubernetes:RealKubernetesRig"),
}
"""Rigs on servers by others that no package index brings: those run that a variable names (docs/development.md)."""

CHAINS = {f"chain-of-{name}": f"tests.rigs.chain:{path.replace(':', '/')}" for name, path in RIGS.items()}
"""The same rigs with their backend as a chain's only member: a chain must change nothing."""

STORES = tuple(RIGS)
"""The rigs of one store each."""

RIGS |= CHAINS

RIGS |= dict(rig for variable, rig in EMULATORS.items() if os.environ.get(variable))


QUICKEST = {"rig": "ssm-moto", "aws": "ssm-moto", "google": "google-rest"}
"""For each fixture the rig on which everything runs, also what is marked ``each_rig_in_ci``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, too, as CI does")


def pytest_configure() -> None:
    # As Ctrl-C does: fixtures and exit handlers run, and nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell without job control starts what it runs in the background deaf to it, and so would be all that is tested.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        named = item.callspec.params if hasattr(item, "callspec") else {}
        if named.get("rig") in CHAINS:
            item.add_marker(pytest.mark.long)
        elsewhere = any(named.get(fixture, quickest) != quickest for fixture, quickest in QUICKEST.items())
        if (elsewhere and item.get_closest_marker("each_rig_in_ci")) or item.get_closest_marker("each_airflow"):
            item.add_marker(pytest.mark.long)
    if config.option.long or "long" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)


LEFT_OUT = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"NOT RUN: {left_out} tests marked long, which CI runs: tox -- --long")
    tallies: Counter[str] = Counter()
    for report in terminalreporter.stats.get("", []):  # of a test's end
        for name, count in report.user_properties if getattr(report, "when", "") == "teardown" else []:
            if name.startswith("tally "):
                tallies[name.removeprefix("tally ")] += count
    if tallies:
        terminalreporter.write_line("COUNTED: " + ", ".join(f"{tallies[name]:,} {name}" for name in sorted(tallies)))
    for variable, (name, _) in EMULATORS.items():
        if not os.environ.get(variable):
            terminalreporter.write_line(f"NOT RUN: rig {name}; {variable} names no server (docs/development.md)")


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Rig:
    return running(RIGS[request.param])


@pytest.fixture
def ssm() -> Rig:
    return running(RIGS["ssm-moto"])


@pytest.fixture
def secrets_manager() -> Rig:
    return running(RIGS["secrets-manager-moto"])


@pytest.fixture(params=("ssm-moto", "secrets-manager-moto"))
def aws(request: pytest.FixtureRequest) -> Rig:
    return running(RIGS[request.param])


@pytest.fixture
def vault() -> Rig:
    return running(RIGS["vault-openbao"])


@pytest.fixture
def azure() -> Rig:
    return running(RIGS["azure"])


@pytest.fixture
def kubernetes() -> Rig:
    return running(RIGS["kubernetes"])


@pytest.fixture(params=("google-grpc", "google-rest"))
def google(request: pytest.FixtureRequest) -> Rig:
    return running(RIGS[request.param])
