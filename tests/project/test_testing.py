"""A package of somebody else holds its own store to the contract, as docs/adding-a-store.md says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import airflow_providers_secrets

ROOT = Path(__file__).parents[2]
PACKAGE = """
from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.stores.aws.parameter_store import ParameterStore

class Acme(ParameterStore):
    distribution = "acme-airflow"
    sdk = {"boto3": "sdk"}

class AcmeBackend(SystemsManagerParameterStoreBackend):
    store = "Acme"
    stores = "acme_airflow"
    store_class = "store:Acme"
"""
RIG = """
from acme_airflow.store import AcmeBackend
from tests.rigs.aws import SsmRig

class AcmeRig(SsmRig):
    backend_class = AcmeBackend
    class_path = "acme_airflow.store.AcmeBackend"
    distribution, extra = "acme-airflow", "sdk"
"""


def test_a_store_outside_is_held_to_the_contract(tmp_path: Path) -> None:
    page = (ROOT / "docs/adding-a-store.md").read_text(encoding="utf-8")
    (files,) = re.findall(r"^```text\n# conftest.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    conftest, _, contract = files.partition("# test_contract.py\n")
    (tmp_path / "acme_airflow").mkdir()
    (tmp_path / "acme_airflow" / "__init__.py").touch()
    (tmp_path / "acme_airflow" / "store.py").write_text(PACKAGE)
    (tmp_path / "acme_rig.py").write_text(RIG)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_contract.py").write_text(contract)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    places = (tmp_path, ROOT, Path(airflow_providers_secrets.__file__).parents[1])
    some = "found_by_one_request or missing_sdk_is_told or never_ending or asked_for_once or taken or netrc_is"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_contract.py", "-k", some],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed
    assert int(passed[1]) >= 7
    collected = re.search(r"(\d+) deselected", run.stdout)
    assert collected
    assert int(collected[1]) > 150  # the whole contract was there
