"""A cluster client for processes that live for seconds: they read a few keys, and most end without writing."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

REDIRECTIONS: Final = 16
"""How many redirections a client follows before it asks for the slot map: so many cost about as much as the map."""

HOPS: Final = 2
"""How many nodes one read asks at most before that."""

_MOVED = re.compile(r"(?:MOVED )?\d+ (\S*):(\d+)")
"""Says where a slot is. Older releases of redis-py have no class for it, and leave the word in the text."""

REFUSALS: Final = (AuthenticationError, AuthorizationError, NoPermissionError)


class Cluster:
    """Follows redirections for reads, and leaves everything else to redis-py.

    redis-py's client asks a cluster to describe its 16,384 slots first, which costs more CPU than all else in a child
    that needs one answer. A node that is asked for another node's key says which node has it (Redis cluster
    specification, "MOVED Redirection"), so reading starts with any node. A write, a slot that is just moving, a node
    that does not answer or one redirection too many creates redis-py's own client, which is then used for good. Any
    number of threads may use it.

    :param entrances: clients of the nodes that the user named; none is connected yet.
    :param client_of: makes a client of another node.
    :param complete: makes redis-py's own client of the whole cluster, and adds the nodes that are asked for its map to
        the list that it gets: until the client is made, nothing else refers to their connections.
    """

    def __init__(
        self, entrances: Sequence[Any], client_of: Callable[[str, int], Any], complete: Callable[[list[Any]], Any]
    ) -> None:
        self._entrances = entrances
        self._entrance: Any = None
        self._client_of = client_of
        self._nodes: dict[tuple[str, int], Any] = {}
        self._owners: dict[int, Any] = {}
        self._make_complete = complete
        self._complete: Any = None
        self._asked: list[Any] = []
        self._completing = threading.Lock()

    def getrange(self, key: str, start: int, end: int) -> Any:
        """Return a part of the value of *key*, or whatever else a nonsensical server sends."""
        if self._complete is None and len(self._owners) < REDIRECTIONS:
            try:
                return self._read(key, start, end)
            except REFUSALS:
                raise
            except RedisError:
                pass  # the complete client finds out what is wrong
        return self._whole().getrange(key, start, end)

    def _read(self, key: str, start: int, end: int) -> Any:
        slot = key_slot(key.encode())
        if self._entrance is None:
            self._entrance = random.choice(self._entrances)  # noqa: S311  # spreads processes over the nodes
        node = self._owners.get(slot, self._entrance)
        for _ in range(HOPS):
            try:
                return node.getrange(key, start, end)
            except ResponseError as error:
                moved = _MOVED.fullmatch(str(error))
                if not moved:
                    raise
                node = self._owners[slot] = self._owner(node, moved[1], int(moved[2]))
        raise RedisError

    def _owner(self, sender: Any, host: str, port: int) -> Any:
        # A node that knows no address of another one leaves it out, which means its own
        # ("cluster-preferred-endpoint-type").
        host = host or sender.connection_pool.connection_kwargs["host"]
        node = self._nodes.get((host, port))
        return node or self._nodes.setdefault((host, port), self._client_of(host, port))

    def _whole(self) -> Any:
        with self._completing:
            if self._complete is None:
                self._complete = self._make_complete(self._asked)
            return self._complete

    def __getattr__(self, command: str) -> Any:
        if command.startswith("_"):
            raise AttributeError(command)
        return getattr(self._whole(), command)

    def pools(self) -> list[Any]:
        """Return the connection pools of all nodes known so far."""
        nodes = [*self._entrances, *self._nodes.values()]
        known = [*self._asked, *(self._complete.get_nodes() if self._complete is not None else ())]
        nodes += [node.redis_connection for node in known if node.redis_connection]
        return [node.connection_pool for node in nodes]
