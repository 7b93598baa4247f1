"""``airflow-secrets copy``: what it would do, what it does, and what a kill leaves behind."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.cli.copy_files import FromFile
from airflow_providers_secrets.cli.copying import Copying, Item
from airflow_providers_secrets.cli.endpoints import ToBackend
from airflow_providers_secrets.cli.journal import Journal
from airflow_providers_secrets.cli.masking import may_be_credentials
from airflow_providers_secrets.lookup.plan import Kind
from airflow_providers_secrets.stores.aws.parameter_store import ParameterStore
from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.cli.conftest import CONNECTION, Command, Said, connecting, path_of, prefixes, using
from tests.rigs import Rig
from tests.rigs.aws import AwsRig, SsmRig, aws_error
from tests.rigs.vault import VaultRig, vault_answer
from tests.support.airflow_process import PACKAGE_ROOT


def target(rig: Rig, base: str, **options: Any) -> list[str]:
    return ["--to", rig.class_path, "--to-kwargs", json.dumps({**connecting(rig), **prefixes(rig, base), **options})]


def states(said: Said) -> dict[str, str]:
    return {item["id"]: item["state"] for item in said.json}


@pytest.fixture
def export(tmp_path: Path) -> str:
    """A file as Airflow exports it, and with what cannot be copied."""
    path = tmp_path / "export.json"
    connections = {
        "db": CONNECTION,
        "by-uri": "http://S3cr3t@api.example.com",
        "faulty": "S3cr3t-value",
        "no field": {"conn_type": "http", "S3cr3t": 1},
    }
    path.write_text(json.dumps({"connections": connections, "variables": {"plain": "S3cr3t-1", "object": {"a": [1]}}}))
    return f"file:{path}"


def test_a_dry_run_writes_nothing(command: Command, rig: Rig, base: str, export: str) -> None:
    said = command("copy", "--from", export, *target(rig, base), "-o", "json")
    assert said.code == 1, said.everything
    expected = {"db": "create", "by-uri": "create", "plain": "create", "object": "create"}
    assert {k: v for k, v in states(said).items() if v != "invalid"} == expected
    assert " (dry run; --apply writes 4)\n" in said.err
    assert "does not try the right to write: airflow-secrets policy --allow write" in said.err
    assert "S3cr3t-" not in said.everything
    assert command("list", "conn", *using(rig, **prefixes(rig, base))).code == 1


def test_a_copy_creates_verifies_and_is_repeatable(
    command: Command, rig: Rig, base: str, export: str, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    apply = ["copy", "--from", export, *target(rig, base), "-o", "json", "--apply", "--journal", str(journal)]
    said = command(*apply, "--match", "db|plain|object|by")
    assert said.code == 0, said.everything
    assert set(states(said).values()) == {"created"}
    written = journal.read_text()
    assert "S3cr3t" not in written
    assert {json.loads(line)["id"] for line in written.splitlines()} == {"db", "by-uri", "plain", "object"}
    assert oct(journal.stat().st_mode & 0o777) == "0o600"
    at = using(rig, **prefixes(rig, base))
    shown = command("get", "conn", "db", "--show-value", "-o", "json", *at).json
    assert {name: value for name, value in shown.items() if name != "id"} == CONNECTION
    assert set(states(command(*apply, "--match", "db|plain|object|by")).values()) == {"same"}
    resumed = command(*apply, "--match", "db|plain", "--resume")
    assert {item["reason"] for item in resumed.json} == {"according to the journal"}
    # Another place has none of it, whatever the journal says of the first one.
    elsewhere = [*target(rig, f"{base}-elsewhere"), "-o", "json", "--apply", "--journal", str(journal)]
    said = command("copy", "--from", export, *elsewhere, "--match", "db|plain", "--resume")
    assert {(item["state"], item["reason"]) for item in said.json} == {("created", None)}, said.everything


def test_what_is_the_same_is_left_out_of_the_changes(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    ssm.put(path_of(ssm, base, "variables", "kept"), "x")
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"kept": "x", "new": "x"}))
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "--changes", "-o", "json")
    assert (said.code, states(said)) == (0, {"new": "create"}), said.everything
    assert "1 create, 1 same" in said.err


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ("same", "1 same (dry run)"),
        ("none", "nothing to copy (dry run)"),
        ("same|new", "1 create, 1 same (dry run; --apply writes 1)"),
        ("same|other", "1 same, 1 different (dry run; --apply --overwrite writes 1)"),
        ("new|other", "1 create, 1 different (dry run; --apply writes 1, with --overwrite 2)"),
    ],
)
def test_a_dry_run_says_which_arguments_would_write(
    command: Command, ssm: Rig, base: str, tmp_path: Path, ids: str, told: str
) -> None:
    for secret_id in ("same", "other"):
        ssm.put(path_of(ssm, base, "variables", secret_id), "x")
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"same": "x", "other": "y", "new": "z"}))
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "--match", f"({ids})$")
    assert f"AWS SSM Parameter Store: {told}\n" in said.err, said.everything


def test_what_failed_after_it_was_copied_is_not_skipped(tmp_path: Path) -> None:
    """As by a later copy with the same journal, which found the target's value lost."""
    journal = Journal(tmp_path / "journal", "here", resume=False)
    for secret_id, states in (("lost", ("created", "failed")), ("kept", ("failed", "created"))):
        for state in states:
            assert journal.note(Item("variables", secret_id, state))
    journal.close()
    again = Journal(tmp_path / "journal", "here", resume=True)
    assert again.verified == {("variables", "kept")}
    again.close()


def test_what_an_export_says_of_encryption_is_no_field_of_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    said = {"conn_id": "db", "id": 1, "is_encrypted": True, "is_extra_encrypted": False}
    path.write_text(json.dumps({"db": {"conn_type": "http", "host": "h", **said}}))
    text = FromFile(str(path), ("connections",)).text("connections", "db")
    assert text is not None
    assert json.loads(text) == {"conn_type": "http", "host": "h"}


def test_nothing_is_overwritten_without_being_told(
    command: Command, rig: Rig, base: str, export: str, tmp_path: Path
) -> None:
    rig.put(path_of(rig, base, "variables", "plain"), "kept")
    apply = ["copy", "--from", export, "--kind", "var", "--match", "plain", *target(rig, base), "-o", "json", "--apply"]
    apply += ["--journal", str(tmp_path / "journal")]
    at = using(rig, **prefixes(rig, base))
    said = command(*apply)
    assert (said.code, states(said)) == (1, {"plain": "different"}), said.everything
    assert command("get", "var", "plain", "--show-value", *at).out == "kept\n"
    said = command(*apply, "--overwrite")
    assert (said.code, states(said)) == (0, {"plain": "overwritten"}), said.everything
    assert command("get", "var", "plain", "--show-value", *at).out == "S3cr3t-1\n"


def test_what_nobody_can_use_in_the_target_is_replaced_only_if_told(
    command: Command, ssm: Rig, base: str, export: str, tmp_path: Path
) -> None:
    ssm.put(path_of(ssm, base, "connections", "db"), '{"password": "S3cr3t-')
    copy = ["copy", "--from", export, "--match", "db", *target(ssm, base), "-o", "json"]
    for more in ([], ["--apply", "--journal", f"{tmp_path}/one"]):
        said = command(*copy, *more)
        assert (said.code, states(said)) == (1, {"db": "different"}), said.everything
        assert said.json[0]["reason"].startswith("the target's cannot be used: "), said.everything
    said = command(*copy, "--apply", "--overwrite", "--journal", f"{tmp_path}/two")
    assert (said.code, states(said)) == (0, {"db": "overwritten"}), said.everything


