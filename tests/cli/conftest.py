"""The command in this process, on any rig, through ``--backend`` and ``--kwargs``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.cli import main
from tests.airflow.conftest import airflow, database
from tests.conftest import RIGS
from tests.rigs import Rig, running
from tests.rigs.openbao import ROOT_TOKEN

__all__ = ["airflow", "database"]

CONNECTION = {
    "conn_type": "postgres",
    "description": "the sales database",
    "login": "reader",
    "password": "S3cr3t-p@ss/word",
    "host": "db.example.com",
    "port": 5432,
    "schema": "sales",
    "extra": {"sslmode": "require"},
}

WRONG = {
    "list": "arguments are required: kind",
    "list S3cr3t": "argument kind: takes one of 'conn', 'var', 'config'",
    "get conn": "arguments are required: ID",
    "get var x --team=": "--team: is blank; name one, or leave it out",
    "delete var x --yes --team=": "--team: is blank; name one, or leave it out",
    "put conn db S3cr3t": "unknown arguments (values)",
    "check --frob=S3cr3t": "unknown arguments (--frob); see",
    "put conn db --password S3cr3t": "(--password): a password comes from --ask-password or --password-stdin; see",
    "uri --conn-type x --password=S3cr3t": "(--password): a password comes from --ask-password or --password-stdin; see",
    "copy --from env --dry-run": "(--dry-run): without --apply nothing is written; see",
    "delete var x --dry-run": "(--dry-run): without --yes it asks first; see",
    "get var x --dry-run": "unknown arguments (--dry-run); see",
    "check --password S3cr3t": "unknown arguments (--password); see",
    "uri --conn-type x --port 99999": "--port: must be a whole number from 0 to 65535",
    "uri --conn-type x --port S3cr3t": "--port: must be a whole number from 0 to 65535",
    "copy": "arguments are required: --from",
    "copy --from env --parallel 0": "--parallel: must be a whole number from 1 to 32",
    "copy --from env --rate 0": "--rate: takes a number above 0",
    "copy --from env --rate nan": "--rate: takes a number above 0",
    "copy --from env --to-member x": "--to-member: must be a whole number",
    "copy --from env --set =S3cr3t": "--set: must be NAME=VALUE",
    "put var x --set S3cr3t": "--set: must be NAME=VALUE",
    "list conn --member 0": "--member: must be a whole number",
    "list conn --match [": "not a regular expression",
}
"""Wrong command lines, each with a part of what it is told."""


@dataclass
class Said:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def everything(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture(params=[name for name in RIGS if not name.startswith("chain")])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Every store; the command speaks to one member of a chain at a time."""
    return running(RIGS[request.param])


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command with arguments, and *stdin* as standard input."""

    def run(*arguments: str, stdin: str | bytes = "") -> Said:
        # Bytes are read as a process has them, in the encoding that a locale without UTF-8 brings.
        stream = io.StringIO(stdin) if isinstance(stdin, str) else io.TextIOWrapper(io.BytesIO(stdin), "latin-1")
        monkeypatch.setattr(sys, "stdin", stream)
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return run


def using(rig: Rig, **options: Any) -> list[str]:
    """The arguments that name *rig*'s backend."""
    return ["--backend", rig.class_path, "--kwargs", json.dumps({**connecting(rig), **options})]


def connecting(rig: Rig) -> dict[str, Any]:
    """The options that make a backend speak to the rig, with the right to write."""
    given = rig.options()
    if rig.extra == "vault":
        return {"url": given["url"], "auth_type": "token", "token": ROOT_TOKEN}
    if rig.extra == "aws":
        from tests.rigs.aws import moto_url

        # Past the proxy, which counts what the store itself is asked.
        return {**given, "service_config": {"sts": {"endpoint_url": moto_url()}}}
    return given


@pytest.fixture
def base(request: pytest.FixtureRequest) -> Iterator[str]:
    """Prefixes that no other test uses."""
    yield f"cli{abs(hash(request.node.nodeid)) % 10**9}"


def prefixes(rig: Rig, base: str) -> dict[str, str]:
    """Options that put connections and variables under *base*, as the store spells names."""
    sep = "-" if rig.extra in ("azure", "google") else "/"
    # The rig of Vault knows a connection by how its path begins.
    return {
        rig.prefix_option.format(kind=kind): f"{kind}{sep}{base}" for kind in ("connections", "variables", "config")
    }


def path_of(rig: Rig, base: str, kind: str, secret_id: str) -> str:
    return rig.path(kind, secret_id, prefixes(rig, base)[rig.prefix_option.format(kind=kind)])


@pytest.fixture
def default_directory_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared cache's own place, which others can read."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "airflow-secrets").mkdir(mode=0o755)
