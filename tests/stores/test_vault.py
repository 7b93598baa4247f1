"""What is HashiCorp Vault's own: paths, KV versions, values, outcomes, redirects and the life of a login."""

from __future__ import annotations

import contextlib
import itertools
import json
import posixpath
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import trustme

from airflow_providers_secrets.backends import hashicorp_vault
from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    SecretRevoked,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import access, answers, cache, resolve
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.stores.base import COMMON_OUTCOMES, Outcome
from airflow_providers_secrets.stores.vault import replies
from airflow_providers_secrets.testing.lookups import DRIP, ONE_TRY, TTL, Clock, failing, hanging
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs.openbao import ROOT_TOKEN
from tests.rigs.vault import VaultRig, asking, by_token, is_login, opened, vault_answer, vault_error


def requested(rig: VaultRig) -> list[str]:
    return [f"{request.method} {request.path}" for request in rig.proxy.requests]


@pytest.fixture(autouse=True)
def no_requests_yet(vault: VaultRig) -> None:
    vault.proxy.requests.clear()


# Paths.


def test_an_outage_leaves_the_value_of_a_later_path(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cache, "clock", clock)
    vault.write("secret/old/moved", {"value": "of old"})
    backend = vault.caching(variables_path=["new", "old"], **ONE_TRY)
    assert backend.get_variable("moved") == "of old"
    with vault.fault("server-error"):
        clock.now += TTL
        assert backend.get_variable("moved") == "of old"
    vault.write("secret/new/moved", {"value": "of new"})
    clock.now += TTL
    assert backend.get_variable("moved") == "of new"