def test_a_store_that_gives_no_answer_is_never_different(
    command: Command, rig: Rig, base: str, export: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_providers_secrets.cli import endpoints

    monkeypatch.setattr(endpoints, "PATIENCE", {"timeout": 2, "max_attempts": 1})
    with rig.fault("throttled"):
        said = command("copy", "--from", export, "--match", "db", *target(rig, base), "-o", "json")
    assert (said.code, states(said)) == (3, {"db": "failed"}), said.everything


def test_a_write_that_is_refused_midway_leaves_the_others_to_go_on(
    command: Command, vault: VaultRig, base: str, tmp_path: Path
) -> None:
    """By OpenBao's own policy: one name may be read and not written."""
    at = f"connections/{base}"

    def allow(capabilities: str) -> None:
        policy = f"""
            path "secret/data/{at}/*" {{ capabilities = ["create", "read", "update"] }}
            path "secret/data/{at}/c3" {{ capabilities = [{capabilities}] }}
        """
        vault.server.api("POST", f"sys/policies/acl/{base}", {"policy": policy})

    allow('"read"')
    token = vault.server.api("POST", "auth/token/create", {"policies": [base]})["auth"]["client_token"]
    path, journal = tmp_path / "connections.json", tmp_path / "journal"
    path.write_text(json.dumps({f"c{i}": CONNECTION for i in range(8)}))
    kwargs = {"url": vault.options()["url"], "token": token, "connections_path": at}
    copy = ["copy", "--from", f"file:{path}", "--kind", "conn", "--to", vault.class_path, "--apply", "-o", "json"]
    copy += ["--to-kwargs", json.dumps(kwargs), "--journal", str(journal)]
    said = command(*copy)
    expected = {f"c{i}": "failed" if i == 3 else "created" for i in range(8)}
    assert (said.code, states(said)) == (3, expected), said.everything
    (reason,) = [item["reason"] for item in said.json if item["state"] == "failed"]
    assert "airflow-secrets policy --allow write" in reason
    assert "7 created, 1 failed" in said.err
    assert "S3cr3t" not in said.everything + journal.read_text()
    allow('"create", "read"')
    said = command(*copy, "--resume")
    assert (said.code, states(said)) == (0, {f"c{i}": "created" if i == 3 else "same" for i in range(8)})
    assert {item["reason"] for item in said.json if item["state"] == "same"} == {"according to the journal"}


def test_a_write_that_aws_refuses_midway_names_what_it_refused(
    command: Command, aws: AwsRig, base: str, tmp_path: Path
) -> None:
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({f"v{i}": "S3cr3t" for i in range(8)}))

    def refused(request: Request) -> Reply | None:
        writes = re.search(r"\.(PutParameter|CreateSecret)$", request.headers.get("X-Amz-Target", ""))
        return aws_error("AccessDeniedException") if writes and b"v3" in request.body else None

    to = ["--to", aws.class_path, "--to-kwargs", json.dumps({**aws.options(), **prefixes(aws, base)})]
    with aws.proxy.fault(refused):
        said = command("copy", "--from", f"file:{path}", "--kind", "var", *to, "--apply", "-o", "json",
                       "--journal", f"{tmp_path}/j")  # fmt: skip
    assert (said.code, states(said)) == (3, {f"v{i}": "failed" if i == 3 else "created" for i in range(8)}), said.out
    (reason,) = [item["reason"] for item in said.json if item["state"] == "failed"]
    assert re.search(r"policy --allow write|Allow .*(ssm|secretsmanager):", reason), reason
    assert "S3cr3t" not in said.everything


def test_what_cannot_be_held_is_found_before_any_write(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"large": "x" * 5000, "wide": "é" * 2049, "blank": " ", "a b": "x", "fine": "é" * 2048}))
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "-o", "json")
    invalid = dict.fromkeys(("large", "wide", "blank", "a b"), "invalid")
    assert states(said) == {**invalid, "fine": "create"}
    reasons = {item["id"]: item["reason"] for item in said.json}
    assert "5000 bytes; the store holds 4096" in reasons["large"]
    assert "4098 bytes; the store holds 4096" in reasons["wide"]


def test_a_larger_tier_holds_more(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"large": "x" * 5000, "larger": "x" * 9000}))
    said = command(
        "copy", "--from", f"file:{path}", *target(ssm, base), "--set", "tier=Advanced", "--kind", "var", "-o", "json"
    )
    assert states(said) == {"large": "create", "larger": "invalid"}, said.everything
    assert "9000 bytes; the store holds 8192" in said.out


def test_a_copy_writes_in_the_form_and_by_the_settings_that_are_told(
    command: Command, ssm: SsmRig, base: str, export: str, tmp_path: Path
) -> None:
    copy = ["copy", "--from", export, "--match", "by-uri", *target(ssm, base), "--apply", "--overwrite"]
    name = path_of(ssm, base, "connections", "by-uri")
    for form, start in (("--as-uri", "http://"), (None, "{")):
        more = [*([form] if form else []), "--set", "type=String", "--journal", f"{tmp_path}/{form}"]
        assert command(*copy, *more).code == 0
        written = ssm.client.get_parameter(Name=name)["Parameter"]
        assert (written["Type"], written["Value"].startswith(start)) == ("String", True)
        ssm.remove(name)


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float | None, int]]:
    """The writes a second that each copy was limited to, and how many at once."""
    from airflow_providers_secrets.cli import copy

    paces: list[tuple[float | None, int]] = []

    class Noted(copy.Copying):
        def __init__(self, *ends: Any, rate: float | None, **how: Any) -> None:
            self.rate = rate
            super().__init__(*ends, rate=rate, **how)

        def run(self, found: Any, parallel: int, *more: Any) -> Any:
            paces.append((self.rate, parallel))
            return super().run(found, parallel, *more)

    monkeypatch.setattr(copy, "Copying", Noted)
    return paces


@pytest.mark.each_rig_in_ci
def test_a_documented_quota_of_writes_sets_the_pace(
    command: Command, google: Rig, ssm: Rig, base: str, export: str, paces: list[tuple[float | None, int]]
) -> None:
    for rig, given in ((google, []), (google, ["--rate", "2", "--parallel", "7"]), (ssm, [])):
        command("copy", "--from", export, *target(rig, base), *given)
    assert paces == [(4.5, 4), (2.0, 7), (None, 4)]


