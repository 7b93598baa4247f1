"""The fleet's cache on Redis as fleets run it: a cluster, Sentinel, TLS, users whose passwords change, failures of all."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import multiprocessing
import os
import re
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import redis
import redis.crc
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from airflow_providers_secrets.errors import ConfigurationError, SecretsError
from airflow_providers_secrets.lookup import answers, cache, deadline, operations, resolve, shared_cache
from airflow_providers_secrets.lookup.shared_cache import entries, redis_address, redis_credentials, redis_server
from airflow_providers_secrets.lookup.shared_cache.redis_address import Address
from airflow_providers_secrets.lookup.shared_cache.redis_cluster import REDIRECTIONS
from airflow_providers_secrets.lookup.shared_cache.redis_credentials import AwsToken, EntraToken
from airflow_providers_secrets.stores import base
from airflow_providers_secrets.testing.lookups import MAX_STALE, NEGATIVE_TTL, TTL, Clock, stored, warned
from airflow_providers_secrets.testing.proxy import Proxy, Reply
from airflow_providers_secrets.testing.speed import slowness
from tests.rigs import redis_fleet as fleet
from tests.rigs.aws import SsmRig
from tests.rigs.redis import valkey_server
from tests.support.ports import free_port
from tests.support.sharing import KEY, anew, sharing

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

SECRET = "S3cr3t-of-redis"


@functools.cache
def single() -> fleet.RedisServer:
    return fleet.RedisServer()


@functools.cache
def socket_server() -> fleet.RedisServer:
    server = single()
    server.client.config_get("port")
    return fleet.RedisServer(unixsocket="redis.sock")


@functools.cache
def locked() -> fleet.RedisServer:
    return fleet.RedisServer(requirepass=SECRET)


@functools.cache
def tls() -> fleet.RedisServer:
    return fleet.RedisServer(tls=True)


@functools.cache
def cluster() -> fleet.Cluster:
    return fleet.Cluster()


@functools.cache
def tls_cluster() -> fleet.Cluster:
    return fleet.Cluster(tls=True)


@functools.cache
def sentinels() -> fleet.Sentinels:
    return fleet.Sentinels()


@functools.cache
def valkey() -> fleet.RedisServer:
    return fleet.RedisServer(binary=valkey_server())


@functools.cache
def valkey_cluster() -> fleet.Cluster:
    return fleet.Cluster(binary=valkey_server())


@functools.cache
def valkey_sentinels() -> fleet.Sentinels:
    return fleet.Sentinels(binary=valkey_server())


FORMS = {
    "single": lambda: f"redis://127.0.0.1:{single().port}/3",
    "unix": lambda: f"unix://{socket_server().directory}/redis.sock?db=1",
    "password": lambda: f"redis://:{SECRET}@127.0.0.1:{locked().port}",
    "tls": lambda: f"rediss://127.0.0.1:{tls().port}{fleet.tls_query()}",
    "cluster": lambda: cluster().url,
    "tls-cluster": lambda: tls_cluster().url,
    "sentinel": lambda: sentinels().url,
    "valkey": lambda: f"redis://127.0.0.1:{valkey().port}/3",
    "valkey-cluster": lambda: valkey_cluster().url,
    "valkey-sentinel": lambda: valkey_sentinels().url,
}


def shared_of(backend: Any) -> Any:
    shared = answers.answers_of(backend.config)._opened()
    assert shared is not None
    return shared


def emptied(backend: Any) -> Any:
    shared = shared_of(backend)
    shared.clear()
    return backend


def warnings_of_redis(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in warned(caplog) if "Redis" in message]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may not answer within the 0.3 s that a lookup waits."""
    monkeypatch.setattr(redis_address, "REDIS_TIMEOUT", 2.0)
    monkeypatch.setattr(redis_address, "_addresses", {})


# Forms.


@pytest.mark.parametrize("form", FORMS)
def test_processes_share_answers_on_every_form(ssm: SsmRig, form: str, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"formed-{number}" for number in range(8)]
    paths = [stored(ssm, name, name) for name in names]
    backend = emptied(sharing(ssm, FORMS[form]()))
    with ssm.counted() as calls:
        for _ in range(3):
            assert anew(lambda: [backend.get_variable(name) for name in names]) == names
    assert calls == paths
    assert warned(caplog) == []


@pytest.mark.parametrize("form", ["single", "cluster", "sentinel", "valkey", "valkey-cluster", "valkey-sentinel"])
def test_an_operator_sees_and_clears_our_keys_alone(ssm: SsmRig, form: str) -> None:
    backend = emptied(sharing(ssm, FORMS[form](), shared_cache_prefix="ours[*]:"))
    shared = shared_of(backend)
    client = shared._connected()
    flight = "ours[*]:" + "0" * 64 + ":flight"  # ends by itself, and until then some process counts on it
    others = ["ours[*]:", "ours*", "airflow-secrets:x", "a:" + "0" * 64, flight]
    for other in others:
        client.set(other, "theirs")
    for number in range(20):
        backend.get_variable(f"absent-{number}")
    found = list(shared.entries())
    assert len(found) == 20
    assert all(0 <= entry.age < 60 and 64 < entry.size < 200 for entry in found)
    assert shared.remove(ssm.path("variables", "absent-3")) is True
    assert shared.remove(ssm.path("variables", "absent-3")) is False
    assert SECRET not in shared.where
    assert shared.clear() == 19
    assert list(shared.entries()) == []
    assert [client.get(other) for other in others] == [b"theirs"] * len(others)
    for other in others:
        client.delete(other)


def test_every_key_has_the_prefix_and_an_end(ssm: SsmRig) -> None:
    single().client.flushall()
    backend = sharing(ssm, FORMS["single"](), shared_cache_prefix="team-a:")
    backend.get_variable("absent")
    with shared_of(backend).flight("x", 600):
        client = redis.Redis.from_url(FORMS["single"]())
        keys = client.keys("*")
        assert len(keys) == 2
        assert all(key.startswith(b"team-a:") for key in keys)
        # Milliseconds. The lower bound is far from both ends, and ends a unit that is mistaken for another.
        assert all(60_000 < client.pttl(key) <= (TTL + NEGATIVE_TTL + MAX_STALE) * 1000 for key in keys)


def test_the_end_of_a_lookups_time_says_nothing_about_redis(ssm: SsmRig) -> None:
    shared = shared_of(emptied(sharing(ssm, FORMS["single"]())))
    shared.put("known", "x")
    answered = threading.Event()
    with entries.exchanges_until(time.monotonic() + 0.05):
        assert shared._in_time(lambda _: answered.wait(60)) is None
    answered.set()
    found = shared.get("known")
    assert found is not None
    assert found.text == "x"


def _cold(url: str, rig: SsmRig, barrier: Any, results: Any) -> None:
    backend = sharing(rig, url, timeout=120)
    barrier.wait(120)
    results.put([backend.get_variable(f"fleet-cold-{number}") for number in range(50)])


@pytest.mark.parametrize("form", ["cluster"])
def test_16_processes_ask_once_for_each_of_50_names(ssm: SsmRig, form: str) -> None:
    for number in range(25):
        stored(ssm, f"fleet-cold-{number}", f"value {number}")
    emptied(sharing(ssm, FORMS[form]()))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(16), context.Queue()
    # A busy machine may not answer one exchange within 0.3 s.
    url = FORMS[form]() + "?socket_timeout=20"
    children = [context.Process(target=_cold, args=(url, ssm, barrier, results)) for _ in range(16)]
    with ssm.counted() as calls:
        for child in children:
            child.start()
        values = [results.get(timeout=240) for _ in children]
        for child in children:
            child.join(60)
    assert values == [[f"value {number}" for number in range(25)] + [None] * 25] * 16
    assert len(calls) == 50


@pytest.mark.parametrize("form", ["single", "cluster"])
def test_a_flight_that_outlasts_its_time_does_not_end_the_next_ones(ssm: SsmRig, form: str) -> None:
    shared = shared_of(emptied(sharing(ssm, FORMS[form](), shared_cache_prefix="outlasted:")))
    client = shared._connected()
    key = f"outlasted:{shared._seals[0].token('x')}:flight"
    with shared.flight("x", 5):
        assert client.set(key, "another's", xx=True)  # as after the key's own end
    assert client.get(key) == b"another's"
    client.delete(key)


# What a cluster is asked, and TLS.


