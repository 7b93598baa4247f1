"""Chains of two members, over pairs of stores. A chain of one is a rig of its own, in tests/conftest.py."""

from __future__ import annotations

import configparser
import itertools
import json
import re
import subprocess
import sys
import timeit
import traceback
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.backends.chain import ENTRY_OPTIONS, SHORT_NAMES, ChainBackend
from airflow_providers_secrets.backends.mixin import airflow_knows_denials
from airflow_providers_secrets.errors import AccessDenied, LookupFailed, StoreUnavailable
from airflow_providers_secrets.testing.lookups import LOOKUP, ask, warned
from airflow_providers_secrets.testing.signals import TimeIsUp, raised_where_a_wait_has_let_its_lock_go
from airflow_providers_secrets.testing.speed import slowness
from tests.conftest import QUICKEST, RIGS, STORES
from tests.rigs import FAULTS, PAGE, Rig, running
from tests.rigs.chain import short_name

VALUE = {"connections": "postgres://u:p@h:5432/{}", "variables": "of {}", "config": "sqlite:///{}"}
ONCE: dict[str, Any] = {"max_attempts": 1, "timeout": 30}
"""One attempt, for which a busy machine has time."""


def once(fault: str) -> dict[str, Any]:
    """One attempt that ends long before the SDK's own time-out where the server never answers."""
    return {**ONCE, "timeout": 1.0, "read_timeout": 20} if fault in ("hang", "drip") else ONCE


PAIRS = [pair for pair in itertools.permutations(STORES, 2) if len({name.split("-")[0] for name in pair}) == 2]
"""Each store, as the first member, with every other one."""

NEIGHBOURS = list({first: (first, second) for first, second in PAIRS}.values())
"""Each store, as the first member, with one other."""

NEXT_TO_THE_QUICKEST = [pair for pair in NEIGHBOURS if pair[0] == QUICKEST["rig"]]


def names(pair: tuple[str, str]) -> str:
    return f"{pair[0]}-then-{pair[1]}"


def known(pairs: list[tuple[str, str]], always: list[tuple[str, str]]) -> list[Any]:
    """The parameters of a fixture, of which all but *always* are of the long tests."""
    return [pytest.param(pair, id=names(pair), marks=() if pair in always else pytest.mark.long) for pair in pairs]


@pytest.fixture(params=known(PAIRS, NEIGHBOURS))
def pair(request: pytest.FixtureRequest) -> tuple[Rig, Rig]:
    return running(RIGS[request.param[0]]), running(RIGS[request.param[1]])


@pytest.fixture(params=known(NEIGHBOURS, NEXT_TO_THE_QUICKEST))
def neighbours(request: pytest.FixtureRequest) -> tuple[Rig, Rig]:
    return running(RIGS[request.param[0]]), running(RIGS[request.param[1]])