def test_a_store_that_throttles_one_path_is_not_asked_for_a_later_ones_value(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is everybody's must not stand in for a secret of one's own that has been written since."""
    clock = Clock()
    monkeypatch.setattr(cache, "clock", clock)
    vault.write("secret/shared/db", {"value": "everybody's"})
    backend = vault.caching(variables_path=["own", "shared"], **ONE_TRY)
    assert backend.get_variable("db") == "everybody's"
    vault.write("secret/own/db", {"value": "one's own"})
    clock.now += TTL
    with vault.proxy.fault(lambda request: Reply(429) if "/own/" in request.path else None):
        failing(lambda: backend.get_variable("db"), 2)
    clock.now += TTL
    assert backend.get_variable("db") == "one's own"


@pytest.mark.parametrize("paths", [["one", "two"], '["one", "two"]', ("one", "two")], ids=repr)
def test_several_paths_are_tried_in_order(vault: VaultRig, paths: Any) -> None:
    vault.write("secret/two/ordered", {"value": "of two"})
    backend = by_token(vault, variables_path=list(paths) if isinstance(paths, tuple) else paths)
    assert backend.get_variable("ordered") == "of two"
    assert requested(vault) == ["GET /v1/secret/data/one/ordered", "GET /v1/secret/data/two/ordered"]
    vault.write("secret/one/ordered", {"value": "of one"})
    assert backend.get_variable("ordered") == "of one"
    vault.remove("secret/one/ordered")


def test_path_named_twice_is_asked_once(vault: VaultRig) -> None:
    assert by_token(vault, variables_path=["one", "one/"]).get_variable("absent") is None
    assert len(vault.proxy.requests) == 1


def test_empty_list_of_paths_asks_nothing(vault: VaultRig) -> None:
    backend = by_token(vault, variables_path=[])
    assert backend.get_variable("absent") is None
    assert requested(vault) == []
    assert backend.plan("variables", "absent").reason == "lookups of variables are off: variables_path is empty"


@pytest.mark.parametrize(
    ("mount_point", "path", "asked"),
    [
        ("secret", "a/b", "secret/data/a/b/x"),
        ("/secret/", "/a//b/", "secret/data/a/b/x"),
        ("secret", "", "secret/data/x"),
        ("team/kv", "a", "team/kv/data/a/x"),
    ],
)
def test_path_of_a_request(vault: VaultRig, mount_point: str, path: str, asked: str) -> None:
    backend = by_token(vault, mount_point=mount_point, variables_path=path)
    with contextlib.suppress(StoreMisconfigured):
        backend.get_variable("x")
    assert requested(vault) == [f"GET /v1/{asked}"]


def test_without_mount_point_the_id_says_it(vault: VaultRig) -> None:
    vault.write("secret/variables/mounted", {"value": "x"})
    backend = by_token(vault, mount_point=None)
    assert backend.get_variable("secret/mounted") == "x"
    assert backend.get_variable("mounted") is None
    assert requested(vault) == ["GET /v1/secret/data/variables/mounted"]
    assert by_token(vault, mount_point="null", variables_path="").get_variable("secret/variables/mounted") == "x"


@pytest.mark.parametrize("mount", ["sys", "auth", "identity", "cubbyhole"])
def test_without_mount_point_vaults_own_mounts_are_out_of_reach(vault: VaultRig, mount: str) -> None:
    backend = by_token(vault, mount_point=None, variables_path="", kv_engine_version=1)
    assert backend.get_variable(f"{mount}/token/lookup-self") is None
    assert requested(vault) == []
    plan = backend.plan("variables", f"{mount}/token/lookup-self")
    assert (plan.reason, plan.refused) == (f"Vault keeps the mount '{mount}' for itself", True)


def test_without_mount_point_an_id_without_a_mount_is_passed_over_quietly(
    vault: VaultRig, caplog: pytest.LogCaptureFixture
) -> None:
    """An Airflow that asks every source asks for such ids as well, and the official class says nothing of them."""
    caplog.set_level("DEBUG", "airflow_providers_secrets")
    backend = by_token(vault, mount_point=None)
    assert backend.get_variable("unmounted") is None
    assert requested(vault) == []
    reason = "with 'mount_point' null an id starts with its mount: MOUNT/ID"
    said = f"HashiCorp Vault: 'unmounted' (variables) is not looked up: {reason}."
    assert [(record.levelname, record.message) for record in caplog.records] == [("DEBUG", said)]
    plan = backend.plan("variables", "unmounted")
    assert (plan.names, plan.reason, plan.refused) == ((), reason, False)


def test_global_secrets_path_is_one_more_path_for_each_kind(vault: VaultRig) -> None:
    with pytest.warns(DeprecationWarning, match="global_secrets_path"):
        backend = by_token(vault, variables_path=None, connections_path=["one", "two"], global_secrets_path="common/")
    vault.write("secret/common/everywhere", {"value": "v", "conn_uri": "http://c"})
    assert backend.get_variable("everywhere") == "v"
    assert backend.get_config("everywhere") == "v"
    assert backend.get_conn_value("everywhere") == "http://c"
    asked = ["common", "config", "common", "one", "two", "common"]
    assert requested(vault) == [f"GET /v1/secret/data/{path}/everywhere" for path in asked]


ODD = [
    "a b",
    "é✓日本",
    "50%",
    "what?",
    "a#b",
    "a;b=c",
    "a+b&c",
    "~a",
    "a:b@c",
    "a/b/c",
    "...",
    "a..b",
    '"',
    "%2",
    "a--b",
]


@pytest.mark.parametrize("secret_id", ODD)
@pytest.mark.parametrize("version", [1, 2])
def test_odd_id_reads_the_secret_of_that_name(vault: VaultRig, version: int, secret_id: str) -> None:
    """Written by the API with an encoding made here, found by ours."""
    mount = f"odd{version}"
    vault.server.engine(mount, version)
    path = "".join(
        c if (c.isalnum() and c.isascii()) or c == "/" else "".join(f"%{b:02X}" for b in c.encode()) for c in secret_id
    )
    if version == 1:
        vault.server.api("POST", f"{mount}/variables/{path}", {"value": secret_id})
    else:
        vault.server.api("POST", f"{mount}/data/variables/{path}", {"data": {"value": secret_id}})
    assert by_token(vault, mount_point=mount, kv_engine_version=version).get_variable(secret_id) == secret_id
    assert len(vault.proxy.requests) == 1


def hostile_ids(count: int) -> Iterator[str]:
    """Ids built of what clients, proxies and servers take for more than text; the same ones in every run."""
    parts = [
        "..", ".", "/", "//", "\\", "%2e", "%2E%2e", "%2f", "%252e", "%25", "%5c", "%00", "%c0%ae", "?", "#", ";", "&", "=",
        "@", ":", "http://", "//evil", "a", "b", "connections", "prod_db", "sys", "health", "data", "metadata", "~", "\0",
        "\n", "\r\n", "\t", " ", "\u2025", "\uff0e\uff0e", "\u2215", "\u202e", "*", "+", "'", '"', "|", "version=1", "é",
    ]  # fmt: skip
    chosen = random.Random(20261123)
    for _ in range(count):
        yield "".join(chosen.choices(parts, k=chosen.randint(1, 6)))


def outside(path: str, prefix: str) -> bool:
    """Tell whether *path* leaves *prefix*, decoded any number of times, with either slash."""
    for _ in range(4):
        clean = path.replace("\\", "/")
        if not (posixpath.normpath(clean) + "/").startswith(prefix) or "//" in clean or ".." in clean.split("/"):
            return True
        path = unquote(path)
    return False


@pytest.mark.parametrize(("version", "prefix"), [(2, "/v1/secret/data/a/b/"), (1, "/v1/kv1/a/b/")])
def test_2000_hostile_ids_never_leave_the_prefix(vault: VaultRig, version: int, prefix: str) -> None:
    vault.server.engine("kv1", 1)
    backend = by_token(
        vault,
        mount_point="secret" if version == 2 else "kv1",
        kv_engine_version=version,
        variables_path="a/b",
        timeout=60,
        max_attempts=1,
    )
    # The server's own opinion of such a path is not the question.
    with vault.proxy.fault(vault_error(404)):
        for secret_id in hostile_ids(2000):
            assert backend.get_variable(secret_id) is None
    paths = [request.path for request in vault.proxy.requests]
    assert len(paths) > 200
    assert [path for path in paths if outside(path, prefix) or "?" in path or "#" in path] == []


@pytest.mark.parametrize(
    "path", ["..", "a/../b", "a/./b", "a\nb", "a/%2e%2e/b", "a%2Fb", ["a", "../b"], '["a", ', [1], [["a"]]], ids=repr
)
@pytest.mark.parametrize("option", ["connections_path", "variables_path", "config_path"])
def test_unusable_path_is_refused(vault: VaultRig, option: str, path: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        by_token(vault, **{option: path})


# Teams.


@pytest.mark.usefixtures("multi_team")
def test_team_has_its_own_path_and_no_other(vault: VaultRig) -> None:
    vault.write("secret/variables/red/mine", {"value": "red's"})
    vault.write("secret/variables/everybodys", {"value": "x"})
    backend = by_token(vault)
    assert backend.get_variable("mine", team_name="red") == "red's"
    assert backend.get_variable("everybodys", team_name="red") is None
    assert backend.get_variable("everybodys") == "x"
    asked = ["red/mine", "red/everybodys", "everybodys"]
    assert requested(vault) == [f"GET /v1/secret/data/variables/{path}" for path in asked]


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize(
    "secret_id",
    [
        "../blue/x",
        "..",
        "%2e%2e/blue/x",
        "..%2fblue%2fx",
        "a/../../blue/x",
        "blue/x",
        "/blue/x",
        ".\\..\\blue",
        "x/../../blue/x",
    ],
)
@pytest.mark.parametrize("team", ["red", None])
def test_no_id_of_a_team_reaches_another_ones(vault: VaultRig, team: str | None, secret_id: str) -> None:
    vault.write("secret/variables/blue/x", {"value": "S3cr3t of blue"})
    assert by_token(vault).get_variable(secret_id, team_name=team) is None
    assert [path for path in requested(vault) if outside(path.split()[1], "/v1/secret/data/variables/red/")] == []


@pytest.mark.usefixtures("multi_team")
def test_team_secrets_can_be_turned_off(vault: VaultRig) -> None:
    vault.write("secret/variables/a/b", {"value": "x"})
    backend = by_token(vault, use_team_secrets_path="false")
    assert backend.get_variable("a/b", team_name="red") == "x"


def test_without_multi_team_a_team_name_changes_nothing(vault: VaultRig) -> None:
    vault.write("secret/variables/a/b", {"value": "x"})
    assert by_token(vault).get_variable("a/b", team_name="red") == "x"
    assert requested(vault) == ["GET /v1/secret/data/variables/a/b"]


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize(
    ("options", "kind", "secret_id", "team", "names"),
    [
        # One path inside another: what is under the inner one is the inner one's.
        ({"connections_path": ""}, "variables", "x", "red", ("secret/variables/red/x",)),
        ({"connections_path": ""}, "connections", "x", "red", ("secret/red/x",)),
        ({"connections_path": ""}, "connections", "x", None, ("secret/x",)),
        ({"connections_path": ""}, "connections", "x", "variables", None),
        ({"connections_path": ""}, "connections", "red/x", "variables", None),
        ({"connections_path": "variables/red"}, "variables", "x", "blue", ("secret/variables/blue/x",)),
        ({"connections_path": "variables/red"}, "variables", "x", "red", None),
        ({"connections_path": "variables/red"}, "connections", "x", "blue", ("secret/variables/red/blue/x",)),
        ({"variables_path": ["x", "x/a"]}, "variables", "c", "b", ("secret/x/b/c", "secret/x/a/b/c")),
        ({"variables_path": ["x", "x/a"]}, "variables", "c", None, ("secret/x/c", "secret/x/a/c")),
        ({"variables_path": ["x", "x/a"]}, "variables", "c", "a", None),
    ],
)
def test_path_inside_another_loses_what_is_ambiguous_alone(
    vault: VaultRig, options: dict[str, Any], kind: Any, secret_id: str, team: str | None, names: tuple[str, ...] | None
) -> None:
    plan = by_token(vault, **options).plan(kind, secret_id, team)
    assert plan.names == (names or ())
    assert plan.refused == (names is None)
    if names is None:
        assert "inside another of the backend's paths" in str(plan.reason)


@pytest.mark.usefixtures("multi_team")
def test_no_two_of_different_teams_share_a_name(vault: VaultRig) -> None:
    """Whatever the paths: a name is planned for one team, or for nobody's, alone, within a kind and across kinds."""
    parts = ["", "a", "b", "a/b", "a/b/c", "b/a"]
    ids = ["x", "a", "b/x", "a/b", "a/x", "b/a/x"]
    for first, second in itertools.product(parts, parts):
        backend = by_token(vault, variables_path=first, connections_path=second, config_path=None)
        owners: dict[str, set[Any]] = {}
        for kind, secret_id, team in itertools.product(("variables", "connections"), ids, ("a", "b", "x", None)):
            path = first if kind == "variables" else second
            for name in backend.plan(kind, secret_id, team).names:
                owners.setdefault(name, set()).add((path, team))
        assert [name for name, who in owners.items() if len(who) > 1] == [], (first, second)


@pytest.mark.usefixtures("multi_team")
def test_without_mount_point_the_mount_is_no_team(vault: VaultRig) -> None:
    backend = by_token(vault, mount_point=None)
    assert backend.plan("variables", "secret/x").names == ("secret/variables/x",)
    assert backend.plan("variables", "secret/x", "red").names == ("secret/variables/red/x",)
    assert backend.plan("variables", "secret/red/x").refused


def test_airflows_configuration_is_not_asked_where_teams_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child plans each of its lookups anew, and asking takes longer than the rest of a plan."""

    def asked() -> bool:
        raise AssertionError

    monkeypatch.setattr(hashicorp_vault, "multi_team", asked)
    backend = asking(token="t", connections_path=["connections", "more"])
    assert backend.plan("variables", "x").names == ("secret/variables/x",)
    with pytest.raises(AssertionError):
        backend.plan("variables", "red/x")
    with pytest.raises(AssertionError):
        backend.plan("variables", "x", "red")


# KV versions, namespaces, TLS.


@pytest.mark.parametrize("version", [1, "1"])
def test_version_1(vault: VaultRig, version: Any) -> None:
    vault.server.engine("kv1", 1)
    vault.server.api("POST", "kv1/variables/x", {"value": "of version 1"})
    backend = by_token(vault, mount_point="kv1", kv_engine_version=version)
    assert backend.get_variable("x") == "of version 1"
    assert backend.get_variable("absent") is None
    assert requested(vault) == ["GET /v1/kv1/variables/x", "GET /v1/kv1/variables/absent"]


def test_version_is_detected_once(vault: VaultRig) -> None:
    vault.server.engine("kv1", 1)
    vault.server.api("POST", "kv1/variables/auto", {"value": "1"})
    vault.write("secret/variables/auto", {"value": "2"})
    for mount, value in (("kv1", "1"), ("secret", "2")):
        backend = by_token(vault, mount_point=mount, kv_engine_version="auto")
        assert [backend.get_variable("auto") for _ in range(3)] == [value] * 3
    data = ["kv1/variables/auto"] * 3, ["secret/data/variables/auto"] * 3
    assert requested(vault) == [
        f"GET /v1/{path}"
        for path in ("sys/internal/ui/mounts/kv1", *data[0], "sys/internal/ui/mounts/secret", *data[1])
    ]


def test_version_is_detected_again_where_a_mount_was_upgraded(vault: VaultRig) -> None:
    """https://developer.hashicorp.com/vault/docs/secrets/kv/kv-v2/upgrade"""
    api = vault.server.api
    detected = "GET /v1/sys/internal/ui/mounts/upgraded"
    for read in (True, False):
        vault.server.engine("upgraded", 1)
        api("POST", "upgraded/variables/x", {"value": "kept"})
        backend = by_token(vault, mount_point="upgraded", kv_engine_version="auto")
        store, client = opened(backend)
        assert store.fetch(client, "upgraded/variables/x").text == '{"value": "kept"}'
        api("POST", "sys/mounts/upgraded/tune", {"options": {"version": "2"}})
        wait_for_upgrade(vault, "upgraded/data/variables/x")
        vault.proxy.requests.clear()
        if read:
            assert store.fetch(client, "upgraded/variables/x").text == '{"value": "kept"}'
            asked = ["GET /v1/upgraded/variables/x", detected, "GET /v1/upgraded/data/variables/x"]
        else:
            assert [listed.name for listed in store.listing(client, "upgraded/variables/")] == ["upgraded/variables/x"]
            asked = ["LIST /v1/upgraded/variables", detected, "LIST /v1/upgraded/metadata/variables"]
        assert requested(vault) == asked
        api("DELETE", "sys/mounts/upgraded")


def test_version_of_an_engine_that_was_replaced_is_detected_within_five_minutes(vault: VaultRig, clock: Clock) -> None:
    """A secret is absent to who asks an engine of version 1 by the paths of version 2."""
    api = vault.server.api
    vault.server.engine("replaced", 2)
    api("POST", "replaced/data/variables/x", {"data": {"value": "of version 2"}})
    backend = by_token(vault, mount_point="replaced", kv_engine_version="auto")
    assert backend.get_variable("x") == "of version 2"
    api("DELETE", "sys/mounts/replaced")
    vault.server.engine("replaced", 1)
    api("POST", "replaced/variables/x", {"value": "of version 1"})
    clock.now += 300.0
    assert backend.get_variable("x") == "of version 1"
    api("DELETE", "sys/mounts/replaced")


def wait_for_upgrade(rig: VaultRig, path: str) -> None:
    """The server upgrades beside its answer, and refuses all else meanwhile."""
    until = time.monotonic() + 30
    while rig.server.status("GET", path) != 200:
        assert time.monotonic() < until, "the mount is not upgraded"


def test_version_is_detected_by_an_identity_of_least_privilege(vault: VaultRig) -> None:
    vault.server.policy("one-variable", "secret/data/variables/least")
    vault.write("secret/variables/least", {"value": "x"})
    token = vault.server.api("POST", "auth/token/create", {"policies": ["one-variable"]})["auth"]["client_token"]
    assert by_token(vault, token=token, kv_engine_version="auto").get_variable("least") == "x"


def test_detection_of_what_is_no_engine(vault: VaultRig) -> None:
    vault.server.api("POST", "sys/mounts/transit-engine", {"type": "transit"})
    with pytest.raises(StoreMisconfigured, match="no KV engine"):
        by_token(vault, mount_point="transit-engine", kv_engine_version="auto").get_variable("x")
    vault.server.api("DELETE", "sys/mounts/transit-engine")


def test_wrong_version_is_told_where_the_server_tells(vault: VaultRig) -> None:
    with pytest.raises(StoreMisconfigured, match="KV 2"):
        by_token(vault, kv_engine_version=1).get_variable("absent")


def test_mount_that_is_none_is_not_an_absence(vault: VaultRig) -> None:
    with pytest.raises(StoreMisconfigured, match="no such mount"):
        by_token(vault, mount_point="nowhere").get_variable("x")


def test_namespace(vault: VaultRig) -> None:
    server = vault.server
    server.api("POST", "sys/namespaces/team-space", {})
    server.engine("secret", 2, namespace="team-space")
    server.api("POST", "secret/data/variables/spaced", {"data": {"value": "there"}}, namespace="team-space")
    for namespace in ("team-space", "team-space\n"):  # as a Kubernetes Secret's file has it
        assert by_token(vault, namespace=namespace).get_variable("spaced") == "there"
    assert by_token(vault).get_variable("spaced") is None
    with pytest.raises(StoreMisconfigured, match="namespace"):
        by_token(vault, namespace="no-space").get_variable("spaced")
    with pytest.raises(StoreMisconfigured, match=r"login refused .*\. Check the .* and 'namespace' of the login\."):
        vault.backend(namespace="no-space").get_variable("spaced")


@pytest.mark.parametrize("options", [{"mount_point": "nowhere"}, {"kv_engine_version": 1}], ids=repr)
def test_a_denial_may_be_one_of_a_path_that_is_none(vault: VaultRig, options: dict[str, Any]) -> None:
    """Vault says no more to a role that may not read there than that it may not."""
    cure = r"HTTP 403\. Allow 'read' on its path .*, if 'mount_point' and 'kv_engine_version' are right"
    with pytest.raises(AccessDenied, match=cure):
        vault.backend(**options).get_variable("x")


def test_tls(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    vault.write("secret/variables/encrypted", {"value": "x"})
    url = f"https://127.0.0.1:{vault.server.tls_port}"
    assert by_token(vault, url=url, verify=str(vault.server.authority.bundle)).get_variable("encrypted") == "x"
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        by_token(vault, url=url).get_variable("encrypted")
    with pytest.raises(StoreMisconfigured, match="WRONG_VERSION_NUMBER"):
        by_token(vault, url=url.replace(str(vault.server.tls_port), str(vault.server.port))).get_variable("x")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_certificates_are_read_once_for_all_children(vault: VaultRig, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """To read what certifi has takes longer than all the rest of a child's first lookup."""
    read = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *args, **kwargs: read.append(kwargs) or load(*args, **kwargs)
    )
    bundle = vault.server.authority.bundle.with_name(f"of-{by}.pem")
    bundle.write_bytes(vault.server.authority.bundle.read_bytes())
    monkeypatch.setenv("VAULT_CACERT", str(bundle) if by == "variable" else "/nowhere")
    monkeypatch.setattr(access, "_loaded", set())
    vault.write("secret/variables/encrypted", {"value": "x"})
    options = {"url": f"https://127.0.0.1:{vault.server.tls_port}", "verify": str(bundle) if by == "option" else None}
    config = by_token(vault, **options).config
    resolve.prepare(config, for_many=False)  # a pod's one task may look nothing up
    assert read == []
    resolve.prepare(config)
    assert read == [{"cafile": str(bundle)}]
    for _ in range(2):
        answers.reset_after_fork()
        assert by_token(vault, **options).get_variable("encrypted") == "x"
    assert len(read) == 1
    resolve.prepare(by_token(vault).config)  # without TLS
    assert len(read) == 1


@pytest.mark.parametrize("in_child", [False, True])
def test_certificates_that_are_replaced_count_from_the_next_connection(
    vault: VaultRig, tmp_path: Path, in_child: bool
) -> None:
    bundle = tmp_path / "bundle.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    vault.write("secret/variables/encrypted", {"value": "x"})
    options = {"url": f"https://127.0.0.1:{vault.server.tls_port}", "verify": str(bundle)}
    with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
        by_token(vault, **options).get_variable("encrypted")
    bundle.write_bytes(vault.server.authority.bundle.read_bytes())
    if in_child:
        answers.reset_after_fork()
    assert by_token(vault, **options).get_variable("encrypted") == "x"


CA_CURE = "Let the option or variable name a CA bundle in PEM that Airflow's user can read"


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_bundle_that_holds_no_certificate_is_named(
    vault: VaultRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(content)
    monkeypatch.setenv("VAULT_CACERT", str(bundle))
    for verify, source in ((str(bundle), "option 'verify'"), (None, "VAULT_CACERT")):
        backend = by_token(vault, url=f"https://127.0.0.1:{vault.server.tls_port}", verify=verify)
        told = rf": {source} names a file that holds no certificate\. {CA_CURE}"
        with pytest.raises(StoreMisconfigured, match=told):
            backend.get_variable("x")


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_without_verification(vault: VaultRig) -> None:
    url = f"https://127.0.0.1:{vault.server.tls_port}"
    assert by_token(vault, url=url, verify="false").get_variable("absent") is None


@pytest.mark.parametrize(
    "options", [{"verify": "/nowhere/ca.pem"}, {"cert": ["/nowhere/c.pem", "/nowhere/k.pem"]}], ids=repr
)
def test_unreadable_tls_file_is_named(vault: VaultRig, options: dict[str, Any]) -> None:
    with pytest.raises(StoreMisconfigured, match=f"option '{next(iter(options))}'"):
        by_token(vault, **options).get_variable("x")


def test_address_from_the_environment(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.write("secret/variables/addressed", {"value": "x"})
    monkeypatch.setenv("VAULT_ADDR", vault.proxy.url)
    monkeypatch.setenv("VAULT_TOKEN", ROOT_TOKEN)
    assert asking().get_variable("addressed") == "x"
    assert asking(url=vault.proxy.url + "/").get_variable("addressed") == "x"


# Values.


@pytest.mark.parametrize(
    ("data", "given"),
    [
        ({"conn_uri": "postgres://u:p@h/d", "conn_type": "mysql"}, "postgres://u:p@h/d"),
        ({"conn_uri": "", "conn_type": "mysql", "host": "h"}, {"conn_type": "mysql", "host": "h"}),
        ({"conn_uri": '{"conn_type": "mysql"}'}, {"conn_type": "mysql"}),
        (
            {"conn_type": "mysql", "port": "3306", "extra": {"a": [1]}},
            {"conn_type": "mysql", "port": 3306, "extra": {"a": [1]}},
        ),
    ],
)
def test_connection(vault: VaultRig, data: dict[str, Any], given: Any) -> None:
    vault.write("secret/connections/c", data)
    value = by_token(vault).get_conn_value("c")
    assert value is not None
    assert (value if isinstance(given, str) else json.loads(value)) == given


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("", ""),
        (" ", " "),
        ("5", "5"),
        (5, "5"),
        (0, "0"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        ({"a": "ä"}, '{"a": "ä"}'),
        ([1, "2", None], '[1, "2", null]'),
        ([], "[]"),
        ({}, "{}"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["variables", "config"])
def test_value_that_is_no_text_is_given_as_json(vault: VaultRig, kind: str, value: Any, given: str) -> None:
    vault.write(f"secret/{kind}/typed", {"value": value, "other": 1})
    lookup = {"variables": "get_variable", "config": "get_config"}[kind]
    assert getattr(by_token(vault), lookup)("typed") == given


@pytest.mark.parametrize(
    ("kind", "data", "fault"),
    [
        ("variables", {}, "it is empty"),
        ("variables", {"val": "S3cr3t"}, "'value' is missing"),
        ("variables", {"value": None, "x": 1}, "'value' is missing"),
        ("config", {"conn_uri": "S3cr3t"}, "'value' is missing"),
        ("connections", {}, "it is empty"),
        ("connections", {"conn_uri": 5}, "'conn_uri' is not text"),
        ("connections", {"conn_uri": ["S3cr3t"]}, "'conn_uri' is not text"),
        ("connections", {"conn_uri": "S3cr3t"}, "neither a JSON object nor a URI"),
        ("connections", {"conn_uri": ""}, "it is empty"),
        ("connections", {"conn_uri": None, "password": None}, "it is empty"),
        ("connections", {"value": "S3cr3t"}, "field 'value'"),
        ("connections", {"conn_type": "x", "password": {"a": "S3cr3t"}}, "'password' is not text"),
    ],
)
def test_value_that_cannot_be_used_is_named(vault: VaultRig, kind: str, data: dict[str, Any], fault: str) -> None:
    vault.write(f"secret/{kind}/faulty", data)
    lookup = {"variables": "get_variable", "config": "get_config", "connections": "get_conn_value"}[kind]
    with pytest.raises(InvalidSecret) as raised:
        getattr(by_token(vault), lookup)("faulty")
    assert fault in str(raised.value)
    assert "S3cr3t" not in str(raised.value)
    assert raised.value.__context__ is None


# Outcomes.


def test_deleted_and_destroyed_are_revoked_and_told_apart(vault: VaultRig) -> None:
    backend, path = by_token(vault), "secret/data/variables/revoked"
    vault.write("secret/variables/revoked", {"value": "x"})
    vault.server.api("DELETE", path)
    with pytest.raises(SecretRevoked, match="is deleted"):
        backend.get_variable("revoked")
    vault.server.api("POST", "secret/destroy/variables/revoked", {"versions": [1]})
    with pytest.raises(SecretRevoked, match="is destroyed"):
        backend.get_variable("revoked")
    vault.write("secret/variables/revoked", {"value": "y"})
    assert backend.get_variable("revoked") == "y"
    vault.remove("secret/variables/revoked")
    assert backend.get_variable("revoked") is None


def test_version_with_an_end_set_is_alive_until_then(vault: VaultRig) -> None:
    vault.server.api("POST", "secret/metadata/variables/ending", {"delete_version_after": "1h"})
    vault.write("secret/variables/ending", {"value": "x"})
    assert by_token(vault).get_variable("ending") == "x"


def test_sealed(vault: VaultRig) -> None:
    server = vault.server
    server.api("POST", "sys/seal")
    try:
        with pytest.raises(StoreUnavailable, match="503, sealed"):
            by_token(vault, max_attempts=1).get_variable("x")
    finally:
        server.api("POST", "sys/unseal", {"key": server.unseal_key}, token=None)
    assert by_token(vault, timeout=30, max_attempts=30).get_variable("absent") is None


def test_real_quota_is_throttling(vault: VaultRig) -> None:
    vault.server.engine("limited", 2)
    vault.server.api("POST", "sys/quotas/rate-limit/tests", {"rate": 1, "interval": "60s", "path": "limited/"})
    try:
        backend = by_token(vault, mount_point="limited", max_attempts=1)
        with pytest.raises(StoreUnavailable, match=r"HTTP 429.*quota"):
            for _ in range(10):
                backend.get_variable("x")
    finally:
        vault.server.api("DELETE", "sys/quotas/rate-limit/tests")


JSON = {"Content-Type": "application/json"}
STATUSES = [
    (vault_error(400, "S3cr3t"), StoreMisconfigured, "HTTP 400", 1),
    (vault_error(403, "S3cr3t"), AccessDenied, "HTTP 403", 1),
    (vault_error(404, "no handler for route"), StoreMisconfigured, "no such mount", 1),
    (vault_error(405, "unsupported operation"), StoreMisconfigured, "HTTP 405", 1),
    (vault_error(412, "required index state not present"), StoreUnavailable, "HTTP 412, .*latest write", 2),
    (vault_error(429, "S3cr3t"), StoreUnavailable, "HTTP 429", 2),
    (Reply(472, b"", JSON), StoreUnavailable, "HTTP 472, .*disaster recovery", 2),
    (Reply(473, b"", JSON), StoreUnavailable, "HTTP 473, .*performance standby", 2),
    (vault_error(500, "S3cr3t"), StoreUnavailable, "HTTP 500", 2),
    (Reply(502, b"<html>S3cr3t", {"Content-Type": "text/html"}), StoreUnavailable, "HTTP 502", 2),
    (vault_error(503, "Vault is sealed"), StoreUnavailable, "HTTP 503, sealed", 2),
    (Reply(504, b""), StoreUnavailable, "HTTP 504", 2),
    (Reply(404, b"<html>S3cr3t</html>", {"Content-Type": "text/html"}), StoreUnavailable, "not Vault's own", 2),
    (Reply(404, b"", JSON), StoreUnavailable, "not Vault's own", 2),
    (Reply(404, b"[]", JSON), StoreUnavailable, "not Vault's own", 2),
    (Reply(404, b"{}", JSON), StoreUnavailable, "not Vault's own", 2),
    (Reply(404, b'{"message": "S3cr3t"}', JSON), StoreUnavailable, "not Vault's own", 2),
    (Reply(204, b""), StoreUnavailable, "HTTP 204", 2),
    (Reply(200, b"<html>S3cr3t</html>", {"Content-Type": "text/html"}), InvalidSecret, "malformed", 1),
    (Reply(200, b'["S3cr3t"]', JSON), InvalidSecret, "malformed", 1),
    (Reply(200, b'{"data": "S3cr3t"}', JSON), InvalidSecret, "no data", 1),
    (Reply(200, b'{"data": {"data": ["S3cr3t"]}}', JSON), InvalidSecret, "no secret", 1),
    (Reply(200, b'{"data": {"data": null}}', JSON), InvalidSecret, "no secret", 1),
    (Reply(200, b"\xff\xfe\x00S3cr3t", JSON), InvalidSecret, "malformed", 1),
]


@pytest.mark.parametrize(
    ("reply", "error", "code", "attempts"), STATUSES, ids=lambda value: getattr(value, "status", None)
)
def test_status_has_its_outcome(
    vault: VaultRig, reply: Reply, error: type[Exception], code: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dict.fromkeys(access.BACKOFF, (0.001, 0.002))
    monkeypatch.setattr(access, "BACKOFF", short)
    backend = by_token(vault, max_attempts=2)
    with vault.proxy.fault(reply), pytest.raises(error, match=code) as raised:
        backend.get_variable("x")
    assert len(vault.proxy.requests) == attempts
    assert "S3cr3t" not in str(raised.value)


def test_retry_after_is_waited_for(vault: VaultRig) -> None:
    """Longer than what is left of the deadline, so that the wait need not be lived through."""
    with (
        vault.proxy.fault(vault_error(429, "", **{"Retry-After": "3600"})),
        pytest.raises(StoreUnavailable, match="429"),
    ):
        by_token(vault, timeout=60).get_variable("x")
    assert len(vault.proxy.requests) == 1


# Redirects.


@pytest.fixture
def other_host() -> Iterator[Proxy]:
    proxy = Proxy()
    with proxy.fault(vault_answer({"data": {"value": "S3cr3t"}})):
        yield proxy
    proxy.stop()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("login", [False, True])
def test_redirect_to_another_host_carries_nothing_there(
    vault: VaultRig, other_host: Proxy, status: int, login: bool
) -> None:
    options = vault.options() if login else {"url": vault.proxy.url, "token": ROOT_TOKEN}
    location = f"http://localhost:{other_host.port}"  # the proxy is 127.0.0.1
    with (
        vault.proxy.fault(lambda request: Reply(status, b"", {"Location": location + request.path})),
        pytest.raises(StoreMisconfigured, match=f"HTTP {status} to another host"),
    ):
        asking(**options).get_variable("x")
    assert other_host.requests == []
    assert len(vault.proxy.requests) == 1


def test_redirect_of_a_standby_on_the_same_host_is_followed(vault: VaultRig) -> None:
    """As a standby that does not forward gives it: the active node's address and the same path."""
    vault.write("secret/variables/redirected", {"value": "x"})
    active = f"http://127.0.0.1:{vault.server.port}"
    with vault.proxy.fault(lambda request: Reply(307, b"", {"Location": active + request.path})):
        assert asking(**vault.options()).get_variable("redirected") == "x"
    assert [request.method for request in vault.proxy.requests] == ["POST", "GET"]
    with (
        vault.proxy.fault(lambda request: Reply(307, b"", {"Location": active + request.path})),
        pytest.raises(StoreMisconfigured, match="HTTP 307"),
    ):
        by_token(vault, allow_redirects=False).get_variable("redirected")


@pytest.mark.parametrize("location", ["/v1/secret/data/connections/prod_db", "ftp://127.0.0.1/x", "/v1/sys/health", ""])
def test_redirect_to_another_path_is_not_followed(vault: VaultRig, location: str) -> None:
    with vault.proxy.fault(Reply(307, b"", {"Location": location})), pytest.raises(StoreMisconfigured):
        by_token(vault).get_variable("x")
    assert len(vault.proxy.requests) == 1


def test_redirects_in_a_circle_end(vault: VaultRig) -> None:
    with (
        vault.proxy.fault(lambda request: Reply(307, b"", {"Location": request.path})),
        pytest.raises(StoreMisconfigured, match="TooManyRedirects"),
    ):
        by_token(vault).get_variable("x")
    assert len(vault.proxy.requests) <= 3


# The life of a login.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    from airflow_providers_secrets.stores.vault import client as vault_client

    clock = Clock()
    monkeypatch.setattr(base, "clock", clock)
    monkeypatch.setattr(vault_client, "spread", lambda low, high: (low + high) / 2)
    return clock


def role(rig: VaultRig, name: str, **settings: Any) -> dict[str, Any]:
    """Make an AppRole; give the options that log in with it."""
    api = rig.server.api
    api("POST", f"auth/approle/role/{name}", {"token_policies": "everything-in-secret", **settings})
    role_id = api("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
    secret_id = api("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"]
    return {**rig.options(), "role_id": role_id, "secret_id": secret_id}


LDAP_IS_DOWN = (
    'error connecting to host "ldap://127.0.0.1:1": LDAP Result Code 200 "Network Error": dial tcp 127.0.0.1:1: '
    "connect: connection refused"
)
"""What OpenBao was seen to answer, with the status 400."""

LOGIN = "POST /v1/auth/approle/login"
RENEWAL = "POST /v1/auth/token/renew-self"
READ = "GET /v1/secret/data/variables/x"


@pytest.fixture
def asked(vault: VaultRig) -> Iterator[Callable[[], list[str]]]:
    """Gives what was requested since the last time, with the secret that the tests here read in place."""
    vault.write("secret/variables/x", {"value": "x"})

    def since() -> list[str]:
        seen = requested(vault)
        vault.proxy.requests.clear()
        return seen

    return since


def test_one_login_for_many_instances_and_lookups(vault: VaultRig, asked: Callable[[], list[str]]) -> None:
    for _ in range(5):
        assert asking(**vault.options()).get_variable("x") == "x"
    assert asked() == [LOGIN, *[READ] * 5]


def test_token_that_is_dead_is_told_from_one_that_may_not(vault: VaultRig) -> None:
    vault.write("secret/variables/x", {"value": "x"})
    api = vault.server.api
    granted = api("POST", "auth/token/create", {"policies": ["default"]})["auth"]["client_token"]
    backend = by_token(vault, token=granted)
    with pytest.raises(AccessDenied):
        backend.get_variable("x")
    api("POST", "auth/token/revoke", {"token": granted})
    with pytest.raises(StoreMisconfigured, match=r"unknown, expired or revoked\. Replace the token"):
        backend.get_variable("x")


@pytest.mark.parametrize(
    ("errors", "is_dead"),
    [
        (["permission denied"], True),
        (["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"], True),
        (["1 error occurred:\n\t* permission denied\n\n"], False),
        ([], False),
    ],
    ids=["OpenBao, Vault before 1.17", "Vault since 1.17", "not allowed", "nothing said"],
)
def test_how_an_unknown_token_is_refused(vault: VaultRig, errors: list[str], is_dead: bool) -> None:
    refused = Reply(403, json.dumps({"errors": errors}).encode(), {"Content-Type": "application/json"})
    with vault.proxy.fault(refused), pytest.raises(StoreMisconfigured if is_dead else AccessDenied):
        by_token(vault).get_variable("x")


def test_token_that_is_revoked_after_a_denial_is_replaced_at_once(
    vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]
) -> None:
    """For 30 s after a denial no login follows another one; what has ended since is none."""
    backend = asking(**role(vault, "revoked-after", token_ttl="1h"))
    denied = vault_error(403, "1 error occurred:\n\t* permission denied\n\n")
    with vault.proxy.fault(lambda request: denied if "/forbidden" in request.path else None):
        with pytest.raises(AccessDenied):
            backend.get_variable("forbidden")
        assert asked().count(LOGIN) == 2
        (client,) = answers.answers_of(backend.config).access.clients
        vault.server.api("POST", "auth/token/revoke", {"token": client._token.text})
        assert backend.get_variable("x") == "x"
        assert asked() == [READ, LOGIN, READ]
        for _ in range(3):
            with pytest.raises(AccessDenied):
                backend.get_variable("forbidden")
        assert asked().count(LOGIN) <= 1


def test_token_that_is_unknown_even_when_new_costs_one_login(
    vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]
) -> None:
    backend = asking(**role(vault, "unknown-when-new"))
    with vault.proxy.fault(lambda request: None if is_login(request) else vault_error(403, "permission denied")):
        for _ in range(4):
            with pytest.raises(AccessDenied):
                backend.get_variable("x")
    assert asked().count(LOGIN) == 2


def test_mount_that_is_being_upgraded_gives_no_answer_yet(vault: VaultRig) -> None:
    words = "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period"
    with vault.proxy.fault(vault_error(400, words)), pytest.raises(StoreUnavailable, match="being upgraded"):
        by_token(vault, max_attempts=1).get_variable("x")


def test_renewed_at_two_thirds_of_its_life(vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]) -> None:
    backend = asking(**role(vault, "renewed", token_ttl="90s", token_max_ttl="24h"))
    for passed, expected in (
        (0, [LOGIN, READ]),
        (59, [READ]),
        (60, [RENEWAL, READ]),
        (119, [READ]),
        (121, [RENEWAL, READ]),
    ):
        clock.now = 1000.0 + passed
        assert backend.get_variable("x") == "x"
        assert asked() == expected, passed


def test_renewal_is_spread_by_a_tenth() -> None:
    from airflow_providers_secrets.stores.vault import client as vault_client

    start = base.clock()
    due = [vault_client._due(900.0) - start for _ in range(500)]
    assert 540 <= min(due) < 560
    assert 640 < max(due) <= 661


def test_login_anew_when_the_token_has_ended(vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]) -> None:
    for name, settings in (("batch", {"token_type": "batch"}), ("ended", {})):
        clock.now = 1000.0
        backend = asking(**role(vault, name, token_ttl="90s", **settings))
        for passed, expected in ((0, [LOGIN, READ]), (91, [LOGIN, READ])):
            clock.now = 1000.0 + passed
            assert backend.get_variable("x") == "x"
            assert asked() == expected, name


def test_login_anew_when_no_more_renewal_is_granted(
    vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]
) -> None:
    """The server grants what is left of the maximum, less and less; renewing on would never end."""
    backend = asking(**role(vault, "capped", token_ttl="90s", token_max_ttl="24h"))
    backend.get_variable("x")
    asked()
    auth = {"client_token": "unused", "lease_duration": 30, "renewable": True, "num_uses": 0}
    body = json.dumps({"auth": auth}).encode()

    def granting_less(request: Request) -> Reply | None:
        if "renew-self" in request.path:
            return Reply(200, body.replace(b"unused", request.headers["X-Vault-Token"].encode()), JSON)
        return None

    with vault.proxy.fault(granting_less):
        for passed, expected in ((60, [RENEWAL, READ]), (89, [READ]), (90, [LOGIN, READ])):
            clock.now = 1000.0 + passed
            assert backend.get_variable("x") == "x"
            assert asked() == expected, passed


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (vault_error(403, "denied"), [RENEWAL, LOGIN, READ]),
        (vault_error(400, "lease is not renewable"), [RENEWAL, LOGIN, READ]),
        (vault_error(503, "sealed"), [RENEWAL, READ]),
        (Reply(reset=True), [RENEWAL, READ]),
        (Reply(200, b'{"auth": {"client_token": "x"}}', JSON, truncate=True), [RENEWAL, READ]),
    ],
    ids=["denied", "not renewable", "sealed", "reset", "cut"],
)
def test_failed_renewal(
    vault: VaultRig, clock: Clock, asked: Callable[[], list[str]], reply: Reply, expected: list[str]
) -> None:
    backend = asking(**role(vault, "failing", token_ttl="90s", token_max_ttl="24h"))
    backend.get_variable("x")
    asked()
    clock.now += 61
    with vault.proxy.fault(lambda request: reply if "renew-self" in request.path else None):
        assert backend.get_variable("x") == "x"
        assert asked() == expected
        assert backend.get_variable("x") == "x"
        assert asked() == [READ]


