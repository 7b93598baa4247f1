"""Copy connections and variables between the metastore, the environment, a file and any backend's store.

Without --apply nothing is written: the table says what would be created, what is the same, what differs and what
cannot be copied. With it, what is absent is created, and read back through the same backend; what differs is left
alone without --overwrite. An interrupted copy can be run again: what was written is then the same, and --resume
skips what the journal says was verified.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_providers_secrets.cli.arguments import KIND_WORDS, add_output, pattern, whole_number
from airflow_providers_secrets.cli.exits import INTERRUPTED, NO_ANSWER, NOT_OK, OK

if TYPE_CHECKING:
    from airflow_providers_secrets.cli.configuration import Configured
    from airflow_providers_secrets.cli.endpoints import Origin, Target
    from airflow_providers_secrets.cli.output import Progress
    from airflow_providers_secrets.lookup.plan import Kind

NAME: Final = "copy"
HELP: Final = "copy secrets between metastore, environment, file and stores"
EXAMPLE: Final = "airflow-secrets copy --from metastore --to aws_ssm --to-kwargs @ssm.json --apply"

COLUMNS: Final = ("kind", "id", "state", "reason")

CREATE, SAME, DIFFERENT, INVALID, FAILED = "create", "same", "different", "invalid", "failed"
CREATED, OVERWRITTEN = "created", "overwritten"
STATES: Final = (CREATE, CREATED, SAME, DIFFERENT, OVERWRITTEN, INVALID, FAILED)

FROM_MEMBER, TO_MEMBER = "--from-member", "--to-member"

SOURCES: Final = ("metastore", "env", "file:PATH", "configured")
TARGETS: Final = ("metastore", "configured")
"""The possible sources and targets besides backends."""

PAUSES: Final = (0.0, 0.3, 1.0, 3.0)
"""Seconds before each attempt to read back: some stores show a write only a moment later."""


@dataclass(frozen=True)
class Item:
    """The planned or completed action for one id.

    :param state: one of :data:`STATES`.
    :param reason: why it is invalid or failed; or what a write loses.
    """

    kind: Kind
    secret_id: str
    state: str
    reason: str | None = None

    def row(self, form: str) -> dict[str, str | None]:
        """Return the item for the output: JSON and YAML name the kind in full, other forms by its short word."""
        word = next(word for word, kind in KIND_WORDS.items() if kind == self.kind)
        kind = self.kind if form in ("json", "yaml") else word
        return {"kind": kind, "id": self.secret_id, "state": self.state, "reason": self.reason}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets copy``."""
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        required=True,
        help="metastore, env, file:PATH, configured, or a backend: a short name or any class path",
    )
    parser.add_argument("--from-kwargs", metavar="JSON", help="the source's backend_kwargs; @FILE reads a file")
    parser.add_argument(
        FROM_MEMBER, metavar="N", type=whole_number(1, 999), help="of a chain as source, the member at this place"
    )
    parser.add_argument(
        "--to",
        dest="target",
        metavar="TARGET",
        default="configured",
        help="configured (the default), metastore, or a backend",
    )
    parser.add_argument("--to-kwargs", metavar="JSON", help="the target's backend_kwargs; @FILE reads a file")
    parser.add_argument(
        TO_MEMBER, metavar="N", type=whole_number(1, 999), help="of a chain as target, the member at this place"
    )
    parser.add_argument("--kind", choices=("conn", "var", "all"), default="all", help="connections, variables, or both")
    parser.add_argument("--match", metavar="REGEX", type=pattern, help="only ids that match from their start")
    parser.add_argument(
        "--names", metavar="FILE", help="only these ids, one a line (conn:ID, var:KEY); also of what cannot list"
    )
    parser.add_argument("--apply", action="store_true", help="write; without it nothing is written")
    parser.add_argument("--overwrite", action="store_true", help="also write what differs in the target")
    parser.add_argument("--as-uri", action="store_true", help="write connections as URI instead of JSON")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="the store's settings of a write"
    )
    parser.add_argument(
        "--parallel", metavar="N", type=whole_number(1, 32), default=4, help="how many at once (4, at most 32)"
    )
    parser.add_argument("--rate", metavar="N", type=_rate, help="at most so many writes in a second")
    parser.add_argument("--journal", metavar="FILE", help="where names and states are written down")
    parser.add_argument("--resume", action="store_true", help="skip what the journal says was verified")
    parser.add_argument("--changes", action="store_true", help="leave what is the same out of the output")
    add_output(parser)


