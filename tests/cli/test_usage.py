"""What a wrong command line is told: one line, exit code 2, no usage to scroll past, and no value."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import io
import json
import os
import pty
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.cli import main, output
from tests.cli.conftest import WRONG, Command, path_of, prefixes, using
from tests.rigs import Rig
from tests.support.airflow_process import PACKAGE_ROOT

(DECLARED,) = re.findall(
    r'^airflow-secrets = "(.*)"$',
    (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"),
    re.MULTILINE,
)
ENTRY = EntryPoint("airflow-secrets", DECLARED, "console_scripts")


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_told_in_one_line(command: Command, line: str) -> None:
    said = command(*line.split())
    name = line.split(maxsplit=1)[0]
    assert (said.code, said.out) == (2, "")
    assert WRONG[line] in said.err.replace('"', "'").replace("from conn", "from 'conn'")
    assert said.err.startswith(f"airflow-secrets {name}: "), said.err
    assert said.err.endswith(f"; see airflow-secrets {name} --help\n"), said.err
    assert said.err.count("\n") == 1
    assert "S3cr3t" not in said.err


def test_airflow_warns_of_nothing_beside_the_output(tmp_path: Path) -> None:
    """Airflow 2.11 with its default configuration warns while it is imported, and shows that by itself."""
    run = subprocess.run(
        [sys.executable, "-m", "airflow_providers_secrets.cli", "explain", "var", "x"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PACKAGE_ROOT),
            "HOME": str(tmp_path),
            "AIRFLOW__SECRETS__BACKEND": "airflow_providers_secrets.backends.hashicorp_vault.VaultBackend",
            "AIRFLOW__SECRETS__BACKEND_KWARGS": '{"url": "http://127.0.0.1:1", "token": "S3cr3t", "max_attempts": 1}',
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stderr == ""
    assert "connection refused (127.0.0.1 port 1)" in run.stdout


@pytest.mark.parametrize("module", ["cli", "cli.check"])
def test_an_interrupt_while_the_command_is_imported_ends_in_one_line(module: str) -> None:
    code = f"""
import sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "airflow_providers_secrets.{module}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from {ENTRY.module} import {ENTRY.attr}
sys.exit({ENTRY.attr}())
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "airflow-secrets: interrupted.\n")


@pytest.mark.long
@pytest.mark.parametrize(
    ("closed", "code", "told"),
    [
        ("<&-", 2, "airflow-secrets put: There is no terminal to ask for the value on"),
        (">&-", 2, "There is no terminal"),
        ("2>&-", 2, ""),
    ],
)
def test_a_closed_stream_is_no_fault_of_the_command(closed: str, code: int, told: str, tmp_path: Path) -> None:
    backend = f"--backend hashicorp_vault --kwargs '{json.dumps({'url': 'http://127.0.0.1:9', 'token': 'x'})}'"
    script = f"exec {sys.executable} -m airflow_providers_secrets.cli put var x {backend} {closed}"
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": PACKAGE_ROOT}
    stdin = None if closed == "<&-" else subprocess.DEVNULL
    ended = subprocess.run(
        ["/bin/sh", "-c", script],
        stdin=stdin,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, ""), ended
    assert told in ended.stderr
    assert ended.stderr.count("\n") == bool(told)


@pytest.mark.parametrize("line", ["uri --parse", "uri --parse --json"])
def test_a_full_disk_under_the_output_is_told_in_one_line(line: str) -> None:
    ended = into_full("stdout", line.split(), "http://S3cr3t@h")
    told = "airflow-secrets uri: unexpected OSError (No space left on device); add --verbose to see where.\n"
    assert (ended.returncode, ended.stderr) == (3, told)


def into_full(stream: str | None, arguments: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process whose *stream* is a file on a full disk."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        return subprocess.run(
            [sys.executable, "-m", "airflow_providers_secrets.cli", *arguments],
            input=stdin,
            env={**environment, "PYTHONPATH": PACKAGE_ROOT},
            stdout=full if stream == "stdout" else subprocess.PIPE,
            stderr=full if stream == "stderr" else subprocess.PIPE,
            text=True,
            check=False,
        )


