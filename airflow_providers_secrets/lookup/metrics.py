"""How a process's lookups ended, counted here and reported to Airflow's metrics.

Counting is an addition to an integer: two threads may, rarely, count as one. Counts are reported after a call to
the store or to the shared cache, which takes far longer; a hit never reports them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import Counter, deque
from typing import Any, Final

log = logging.getLogger(__name__)

PREFIX: Final = "secrets_backend"
"""The first part of each metric's name; the second is the backend's module, the third what is counted."""

SET_UP_BY: Final = tuple(f"airflow.{part}_shared.observability.metrics.stats" for part in ("", "sdk."))
"""The modules in which a component and a task of Airflow 3.2 or later keep their metrics. Before 3.2, both use
``airflow.stats``, which imports one of these on later versions."""

OPENTELEMETRY: Final = "get_otel_logger"
"""The name of the function by which these modules make an exporter of OpenTelemetry."""


class Counts:
    """What happened since the process started, and how often, for one store.

    :param module: the backend's module, which names the metrics.
    """

    def __init__(self, module: str) -> None:
        self.hits = 0
        """Values answered from memory."""
        self.negative_hits = 0
        """Absences answered from memory."""
        self.shared_hits = 0
        """Answers that another process had left in the shared cache."""
        self.stale = 0
        """Expired values that were served while the store gave no answer."""
        self.calls = 0
        """Calls to the store: reads and listings; attempts and logins are not counted separately."""
        self.errors: Counter[str] = Counter()
        """Failed calls, and lookups whose answer could not be decoded, by the class of error."""
        self._module = module
        self._told: dict[str, int] = {}
        self._telling = threading.Lock()
        """Never waited for, since a forked child may find it held; the child has counts of its own."""
        self._taken: deque[float] = deque(maxlen=1000)
        self.recent: deque[float] = deque(maxlen=100)
        """The durations of the latest calls to the store, in seconds."""

    def so_far(self) -> dict[str, int]:
        """Return every count by the last part of its metric's name."""
        named = ("hits", "negative_hits", "shared_hits", "stale", "calls")
        counts = {name: int(getattr(self, name)) for name in named}
        return counts | {f"errors.{error}": count for error, count in dict(self.errors).items()}

    def called(self, seconds: float, error: Exception | None = None) -> None:
        """Count a call to the store."""
        self.calls += 1
        self._taken.append(seconds)
        self.recent.append(seconds)
        if error is not None:
            self.errors[type(error).__name__] += 1

    def failed(self, error: Exception) -> None:
        """Count and report that a lookup failed although the store had answered."""
        self.errors[type(error).__name__] += 1
        self.tell()

    def tell(self) -> None:
        """Report to Airflow's metrics what happened since the last time, unless another thread is doing so."""
        if not self._telling.acquire(blocking=False):
            return
        try:
            stats = _stats()
            if not stats:
                return
            before, self._told = self._told, self.so_far()
            for name, count in self._told.items():
                if more := count - before.get(name, 0):
                    stats.incr(f"{PREFIX}.{self._module}.{name}", more)
            with contextlib.suppress(IndexError):  # all are reported, perhaps by another thread
                while True:
                    stats.timing(f"{PREFIX}.{self._module}.call", self._taken.popleft() * 1000)
        except Exception:  # whatever a metrics library raises must not fail a lookup
            log.debug("Airflow's metrics could not be updated.", exc_info=True)
        finally:
            self._telling.release()


def _stats() -> Any:
    """Return Airflow's metrics if this process has set them up; nothing is imported for them.

    With OpenTelemetry, only if it has used them by then: the first use makes an exporter, for which a process waits at
    its end. Airflow uses none while it parses a DAG file; ours would delay that by 7 seconds if no collector answers.
    And a LocalExecutor's task uses its own metrics, not those that it has inherited: a second exporter would take the
    place of the first, of which nothing would then be sent.
    """
    modules = [module for name in SET_UP_BY if (module := sys.modules.get(name))]
    set_up = [kept for kept in map(_kept_in, modules) if kept[1] is not None]
    for stats, _, is_in_use in set_up:
        if is_in_use:
            return stats
    for stats, factory, _ in set_up:
        # Airflow chooses by several options, of which OpenTelemetry's is the last; the factory says what it chose.
        return None if getattr(factory, "__name__", "") == OPENTELEMETRY else stats
    return getattr(sys.modules.get("airflow.stats"), "Stats", None)


def _kept_in(module: Any) -> tuple[Any, Any, bool]:
    """Return the metrics that *module* keeps, the function that makes them, and whether this process has done so."""
    if hasattr(module, "_factory"):
        return module, module._factory, module._backend is not None  # noqa: SLF001  # there is no public access to it
    stats = getattr(module, "Stats", None)  # Airflow 3.2; another attribute of it would make them
    kept = vars(stats) if stats else {}
    return stats, kept.get("factory"), kept.get("_instance_pid") == os.getpid()
