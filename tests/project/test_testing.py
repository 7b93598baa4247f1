"""A package of somebody else holds its own store to the contract, as docs/adding-a-store.md says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import airflow_providers_secrets
from airflow_providers_secrets.testing.proxy import Proxy, Reply

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


PAGE = (ROOT / "docs/adding-a-store.md").read_text(encoding="utf-8")


def contract(directory: Path, package: Mapping[str, str], rig: str, some: str) -> str:
    """Run *some* of the contract on *package* and *rig*, by the files of the page, and return what pytest says."""
    (files,) = re.findall(r"^```text\n# conftest.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    conftest, _, contract = files.partition("# test_contract.py\n")
    (directory / "acme_airflow").mkdir()
    for name, text in {"__init__.py": "", **package}.items():
        (directory / "acme_airflow" / name).write_text(text)
    (directory / "acme_rig.py").write_text(rig)
    (directory / "conftest.py").write_text(conftest)
    (directory / "test_contract.py").write_text(contract)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    places = (directory, ROOT, Path(airflow_providers_secrets.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_contract.py", "-k", some],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_what_a_killed_client_sent_half_is_no_request() -> None:
    proxy = Proxy()
    proxy.reply = lambda _: Reply(200, b"{}")  # type: ignore[method-assign]
    try:
        for body, answered in ((b'{"Na', False), (b'{"Name": "x"}', True)):
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: store\r\nContent-Length: 13\r\n\r\n" + body)
                client.shutdown(socket.SHUT_WR)
                assert client.makefile("rb").read().startswith(b"HTTP/1.1 200") == answered
        assert [request.body for request in proxy.requests] == [b'{"Name": "x"}']
    finally:
        proxy.stop()


def counted(said: str, what: str) -> int:
    found = re.search(rf"(\d+) {what}", said)
    return int(found[1]) if found else 0


@pytest.mark.long
def test_a_store_outside_is_held_to_the_contract(tmp_path: Path) -> None:
    some = "found_by_one_request or missing_sdk_is_told or never_ending or asked_for_once or taken or netrc_is"
    said = contract(tmp_path, {"store.py": PACKAGE}, RIG, some)
    assert counted(said, "passed") >= 7
    assert counted(said, "deselected") > 150  # the whole contract was there


def test_the_pages_own_store_passes(tmp_path: Path) -> None:
    """A store that has only what every store must have, with the rig beside it."""
    store, backend, rig = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    outside = re.search(
        r"^class AcmeBackend.*\n((?:    .*\n)+)\nclass Acme\(Store\):\n((?:    .*\n)+)", PAGE, re.MULTILINE
    )
    assert outside
    package = {
        "backend.py": replaced(backend, r"    store_class = .*\n", outside[1]),
        "store.py": replaced(store, r"    sdk: .*\n", outside[2]),
    }
    rig = rig.replace("airflow_providers_secrets.backends.acme", "acme_airflow.backend")
    rig = replaced(rig, r"    extra = .*\n", '    distribution, extra = "acme-airflow", "sdk"\n')
    some = (
        "fault or redirect or advice or team_reads or prefix or retry or endless or undecodable or later_page or taken"
    )
    said = contract(tmp_path, package, rig, some)
    assert counted(said, "passed") >= 40
    assert counted(said, "skipped") == 5  # two about listings, and three about changes


def replaced(text: str, pattern: str, by: str) -> str:
    """Replace the one line that is another one in a package of its own."""
    made, times = re.subn(pattern, lambda _: by, text)
    assert times == 1, pattern
    return made
