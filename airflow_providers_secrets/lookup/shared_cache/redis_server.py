"""The shared cache of a fleet: one Redis key for each entry."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from redis import exceptions
from redis.sentinel import MasterNotFoundError

from airflow_providers_secrets.errors import SecretsError
from airflow_providers_secrets.lookup.deadline import DeadlineCall
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.shared_cache import redis_credentials
from airflow_providers_secrets.lookup.shared_cache.entries import (
    MAX_ENTRY_BYTES,
    CachePlace,
    StoredEntry,
    pauses,
    seconds_for_exchange,
)
from airflow_providers_secrets.lookup.shared_cache.redis_address import Address, Client, pools

clock = time.monotonic

REDIS_PAUSE: Final = 15.0
"""Seconds for which Redis is left alone after it failed."""

MAX_HANGING: Final = 8
"""How many exchanges may hang beyond their time: while so many do, Redis is not asked at all."""

BATCH: Final = 500
"""How many keys one exchange covers when an operator asks for all."""

LINKS: Final = 10
"""How many errors of a chain are examined."""

FLIGHT: Final = ":flight"
"""The suffix of the keys by which processes keep each other from asking the store."""

SET: Final = "set"
DEL: Final = "del"
"""Commands that may be refused separately: a full server refuses SET, but accepts DEL."""

RELEASE: Final = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
"""Ends a flight of ours, and nobody else's (Redis documentation, "Distributed Locks with Redis")."""