def test_the_rate_holds_for_all_writes_together(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return False

    class Waiting(Copying):
        def __init__(self, *ends: Any, **how: Any) -> None:
            super().__init__(*ends, **how)
            self._stopped = Stopped()

    monkeypatch.setattr("airflow_providers_secrets.cli.copy.Copying", Waiting)
    clock = SimpleNamespace(monotonic=lambda: 1000.0, sleep=lambda _: None)
    monkeypatch.setattr("airflow_providers_secrets.cli.copying.time", clock)
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({f"v{number}": "x" for number in range(5)}))
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "--apply", "--rate", "2",
                   "--journal", str(tmp_path / "j"), "-o", "json")  # fmt: skip
    assert (said.code, len(states(said))) == (0, 5), said.everything
    assert sorted(waited) == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_what_somebody_else_creates_meanwhile_is_not_overwritten(
    command: Command, rig: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the comparison, which found nothing, and the write."""
    check = ToBackend.check

    def meanwhile(self: ToBackend, kind: Kind, text: str) -> None:
        check(self, kind, text)
        rig.put(path_of(rig, base, "variables", "raced"), "somebody else's")

    monkeypatch.setattr(ToBackend, "check", meanwhile)
    monkeypatch.setattr("airflow_providers_secrets.cli.copying.PAUSES", (0.0,))
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"raced": "x"}))
    copied = ["copy", "--from", f"file:{path}", "--kind", "var", *target(rig, base), "--apply", "--overwrite"]
    said = command(*copied, "--journal", str(tmp_path / "j"), "-o", "json")
    assert (said.code, states(said)) == (3, {"raced": "failed"}), said.everything
    assert said.json[0]["reason"] == "reading back gave something else"
    at = using(rig, **prefixes(rig, base))
    assert command("get", "var", "raced", "--show-value", *at).out == "somebody else's\n"


class Acme(ParameterStore):
    """A store of another package."""

    largest_value = 100
    writes_per_second = 3.0


class AcmeBackend(SystemsManagerParameterStoreBackend):
    """The backend of a store of another package."""

    store = "Acme"
    stores, _, module = __name__.rpartition(".")
    store_class = f"{module}:{Acme.__name__}"


def test_a_store_of_another_package_states_its_own_limits(
    command: Command, ssm: Rig, base: str, tmp_path: Path, paces: list[tuple[float | None, int]]
) -> None:
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"large": "x" * 101, "fine": "x" * 100}))
    to = ["--to", f"{__name__}.AcmeBackend", *target(ssm, base)[2:]]
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *to, "-o", "json")
    assert states(said) == {"large": "invalid", "fine": "create"}, said.everything
    assert "101 bytes; the store holds 100" in said.out
    assert paces == [(3.0, 4)]


def test_what_is_there_already_is_the_same_whatever_could_be_written(
    command: Command, ssm: SsmRig, base: str, tmp_path: Path
) -> None:
    """Of the tier Advanced, a parameter holds more than one that is new would."""
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"large": "x" * 5000}))
    name = path_of(ssm, base, "variables", "large")
    ssm.client.put_parameter(Name=name, Value="x" * 5000, Type="String", Tier="Advanced")
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "-o", "json")
    assert states(said) == {"large": "same"}


@pytest.mark.parametrize(("there", "state"), [("1", "different"), ("1.0", "different"), ("true", "same")])
def test_a_number_in_an_extra_is_not_the_truth(
    command: Command, ssm: Rig, base: str, tmp_path: Path, there: str, state: str
) -> None:
    """Python takes them for equal."""
    path = tmp_path / "connections.json"
    path.write_text('{"api": {"conn_type": "http", "extra": {"verify": true, "a": {}}}}')
    stored = '{"extra": {"a": {}, "verify": ' + there + '}, "conn_type": "http"}'
    ssm.put(path_of(ssm, base, "connections", "api"), stored)
    said = command("copy", "--from", f"file:{path}", "--kind", "conn", *target(ssm, base), "-o", "json")
    assert states(said) == {"api": state}, said.everything
    assert said.json[0]["reason"] == (None if state == "same" else "in extra ('verify')")


@pytest.mark.parametrize("stored", ['{"conn_type": "http"}', '{"conn_type": "http", "extra": {"b": null}}'])
def test_a_null_in_an_extra_differs_from_nothing(
    command: Command, ssm: Rig, base: str, tmp_path: Path, stored: str
) -> None:
    path = tmp_path / "connections.json"
    path.write_text('{"api": {"conn_type": "http", "extra": {"a": null, "b": null}}}')
    ssm.put(path_of(ssm, base, "connections", "api"), stored)
    said = command("copy", "--from", f"file:{path}", "--kind", "conn", *target(ssm, base), "-o", "json")
    both = "b" not in stored
    assert said.json[0]["reason"] == ("in extra ('a', 'b')" if both else "in extra ('a')")


def test_the_fields_that_differ_are_named_without_their_values(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    """Otherwise nobody could tell what another class reads differently on purpose from a fault."""
    path = tmp_path / "connections.json"
    path.write_text(
        '{"db": {"conn_type": "mysql", "login": "S3cr3t-a", "port": 1, "extra": {"a": "S3cr3t-b", "c": 1}}}'
    )
    stored = {
        "conn_type": "mysql",
        "login": "S3cr3t-c",
        "host": "S3cr3t-d",
        "port": 1,
        "extra": {"c": 1, "d": "S3cr3t"},
    }
    ssm.put(path_of(ssm, base, "connections", "db"), json.dumps(stored))
    copied = ["copy", "--from", f"file:{path}", "--kind", "conn", *target(ssm, base), "-o", "json"]
    for arguments in ([], ["--apply", "--journal", str(tmp_path / "journal")]):
        said = command(*copied, *arguments)
        assert said.json[0]["reason"] == "in login, extra ('a', 'd'), host"
        assert "S3cr3t" not in said.everything
    assert "S3cr3t" not in (tmp_path / "journal").read_text()
    ssm.put(
        path_of(ssm, base, "connections", "db"),
        json.dumps({"conn_type": "mysql", "extra": {"x" * 120: 1, "y" * 120: 1}}),
    )
    reason = command(*copied).json[0]["reason"]
    assert reason.startswith("in login, port, extra ('a', 'c', 'xxxx")
    assert len(reason) == 200


def test_an_extra_may_be_nested_as_deep_as_it_can_be_parsed(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    depth = 1000 if sys.version_info >= (3, 12) else 700
    deep = '{"conn_type": "http", "extra": {"a": ' + "[" * depth + "]" * depth + "}}"
    path = tmp_path / "connections.json"
    path.write_text(f'{{"api": {json.dumps(deep)}}}')
    ssm.put(path_of(ssm, base, "connections", "api"), deep.replace(" ", ""))
    said = command("copy", "--from", f"file:{path}", "--kind", "conn", *target(ssm, base), "-o", "json")
    assert states(said) == {"api": "same"}, said.everything


def test_a_number_that_a_store_spells_its_own_way_is_the_same(
    command: Command, vault: VaultRig, base: str, tmp_path: Path
) -> None:
    """OpenBao makes 1 of 1.0."""
    path = tmp_path / "connections.json"
    path.write_text('{"api": {"conn_type": "http", "extra": {"timeout": 1.0, "all": [true, {"verify": false}]}}}')
    copy = ["copy", "--from", f"file:{path}", "--kind", "conn", *target(vault, base), "-o", "json", "--apply"]
    for state in ("created", "same"):
        said = command(*copy, "--journal", str(tmp_path / "journal"))
        assert states(said) == {"api": state}, said.everything


def test_what_a_write_loses_is_told_before_it(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    path = tmp_path / "variables.json"
    described = {"value": "S3cr3t-1", "description": "S3cr3t-2"}
    path.write_text(json.dumps({"described": described, "plain": "x", "empty": {**described, "description": ""}}))
    copy = ["copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "-o", "json"]
    lost = {"described": "its description is not copied, its value alone", "plain": None, "empty": None}
    for more, state in (([], "create"), (["--apply", "--journal", f"{tmp_path}/j"], "created")):
        said = command(*copy, *more)
        assert (said.code, set(states(said).values())) == (0, {state}), said.everything
        assert {item["id"]: item["reason"] for item in said.json} == lost
        assert "S3cr3t" not in said.everything


def test_a_copy_never_spoils_what_is_there(command: Command, vault: VaultRig, base: str, export: str) -> None:
    """The target's secret is fine by its URI, beside which fields would be read with what else it holds."""
    path = path_of(vault, base, "connections", "db")
    vault.write(path, {"conn_uri": "http://old.example.com", "owner": "data"})
    copy = ["copy", "--from", export, "--kind", "conn", "--match", "db", *target(vault, base), "-o", "json"]
    said = command(*copy, "--apply", "--overwrite")
    assert (said.code, states(said)) == (1, {"db": "invalid"}), said.everything
    assert "other fields are kept" in said.json[0]["reason"]
    at = using(vault, **prefixes(vault, base))
    assert command("get", "conn", "db", "--field", "host", *at).out == "old.example.com\n"


def test_what_is_written_and_cannot_be_read_back_is_failed(
    command: Command, vault: VaultRig, base: str, export: str
) -> None:
    written: list[str] = []

    def spoils(request: Request) -> Reply | None:
        if request.method in ("POST", "PUT") and "/data/" in request.path:
            written.append(request.path)
        elif written and "/data/" in request.path:
            return vault_answer({"data": {"owner": "data"}, "metadata": {"version": 1}})
        return None

    copy = ["copy", "--from", export, "--kind", "conn", "--match", "db", *target(vault, base), "-o", "json"]
    with vault.proxy.fault(spoils):
        said = command(*copy, "--apply")
    assert (said.code, states(said)) == (3, {"db": "failed"}), said.everything
    assert said.json[0]["reason"].startswith("written, but what is read back is unusable: ")


def test_ids_that_the_target_cannot_tell_apart_are_invalid(
    command: Command, azure: Rig, base: str, tmp_path: Path
) -> None:
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"my_db": "1", "my-db": "2", "other": "3"}))
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(azure, base), "-o", "json")
    assert states(said) == {"my_db": "invalid", "my-db": "invalid", "other": "create"}, said.everything


