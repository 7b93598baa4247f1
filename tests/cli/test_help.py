"""The example of each subcommand's ``--help``, as it stands there, in a real Airflow's set-up."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.cli import COMMANDS
from tests.cli.conftest import Command
from tests.rigs.aws import SsmRig
from tests.support.airflow_process import VERSION, Airflow
from tests.support.sharing import KEY

PRINTS = {
    "check": "\nhealthy\n",
    "explain": "Airflow takes it from: AWS SSM Parameter Store",
    "list": "metastore",
    "get": "mail.example.com\n",
    "put": "'/help/connections/db' created, version 1\n",
    "delete": "'/help/variables/old_flag' deleted\n",
    "copy": "conn only_there created",
    "policy": 'resource "aws_iam_role_policy"',
    "cache": "1 entry removed\n",
    "uri": "postgres://reader:S3cr3t@db.example.com\n",
}
"""A part of what each prints. The demo has tests of its own."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Airflow:
    """An Airflow whose store, metastore and cache hold what the examples are about."""
    from tests.conftest import RIGS
    from tests.rigs import running

    airflow, ssm = Airflow(tmp_path_factory.mktemp("help")), running(RIGS["ssm-moto"])
    assert isinstance(ssm, SsmRig)
    options = {"connections_prefix": "/help/connections", "variables_prefix": "/help/variables", "shared_cache": "file"}
    options["shared_cache"] = f"file://{airflow.home}/cache"
    airflow.use(ssm, options, AIRFLOW__CORE__FERNET_KEY=KEY)
    airflow.use_database(database)
    ssm.put("/help/connections/smtp_default", "smtp://u:S3cr3t@mail.example.com:25")
    ssm.put("/help/variables/old_flag", "S3cr3t")
    (airflow.home / "ssm.json").write_text(json.dumps(options))
    for conn_id in ("smtp_default", "only_there"):
        added = airflow.run("connections", "add", conn_id, "--conn-uri", "http://u:S3cr3t@h")
        assert added.code == 0, added.everything
    assert airflow.run("connections", "get", "smtp_default").code == 0  # which leaves it in the cache
    return airflow


def at_a_terminal(airflow: Airflow, arguments: list[str], typed: str) -> tuple[int, str]:
    """Run the command with a terminal, on which *typed* is typed at the first question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_providers_secrets.cli", *arguments],
        env=airflow.environment,
        cwd=airflow.home,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,  # getpass asks the terminal of the session, and there is none but this
        text=True,
    )
    os.close(theirs)
    asked = b""
    while not asked.endswith(b": "):
        asked += os.read(ours, 1024)
    os.write(ours, f"{typed}\n".encode())
    output, _ = process.communicate(timeout=120)
    os.close(ours)
    assert typed not in asked.decode()
    return process.returncode, output


@pytest.mark.long
@pytest.mark.parametrize("name", PRINTS)
def test_the_example_of_the_help_does_what_it_says(prepared: Airflow, name: str) -> None:
    (command,) = (command for command in COMMANDS if name == command.NAME)
    program, *arguments = shlex.split(command.EXAMPLE)
    assert program == "airflow-secrets"
    if "--ask-password" in arguments:
        code, output = at_a_terminal(prepared, arguments, "S3cr3t")
        errors = ""
    else:
        ended = prepared._run([sys.executable, "-m", "airflow_providers_secrets.cli", *arguments], {})
        code, output, errors = ended.code, ended.output, ended.errors
    printed = re.sub(" +", " ", output)
    assert (code, PRINTS[name] in printed) == (0 if name != "copy" else 1, True), output + errors
    assert ("S3cr3t" in output + errors) is (name == "uri")


def test_help_fits_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for line in ([], *([one.NAME] for one in COMMANDS)):
        said = command(*line, "--help")
        examples = {f"  {one.EXAMPLE}" for one in COMMANDS}
        long = [one for one in said.out.splitlines() if len(one) > 80 and one not in examples]
        assert [one for one in long if not re.fullmatch(r" *\[\S+ \S+\]", one)] == []  # argparse breaks no argument
        if line:
            assert len(examples & set(said.out.splitlines())) == 1  # to be copied as it is


def test_the_help_has_the_exit_codes_of_the_page(command: Command) -> None:
    page = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")
    codes = dict(re.findall(r"^\| (\d+) \| ([^:;(|]+?)(?: by | reading |[:;(|]| \|)", page, re.MULTILINE))
    assert set(codes) == {"0", "1", "2", "3", "130", "141"}
    for line in ([], *([one.NAME] for one in COMMANDS)):
        said = command(*line, "--help")
        told = " ".join(said.out.partition("exit codes: ")[2].split())
        assert dict(one.split(" ", 1) for one in told.split("; ")) == codes, said.everything


def test_every_example_is_run() -> None:
    assert {*PRINTS, "demo"} == {command.NAME for command in COMMANDS}


@pytest.mark.long
@pytest.mark.skipif(VERSION < (3, 2), reason="providers add commands from Airflow 3.2 on")
def test_airflows_help_has_the_same_examples(airflow: Airflow) -> None:
    script = (
        "import json\n"
        "from airflow_providers_secrets.cli.airflow_group import get_cli_commands\n"
        "(group,) = get_cli_commands()\n"
        "print(json.dumps({one.name: one.epilog for one in group.subcommands}))\n"
    )
    said: dict[str, Any] = json.loads(airflow._run([sys.executable, "-c", script], {}).last_line)
    for command in COMMANDS:
        assert (
            said[command.NAME] == f"example: {command.EXAMPLE.replace('airflow-secrets', 'airflow secrets-store', 1)}"
        )