def test_a_change_whose_result_cannot_be_printed_is_told_as_made(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    at = using(ssm, **prefixes(ssm, base))
    name = path_of(ssm, base, "variables", "x")
    full = "the output cannot be written (No space left on device)"
    put = ["put", "var", "x", "--stdin", *at]

    said = into_full("stdout", [*put, "--dry-run"], "S3cr3t")
    assert (said.returncode, said.stderr) == (3, f"airflow-secrets put: {full}; nothing was written.\n")
    for form in ("table", "json"):
        said = into_full("stdout", [*put, "-o", form], "S3cr3t")
        assert (said.returncode, said.stderr) == (3, f"airflow-secrets put: {full}; '{name}' was written.\n")
    assert command("get", "var", "x", "--show-value", *at).out == "S3cr3t\n"
    source = tmp_path / "v.json"
    source.write_text('{"y": "S3cr3t"}')
    to = ["--to", at[1], "--to-kwargs", at[3]]
    journal = ["--journal", str(tmp_path / "journal")]
    said = into_full("stdout", ["copy", "--from", f"file:{source}", "--kind", "var", *to, "--apply", *journal])
    told = f"airflow-secrets copy: {full}: 1 written, 0 left. Journal: {tmp_path}/journal.\n"
    assert (said.returncode, said.stderr) == (3, told)
    assert command("get", "var", "y", "--show-value", *at).out == "S3cr3t\n"
    said = into_full("stdout", ["delete", "var", "x", "--yes", *at])
    assert (said.returncode, said.stderr) == (3, f"airflow-secrets delete: {full}; '{name}' was deleted.\n")
    assert command("get", "var", "x", *at).code == 1


def test_a_message_that_cannot_be_written_changes_no_exit_code(ssm: Rig, base: str) -> None:
    at = using(ssm, **prefixes(ssm, base))
    ssm.put(path_of(ssm, base, "variables", "x"), "S3cr3t")
    for arguments in (
        ["list"],
        ["list", "var", *at],
        ["list", "var", "--verbose", *at],
        ["get", "var", "absent", *at],
        ["get", "var", "x", "--backend", "nowhere"],
        ["get", "var", "x", "--backend", f"{__name__}.Defective"],
    ):
        readable, full = into_full(None, arguments), into_full("stderr", arguments)
        assert readable.stderr
        assert (full.returncode, full.stdout) == (readable.returncode, readable.stdout), arguments


class Defective:
    """Another package's backend that fails with a value in its message and in a variable."""

    def __init__(self, **_: Any) -> None:
        pass

    def get_conn_value(self, conn_id: str) -> str:
        raise NotImplementedError(conn_id)

    def get_variable(self, key: str) -> str:
        value = "S3" + key
        raise RuntimeError(value)


def test_verbose_shows_where_an_unexpected_error_comes_from_and_no_value(command: Command) -> None:
    at = ("--backend", f"{__name__}.Defective")
    said = command("get", "var", "cr3t", *at)
    told = "airflow-secrets get: unexpected RuntimeError; add --verbose to see where.\n"
    assert (said.code, said.err) == (3, told)
    said = command("get", "var", "cr3t", "--verbose", *at)
    assert (said.code, said.out) == (3, "")
    assert "Traceback (most recent call last):\n" in said.err
    assert ", in get_variable\n    raise RuntimeError(value)\n" in said.err
    assert said.err.endswith("\nairflow-secrets get: unexpected RuntimeError.\n")
    assert "S3cr3t" not in said.everything


AT = ("--backend", "hashicorp_vault", "--kwargs", '{"url": "http://127.0.0.1:9", "token": "x"}')
PROMPTS = {
    "uri --conn-type http --ask-password": "--password-stdin",
    "put conn x --conn-type http --ask-password": "--password-stdin",
    "put conn x": "--stdin",
    "put var x": "--stdin",
}
"""Command lines that ask for a secret, each with what reads it from standard input instead."""


@pytest.mark.parametrize("line", PROMPTS)
def test_a_prompt_without_a_terminal_names_what_there_is_instead(command: Command, line: str) -> None:
    said = command(*line.split(), *(AT if line.startswith("put") else ()))
    assert (said.code, said.out) == (2, "")
    assert f"There is no terminal to ask for the value on; send it on standard input ({PROMPTS[line]})." in said.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("line", PROMPTS)
def test_a_prompt_that_is_left_by_ctrl_d_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    def left(_: str) -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", left)
    monkeypatch.setattr(sys, "stdin", Terminal())
    code = main([*line.split(), *(AT if line.startswith("put") else ())])
    said = capsys.readouterr()
    assert (code, said.out) == (2, ""), said
    assert f"nothing was typed; type it, or send it on standard input ({PROMPTS[line]})." in said.err


@pytest.mark.parametrize(
    ("line", "errors"),
    [*((line, errors) for line in PROMPTS for errors in ("strict", "surrogateescape")), ("delete var x", "strict")],
)
def test_what_is_typed_at_a_prompt_and_is_no_text_is_told(line: str, errors: str, tmp_path: Path) -> None:
    """Which errors a terminal's bytes make depends on the locale."""
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": PACKAGE_ROOT}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_providers_secrets.cli", *line.split(), *(() if "uri" in line else AT)],
        env={**environment, "PYTHONIOENCODING": f"utf-8:{errors}"},
        cwd=tmp_path,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,  # getpass asks the terminal of the session, and there is none but this
    )
    os.close(theirs)
    shown = b""
    while not shown.endswith((b": ", b"[y/N] ")):
        shown += os.read(ours, 1024)
    os.write(ours, b"S3cr3t\xff\n")
    with contextlib.suppress(OSError):  # how a terminal ends whose processes are gone
        while more := os.read(ours, 1024):
            shown += more
    output, _ = process.communicate(timeout=120)
    os.close(ours)
    told = f"airflow-secrets {line.split(maxsplit=1)[0]}: what was typed is not UTF-8 text."
    assert (process.returncode, output) == (2, b""), shown
    assert shown.decode(errors="replace").splitlines()[-1] == told
    assert line.startswith("delete") or b"S3cr3t" not in shown  # the answer to a question is echoed


