"""``airflow-secrets cache`` on both shared caches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_providers_secrets.errors import NoSharedKeyError
from airflow_providers_secrets.lookup import answers, shared_answers, shared_cache
from airflow_providers_secrets.testing.lookups import failing
from tests.cli.conftest import Command, connecting, path_of, prefixes, using
from tests.rigs import Rig
from tests.support.sharing import KEY


@pytest.mark.parametrize("where", ["file", "redis"])
def test_entries_are_counted_found_and_removed(
    command: Command, ssm: Rig, base: str, tmp_path: Path, where: str
) -> None:
    place = f"file://{tmp_path}/shared"
    if where == "redis":
        import redis

        from tests.rigs.redis import redis_url

        place = redis_url()
        redis.Redis.from_url(place).flushdb()
    options = {**prefixes(ssm, base), "shared_cache": place, "shared_cache_key": KEY}
    at = using(ssm, **options)
    assert command("cache", "show", *at).code == 1
    for key in ("one", "two"):
        ssm.put(path_of(ssm, base, "variables", key), "S3cr3t-value")
        ssm.backend_class(**connecting(ssm), **options).get_variable(key)
    answers.reset_after_fork()  # as another process, which has nothing in memory
    (shown,) = command("cache", "show", "-o", "json", *at).json
    assert (shown["entries"], shown["fresh"]) == (2, 2)
    if where == "file":  # Redis keeps how long an entry is left, not how old it is
        (stale,) = command("cache", "show", "-o", "json", *using(ssm, **options, cache_ttl=1e-6)).json
        assert (stale["entries"], stale["fresh"]) == (2, 0)
    assert shown["bytes"] > 0
    assert "present" in command("cache", "show", "--id", "var:one", *at).out
    said = command("cache", "clear", "--id", "var:one", *at)
    assert (said.code, "1 entry removed" in said.out, "60 s more" in said.err) == (0, True, True), said.everything
    assert command("cache", "show", "--id", "var:one", *at).code == 1
    assert command("cache", "clear", "-o", "json", *at).json["removed"] == 1
    assert command("cache", "clear", *at).code == 1
    assert "S3cr3t" not in said.everything


@pytest.mark.parametrize(("fault", "longest"), [("server-error", 960), ("denied", 60)])
def test_explain_says_how_long_airflow_still_has_the_cached_value(
    command: Command, ssm: Rig, base: str, tmp_path: Path, fault: str, longest: int
) -> None:
    ssm.put(path_of(ssm, base, "variables", "cached"), "S3cr3t-value")
    options = {**prefixes(ssm, base), "shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    ssm.backend_class(**connecting(ssm), **options).get_variable("cached")
    answers.reset_after_fork()  # as another process, which has nothing in memory
    kwargs = {**connecting(ssm), **options, "max_attempts": 1}
    chain = {"backends": [{"backend": "aws_ssm", "kwargs": kwargs}, {"backend": "env"}]}
    with ssm.fault(fault):
        said = command("explain", "var", "cached", "--no-metastore", *using(ssm, **options, max_attempts=1))
        other = command("explain", "var", "other", "--no-metastore", *using(ssm, **options, max_attempts=1))
        through = command(
            "explain", "var", "cached", "--no-metastore", "--backend", "chain", "--kwargs", json.dumps(chain)
        )
    left = re.search(r"Airflow takes it from: \S.*\(the cached value, for (\d+) s more at most\)\.", said.out)
    assert left, said.everything
    assert longest - 30 < int(left[1]) <= longest
    assert "Airflow takes it from: member 1 (aws_ssm) (the cached value, for" in through.out
    assert (said.code, other.code, through.code) == (3, 3, 3)
    assert "Airflow has no answer, and will say" in other.out
    assert "S3cr3t" not in said.everything


def test_explain_counts_on_no_cached_value_that_airflow_cannot_use(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    ssm.put(path_of(ssm, base, "connections", "cached"), "postgres//S3cr3t")
    options = {**prefixes(ssm, base), "shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}
    failing(lambda: ssm.backend_class(**connecting(ssm), **options).get_conn_value("cached"))
    answers.reset_after_fork()
    with ssm.fault("server-error"):
        said = command("explain", "conn", "cached", "--no-metastore", *using(ssm, **options, max_attempts=1))
    assert "shared cache: present" in said.out
    assert "Airflow has no answer, and will say" in said.out


def test_explain_of_an_outage_that_outlasts_the_wait_for_a_key_ends_with_an_explanation(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is tried again after a minute, which a call of the store may take, too."""

    def airflow_keys() -> tuple[str, ...]:
        raise NoSharedKeyError("none yet")

    monkeypatch.setattr(shared_cache, "airflow_keys", airflow_keys)
    monkeypatch.setattr(shared_answers, "REOPENING_PAUSE", 0.0)
    options = {**prefixes(ssm, base), "shared_cache": f"file://{tmp_path}/shared"}
    with ssm.fault("server-error"):
        said = command("explain", "var", "x", "--no-metastore", *using(ssm, **options, max_attempts=1))
    assert "not usable: none yet" in said.out, said.everything
    assert "Airflow has no answer, and will say" in said.out
    assert said.code == 3