def test_renewal_that_drips_costs_one_lookup(vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]) -> None:
    backend = asking(**role(vault, "dripping", token_ttl="90s", token_max_ttl="24h"), timeout=1, max_attempts=1)
    backend.get_variable("x")
    asked()
    clock.now += 61
    drip = Reply(200, b'{"auth": {"client_token": "x"}}', JSON, drip=0.1)
    with vault.proxy.fault(lambda request: drip if "renew-self" in request.path else None):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            backend.get_variable("x")
        assert asked() == [RENEWAL]
        assert backend.get_variable("x") == "x"
        assert asked() == [READ]


def test_login_whose_answer_goes_on_ends_with_its_lookup(vault: VaultRig) -> None:
    backend = asking(**role(vault, "going-on"), timeout=0.5, **ONE_TRY)
    with vault.proxy.fault(lambda request: DRIP if request.path.startswith("/v1/auth/") else None):
        with pytest.raises(StoreUnavailable, match="no answer within"):
            backend.get_variable("x")
        assert not hanging()


def test_refused_login_does_not_end_a_token_that_is_good(
    vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]
) -> None:
    """Neither does one that fails; once the token is refused, too, the login is what is told."""
    backend = asking(**role(vault, "good", token_ttl="90s", token_max_ttl="24h"), max_attempts=1)
    backend.get_variable("x")
    token = vault.proxy.requests[-1].headers["X-Vault-Token"]
    asked()

    def failing(login: Reply) -> Callable[[Request], Reply | None]:
        return lambda asked: (
            vault_error(403) if "renew-self" in asked.path else login if "login" in asked.path else None
        )

    sealed, refused = vault_error(503, "sealed"), vault_error(400, "invalid secret id")
    for passed, login, expected in (
        (61, sealed, [RENEWAL, LOGIN, READ]),
        (62, sealed, [READ]),
        (81, refused, [RENEWAL, LOGIN, READ]),
        (82, refused, [READ]),
    ):
        clock.now = 1000.0 + passed
        with vault.proxy.fault(failing(login)):
            assert backend.get_variable("x") == "x"
        assert asked() == expected, passed
    vault.server.api("POST", "auth/token/revoke", {"token": token})
    for _ in range(2):
        with pytest.raises(StoreMisconfigured, match=r"login refused \(HTTP 400\)"):
            backend.get_variable("x")
        assert asked() == [READ]
    clock.now += 31
    assert backend.get_variable("x") == "x"
    assert asked() == [LOGIN, READ]


