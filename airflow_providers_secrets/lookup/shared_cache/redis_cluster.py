"""A client of a cluster for processes that live for seconds: they read a few keys, and most end without writing."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

REDIRECTIONS: Final = 16
"""How many times a client is sent elsewhere before it asks for the map: this many cost about as much as the map."""

HOPS: Final = 2
"""How many nodes one reading asks at most before that."""

_MOVED = re.compile(r"(?:MOVED )?\d+ (\S*):(\d+)")
"""Where a slot is. Older releases of redis-py have no class for it, and leave the word in the text."""

REFUSALS: Final = (AuthenticationError, AuthorizationError, NoPermissionError)


class Cluster:
    """Reads from the node that it is sent to, and has redis-py do everything else.

    redis-py's client has a cluster describe its 16,384 slots first, which costs more CPU than all else in a child
    that needs one answer. A node that is asked for another one's key says who has it (Redis cluster specification,
    "MOVED Redirection"), so reading starts with any node. Writing, a slot that is just moving, a node that does not
    answer and one redirection too many make redis-py's own client, which stays. Any number of threads may use it.

    :param entrances: clients of the nodes that the user named; none is connected yet.
    :param client_of: makes one of another node.
    :param complete: makes redis-py's own client of the whole cluster, and lists the nodes that are asked for its map
        in what it is given: until it is made, their connections are in no other place.
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
        """Return a part of the value of *key*; whatever a server that makes no sense may send."""
        if self._complete is None and len(self._owners) < REDIRECTIONS:
            try:
                return self._read(key, start, end)
            except REFUSALS:
                raise
            except RedisError:
                pass  # the complete client finds out what it is
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
                if not moved or (isinstance(error, AskError) and not isinstance(error, MovedError)):
                    raise
                node = self._owners[slot] = self._owner(node, moved[1], int(moved[2]))
        raise RedisError

    def _owner(self, sender: Any, host: str, port: int) -> Any:
        # A node that knows no address of another's says that it is its own ("cluster-preferred-endpoint-type").
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
        """Return the connections' pools, of what is connected by now."""
        nodes = [*self._entrances, *self._nodes.values()]
        known = [*self._asked, *(self._complete.get_nodes() if self._complete is not None else ())]
        nodes += [node.redis_connection for node in known if node.redis_connection]
        return [node.connection_pool for node in nodes]
