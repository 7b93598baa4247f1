"""``airflow-secrets demo`` from a newcomer's shell: what it shows, and what it leaves behind."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_providers_secrets
from airflow_providers_secrets.cli import demo
from tests.support.processes import processes_of

BLOCKED = "import sys\nsys.modules[{sdk!r}] = None\n"
"""Lets an import fail as one of a package that is not installed."""

ROOT = Path(airflow_providers_secrets.__file__).parent.parent
MAIN = "import sys; from airflow_providers_secrets.cli import demo, main\n"
RUN = "sys.exit(main(['demo', '--store', {store!r}]))\n"
SSM = RUN.format(store="aws_ssm")


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
            "COLUMNS": "250",
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


@pytest.mark.long
@pytest.mark.parametrize("store", ["aws_ssm", "aws_secrets_manager", "hashicorp_vault"])
def test_demo_shows_every_lookup_and_leaves_nothing(temporary: Path, store: str) -> None:
    output, progress = (process := command(RUN.format(store=store), temporary)).communicate(timeout=400)
    assert process.returncode == 0, output + progress
    assert "11 of 11 lookups gave what was seeded" in progress
    for asked, found in (
        ("airflow connections get demo_uri", "the store"),
        ("airflow connections get demo_json", "the store"),
        ("airflow variables get demo_var", "the store"),
        ("airflow config: sql_alchemy_conn", "the store"),
        ("DAG: connection demo_uri", "the store"),
        ("DAG: variable demo_var", "the store"),
        ("DAG: variable demo_env", "environment"),
        ("the same again", "memory"),
    ):
        assert re.search(rf"{asked}\s+{found}\s+[\d.]+ (s|ms|µs)", output), (asked, output)
    assert re.search(r"while the store is down\s+last known value", output)
    assert "could not give" in " ".join(output.split())
    assert list((temporary.parent / "home").iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_every_process_and_removes_every_file(temporary: Path, number: signal.Signals) -> None:
    process = command(SSM, temporary)
    assert process.stderr
    # Read until the first run of Airflow has been announced; it takes seconds.
    while "airflow db migrate …" not in (read := _until_pause(process)):
        assert process.poll() is None, read
    while not any("airflow db migrate" in line for line in processes_of(temporary).values()):
        assert process.poll() is None
    process.send_signal(number)
    _, progress = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"Stopped by {number.name}; everything is cleaned up." in progress
    assert processes_of(temporary) == {}


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
    code = BLOCKED.format(sdk="moto") + SSM
    output, errors = (process := command(code, temporary)).communicate(timeout=60)
    assert process.returncode == 2
    assert "airflow-providers-secrets[demo]" in errors
    assert "Traceback" not in errors
    assert output == ""


def test_plain_output_is_that_of_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [demo.Row("the same again", "memory", True, 0.0012), demo.Row("x", "nowhere", False, None, 1.5)]
    assert demo._report(argparse.Namespace(output="plain"), rows, 2.0) == 1
    assert capsys.readouterr().out == "the same again\tmemory\t1 ms\t\nx\tnowhere\t\t1.5 s\n"


def test_help_needs_no_airflow() -> None:
    code = BLOCKED.format(sdk="airflow") + "sys.argv[1:] = ['--help']\n" + MAIN + "main()\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "demo" in run.stdout
    assert "uri" in run.stdout
