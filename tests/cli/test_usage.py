"""What a wrong command line is told: one line, exit code 2, no usage to scroll past, and no value."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command

WRONG = {
    "list": "arguments are required: kind",
    "list S3cr3t": "argument kind: takes one of 'conn', 'var', 'config'",
    "get conn": "arguments are required: ID",
    "put conn db S3cr3t": "unknown arguments (values)",
    "check --frob=S3cr3t": "unknown arguments (--frob)",
    "uri --conn-type x --port 99999": "--port: takes a whole number from 0 to 65535",
    "uri --conn-type x --port S3cr3t": "--port: takes a whole number from 0 to 65535",
    "copy": "arguments are required: --from",
    "copy --from env --parallel 0": "--parallel: takes a whole number from 1 to 32",
    "copy --from env --rate 0": "--rate: takes a number above 0",
    "copy --from env --rate nan": "--rate: takes a number above 0",
    "copy --from env --to-member x": "--to-member: takes a whole number",
    "list conn --member 0": "--member: takes a whole number",
    "list conn --match [": "not a regular expression",
}


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
