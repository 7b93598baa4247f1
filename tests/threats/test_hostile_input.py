"""Input that an attacker chooses: ids, teams, prefixes, patterns, options, answers, entries of the shared cache.

Whatever it is, nothing but a SecretsError leaves, and no request leaves its prefix.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_providers_secrets.errors import ConfigurationError, SecretsError
from airflow_providers_secrets.lookup import answers, notices
from airflow_providers_secrets.lookup.plan import KINDS, TEAM_SEP
from airflow_providers_secrets.lookup.shared_cache import entries
from airflow_providers_secrets.lookup.shared_cache.directory import SUBDIRECTORY
from airflow_providers_secrets.testing.lookups import LOOKUP, ONE_TRY
from airflow_providers_secrets.testing.proxy import Reply, Request
from tests.rigs import Rig

KEY = base64.urlsafe_b64encode(b"h" * 32).decode()

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.each_rig_in_ci,
]


def inputs(count: int) -> settings:
    """The same inputs in every run, since a figure that is printed must be one that can be had again."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


PARTS = [
    "..", ".", "/", "//", "\\", "%2e", "%2E%2e", "%2f", "%252e", "%5c", "%00", "%c0%ae", "?", "#", ";", "&", "=", "@", ":",
    "http://", "//evil", "a", "b", "connections", "variables", "--", "-", "__", "_", "~", "\0", "\n", "\r\n", "\t", " ",
    "\u2025", "\uff0e\uff0e", "\u2215", "\u202e", "*", "+", "'", '"', "|", "$", "{}", "${x}", "%s", "é", "\ud800",
    "arn:aws:ssm:eu-west-1:123456789012:parameter/x", "x" * 600, "versions/1",
]  # fmt: skip
hostile = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join) | st.text(max_size=40)


def outcome(look_up: Any) -> Any:
    """The answer; or ``SecretsError`` where that was raised. Anything else is the test's failure."""
    with contextlib.suppress(SecretsError):
        answer = look_up()
        assert answer is None or type(answer) is str
        return answer
    return SecretsError


def assert_inside(rig: Rig, calls: list[str], sent: list[Request], base: str, decoded: int = 4) -> None:
    """Every request was for a name under *base*, though a proxy decodes it up to *decoded* times."""
    assert [call for call in calls if not call.startswith(base)] == []
    for request in sent:
        path = request.path
        for _ in range(decoded):
            assert ".." not in re.split(r"[/\\]", path.partition("?")[0]), request.path
            assert "\0" not in path
            assert "\n" not in path
            path = unquote(path)


@pytest.mark.parametrize("kind", KINDS)
def test_ids(rig: Rig, kind: Any, tally: dict[str, int]) -> None:
    backend = rig.backend(**ONE_TRY)
    base = rig.path(kind, "x")[:-1]

    @inputs(100)
    @given(hostile | st.none() | st.integers() | st.binary(max_size=5))
    def look_up(secret_id: Any) -> None:
        notices._warned.clear()
        before, sent = len(rig.calls), len(rig.requests)
        outcome(lambda: getattr(backend, LOOKUP[kind])(secret_id))
        assert_inside(rig, rig.calls[before:], rig.requests[sent:], base)
        tally["hostile ids"] = tally.get("hostile ids", 0) + 1

    look_up()


def test_ids_do_reach_the_store(rig: Rig) -> None:
    """The control of the test above: where all were refused it would prove nothing."""
    drawn = random.Random(7)
    backend = rig.backend(**ONE_TRY)
    with rig.counted() as calls:
        for _ in range(200):
            secret_id = "".join(drawn.choices(["a", "b", "-", "_", "variables"], k=3))
            outcome(lambda secret_id=secret_id: backend.get_variable(secret_id))
    assert len(calls) > 50