def test_revoked_token_costs_one_login(vault: VaultRig, asked: Callable[[], list[str]]) -> None:
    backend = asking(**vault.options())
    backend.get_variable("x")
    token = vault.proxy.requests[-1].headers["X-Vault-Token"]
    vault.server.api("POST", "auth/token/revoke", {"token": token})
    asked()
    assert backend.get_variable("x") == "x"
    assert asked() == [READ, LOGIN, READ]
    assert backend.get_variable("x") == "x"
    assert asked() == [READ]


def test_denial_costs_one_login_and_is_remembered(
    vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]
) -> None:
    vault.server.policy("only-x", "secret/data/variables/x")
    backend = asking(**role(vault, "least", token_policies="only-x", token_ttl="1h"))
    denied = "GET /v1/secret/data/variables/denied"
    for passed, expected in (
        (0, [LOGIN, denied, LOGIN, denied]),
        (1, [denied]),
        (29, [denied]),
        (31, [denied, LOGIN, denied]),
    ):
        clock.now = 1000.0 + passed
        with pytest.raises(AccessDenied, match="HTTP 403"):
            backend.get_variable("denied")
        assert asked() == expected, passed
        assert backend.get_variable("x") == "x"
        assert asked() == [READ]


def test_denial_does_not_keep_an_ended_token(vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]) -> None:
    vault.server.policy("only-x", "secret/data/variables/x")
    backend = asking(**role(vault, "short", token_policies="only-x", token_ttl="20s", token_type="batch"))
    with pytest.raises(AccessDenied):
        backend.get_variable("denied")
    asked()
    clock.now += 21
    assert backend.get_variable("x") == "x"
    assert asked() == [LOGIN, READ]


