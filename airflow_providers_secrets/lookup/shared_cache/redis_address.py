"""Where a cache in Redis or Valkey is, and a redis-py client for it: one server, a cluster, or Sentinel's primary.

The forms that redis-py itself reads are ``redis://``, ``rediss://`` and ``unix://``. A cluster and Sentinel are
written in the same way, with several hosts::

    rediss+cluster://user:password@host:6379,host:6379?ssl_ca_certs=/ca.pem
    redis+sentinel://user:password@host:26379,host:26379/SERVICE/0

Each form accepts every query parameter that redis-py accepts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import redis
import redis.cluster
import redis.connection
import redis.sentinel
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import SentinelManagedSSLConnection

from airflow_providers_secrets.errors import ConfigurationError, quoted
from airflow_providers_secrets.lookup.forks import in_child
from airflow_providers_secrets.lookup.shared_cache import redis_credentials
from airflow_providers_secrets.lookup.shared_cache.redis_cluster import Cluster
from airflow_providers_secrets.lookup.shared_cache.redis_tls import Tls
from airflow_providers_secrets.options import LONGEST_TIMEOUT

# redis-py does not annotate these.
ClusterNode: Any = redis.cluster.ClusterNode
Sentinel: Any = redis.sentinel.Sentinel
parse_url: Any = redis.connection.parse_url
to_bool: Any = redis.connection.to_bool

Client = Any
"""``redis.Redis`` or ``redis.cluster.RedisCluster``: they share no base class that type checkers know."""

REDIS_TIMEOUT: Final = 0.3
"""Seconds that one step of an exchange with Redis may take, unless the URL says ``socket_timeout``."""

STEPS: Final = {"": 2, "cluster": 4, "sentinel": 4}
"""How many such steps one exchange may have: connecting and asking; before that, finding out which server to ask."""

DEFAULT_PORTS: Final = {"": 6379, "cluster": 6379, "sentinel": 26379}

_FORM = re.compile(r"(redis|rediss|unix)(?:\+(cluster|sentinel))?://(?:([^/?#]*)@)?([^/?#@]*)([^?#]*)(?:\?([^#]*))?")

_SENTINELS_OWN = ("sentinel_username", "sentinel_password")

_FLAGS: Final = frozenset({"ssl_validate_ocsp", "ssl_validate_ocsp_stapled"})
"""The parameters that redis-py leaves as text, and then takes "true" for false, or "false" for true."""

_COMMANDS: Final[Mapping[str, Any]] = {
    name: {"name": name, "flags": [], "first_key_pos": 1, "last_key_pos": 1, "step_count": 1}
    for name in ("getrange", "set", "del", "pttl", "strlen")
}
"""The positions of the keys in the commands that are used here."""


class CompleteCluster(RedisCluster):
    """redis-py's cluster client, without asking the server to describe its 240 commands to each process first."""

    def command(self, **_: Any) -> Any:
        """Return what is known about the commands that are sent from here."""
        return dict(_COMMANDS)


