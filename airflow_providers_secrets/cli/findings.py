"""What ``check`` finds out about a store or a chain's member: each finding with its mark and its one cure.

Nothing here prints, and no finding holds a value. Importing this module imports neither Airflow nor an SDK.
"""

from __future__ import annotations

import email.utils
import http.client
import ssl
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from airflow_providers_secrets.cli.arguments import SINGULAR
from airflow_providers_secrets.cli.exits import NO_ANSWER, NOT_OK, USAGE
from airflow_providers_secrets.cli.masking import shown_value
from airflow_providers_secrets.cli.output import (
    ADVICE,
    FAULT,
    FINE,
    NEUTRAL,
    Progress,
    collected_warnings,
    shown,
)
from airflow_providers_secrets.errors import (
    ConfigurationError,
    MissingDependencyError,
    NoSharedKeyError,
    SecretsError,
    StoreUnavailable,
    quoted,
)
from airflow_providers_secrets.lookup import explanation, inventory, operations
from airflow_providers_secrets.lookup.access import loaded_store, store_of
from airflow_providers_secrets.lookup.answers import answers_of
from airflow_providers_secrets.lookup.plan import KINDS, Kind

if TYPE_CHECKING:
    from airflow_providers_secrets.backends._members import Member
    from airflow_providers_secrets.backends.mixin import SecretLookupMixin
    from airflow_providers_secrets.cli.configuration import Configured

PROBE: Final = "airflow-secrets-check"
"""The id that is looked up under each prefix; no store has it."""

SLOW_PATTERN: Final = 0.05
"""Seconds from which a lookup pattern's time is reported as a fault."""
LONGEST_PATTERN: Final = 3.0
MAX_SKEW: Final = 60.0
"""Seconds by which this host's clock may differ from the store's; from some minutes on, signatures are refused."""


class Finding(NamedTuple):
    """One result of a check.

    :param ok: whether it is fine; ``None`` for advice, "neutral" for what is neither.
    :param code: the exit code of a fault: ``NOT_OK``, ``USAGE`` or ``NO_ANSWER``.
    """

    ok: bool | str | None
    what: str
    cure: str | None = None
    code: int = NOT_OK


def of_store(
    configured: Configured, backend: SecretLookupMixin, ids: Iterable[tuple[Kind, str]], *, listing: bool
) -> Iterator[Finding]:
    """Yield what there is to say about one of this package's backends and its store.

    :param ids: what to look up.
    :param listing: try to list connections and variables, and not only what is preloaded.
    """
    yield from of_warnings(configured)
    try:
        loaded_store(backend.config)
    except MissingDependencyError as error:
        what, _, cure = str(error).partition(". ")
        yield Finding(FAULT, what, cure, USAGE)
        return
    asked = configured.fresh()  # one backend for all requests: another one, with other options, would log in again
    failures = _Failures()
    unknown = yield from _identity(asked)
    yield from _prefixes(configured, asked, failures)
    if unknown and not failures.has_told(unknown):
        if asked.why_unlisted() and isinstance(unknown, (StoreUnavailable, ConfigurationError)):
            yield failures.finding("identity", unknown)  # nothing else was asked
        else:
            # Permission to read secrets does not imply permission to ask for one's own identity.
            yield Finding(ADVICE, f"identity: unknown ({_reason(unknown)})")
    if failures.is_away and (address := address_of(asked)):
        yield Finding(ADVICE, f"{asked.store} is asked at {shown_value('address', address)}")
    yield from _clock(asked)
    kinds: tuple[Kind, ...] = ("connections", "variables") if listing else backend.options["preload"]
    yield from _listing(asked, failures, [kind for kind in kinds if configured.off_for(kind) is None])
    yield from _patterns(backend)
    yield from _caches(backend)
    for kind, secret_id in ids:
        yield _looked_up(asked, failures, kind, secret_id)