def times_asked(nodes: list[fleet.RedisServer], command: str) -> int:
    """Tell how many times *nodes* were sent *command*."""
    stats = [node.client.info("commandstats") for node in nodes]
    return sum(int(of.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for of in stats)


def test_reading_in_a_cluster_follows_redirections_and_asks_for_no_map(ssm: SsmRig) -> None:
    nodes = cluster().nodes
    names = [f"unmapped-{number}" for number in range(12)]
    backend = emptied(sharing(ssm, FORMS["cluster"]()))
    for name in names:
        stored(ssm, name, name)
        backend.get_variable(name)
    before = times_asked(nodes, "cluster|slots")
    with ssm.counted() as calls:
        for name in names:
            assert anew(lambda name=name: backend.get_variable(name)) == name
    assert calls == []
    assert times_asked(nodes, "cluster|slots") == before


def test_a_reader_that_is_sent_elsewhere_too_often_asks_for_the_map(ssm: SsmRig) -> None:
    nodes = cluster().nodes
    names = [f"mapped-{number}" for number in range(REDIRECTIONS * 4)]
    backend = emptied(sharing(ssm, FORMS["cluster"]()))
    for name in names:
        backend.get_variable(name)
    anew(lambda: None)
    reading = shared_of(backend)
    maps, sent_elsewhere = times_asked(nodes, "cluster|slots"), times_asked(nodes, "getrange")
    assert all(reading.get(ssm.path("variables", name)) is not None for name in names)
    assert times_asked(nodes, "cluster|slots") - maps == 1
    assert times_asked(nodes, "getrange") - sent_elsewhere <= len(names) + REDIRECTIONS


def test_nodes_that_leave_their_hosts_out_are_found(ssm: SsmRig) -> None:
    """Of a node that names the port alone, the certificate is checked for the host that it was asked at."""
    nodes = tls_cluster().nodes
    names = [f"unnamed-{number}" for number in range(12)]
    backend = emptied(sharing(ssm, FORMS["tls-cluster"](), timeout=60))
    for name in names:
        stored(ssm, name, name)
        backend.get_variable(name)
    for node in nodes:
        node.client.config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        before = times_asked(nodes, "cluster|slots")
        with ssm.counted() as calls:
            for name in names:
                assert anew(lambda name=name: backend.get_variable(name)) == name
        assert calls == []
        assert times_asked(nodes, "cluster|slots") == before
    finally:
        for node in nodes:
            node.client.config_set("cluster-preferred-endpoint-type", "ip")


def test_a_key_that_is_just_moving_is_found(ssm: SsmRig, caplog: pytest.LogCaptureFixture) -> None:
    moving = cluster()
    backend = emptied(sharing(ssm, moving.url, timeout=60))
    path = stored(ssm, "just-moving", "x")
    with ssm.counted() as calls:
        assert backend.get_variable("just-moving") == "x"
    assert calls == [path]
    (source, key) = next((node, keys[0]) for node in moving.nodes[:3] if (keys := node.client.keys("*")))
    target = next(node for node in moving.nodes[:3] if node is not source)
    slot = redis.crc.key_slot(key)
    target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", moving.identifier(source))
    source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", moving.identifier(target))
    try:
        source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        for _ in range(4):
            with ssm.counted() as calls:
                assert anew(lambda: backend.get_variable("just-moving")) == "x"
            assert calls == []
    finally:
        for node in (target, source, *moving.nodes[:3]):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", moving.identifier(target))
    assert warned(caplog) == []


def test_a_node_that_is_away_is_gone_around(ssm: SsmRig, caplog: pytest.LogCaptureFixture) -> None:
    url = cluster().url.replace("://", "://127.0.0.1:1,")
    path, backend = stored(ssm, "gone-around", "x"), emptied(sharing(ssm, url, timeout=60))
    with ssm.counted() as calls:
        for _ in range(12):
            assert anew(lambda: backend.get_variable("gone-around")) == "x"
    assert calls == [path]
    assert warned(caplog) == []


@pytest.mark.parametrize("form", ["tls", "tls-cluster"])
def test_a_certificate_that_is_renewed_is_read_again(
    ssm: SsmRig, form: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    files = fleet.client_certificate()
    place = FORMS[form]()
    for name, file in files.items():
        place = place.replace(file, f"{tmp_path}/{name}")
    right = {name: Path(file).read_bytes() for name, file in files.items()}
    unknown = trustme.CA().issue_cert("client.test")
    wrong = {
        "ssl_certfile": unknown.cert_chain_pems[0].bytes(),
        "ssl_keyfile": unknown.private_key_pem.bytes(),
    }

    def renew(content: dict[str, bytes]) -> None:
        for name, octets in content.items():
            (tmp_path / f"{name}.new").write_bytes(octets)
            (tmp_path / f"{name}.new").replace(tmp_path / name)

    renew(right)
    lookups = Lookups(ssm, emptied(sharing(ssm, place, timeout=60)))
    assert lookups.are_shared(lookups.go_on(2))
    renew(wrong)
    answers.reset_after_fork()
    lookups.go_on(2)
    assert len(warnings_of_redis(caplog)) == 1
    renew(right)
    clock.now += redis_server.REDIS_PAUSE
    assert lookups.are_shared(lookups.go_on(2))
    assert len(warnings_of_redis(caplog)) == 1


def connections(server: fleet.RedisServer) -> int:
    return int(server.client.info("stats")["total_connections_received"])


def test_a_cluster_that_serves_a_part_of_the_slots_is_of_use(ssm: SsmRig, caplog: pytest.LogCaptureFixture) -> None:
    options = {"cluster-enabled": "yes", "cluster-port": free_port(), "cluster-require-full-coverage": "no"}
    server = fleet.RedisServer(**options)
    shared = shared_of(sharing(ssm, f"redis+cluster://127.0.0.1:{server.port}", timeout=60))
    slot = redis.crc.key_slot(f"airflow-secrets:{shared._seals[0].token('x')}".encode())
    missing = slot + 1 if slot < fleet.SLOTS // 2 else slot - 1
    served = (0, missing - 1, missing + 1, fleet.SLOTS - 1)
    server.client.execute_command("CLUSTER ADDSLOTSRANGE", *served)
    fleet.until(lambda: b"cluster_state:ok" in fleet.raw(server, "CLUSTER INFO"), "it serves what it has")
    shared.put("x", "y")
    assert shared.get("x").text == "y"
    assert warned(caplog) == []
    server.stop()


def test_a_process_connects_once(ssm: SsmRig) -> None:
    backend = emptied(sharing(ssm, FORMS["single"]()))
    anew(lambda: None)
    before = connections(single())
    for number in range(3):
        assert backend.get_variable(f"absent-{number}") is None
    assert connections(single()) == before + 1


def test_a_reader_of_a_cluster_connects_once_to_each_node(ssm: SsmRig) -> None:
    emptied(sharing(ssm, FORMS["cluster"]()))
    anew(lambda: None)
    reading = shared_of(sharing(ssm, FORMS["cluster"]()))
    before = [connections(node) for node in cluster().nodes]
    for number in range(REDIRECTIONS - 1):
        assert reading.get(f"absent-{number}") is None
    made = [connections(node) - number for node, number in zip(cluster().nodes, before, strict=True)]
    assert max(made) == 1, made


def test_a_child_takes_the_client_that_its_parent_made(ssm: SsmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Address] = []
    make = Address._made

    def noted(self: Address) -> Any:
        made.append(self)
        return make(self)

    monkeypatch.setattr(Address, "_made", noted)
    monkeypatch.setattr(shared_cache, "_loaded", set())
    backend = sharing(ssm, FORMS["single"]())
    resolve.prepare(backend.config)
    answers._after_in_child()
    assert backend.get_variable("absent") is None
    assert len(made) == 1


@pytest.mark.parametrize("form", ["tls", "tls-cluster"])
def test_certificates_are_read_once_for_all_children(ssm: SsmRig, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system trusts takes longer to read than all the rest of a child's first lookup."""
    read: list[int] = []
    create = ssl.create_default_context
    path, backend = stored(ssm, "read-once", "x"), emptied(sharing(ssm, FORMS[form]()))
    monkeypatch.setattr(redis_address, "_addresses", {})
    monkeypatch.setattr(ssl, "create_default_context", lambda: read.append(1) or create())
    with ssm.counted() as calls:
        for _ in range(5):
            assert anew(lambda: backend.get_variable("read-once")) == "x"
    assert calls == [path]
    assert read == [1]


def test_an_encrypted_key_without_its_password_is_told(
    ssm: SsmRig, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenSSL by itself would ask for it at the terminal, and wait."""
    key = load_pem_private_key(Path(fleet.client_certificate()["ssl_keyfile"]).read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"S3cr3t-of-the-key"))
    )
    url = FORMS["tls"]().replace(fleet.client_certificate()["ssl_keyfile"], str(encrypted))
    Lookups(ssm, sharing(ssm, url, timeout=60)).go_on(2)
    assert len(warnings_of_redis(caplog)) == 1
    lookups = Lookups(ssm, emptied(sharing(ssm, f"{url}&ssl_password=S3cr3t-of-the-key", timeout=60)))
    assert lookups.are_shared(lookups.go_on(2))
    assert "S3cr3t" not in caplog.text


@pytest.mark.parametrize(
    "asked",
    [
        "ssl_min_version=772",
        "ssl_ciphers=ECDHE-RSA-AES256-GCM-SHA384",
        "ssl_include_verify_flags=VERIFY_CRL_CHECK_LEAF",
        "ssl_validate_ocsp=true",
    ],
)
def test_what_a_url_asks_of_tls_is_kept(
    ssm: SsmRig, asked: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The server speaks TLS 1.2 alone; its certificate's key is none of RSA, and names neither CRL nor OCSP."""
    skip_without(asked)
    with fleet.speaking_tls("127.0.0.1", single().port, ssl.TLSVersion.TLSv1_2) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={fleet.ca_file()}"
        lookups = Lookups(ssm, emptied(sharing(ssm, url, timeout=60)))
        assert lookups.are_shared(lookups.go_on(2))
        assert warnings_of_redis(caplog) == []
        Lookups(ssm, sharing(ssm, f"{url}&{asked}", timeout=60)).go_on(2)
    assert len(warnings_of_redis(caplog)) == 1


def skip_without(query: str) -> None:
    """Skip a test of parameters that this redis-py does not have."""
    for name in parse_qs(query):
        if name not in inspect.signature(redis.connection.SSLConnection.__init__).parameters:
            pytest.skip(f"redis {redis.__version__} has no {name}")


TRUSTING = {
    "a file": lambda: f"ssl_ca_certs={fleet.ca_file()}",
    "text": lambda: f"ssl_ca_data={quote(Path(fleet.ca_file()).read_text(), safe='')}",
    "a directory": lambda: f"ssl_ca_path={fleet.ca_directory()}",
    "no OCSP": lambda: f"ssl_ca_certs={fleet.ca_file()}&ssl_validate_ocsp=false&ssl_validate_ocsp_stapled=false",
    "flags": lambda: (
        f"ssl_ca_certs={fleet.ca_file()}"
        "&ssl_include_verify_flags=VERIFY_CRL_CHECK_LEAF&ssl_exclude_verify_flags=VERIFY_CRL_CHECK_LEAF"
    ),
}


@pytest.mark.parametrize("trusting", TRUSTING)
def test_an_authority_may_be_named_in_any_way(
    ssm: SsmRig, trusting: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    skip_without(query := TRUSTING[trusting]())
    with fleet.speaking_tls("127.0.0.1", single().port) as port:
        lookups = Lookups(ssm, emptied(sharing(ssm, f"rediss://127.0.0.1:{port}?{query}", timeout=60)))
        assert lookups.are_shared(lookups.go_on(2))
    assert warnings_of_redis(caplog) == []


def test_a_certificate_that_is_not_to_be_checked_may_be_for_any_host(
    ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with fleet.speaking_tls("another.test", single().port) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none"
        lookups = Lookups(ssm, emptied(sharing(ssm, url, timeout=60)))
        assert lookups.are_shared(lookups.go_on(2))
    assert warnings_of_redis(caplog) == []


def state_of(port: int) -> bytes:
    """What a Sentinel answers about its one primary, which is on *port*."""
    said = {"name": "fleet", "ip": "127.0.0.1", "port": str(port), "flags": "master", "num-other-sentinels": "0"}
    words = [word.encode() for pair in said.items() for word in pair]
    return b"*1\r\n*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def test_sentinels_and_their_primary_speak_tls(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    name = "127.0.0.1"
    with (
        fleet.speaking_tls(name, single().port) as primary,
        fleet.answering(state_of(primary)) as plain,
        fleet.speaking_tls(name, plain) as sentinel,
    ):
        url = f"rediss+sentinel://127.0.0.1:{sentinel}/fleet/0?ssl_ca_certs={fleet.ca_file()}"
        lookups = Lookups(ssm, emptied(sharing(ssm, url, timeout=60)))
        assert lookups.are_shared(lookups.go_on(2))
    assert warnings_of_redis(caplog) == []


# The host's directory before the fleet's Redis.


def both(form: str, directory: Path) -> str:
    return f"file://{directory}/shared,{FORMS[form]()}"


def commands(server: fleet.RedisServer) -> int:
    return int(server.client.info("stats")["total_commands_processed"])


def test_a_hit_of_the_host_costs_no_round_trip_and_one_of_the_fleet_is_kept_with_its_age(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(cache, "clock", clock)
    monkeypatch.setattr(entries, "wall_clock", clock)
    path = stored(ssm, "layered", "one")
    emptied(sharing(ssm, FORMS["single"]()))
    anew(lambda: sharing(ssm, both("single", tmp_path / "host-a")).get_variable("layered"))
    ssm.put(path, "two")
    clock.now += TTL * cache.JITTER[0] - 5
    on_b = sharing(ssm, both("single", tmp_path / "host-b"))
    with ssm.counted() as calls:
        before = commands(single())
        assert anew(lambda: on_b.get_variable("layered")) == "one"
        asked = commands(single()) - before
        assert anew(lambda: on_b.get_variable("layered")) == "one"
        assert commands(single()) - before - asked == 1 + 0  # that of looking itself
    assert calls == []
    assert asked > 1
    clock.now += TTL * (1 - cache.JITTER[0]) + 5
    assert anew(lambda: on_b.get_variable("layered")) == "two"
    # The host's own is too old by now for the first one, but the fleet's is not.
    with ssm.counted() as calls:
        assert anew(lambda: sharing(ssm, both("single", tmp_path / "host-a")).get_variable("layered")) == "two"
    assert calls == []


@pytest.mark.parametrize("written", [lambda places: places, json.dumps, ", ".join, tuple])
def test_a_list_may_be_written_in_any_way(ssm: SsmRig, tmp_path: Path, written: Any) -> None:
    places = [f"file://{tmp_path}/shared", "redis+cluster://a:1,b:2", "redis+sentinel://a,b:2/service"]
    assert sharing(ssm, written(places)).config.shared_cache == tuple(places)


def test_the_hosts_directory_comes_first(ssm: SsmRig) -> None:
    with pytest.raises(ConfigurationError, match="directory before the fleet's Redis"):
        sharing(ssm, ["redis://h", "file"])


def test_who_has_waited_for_an_answer_of_the_host_keeps_nobody_of_the_fleet_from_asking(
    ssm: SsmRig, tmp_path: Path
) -> None:
    """The fleet's lock is for whoever goes on to ask the store."""
    shared = shared_of(emptied(sharing(ssm, both("single", tmp_path))))
    shared.put("awaited", "x")

    client = redis.Redis.from_url(FORMS["single"]())

    def locks_of_the_fleet() -> int:
        return len(client.keys("*:flight"))

    with shared.flight("awaited", 30.0, lambda entry: entry.text == "x"):
        assert locks_of_the_fleet() == 0
    with shared.flight("awaited", 30.0, lambda entry: entry.text == "y"):
        assert locks_of_the_fleet() == 1
    assert locks_of_the_fleet() == 0


def test_who_waits_for_host_and_fleet_waits_no_longer_than_for_one(
    ssm: SsmRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = shared_of(emptied(sharing(ssm, both("single", tmp_path))))
    host, of_fleet = shared._layers
    granted: list[float] = []
    really = of_fleet.flight
    monkeypatch.setattr(of_fleet, "flight", lambda name, seconds: granted.append(seconds) or really(name, seconds))
    with host.flight("waited-for", 60), shared.flight("waited-for", 0.05):
        assert granted == [0.0]


def test_an_operator_sees_both_the_hosts_and_the_fleets(ssm: SsmRig, tmp_path: Path) -> None:
    shared = shared_of(emptied(sharing(ssm, both("single", tmp_path))))
    shared.put("both", "x")
    shared.probe()
    assert len(list(shared.entries())) == 2
    assert shared.clear() == 2
    away = shared_of(sharing(ssm, [f"file://{tmp_path}/shared", "redis://127.0.0.1:1"]))
    with pytest.raises(SecretsError, match="refuses the connection"):
        away.probe()


def test_the_host_goes_on_while_the_fleets_cache_is_away(
    ssm: SsmRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [stored(ssm, f"layered-{number}", "x") for number in range(5)]
    backend = sharing(ssm, [f"file://{tmp_path}/shared", "redis://127.0.0.1:1"])
    with ssm.counted() as calls:
        for _ in range(2):
            assert anew(lambda: [backend.get_variable(f"layered-{number}") for number in range(5)]) == ["x"] * 5
    assert calls == paths
    (warning,) = warnings_of_redis(caplog)
    assert "refuses the connection" in warning


# Credentials.


@pytest.fixture
def account() -> Iterator[str]:
    """A user that may do what the documentation grants, on our keys alone."""
    server = single()
    rights = ["+getrange", "+set", "+get", "+del", "+eval", "+scan", "+pttl", "+strlen"]
    server.client.execute_command(
        "ACL", "SETUSER", "airflow", "reset", "on", f">{SECRET}", "~airflow-secrets:*", *rights
    )
    yield "airflow"
    server.client.execute_command("ACL", "DELUSER", "airflow")


def changed(password: str) -> None:
    """Change the password and end the sessions that were opened with the old one."""
    client = single().client
    client.execute_command("ACL", "SETUSER", "airflow", "resetpass", f">{password}")
    client.execute_command("CLIENT", "KILL", "USER", "airflow")


def test_the_documented_rights_suffice(ssm: SsmRig, account: str, caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://{account}:{SECRET}@127.0.0.1:{single().port}"
    path, backend = stored(ssm, "granted", "x"), emptied(sharing(ssm, url))
    with ssm.counted() as calls:
        for _ in range(2):
            assert anew(lambda: backend.get_variable("granted")) == "x"
    assert calls == [path]
    assert len(list(shared_of(backend).entries())) == 1
    assert warned(caplog) == []


def test_a_password_may_be_percent_encoded(ssm: SsmRig, account: str, caplog: pytest.LogCaptureFixture) -> None:
    changed("7/S3@cr:3t%41")
    url = f"redis://{account}:{quote('7/S3@cr:3t%41', safe='')}@127.0.0.1:{single().port}"
    lookups = Lookups(ssm, emptied(sharing(ssm, url, timeout=60)))
    assert lookups.are_shared(lookups.go_on(2))
    assert warned(caplog) == []


def test_two_logins_to_one_server_are_two(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://127.0.0.1:{locked().port}"
    lookups = Lookups(ssm, emptied(sharing(ssm, url, shared_cache_credentials={"password": SECRET}, timeout=60)))
    assert lookups.are_shared(lookups.go_on(2))
    assert warned(caplog) == []
    wrong = {"password": f"{SECRET}-wrong"}
    Lookups(ssm, sharing(ssm, url, shared_cache_credentials=wrong, timeout=60)).go_on(2)
    (warning,) = warnings_of_redis(caplog)
    assert "refuses the user or the password" in warning


def test_the_login_of_the_primary_is_none_of_the_sentinels(ssm: SsmRig, caplog: pytest.LogCaptureFixture) -> None:
    """Of those the query says who logs in; here, that is nobody by name."""
    client = sentinels().primary.client
    client.execute_command("ACL", "SETUSER", "airflow", "reset", "on", f">{SECRET}", "allcommands", "allkeys")
    url = sentinels().url.replace("://:", "://airflow:")
    lookups = Lookups(ssm, emptied(sharing(ssm, url, timeout=60)))
    assert lookups.are_shared(lookups.go_on(2))
    assert warned(caplog) == []
    client.execute_command("ACL", "DELUSER", "airflow")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_blanks_are_part_of_a_password_and_the_line_s_end_is_not(
    ssm: SsmRig, account: str, end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed(f" {SECRET}\t")
    file = tmp_path / "password"
    file.write_bytes(f" {SECRET}\t{end}".encode())
    url = f"redis://{account}@127.0.0.1:{single().port}?password_file={file}"
    path, backend = stored(ssm, "blank", "x"), emptied(sharing(ssm, url))
    with ssm.counted() as calls:
        for _ in range(2):
            assert anew(lambda: backend.get_variable("blank")) == "x"
    assert calls == [path]
    assert warned(caplog) == []


@pytest.mark.parametrize("by", ["query", "option", "variable"])
def test_a_password_that_changes_is_read_again(
    ssm: SsmRig,
    account: str,
    by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "password"
    options: dict[str, Any] = {}
    url = f"redis://{account}@127.0.0.1:{single().port}"
    if by == "query":
        url += f"?password_file={file}"
    elif by == "option":
        options["shared_cache_credentials"] = json.dumps({"username": account, "password_file": str(file)})
    else:
        url += "?password_env=CACHE_PASSWORD"

    def say(password: str) -> None:
        file.write_text(f"{password}\n")
        monkeypatch.setenv("CACHE_PASSWORD", password)

    say(SECRET)
    backend = emptied(sharing(ssm, url, **options))
    shared = shared_of(backend)
    for number in range(3):
        password = f"{SECRET}-{number}"
        changed(password)
        say(password)
        shared.put(f"name-{number}", "x")
        assert shared.get(f"name-{number}").text == "x"
    assert warned(caplog) == []
    assert SECRET not in caplog.text + repr(backend.options["shared_cache"]) + repr(shared._address)


@pytest.mark.parametrize(
    ("credentials", "module", "cure"),
    [
        ("aws-iam&user=airflow&cluster_name=cache", "botocore.signers", "boto3 is not installed. Install it with: "),
        ("entra-id", "azure.identity", "azure-identity is not installed. Install it with: "),
    ],
)
def test_the_sdk_of_a_token_that_is_not_installed_is_named_with_its_extra(
    ssm: SsmRig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    credentials: str,
    module: str,
    cure: str,
) -> None:
    """And no lookup fails: the cache is left out."""
    stored(ssm, "without-sdk", "x")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(redis_address, "_addresses", {})
    backend = sharing(ssm, f"redis://127.0.0.1:{single().port}/0?credentials={credentials}")
    assert backend.get_variable("without-sdk") == "x"
    assert any(cure in message for message in warned(caplog)), warned(caplog)


def test_a_password_that_cannot_be_read_is_told(
    ssm: SsmRig, account: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(ssm, "unread", "x")
    url = f"redis://{account}@127.0.0.1:{single().port}?password_file={tmp_path}/absent"
    assert sharing(ssm, url).get_variable("unread") == "x"
    (warning,) = warnings_of_redis(caplog)
    assert f"cannot be read from file '{tmp_path}/absent': No such file" in warning


def test_an_aws_token_is_a_signed_request_for_the_user(
    ssm: SsmRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    query = "credentials=aws-iam&user=airflow&cluster_name=fleet&region=eu-west-1"
    address = Address(f"redis://h?{query}")
    assert isinstance(address.credentials, AwsToken)
    user, token = address.credentials.get_credentials()
    assert (user, token.partition("/")[0]) == ("airflow", "fleet")
    parts = parse_qs(urlsplit(f"//{token}").query)
    assert (parts["Action"], parts["User"], parts["X-Amz-Expires"]) == (["connect"], ["airflow"], ["900"])
    assert parts["X-Amz-Credential"][0].endswith("/eu-west-1/elasticache/aws4_request")
    assert len(parts["X-Amz-Signature"][0]) == 64
    assert address.credentials.get_credentials()[1] == token  # kept, until it is refused or ends
    # Redis takes any password for this user, so what is seen here is that it is asked for one.
    single().client.execute_command("ACL", "SETUSER", "airflow", "reset", "on", "nopass", "allcommands", "allkeys")
    path, backend = stored(ssm, "by-iam", "x"), emptied(sharing(ssm, f"redis://127.0.0.1:{single().port}?{query}"))
    with ssm.counted() as calls:
        for _ in range(2):
            assert anew(lambda: backend.get_variable("by-iam")) == "x"
    assert calls == [path]
    assert warned(caplog) == []
    single().client.execute_command("ACL", "DELUSER", "airflow")


@pytest.mark.parametrize(
    ("said", "kind"), [("", None), ("&serverless=true", ["ServerlessCache"]), ("&serverless=false", None)]
)
@pytest.mark.parametrize(("named", "service"), [("", "elasticache"), ("&service=memorydb", "memorydb")])
def test_an_aws_token_is_for_the_service_and_kind_of_cache_that_is_named(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: Any, named: str, service: str
) -> None:
    """ElastiCache user guide, "Authenticating with IAM": a serverless cache takes no other."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    query = f"credentials=aws-iam&user=airflow&cluster_name=fleet&region=eu-west-1{said}{named}"
    token = Address(f"redis://h?{query}").credentials.get_credentials()[1]
    parts = parse_qs(urlsplit(f"//{token}").query)
    assert parts.get("ResourceType") == kind
    assert parts["X-Amz-Credential"][0].endswith(f"/eu-west-1/{service}/aws4_request")


@pytest.mark.parametrize(("said", "region"), [("", "eu-central-1"), ("&region=eu-west-1", "eu-west-1")])
def test_an_aws_token_is_for_the_region_of_the_environment_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch, said: str, region: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    address = Address(f"redis://h?credentials=aws-iam&user=airflow&cluster_name=fleet{said}")
    parts = parse_qs(urlsplit(f"//{address.credentials.get_credentials()[1]}").query)
    assert parts["X-Amz-Credential"][0].endswith(f"/{region}/elasticache/aws4_request")


def test_a_token_is_renewed_a_minute_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS takes one for 15 minutes."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    now, asked, made = 1000.0, [], AwsToken.made
    monkeypatch.setattr(redis_credentials, "time", SimpleNamespace(time=lambda: now, monotonic=time.monotonic))
    monkeypatch.setattr(AwsToken, "made", lambda self: (asked.append(now), made(self))[1])
    token = Address("redis://h?credentials=aws-iam&user=airflow&cluster_name=fleet&region=eu-west-1").credentials
    for now in (1000.0, 1839.0, 1840.0, 1841.0):  # noqa: B007  # the clock reads it
        token.get_credentials()
    assert asked == [1000.0, 1840.0]


def test_a_refused_token_is_asked_for_anew(ssm: SsmRig, account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def made(self: AwsToken) -> tuple[Any, float]:
        asked.append(1)
        return ("airflow", f"{SECRET}-{len(asked)}"), 1e12

    monkeypatch.setattr(AwsToken, "made", made)
    query = "credentials=aws-iam&user=airflow&cluster_name=fleet"
    shared = shared_of(sharing(ssm, f"redis://127.0.0.1:{single().port}?{query}"))
    for number in (1, 2, 3):
        changed(f"{SECRET}-{number}")
        shared.put(f"anew-{number}", "x")
        assert shared.get(f"anew-{number}").text == "x"
    assert len(asked) == 3


def test_a_child_holds_no_token_of_its_parents(ssm: SsmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another one's by then: a task that has been given credentials of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPARENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    query = "credentials=aws-iam&user=airflow&cluster_name=fleet&region=eu-west-1"
    shared = shared_of(sharing(ssm, f"redis://127.0.0.1:{single().port}?{query}"))
    token = shared._address.credentials
    parents = token.get_credentials()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.environ["AWS_ACCESS_KEY_ID"] = "AKIACHILD"
            os.write(writer, token.get_credentials()[1].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        childs = result.read()
    os.waitpid(child, 0)
    assert "Credential=AKIACHILD" in childs
    assert "Credential=AKIAPARENT" in parents[1]
    assert token.get_credentials() == parents


class _Identity(BaseHTTPRequestHandler):
    """A managed identity's endpoint."""

    def do_GET(self) -> None:
        import base64

        payload = base64.urlsafe_b64encode(json.dumps({"oid": "object-id"}).encode()).decode().rstrip("=")
        body = json.dumps({"access_token": f"h.{payload}.s", "expires_on": "4102444800", "token_type": "Bearer"})
        type(self).asked.append(parse_qs(urlsplit(self.path).query))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    asked: list[dict[str, list[str]]] = []

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("more", "named", "client_id"),
    [("", "object-id", None), ("&user=another", "another", None), ("&client_id=of-two", "object-id", ["of-two"])],
    ids=["the only one", "user", "client_id"],
)
def test_an_entra_token_is_the_principals(
    monkeypatch: pytest.MonkeyPatch, more: str, named: str, client_id: list[str] | None
) -> None:
    pytest.importorskip("azure.identity")
    monkeypatch.setattr(_Identity, "asked", [])
    with HTTPServer(("127.0.0.1", 0), _Identity) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        address = Address(f"redis://h?credentials=entra-id{more}")
        assert isinstance(address.credentials, EntraToken)
        user, token = address.credentials.get_credentials()
        server.shutdown()
    assert user == named
    assert token.startswith("h.")
    (asked,) = _Identity.asked
    assert asked["resource"] == ["https://redis.azure.com"]
    assert asked.get("client_id") == client_id


# Tokens that are not given.


@pytest.fixture
def left_out(ssm: SsmRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[str], str]:
    """Look an id up with such credentials for Redis, and return why the shared cache was left out.

    The store answers nevertheless, and every thread that asked for a token ends.
    """

    def looked_up(credentials: str) -> str:
        monkeypatch.setattr(redis_credentials, "TOKEN_SECONDS", 3.5)  # longer than any exchange here
        stored(ssm, "without-token", "x")
        backend = sharing(ssm, f"redis://127.0.0.1:{single().port}?credentials={credentials}", timeout=12, max_stale=0)
        waits: list[float] = []
        call = redis_server.DeadlineCall
        monkeypatch.setattr(redis_server, "DeadlineCall", lambda *given: (waits.append(given[1]), call(*given))[1])
        before = set(threading.enumerate())
        assert backend.get_variable("without-token") == "x"
        assert max(waits) <= 3  # a quarter
        for thread in set(threading.enumerate()) - before:
            if thread.name == "secrets-lookup":
                thread.join(60)
                assert not thread.is_alive()
        (warning,) = warnings_of_redis(caplog)
        return warning

    return looked_up


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set the settings of AWS's default profile."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(*settings: str) -> None:
        base = "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
        (tmp_path / "config").write_text("\n".join((base, "[default]", *settings)))

    return write


AWS_IAM = "aws-iam&user=airflow&cluster_name=fleet&region=eu-west-1"


@pytest.mark.parametrize(
    ("prints", "reason"), [("", "no answer in time"), ("head -c 99999 /dev/zero", "prints more than 65536 bytes")],
    ids=["hangs", "endless"],
)  # fmt: skip
def test_a_command_that_does_not_end_holds_no_thread(
    left_out: Callable[[str], str], profile: Callable[..., None], tmp_path: Path, prints: str, reason: str
) -> None:
    """Nor memory, if it prints for ever; and it is not left running."""
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\necho $$ >>{tmp_path}/pids\n{prints}\nexec sleep 3600\n")
    command.chmod(0o700)
    profile(f"credential_process = {command}")
    assert reason in left_out(AWS_IAM)
    pids = (tmp_path / "pids").read_text().split()
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # killed, and waited for
            os.kill(int(pid), 0)
    assert prints or len(pids) == 1  # nobody waits for another one


def test_a_command_may_take_longer_than_an_exchange(
    profile: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection has the token."""
    keys = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": SECRET}
    (tmp_path / "keys").write_text(json.dumps(keys))
    profile(f"credential_process = cat {tmp_path}/keys")
    token = AwsToken("airflow", "fleet", "eu-west-1", "elasticache", serverless=False)
    monkeypatch.setattr(redis_credentials, "seconds_left", lambda: 1.0)  # as it was when the exchange began
    until = base.deadline.set(time.monotonic())
    try:
        assert token.get_credentials()[0] == "airflow"
        assert not base.seconds_left()
    finally:
        base.deadline.reset(until)


def test_a_profile_that_asks_for_a_code_prompts_nobody(
    left_out: Callable[[str], str], profile: Callable[..., None]
) -> None:
    """It would at the terminal of who runs a command, or wait there for ever."""
    profile("role_arn = arn:aws:iam::1:role/x", "source_profile = base", "mfa_serial = arn:aws:iam::1:mfa/x")
    assert "the profile's 'mfa_serial' asks for an MFA code" in left_out(AWS_IAM)


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch, profile: Callable[..., None]) -> Iterator[Proxy]:
    """Where a profile's role is assumed."""
    profile("role_arn = arn:aws:iam::123456789012:role/x", "source_profile = base", "region = eu-west-1")
    server = Proxy()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
    yield server
    server.stop()


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Where a managed identity of Azure gets its tokens."""
    pytest.importorskip("azure.identity")
    server = Proxy()
    monkeypatch.setenv("IDENTITY_ENDPOINT", server.url)
    monkeypatch.setenv("IDENTITY_HEADER", SECRET)
    yield server
    server.stop()


UNENDING = {
    "hangs": Reply(hang=True),
    "drips": Reply(200, b" " * 1_000_000, {"Content-Type": "application/json"}, drip=0.05),
    "endless": Reply(200, b" " * 10_000, {"Content-Type": "application/json"}, endless=True),
}


@pytest.mark.parametrize(
    ("cloud", "does"),
    [("sts", "hangs"), ("sts", "drips"), ("sts", "endless"), ("identity", "hangs"), ("identity", "endless")],
)
def test_a_token_endpoint_that_does_not_end_holds_no_thread(
    request: pytest.FixtureRequest, left_out: Callable[[str], str], cloud: str, does: str
) -> None:
    server = request.getfixturevalue(cloud)
    with server.fault(UNENDING[does]):
        reason = left_out(AWS_IAM if cloud == "sts" else "entra-id")
    assert server.requests
    assert does != "endless" or "has no credentials to give" in reason  # it was left while there was time


def test_entras_token_endpoint_gets_no_login_of_ours_and_leads_nowhere(
    identity: Proxy, left_out: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    elsewhere = Proxy()
    redirect = Reply(307, headers={"Location": f"{elsewhere.url}/token"})
    with identity.fault(redirect), elsewhere.fault(Reply(404)):
        assert "azure-identity has no credentials to give" in left_out("entra-id")
    assert identity.requests
    assert not [request for request in identity.requests if "Authorization" in request.headers]
    assert not elsewhere.requests
    elsewhere.stop()


# Failover.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which Redis is left alone; the test turns it."""
    clock = Clock()
    monkeypatch.setattr(redis_server, "clock", clock)
    return clock


class Lookups:
    """Lookups of names that were never asked for before, each answered rightly."""

    def __init__(self, rig: SsmRig, backend: Any) -> None:
        self.rig, self.backend, self.number = rig, backend, 0

    def go_on(self, times: int = 12) -> list[str]:
        names = []
        for _ in range(times):
            self.number += 1
            name = f"going-on-{self.number}"
            stored(self.rig, name, name)
            assert self.backend.get_variable(name) == name
            names.append(name)
        return names

    def are_shared(self, names: list[str]) -> bool:
        with self.rig.counted() as calls:
            assert anew(lambda: [self.backend.get_variable(name) for name in names]) == names
        return calls == []


def test_a_cluster_whose_primary_dies(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    lost = fleet.Cluster(fails_over=True)
    lookups = Lookups(ssm, sharing(ssm, lost.url, timeout=60))
    assert lookups.are_shared(lookups.go_on())
    lookups.go_on()
    lost.nodes[0].kill()
    lookups.go_on()
    (warning,) = warnings_of_redis(caplog)
    assert "is left out for 15 s" in warning
    for node in lost.nodes[1:]:
        fleet.until(
            lambda node=node: (
                b"cluster_state:ok" in fleet.raw(node, "CLUSTER INFO")
                and any(b"master" in line and f":{lost.nodes[3].port}@".encode() in line for line in fleet._nodes(node))
            ),
            "the replica is elected",
        )
    clock.now += redis_server.REDIS_PAUSE
    assert lookups.are_shared(lookups.go_on())
    assert len(warnings_of_redis(caplog)) == 1
    lost.stop()


def test_a_slot_that_moves_fails_nothing(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    moving = cluster()
    lookups = Lookups(ssm, emptied(sharing(ssm, moving.url, timeout=60)))
    names = lookups.go_on(6)
    source, target = moving.nodes[1], moving.nodes[2]
    bound = fleet.SLOTS // 3
    ids = {node.port: moving.identifier(node) for node in (source, target)}
    for slot in range(bound, bound + 300):
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source.port])
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target.port])
        for key in source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        if slot % 30 == 0:
            names += lookups.go_on(2)
        for node in (target, source, moving.nodes[0]):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target.port])
    names += lookups.go_on(6)
    assert lookups.are_shared(names)
    assert warnings_of_redis(caplog) == []


def test_sentinel_elects_another_primary(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    fleet_of_two = fleet.Sentinels()
    lookups = Lookups(ssm, sharing(ssm, fleet_of_two.url, timeout=60))
    assert lookups.are_shared(lookups.go_on(3))
    lookups.go_on(1)
    fleet_of_two.primary.kill()
    lookups.go_on()
    assert len(warnings_of_redis(caplog)) == 1
    with fleet_of_two.electing():
        fleet.until(
            lambda: fleet_of_two.replica.client.info("replication")["role"] == "master", "the replica is elected"
        )
    fleet.until(
        lambda: (
            (state := fleet_of_two.sentinel.client.sentinel_masters()[fleet_of_two.SERVICE])["port"]
            == fleet_of_two.replica.port
            and not state["is_sdown"]
        ),
        "Sentinel says so",
    )
    clock.now += redis_server.REDIS_PAUSE
    assert lookups.are_shared(lookups.go_on(3))
    assert len(warnings_of_redis(caplog)) == 1
    assert "S3cr3t" not in caplog.text
    fleet_of_two.stop()


def test_a_server_that_is_restarted_costs_nothing(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that ended meanwhile is opened anew."""
    server = fleet.RedisServer()
    lookups = Lookups(ssm, sharing(ssm, f"redis://127.0.0.1:{server.port}", timeout=60))
    lookups.go_on(2)
    server.kill()
    server.start()
    assert lookups.are_shared(lookups.go_on(2))
    assert warnings_of_redis(caplog) == []
    server.stop()


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many times a flight's lock was asked for: three times at most, without a pause."""
    tries: list[int] = []
    monkeypatch.setattr(redis_server, "pauses", lambda _: (tries.append(1) or 0.0 for _ in range(3)))
    return tries


def test_a_lock_is_ours_although_its_answer_was_lost(
    ssm: SsmRig, tries: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The client's second attempt finds it taken, and nobody is there to wait for."""
    single().client.flushall()
    with fleet.cutting(single().port, b"\r\nSET\r\n") as port:
        shared = shared_of(sharing(ssm, f"redis://127.0.0.1:{port}", timeout=60))
        with shared.flight("lost", 60):
            assert tries == [1]
            assert len(single().client.keys("*:flight")) == 1
        assert single().client.keys("*:flight") == []
    assert warned(caplog) == []


class Twice:
    """A client each of whose attempts at a lock is its second: the first one's answer was lost."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def set(self, *args: Any, **options: Any) -> Any:
        if options.get("nx"):
            self._client.set(*args, **options)
        return self._client.set(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("form", ["single", "cluster", "sentinel", "valkey-cluster"])
def test_a_lock_is_known_for_ours_on_every_form(ssm: SsmRig, form: str, tries: list[int]) -> None:
    shared = shared_of(emptied(sharing(ssm, FORMS[form](), timeout=60)))
    shared._client = Twice(shared._connected())
    for number in range(8):
        with shared.flight(f"known-{number}", 60):
            assert len(tries) == number + 1


@pytest.mark.parametrize("form", ["single", "cluster"])
def test_who_waits_for_anothers_lock_asks_once_whose_it_is(ssm: SsmRig, form: str, tries: list[int]) -> None:
    nodes = [single()] if form == "single" else cluster().nodes
    others, ours = (shared_of(sharing(ssm, FORMS[form](), timeout=60)) for _ in range(2))
    with others.flight("others", 60):
        before = times_asked(nodes, "getrange")
        tries.clear()
        with ours.flight("others", 60):
            assert len(tries) == 3
        assert times_asked(nodes, "getrange") - before == 1
        assert ours._in_time(lambda client: client.exists(f"airflow-secrets:{ours._seals[0].token('others')}:flight"))


def test_a_full_server_is_still_read(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    server = fleet.RedisServer(**{"maxmemory-policy": "noeviction"})
    lookups = Lookups(ssm, sharing(ssm, f"redis://127.0.0.1:{server.port}", timeout=60))
    before = lookups.go_on(3)
    server.client.config_set("maxmemory", 1)
    lookups.go_on(3)
    assert lookups.are_shared(before)
    (warning,) = warnings_of_redis(caplog)
    assert "is not written to for 15 s: it is full. Give it an eviction policy" in warning
    server.client.config_set("maxmemory", 0)
    clock.now += redis_server.REDIS_PAUSE
    assert lookups.are_shared(lookups.go_on(3))
    server.stop()


def test_a_full_server_that_evicts_goes_on(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    server = fleet.RedisServer(**{"maxmemory-policy": "allkeys-lru"})
    used = server.client.info("memory")["used_memory"]
    server.client.config_set("maxmemory", used + 256 * 1024)
    shared = shared_of(sharing(ssm, f"redis://127.0.0.1:{server.port}"))
    for number in range(60):
        shared.put(f"evicting-{number}", "x" * 20_000)
    assert shared.get("evicting-59").text == "x" * 20_000
    assert shared.get("evicting-0") is None
    assert warnings_of_redis(caplog) == []
    server.stop()


def test_a_replica_is_read_and_told(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    server = sentinels().replica
    url = f"redis://:{fleet.Sentinels.PASSWORD}@127.0.0.1:{server.port}"
    Lookups(ssm, sharing(ssm, url, timeout=60)).go_on(4)
    (warning,) = warnings_of_redis(caplog)
    assert "is not written to for 15 s: it is a replica" in warning


def test_a_slow_server_costs_one_exchange(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    server = fleet.RedisServer()
    lookups = Lookups(ssm, sharing(ssm, f"redis://127.0.0.1:{server.port}", timeout=60))
    before = lookups.go_on(1)
    process = server.client.info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        lookups.go_on(10)
    finally:
        os.kill(process, signal.SIGCONT)
    (warning,) = warnings_of_redis(caplog)
    assert "no answer in time" in warning
    clock.now += redis_server.REDIS_PAUSE
    assert lookups.are_shared(before + lookups.go_on(2))
    server.stop()


def test_writing_many_secrets_waits_once_for_a_silent_server(
    ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fleet.RedisServer()
    backend = sharing(ssm, f"redis://127.0.0.1:{server.port}")
    backend.get_variable("written")  # which connects
    asked: list[Any] = []
    delete = redis.Redis.delete
    monkeypatch.setattr(redis.Redis, "delete", lambda *given: (asked.append(given), delete(*given))[1])
    process = server.client.info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        for text in ("one", "two", "three"):
            operations.write(backend, "variables", "written", text)
    finally:
        os.kill(process, signal.SIGCONT)
    (warning,) = warnings_of_redis(caplog)
    assert "no answer in time" in warning
    assert len(asked) == 1
    server.stop()


@pytest.mark.long
def test_a_server_that_answers_slowly_leaves_time_for_the_store(ssm: SsmRig, caplog: pytest.LogCaptureFixture) -> None:
    """Each of a lookup's exchanges is in time; all of them together would not be."""
    stored(ssm, "slowly", "x")
    with fleet.slowly(single().port, 0.85) as port:
        backend = sharing(ssm, f"redis://127.0.0.1:{port}?socket_timeout=10", timeout=4, max_stale=0)
        answered: list[str | None] = []
        threads = [threading.Thread(target=lambda: answered.append(backend.get_variable("slowly"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answered == ["x"] * 4
    assert not [message for message in warned(caplog) if "no answer within" in message]


NONSENSE = {
    "loading": (b"-LOADING Redis is loading the dataset in memory\r\n", "still loading its data"),
    "no number": (b"$S3cr3t\r\n", None),
    "no type": (b"S3cr3t\r\n", None),
    "huge": (b"$999999999999\r\nS3cr3t", "no answer in time"),
    "negative": (b"*-7\r\n", None),
    "nested": (b"*1\r\n" * 3000, None),
    "a list": (b"*2\r\n:1\r\n$6\r\nS3cr3t\r\n", None),
    "a number": (b":5\r\n", None),
    "no text": (b"+\xff\xfe\r\n", None),
    "an error of nobody's": (b"-S3cr3t \xff\r\n", None),
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", None),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_servers_nonsense_never_leaves(
    ssm: SsmRig, nonsense: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    reply, reason = NONSENSE[nonsense]
    with fleet.answering(reply) as port:
        Lookups(ssm, sharing(ssm, f"redis://127.0.0.1:{port}", timeout=60)).go_on(3)
    assert "S3cr3t" not in "\n".join(warned(caplog))
    assert len(warnings_of_redis(caplog)) <= 1
    if reason:
        assert reason in warnings_of_redis(caplog)[0]


CLUSTERS_NONSENSE = {
    "sent in circles": b"-MOVED 5 127.0.0.1:PORT\r\n",
    "sent to itself": b"-MOVED 5 :PORT\r\n",
    "sent to nobody": b"-MOVED 5 127.0.0.1:1\r\n",
    "sent to no port": b"-MOVED 5 127.0.0.1:99999\r\n",
    "sent to no slot": b"-MOVED S3cr3t 127.0.0.1:PORT\r\n",
    "sent nowhere": b"-MOVED S3cr3t\r\n",
    "asked in circles": b"-ASK 5 127.0.0.1:PORT\r\n",
    "told to try again": b"-TRYAGAIN S3cr3t\r\n",
    "down": b"-CLUSTERDOWN S3cr3t\r\n",
    "a list": b"*2\r\n:1\r\n$6\r\nS3cr3t\r\n",
    "a huge number": b":999999999999999\r\n",
}


@pytest.mark.parametrize("nonsense", CLUSTERS_NONSENSE)
def test_a_clusters_nonsense_never_leaves(
    ssm: SsmRig, nonsense: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with fleet.answering(CLUSTERS_NONSENSE[nonsense]) as port:
        Lookups(ssm, sharing(ssm, f"redis+cluster://127.0.0.1:{port}", timeout=60)).go_on(3)
    assert "S3cr3t" not in "\n".join(warned(caplog))
    assert len(warnings_of_redis(caplog)) == 1


def assert_it_holds_no_thread(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_longest", 0.3)
    before = set(threading.enumerate())
    assert shared.get("x") is None
    for thread in set(threading.enumerate()) - before:
        if thread.name == "secrets-lookup":
            thread.join(60)
            assert not thread.is_alive()
    assert not shared._hanging


@pytest.mark.parametrize(
    ("form", "command"),
    [
        ("redis://127.0.0.1:PORT", b"GETRANGE"),
        ("redis+cluster://127.0.0.1:PORT", b"GETRANGE"),
        ("redis+cluster://127.0.0.1:PORT", b"CLUSTER"),
        ("redis+sentinel://127.0.0.1:PORT/x", b"SENTINEL"),
    ],
)
def test_an_answer_that_never_ends_holds_no_thread(
    ssm: SsmRig, form: str, command: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor memory, though each byte is in time: its connection is ended, also that of a client still being made."""
    with fleet.dripping(command) as port:
        shared = shared_of(sharing(ssm, f"{form.replace('PORT', str(port))}?socket_timeout=20", timeout=60))
        assert_it_holds_no_thread(shared, monkeypatch)


def test_an_answer_that_never_ends_at_another_node_holds_no_thread(
    ssm: SsmRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet.dripping(b"GETRANGE") as node, fleet.answering(b"-MOVED 5 127.0.0.1:%d\r\n" % node) as port:
        shared = shared_of(sharing(ssm, f"redis+cluster://127.0.0.1:{port}?socket_timeout=20", timeout=60))
        assert_it_holds_no_thread(shared, monkeypatch)


def test_exchanges_that_hang_for_ever_are_bounded(ssm: SsmRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing that this package can end would end them."""
    monkeypatch.setattr(redis_server, "_disconnected", lambda _: None)
    monkeypatch.setattr(redis_server, "MAX_HANGING", 3)
    monkeypatch.setattr(redis_server, "REDIS_PAUSE", 0.0)
    with fleet.dripping(b"CLUSTER", b"INFO") as port:  # redis-py 5.0 asks for the latter first
        shared = shared_of(sharing(ssm, f"redis+cluster://127.0.0.1:{port}?socket_timeout=10", timeout=60))
        monkeypatch.setattr(shared, "_longest", 0.2)
        before = set(threading.enumerate())
        for _ in range(10):
            assert shared.get("x") is None
        deadline.end_idle_threads()
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(0.5)  # an idle one ends
        left = {thread for thread in left if thread.name == "secrets-lookup" and thread.is_alive()}
        assert len(left) == 3
    for thread in left:
        thread.join(30)
        assert not thread.is_alive()
    assert not shared._hanging  # it would be asked again


def test_an_oversized_value_is_not_read_whole(ssm: SsmRig) -> None:
    shared = shared_of(emptied(sharing(ssm, FORMS["single"]())))
    shared.put("big", "x")
    client = redis.Redis.from_url(FORMS["single"]())
    (key,) = client.keys("airflow-secrets:*")
    client.set(key, b"x" * (entries.MAX_ENTRY_BYTES * 4))
    before = single().client.info("stats")["total_net_output_bytes"]
    assert shared.get("big") is None
    assert single().client.info("stats")["total_net_output_bytes"] - before < entries.MAX_ENTRY_BYTES * 1.1
    client.flushdb()


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("redis://h?socket_timeout=0.2", 0.4),
        ("redis+cluster://h?socket_timeout=0.2", 0.8),
        ("redis+sentinel://h/service?socket_timeout=0.2", 0.8),
        ("redis://h?socket_timeout=0.2&credentials=aws-iam&user=u&cluster_name=c", 2.4),
        ("redis://h?socket_timeout=20", 15.0),
    ],
)
def test_an_exchange_may_take_a_few_steps_and_a_quarter_of_the_lookup(
    ssm: SsmRig, url: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two seconds more if a cloud is to be asked for a token."""
    granted: list[float] = []
    call = redis_server.DeadlineCall

    def noted(_: Any, within: float, *notes: Any) -> Any:
        granted.append(within)
        return call(lambda _: None, 60.0, *notes)

    monkeypatch.setattr(redis_server, "DeadlineCall", noted)
    assert shared_of(sharing(ssm, url, timeout=60)).get("x") is None
    assert granted == [pytest.approx(seconds)]


@pytest.mark.parametrize(("said", "seconds"), [("socket_timeout=0.2", 0.2), ("socket_connect_timeout=0.1", 0.1)])
def test_connecting_takes_no_longer_than_an_answer_unless_it_is_said(said: str, seconds: float) -> None:
    (pool,) = redis_address.pools(Address(f"redis://h?{said}").client())
    assert pool.make_connection().socket_connect_timeout == seconds


@pytest.mark.parametrize(
    ("url", "same", "other"),
    [
        ("redis://h", "redis://h:6379/0", "redis://h/1"),
        ("redis+cluster://h", "redis+cluster://h:6379", "redis+cluster://h:6380"),
        ("redis+sentinel://h/one", "redis+sentinel://h:26379/one/0", "redis+sentinel://h/two"),
    ],
)
def test_what_a_url_leaves_out_has_a_default(url: str, same: str, other: str) -> None:
    assert Address(url).place == Address(same).place != Address(other).place


# What the user must set right.


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("redis://:S3cr3t@h?no_such=S3cr3t", "does not accept parameter 'no_such'"),
        ("redis://:S3cr3t@h?socket_timeout=S3cr3t", "cannot take the value of socket_timeout"),
        ("redis://:S3cr3t@h?socket_timeout=0", "socket_timeout must be a number of seconds above zero"),
        ("redis://:S3cr3t@h?socket_timeout=-1", "socket_timeout must be a number"),
        ("redis://:S3cr3t@h?socket_timeout=nan", "socket_timeout must be a number"),
        ("unix:///redis.sock?socket_timeout=inf", "socket_timeout must be a number"),
        ("redis+cluster://:S3cr3t@h?socket_connect_timeout=0", "socket_connect_timeout must be a number"),
        ("redis+cluster://:S3cr3t@h/5", "a cluster has only database 0"),
        ("redis://:S3cr3t@h?password_file=/x", "password and password_file are given; keep one"),
        ("redis://:h?credentials=S3cr3t", None),
        ("redis://h?credentials=kerberos", "must be one of aws-iam, entra-id"),
        ("redis://h?credentials=aws-iam", "needs user and cluster_name"),
    ],
)
def test_a_url_that_cannot_work_is_refused(ssm: SsmRig, url: str, cure: str | None) -> None:
    if cure is None:
        with pytest.raises(ConfigurationError, match="'shared_cache' must be 'file'") as raised:
            sharing(ssm, url)
    else:
        with pytest.raises(ConfigurationError, match=cure) as raised:
            sharing(ssm, url).get_variable("x")
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://", "redis+cluster://h:1,/", "redis+sentinel://h:1", "redis+sentinel://h:1/", "redis://a,b",
        "rediss+other://h/x", "unix://", "unix:///", "redis+cluster://h:S3cr3t", "file,redis", "[", [5],
    ],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(ssm: SsmRig, url: Any) -> None:
    with pytest.raises(ConfigurationError, match="option 'shared_cache'") as raised:
        sharing(ssm, url)
    assert "S3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://airflow:7/S3cr3t@h:1/0", "redis://:7/S3cr3t@h:1/0", "rediss+cluster://u:7/S3cr3t@h:1", "redis://u:S3/cr3t@h",
        "redis+sentinel://u:7/S3cr3t@h:1/service/0", "redis://u:7?S3cr3t@h", "redis://u:7#S3cr3t@h",
        ["file", "redis://u:7/S3cr3t@h"],
    ],
)  # fmt: skip
def test_a_password_that_is_not_encoded_is_refused(ssm: SsmRig, url: Any) -> None:
    """What stands before its slash would pass for the host and port, and the rest be shown as a path."""
    with pytest.raises(ConfigurationError, match=r"'shared_cache' .*percent-encode") as raised:
        sharing(ssm, url)
    assert "cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:a%2Fb%40c@h:1/0", "redis://:a@b@h", "redis://h?password=a@b", "unix:///a@b/redis.sock",
        "redis+sentinel://u:p@h/service/0?sentinel_password=a@b",
    ],
)  # fmt: skip
def test_an_at_sign_that_misleads_nobody_is_taken(ssm: SsmRig, url: str) -> None:
    assert sharing(ssm, url).config.shared_cache == (url,)


def test_no_password_is_shown_by_the_command() -> None:
    from airflow_providers_secrets.cli.masking import shown_value

    urls = (
        "redis://u:S3cr3t@h/0",
        "redis://h?password=S3cr3t&db=1&sentinel_password=S3cr3t",
        "redis+cluster://:S3@cr3t@a,b",
    )
    for value in (urls, *urls):
        shown = shown_value("shared_cache", value)
        assert "cr3t" not in shown
        assert "redis" in shown
    assert shown_value("shared_cache_credentials", {"password": "S3cr3t"}) == "***"


@pytest.mark.parametrize("prefix", ["with space", "é", "x" * 201, "new\nline", 5])
def test_a_prefix_that_is_none_is_refused(ssm: SsmRig, prefix: Any) -> None:
    with pytest.raises(ConfigurationError, match="'shared_cache_prefix' must be"):
        sharing(ssm, "file", shared_cache_prefix=prefix)


WRONG = {
    "wrong password": (lambda: f"redis://:S3cr3t-wrong@127.0.0.1:{locked().port}", "refuses the user or the password"),
    "no password": (lambda: f"redis://127.0.0.1:{locked().port}", "refuses the user or the password"),
    "a password too many": (
        lambda: f"redis://:S3cr3t-no@127.0.0.1:{single().port}",
        "refuses the user or the password",
    ),
    "no TLS": (lambda: f"redis://127.0.0.1:{tls().port}", "write rediss:// for redis://"),
    "TLS too much": (lambda: f"rediss://127.0.0.1:{single().port}", "Write redis:// for rediss://|no answer in time"),
    "unknown CA": (lambda: f"rediss://127.0.0.1:{tls().port}", "Name the CA's file: ssl_ca_certs="),
    "no client certificate": (
        lambda: f"rediss://127.0.0.1:{tls().port}?ssl_ca_certs={fleet.ca_file()}",
        "ssl_certfile=/cert.pem|closes the connection",
    ),
    "absent CA file": (lambda: f"rediss://127.0.0.1:{tls().port}?ssl_ca_certs=/absent", "a file that the URL names"),
    "a cluster as one server": (lambda: f"redis://127.0.0.1:{cluster().nodes[2].port}", "Write redis[+]cluster://"),
    "one server as a cluster": (lambda: f"redis+cluster://127.0.0.1:{single().port}", "not a cluster. Write redis://"),
    "unknown service": (lambda: sentinels().url.replace("/fleet/", "/other/"), "no Sentinel knows"),
    "absent socket": (
        lambda: f"unix://{single().directory}/absent.sock?db=0",
        "socket is not there. Check its path, and that Redis runs",
    ),
    "nobody there": (lambda: "redis://127.0.0.1:1", "refuses the connection"),
    "nobody there in the cluster": (lambda: "redis+cluster://127.0.0.1:1,127.0.0.1:2", "refuses the connection"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_its_cure(
    ssm: SsmRig, wrong: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    url, cure = WRONG[wrong]
    Lookups(ssm, sharing(ssm, url(), timeout=60)).go_on(8)
    (warning,) = warnings_of_redis(caplog)
    assert "S3cr3t" not in caplog.text
    assert re.search(cure, warning), warning


def test_the_host_name_of_a_cluster_is_checked(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with fleet.speaking_tls("another.test", cluster().nodes[0].port) as port:
        url = f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={fleet.ca_file()}"
        Lookups(ssm, sharing(ssm, url, timeout=60)).go_on(2)
    (warning,) = warnings_of_redis(caplog)
    assert "certificate is not trusted" in warning


def test_the_host_name_is_checked(ssm: SsmRig, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with fleet.speaking_tls("another.test", single().port) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={fleet.ca_file()}"
        Lookups(ssm, sharing(ssm, url, timeout=60)).go_on(2)
        (warning,) = warnings_of_redis(caplog)
        assert "certificate is not trusted" in warning
        lookups = Lookups(ssm, sharing(ssm, f"{url}&ssl_check_hostname=false", timeout=60))
        assert lookups.are_shared(lookups.go_on(2))


def test_a_user_without_the_right_is_told_which(
    ssm: SsmRig, account: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    single().client.flushall()
    single().client.execute_command("ACL", "SETUSER", account, "-set")
    single().client.config_resetstat()
    Lookups(ssm, sharing(ssm, f"redis://{account}:{SECRET}@127.0.0.1:{single().port}", timeout=60)).go_on(2)
    assert single().client.info("commandstats")["cmdstat_set"]["rejected_calls"] == 1  # and then left alone
    (warning,) = warnings_of_redis(caplog)
    assert "is not written to" in warning
    assert "ACL SETUSER" in warning


# Forks.

CHILDREN = """
import json, os, sys, time
sys.path.insert(0, sys.argv[3])
from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
backend = SystemsManagerParameterStoreBackend(**json.loads(sys.argv[1]))
for number in range(int(sys.argv[2])):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        started = time.process_time()
        value = backend.get_variable("of-the-fleet")
        os.write(writer, json.dumps([value, time.process_time() - started]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        print(result.read())
    os.waitpid(child, 0)
"""


@pytest.mark.measured
@pytest.mark.parametrize(
    ("form", "bound"),
    [("single", 6e-3), ("sentinel", 8e-3), ("cluster", 6e-3), ("tls", 10e-3), ("tls-cluster", 12e-3)],
)
def test_a_childs_first_lookup_found_in_redis_costs_few_ms(ssm: SsmRig, form: str, bound: float) -> None:
    """Being told where the primary is takes another connection; a TLS handshake takes 2 ms."""
    stored(ssm, "of-the-fleet", "x")
    emptied(sharing(ssm, FORMS[form]()))
    options = {**ssm.options(), "shared_cache": FORMS[form](), "shared_cache_key": KEY}
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, json.dumps(options), "12", str(Path(__file__).parents[2])],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": os.environ.get("HOME", "/")},
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [value for value, _ in results] == ["x"] * 12
    assert ssm.calls.count(ssm.path("variables", "of-the-fleet")) >= 1
    costs = [seconds for _, seconds in results[1:]]
    logging.getLogger(__name__).info(
        "%s: %.2f ms, at best %.2f", form, statistics.median(costs) * 1000, min(costs) * 1000
    )
    assert min(costs) / slowness() <= bound, costs  # noise only adds