class Address:
    """Where one cache in Redis is, and how to log in.

    :param url: in one of the forms above.
    :param credentials: the value of the option ``shared_cache_credentials``.
    :raises ConfigurationError: for what redis-py does not accept, naming the parameter and never its value.
    """

    def __init__(self, url: str, credentials: Mapping[str, Any] | None = None) -> None:
        match = _FORM.fullmatch(url)
        if not match:
            raise ConfigurationError("Option 'shared_cache' holds a URL that cannot be read.")
        scheme, self.mode, login, hosts, path, query = (part or "" for part in match.groups())
        given = dict(parse_qsl(query))
        if login:
            user, _, password = login.partition(":")
            given |= {name: unquote(part) for name, part in (("username", user), ("password", password)) if part}
        given |= {name: str(value) for name, value in (credentials or {}).items()}
        login_by = {name: given.pop(name) for name in redis_credentials.PARAMETERS & set(given)}
        self.credentials = redis_credentials.provider(login_by)
        self._sentinel = {name.removeprefix("sentinel_"): given.pop(name) for name in _SENTINELS_OWN if name in given}
        self._hosts = [_host(one, DEFAULT_PORTS[self.mode]) for one in hosts.split(",")] if hosts else []
        self._service = ""
        database = path
        if self.mode == "sentinel":
            _, self._service, database = [*path.split("/"), "", ""][:3]
        self.where = f"{scheme}{self.mode and '+'}{self.mode}://{hosts}{path}"
        self.kwargs = self._kwargs(scheme, database.strip("/") if scheme != "unix" else path, given)
        self.place = (self.mode, *sorted(self._hosts), self._service, self.kwargs.get("path"), self.kwargs.get("db", 0))
        """Which server and database it is, however the URL says it."""
        if self.credentials:
            self.kwargs["credential_provider"] = self.credentials
        else:
            user = login_by.get("user") or login_by.get("username")
            password = login_by.get("password")
            self.kwargs |= {name: text for name, text in (("username", user), ("password", password)) if text}
        self.longest = STEPS[self.mode] * float(self.kwargs["socket_timeout"])
        """Seconds that one exchange may take."""
        if isinstance(self.credentials, redis_credentials.Token):
            self.longest += redis_credentials.LOGIN_SECONDS
        self._spare: Client | None = None
        self._tls: Tls | None = None
        self._try_out()

    def __repr__(self) -> str:
        return f"Address({self.where!r})"

    def _kwargs(self, scheme: str, path: str, given: dict[str, str]) -> dict[str, Any]:
        plain = f"unix://{quote(path)}" if scheme == "unix" else f"{scheme}://h/{path}"
        fault: str | None = None
        try:
            kwargs = parse_url(f"{plain}?{urlencode(given)}")
        except Exception as error:  # noqa: BLE001  # it may hold the URL
            named = re.search(r"Invalid value for [`'](\w+)", str(error))
            fault = f"cannot take the value of {named[1]}" if named else f"cannot read it ({type(error).__name__})"
        if fault:
            raise ConfigurationError(f"Option 'shared_cache': redis-py {fault}.")
        for name in ("host", "port", "connection_class"):
            kwargs.pop(name, None)
        for name in _FLAGS & set(kwargs):
            kwargs[name] = to_bool(kwargs[name])
        for name in ("socket_timeout", "socket_connect_timeout"):
            if not 0 < kwargs.get(name, REDIS_TIMEOUT) <= LONGEST_TIMEOUT:
                raise ConfigurationError(
                    f"Option 'shared_cache': {name} must be a number of seconds above zero and at most "
                    f"{LONGEST_TIMEOUT} (a day)."
                )
        kwargs = {
            "socket_timeout": REDIS_TIMEOUT,
            "protocol": 2,  # no HELLO, no notifications: a short-lived process has no use for them
            **kwargs,
            "decode_responses": False,
            **_ANONYMOUS,
        }
        kwargs.setdefault("socket_connect_timeout", kwargs["socket_timeout"])
        if scheme == "unix":
            kwargs.pop("socket_connect_timeout")
        if scheme == "rediss":
            # redis-py 5 does not check the host name by itself.
            kwargs = {"ssl_check_hostname": True, **kwargs, "ssl": True}
        if self.mode == "cluster" and kwargs.pop("db", 0):
            raise ConfigurationError("Option 'shared_cache': a cluster has only database 0; leave it out.")
        return kwargs

    def _try_out(self) -> None:
        """Detect now, without a socket, what redis-py would refuse at the first connection."""
        unknown: str | None = None
        try:
            connection: Any = self._pool(self._first_host(), retry=Retry(NoBackoff(), 0)).make_connection()
        except Exception as error:  # noqa: BLE001  # it may hold a value
            named = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            unknown = f"parameter {quoted(named[1])}" if named else f"a parameter ({type(error).__name__})"
        if unknown:
            raise ConfigurationError(f"Option 'shared_cache': redis-py does not accept {unknown}. Leave it out.")
        if self.kwargs.get("ssl") and not (connection.ssl_validate_ocsp or connection.ssl_validate_ocsp_stapled):
            self._tls = Tls(connection)

    def client(self) -> Client:
        """Return a new client, which connects at the first command."""
        # What load() made is used once: it holds no socket until then, so that a forked child may use it, too.
        spare, self._spare = self._spare, None
        return spare or self._made()

    def _made(self) -> Client:
        # One more attempt, on a new connection, with freshly read credentials: the server may have been replaced.
        retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
        again = {"retry": retry, "retry_on_error": [RedisConnectionError]}  # redis-py 5.0 retries on no other
        if self.mode == "cluster":
            return Cluster(
                [self._node(*host) for host in self._hosts], self._node, lambda nodes: self._complete(retry, nodes)
            )
        if self.mode == "sentinel":
            return self._sentinels().master_for(self._service, **again, **self._connecting(of_sentinel=True))
        return redis.Redis(connection_pool=self._pool(self._first_host(), **again))

    def _node(self, host: str, port: int) -> Client:
        return redis.Redis(connection_pool=self._pool((host, port), retry=Retry(NoBackoff(), 0)))

    def _complete(self, retry: Retry, nodes: list[Any]) -> Client:
        # A cluster that serves only a part of the slots is still useful.
        serving = {"require_full_coverage": False, "reinitialize_steps": 1, "retry": retry, **_ATTEMPTS}
        first, *others = self._hosts
        nodes += [ClusterNode(host, port) for host, port in others]
        # redis-py adds the first to the list. It accepts a connection class only together with a URL.
        return CompleteCluster(url=_url(*first), startup_nodes=nodes, **{**serving, **self._connecting()})

    def _sentinels(self) -> Any:
        without = ("db", "username", "password", "credential_provider")
        connecting = {name: value for name, value in self._connecting().items() if name not in without}
        connecting |= {**self._sentinel, "retry": Retry(NoBackoff(), 0)}
        sentinel = Sentinel([])
        # Given as addresses, redis-py would connect to each with its own connection class.
        sentinel.sentinels = [
            redis.Redis(connection_pool=ConnectionPool(**{**connecting, "host": host, "port": port}))
            for host, port in self._hosts
        ]
        return sentinel

    def _connecting(self, *, of_sentinel: bool = False) -> dict[str, Any]:
        """Return the parameters of connections, including their class."""
        kwargs = dict(self.kwargs)
        encrypted = kwargs.pop("ssl", False)
        if encrypted and self._tls:
            kwargs["connection_class"] = self._tls.connection_class(of_sentinel=of_sentinel)
        elif encrypted:
            kwargs["connection_class"] = SentinelManagedSSLConnection if of_sentinel else SSLConnection
        elif "path" in kwargs:
            kwargs["connection_class"] = UnixDomainSocketConnection
        return kwargs

    def _first_host(self) -> tuple[str, int] | None:
        return self._hosts[0] if self._hosts else None

    def _pool(self, host: tuple[str, int] | None, **attempts: Any) -> ConnectionPool:
        kwargs = {**self._connecting(), **attempts}
        if host and "path" not in kwargs:
            kwargs["host"], kwargs["port"] = host
        return ConnectionPool(**kwargs)

    def load(self) -> None:
        """Import what the first connection needs, read the certificates, and make a client without connecting it."""
        redis_credentials.load(self.credentials)
        if self._tls:
            with contextlib.suppress(OSError, ValueError):  # the first connection reports it
                self._tls.load()
        self._spare = self._spare or self._made()


