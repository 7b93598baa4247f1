"""``airflow-secrets demo`` from a newcomer's shell: what it shows, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_providers_secrets
from tests.test_contract import BLOCKED

ROOT = Path(airflow_providers_secrets.__file__).parent.parent
MAIN = "import sys; from airflow_providers_secrets.cli import demo, main\n"
RUN = "sys.exit(main(['demo']))\n"


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The demo's directory for temporary files, which must be empty at the end."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    yield directory
    assert list(directory.iterdir()) == []


def command(code: str, temporary: Path) -> subprocess.Popen[str]:
    """Start the demo with an empty home, and with settings that must take no part."""
    home = temporary.parent / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN + code],
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "COLUMNS": "100",
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__SECRETS__BACKEND": "no.such.Backend",
            "AIRFLOW_VAR_DEMO_VAR": "the user's own",
            "AWS_PROFILE": "no-such-profile",
            "http_proxy": "http://127.0.0.1:9",
        },
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(directory: Path) -> list[str]:
    """The command lines of the processes that work in *directory* or know it from their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # another user's, or just ended
            continue
    return found


def test_demo_shows_every_lookup_and_leaves_nothing(temporary: Path) -> None:
    output, progress = (process := command(RUN, temporary)).communicate(timeout=300)
    assert process.returncode == 0, output + progress
    assert "14 of 14 lookups gave what was seeded" in output
    for store, prefix in (("AWS SSM Parameter Store", "/airflow"), ("AWS Secrets Manager", "airflow")):
        for asked, name, found in (
            ("connections get demo_uri", "connections/demo_uri", "the store"),
            ("connections get demo_json", "connections/demo_json", "the store"),
            ("variables get demo_var", "variables/demo_var", "the store"),
            ("config sql_alchemy_conn", "config/demo_database", "the store"),
            ("DAG: connection demo_uri", "connections/demo_uri", "the store"),
            ("DAG: variable demo_var", "variables/demo_var", "the store"),
            ("DAG: variable demo_env", "variables/demo_env", "environment"),
        ):
            assert re.search(rf"{asked}\s+{prefix}/{name}\s+{found}\s+[\d.]+ m?s", output), (asked, store, output)
        assert store in output
    assert len(re.findall(r"^airflow .* … [\d.]+ s$", progress, re.MULTILINE)) == 11, progress
    assert list((temporary.parent / "home").iterdir()) == []


def test_a_difference_from_what_was_seeded_ends_non_zero(temporary: Path) -> None:
    other = "demo.STORES = demo.STORES[:1]; demo.JSON = demo.JSON.replace('sales', 'other')\n"
    output, progress = (process := command(other + RUN, temporary)).communicate(timeout=300)
    assert process.returncode == 1, output + progress
    assert "6 of 7 lookups gave what was seeded" in output
    assert "connections get demo_json: found in nowhere, not in the store" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_every_process_and_removes_every_file(temporary: Path, number: signal.Signals) -> None:
    process = command(RUN, temporary)
    assert process.stderr
    # Read until the first run of Airflow has been announced; it takes seconds.
    while "airflow db migrate …" not in (read := _until_pause(process)):
        assert process.poll() is None, read
    while not any("airflow db migrate" in line for line in processes_of(temporary)):
        assert process.poll() is None
    process.send_signal(number)
    _, progress = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"Stopped by {number.name}; everything is cleaned up." in progress
    assert processes_of(temporary) == []


def _until_pause(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    read = ""
    while not read.endswith("…"):
        character = process.stderr.read(1)
        if not character:
            break
        read += character
    return read


def test_without_moto_the_extra_is_named(temporary: Path) -> None:
    code = BLOCKED.format(sdk="moto") + RUN
    output, errors = (process := command(code, temporary)).communicate(timeout=60)
    assert process.returncode == 2
    assert "airflow-providers-secrets[demo]" in errors
    assert "Traceback" not in errors
    assert output == ""


def test_help_needs_no_airflow() -> None:
    code = BLOCKED.format(sdk="airflow") + "sys.argv[1:] = ['--help']\n" + MAIN + "main()\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "demo" in run.stdout
    assert "uri" in run.stdout