def _rate(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or not float(text):
        raise argparse.ArgumentTypeError("takes a number above 0")
    return float(text)


def run(args: argparse.Namespace) -> int:
    """Compare and, with --apply, copy.

    :return: ``OK`` if everything is or was copied, or a dry run found nothing in the way; ``NOT_OK`` if
        something differs or is invalid; ``NO_ANSWER`` if a store gave no answer.
    """
    from airflow_providers_secrets.errors import ConfigurationError

    if args.overwrite and not args.apply:
        raise ConfigurationError("--overwrite writes, and without --apply nothing is written; add --apply.")
    for flag, given in (("--journal", args.journal is not None), ("--resume", args.resume)):
        if given and not args.apply:
            raise ConfigurationError(f"{flag} is for a copy that writes; add --apply, or leave it out.")
    for flag, member, end in ((FROM_MEMBER, args.from_member, args.source), (TO_MEMBER, args.to_member, args.target)):
        if member is not None and _is_no_backend(end):
            raise ConfigurationError(f"{flag} is for chains, and {end} is not one.")
    for flag, given, end in (
        ("--from-kwargs", args.from_kwargs is not None, args.source),
        ("--to-kwargs", args.to_kwargs is not None, args.target),
    ):
        if given and _is_no_backend(end):
            raise ConfigurationError(f"{flag} is for backends, and {end} takes none; leave it out.")
    with Interrupts() as interrupts:
        return _copied(args, interrupts)


def _is_no_backend(end: str) -> bool:
    return end in ("metastore", "env", "environment") or end.startswith("file:")


def _copied(args: argparse.Namespace, interrupts: Interrupts) -> int:
    from airflow_providers_secrets.cli import output
    from airflow_providers_secrets.cli.endpoints import names_from
    from airflow_providers_secrets.errors import SecretsError

    kinds: tuple[Kind, ...] = ("connections", "variables") if args.kind == "all" else (KIND_WORDS[args.kind],)
    names = None if args.names is None else names_from(args.names, kinds)
    target = _target(args)
    origin = _origin(args, target, kinds, names)
    found = [
        (kind, secret_id)
        for kind in kinds
        for secret_id in dict.fromkeys(_listed(origin, kind) if names is None else names[kind])
        if args.match is None or args.match.match(secret_id)
    ]
    journal = Journal(_journal_path(args), _told_apart(origin, target), resume=args.resume) if args.apply else None
    copying = Copying(origin, target, apply=args.apply, overwrite=args.overwrite, rate=args.rate or target.rate)
    done: dict[str, int] = dict.fromkeys(STATES, 0)

    def items() -> Generator[dict[str, Any], None, None]:
        with output.Progress("copying" if args.apply else "comparing", len(found)) as progress:
            interrupts.stops(copying, progress)
            for item in copying.run(found, args.parallel if target.parallel else 1, journal, progress):
                done[item.state] += 1
                if not (args.changes and item.state == SAME):
                    yield item.row(args.output)

    rows = items()
    try:
        output.show_rows(rows, COLUMNS, args.output)
    except KeyboardInterrupt:
        _end_at_once(f"{_so_far(done, len(found), args, journal)} (what was under way was not waited for)")
    finally:
        rows.close()  # if nobody reads the output any more, wait for the writes under way, and record them
        if journal:
            journal.close()
    if journal and journal.failure:
        raise SecretsError(
            f"the journal {journal.path} cannot be written to any more ({journal.failure}): "
            f"{_counted(done, len(found))}. Make room for it or name another by --journal, and copy again: what is "
            "written is then the same."
        )
    if interrupts.seen and sum(done.values()) < len(found):
        raise KeyboardInterrupt(_so_far(done, len(found), args, journal))
    _sum_up(origin, target, done, journal)
    if done[FAILED]:
        return NO_ANSWER
    return NOT_OK if done[DIFFERENT] or done[INVALID] else OK


def _so_far(done: dict[str, int], total: int, args: argparse.Namespace, journal: Journal | None) -> str:
    """Return one line about what an interrupted copy did, and the command that continues it."""
    told = _counted(done, total)
    if journal is None:
        return f"interrupted: {told} (dry run)."
    command = _resuming(args, journal.path)
    masked = " (with your options for ***)" if "***" in command else ""
    return f"interrupted: {told}. Journal: {journal.path}. To go on{masked}: {command}"


def _counted(done: dict[str, int], total: int) -> str:
    """Return the number of ids per state, for a copy that ended early."""
    others = [(number, state) for state, number in done.items() if number and state not in (CREATED, OVERWRITTEN)]
    counts = [(done[CREATED] + done[OVERWRITTEN], "written"), *others, (total - sum(done.values()), "left")]
    return ", ".join(f"{number} {state}" for number, state in counts)


def _resuming(args: argparse.Namespace, journal: Path) -> str:
    """Return the command that continues an interrupted copy, with option values masked that may be credentials."""
    typed: list[str] = []
    words = iter(args.typed)
    for word in words:
        flag, found, value = word.partition("=")
        if flag in ("--from-kwargs", "--to-kwargs"):
            shown = _shown_kwargs(value if found else next(words, ""))
            typed += [f"{flag}={shown}"] if found else [flag, shown]
        else:
            typed.append(word)
    more = [] if args.journal else ["--journal", str(journal)]
    return shlex.join([*typed, *more, *([] if args.resume else ["--resume"])])


def _shown_kwargs(text: str) -> str:
    """Return ``backend_kwargs`` as they were typed, or ``***`` if any of them may be a credential."""
    from airflow_providers_secrets.cli.configuration import may_be_credentials

    return "***" if not text.startswith("@") and text != "-" and may_be_credentials(text) else text


def _end_at_once(text: str) -> NoReturn:
    """End the process after a second interrupt, without waiting for the writes in progress."""
    print(f"airflow-secrets {NAME}: {text}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(INTERRUPTED)


class Interrupts:
    """Handlers of Ctrl-C, SIGTERM and SIGHUP: after the first, writes in progress still end; a second ends the copy.

    Before the copying begins, the first one ends it. A signal that the process was started with ignored (``nohup``), or
    that other code handles, stays as it is. Outside the main thread, which gets no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.seen = False
        self._copying: Copying | None = None
        self._progress: Progress | None = None
        self._before: dict[signal.Signals, Any] = {}

    def stops(self, copying: Copying, progress: Progress) -> None:
        """Let the first interrupt stop *copying*."""
        self._copying, self._progress = copying, progress

    def __enter__(self) -> Interrupts:  # noqa: PYI034  # typing.Self is of Python 3.11
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupted(self, *_: object) -> None:
        if self._copying is None:
            raise KeyboardInterrupt("interrupted before anything was written.")
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
        self._copying.stop()
        if self._progress:
            self._progress.title = "ending the writes under way; a second interrupt does not wait for them:"


def _sum_up(origin: Origin, target: Target, done: dict[str, int], journal: Journal | None) -> None:
    from airflow_providers_secrets.cli.output import say

    counted = ", ".join(f"{number} {state}" for state, number in done.items() if number) or "nothing to copy"
    say(f"{origin.title} → {target.title}: {counted}{'' if journal else ' (dry run; --apply writes)'}")
    if journal:
        if not journal.dropped_if_empty():
            say(f"journal: {journal.path}")
    elif target.needs_rights and (done[CREATE] or done[DIFFERENT]):
        say("A dry run does not try the right to write: airflow-secrets policy --allow write prints it.")


def _listed(origin: Origin, kind: Kind) -> Iterable[str]:
    from airflow_providers_secrets.cli.output import Progress

    with Progress(f"listing {kind}") as progress:
        for secret_id in origin.ids(kind):
            progress.step()
            yield secret_id


# Endpoints.


def _backend(name: str, kwargs: str | None, member: int | None, flag: str) -> Configured:
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.errors import ConfigurationError

    if name == "configured":
        namespace = argparse.Namespace(backend=None, worker=False, member=None, kwargs=kwargs)
        found = configuration.configured(namespace)
    else:
        configuration.load_airflow()
        others = SOURCES if flag == FROM_MEMBER else TARGETS
        found = configuration.tried(name, configuration.kwargs_from(kwargs) if kwargs is not None else {}, others)
    if member is not None:
        found = configuration.member_of(found, member, flag)
        if not hasattr(found.backend, "get_conn_value"):
            raise ConfigurationError(
                f"member {member} ({found.class_path}) is not a store; copy from it by --from env or --from file:PATH."
            )
    return found


def _target(args: argparse.Namespace) -> Target:
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.cli.endpoints import ToBackend, ToMetastore
    from airflow_providers_secrets.cli.put import settings_of
    from airflow_providers_secrets.errors import ConfigurationError
    from airflow_providers_secrets.lookup import operations

    if args.target == "metastore":
        for flag, given in (("--set", args.set), ("--as-uri", args.as_uri)):
            if given:
                raise ConfigurationError(f"{flag} is for backends, and metastore takes none; leave it out.")
        configuration.load_airflow()
        return ToMetastore()
    if args.target in ("env", "environment") or args.target.startswith("file:"):
        raise ConfigurationError("--to takes configured, metastore or a backend: values are not written to files.")
    settings = settings_of(args.set)
    target = ToBackend(_backend(args.target, args.to_kwargs, args.to_member, TO_MEMBER), settings, as_uri=args.as_uri)
    if args.apply or args.set:
        # Check this once, before anything is read or written, and not for each id.
        operations.store_for_write(target.backend, settings)
    return target


def _origin(
    args: argparse.Namespace, target: Target, kinds: tuple[Kind, ...], names: dict[Kind, list[str]] | None
) -> Origin:
    from airflow_providers_secrets.cli import configuration, endpoints
    from airflow_providers_secrets.lookup.sources import Environment, Metastore

    if args.source.startswith("file:"):
        return endpoints.FromFile(args.source.removeprefix("file:"), kinds)
    if args.source in ("env", "environment"):
        return endpoints.FromSource(Environment())
    if args.source == "metastore":
        configuration.load_airflow()
        return endpoints.FromSource(Metastore())
    configured = _backend(args.source, args.from_kwargs, args.from_member, FROM_MEMBER)
    if names is None and not configuration.is_ours(configured.backend):
        guessed = endpoints.FromBackend(configured, _names_elsewhere(target, kinds))
        guessed.guesses = True
        return guessed
    return endpoints.FromBackend(configured, names)


def _names_elsewhere(target: Target, kinds: tuple[Kind, ...]) -> dict[Kind, list[str]]:
    """Return the ids to request from a class that cannot list: those of target, environment and metastore."""
    from airflow_providers_secrets.cli.endpoints import FromSource, ToBackend, gathered
    from airflow_providers_secrets.lookup import operations
    from airflow_providers_secrets.lookup.sources import Environment, Metastore

    origins: list[tuple[str, Callable[[Kind], Iterable[str]]]] = []
    if isinstance(target, ToBackend):
        backend = target.backend
        origins.append((target.title, lambda kind: (one.secret_id for one in operations.listed_ids(backend, kind))))
    origins += [(source.title, FromSource(source).ids) for source in (Environment(), Metastore())]
    names: dict[Kind, list[str]] = {kind: [] for kind in kinds}
    for kind, secret_id in gathered(origins, kinds):
        names[kind].append(secret_id)
    return names


# The copying itself.


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
        from airflow_providers_secrets.cli.endpoints import Blocked

        by_name: dict[str, list[tuple[Kind, str]]] = {}
        for kind, secret_id in found:
            try:
                by_name.setdefault(f"{self._scope(kind)}{self._target.name(kind, secret_id)}", []).append(
                    (kind, secret_id)
                )
            except Blocked:
                continue
        return {
            one: f"the target cannot tell it from {', '.join(repr(other[1]) for other in ones if other != one)}"
            for ones in by_name.values()
            if len(ones) > 1
            for one in ones
        }

    def _scope(self, kind: Kind) -> str:
        return f"{kind}:" if self._target.title == "metastore" else ""

    def _one(self, kind: Kind, secret_id: str, journal: Journal | None) -> Item | None:
        """Compare or copy one id; ``None`` if the copy was stopped before it."""
        from airflow_providers_secrets.cli.endpoints import Blocked, reason_of
        from airflow_providers_secrets.errors import InvalidSecret, SecretRevoked, SecretsError, Unusable

        if self._stopped.is_set():
            return None
        try:
            item = self._copied(kind, secret_id)
        except _Stopped:
            return None
        except (Blocked, Unusable, InvalidSecret, SecretRevoked) as error:
            item = Item(kind, secret_id, INVALID, reason_of(error))
        except SecretsError as error:
            item = Item(kind, secret_id, FAILED, reason_of(error))
        except Exception as error:  # noqa: BLE001  # one id must not end the others
            item = Item(kind, secret_id, FAILED, f"unexpected {type(error).__name__}")
        if journal and not journal.note(item):
            self.stop()
        return item

    def _copied(self, kind: Kind, secret_id: str) -> Item:
        from airflow_providers_secrets.cli.endpoints import Blocked, same
        from airflow_providers_secrets.errors import InvalidSecret, Unusable, quoted
        from airflow_providers_secrets.lookup.connection_text import fields_of
        from airflow_providers_secrets.lookup.plan import TEAM_SEP, multi_team

        self._target.name(kind, secret_id)
        text = self._origin.text(kind, secret_id)
        if text is None:
            if self._origin.guesses and self._target.text(kind, secret_id) is None:
                return Item(kind, secret_id, SAME, "neither of the two holds it")
            team, found, _ = secret_id.rpartition(TEAM_SEP)
            if found and multi_team():
                raise Blocked(f"it belongs to the team {quoted(team)}, and copy is for what belongs to none")
            raise Blocked("the source does not hold it")
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
        if there is not None and same(kind, text, there):
            return Item(kind, secret_id, SAME)
        self._target.check(kind, text)  # only what would be written: an equal value was already accepted there
        absent = there is None and not unusable
        lost = self._origin.loses(kind, secret_id)
        if not self._apply:
            return Item(kind, secret_id, CREATE if absent else DIFFERENT, lost)
        if not absent and not self._overwrite:
            return Item(kind, secret_id, DIFFERENT)
        written = self._written(kind, secret_id, text, created=absent)
        return written if written.reason else dataclasses.replace(written, reason=lost)

    def _written(self, kind: Kind, secret_id: str, text: str, *, created: bool) -> Item:
        from airflow_providers_secrets.cli.endpoints import reason_of, same
        from airflow_providers_secrets.errors import InvalidSecret, Unusable
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
                if there is not None and same(kind, text, there):
                    return Item(kind, secret_id, CREATED if created else OVERWRITTEN)
            except (InvalidSecret, Unusable) as error:
                return Item(kind, secret_id, FAILED, f"written, but what is read back is unusable: {reason_of(error)}")
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


# The journal.


JOURNAL_START: Final = '{"kind": '
"""The start of every journal, even of one whose first line was cut off by a kill."""


class Journal:
    """A file with one JSON object per line: kind, id, state. Never a value.

    When it is read again, lines that a kill cut off and lines of another source or target are ignored.

    :param of: identifies source and target.
    :param resume: continue the file; otherwise it is truncated.
    :ivar failure: why it can no longer be written.
    :raises ConfigurationError: if it cannot be written, or is another kind of file: the source may be named by mistake.
    """

    def __init__(self, path: Path, of: str, *, resume: bool) -> None:
        from airflow_providers_secrets.errors import ConfigurationError

        self.path = path
        self._of = of
        self.verified: set[tuple[str, str]] = set()
        self.failure: str | None = None
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            if held.strip() and not held.lstrip().startswith(JOURNAL_START):
                raise ConfigurationError(
                    f"{path} is not a journal and was left unchanged; name another file with --journal."
                )
            if resume:
                self._read(held)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if resume else os.O_TRUNC)
            self._file = os.fdopen(os.open(path, flags, 0o600), "ab", buffering=0)
            if resume:
                self._append("")  # ends a line that was cut off, and fails if no line can be written
        except OSError as error:
            raise ConfigurationError(
                f"the journal {path} cannot be written: {error.strerror}; name another by --journal."
            ) from None

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                key = (entry["kind"], entry["id"])
            except (ValueError, KeyError, TypeError):
                continue
            if entry.get("of") != self._of:
                continue
            if entry.get("state") in (CREATED, OVERWRITTEN, SAME):
                self.verified.add(key)
            else:
                self.verified.discard(key)

    def note(self, item: Item) -> bool:
        """Write one item, unbuffered; return whether that succeeded."""
        entry = {"kind": item.kind, "id": item.secret_id, "state": item.state, "of": self._of}
        line = json.dumps(entry, ensure_ascii=False)
        with self._lock:
            if self.failure is None:
                try:
                    self._append(line)
                except OSError as error:
                    self.failure = error.strerror or type(error).__name__
            return self.failure is None

    def _append(self, line: str) -> None:
        # Lone surrogates are written as JSON escapes: \udcff.
        left = f"{line}\n".encode(errors="backslashreplace")
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def dropped_if_empty(self) -> bool:
        """Remove the file if it has no entry, and return whether that was so."""
        with contextlib.suppress(OSError):
            # A single byte is the newline that a resumed copy appends. A device such as /dev/null is not removed.
            if self.path.is_file() and self.path.stat().st_size <= 1:
                self.path.unlink()
                return True
        return False


def _told_apart(origin: Origin, target: Target) -> str:
    """Return a digest that marks a journal's lines as those of this source and target."""
    both = json.dumps([origin.title, origin.identity, target.title, target.identity])
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def _journal_path(args: argparse.Namespace) -> Path:
    if args.journal:
        return Path(args.journal)
    members = [args.from_member, args.to_member]
    what = json.dumps([args.source, args.from_kwargs, args.target, args.to_kwargs, *(members if any(members) else ())])
    directory = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "airflow-secrets"
    of = hashlib.sha256(what.encode()).hexdigest()[:12]
    if args.resume:
        # The names of older journals contain no time.
        for earlier in sorted(directory.glob(f"copy-*-{of}-*.jsonl"), reverse=True) or [directory / f"copy-{of}.jsonl"]:
            if earlier.is_file():
                return earlier
    return directory / f"copy-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{of}-{os.urandom(3).hex()}.jsonl"