def member(rig: Rig, entry: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """An entry of a chain, with time for whatever a busy machine imports at the first lookup."""
    kwargs = {**rig.options(), "cache_ttl": 0, "timeout": 30, "read_timeout": 20, **options}
    return {"backend": short_name(rig), "kwargs": kwargs, **(entry or {})}


def chain(*members: dict[str, Any]) -> ChainBackend:
    return ChainBackend(backends=list(members))


def put(rig: Rig, kind: str, secret_id: str, which: str) -> str:
    value = VALUE[kind].format(which)
    rig.put(rig.path(kind, secret_id), value)
    return value


def only_in(rig: Rig, secret_id: str) -> str:
    """An id of which no test puts a value into another store; the servers live on from test to test."""
    return f"{secret_id}-{rig.name}"


# The order.


@pytest.mark.parametrize("kind", LOOKUP)
def test_first_value_counts_and_nobody_else_is_asked(pair: tuple[Rig, Rig], kind: str) -> None:
    first, second = pair
    value = put(first, kind, "chained", "first")
    put(second, kind, "chained", "second")
    with first.counted() as asked_first, second.counted() as asked_second:
        assert ask(chain(member(first), member(second)), kind, "chained") == value
    assert asked_first == [first.path(kind, "chained")]
    assert asked_second == []


@pytest.mark.parametrize("kind", LOOKUP)
def test_absence_is_one_request_and_leaves_it_to_the_next(
    pair: tuple[Rig, Rig], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    secret_id = only_in(second, "chained")
    value = put(second, kind, secret_id, "second")
    backend = chain(member(first), member(second))
    caplog.clear()
    with first.counted() as asked_first, second.counted() as asked_second:
        assert ask(backend, kind, secret_id) == value
    assert asked_first == [first.path(kind, secret_id)]
    assert asked_second == [second.path(kind, secret_id)]
    assert warned(caplog) == []  # not of the first one's absence either


def test_absent_in_all_is_none_and_warned_about_once_for_config(
    pair: tuple[Rig, Rig], caplog: pytest.LogCaptureFixture
) -> None:
    backend = chain(*map(member, pair))
    assert backend.get_variable("absent") is None
    assert backend.get_conn_value("absent") is None
    assert warned(caplog) == []
    assert backend.get_config("absent") is None
    (warning,) = warned(caplog)
    assert (
        warning
        == "No member of the chain has a configuration value 'absent': Airflow falls back to the option's default."
    )


def test_patterns_route_each_kind_by_itself(pair: tuple[Rig, Rig]) -> None:
    first, second = pair
    backend = chain(
        member(first, {"connections": "^prod_", "variables": None}),
        member(second, {"connections": "(?!prod_)", "config": None}),
    )
    in_first = put(first, "connections", "prod_db", "first")
    put(second, "connections", "prod_db", "second")
    put(first, "connections", "test_db", "first")
    in_second = put(second, "connections", "test_db", "second")
    put(first, "variables", "routed", "first")
    variable = put(second, "variables", "routed", "second")
    put(second, "config", "routed", "second")
    config = put(first, "config", "routed", "first")
    with first.counted() as asked_first, second.counted() as asked_second:
        assert backend.get_conn_value("prod_db") == in_first
        assert backend.get_conn_value("test_db") == in_second
        assert backend.get_variable("routed") == variable
        assert backend.get_config("routed") == config
    assert asked_first == [first.path("connections", "prod_db"), first.path("config", "routed")]
    assert asked_second == [second.path("connections", "test_db"), second.path("variables", "routed")]


def test_plan_says_who_is_asked_for_what_and_why_others_are_not(pair: tuple[Rig, Rig]) -> None:
    first, second = pair
    backend = chain(member(first, {"connections": "^prod_", "variables": None}), member(second))

    def plans(kind: Any, secret_id: str) -> list[tuple[int, tuple[str, ...], str | None]]:
        return [(one.position, plan.names, plan.reason) for one, plan in backend.plan(kind, secret_id)]

    with first.counted() as asked_first, second.counted() as asked_second:
        assert plans("connections", "prod_db") == [
            (1, (first.path("connections", "prod_db"),), None),
            (2, (second.path("connections", "prod_db"),), None),
        ]
        assert plans("connections", "test_db") == [
            (1, (), "the id does not match its pattern 'connections'"),
            (2, (second.path("connections", "test_db"),), None),
        ]
        assert plans("variables", "x")[0] == (1, (), "its 'variables' is null, so it is never asked for variables")
        assert plans("config", "..")[0][2] == "it has an empty, '.' or '..' segment"
    assert asked_first == asked_second == []


# Failures.


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_the_first_never_yields_the_second_ones_value(neighbours: tuple[Rig, Rig], fault: str) -> None:
    first, second = neighbours
    put(first, "variables", "decoy", "first")
    put(second, "variables", "decoy", "second")
    backend = chain(member(first, **once(fault)), member(second, timeout=30))
    with first.fault(fault), second.counted() as asked_second, pytest.raises(LookupFailed) as raised:
        backend.get_variable("decoy")
    assert asked_second == []
    assert f" could not give {first.path('variables', 'decoy')!r}: " in str(raised.value)
    frames = traceback.StackSummary.extract(traceback.walk_tb(raised.tb.tb_next), capture_locals=True)
    assert "S3cr3t" not in repr([frame.locals for frame in frames])
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("kind", LOOKUP)
def test_denial_of_the_first_is_its_own_error(pair: tuple[Rig, Rig], kind: str) -> None:
    first, second = pair
    put(second, kind, "decoy", "second")
    backend = chain(member(first, **ONCE), member(second))
    with first.fault("denied"), second.counted() as asked_second, pytest.raises(AccessDenied):
        ask(backend, kind, "decoy")
    assert asked_second == []


@pytest.mark.parametrize("fault", FAULTS)
def test_optional_member_that_fails_is_warned_about_and_passed_over(
    neighbours: tuple[Rig, Rig], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = neighbours
    value = put(second, "variables", "passed-over", "second")
    backend = chain(member(first, {"optional": True}, **once(fault)), member(second, timeout=30))
    caplog.clear()
    with first.fault(fault):
        assert backend.get_variable("passed-over") == value
        assert backend.get_variable("passed-over") == value
    about_the_chain = [warning for warning in warned(caplog) if warning.startswith("Chain ")]
    assert len(about_the_chain) == 1
    assert about_the_chain[0].startswith(f"Chain member 1 ({short_name(first)}) failed, and is passed over: ")
    assert "S3cr3t" not in caplog.text


def test_both_failures_are_told_within_one_minute(pair: tuple[Rig, Rig], caplog: pytest.LogCaptureFixture) -> None:
    first, second = pair
    backend = chain(member(first, {"optional": True}, **ONCE), member(second, **ONCE))
    with first.fault("denied"), second.fault("denied"), pytest.raises(AccessDenied):
        backend.get_variable("x")
    for rig in pair:
        assert [
            text
            for text in warned(caplog)
            if text.startswith("Variables lookup") and repr(rig.path("variables", "x")) in text
        ]


def test_fail_is_final_also_from_an_optional_member(pair: tuple[Rig, Rig]) -> None:
    if not airflow_knows_denials():
        pytest.skip("no Airflow before 3.2.2 has a final denial")
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

    first, second = pair
    put(second, "variables", "decoy", "second")
    backend = chain(member(first, {"optional": True}, on_denied="fail", **ONCE), member(second))
    with first.fault("denied"), second.counted() as asked_second:
        with pytest.raises(AirflowSecretsBackendAccessDenied):
            backend.get_variable("decoy")
    assert asked_second == []
    with first.fault("server-error"):  # which on_denied says nothing about
        assert backend.get_variable("decoy") == "of second"


# What each member has by itself.


def test_members_cache_by_themselves_and_share_with_every_other_backend(pair: tuple[Rig, Rig]) -> None:
    first, second = pair
    kept = only_in(second, "kept")
    value = put(second, "variables", kept, "second")
    entries = [member(rig, cache_ttl=60, cache_negative_ttl=60) for rig in pair]
    assert chain(*entries).get_variable(kept) == value
    with first.counted() as asked_first, second.counted() as asked_second:
        assert chain(*entries).get_variable(kept) == value
        alone = [rig.backend_class(**entry["kwargs"]) for rig, entry in zip(pair, entries, strict=True)]
        assert [backend.get_variable(kept) for backend in alone] == [None, value]
    assert asked_first == asked_second == []


def test_preload_is_a_members_own(neighbours: tuple[Rig, Rig]) -> None:
    first, second = neighbours
    listed = only_in(second, "listed")
    value = put(second, "variables", listed, "second")
    backend = chain(
        member(first, cache_ttl=60, cache_negative_ttl=60, preload=["variables"]), member(second, cache_ttl=60)
    )
    with first.counted() as asked_first, second.counted() as asked_second:
        assert backend.get_variable(listed) == value
        assert backend.get_variable(listed) == value
    assert set(asked_first) == {PAGE}
    assert asked_second == [second.path("variables", listed)]


def test_two_members_of_one_store_are_told_apart(rig: Rig) -> None:
    if rig.name.startswith("chain-of"):
        pytest.skip("a chain cannot be a member")
    option = rig.prefix_option.format(kind="variables")
    base = rig.path("variables", "x")
    other = {option: "other-prefix"} if "/" not in base else {option: base.rpartition("/")[0] + "-other"}
    backend = chain(member(rig), member(rig, **other))
    ((_, here), (_, there)) = backend.plan("variables", "two-accounts")
    assert here.names != there.names
    rig.put(there.names[0], "in the other")
    with rig.counted() as calls:
        assert backend.get_variable("two-accounts") == "in the other"
    assert calls == [*here.names, *there.names]


def test_forks_inherit_every_members_modules(neighbours: tuple[Rig, Rig]) -> None:
    code = (
        "import os, sys\n"
        "from airflow_providers_secrets.backends.chain import ENTRY_OPTIONS, SHORT_NAMES, ChainBackend\n"
        f"chain = ChainBackend(backends={[member(rig) for rig in neighbours]!r})\n"
        f"sdks = {[rig.sdk for rig in neighbours]!r}\n"
        "print('before', [sdk in sys.modules for sdk in sdks], flush=True)\n"
        "if not os.fork():\n"
        "    print('child', [sdk in sys.modules for sdk in sdks], flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.splitlines()[-1] == "child [True, True]", run.stdout + run.stderr


@pytest.mark.measured
def test_a_member_costs_two_microseconds_of_a_hit_at_most(rig: Rig) -> None:
    """On a machine that looks into a dict in 0.06 µs; while it is slower than that, as much more."""
    if rig.name.startswith("chain-of"):
        pytest.skip("a chain cannot be a member")
    rig.put(rig.path("variables", "hit"), "x")
    alone = rig.backend(cache_ttl=600)
    entries = [member(rig, {"variables": "^other_"}, cache_ttl=600) for _ in range(4)]
    of_one, of_five = (
        chain(member(rig, cache_ttl=600)),
        chain(*entries, member(rig, {"variables": "^h"}, cache_ttl=600)),
    )

    def cost(backend: Any) -> float:
        assert backend.get_variable("hit") == "x"
        return min(timeit.repeat(lambda: backend.get_variable("hit"), number=500, repeat=40)) / 500

    for _ in range(20):  # the machine's noise only adds
        bound, base = 2e-6 * slowness(), cost(alone)
        added = [(cost(backend) - base) / len(backend.members) for backend in (of_one, of_five)]
        if max(added) <= bound:
            break
    print("added per member, µs:", [round(one * 1e6, 2) for one in added])
    assert max(added) <= bound


def test_unavailable_is_told_apart_from_denied(neighbours: tuple[Rig, Rig]) -> None:
    first, second = neighbours
    with first.fault("server-error"), pytest.raises(StoreUnavailable):
        chain(member(first, **ONCE), member(second)).get_variable("x")


# The examples of the documentation, each on the stores that it names.

PAGE_OF_CHAINS = (Path(__file__).parents[2] / "docs" / "chain.md").read_text(encoding="utf-8")
RIG_OF = {"aws_ssm": "ssm-moto", "aws_secrets_manager": "secrets-manager-moto", "hashicorp_vault": "vault-openbao"}


def example(heading: str) -> list[dict[str, Any]]:
    """The members of the example under *heading*, on the rigs' servers: what says which ids and names stays."""
    section = PAGE_OF_CHAINS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```(?:ini|cfg)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(block)
    assert parser["secrets"]["backend"].endswith(".ChainBackend")
    entries: list[dict[str, Any]] = json.loads(parser["secrets"]["backend_kwargs"])["backends"]
    for entry in entries:
        if rig := RIG_OF.get(entry["backend"]):
            names = {name: value for name, value in entry["kwargs"].items() if name.endswith(("_prefix", "_path"))}
            entry["kwargs"] = {**running(RIGS[rig]).options(), "cache_ttl": 0, **names}
    return entries


def test_example_of_a_local_override(ssm: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for secret_id in ("by_env", "by_file", "by_store"):
        ssm.put(ssm.path("connections", secret_id), "http://store")
    entries = example("A local override over a cloud store")
    local = tmp_path / Path(entries[1]["kwargs"]["connections_file_path"]).name
    entries[1]["kwargs"]["connections_file_path"] = str(local)
    assert chain(*entries).get_conn_value("by_file") == "http://store"  # there is no file yet
    local.write_text("by_file: http://file\nby_env: http://file\n")
    monkeypatch.setenv("AIRFLOW_CONN_BY_ENV", "http://env")
    backend = chain(*entries)
    with ssm.counted() as calls:
        assert backend.get_connection("by_env").host == "env"
        assert backend.get_connection("by_file").host == "file"
        assert backend.get_connection("by_store").host == "store"
    assert calls == [ssm.path("connections", "by_store")]


def test_example_of_routing(ssm: Rig, vault: Rig) -> None:
    for rig, which in ((ssm, "ssm"), (vault, "vault")):
        for secret_id in ("prod_x", "test_x"):
            put(rig, "variables", secret_id, which)
    backend = chain(*example("Vault for `prod_*`, Parameter Store for the rest"))
    with ssm.counted() as asked_ssm, vault.counted() as asked_vault:
        assert backend.get_variable("prod_x") == "of vault"
        assert backend.get_variable("prod_absent") is None
        assert backend.get_variable("test_x") == "of ssm"
    assert asked_ssm == [ssm.path("variables", "test_x")]
    assert asked_vault == [vault.path("variables", "prod_x"), vault.path("variables", "prod_absent")]


def test_example_of_a_move(ssm: Rig, secrets_manager: Rig) -> None:
    put(ssm, "variables", "to-move", "old")
    backend = chain(*example("Moving from one store to another"))
    assert backend.get_variable("to-move") == "of old"
    put(secrets_manager, "variables", "to-move", "new")
    assert backend.get_variable("to-move") == "of new"
    with secrets_manager.fault("denied"), ssm.counted() as asked_old, pytest.raises(AccessDenied):
        backend.get_variable("to-move")
    assert asked_old == []


def test_example_of_two_accounts(ssm: Rig) -> None:
    ssm.put(ssm.path("variables", "in-both"), "own")
    ssm.put("/shared/variables/in-both", "shared")
    ssm.put("/shared/variables/in-shared", "shared")
    backend = chain(*example("Two accounts"))
    assert (backend.get_variable("in-both"), backend.get_variable("in-shared")) == ("own", "shared")


def test_example_of_another_package(ssm: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n# acme_secrets.py\n(.*?)^```$", PAGE_OF_CHAINS, re.MULTILINE | re.DOTALL)
    (tmp_path / "acme_secrets.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_secrets", raising=False)
    put(ssm, "variables", "of-the-store", "ssm")
    ssm.put(ssm.path("connections", "of-the-store"), "http://ssm")
    backend = chain(*example("A backend of another package"))
    assert (backend.get_variable("acme"), backend.get_variable("of-the-store")) == ("from north", "of ssm")
    assert backend.get_conn_value("of-the-store") == "http://ssm"


def test_exception_from_a_signal_in_a_member_of_another_package(
    ssm: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waiting_secrets.py").write_text(
        "import threading\nclass WaitingBackend:\n    def get_variable(self, key):\n        threading.Event().wait(0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "waiting_secrets", raising=False)
    put(ssm, "variables", "x", "ssm")
    backend = chain({"backend": "waiting_secrets.WaitingBackend", "optional": True}, member(ssm))
    with pytest.raises(TimeIsUp), raised_where_a_wait_has_let_its_lock_go(as_a_thread_starts=False):
        backend.get_variable("x")
    assert backend.get_variable("x") == "of ssm"


def test_page_names_every_key_and_short_name() -> None:
    for name in (*(option.name for option in ENTRY_OPTIONS), *SHORT_NAMES):
        assert f"`{name}`" in PAGE_OF_CHAINS
