"""A tag is released only where everything that names a version names that one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("SECRETS_TEST_CHECKOUT", Path(__file__).parents[2]))  # where tox's copy comes from
FILES = {
    "airflow_providers_secrets/__init__.py": '__version__ = "{}"\n',
    "provider.yaml": "state: ready\nversions:\n  - {}\n  - 0.0.1\n",
    "CHANGELOG.md": "# Changelog\n\n## {}\n\n## 0.0.1\n",
}


def checked(tag: str, directory: Path, **other: str) -> subprocess.CompletedProcess[str]:
    for file, text in FILES.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(other.get(path.suffix[1:], "1.2.3")))
    script = directory / ".ci" / "release-version"
    script.parent.mkdir()
    shutil.copy(ROOT / ".ci" / "release-version", script)
    return subprocess.run([sys.executable, script, tag], capture_output=True, text=True, timeout=60, check=False)


def test_a_tag_that_all_files_name_is_released(tmp_path: Path) -> None:
    run = checked("v1.2.3", tmp_path)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


@pytest.mark.parametrize(
    ("suffix", "version"), [("py", "1.2.4"), ("yaml", "1.2.4"), ("md", "1.2.3 (unreleased)"), ("md", "1.2.30")]
)
def test_a_file_that_names_another_version_stops_it(tmp_path: Path, suffix: str, version: str) -> None:
    run = checked("v1.2.3", tmp_path, **{suffix: version})
    assert run.returncode == 1
    (line,) = run.stdout.splitlines()
    assert f".{suffix} has {version}, not 1.2.3" in line


def test_the_workflow_asks_it_before_it_builds() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert text.index('.ci/release-version "$GITHUB_REF_NAME"') < text.index("python -m build")


def test_the_workflow_builds_what_has_passed() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    (environments,) = re.findall(r"tox run -e (\S+)", text[: text.index("python -m build")])
    known = re.findall(r"^\[testenv:(\S+)\]", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"lint", "types", "docs", "dist", "py312-airflow3"} == set(environments.split(",")) <= set(known)
