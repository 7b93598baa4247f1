"""The examples of docs/command.md do what the page shows."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from airflow_providers_secrets.lookup import answers
from tests.cli.conftest import Command, connecting
from tests.rigs.aws import AwsRig
from tests.support.sharing import KEY

PAGE = Path(__file__).parents[2] / "docs" / "command.md"

VARIES = (
    (r"\d+ ms", "N ms"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"(airflow-providers-secrets|python|apache-airflow|boto3|botocore) [\w.]+", r"\1 VERSION"),
    (r"\d+ s old", "N s old"),
    (r"(entries-1 +1) +\d+ +\d+ +\d+", r"\1 AGES"),
    (r"\d{4}-\d\d-\d\dT[\d:+]+", "TIME"),
    (r"(/[\w./-]+)?/entries-1", "DIRECTORY"),
    (r"identity: .*", "identity: SOMEBODY"),
    (r"─+", "─"),
    (r"[ \t]+", " "),
    (r" $", ""),
)
"""What differs from run to run, and what stands for it in the comparison."""


def steady(text: str, directory: str = "/var/lib/airflow") -> list[str]:
    text = text.replace(directory, "/var/lib/airflow")
    for pattern, stand_in in VARIES:
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return [line.strip() for line in text.splitlines() if line.strip()]


def transcript() -> list[tuple[str, str]]:
    steps = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = step.partition("\n")
            steps.append((line, output))
    return steps


def outputs(
    command: Command, ssm: AwsRig, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> list[tuple[str, str, str]]:
    """Run every example of the page in its order, in a set-up as the page assumes it."""
    monkeypatch.chdir(directory)
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", KEY)
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", ssm.class_path)
    kwargs = {
        **connecting(ssm),
        "connections_prefix": "/example/connections",
        "variables_prefix": "/example/variables",
        "shared_cache": f"file://{directory}/cache",
        "shared_cache_key": KEY,
    }
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps(kwargs))
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://elsewhere")
    monkeypatch.setenv("AIRFLOW_VAR_FROM_ENV", "x")
    ssm.put("/example/connections/smtp_default", "smtp://user:S3cr3t@mail.example.com:587")
    ssm.backend_class(**kwargs).get_conn_value("smtp_default")  # as a task did a moment ago
    answers.reset_after_fork()
    done = []
    for line, expected in transcript():
        program, *arguments = shlex.split(line)
        assert program == "airflow-secrets"
        answers.reset_after_fork()  # in a shell, each is a process of its own
        said = command(*arguments)
        assert "S3cr3t" not in said.everything
        done.append((line, expected, said.out + said.err))
    return done


def test_every_example_is_as_shown(
    command: Command, ssm: AwsRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = outputs(command, ssm, monkeypatch, tmp_path)
    assert len(ran) >= 14
    for line, expected, came in ran:
        assert steady(came, str(tmp_path)) == steady(expected), line


def test_every_subcommand_has_an_example(command: Command) -> None:
    from airflow_providers_secrets.cli import COMMANDS

    text = PAGE.read_text(encoding="utf-8")
    for one in COMMANDS:
        assert f"`{one.NAME}`" in text
        assert one.EXAMPLE in command(one.NAME, "--help").out
