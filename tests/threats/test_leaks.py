"""Canaries in every value and credential: nothing that this package or its SDKs leave behind holds one, in any spelling."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from airflow_providers_secrets.errors import LookupFailed
from airflow_providers_secrets.lookup import access, answers
from airflow_providers_secrets.testing.lookups import ONE_TRY, Waits, credentials
from airflow_providers_secrets.testing.proxy import Reply
from tests.rigs import FAULTS, HOSTILE_FAULTS, Rig
from tests.rigs.aws import AwsRig

pytestmark = pytest.mark.each_rig_in_ci

CANARY = 'S3cr3t/k@n "ary"+é?'
KEY = base64.urlsafe_b64encode(b"l" * 32).decode()


def spellings(secret: str) -> set[str]:
    """How *secret* would look in a log: as typed, in a URL, in JSON, in hexadecimal, in base64 at any alignment."""
    octets = secret.encode()
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), octets.hex(), octets.hex().upper()}
    found |= {json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3], repr(secret)[1:-1], repr(octets)[2:-1]}
    for before in range(3):
        # Without the characters that also hold bits of what stands beside it.
        encoded = base64.b64encode(b"\0" * before + octets).decode().rstrip("=")[before + (before > 0) : -1]
        found |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return {one for one in found if len(one) >= 5}


class Everything(logging.Handler):
    """Keeps what a collector of logs or errors would: messages, arguments, and tracebacks with local variables."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.getMessage()} {record.args!r}"
        if record.exc_info and record.exc_info[1]:
            told = traceback.TracebackException.from_exception(record.exc_info[1], capture_locals=True)
            text += "".join(told.format())
        self.records.append((record.name, text))


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[Everything]:
    """All loggers at DEBUG."""
    handler = Everything()
    root = logging.getLogger()
    for name in [None, *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logging.DEBUG if logger is root else logging.NOTSET)
        monkeypatch.setattr(logger, "propagate", True)
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.manager._clear_cache()  # type: ignore[attr-defined]


def tokens(rig: Rig) -> set[str]:
    """What the requests so far proved their sender by. (AWS signs with a key that is never sent.)"""
    sent = [{name.lower(): value for name, value in request.headers.items()} for request in rig.requests]
    return {headers.get("x-vault-token", "") for headers in sent} | {
        headers["authorization"].removeprefix("Bearer ")
        for headers in sent
        if headers.get("authorization", "").startswith("Bearer ")
    } - {""}


def secrets_of(rig: Rig) -> list[str]:
    """The values and credentials that must appear nowhere."""
    found = [CANARY, "S3cr3t"]  # the second is in every faulty answer
    for credential in (*credentials(rig), *tokens(rig)):
        key = json.loads(credential).get("private_key", "") if credential.startswith("{") else credential
        found += [line for line in key.splitlines() if len(line) > 8 and not line.startswith("-----")]
    return found


# The rig's own servers run in this process.
OF_THE_RIGS = ("werkzeug", "moto", "tests", "asyncio")


def assert_no_secret(rig: Rig, texts: Iterable[tuple[str, str]]) -> None:
    words = {spelling for secret in secrets_of(rig) for spelling in spellings(secret)}
    pattern = re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)))
    for name, text in texts:
        assert not pattern.search(text), f"{name} tells a secret"


def used(rig: Rig, waits: Waits, **options: Any) -> list[tuple[str, str]]:
    """Look up whatever there is, found, absent, unusable and through every fault; return what the errors say."""
    stored = {"variables": CANARY, "connections": json.dumps({"conn_type": "x", "password": CANARY}), "config": CANARY}
    for kind, text in stored.items():
        rig.put(rig.path(kind, "canary"), text)
    rig.put(rig.path("connections", "unusable"), f'{{"conn_type": "x", "password": ["{CANARY[:6]}"]}}')
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Everything):
            handler.records.clear()  # what was written was not written by a lookup
    backend = rig.caching(**options)
    assert backend.get_variable("canary") == CANARY
    assert CANARY in json.loads(backend.get_conn_value("canary")).values()
    assert backend.get_config("canary") == CANARY
    assert backend.get_variable("absent") is None
    waits.shortened = lambda seconds: min(seconds, 2.0)
    errors = [failed(lambda: backend.get_conn_value("unusable"))]
    for name, fault in faults(rig):
        with fault:
            errors.append(failed(functools.partial(rig.caching(**ONE_TRY, **options).get_variable, f"canary-{name}")))
    return [text for error in errors for text in texts_of(error)]