def test_between_two_stores(command: Command, ssm: Rig, secrets_manager: Rig, base: str, tmp_path: Path) -> None:
    for conn_id in ("one", "excluded"):
        ssm.put(path_of(ssm, base, "connections", conn_id), "http://one")
    kwargs = {**ssm.options(), **prefixes(ssm, base), "connections_exclude_pattern": "excluded"}
    source = ["--from", ssm.class_path, "--from-kwargs", json.dumps(kwargs)]
    said = command(
        "copy", *source, *target(secrets_manager, base), "--apply", "-o", "json", "--journal", str(tmp_path / "j")
    )
    assert (said.code, states(said)) == (0, {"one": "created"}), said.everything


def test_from_the_environment(command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FROM_ENV", "AWAY_FROM_ENV"):  # --match is of an id's start
        monkeypatch.setenv(f"AIRFLOW_VAR_{name}", "x")
    said = command("copy", "--from", "env", "--match", "from_env", *target(ssm, base), "-o", "json")
    assert (said.code, states(said)) == (0, {"from_env": "create"}), said.everything


@pytest.mark.parametrize("source", ["env", "file"])
def test_names_are_all_that_is_copied_of_any_source(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    secrets = dict.fromkeys(("named", "other"), "S3cr3t")
    for name, value in secrets.items():
        monkeypatch.setenv(f"AIRFLOW_VAR_{name.upper()}", value)
    (tmp_path / "export.json").write_text(json.dumps(secrets))
    names = tmp_path / "names"
    names.write_text("var:named\nconn:other\nvar:mistyped\n", encoding="utf-8-sig")  # as Windows editors write it
    of = "env" if source == "env" else f"file:{tmp_path}/export.json"
    copy = ["copy", "--from", of, "--kind", "var", *target(ssm, base), "-o", "json", "--names"]
    said = command(*copy, str(names))
    assert states(said) == {"named": "create", "mistyped": "invalid"}, said.everything
    assert "the source does not hold it" in said.out
    said = command(*copy, f"{tmp_path}/absent")
    assert (said.code, said.out, "absent cannot be read" in said.err) == (2, "", True), said.everything


def test_a_journal_is_of_one_file(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another directory's file of the same name is another source."""
    copy = ["copy", "--from", "file:v.json", "--kind", "var", *target(ssm, base), "-o", "json", "--apply"]
    for directory, state in (("one", "created"), ("other", "different")):
        (tmp_path / directory).mkdir()
        monkeypatch.chdir(tmp_path / directory)
        Path("v.json").write_text(json.dumps({"x": directory}))
        said = command(*copy, "--journal", f"{tmp_path}/j", "--resume")
        assert states(said) == {"x": state}, said.everything
    monkeypatch.chdir(tmp_path / "one")
    said = command(*copy, "--journal", f"{tmp_path}/j", "--resume")
    assert [item["reason"] for item in said.json] == ["according to the journal"], said.everything


def test_a_journal_by_default_has_a_time_in_its_name(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    source, journals = tmp_path / "variables.json", tmp_path / "airflow-secrets"
    source.write_text('{"x": "S3cr3t"}\n')
    copy = ["copy", "--from", f"file:{source}", "--kind", "var", *target(ssm, base), "--apply", "-o", "json"]
    for resume in ([], ["--resume"]):
        said = command(*copy, "--match", "no-such", *resume)
        assert (said.code, "journal: " in said.err, [*journals.iterdir()]) == (0, False, []), said.everything
    assert [command(*copy).code, command(*copy).code] == [0, 0]
    names = sorted(path.name for path in journals.iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"copy-20\d{6}T\d{6}Z-[0-9a-f]{12}-[0-9a-f]{6}\.jsonl", name) for name in names), names

    last = journals / names[-1]
    said = command(*copy, "--resume")
    assert "skips nothing" not in said.err
    assert ([item["reason"] for item in said.json], f"journal: {last}\n" in said.err) == (
        ["according to the journal"],
        True,
    )


def test_a_copy_that_resumes_nothing_says_so(
    command: Command, ssm: Rig, base: str, export: str, tmp_path: Path
) -> None:
    """As with a misspelt name of the journal, or with that of another target."""
    copy = ["copy", "--from", export, "--apply", "--resume", "--journal", f"{tmp_path}/journal"]
    told = f"--resume skips nothing: {tmp_path}/journal names no id as verified for this source and target.\n"
    for at, expected in ((base, True), (base, False), (f"{base}-elsewhere", True)):
        said = command(*copy, *target(ssm, at))
        assert (told in said.err) == expected, said.everything


def test_a_journal_never_replaces_another_file(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    source = tmp_path / "variables.json"
    source.write_text('{"x": "S3cr3t"}\n')
    copy = ["copy", "--from", f"file:{source}", "--kind", "var", *target(ssm, base), "--apply", "-o", "json"]
    for more in ([], ["--resume"]):
        said = command(*copy, "--journal", str(source), *more)
        assert (said.code, "is not a journal and was left unchanged" in said.err) == (2, True), said.everything
        assert source.read_text() == '{"x": "S3cr3t"}\n'
    (tmp_path / "empty").touch()
    assert command(*copy, "--journal", f"{tmp_path}/empty").code == 0


@pytest.mark.parametrize(
    "line",
    ['{"kind": ["variables"], "id": "x", "state": "same", "of": OF}', '{"kind": ' + "[" * 100_000, "5", '"x"', "[]"],
    ids=["a list as kind", "nested too deeply", "a number", "a text", "a list"],
)
def test_a_line_of_a_journal_that_no_copy_writes_is_ignored(
    command: Command, ssm: Rig, base: str, export: str, tmp_path: Path, line: str
) -> None:
    journal = tmp_path / "journal"
    copy = ["copy", "--from", export, *target(ssm, base), "--apply", "--journal", str(journal), "-o", "json"]
    assert set(states(command(*copy)).values()) <= {"created", "invalid"}
    entry = journal.read_text().splitlines()[0]
    journal.write_text(f"{entry}\n{line.replace('OF', json.dumps(json.loads(entry)['of']))}\n")
    said = command(*copy, "--resume")
    assert "unexpected" not in said.err
    assert set(states(said).values()) <= {"same", "invalid"}, said.everything


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_journal_that_cannot_be_written_to_any_more_ends_the_copy(
    command: Command, ssm: Rig, base: str, tmp_path: Path, parallel: int
) -> None:
    """What is written by then is told all the same."""
    (tmp_path / "v.json").write_text(json.dumps({f"v{number:02}": "S3cr3t" for number in range(30)}))
    copy = ["copy", "--from", f"file:{tmp_path}/v.json", "--kind", "var", *target(ssm, base), "--apply", "-o", "json"]
    said = command(*copy, "--journal", "/dev/full", "--parallel", str(parallel))
    written = [one["id"] for one in command("list", "var", "-o", "json", *using(ssm, **prefixes(ssm, base))).json]
    assert 1 <= len(written) <= parallel
    assert (said.code, states(said)) == (3, dict.fromkeys(written, "created")), said.everything
    assert said.err == (
        "airflow-secrets copy: the journal /dev/full cannot be written to any more (No space left on device): "
        f"{len(written)} written, {30 - len(written)} left. Make room for it or name another by --journal, and copy "
        "again: what is written is then the same.\n"
    )
    said = command(*copy, "--journal", str(tmp_path / "another"))
    assert (said.code, set(states(said).values())) == (0, {"same", "created"}), said.everything


def test_a_journal_without_a_name_is_refused(command: Command, ssm: Rig, base: str, export: str) -> None:
    said = command("copy", "--from", export, *target(ssm, base), "--apply", "--journal", "")
    assert (said.code, said.out) == (2, ""), said.everything
    assert "--journal" in said.err


def test_a_journal_that_takes_no_line_is_found_before_a_copy_goes_on(
    command: Command, ssm: Rig, base: str, export: str
) -> None:
    said = command("copy", "--from", export, *target(ssm, base), "--apply", "--journal", "/dev/full", "--resume")
    assert (said.code, said.out) == (2, ""), said.everything
    assert "the journal /dev/full cannot be written: No space left on device; name another" in said.err
    assert command("list", "conn", *using(ssm, **prefixes(ssm, base))).code == 1


def test_an_id_that_is_no_text_is_noted_and_ends_nothing(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable's name may be any bytes."""
    journal = tmp_path / "journal"
    for name in ("ODD_ONE\udcff", "ODD_OTHER"):
        monkeypatch.setenv(f"AIRFLOW_VAR_{name}", "x")
    copy = ["copy", "--from", "env", "--match", "odd", *target(ssm, base), "--apply", "-o", "json"]
    said = command(*copy, "--journal", str(journal))
    assert (said.code, list(states(said).values())) == (1, ["invalid", "created"]), said.everything
    noted = {entry["id"]: entry["state"] for entry in map(json.loads, journal.read_text().splitlines())}
    assert noted == {"odd_one\udcff": "invalid", "odd_other": "created"}


@pytest.mark.parametrize("as_uri", [[], ["--as-uri"]])
def test_what_is_no_text_is_invalid(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_uri: list[str]
) -> None:
    """JSON can spell the half of a pair, and an environment can hold any byte."""
    path = tmp_path / "export.json"
    connection = {"conn_type": "http", "password": "S3cr3t\ud83d"}
    path.write_text(json.dumps({"connections": {"half": connection}, "variables": {"half": "S3cr3t\ud83d"}}))
    monkeypatch.setenv("AIRFLOW_VAR_LATIN", os.fsdecode(b"S3cr3t\xe9"))
    for source in (f"file:{path}", "env"):
        said = command("copy", "--from", source, "--match", "half|latin", *as_uri, *target(ssm, base), "-o", "json")
        assert (said.code, set(states(said).values())) == (1, {"invalid"}), said.everything
        assert all("that UTF-8 cannot encode" in item["reason"] for item in said.json), said.everything


def test_null_in_a_file_is_invalid(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    """``airflow variables import`` would store the text "null", which nobody may have meant."""
    (tmp_path / "v.json").write_text('{"x": null, "y": {"value": null, "description": "d"}, "z": {"S3cr3t": null}}')
    said = command("copy", "--from", f"file:{tmp_path}/v.json", "--kind", "var", *target(ssm, base), "-o", "json")
    assert states(said) == {"x": "invalid", "y": "invalid", "z": "create"}, said.everything
    assert {item["reason"] for item in said.json if item["id"] != "z"} == {"the file has null for it"}


def test_what_belongs_to_a_team_is_said_to(
    command: Command, ssm: Rig, vault: VaultRig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for secret_id in ("tv", "red--tv"):
        ssm.put(path_of(ssm, base, "variables", secret_id), "S3cr3t")
    source = ["--from", ssm.class_path, "--from-kwargs", json.dumps({**connecting(ssm), **prefixes(ssm, base)})]
    said = command("copy", *source, *target(vault, base), "--kind", "var", "-o", "json")
    assert states(said) == {"tv": "create", "red--tv": "invalid"}, said.everything
    (reason,) = (item["reason"] for item in said.json if item["id"] == "red--tv")
    assert reason == "it belongs to the team 'red', and copy is for what belongs to none"


def test_what_yaml_reads_and_json_has_not_is_invalid(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(
        "quoted: &quoted {since: '2020-01-01'}\ndated: {<<: *quoted, since: 2020-01-01}\n<<: {dated: x}\n"
    )
    said = command("copy", "--from", f"file:{tmp_path}/v.yaml", "--kind", "var", *target(ssm, base), "-o", "json")
    assert states(said) == {"dated": "invalid", "quoted": "create"}, said.everything
    assert "put that in quotation marks" in said.everything


def test_an_id_in_yaml_is_the_text_that_stands_there(command: Command, ssm: Rig, base: str, tmp_path: Path) -> None:
    path = tmp_path / "secrets.yaml"
    path.write_text(
        "connections:\n  7: http://seven\n  on: http://on\nvariables:\n  007: a\n  2024-01-01: b\n  null: c\n"
    )
    said = command("copy", "--from", f"file:{path}", *target(ssm, base), "-o", "json")
    assert said.code == 0, said.everything
    assert list(states(said)) == ["7", "on", "007", "2024-01-01", "null"]
    path.write_text("007: a\non: b\n")
    said = command("copy", "--from", f"file:{path}", "--kind", "var", *target(ssm, base), "-o", "json")
    assert list(states(said)) == ["007", "on"], said.everything


def test_names_inside_a_value_in_yaml_are_those_that_airflow_reads(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    from airflow.secrets.local_filesystem import load_connections_dict, load_variables

    path = tmp_path / "secrets.yaml"
    path.write_text("nested: {on: 1, 007: a, null: b, deep: [{off: c}]}\n")
    command("copy", "--from", f"file:{path}", "--kind", "var", "--apply", *target(ssm, base))
    (read,) = load_variables(str(path)).values()
    stored = ssm.backend_class(**connecting(ssm), **prefixes(ssm, base)).get_variable("nested")
    assert stored == json.dumps(read)
    path.write_text("nested:\n  conn_type: http\n  extra: {on: 1, 007: a}\n")
    command("copy", "--from", f"file:{path}", "--kind", "conn", "--apply", *target(ssm, base))
    (connection,) = load_connections_dict(str(path)).values()
    stored = ssm.backend_class(**connecting(ssm), **prefixes(ssm, base)).get_conn_value("nested")
    assert json.loads(stored)["extra"] == connection.extra_dejson


def test_a_metastore_is_told_by_its_place_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.engine import make_url

    from airflow_providers_secrets.lookup.sources import Metastore

    def identity(url: str) -> str:
        session = SimpleNamespace(get_bind=lambda: SimpleNamespace(url=make_url(url)))
        monkeypatch.setattr(Metastore, "_session", lambda _: contextlib.nullcontext((session, {})))
        return Metastore().identity()

    of_one = identity("postgresql+psycopg2://airflow:S3cr3t@db/airflow?sslmode=require&sslpassword=S3cr3t")
    assert of_one == identity("postgresql://airflow:renewed@db/airflow?sslpassword=renewed&sslmode=require")
    others = ["postgresql://airflow:S3cr3t@other/airflow", "postgresql://airflow:S3cr3t@db/other", "mysql://db/airflow"]
    assert len({of_one, *map(identity, others)}) == 4
    assert "S3cr3t" not in of_one


def test_a_setting_that_the_store_does_not_know_is_found_before_anything(
    command: Command, rig: Rig, base: str, tmp_path: Path
) -> None:
    path = tmp_path / "variables.json"
    path.write_text(json.dumps({"x": "S3cr3t"}))
    copy = ["copy", "--from", f"file:{path}", "--kind", "var", "--set", "nosuch=1", "-o", "json"]
    put = ["put", "var", "x", "--set", "nosuch=1", "--stdin", *using(rig, **prefixes(rig, base))]
    for arguments in ([*copy, *target(rig, base)], [*copy, *target(rig, base), "--apply"], [*put, "--dry-run"], put):
        said = command(*arguments, stdin="S3cr3t")
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said.everything
        assert "unknown setting 'nosuch'; known: " in said.err
    said = command(*copy, "--to", "metastore")
    assert (said.code, "--set is for backends, and metastore takes none" in said.err) == (2, True), said.everything


class Foreign:
    """Another package's backend, which cannot list."""

    def __init__(self, **_: Any) -> None:
        pass

    def get_conn_value(self, conn_id: str) -> str | None:
        self.log_as_official_classes_do()
        if conn_id == "broken":
            raise RuntimeError("S3cr3t")
        return {"one": "http://one"}.get(conn_id)

    def get_variable(self, key: str) -> str | None:
        return None

    def log_as_official_classes_do(self) -> None:
        """To standard output, by what Airflow 3 configures at some time."""
        with contextlib.suppress(ImportError):  # Airflow 2
            import structlog

            structlog.get_logger().warning("S3cr3t")
            structlog.configure(processors=[structlog.dev.ConsoleRenderer()])
            structlog.get_logger().warning("S3cr3t")


def test_the_dry_run_is_the_proof_before_a_switch(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come from our own listing and from the environment, or from a file; each is asked of both classes."""
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE_ELSE", "http://elsewhere")
    ssm.put(path_of(ssm, base, "connections", "one"), "http://one")
    ssm.put(path_of(ssm, base, "connections", "ours"), "http://ours")
    foreign = ["copy", "--from", f"{__name__}.Foreign", "--kind", "conn", *target(ssm, base), "-o", "json"]
    said = command(*foreign)
    assert states(said) == {"one": "same", "ours": "invalid", "nowhere_else": "same"}, said.everything
    assert "neither of the two holds it" in said.out
    assert "Foreign cannot list its ids: these are of the target, environment and metastore" in said.err
    for off in ({"connections_prefix": None}, {"connections_lookup_pattern": "one"}):
        narrowed = ["copy", "--from", f"{__name__}.Foreign", "--kind", "conn", *target(ssm, base, **off), "-o", "json"]
        said = command(*narrowed, "--match", "nowhere|ours")
        assert set(states(said).values()) == {"same"}, said.everything  # neither of the two looks it up
        assert "nowhere_else" in said.out
    named = tmp_path / "narrowed"
    named.write_text("conn:one\nconn:nowhere_else\n")
    said = command(*narrowed, "--names", str(named))
    assert states(said) == {"one": "same", "nowhere_else": "invalid"}, said.everything
    names = tmp_path / "names"
    names.write_text("conn:one\nbroken\nvar:x\nmistyped\n")
    said = command(*foreign, "--names", str(names))
    assert (said.code, states(said)) == (3, {"one": "same", "broken": "failed", "mistyped": "invalid"}), said.everything
    assert "cannot list" not in said.err
    assert "S3cr3t" not in said.everything


def test_without_the_targets_listing_there_is_no_proof(command: Command, ssm: Rig, base: str) -> None:
    """Nothing would be compared, and that is not to be taken for a success; a kind that is off has no listing."""
    ssm.put(path_of(ssm, base, "connections", "one"), "http://one")
    foreign = ["copy", "--from", f"{__name__}.Foreign", "-o", "json"]
    with ssm.fault("denied"):
        said = command(*foreign, *target(ssm, base))
    assert (said.code, said.out) == (3, ""), said.everything
    assert "--names FILE" in said.err
    assert "ssm:GetParametersByPath" in said.err
    said = command(*foreign, *target(ssm, base, variables_prefix=None))
    assert (said.code, states(said)) == (0, {"one": "same"}), said.everything
    vault = {"url": "http://127.0.0.1:1", "token": "S3cr3t", "mount_point": None}
    said = command(*foreign, "--to", "hashicorp_vault", "--to-kwargs", json.dumps(vault))
    assert (said.code, said.out) == (2, ""), said.everything
    assert "--names FILE" in said.err


@pytest.mark.parametrize("apply", [[], ["--apply"]], ids=["dry", "apply"])
def test_no_ids_of_a_class_that_cannot_list_are_no_success(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, apply: list[str]
) -> None:
    """The first copy from an official class to a new store: the target is empty, and the source is not."""
    monkeypatch.setenv("AIRFLOW_VAR_ANOTHER", "x")
    journal = ["--journal", f"{tmp_path}/journal"] if apply else []
    foreign = ["copy", "--from", f"{__name__}.Foreign", "--match", "one", *target(ssm, base), *apply, *journal]
    said = command(*foreign)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said.everything
    assert (
        "cannot list its ids, and none that --match takes was found in target, environment and metastore." in said.err
    )
    assert "--names FILE" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--from", "file:/no/such/file", "--to", "aws_ssm"], "/no/such/file cannot be read"),
        (["--from", "file:{tmp}/broken.json", "--to", "aws_ssm"], "not valid JSON"),
        (["--from", "env", "--to", "file:x"], "not written to files"),
        (["--from", "env", "--to", "aws_smm"], "did you mean 'aws_ssm'?"),
        (["--from", "metstore", "--to", "aws_ssm"], "unknown backend 'metstore'; did you mean 'metastore'?"),
        (
            ["--from", "zz", "--to", "aws_ssm"],
            "unknown backend 'zz'; known: metastore, env, file:PATH, configured, aws_",
        ),
        (["--from", "env", "--to", "zz"], "unknown backend 'zz'; known: metastore, configured, aws_"),
        (["--from", "env", "--to", "aws_ssm", "--to-kwargs", "{S3cr3t"], "--to-kwargs is not valid JSON"),
        (["--from", "aws_ssm", "--to", "aws_ssm", "--from-kwargs", "{S3cr3t"], "--from-kwargs is not valid JSON"),
        (["--from", "env", "--to", "configured", "--to-kwargs", "{S3cr3t"], "--to-kwargs is not valid JSON"),
        (["--from", "aws_ssm", "--to", "aws_ssm", "--from-kwargs", "@"], "is missing; write --from-kwargs @FILE."),
        (["--from", "file:", "--to", "aws_ssm"], "the path of a file is missing; write --from file:PATH."),
        (["--from", "env", "--to", "aws_ssm", "--names", ""], "the path of a file is missing; write --names FILE."),
        (
            ["--from", "aws_ssm", "--to", "aws_ssm", "--from-kwargs", "-", "--to-kwargs", "-"],
            "--from-kwargs - and --to-kwargs - both read standard input; --from-kwargs takes a file, too: @FILE.",
        ),
        (["--from", "env", "--to", "aws_ssm", "--overwrite"], "--apply"),
        (["--from", "env", "--to", "aws_ssm", "--from-kwargs", "{}"], "--from-kwargs is for backends"),
        (["--from", "metastore", "--to", "aws_ssm", "--from-kwargs", "{}"], "and metastore takes none"),
        (["--from", "file:x", "--to", "aws_ssm", "--from-kwargs", "{}"], "leave it out"),
        (["--from", "env", "--to", "metastore", "--to-kwargs", "{}"], "--to-kwargs is for backends"),
        (["--from", "env", "--to", "aws_ssm", "--resume"], "--resume is for a copy that writes; add --apply"),
        (["--from", "env", "--to", "aws_ssm", "--journal", "x"], "--journal is for a copy that writes; add --apply"),
        (["--from", "env", "--to", "metastore", "--as-uri"], "--as-uri is for backends, and metastore takes none"),
        (["--from", "env", "--to", "aws_ssm", "--names", "{tmp}/names"], "names, line 2: configuration values are not"),
        (["--from", "file:{tmp}/twice.json", "--to", "aws_ssm"], "twice.json holds 'x' twice; leave one of them"),
        (["--from", "file:{tmp}/twice.yaml", "--to", "aws_ssm"], "twice.yaml holds 'x' twice; leave one of them"),
        (["--from", "file:{tmp}/twice.env", "--to", "aws_ssm"], "twice.env holds 'x' twice; leave one of them"),
        (["--from", "no.such.Class", "--to", "aws_ssm"], "there is no module no. Check the class path"),
    ],
)
def test_wrong_use_ends_in_one_line(command: Command, tmp_path: Path, arguments: list[str], named: str) -> None:
    (tmp_path / "broken.json").write_text('{"S3cr3t": ')
    (tmp_path / "names").write_text("conn:x\nconfig:sql_alchemy_conn\n")
    (tmp_path / "twice.json").write_text(
        '{"variables": {"x": "S3cr3t", "y": {"S3cr3t": 1, "S3cr3t": 2}, "x": "S3cr3t"}}'
    )
    (tmp_path / "twice.yaml").write_text("variables:\n  x: S3cr3t\n  y: 1\n  x: S3cr3t\n")
    (tmp_path / "twice.env").write_text("x=S3cr3t\ny=1\nx=S3cr3t\n")
    said = command(
        "copy", *(argument.format(tmp=tmp_path) if "{tmp}" in argument else argument for argument in arguments)
    )
    assert (said.code, named in said.err) == (2, True), said.everything
    assert said.err.count("\n") == 1
    assert "S3cr3t" not in said.everything


def test_names_bring_back_what_azure_spells_its_own_way(
    command: Command, azure: Rig, ssm: Rig, base: str, tmp_path: Path
) -> None:
    """As docs/migrating.md has it for the way back."""
    azure.put(path_of(azure, base, "variables", "my_var"), "S3cr3t")
    (tmp_path / "export.json").write_text('{"My_Var": "S3cr3t", "absent": "S3cr3t"}')
    copied = command(
        "copy", "--from", f"file:{tmp_path}/export.json", "--kind", "var", *target(azure, base), "-o", "plain"
    )
    page = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"\| (awk .*) > names$", page, re.MULTILINE)
    names = subprocess.run(["sh", "-c", script], input=copied.out, capture_output=True, text=True, check=True).stdout
    assert names == "var:My_Var\n", copied.everything
    (tmp_path / "names").write_text(names)
    source = ["--from", azure.class_path, "--from-kwargs", json.dumps({**connecting(azure), **prefixes(azure, base)})]
    copy = ["copy", *source, *target(ssm, base), "--kind", "var", "-o", "json"]
    spelt = "spells them, where My_DB is my-db; AWS SSM Parameter Store tells the two apart"
    said = command(*copy)
    assert (states(said), spelt in said.err) == ({"my-var": "create"}, True), said.everything
    named = command(*copy, "--names", f"{tmp_path}/names")
    assert (states(named), "spells them" in named.err) == ({"My_Var": "create"}, False), named.everything
    same_spelling = command("copy", *source, *target(azure, f"{base}-2"), "--kind", "var", "-o", "json")
    assert (states(same_spelling), "spells them" in same_spelling.err) == ({"my-var": "create"}, False)


def test_what_the_page_deletes_is_what_the_store_holds_with_the_same_value(tmp_path: Path) -> None:
    """Its very lines, between two stand-ins: ids may have blanks, quotes, a first hyphen, and a state's name in them."""
    page = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(
        r"^airflow-secrets copy --from metastore -o plain \|.*?(?=```)", page, re.DOTALL | re.MULTILINE
    )
    rows = [
        ("conn", "my key", "same"),
        ("conn", "it's", "same"),
        ("conn", "same", "different"),
        ("var", "-x", "same"),
        ("var", "conn:y", "same"),
        ("var", "new", "create"),
        ("var", "odd", "invalid"),
        ("var", "away", "failed"),
    ]
    stand_ins = {
        "airflow-secrets": "cat <<'END'\n"
        + "".join(f"{kind}\t{key}\t{state}\t\n" for kind, key, state in rows)
        + "END\n",
        "airflow": f'for one; do printf "%s|" "$one"; done >> {tmp_path}/deleted; echo >> {tmp_path}/deleted\n',
    }
    for program, script in stand_ins.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / program).chmod(0o755)
    run = functools.partial(
        subprocess.run, ["sh", "-c", recipe], cwd=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True
    )
    run()
    assert (tmp_path / "deleted").read_text().splitlines() == [
        "connections|delete|--|my key|",
        "connections|delete|--|it's|",
        "variables|delete|--|-x|",
        "variables|delete|--|conn:y|",
    ]
    # Where nothing is the same, nothing is called.
    (tmp_path / "airflow-secrets").write_text("#!/bin/sh\n")
    (tmp_path / "deleted").unlink()
    run()
    assert not (tmp_path / "deleted").exists()


# A process of its own, to be killed.


def start(arguments: list[str], tmp_path: Path, *by: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_VAR")}
    return subprocess.Popen(
        [*by, sys.executable, "-m", "airflow_providers_secrets.cli", *arguments],
        env={**environment, "PYTHONPATH": PACKAGE_ROOT, "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SIGNALS = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def copying(rig: Rig, base: str, tmp_path: Path, count: int, *more: str, at: str | None = None) -> list[str]:
    """The arguments of a copy of *count* connections from a file."""
    path, kwargs = tmp_path / "connections.json", tmp_path / "kwargs.json"
    path.write_text(json.dumps({f"c{i}": {**CONNECTION, "port": i} for i in range(count)}))
    kwargs.write_text(json.dumps({**connecting(rig), **prefixes(rig, base)}))
    to = ["--to", rig.class_path, "--to-kwargs", at or f"@{kwargs}"]
    return ["copy", "--from", f"file:{path}", "--kind", "conn", *to, "--apply", *more]


def interrupted_after(arguments: list[str], tmp_path: Path, journal: Path, number: signal.Signals) -> tuple[int, str]:
    """Run a copy until its journal has 20 lines, and send it a signal; return its exit code, and what it said."""
    process = start(arguments, tmp_path)
    while not (journal.exists() and journal.read_text().count("\n") >= 20):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_copy_goes_on_after_a_kill(
    command: Command, ssm: Rig, base: str, tmp_path: Path, number: signal.Signals
) -> None:
    count, journal = 300, tmp_path / "a journal"
    arguments = copying(ssm, base, tmp_path, count, "--journal", str(journal))
    code, errors = interrupted_after(arguments, tmp_path, journal, number)
    assert code == (-9 if number is signal.SIGKILL else 130), errors
    at = using(ssm, **prefixes(ssm, base))
    before = command("list", "conn", "-o", "plain", *at).out.splitlines()
    assert 20 <= len(before) < count
    resuming = [*arguments, "--resume"]
    if number is not signal.SIGKILL:
        # One line that holds what is to be known: whatever had begun was written down, and is in the store.
        written, left = len(before), count - len(before)
        told, _, line = errors.removesuffix("\n").partition(" To go on: ")
        assert told == f"airflow-secrets copy: interrupted: {written} written, {left} left. Journal: {journal}."
        assert line.count("\n") == 0
        program, *typed = shlex.split(line)
        assert (program, typed) == ("airflow-secrets", resuming)
    said = command(*resuming, "-o", "json")
    assert said.code == 0, said.err
    found = states(said)
    assert set(found) == {f"c{i}" for i in range(count)}
    assert set(found.values()) == {"same", "created"}
    assert command(*[one for one in arguments[:-2] if one != "--apply"], "-o", "json").code == 0


def test_what_an_interrupted_copy_printed_is_whole(ssm: Rig, base: str, tmp_path: Path) -> None:
    """The output ends as JSON does; without --journal the command that goes on names where it was kept."""
    arguments = copying(ssm, base, tmp_path, 40, "-o", "json", "--parallel", "1", "--rate", "20")
    process = start(arguments, tmp_path)
    journals = tmp_path / "airflow-secrets"
    while not any(path.read_text().count("\n") >= 2 for path in journals.glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    rows = json.loads(output)
    assert (process.returncode, 2 <= len(rows) < 40) == (130, True), errors
    assert {row["state"] for row in rows} == {"created"}
    assert f"interrupted: {len(rows)} written, {40 - len(rows)} left." in errors
    (journal,) = journals.iterdir()
    assert errors.endswith(f" --journal {journal} --resume\n")
    assert errors.count("\n") == 1


def test_what_is_written_as_the_output_is_closed_is_in_the_journal(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``| head -1``, which ends the copy."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    journal = tmp_path / "journal"
    process = start(copying(ssm, base, tmp_path, 100, "-o", "plain", "--journal", str(journal)), tmp_path)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    listed = command("list", "conn", "-o", "json", *using(ssm, **prefixes(ssm, base))).json
    assert 0 < len(listed) < 100
    assert {json.loads(line)["id"] for line in journal.read_text().splitlines()} == {one["id"] for one in listed}


def test_a_copy_under_nohup_outlives_its_terminal(ssm: Rig, base: str, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    arguments = copying(ssm, base, tmp_path, 20, "--rate", "20", "--journal", str(journal))
    process = start(arguments, tmp_path, "nohup")
    while not (journal.exists() and journal.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert journal.read_text().count('"created"') == 20


@pytest.mark.parametrize("joined", [True, False])
def test_the_command_that_goes_on_shows_no_credential(ssm: Rig, base: str, tmp_path: Path, *, joined: bool) -> None:
    kwargs = json.dumps({**connecting(ssm), **prefixes(ssm, base), "aws_secret_access_key": "S3cr3t"})
    arguments = copying(ssm, base, tmp_path, 40, "--rate", "10", "--journal", str(tmp_path / "j"), at=kwargs)
    if joined:
        at = arguments.index("--to-kwargs")
        arguments[at : at + 2] = [f"--to-kwargs={kwargs}"]
    process = start(arguments, tmp_path)
    while not ((tmp_path / "j").exists() and (tmp_path / "j").read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (130, 1), errors
    assert "To go on (with your options for ***): airflow-secrets copy " in errors
    assert (" '--to-kwargs=***' " if joined else " --to-kwargs '***' ") in errors
    assert "S3cr3t" not in errors


@pytest.mark.parametrize(
    ("kwargs", "masked"),
    [
        ('{"region_name": "eu-west-1", "max_attempts": 3, "variables_prefix": ["a", "b"], "cache_ttl": null}', False),
        ('{"token": "S3cr3t"}', True),
        ('{"url": "https://u:S3cr3t@h"}', True),
        ('{"shared_cache": ["file", "redis://:S3cr3t@h"]}', True),
        ('{"backends": [{"backend": "env"}]}', True),
        ('{"config_kwargs": {}}', True),
        ('["S3cr3t"]', True),
        ('{"S3cr3t', True),
    ],
)
def test_options_are_shown_again_only_if_none_may_be_a_credential(kwargs: str, masked: bool) -> None:
    assert may_be_credentials(kwargs) is masked


def test_a_second_interrupt_waits_for_nothing(ssm: Rig, base: str, tmp_path: Path) -> None:
    options = {**ssm.options(), **prefixes(ssm, base)}  # through the proxy, which hangs
    kwargs = tmp_path / "through.json"
    kwargs.write_text(json.dumps(options))
    arguments = copying(ssm, base, tmp_path, 5, "--journal", str(tmp_path / "j"), at=f"@{kwargs}")
    with ssm.fault("hang"), ssm.counted():
        before = len(ssm.calls)
        process = start(arguments, tmp_path)
        while len(ssm.calls) == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors.count("\n")) == (130, 1), errors
    assert "interrupted: 0 written, 5 left." in errors
    assert errors.endswith("(what was under way was not waited for)\n")


def test_an_interrupt_before_the_copy_begins_says_so(ssm: Rig, base: str, tmp_path: Path) -> None:
    source = ["--from", ssm.class_path, "--from-kwargs", json.dumps({**ssm.options(), **prefixes(ssm, base)})]
    with ssm.fault("hang", listings=True), ssm.counted():
        before = len(ssm.calls)
        process = start(["copy", *source, *target(ssm, f"{base}-other"), "--apply"], tmp_path)
        while len(ssm.calls) == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "airflow-secrets copy: interrupted before anything was written.\n")


@pytest.mark.measured
def test_a_thousand_connections_take_a_minute_at_most(
    command: Command, ssm: Rig, secrets_manager: Rig, base: str, tmp_path: Path
) -> None:
    for i in range(1000):
        ssm.put(path_of(ssm, base, "connections", f"c{i}"), json.dumps({**CONNECTION, "port": i}))
    source = ["--from", ssm.class_path, "--from-kwargs", json.dumps({**ssm.options(), **prefixes(ssm, base)})]
    started = time.monotonic()
    said = command(
        "copy", *source, *target(secrets_manager, base), "--apply", "-o", "plain", "--journal", str(tmp_path / "j")
    )
    took = time.monotonic() - started
    assert said.code == 0, said.err
    assert "1000 created" in said.err
    print(f"{took:.1f} s")
    assert took < 60