def test_denial_seen_by_many_threads_costs_one_login(vault: VaultRig, asked: Callable[[], list[str]]) -> None:
    vault.server.policy("only-x", "secret/data/variables/x")
    backend = asking(**role(vault, "threads", token_policies="only-x"), timeout=30)
    assert backend.get_variable("x") == "x"
    asked()
    barrier = threading.Barrier(16)

    def look_up(_: int) -> None:
        barrier.wait(30)
        with pytest.raises(AccessDenied):
            backend.get_variable("denied")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(look_up, range(16)))
    assert asked().count(LOGIN) == 1


def test_use_limited_token(vault: VaultRig, asked: Callable[[], list[str]]) -> None:
    """Counted, so that no request is spent on learning that it is used up."""
    backend = asking(**role(vault, "counted", token_num_uses=3))
    for _ in range(7):
        assert backend.get_variable("x") == "x"
    assert asked() == [LOGIN, READ, READ, READ, LOGIN, READ, READ, READ, LOGIN, READ]


def test_use_limited_token_is_not_renewed(vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]) -> None:
    """A renewal is a use."""
    backend = asking(**role(vault, "counted-and-renewable", token_num_uses=3, token_ttl="90s", token_max_ttl="24h"))
    for passed, expected in ((0, [LOGIN, READ]), (75, [READ]), (76, [READ]), (77, [LOGIN, READ])):
        clock.now = 1000.0 + passed
        assert backend.get_variable("x") == "x"
        assert asked() == expected, passed