def of_warnings(configured: Configured) -> Iterator[Finding]:
    """Yield what was warned about when the backend was made."""
    for text in configured.warnings:
        yield Finding(ADVICE, text)


class _Failures:
    """The failures of the store as a whole: each is one fault, however many prefixes and ids it affects."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        self.is_away = False
        """Whether the store gave no answer, so that another request would only wait in vain."""

    def finding(self, subject: str, error: SecretsError) -> Finding:
        """Return the finding for a failure: the first time, a fault with its remedy."""
        if isinstance(error, (ConfigurationError, StoreUnavailable)):
            if self.has_told(error):
                return self.same(subject)
            self._told.add(_failure_key(error))
            self.is_away |= isinstance(error, StoreUnavailable)
        return _failure(f"{subject}: {error}", error)

    def has_told(self, error: SecretsError) -> bool:
        """Tell whether this failure was already reported."""
        return _failure_key(error) in self._told

    @staticmethod
    def same(subject: str) -> Finding:
        """Return the finding for a *subject* that an already reported fault prevents from being checked."""
        return Finding(NEUTRAL, f"{subject}: no answer for the same reason")


def _failure_key(error: SecretsError) -> tuple[str, str]:
    return _reason(error), getattr(error, "advice", "")


def of_foreign_member(member: Member) -> Iterator[Finding]:
    """Yield what there is to say about a member of a chain that is not one of this package's stores."""
    kinds = [kind for kind in member.lookups if member.off_for(kind) is None]
    yield Finding(FINE, f"asked for {', '.join(kinds) or 'nothing'}")
    if hasattr(member.backend, "unreadable"):
        if unreadable := member.backend.unreadable():
            yield Finding(ADVICE, unreadable)
    elif member.name != "env":
        yield Finding(ADVICE, "of another package: nothing more can be checked here")


def of_id_in_chain(members: Sequence[Member], kind: Kind, secret_id: str) -> Finding:
    """Return which member of a chain answers for an id."""
    subject = f"{SINGULAR[kind]} {quoted(secret_id)}"
    explained = explanation.explain_chain(members, kind, secret_id)
    if failed := explained.failed:
        code = USAGE if failed.outcome == explanation.MISCONFIGURED else NO_ANSWER
        return Finding(FAULT, f"{subject}: {failed.title}: {failed.message}", code=code)
    if explained.winner:
        return Finding(FINE, f"{subject}: {explained.winner} answers")
    return Finding(FAULT, f"{subject}: no member has it", "See who is asked for it: airflow-secrets explain.")


def _identity(backend: SecretLookupMixin) -> Generator[Finding, None, SecretsError | None]:
    """Yield the identity that the store sees, or return why it is unknown."""
    started = time.monotonic()
    try:
        with Progress("asking who this is"):
            identity = operations.identify(backend)
    except SecretsError as error:
        return error
    if identity is not None:
        details = "".join(f", {name} {value}" for name, value in identity.details.items())
        yield Finding(FINE, f"identity: {identity.who}{details} ({_milliseconds(started)}, login included)")
    return None


def _prefixes(configured: Configured, backend: SecretLookupMixin, failures: _Failures) -> Iterator[Finding]:
    access = answers_of(backend.config).access
    untried = backend.why_unlisted()
    kinds = ", ".join(
        kind for kind in KINDS if backend.rule(kind).prefixes is not None and not configured.off_for(kind)
    )
    if untried and kinds:
        yield Finding(ADVICE, f"{kinds}: not tried: {untried}", "Look one up: --connection or --variable.")
    for kind in KINDS:
        prefixes = backend.rule(kind).prefixes
        if prefixes is None:
            yield Finding(FINE, f"{kind}: off, never looked up here")
            continue
        if off := configured.off_for(kind):
            yield Finding(FINE, f"{kind}: {off}")
            continue
        if untried:
            continue
        for name in dict.fromkeys(backend.names(prefixes, PROBE, None)):
            if failures.is_away:
                yield failures.same(kind)
                continue
            started = time.monotonic()
            try:
                with Progress(f"reading {kind}"):
                    access.ask(name, backend.config.timeout)
            except SecretsError as error:
                yield failures.finding(kind, error)
            else:
                yield Finding(FINE, f"{kind}: may read {name.removesuffix(PROBE)}… ({_milliseconds(started)})")