_addresses: dict[str, Address] = {}


def address_of(url: str, credentials: Mapping[str, str] | None) -> Address:
    """Return the process's only :class:`Address`, which a forked child inherits, without a socket or a token."""
    key = json.dumps([url, credentials], sort_keys=True)
    address = _addresses.get(key)
    if address is None:
        address = _addresses.setdefault(key, Address(url, credentials))
    return address


def _after_in_child() -> None:
    """Forget the parent's tokens: a child may have other credentials in its environment by the time it logs in."""
    for address in _addresses.values():
        if isinstance(address.credentials, redis_credentials.Token):
            address.credentials.forget()


in_child.append(_after_in_child)


def _url(host: str, port: int) -> str:
    return f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}"


def pools(client: Client) -> list[Any]:
    """Return the connection pools that *client* has so far."""
    if isinstance(client, Cluster):
        return client.pools()
    sentinel = getattr(client.connection_pool, "sentinel_manager", None)
    asked = [client, *(sentinel.sentinels if sentinel else ())]
    return [one.connection_pool for one in asked]


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or default_port


def _anonymous() -> dict[str, Any]:
    """Return the parameters that keep a client from introducing itself, which costs two commands per connection."""
    try:
        import redis.driver_info  # noqa: F401
    except ImportError:
        return {"lib_name": None, "lib_version": None}
    return {"driver_info": None}


_ANONYMOUS: Final = _anonymous()
_ATTEMPTS: Final[dict[str, Any]] = (
    {} if int(redis.__version__.split(".")[0]) >= 6 else {"cluster_error_retry_attempts": 1}  # noqa: PLR2004
)