def faults(rig: Rig) -> Iterator[tuple[str, contextlib.AbstractContextManager[None]]]:
    """Every fault that ends by itself, and errors whose body an SDK cannot make an error of, so that it logs it."""
    for name in (*FAULTS, *HOSTILE_FAULTS):
        if name not in rig.missing_faults and name not in ("hang", "drip"):
            yield name, rig.fault(name)
    for status in (307, 400, 403, 500):
        headers = {"Content-Type": "application/json", "Location": "http://localhost:9/"}
        yield str(status), rig.answering(Reply(status, b'{"S3cr3t": ', headers))


def failed(look_up: Callable[[], object]) -> LookupFailed:
    with pytest.raises(LookupFailed) as raised:
        look_up()
    return raised.value


def texts_of(error: LookupFailed) -> Iterator[tuple[str, str]]:
    """What an error says, and the local variables of our frames that it carries."""
    yield type(error).__name__, "".join(traceback.format_exception(error)) + repr(vars(error))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "airflow_providers_secrets" in frame.f_code.co_filename:
            yield f"local variables of {frame.f_code.co_name}", repr(frame.f_locals)


def test_nothing_that_is_logged_or_raised_tells_a_secret(rig: Rig, everything: Everything, waits: Waits) -> None:
    told = used(rig, waits)
    logged = [(name, text) for name, text in everything.records if not name.startswith(OF_THE_RIGS)]
    assert logged
    assert_no_secret(rig, logged)
    assert_no_secret(rig, told)


def test_nothing_that_has_a_repr_tells_a_secret(rig: Rig, waits: Waits) -> None:
    told = used(rig, waits)
    backend = rig.caching()
    config = backend.config
    found = answers.answers_of(config)
    entry = found.read(rig.path("variables", "canary"))
    kept: list[object] = [
        backend, config, access.store_of(config), found, found.access, entry, found._cache, *found.access.clients,
        answers.counts_of_this_process(), backend.plan("variables", "canary"), vars(backend).keys(),
    ]  # fmt: skip
    assert entry.text
    assert CANARY[:6] in entry.text
    assert_no_secret(rig, [(type(one).__name__, repr(one) + str(one)) for one in kept])
    assert_no_secret(rig, told)


def test_no_file_of_the_shared_cache_tells_a_secret_or_a_name(rig: Rig, tmp_path: Path, waits: Waits) -> None:
    used(rig, waits, shared_cache=f"file://{tmp_path}/shared", shared_cache_key=KEY)
    files = [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    assert len(files) > 3
    # Octet by octet, whatever their encoding.
    held = [(path.name, path.name + path.read_bytes().decode("latin-1")) for path in files]
    assert_no_secret(rig, held)
    for _, text in held:
        assert "canary" not in text
        assert "airflow" not in text


def test_what_is_counted_has_no_name_of_a_secret(rig: Rig, waits: Waits) -> None:
    used(rig, waits)
    labels = json.dumps(answers.counts_of_this_process())
    assert "canary" not in labels
    assert_no_secret(rig, [("counts", labels)])


# The controls.


def test_a_users_own_debugging_goes_on(ssm: AwsRig, everything: Everything, waits: Waits) -> None:
    """And shows that what is muted in lookups would be seen here."""
    used(ssm, waits)
    with pytest.raises(AssertionError, match="botocore"):
        ssm.client.get_parameter(Name=ssm.path("variables", "canary"), WithDecryption=True)
        ours = [one for one in everything.records if one[0].startswith("botocore")]
        assert_no_secret(ssm, ours)


@pytest.mark.parametrize(
    "spelled",
    [
        CANARY,
        f"https://h/?p={quote_plus(CANARY)}",
        json.dumps({"a": CANARY}),
        json.dumps(json.dumps({"a": CANARY})),
        f"x{CANARY}".encode().hex(),
        *(base64.b64encode((before + CANARY + "and more").encode()).decode() for before in ("", "u", "u:", "u:p")),
        base64.urlsafe_b64encode(f"user:{CANARY}".encode()).decode(),
        repr({"a": CANARY.encode()}),
    ],
)
def test_every_spelling_is_recognised(ssm: AwsRig, spelled: str) -> None:
    with pytest.raises(AssertionError, match="tells a secret"):
        assert_no_secret(ssm, [("log", spelled)])
