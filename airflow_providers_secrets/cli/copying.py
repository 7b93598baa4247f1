"""Compares and copies ids from a source to a target, in a limited number of threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_providers_secrets.cli.arguments import WORDS
from airflow_providers_secrets.errors import (
    InvalidSecret,
    LookupFailed,
    SecretRevoked,
    SecretsError,
    Unusable,
    printable,
    quoted,
)
from airflow_providers_secrets.lookup.plan import TEAM_SEP, Kind, multi_team

if TYPE_CHECKING:
    from airflow_providers_secrets.cli.endpoints import Origin, Target
    from airflow_providers_secrets.cli.journal import Journal
    from airflow_providers_secrets.cli.output import Progress

CREATE, SAME, DIFFERENT, INVALID, FAILED = "create", "same", "different", "invalid", "failed"
CREATED, OVERWRITTEN = "created", "overwritten"
STATES: Final = (CREATE, CREATED, SAME, DIFFERENT, OVERWRITTEN, INVALID, FAILED)

PAUSES: Final = (0.0, 0.3, 1.0, 3.0)
"""Seconds before each attempt to read back: some stores show a write only a moment later."""


MAX_DIFFERENCE_LENGTH: Final = 200
"""Maximum length of the list of fields in which two connections differ."""


class Blocked(Exception):
    """The reason why an id cannot be copied, as a clause without any value."""


@dataclass(frozen=True)
class Item:
    """The planned or completed action for one id.

    :param state: one of :data:`STATES`.
    :param reason: why it is invalid or failed; or what differs, and what a write loses.
    """

    kind: Kind
    secret_id: str
    state: str
    reason: str | None = None

    def row(self, form: str) -> dict[str, str | None]:
        """Return the item for the output: JSON and YAML name the kind in full, other forms by its short word."""
        kind = self.kind if form in ("json", "yaml") else WORDS[self.kind]
        return {"kind": kind, "id": self.secret_id, "state": self.state, "reason": self.reason}


class Copying:
    """Compares and writes, id by id, in a limited number of threads.

    :param rate: maximum number of writes per second, or ``None``: a store that throttles sets the pace itself.
    """

    def __init__(self, origin: Origin, target: Target, *, apply: bool, overwrite: bool, rate: float | None) -> None:
        self._origin = origin
        self._target = target
        self._apply = apply
        self._overwrite = overwrite
        self._pause = 1 / rate if rate else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(
        self, found: list[tuple[Kind, str]], parallel: int, journal: Journal | None, progress: Progress
    ) -> Iterator[Item]:
        """Yield the planned or completed action for each id, in the order given.

        After :meth:`stop`, or once the journal cannot be written, no further write begins, those in progress end, and
        the remaining ids are not yielded.
        """
        collisions = self._collisions(found)
        waits = True
        pool = concurrent.futures.ThreadPoolExecutor(parallel, thread_name_prefix="copy")
        try:
            futures: list[concurrent.futures.Future[Item | None]] = []
            for kind, secret_id in found:
                if journal and (kind, secret_id) in journal.verified:
                    futures.append(_done(Item(kind, secret_id, SAME, "according to the journal")))
                elif reason := collisions.get((kind, secret_id)):
                    futures.append(_done(Item(kind, secret_id, INVALID, reason)))
                else:
                    futures.append(pool.submit(self._one, kind, secret_id, journal))
            for future in futures:
                item = future.result()
                if item is not None:
                    progress.step(item.state)
                    yield item
        except KeyboardInterrupt:
            waits = False
            raise
        finally:
            self.stop()
            pool.shutdown(wait=waits, cancel_futures=True)

    def stop(self) -> None:
        """Let no further write begin."""
        self._stopped.set()

    def _collisions(self, found: list[tuple[Kind, str]]) -> dict[tuple[Kind, str], str]:
        """Return ids that would be one secret in the target, with the reason: none may silently replace another."""
        by_name: dict[str, list[tuple[Kind, str]]] = {}
        for kind, secret_id in found:
            try:
                by_name.setdefault(self._target.name(kind, secret_id), []).append((kind, secret_id))
            except Blocked:
                continue
        return {
            one: f"the target cannot tell it from {', '.join(repr(other[1]) for other in ones if other != one)}"
            for ones in by_name.values()
            if len(ones) > 1
            for one in ones
        }

    def _one(self, kind: Kind, secret_id: str, journal: Journal | None) -> Item | None:
        """Compare or copy one id; ``None`` if the copy was stopped before it."""
        if self._stopped.is_set():
            return None
        try:
            item = self._copied(kind, secret_id)
        except _Stopped:
            return None
        except (Blocked, Unusable, InvalidSecret, SecretRevoked) as error:
            item = Item(kind, secret_id, INVALID, _reason_of(error))
        except SecretsError as error:
            item = Item(kind, secret_id, FAILED, _reason_of(error))
        except Exception as error:  # noqa: BLE001  # one id must not end the others
            item = Item(kind, secret_id, FAILED, f"unexpected {type(error).__name__}")
        if journal and not journal.note(item):
            self.stop()
        return item

    def _copied(self, kind: Kind, secret_id: str) -> Item:
        from airflow_providers_secrets.lookup.connection_text import fields_of

        try:
            self._target.name(kind, secret_id)
        except Blocked:
            if self._origin.guesses and self._no_value(kind, secret_id):
                return Item(kind, secret_id, SAME, "neither of the two gives it to Airflow")
            raise
        text = self._origin.text(kind, secret_id)
        if text is None:
            return self._absent(kind, secret_id)
        if kind == "connections":
            fields_of(text)
        there: str | None = None
        unusable = False
        try:
            there = self._target.text(kind, secret_id)
        except (InvalidSecret, Unusable) as error:
            # The target holds it, but nobody can use it.
            if not self._overwrite:
                return Item(kind, secret_id, DIFFERENT, f"the target's cannot be used: {getattr(error, 'code', error)}")
            unusable = True
        if there is not None and _same(kind, text, there):
            return Item(kind, secret_id, SAME)
        differing = None if there is None else _differing(kind, text, there)
        self._target.check(kind, text)  # only what would be written: an equal value was already accepted there
        absent = there is None and not unusable
        lost = self._origin.loses(kind, secret_id)
        if not self._apply:
            return Item(
                kind, secret_id, CREATE if absent else DIFFERENT, "; ".join(filter(None, (differing, lost))) or None
            )
        if not absent and not self._overwrite:
            return Item(kind, secret_id, DIFFERENT, differing)
        written = self._written(kind, secret_id, text, created=absent)
        return written if written.reason else dataclasses.replace(written, reason=lost)

    def _absent(self, kind: Kind, secret_id: str) -> Item:
        """Return what the source's lack of an id means.

        :raises Blocked: unless it is how source and target agree.
        """
        if self._origin.guesses and self._target.text(kind, secret_id) is None:
            return Item(kind, secret_id, SAME, "neither of the two holds it")
        team, found, _ = secret_id.rpartition(TEAM_SEP)
        if found and multi_team():
            raise Blocked(f"it belongs to the team {quoted(team)}, and copy is for what belongs to none")
        raise Blocked("the source does not hold it")

    def _no_value(self, kind: Kind, secret_id: str) -> bool:
        with contextlib.suppress(SecretsError):  # it may have sent a name that no store allows
            return self._origin.text(kind, secret_id) is None
        return False

    def _written(self, kind: Kind, secret_id: str, text: str, *, created: bool) -> Item:
        from airflow_providers_secrets.lookup.operations import AlreadyExists

        self._wait_for_turn()
        # If it exists, somebody else wrote it, or we did and the answer was lost: reading back tells.
        with contextlib.suppress(AlreadyExists):
            self._target.write(kind, secret_id, text, only_if_absent=created)
        there: str | None = None
        for pause in PAUSES:
            time.sleep(pause)
            try:
                there = self._target.text(kind, secret_id)
                if there is not None and _same(kind, text, there):
                    return Item(kind, secret_id, CREATED if created else OVERWRITTEN)
            except (InvalidSecret, Unusable) as error:
                return Item(kind, secret_id, FAILED, f"written, but what is read back is unusable: {_reason_of(error)}")
        what = "nothing" if there is None else "something else"
        return Item(kind, secret_id, FAILED, f"reading back gave {what}")

    def _wait_for_turn(self) -> None:
        if not self._pause:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._pause
        if self._stopped.wait(turn - now):
            raise _Stopped


class _Stopped(Exception):  # not an error
    """The copy was stopped while a write waited for its turn."""


def _done(item: Item) -> concurrent.futures.Future[Item | None]:
    future: concurrent.futures.Future[Item | None] = concurrent.futures.Future()
    future.set_result(item)
    return future


def _same(kind: Kind, one: str, other: str) -> bool:
    """Tell whether two texts are the same secret: for connections, whether Airflow reads the same fields.

    :raises Unusable: if one of them cannot be read.
    """
    from airflow_providers_secrets.lookup.connection_text import fields_of

    if kind == "connections":
        return _equal(fields_of(one), fields_of(other))
    return one == other


def _differing(kind: Kind, one: str, other: str) -> str | None:
    """Name the fields in which two connections differ, without their values; ``None`` for texts without fields."""
    from airflow_providers_secrets.lookup.connection_text import fields_of

    if kind != "connections":
        return None
    ours, theirs = fields_of(one), fields_of(other)
    names = _names_of_differing(ours, theirs)
    extras = ours.get("extra", {}), theirs.get("extra", {})
    if "extra" in names and all(isinstance(extra, Mapping) for extra in extras):
        names[names.index("extra")] = f"extra ({', '.join(map(quoted, _names_of_differing(*extras)))})"
    return printable(f"in {', '.join(names)}", MAX_DIFFERENCE_LENGTH)


def _names_of_differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    both = one.keys() & other.keys()  # a null is not the same as nothing
    return [name for name in dict.fromkeys((*one, *other)) if name not in both or not _equal(one[name], other[name])]


def _equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal. Python alone would compare ``True`` and 1 as equal.

    1 and 1.0 are equal: Vault may return one for the other.
    """
    if one != other:
        return False
    pairs = [(one, other)]  # no recursion: an extra may be nested as deep as it can be parsed
    while pairs:
        one, other = pairs.pop()
        if isinstance(one, bool) != isinstance(other, bool):
            return False
        if isinstance(one, Mapping):
            pairs += ((value, other[name]) for name, value in one.items())
        elif isinstance(one, list):
            pairs += zip(one, other, strict=True)
    return True


def _reason_of(error: SecretsError | Blocked | Unusable) -> str:
    """Return why something failed, without values, for a table cell."""
    return f"{error.code}. {error.advice}" if isinstance(error, LookupFailed) else str(error)