class RedisCache(CachePlace):
    """One key for each entry, which Redis removes by itself once it has expired.

    Every failure costs one exchange of bounded time. After it, the server is left alone for :data:`REDIS_PAUSE`; then a
    new client is used, which finds out again where the primaries are and what the password is. If only writing is
    refused, reading continues.

    :param address: where the server is, and how to log in.
    :param prefix: what all keys start with.
    :param longest: the most seconds of a lookup that an exchange may take.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self, address: Address, keys: Sequence[str], identity: bytes, lifetime: float, prefix: str, longest: float
    ) -> None:
        super().__init__(keys, identity, lifetime)
        self.where = address.where
        self._address = address
        self._prefix = prefix
        self._longest = min(address.longest, longest)
        self._client: Client | None = None
        self._connecting = threading.Lock()
        self._hanging: set[DeadlineCall] = set()
        self._left_alone_until = 0.0
        self._refused_until: dict[str, float] = {}

    @property
    def place(self) -> object:
        """The server and database."""
        return self._address.place

    # What lookups do.

    def _read(self, token: str) -> bytes | None:
        raw = self._in_time(lambda client: client.getrange(self._prefix + token, 0, MAX_ENTRY_BYTES))
        return raw if isinstance(raw, bytes) and 0 < len(raw) <= MAX_ENTRY_BYTES else None

    def _write(self, token: str, raw: bytes) -> bool:
        kept_for = max(1, int(self.lifetime * 1000))
        answer = self._in_time(lambda client: client.set(self._prefix + token, raw, px=kept_for), writes=SET)
        return answer is True

    def _drop(self, token: str) -> None:
        self._in_time(lambda client: client.delete(self._prefix + token), writes=DEL)

    @contextlib.contextmanager
    def _locked(self, token: str, seconds: float) -> Iterator[None]:
        key, mine = f"{self._prefix}{token}{FLIGHT}", os.urandom(16).hex()
        ends_after = max(1, int(seconds * 1000))
        locked = False
        for number, pause in enumerate(pauses(seconds)):
            answer = self._in_time(lambda client: [client.set(key, mine, nx=True, px=ends_after)], writes=SET)
            if answer != [None]:  # it is ours, or the server's answer makes no sense
                locked = answer == [True]
                break
            if number == 0 and self._is_ours(key, mine):
                locked = True
                break
            time.sleep(pause)
        try:
            yield
        finally:
            if locked:
                self._in_time(lambda client: client.eval(RELEASE, 1, key, mine), writes=DEL)

    def _is_ours(self, key: str, mine: str) -> bool:
        """Return whether we hold a lock: the answer may have been lost, and the client may have asked a second time."""
        return bool(self._in_time(lambda client: client.getrange(key, 0, len(mine))) == mine.encode())

    def _in_time(self, exchange: Callable[[Client], Any], *, writes: str = "") -> Any:
        """Return the result of *exchange*, or ``None`` if Redis fails or takes too long.

        :param writes: :data:`SET` or :data:`DEL`, which Redis may refuse although it allows reading.
        """
        if clock() < max(self._left_alone_until, self._refused_until.get(writes, 0.0)):
            return None
        left = seconds_for_exchange()
        if left <= 0 or len(self._hanging) >= MAX_HANGING:
            return None
        # A server that sends a byte now and then can hold the client's thread as long as it likes.
        call = DeadlineCall(
            lambda _: self._exchanged(exchange), min(self._longest, left), self._hanging.add, self._hanging.discard
        )
        if call.finished() and call.error is None:
            return call.result
        if call.error is None and left < self._longest:
            return None  # the lookup's time is over, which says nothing about Redis
        # Whatever the error, even a nonsensical answer: a cache that cannot be used fails no lookup.
        self._leave_alone(call.error, writes=writes)
        return None

    def _exchanged(self, exchange: Callable[[Client], Any]) -> Any:
        try:
            return exchange(self._connected())
        except exceptions.AuthenticationError:
            # The client's second attempt has read a password again; a new token is requested here.
            if not isinstance(self._address.credentials, redis_credentials.Token):
                raise
            self._address.credentials.forget()
        return exchange(self._connected())

    def _connected(self) -> Client:
        client = self._client
        if client is None:
            if not self._connecting.acquire(timeout=self._longest):
                raise exceptions.TimeoutError
            try:
                client = self._client
                if client is None:
                    client = self._client = self._address.client()
            finally:
                self._connecting.release()
        return client

    def _leave_alone(self, error: Exception | None, *, writes: str) -> None:
        until = clock() + REDIS_PAUSE
        reason = described(error)
        if writes and isinstance(error, exceptions.ResponseError):
            self._refused_until[writes] = until
            message = "The shared cache in Redis is not written to for %g s: %s"
        else:
            self._left_alone_until = until
            message = "The shared cache in Redis is left out for %g s: %s"
        client, self._client = self._client, None
        if client is not None:
            # Whatever still waits for this server, perhaps for ever, ends with its connection. Nobody waits for that.
            DeadlineCall(lambda _: _disconnected(client), 0.0).finished()
        warn(("shared cache", "redis"), message, REDIS_PAUSE, reason)

    # What operators do.

    def probe(self) -> None:
        """Read and write one key, which expires by itself.

        :raises SecretsError: if Redis gives no answer, or refuses writes.
        """
        client = self._operators()
        key = f"{self._prefix}probe"
        self._or_reported(lambda: (client.getrange(key, 0, 0), client.set(key, b"", px=1)))

    def entries(self) -> Iterator[StoredEntry]:
        """Yield the age and size of every key, by ``SCAN``. The age is that of an entry with this cache's lifetime.

        :raises SecretsError: if Redis gives no answer.
        """
        client = self._operators()
        keys = self._keys(client)
        while batch := self._or_reported(lambda: list(islice(keys, BATCH))):
            for key in batch:
                left, size = self._or_reported(partial(_measured, client, key))
                if size and left > 0:
                    yield StoredEntry(max(0.0, self.lifetime - left / 1000), size)

    def clear(self) -> int:
        """Remove every key of ours.

        :raises SecretsError: if Redis gives no answer.
        """
        client = self._operators()
        keys = self._or_reported(lambda: list(self._keys(client)))
        return sum(int(self._or_reported(partial(client.delete, key))) for key in keys)

    def _remove(self, token: str) -> bool:
        client = self._operators()
        return bool(self._or_reported(lambda: client.delete(self._prefix + token)))

    def _operators(self) -> Client:
        return self._or_reported(self._connected)

    def _keys(self, client: Client) -> Iterator[bytes]:
        ours = re.compile(re.escape(self._prefix.encode()) + rb"[0-9a-f]{64}")
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix) + "*"
        return (key for key in client.scan_iter(match=pattern, count=BATCH) if ours.fullmatch(key))

    def _or_reported(self, exchange: Callable[[], Any]) -> Any:
        """Return the result of *exchange*, or report to the operator a failure that a lookup would ignore."""
        try:
            return exchange()
        except Exception as error:  # noqa: BLE001  # a nonsensical answer may raise anything
            failure = described(error)
        raise SecretsError(f"The shared cache in {self.where} cannot be used: {failure}")


def _measured(client: Client, key: bytes) -> tuple[int, int]:
    return client.pttl(key), client.strlen(key)


def _disconnected(client: Client) -> None:
    for pool in pools(client):
        with contextlib.suppress(Exception):
            pool.disconnect()


def described(error: Exception | None) -> str:
    """Describe what went wrong and what to do about it, in our own words: a server's may hold anything."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < LINKS and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for one in chain:
        if isinstance(one, redis_credentials.Unreadable):
            return f"{one}."
    texts = [str(one)[:500] for one in chain]
    for kinds, text, says in _REASONS:
        for one, words in zip(chain, texts, strict=True):
            if isinstance(one, kinds) and (text is None or re.search(text, words)):
                return says
    return type(error).__name__ if error else "no answer in time"