def _listing(backend: SecretLookupMixin, failures: _Failures, kinds: Iterable[Kind]) -> Iterator[Finding]:
    for kind in kinds:
        if backend.rule(kind).prefixes is None:
            continue
        subject = f"listing {kind}"
        if failures.is_away:
            yield failures.same(subject)
            continue
        started = time.monotonic()
        try:
            with Progress(subject):
                first = next(inventory.listed_ids(backend, kind), None)
        except SecretsError as error:
            yield failures.finding(subject, error)
        else:
            holds = "" if first else "; nothing there"
            yield Finding(FINE, f"{kind}: may list{holds} ({_milliseconds(started)})")


def _clock(backend: SecretLookupMixin) -> Iterator[Finding]:
    skew = clock_skew(backend)
    if skew is None:
        return
    if abs(skew) <= MAX_SKEW:
        yield Finding(FINE, f"clock: within {max(1.0, abs(skew)):.0f} s of the store's")
    else:
        way = "behind" if skew > 0 else "ahead of"
        yield Finding(
            FAULT,
            f"clock: this host's is {abs(skew):.0f} s {way} the store's",
            "Let a time service set this host's clock (chrony, systemd-timesyncd): signatures and tokens depend on it.",
        )


def address_of(backend: SecretLookupMixin) -> str | None:
    """Return the address of the server that the backend's client asks; ``None`` without a client."""
    store = store_of(backend.config)
    return next(map(store.address, answers_of(backend.config).access.clients), None)


def clock_skew(backend: SecretLookupMixin) -> float | None:
    """Return the seconds by which the store's clock is ahead, from an answer's header Date; ``None`` without one."""
    options = backend.options
    connection = None
    try:
        parts = urlsplit(address_of(backend) or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=options["connect_timeout"])
        if parts.scheme == "https":
            cafile, capath = _authorities(options)
            context = ssl.create_default_context(cafile=cafile, capath=capath)
            connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=options["connect_timeout"], context=context
            )
        before = time.time()
        connection.request("HEAD", "/")
        header = connection.getresponse().getheader("Date")
        local = (before + time.time()) / 2
        return email.utils.parsedate_to_datetime(header).timestamp() - local if header else None
    except (OSError, http.client.HTTPException, ValueError):
        return None  # the reads have already reported what is wrong
    finally:
        if connection:
            connection.close()


