"""check_installs DIRECTORY: what the wheel with its extra `all` changes in an environment that Airflow was installed in before."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import uv

AIRFLOWS = {"2.11.2": (3, 12), "3.3.2": (3, 14)}
"""Lines of Airflow, and the newest Python that each runs on."""
CHANGED = {"3.3.2": {"python-dateutil": "botocore requires python-dateutil<3"}}
"""What may change for which line, and why; each stands in docs/install.md."""
DOCS = Path(__file__).parents[2] / "docs" / "install.md"


def uv_run(*arguments: str) -> str:
    # Links where the file system has them, and no bytecode: nothing here is run.
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    environment.pop("VIRTUAL_ENV", None)
    run = subprocess.run([uv.find_uv_bin(), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"uv {' '.join(arguments)}\n{run.stderr}"
    return run.stdout


def installed(python: str) -> dict[str, str]:
    lines = uv_run("pip", "freeze", "--python", python).splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)


def check(airflow: str, wheel: Path, directory: Path) -> None:
    """Hold that nothing of Airflow's own install changes, save what :data:`CHANGED` names, and that all of that does."""
    environment = directory / airflow
    uv_run("venv", "--quiet", "--python", sys.executable, str(environment))
    python = str(environment / "bin" / "python")
    uv_run("pip", "install", "--python", python, f"apache-airflow=={airflow}")
    before = installed(python)
    uv_run("pip", "install", "--python", python, f"airflow-providers-secrets[all] @ {wheel.resolve().as_uri()}")
    after = installed(python)
    changed = {name: f"{version} → {after.get(name)}" for name, version in before.items() if after.get(name) != version}
    allowed = CHANGED.get(airflow, {})
    print(
        f"Airflow {airflow}: {len(before)} distributions, {len(after) - len(before)} more; changed: {changed or 'none'}"
    )
    assert set(changed) == set(allowed), f"changed: {changed}; may change: {allowed}"
    rows = DOCS.read_text("utf-8").splitlines()
    for name in changed or ["nothing"]:
        cell = f"| {airflow} | {f'`{name}`' if changed else name}"
        assert any(row.startswith(cell) for row in rows), f"docs/install.md has no row: {cell}"


def main() -> None:
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    with tempfile.TemporaryDirectory() as directory:
        for airflow, newest in AIRFLOWS.items():
            if sys.version_info[:2] <= newest:
                check(airflow, wheel, Path(directory))


if __name__ == "__main__":
    main()
