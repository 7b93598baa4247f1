"""A cache that processes share: encrypted entries, named by keyed hashes, in a directory, in Redis, or in both.

The documentation says what it protects and what it does not ("The shared cache"). Nothing in here fails a lookup: an
unreadable entry counts as a missing one, and problems are warned about once a minute. What the user must fix (a
directory that others can write to, an unusable key) raises a :class:`ConfigurationError`.
"""

from __future__ import annotations

import base64
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from airflow_providers_secrets.errors import ConfigurationError, MissingDependencyError, NoSharedKeyError
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.shared_cache.directory import DirectoryCache, is_ours_alone
from airflow_providers_secrets.lookup.shared_cache.entries import CachePlace, Seal, SharedCache, SharedEntry
from airflow_providers_secrets.options import fernet_keys

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup.config import StoreConfig

__all__ = ["DirectoryCache", "SharedCache", "SharedEntry", "airflow_keys", "default_directory", "load_client", "opened"]


PARTS: Final = 4
"""The number of parts of a lookup's time, of which one exchange with Redis may take one."""


def airflow_keys() -> tuple[str, ...] | None:
    """Return Airflow's own Fernet keys; ``None`` while its configuration is not loaded yet.

    :raises NoSharedKeyError: if it has no usable key, or cannot read it.
    """
    conf = getattr(sys.modules.get("airflow.configuration"), "conf", None)
    if conf is None:
        return None
    found, fault = "", ""
    try:
        found = conf.get("core", "fernet_key", fallback="") or ""
    except Exception as error:  # noqa: BLE001  # its text may hold what a command or a secrets backend gave
        fault = type(error).__name__
    if fault:
        raise NoSharedKeyError(
            f"Option 'shared_cache' needs a key: [core] fernet_key cannot be read ({fault}). See to what its "
            "fernet_key_cmd or fernet_key_secret needs, or set 'shared_cache_key' to a key that every process has."
        )
    try:
        return fernet_keys(found)
    except ValueError:
        raise NoSharedKeyError(
            "Option 'shared_cache' needs a key: [core] fernet_key holds no Fernet key. Set it, or set "
            "'shared_cache_key' to one that every process has."
        ) from None


_loaded: set[bytes] = set()
"""The fingerprints of the configurations whose modules are loaded, here or in a parent."""


def load_client(config: StoreConfig) -> None:
    """Import what *config*'s shared cache needs, and use its cryptography once: the first use loads more.

    No socket is opened. If Redis's client is not installed, :func:`opened` raises for it.
    """
    if config.fingerprint in _loaded:
        return
    seal = Seal(base64.urlsafe_b64encode(bytes(32)).decode(), b"")
    seal.open("", seal.close("", SharedEntry(None, 0.0)))
    for where in filter(is_redis, config.shared_cache):
        try:
            from airflow_providers_secrets.lookup.shared_cache import redis_server  # noqa: F401
            from airflow_providers_secrets.lookup.shared_cache.redis_address import address_of
        except ImportError:
            continue
        address_of(where, config.options["shared_cache_credentials"]).load()
    _loaded.add(config.fingerprint)


def is_redis(where: str) -> bool:
    """Return whether *where* names a server rather than a directory."""
    return where.startswith(("redis", "unix:"))


def opened(config: StoreConfig, keys: Sequence[str], identity: bytes, lifetime: float) -> SharedCache | None:
    """Open what *config* names; return ``None``, with a warning, if that is the default directory and is unusable.

    :param keys: Fernet keys. The first encrypts; all decrypt.
    :param identity: what the entries belong to: store, options, and who asks.
    :param lifetime: seconds after which an entry is of no use to anyone.
    :raises ConfigurationError: for a directory that cannot be used, or a URL that redis-py does not accept.
    :raises MissingDependencyError: if Redis's client is not installed.
    """
    by_place: dict[object, CachePlace] = {}
    for where in config.shared_cache:
        if layer := _opened_at(where, config, keys, identity, lifetime):
            by_place.setdefault(layer.place, layer)
    layers = list(by_place.values())
    if len(layers) < 2:  # noqa: PLR2004
        return layers[0] if layers else None
    from airflow_providers_secrets.lookup.shared_cache.layers import LayeredCache

    return LayeredCache(layers, keys, identity, lifetime)


def _opened_at(
    where: str, config: StoreConfig, keys: Sequence[str], identity: bytes, lifetime: float
) -> CachePlace | None:
    max_bytes = config.options["shared_cache_max_bytes"]
    if is_redis(where):
        try:
            from airflow_providers_secrets.lookup.shared_cache.redis_address import address_of
            from airflow_providers_secrets.lookup.shared_cache.redis_server import RedisCache
        except ImportError:
            raise MissingDependencyError(
                "redis is not installed. Install it with: pip install 'airflow-providers-secrets[redis]'"
            ) from None
        address = address_of(where, config.options["shared_cache_credentials"])
        prefix = config.options["shared_cache_prefix"]
        return RedisCache(address, keys, identity, lifetime, prefix, config.timeout / PARTS)
    if where != "file":
        return DirectoryCache(where.removeprefix("file://"), keys, identity, lifetime, max_bytes)
    directory = default_directory()
    try:
        return DirectoryCache(directory, keys, identity, lifetime, max_bytes)
    except ConfigurationError as error:
        # Another local user may have made it first. That must not send lookups to a weaker source.
        warn(("shared cache", directory), "Answers are not shared between processes: %s", error)
        return None


def default_directory() -> str:
    """Return the user's own directory in memory, or a temporary one if the host has none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and is_ours_alone(runtime):
        return f"{runtime}/airflow-secrets"
    base = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()  # noqa: PTH112, S108
    return f"{base}/airflow-secrets-{os.geteuid()}"