def test_what_a_listing_holds_of_one_secret_is_found_and_removed(
    command: Command, ssm: Rig, base: str, tmp_path: Path
) -> None:
    options = {
        **prefixes(ssm, base),
        "preload": ["variables"],
        "shared_cache": f"file://{tmp_path}/shared",
        "shared_cache_key": KEY,
    }
    at = using(ssm, **options)
    name = path_of(ssm, base, "variables", "one")

    def looked_up() -> str | None:
        answers.reset_after_fork()  # as another process, which has nothing in memory
        found: str | None = ssm.backend_class(**connecting(ssm), **options).get_variable("one")
        return found

    ssm.put(name, "S3cr3t-old")
    assert looked_up() == "S3cr3t-old"
    ssm.put(name, "S3cr3t-new")
    answers.reset_after_fork()
    shown = command("cache", "show", "--id", "var:one", *at)
    assert (shown.code, "present" in shown.out, "S3cr3t" in shown.out) == (0, True, False), shown.everything
    said = command("cache", "clear", "--id", "var:one", *at)
    assert said.code == 0, said.everything
    assert looked_up() == "S3cr3t-new"


def test_without_a_shared_cache_it_says_so(command: Command, ssm: Rig) -> None:
    said = command("cache", "show", *using(ssm))
    assert (said.code, "'shared_cache' is off" in said.err) == (2, True)


@pytest.mark.usefixtures("default_directory_open_to_others")
def test_a_default_directory_that_is_open_to_others_is_told(command: Command, ssm: Rig) -> None:
    said = command("cache", "show", *using(ssm, shared_cache="file", shared_cache_key=KEY))
    assert (said.code, "is open to other users. Restrict it: chmod 700." in said.err) == (2, True), said


def test_a_redis_that_is_away_is_told_in_one_line(command: Command, ssm: Rig) -> None:
    at = using(ssm, shared_cache="redis://:S3cr3t@127.0.0.1:1/0", shared_cache_key=KEY)
    for act in ("show", "clear"):
        said = command("cache", act, *at)
        assert (said.code, said.err.count("\n")) == (3, 1), said.everything
        assert "S3cr3t" not in said.everything


@pytest.fixture
def cached(ssm: Rig, base: str, tmp_path: Path) -> Callable[..., list[str]]:
    """Look variables up, each for a team or nobody, and return the arguments that name their backend."""
    options = {**prefixes(ssm, base), "shared_cache": f"file://{tmp_path}/shared", "shared_cache_key": KEY}

    def look_up(*keys: tuple[str, str | None]) -> list[str]:
        for key, team in keys:
            ssm.put(path_of(ssm, base, "variables", f"{team}--{key}" if team else key), "S3cr3t-value")
            assert ssm.backend_class(**connecting(ssm), **options).get_variable(key, team) == "S3cr3t-value"
        answers.reset_after_fork()  # as another process, which has nothing in memory
        return using(ssm, **options)

    return look_up


def test_each_of_several_ids_is_removed(command: Command, cached: Callable[..., list[str]]) -> None:
    at = cached(("one", None), ("two", None), ("three", None))
    ids = ["--id", "var:one", "--id", "var:two"]
    assert len(command("cache", "show", *ids, "-o", "json", *at).json) == 2
    assert command("cache", "clear", *ids, "-o", "json", *at).json["removed"] == 2
    assert command("cache", "show", "-o", "json", *at).json[0]["entries"] == 1


def test_a_teams_own_entry_is_found_and_removed(
    command: Command, cached: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    at = cached(("key", "team-a"), ("key", "team-b"))
    assert command("cache", "show", "--id", "var:key", *at).code == 1
    said = command("cache", "show", "--id", "var:key", "--team", "team-a", *at)
    assert (said.code, said.out.count("present")) == (0, 1), said.everything
    assert command("cache", "clear", "--id", "var:key", "--team", "team-a", "-o", "json", *at).json["removed"] == 1
    assert command("cache", "show", "--id", "var:key", "--team", "team-b", *at).code == 0
    assert "S3cr3t" not in said.everything


@pytest.mark.parametrize("act", ["show", "clear"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--id", "var:a/../b"], "is not asked for 'a/../b' (variables): it has an empty, '.' or '..' segment."),
        (["--id", "var:"], "--id takes conn:ID, var:KEY or config:KEY."),
        (["--id", ""], "--id takes conn:ID, var:KEY or config:KEY."),
        (["--team", "a"], "--team is for an id; add --id KIND:ID, or leave it out."),
    ],
)
def test_an_id_that_is_never_looked_up_is_told_and_removes_nothing(
    command: Command, cached: Callable[..., list[str]], act: str, arguments: list[str], says: str
) -> None:
    at = cached(("one", None))
    said = command("cache", act, *arguments, *at)
    assert (said.code, says in said.err, said.err.splitlines()[-1][:22]) == (2, True, "airflow-secrets cache:"), said
    assert command("cache", "show", "-o", "json", *at).json[0]["entries"] == 1