def test_refused_login_is_not_repeated_at_once(vault: VaultRig, clock: Clock, asked: Callable[[], list[str]]) -> None:
    """A wrong password tried at every lookup locks the account."""
    backend = asking(**{**vault.options(), "secret_id": "S3cr3t-wrong"})
    for passed, expected in ((0, [LOGIN]), (29, []), (31, [LOGIN])):
        clock.now = 1000.0 + passed
        with pytest.raises(StoreMisconfigured, match=r"approle login refused \(HTTP 400\)") as raised:
            backend.get_variable("x")
        assert "S3cr3t" not in str(raised.value)
        assert asked() == expected


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (vault_error(503, "Vault is sealed"), StoreUnavailable, "503, sealed"),
        (vault_error(429, ""), StoreUnavailable, "429"),
        (Reply(404, b"<html>", {"Content-Type": "text/html"}), StoreUnavailable, "not Vault's own"),
        (Reply(200, b"<html>"), StoreUnavailable, "malformed answer to the login"),
        (Reply(200, b'{"auth": null}', JSON), StoreMisconfigured, "no token"),
        (vault_error(404, "no handler for route"), StoreMisconfigured, "login refused"),
        (vault_error(403, "permission denied"), StoreMisconfigured, "login refused"),
        (vault_error(400, LDAP_IS_DOWN), StoreUnavailable, "whom Vault asks did not answer"),
        (Reply(403, b"<html>", {"Content-Type": "text/html"}), StoreUnavailable, "malformed answer to the login"),
    ],
    ids=["sealed", "throttled", "html-404", "malformed", "no-token", "no-mount", "denied", "ldap-down", "html-403"],
)
def test_login_that_fails(vault: VaultRig, reply: Reply, error: type[Exception], code: str) -> None:
    backend = asking(**vault.options(), max_attempts=1)
    with vault.proxy.fault(lambda request: reply if is_login(request) else None), pytest.raises(error, match=code):
        backend.get_variable("x")
    assert not [request for request in vault.proxy.requests if not is_login(request)]