def test_teams(rig: Rig, monkeypatch: pytest.MonkeyPatch, tally: dict[str, int]) -> None:
    """No id of one team is another team's name."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    backend = rig.backend(**ONE_TRY)
    base = rig.path("variables", "x")[:-1]
    owners: dict[str, str] = {}

    @inputs(100)
    @given(hostile | st.sampled_from(["a", "a-b", "A", "a_b", "a--b"]), hostile | st.sampled_from(["b", "b--c", "-b"]))
    def look_up(team: str, secret_id: str) -> None:
        before, sent = len(rig.calls), len(rig.requests)
        outcome(lambda: backend.get_variable(secret_id, team_name=team))
        assert_inside(rig, rig.calls[before:], rig.requests[sent:], base)
        for name in backend.plan("variables", secret_id, team).names:
            if TEAM_SEP in name[len(base) :]:
                assert owners.setdefault(name, team.lower().replace("_", "-")) == team.lower().replace("_", "-")
        tally["hostile teams"] = tally.get("hostile teams", 0) + 1

    look_up()


def test_prefixes(rig: Rig, tally: dict[str, int]) -> None:
    """A prefix is refused at construction, or everything stays under it."""
    option = rig.prefix_option.format(kind="variables")

    @inputs(60)
    @given(hostile | st.sampled_from(["", "/", "a/", "/a", "a-", "-"]), hostile)
    def look_up(prefix: str, secret_id: str) -> None:
        tally["hostile prefixes"] = tally.get("hostile prefixes", 0) + 1
        answers.reset_after_fork()
        try:
            backend = rig.backend(**{option: prefix}, **ONE_TRY)
        except ConfigurationError:
            return
        base = re.sub("/+", "/", rig.path("variables", "x", base=prefix)[:-1]).rstrip("/-")
        before, sent = len(rig.calls), len(rig.requests)
        outcome(lambda: backend.get_variable(secret_id))
        # The prefix is the operator's own, who may write an octet as %00: what counts is that the id stays below.
        assert_inside(rig, rig.calls[before:], rig.requests[sent:], base, decoded=1)

    look_up()


def test_patterns(rig: Rig, tally: dict[str, int]) -> None:
    backend_class, made = rig.backend, []

    @inputs(60)
    @given(
        st.text(max_size=20) | st.lists(st.sampled_from(["(", ")", "[", "*", "a", "\\", "?", "{", "|", "^", "$", "("]))
    )
    def construct(pattern: Any) -> None:
        tally["hostile patterns"] = tally.get("hostile patterns", 0) + 1
        pattern = pattern if isinstance(pattern, str) else "".join(pattern)
        with contextlib.suppress(ConfigurationError):
            made.append(backend_class(variables_lookup_pattern=pattern, variables_exclude_pattern=pattern))
            assert made[-1].plan("variables", "a" * 1000).names == ()  # too long for any pattern

    construct()
    assert made


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_options(rig: Rig, tally: dict[str, int]) -> None:
    """A value of any type for any option is used or refused by name; it never surfaces as another error."""
    declared = (
        [option.name for option in type(rig.backend()).declared_options()]
        if rig.extra and hasattr(rig.backend_class, "declared_options")
        else ["backends"]
    )

    @inputs(300)
    @given(st.sampled_from(declared) | st.text(min_size=1, max_size=12), values)
    def construct(name: str, value: Any) -> None:
        tally["hostile options"] = tally.get("hostile options", 0) + 1
        with contextlib.suppress(ConfigurationError):
            repr(rig.backend_class(**{**rig.options(), name: value}))

    construct()


# What the store answers.

STATUSES = [200, 200, 200, 200, 201, 204, 206, 300, 304, 400, 401, 403, 404, 404, 409, 412, 429, 473, 500, 502, 503]
WORDS = [
    "Parameter", "Name", "Value", "SecretString", "data", "value", "metadata", "errors", "id", "error", "code", "message",
    "payload", "dataCrc32c", "name", "__type", "deletion_time", "destroyed", "conn_uri", "ParameterNotFound", "SecretNotFound",
    "NOT_FOUND", "S3cr3t",
]  # fmt: skip
bodies_of_words = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
odd_bodies = st.sampled_from(
    [
        b"", b"\xff", b"\xef\xbb\xbf{}", b"null", b"[" * 5000, b'{"data":' * 900 + b"1" + b"}" * 900, b"1e999", b"NaN",
        b'{"a":"\\ud800"}', '{"data": {"data": {"value": "\u2028"}}}'.encode("utf-16"), b"9" * 5000, b"<html>S3cr3t</html>",
    ]
)  # fmt: skip
headers = st.fixed_dictionaries(
    {
        "Content-Type": st.sampled_from(
            [
                "application/json",
                "application/x-amz-json-1.1",
                "text/html",
                "application/json; charset=utf-16",
                "",
                "\x01",
            ]
        )
    },
    optional={
        "Retry-After": st.sampled_from(["-1", "nan", "1e999", "9" * 5000, "0", "٣", "Wed, 21 Oct 2015 07:28:00 GMT"]),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "identity"]),
        "x-amzn-ErrorType": st.sampled_from(["ParameterNotFound\x1b[31m", "x" * 300]),
        "WWW-Authenticate": st.sampled_from(["Bearer", 'Bearer authorization="http://[", resource="x"', '="' * 50]),
    },
)


def fuzz(rig: Rig, count: int, tally: dict[str, int], kinds: tuple[str, ...]) -> None:
    """Answer *count* lookups by what was drawn, or by a true answer with some bytes changed."""
    backend = rig.backend(**ONE_TRY)
    rig.put(rig.path("connections", "found"), '{"conn_type": "x", "password": "S3cr3t"}')
    rig.put(rig.path("variables", "found"), "S3cr3t")
    for kind in kinds:
        getattr(backend, LOOKUP[kind])("found")  # whoever has logged in

    @inputs(count)
    @given(
        st.sampled_from(kinds),
        st.sampled_from(STATUSES),
        bodies_of_words | odd_bodies | st.binary(max_size=60),
        headers,
    )
    def look_up(kind: str, status: int, body: bytes, told: dict[str, str]) -> None:
        told = {name: value.encode("ascii", "ignore").decode() for name, value in told.items()}
        with rig.answering(Reply(status, b"" if status in (204, 304) else body, told)):
            answer = outcome(lambda: getattr(backend, LOOKUP[kind])("found"))
        assert not (answer is None and status < 400), (status, body)
        tally["fuzzed answers"] = tally.get("fuzzed answers", 0) + 1

    look_up()


FUZZED = ("connections", "variables")


def test_answers(rig: Rig, tally: dict[str, int]) -> None:
    fuzz(rig, 200, tally, FUZZED)


@pytest.mark.long
def test_many_answers(rig: Rig, tally: dict[str, int]) -> None:
    fuzz(rig, 10_000, tally, FUZZED)


# What the shared cache holds.


def sealed(token: str, body: bytes) -> bytes:
    """Make an entry of *body*, as docs/caching.md says."""
    info = b"airflow-providers-secrets 2"
    key = HKDF(hashes.SHA256(), length=32, salt=None, info=info).derive(base64.urlsafe_b64decode(KEY))
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, body, token.encode())


def test_entries_that_are_not_ours(rig: Rig, tmp_path: Path, tally: dict[str, int]) -> None:
    """Octets in the place of an entry, and entries of whoever has the key, are an answer or no entry."""
    rig.put(rig.path("variables", "found"), "x")
    held = st.tuples(values, values, values).map(lambda fields: json.dumps(fields, default=repr).encode())

    @inputs(40)
    @given(st.binary(max_size=80) | (held | bodies_of_words).map(lambda body: lambda token: sealed(token, body)))
    def look_up(entry: bytes | Callable[[str], bytes]) -> None:
        tally["hostile cache entries"] = tally.get("hostile cache entries", 0) + 1
        with tempfile.TemporaryDirectory(dir=tmp_path) as place:
            options = {"cache_ttl": 60, "shared_cache": f"file://{place}/c", "shared_cache_key": KEY}
            answers.reset_after_fork()
            assert rig.backend(**options).get_variable("found") == "x"
            for file in (Path(place) / "c" / SUBDIRECTORY).iterdir():
                file.write_bytes(entry if isinstance(entry, bytes) else entry(file.name))
            answers.reset_after_fork()
            assert rig.backend(**options).get_variable("found") == "x"

    look_up()


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_entries_of_whoever_has_the_key(count: int, tally: dict[str, int]) -> None:
    seal = entries.Seal(KEY, b"identity")

    @inputs(count)
    @example("x", 0.0, ["AccessDenied"])  # rarely tried: all else must be right
    @given(values, values, values)
    def open_it(text: Any, at: Any, failure: Any) -> None:
        tally["hostile cache entries"] = tally.get("hostile cache entries", 0) + 1
        entry = seal.open("token", sealed("token", json.dumps([text, at, failure], default=repr).encode()))
        if entry is not None:
            assert entry.text is None or type(entry.text) is str
            assert type(entry.at) is float
            assert entry.failure is None or [type(part) for part in entry.failure] == [str, str, str]

    open_it()
