"""The suite catches what it is for: each defect, planted in a copy of the package, fails the tests of its kind.

In a copy without a defect the same tests pass: one that cannot run at all would prove nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import airflow_providers_secrets

PACKAGE = Path(airflow_providers_secrets.__file__).parent
CHECKOUT = Path(__file__).parents[2]


class Defect(NamedTuple):
    """What is planted, and which tests must fail for it.

    :param module: below the package.
    :param sound: a part of its text, which stands in it once.
    :param planted: what replaces that.
    :param where: the files of the tests.
    :param tests: which of them, as ``-k`` takes it.
    """

    module: str
    sound: str
    planted: str
    where: str
    tests: str


TRANSPORT = "tests/contract/test_transport.py"
SHARED = "tests/contract/test_shared_cache.py"

DEFECTS = {
    "a redirect is followed to another host": Defect(
        "stores/vault/wire.py", "if not (encrypted and same and (kept", "if False and not (encrypted and same and (kept",
        TRANSPORT, "redirect_to_another_host and vault-openbao",
    ),
    "netrc is sent": Defect(
        "stores/vault/wire.py", "        self.trust_env = False\n", "", TRANSPORT, "netrc_is_never_sent and vault-openbao"
    ),
    "undecodable bytes are replaced": Defect(
        "stores/aws/transport.py", 'raise StoreError("the answer is not UTF-8", MALFORMED)',
        'return body.decode(errors="replace").encode()',
        TRANSPORT, "undecodable and ssm-moto",
    ),
    "a partial listing is taken as complete": Defect(
        "lookup/access.py", '        for listed in cast("Lists", store).listing(client, prefix):\n',
        "        def until_it_fails():\n"
        "            with contextlib.suppress(Exception):\n"
        '                yield from cast("Lists", store).listing(client, prefix)\n'
        "        for listed in until_it_fails():\n",
        TRANSPORT, "error_on_a_later_page and ssm-moto",
    ),
    "an empty prefix is none": Defect(
        "backends/aws_secrets_manager.py", "return super().name(prefix, secret_id) if prefix else secret_id",
        "return super().name(prefix, secret_id)",
        TRANSPORT, "empty_prefix_asks and secrets-manager-moto",
    ),
    "throttling is not asked again": Defect(
        "lookup/outcomes.py", "frozenset({Outcome.UNAVAILABLE, Outcome.THROTTLED})", "frozenset({Outcome.UNAVAILABLE})",
        TRANSPORT, "throttling_is_asked_again and ssm-moto",
    ),
    "Retry-After is ignored": Defect(
        "lookup/access.py", "return max(pause, store.retry_after(error) or 0.0)", "return pause",
        TRANSPORT, "retry_after_is_honoured and ssm-moto",
    ),
    "another identity is answered from the shared cache": Defect(
        "lookup/shared_answers.py", "told = json.dumps(self._environment).encode()", "told = b''",
        TRANSPORT, "another_identity and ssm-moto",
    ),
    "the advice is another code's": Defect(
        "lookup/outcomes.py", "known_by: list[str | Outcome] = [*codes, outcome]", "known_by: list[str | Outcome] = [Outcome.DENIED]",
        TRANSPORT, "advice_fits_the_code and ssm-moto",
    ),
    "a child is answered what its parent was told": Defect(
        "lookup/answers.py", "    reset_after_fork()\n    for answers in prepared", "    prepared = _answers\n    for answers in prepared",
        "tests/threats/test_odd_hosts.py", "child_reaches_no_value",
    ),
    "an entry answers for another name": Defect(
        "lookup/shared_cache/entries.py", "names.update(name.encode())", 'names.update(b"")', SHARED, "tampered"
    ),
    "an absence is cached for ever": Defect(
        "lookup/cache.py", "return self.negative_ttl if text is None else self.ttl", "return 1e9 if text is None else self.ttl",
        "tests/contract/test_cache.py", "ssm-moto",
    ),
}  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(PACKAGE, tmp_path / "airflow_providers_secrets", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "docs", "benchmarks"):
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "provider.yaml"):
        shutil.copy(CHECKOUT / name, tmp_path)
    yield tmp_path


def run(copy: Path, *defects: Defect) -> subprocess.CompletedProcess[str]:
    """Run these defects' tests in the copy, until one fails."""
    where = dict.fromkeys(defect.where for defect in defects)
    tests = " or ".join(f"({defect.tests})" for defect in defects)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *where, "-k", tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.long
def test_without_a_defect_their_tests_pass(copy: Path) -> None:
    sound = run(copy, *DEFECTS.values())
    assert (sound.returncode, " passed" in sound.stdout) == (0, True), sound.stdout + sound.stderr


@pytest.mark.long
@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS)
def test_planted_defect_is_caught(defect: Defect, copy: Path) -> None:
    module = copy / "airflow_providers_secrets" / defect.module
    text = module.read_text(encoding="utf-8")
    assert text.count(defect.sound) == 1, f"{defect.module} has changed: plant the defect anew"
    module.write_text(text.replace(defect.sound, defect.planted), encoding="utf-8")
    planted = run(copy, defect)
    assert (planted.returncode, " failed" in planted.stdout) == (1, True), planted.stdout + planted.stderr