def test_no_thread_is_left_by_a_login(vault: VaultRig, asked: Callable[[], list[str]]) -> None:
    before = set(threading.enumerate())
    assert asking(**role(vault, "threadless", token_ttl="90s")).get_variable("x") == "x"
    for thread in set(threading.enumerate()) - before:
        if thread.name == "secrets-lookup":
            thread.join(60)
    ours = {thread for thread in set(threading.enumerate()) - before if "process_request" not in thread.name}
    assert ours == set()


def test_connection_is_kept(vault: VaultRig, asked: Callable[[], list[str]]) -> None:
    before = vault.proxy.connections
    backend = asking(**vault.options())
    for _ in range(10):
        backend.get_variable("x")
    assert vault.proxy.connections == before + 1


# Options.

APPROLE = {"auth_type": "approle", "role_id": "r"}


GOOGLE_KEY = {"type": "service_account", "client_email": "a@b", "private_key": "S3cr3t", "token_uri": "https://c"}


@pytest.mark.filterwarnings("ignore:.*global_secrets_path:DeprecationWarning")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"auth_type": "S3cr3t", "token": "t"}, "auth_type"),
        ({"kv_engine_version": 3, "token": "t"}, "kv_engine_version"),
        ({"kv_engine_version": "two", "token": "t"}, "kv_engine_version"),
        ({"url": "127.0.0.1:8200", "token": "t"}, "url"),
        ({"url": "file:///etc/passwd", "token": "t"}, "url"),
        *(
            (
                {"namespace": namespace, "token": "t"},
                "'namespace' must be ASCII text without line breaks, as an HTTP header holds it",
            )
            for namespace in ("ad\nmin", " ", "\n", "ad\tmin", "ad\rmin", "n\u2713")
        ),
        ({"mount_point": "../sys", "token": "t"}, "mount_point"),
        ({"mount_point": "/", "token": "t"}, "mount_point"),
        ({"auth_mount_point": "a/../b", **APPROLE}, "auth_mount_point"),
        ({"global_secrets_path": "..", "token": "t"}, "global_secrets_path"),
        ({"proxies": "S3cr3t", "token": "t"}, "proxies"),
        ({"cert": ["a", "b", "c"], "token": "t"}, "cert"),
        ({"use_team_secrets_path": "S3cr3t", "token": "t"}, "use_team_secrets_path"),
        ({}, "'token' or 'token_path' or VAULT_TOKEN is needed"),
        ({"token": ""}, "'token' or 'token_path' or VAULT_TOKEN is needed"),
        ({"auth_type": "github"}, "'token' or 'token_path' is needed"),
        ({"auth_type": "approle"}, "role_id"),
        ({"auth_type": "kubernetes"}, "kubernetes_role"),
        ({"auth_type": "jwt", "jwt_token": "t"}, "jwt_role"),
        ({"auth_type": "jwt", "jwt_role": "r"}, "'jwt_token' or 'jwt_token_path'"),
        ({"auth_type": "ldap", "password": "S3cr3t"}, "username"),
        ({"auth_type": "userpass", "username": "u"}, "password"),
        ({"auth_type": "userpass", "username": "..", "password": "S3cr3t"}, "username"),
        ({"auth_type": "radius", "username": "u"}, "password"),
        ({"auth_type": "ldap", "username": "../../../sys/health?#", "password": "S3cr3t"}, "username"),
        ({"auth_type": "radius", "username": "a//b", "password": "S3cr3t"}, "username"),
        ({"auth_type": "gcp"}, "role_id"),
        ({"auth_type": "gcp", "role_id": "r", "gcp_key_path": "p", "gcp_keyfile_dict": GOOGLE_KEY}, "contradict"),
        ({"auth_type": "gcp", "role_id": "r", "gcp_keyfile_dict": "{S3cr3t"}, "gcp_keyfile_dict"),
        ({"auth_type": "azure", "role_id": "r"}, "azure_resource"),
        ({"auth_type": "azure", "azure_resource": "x"}, "role_id"),
        ({"auth_type": "azure", "role_id": "r", "azure_resource": "x", "secret_id": "S3cr3t"}, "key_id"),
        (
            {"auth_type": "azure", "role_id": "r", "azure_resource": "x", "key_id": "k", "secret_id": "S3cr3t"},
            "azure_tenant_id",
        ),
        ({"auth_type": "aws_iam", "key_id": "k"}, "secret_id"),
        ({"auth_type": "cert", "cert": "c", "verify": "false"}, "verify"),
        ({"auth_type": "cert"}, "cert"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_unusable_option_is_named_at_construction(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as raised:
        asking(**options)
    assert "S3cr3t" not in str(raised.value)


def test_official_options_are_all_declared() -> None:
    """The signature of the official class, hashicorp provider 4.8.4, and hvac.Client's beyond it."""
    official = (
        "connections_path variables_path config_path use_team_secrets_path global_secrets_path url auth_type "
        "auth_mount_point mount_point kv_engine_version token token_path username password key_id secret_id role_id "
        "assume_role_kwargs region kubernetes_role kubernetes_jwt_path gcp_key_path gcp_keyfile_dict gcp_scopes "
        "azure_tenant_id azure_resource radius_host radius_secret radius_port jwt_role jwt_token jwt_token_path "
        "cert verify timeout proxies allow_redirects session adapter namespace strict_http ignore_exceptions request_header"
    )
    assert set(official.split()) <= {option.name for option in VaultBackend.declared_options()}


def test_deprecated_options_of_radius_are_accepted() -> None:
    told = "option 'radius_port' is ignored: Vault itself knows its RADIUS server\\.$"
    with pytest.warns(DeprecationWarning, match=told):
        asking(auth_type="radius", username="u", password="p", radius_port="1812")


def test_client_options_reach_the_wire(vault: VaultRig) -> None:
    by_token(vault, namespace="root").get_variable("absent")
    by_token(vault, request_header=False).get_variable("absent")
    first, second = vault.proxy.requests
    assert first.headers["X-Vault-Namespace"] == "root"
    assert first.headers["X-Vault-Request"] == "true"
    assert "X-Vault-Request" not in second.headers


def test_http_proxy_is_used(vault: VaultRig) -> None:
    forward = Proxy()

    with forward.fault(vault_answer({"data": {"value": "by proxy"}})):
        backend = asking(url="http://vault.example:8200", token="t", proxies={"http": forward.url})
        assert backend.get_variable("x") == "by proxy"
    assert forward.requests[0].path == "http://vault.example:8200/v1/secret/data/variables/x"
    forward.stop()


FROM_A_PROXY = {"data": {"value": "by proxy"}}


def test_proxies_of_the_environment_are_read_once_for_a_client(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests reads the whole environment for each request, hundreds of variables in a pod of a busy namespace."""
    forward = Proxy()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", forward.url)
    backend = asking(url="http://vault.example:8200", token="t")
    with forward.fault(vault_answer(FROM_A_PROXY)):
        assert backend.get_variable("x") == "by proxy"
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert backend.get_variable("y") == "by proxy"
    assert {request.path for request in forward.requests} == {
        f"http://vault.example:8200/v1/secret/data/variables/{key}" for key in "xy"
    }
    forward.stop()


def test_option_proxies_beats_the_environment(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Proxy()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with forward.fault(vault_answer(FROM_A_PROXY)):
        backend = asking(url="http://vault.example:8200", token="t", proxies={"http": forward.url})
        assert backend.get_variable("x") == "by proxy"
    forward.stop()


@pytest.mark.parametrize("where", ["environment", "option"])
def test_no_proxy_is_heeded(vault: VaultRig, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    vault.write("secret/variables/direct", {"value": "x"})
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    options = {"proxies": {"no_proxy": "127.0.0.1"}} if where == "option" else {}
    if where == "environment":
        monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert by_token(vault, **options).get_variable("direct") == "x"


@pytest.mark.parametrize("no_proxy", [None, "example.com,10.0.0.0/8"])
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://localhost:99999", "InvalidURL"),
        ("http://localhost:abc", "InvalidURL"),
        ("http://[::1", "InvalidURL"),
        ("localhost:8200", "InvalidSchema"),
        ("htp://localhost:99999", "InvalidSchema"),
        ("vault.example", "MissingSchema"),
    ],
)
def test_url_of_the_environment_that_is_none_is_misconfigured(
    monkeypatch: pytest.MonkeyPatch, url: str, code: str, no_proxy: str | None
) -> None:
    """A NO_PROXY has requests look at the port by another function, which raises a plain ValueError."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if no_proxy:
        monkeypatch.setenv("NO_PROXY", no_proxy)
    monkeypatch.setenv("VAULT_ADDR", url)
    with pytest.raises(StoreMisconfigured, match=code):
        asking(token="t").get_variable("x")


def test_no_proxy_names_the_host_as_it_is_sent(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An international name goes out in ASCII."""
    ascii_name, resolve = "xn--vult-loa.example", socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **how: resolve("127.0.0.1" if host == ascii_name else host, *args, **how),
    )
    vault.write("secret/variables/direct", {"value": "x"})
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", ascii_name)
    assert by_token(vault, url=f"http://väult.example:{vault.proxy.port}").get_variable("direct") == "x"


@pytest.mark.parametrize("spared", ["standby", "active"])
def test_no_proxy_of_one_port_is_not_that_of_where_it_redirects(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch, spared: str
) -> None:
    vault.write("secret/variables/redirected", {"value": "direct"})
    forward = Proxy()
    standby, active = f"localhost:{vault.proxy.port}", f"localhost:{vault.server.port}"  # of an IP, all ports count
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", forward.url)
    monkeypatch.setenv("no_proxy", {"standby": standby, "active": active}[spared])

    def redirected(request: Request) -> Reply | None:
        path = request.path.removeprefix(f"http://{standby}")
        return Reply(307, b"", {"Location": f"http://{active}{path}"})

    def forwarded(request: Request) -> Reply | None:
        return redirected(request) if standby in request.path else vault_answer(FROM_A_PROXY)

    with vault.proxy.fault(redirected), forward.fault(forwarded):
        value = by_token(vault, url=f"http://{standby}").get_variable("redirected")
    assert value == {"standby": "by proxy", "active": "direct"}[spared]
    forward.stop()


@pytest.mark.parametrize("name", ["VAULT_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("verify", [None, "true"])
def test_ca_bundle_of_the_environment(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch, name: str, verify: str | None
) -> None:
    """An explicit *verify* beats Vault's own variable, and requests' variables say what is trusted, as with hvac."""
    for other in ("VAULT_CACERT", "VAULT_CAPATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(other, raising=False)
    vault.write("secret/variables/encrypted", {"value": "x"})
    monkeypatch.setenv(name, str(vault.server.authority.bundle))
    backend = by_token(vault, url=f"https://127.0.0.1:{vault.server.tls_port}", verify=verify)
    if name == "VAULT_CACERT" and verify:
        with pytest.raises(StoreMisconfigured, match="CERTIFICATE_VERIFY_FAILED"):
            backend.get_variable("encrypted")
    else:
        assert backend.get_variable("encrypted") == "x"


TLS_VARIABLES = ["VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]


@pytest.mark.parametrize("name", TLS_VARIABLES)
def test_unreadable_tls_file_of_the_environment_is_named(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By its variable, where nobody set an option. Without TLS no bundle is read, but a client's certificate is."""
    for other in TLS_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "/nowhere/ca.pem")
    encrypted = by_token(vault, url=f"https://127.0.0.1:{vault.server.tls_port}")
    with pytest.raises(StoreMisconfigured, match=f": {name} names a file that cannot be read") as raised:
        encrypted.get_variable("x")
    assert "option '" not in str(raised.value)
    assert (CA_CURE in str(raised.value)) == (name != "VAULT_CLIENT_CERT")
    if name != "VAULT_CLIENT_CERT":
        vault.write("secret/variables/clear", {"value": "x"})
        assert by_token(vault).get_variable("clear") == "x"


def test_unreadable_tls_file_of_the_environment_that_an_option_replaces(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TLS_VARIABLES:
        monkeypatch.setenv(name, "/nowhere/ca.pem")
    monkeypatch.delenv("VAULT_CLIENT_CERT")
    vault.write("secret/variables/encrypted", {"value": "x"})
    url = f"https://127.0.0.1:{vault.server.tls_port}"
    assert by_token(vault, url=url, verify=str(vault.server.authority.bundle)).get_variable("encrypted") == "x"


def test_key_of_the_environment_is_none_without_its_certificate(
    vault: VaultRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hvac looks for the key where there is a certificate, and would not take a file of the one for the other."""
    for name in ("VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAULT_CLIENT_KEY", "/nowhere/client.key")
    vault.write("secret/variables/encrypted", {"value": "x"})
    url = f"https://127.0.0.1:{vault.server.tls_port}"
    assert by_token(vault, url=url, verify=str(vault.server.authority.bundle)).get_variable("encrypted") == "x"


def test_every_code_has_an_outcome_and_one_cure() -> None:
    """Advice that names a code which nothing raises, or which no table knows, would never be shown."""
    for code in replies.ADVICE:
        assert (
            isinstance(code, Outcome)
            or code in {**replies.OUTCOMES, **COMMON_OUTCOMES}
            or code in replies.BEFORE_VAULT
            or code in replies.MEANINGS.values()
        )


def test_ids_of_the_property_test_are_diverse() -> None:
    """The property test would pass on ids that are all refused, or all harmless."""
    ids = list(itertools.islice(hostile_ids(2000), 2000))
    assert len(set(ids)) > 1500
    assert sum(".." in secret_id for secret_id in ids) > 100