_ANY = (Exception,)
_REASONS: Final = (
    (
        (exceptions.AuthenticationError, exceptions.ResponseError),
        "(?i)username-password|WRONGPASS|invalid password|Authentication required|NOAUTH|Invalid User|any password",
        "it refuses the user or the password. Check both, or password_file, which is read again for each connection.",
    ),
    (
        (exceptions.NoPermissionError,),
        None,
        "the user may not do this. Grant it what the documentation names, by ACL SETUSER.",
    ),
    (
        (exceptions.ResponseError,),
        r"^(MOVED )?\d+ \S*:\d+$",
        "it is a node of a cluster. Write redis+cluster:// or rediss+cluster:// for redis:// or rediss://.",
    ),
    (
        _ANY,
        "(?i)cluster mode is not enabled|cluster support disabled",
        "it is not a cluster. Write redis:// or rediss://.",
    ),
    (
        (exceptions.OutOfMemoryError,),
        None,
        "it is full. Give it an eviction policy (maxmemory-policy allkeys-lru) or more memory.",
    ),
    (
        (exceptions.ReadOnlyError,),
        None,
        "it is a replica, which refuses writes. Name the primary, or use redis+sentinel:// or redis+cluster://.",
    ),
    ((exceptions.BusyLoadingError,), None, "it is still loading its data."),
    (
        (exceptions.ConnectionError,),
        r"(?i)closed by server|reset by peer|broken pipe|eof occurred|error 104|error 32",
        "it closes the connection. If it requires TLS, write rediss:// for redis://.",
    ),
    (_ANY, "(?i)NOREPLICAS|MISCONF", "it refuses writes for now: see its own log."),
    ((MasterNotFoundError,), None, "no Sentinel knows a primary of this name, or none answers."),
    (_ANY, "CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted. Name the CA's file: ssl_ca_certs=/ca.pem."),
    (
        _ANY,
        "(?i)certificate required|handshake failure|bad certificate|unknown ca",
        "it does not accept the client's certificate. Name one: ssl_certfile=/cert.pem&ssl_keyfile=/key.pem.",
    ),
    (
        _ANY,
        "(?i)WRONG_VERSION_NUMBER|record layer failure|packet length",
        "it does not speak TLS. Write redis:// for rediss://.",
    ),
    (
        (exceptions.ConnectionError,),
        r"connecting to (unix socket: )?/.*No such file",  # a TLS file is reported while connecting to a host
        "its socket is not there. Check its path, and that Redis runs.",
    ),
    (_ANY, r"(?i)No such file|Invalid SSL Certificate", "a file that the URL names for TLS cannot be read."),
    ((exceptions.ClusterDownError,), None, "a part of the cluster is down."),
    (_ANY, "(?i)refused", "it refuses the connection. Check host and port, and that it runs."),
    ((exceptions.TimeoutError,), None, "no answer in time"),
)
"""Classes of errors, the pattern that their texts match, and what to say."""