@pytest.mark.parametrize("name", ["..", "...", ".x", "..x", "x..y"])
def test_dots_are_no_backend(command: Command, name: str) -> None:
    said = command("get", "var", "x", "--backend", name)
    assert (said.code, said.err.count("\n")) == (2, 1), said.everything
    assert f"the backend '{name}' cannot be imported" in said.err


@pytest.mark.parametrize("line", ["list conn", "get var x", "explain conn x", "check", "policy", "cache show"])
def test_an_empty_backend_is_not_the_configured_one(command: Command, line: str) -> None:
    """It is what the shell makes of a variable that is not set."""
    said = command(*line.split(), "--backend", "")
    assert (said.code, said.out) == (2, "")
    assert "--backend is empty; name one, or leave it out for the configured one." in said.err


def test_the_backend_of_workers_is_none_to_try(command: Command) -> None:
    said = command("get", "var", "x", "--worker", "--backend", "aws_ssm")
    assert (said.code, said.out) == (2, "")
    assert "--worker reads [workers], and --backend reads nothing; leave one of them out." in said.err


def test_a_table_has_no_spaces_at_the_end_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "one", "state": "same"}, {"id": "other", "state": "different", "reason": "in host"}]
    output.show_rows(rows, ("id", "state", "reason"), "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "state", "reason"]
    assert lines[2:] == ["one    same", "other  different  in host"]
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_path_without_its_at_sign_is_no_riddle(command: Command) -> None:
    said = command("get", "var", "x", "--backend", "aws_ssm", "--kwargs", "kwargs.json")
    assert (said.code, said.err.count("\n")) == (2, 1), said.everything
    assert 'write it as {"option": value, …}, or name a file with @FILE.' in said.err


def test_a_long_table_has_one_heading(capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed in parts."""
    number = 2 * output.FIRST_ROWS + 1
    assert output.show_rows(({"id": f"row-{one}"} for one in range(number)), ("id",), "table") == number
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if not line.startswith(("row-", "─"))] == ["id"]
    assert [line for line in lines if line.startswith("row-")] == [f"row-{one}" for one in range(number)]


def test_progress_counts_steps_and_what_became_of_them() -> None:
    copying, listing = output.Progress("copying", 8), output.Progress("listing")
    assert listing._line(0.4) == "listing · 0 s"
    listing.step()
    for note in ("created", "failed", "created"):
        copying.step(note)
    assert listing._line(1.0) == "listing 1 · 1 s"
    assert copying._line(61.4) == "copying 3/8 (37 %), 2 created, 1 failed · 61 s"


def test_times_are_told_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    changed = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    output.show_rows([{"changed": changed}], ("changed",), "plain")
    assert capsys.readouterr().out == "2026-01-01T10:00:00+00:00\n"


@pytest.mark.parametrize("width", [18, 24, 32, 40, 60])
def test_a_narrow_terminal_folds_cells_and_loses_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    columns = ("id", "name", "version", "changed", "not")
    row = dict(zip(columns, ("a" * 14, "b" * 31, "c" * 2, "d" * 25, "e" * 15), strict=True))
    output.show_rows([row], columns, "table")
    shown = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    assert max(map(len, shown.splitlines())) <= width
    body = shown[shown.rindex("─") :]
    assert {one: body.count(one) for one in "abcde"} == {"a": 14, "b": 31, "c": 2, "d": 25, "e": 15}, shown