def _authorities(options: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the file and the directory with CA certificates that the backend's options name."""
    given = options.get("verify") or options.get("connection_verify")
    if not isinstance(given, str):
        return None, None
    return (None, given) if Path(given).is_dir() else (given, None)


def _patterns(backend: SecretLookupMixin) -> Iterator[Finding]:
    for kind in KINDS:
        rule = backend.rule(kind)
        for option, pattern in ((f"{kind}_lookup_pattern", rule.pattern), (f"{kind}_exclude_pattern", rule.exclude)):
            if pattern is None:
                continue
            seconds = pattern_seconds(pattern.pattern)
            if seconds > SLOW_PATTERN:
                took = "never ended" if seconds == float("inf") else f"took {seconds:.2f} s"
                yield Finding(
                    FAULT,
                    f"{option} {pattern.pattern!r} {took} on an id of 512 characters",
                    "Avoid one repetition inside another, as in (a+)+; the pattern is tried at every lookup.",
                )


def pattern_seconds(pattern: str) -> float:
    """Return how many seconds a pattern takes on some long ids; infinity if it takes longer than ``LONGEST_PATTERN``.

    It runs in a separate process, which can be killed.
    """
    code = (
        "import re, sys, time\n"
        "pattern = re.compile(sys.stdin.read(), re.I)\n"
        "started = time.perf_counter()\n"
        "for id in ('a' * 511 + '!', 'a_' * 255 + '!', '1' * 511 + '!', 'ab-' * 170 + '!', 'prod_' * 102 + '!'):\n"
        "    pattern.match(id)\n"
        "print(time.perf_counter() - started)\n"
    )
    try:
        ran = subprocess.run(  # noqa: S603  # our own code
            [sys.executable, "-I", "-c", code],
            input=pattern,
            capture_output=True,
            text=True,
            timeout=LONGEST_PATTERN,
            check=False,
        )
        return float(ran.stdout or 0)
    except subprocess.TimeoutExpired:
        return float("inf")


def _caches(backend: SecretLookupMixin) -> Iterator[Finding]:
    given = backend.options
    if not given["cache_ttl"]:
        yield Finding(
            ADVICE, "cache: off (cache_ttl 0), so every lookup asks the store", "Set cache_ttl, 60 for example."
        )
    if not given["shared_cache"]:
        yield Finding(
            ADVICE,
            "cache: in each process alone. Tasks and DAG parses are processes of their own, so each asks the store "
            "again, and an outage hits every task",
            'Set shared_cache, "file" for example: a last known value then serves all of a host\'s processes.',
        )
        return
    ok: bool | None = FAULT
    try:
        with collected_warnings() as said:
            shared = answers_of(backend.config).shared_cache()
        # There is none if the default directory cannot be used: lookups only warn about that.
        fault = "" if shared else next(iter(said), "Answers are not shared between processes")
        if shared:
            shared.probe()
    except NoSharedKeyError as error:
        # Lookups go on without it, so a health probe must not keep a new Airflow from starting.
        ok, fault = ADVICE, str(error)
    except SecretsError as error:
        fault = str(error)
    if fault:
        what, _, cure = fault.rpartition(". ")
        yield Finding(ok, f"cache: {what or cure}", cure if what else None)
    elif shared:
        yield Finding(
            FINE,
            f"cache: shared in {shared.where}, "
            f"{given['cache_ttl']:g} s, last known values for {given['max_stale']:g} s more",
        )


def _looked_up(backend: SecretLookupMixin, failures: _Failures, kind: Kind, secret_id: str) -> Finding:
    subject = f"{SINGULAR[kind]} {quoted(secret_id)}"
    plan = backend.plan(kind, secret_id)
    if failures.is_away and not plan.reason:
        return failures.same(subject)
    started = time.monotonic()
    try:
        with Progress(f"looking up {shown(secret_id)}"):
            found = operations.read(backend, kind, secret_id) is not None
    except SecretsError as error:
        return failures.finding(subject, error)
    if found:
        return Finding(FINE, f"{subject}: found ({_milliseconds(started)})")
    if plan.reason:
        return Finding(FAULT, f"{subject}: not looked up: {plan.reason}", "Ask for another id, or change the option.")
    writes = operations.store_capabilities(backend)["write"]
    create = "create it: airflow-secrets put." if writes else f"create it in {backend.store}."
    cure = f"Check that the name is right, and the account, region, project, vault, mount or namespace; or {create}"
    return Finding(FAULT, f"{subject}: absent as {', '.join(plan.names)}", cure)


def _failure(text: str, error: Exception) -> Finding:
    cure = getattr(error, "advice", None)
    code = USAGE if isinstance(error, ConfigurationError) else NO_ANSWER
    return Finding(FAULT, text.removesuffix(f" {cure}"), cure, code)


def _reason(error: Exception) -> str:
    return str(getattr(error, "code", error))


def _milliseconds(started: float) -> str:
    return f"{(time.monotonic() - started) * 1000:.0f} ms"
