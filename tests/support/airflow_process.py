"""Real Airflow in a subprocess, with nothing in its environment that a test did not put there."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import airflow_providers_secrets
from tests.rigs.aws import CREDENTIALS, REGION, AwsRig, moto_url

VERSION: Final = tuple(int(part) for part in importlib.metadata.version("apache-airflow").split(".")[:2])
"""The installed line of Airflow."""

PACKAGE_ROOT: Final = str(Path(airflow_providers_secrets.__file__).parent.parent)
TIMEOUT: Final = 600.0
"""Seconds for one process; 12 are usual."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    output: str
    errors: str

    @property
    def everything(self) -> str:
        return self.output + self.errors

    @property
    def last_line(self) -> str:
        assert self.code == 0, self.everything
        return self.output.rstrip("\n").rpartition("\n")[2]

    @property
    def fields(self) -> dict[str, Any]:
        """What ``connections get --output json`` printed of the connection, without what is empty."""
        (connection,) = json.loads(self.last_line)
        named = ("conn_type", "host", "login", "password", "port", "schema")
        return {name: connection[name] for name in named if connection[name]}

    def printed(self, mark: str) -> list[str]:
        """What a DAG or script printed behind *mark*, also where Airflow's log lines surround it."""
        return re.findall(rf"{mark} (.*?)(?: chan=stdout.*| source=.*)?$", self.output, re.MULTILINE)


class Airflow:
    """An ``AIRFLOW_HOME`` and an environment, in which commands run."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "airflow"
        self.home.mkdir()
        self.user_home = directory / "home"
        self.user_home.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PACKAGE_ROOT,
            "HOME": str(self.user_home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_STS": moto_url(),
            "NO_PROXY": "127.0.0.1",
        }

    def use(self, rig: AwsRig, backend_kwargs: dict[str, Any] | str | None = None, **environment: str) -> None:
        """Configure *rig*'s backend by environment variables, and leave where its store is to AWS's own."""
        self.environment["AIRFLOW__SECRETS__BACKEND"] = rig.class_path
        if backend_kwargs is not None:
            text = backend_kwargs if isinstance(backend_kwargs, str) else json.dumps(backend_kwargs)
            self.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = text
        self.environment[f"AWS_ENDPOINT_URL_{rig.service_id}"] = rig.proxy.url
        self.environment["AWS_DEFAULT_REGION"] = REGION
        self.environment.update({name.upper(): value for name, value in CREDENTIALS.items()})
        self.environment.update(environment)

    def use_database(self, template: Path) -> None:
        """Take a copy of a migrated database as the metastore."""
        shutil.copy(template, self.home / "airflow.db")

    def dag(self, name: str, task: str) -> None:
        """Write the DAG *name*, whose one task has the lines *task* for its body."""
        dags = self.home / "dags"
        dags.mkdir(exist_ok=True)
        (dags / f"{name}.py").write_text(DAG.format(name=name, body=textwrap.indent(textwrap.dedent(task), " " * 8)))

    def run(self, *arguments: str, **environment: str) -> Ended:
        """Run ``airflow`` with *arguments*."""
        return self._run([sys.executable, "-m", "airflow", *arguments], environment)

    def python(self, code: str, **environment: str) -> Ended:
        """Run Python code."""
        return self._run([sys.executable, "-c", textwrap.dedent(code)], environment)

    def _run(self, command: list[str], environment: dict[str, str]) -> Ended:
        run = subprocess.run(
            command,
            env={**self.environment, **environment},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return Ended(run.returncode, run.stdout, run.stderr)


DAG = """
from datetime import datetime
try:
    from airflow.sdk import BaseHook, Variable, dag, task
except ImportError:
    from airflow.decorators import dag, task
    from airflow.hooks.base import BaseHook
    from airflow.models import Variable

@dag(schedule=None, start_date=datetime(2024, 1, 1), catchup=False)
def {name}():
    @task
    def look_up():
{body}
    look_up()

{name}()
"""


COMMANDS = """
from airflow.cli.cli_parser import get_parser
for arguments in {commands!r}:
    parsed = get_parser().parse_args(arguments)
    parsed.func(parsed)
"""
"""Several of ``airflow``'s commands, in one process to save time."""

AIRFLOWS_KEY: Final = base64.urlsafe_b64encode(b"airflows own key of thirty-two b").decode()
"""A value of ``[core] fernet_key``."""
