"""Copy connections and variables between the metastore, the environment, a file and any backend's store.

Without --apply nothing is written: the table says what would be created, what is the same, what differs and what
cannot be copied. With it, what is absent is created, and read back through the same backend; what differs is left
alone without --overwrite. An interrupted copy can be run again: what was written is then the same, and --resume
skips what the journal says was verified.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_providers_secrets.cli import output
from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD, add_output, add_writing, pattern, whole_number
from airflow_providers_secrets.cli.copying import (
    CREATE,
    CREATED,
    DIFFERENT,
    FAILED,
    INVALID,
    OVERWRITTEN,
    SAME,
    STATES,
    Copying,
)
from airflow_providers_secrets.cli.exits import INTERRUPTED, NO_ANSWER, NOT_OK, OK
from airflow_providers_secrets.cli.journal import Journal
from airflow_providers_secrets.errors import ConfigurationError, SecretsError

if TYPE_CHECKING:
    from airflow_providers_secrets.cli.configuration import Configured
    from airflow_providers_secrets.cli.endpoints import Origin, Target
    from airflow_providers_secrets.lookup.plan import Kind

NAME: Final = "copy"
HELP: Final = "copy secrets between metastore, environment, file and stores"
EXAMPLE: Final = "airflow-secrets copy --from metastore --to aws_ssm --to-kwargs @ssm.json --apply"

COLUMNS: Final = ("kind", "id", "state", "reason")

FROM_MEMBER, TO_MEMBER = "--from-member", "--to-member"
FROM_KWARGS, TO_KWARGS = "--from-kwargs", "--to-kwargs"

SOURCES: Final = ("metastore", "env", "file:PATH", "configured")
TARGETS: Final = ("metastore", "configured")
"""The possible sources and targets besides backends."""

SPELLING: Final = "My_DB"
"""An id that a store may list in another spelling."""

NAME_THEM: Final = "Name them by --names FILE, or copy --from this package's class of the same store, which lists them."
"""What to do about a source that cannot list its ids."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``airflow-secrets copy``."""
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        required=True,
        help="metastore, env, file:PATH, configured, or a backend: a short name or any class path",
    )
    parser.add_argument(
        FROM_KWARGS, metavar="JSON", help="the source's backend_kwargs; @FILE reads a file, - standard input"
    )
    parser.add_argument(
        FROM_MEMBER,
        metavar="N",
        type=whole_number(1, 999),
        help="of a chain as source, the member at this place, from 1",
    )
    parser.add_argument(
        "--to",
        dest="target",
        metavar="TARGET",
        default="configured",
        help="configured (the default), metastore, or a backend",
    )
    parser.add_argument(
        TO_KWARGS, metavar="JSON", help="the target's backend_kwargs; @FILE reads a file, - standard input"
    )
    parser.add_argument(
        TO_MEMBER, metavar="N", type=whole_number(1, 999), help="of a chain as target, the member at this place, from 1"
    )
    parser.add_argument("--kind", choices=("conn", "var", "all"), default="all", help="connections, variables, or both")
    parser.add_argument("--match", metavar="REGEX", type=pattern, help="only ids that match from their start")
    parser.add_argument(
        "--names", metavar="FILE", help="only these ids, one a line (conn:ID, var:KEY); also of what cannot list"
    )
    parser.add_argument("--apply", action="store_true", help="write; without it nothing is written")
    parser.add_argument("--overwrite", action="store_true", help="also write what differs in the target")
    add_writing(parser)
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
    from airflow_providers_secrets.cli.reading import refuse_two_readers

    if args.overwrite and not args.apply:
        raise ConfigurationError("--overwrite writes, and without --apply nothing is written; add --apply.")
    if args.journal == "":
        raise ConfigurationError("the path of a file is missing; write --journal FILE.")
    for flag, given in (("--journal", args.journal is not None), ("--resume", args.resume)):
        if given and not args.apply:
            raise ConfigurationError(f"{flag} is for a copy that writes; add --apply, or leave it out.")
    for flag, member, end in ((FROM_MEMBER, args.from_member, args.source), (TO_MEMBER, args.to_member, args.target)):
        if member is not None and _is_no_backend(end):
            raise ConfigurationError(f"{flag} is for chains, and {end} is not one.")
    for flag, given, end in (
        (FROM_KWARGS, args.from_kwargs is not None, args.source),
        (TO_KWARGS, args.to_kwargs is not None, args.target),
    ):
        if given and _is_no_backend(end):
            raise ConfigurationError(f"{flag} is for backends, and {end} takes none; leave it out.")
    readers = {f"{FROM_KWARGS} -": args.from_kwargs == "-", f"{TO_KWARGS} -": args.to_kwargs == "-"}
    refuse_two_readers(readers, f"{FROM_KWARGS} takes a file, too: @FILE")
    with Interrupts() as interrupts:
        return _copied(args, interrupts)


def _is_no_backend(end: str) -> bool:
    return end in ("metastore", "env", "environment") or end.startswith("file:")


def _copied(args: argparse.Namespace, interrupts: Interrupts) -> int:
    from airflow_providers_secrets.cli.copy_files import names_from

    kinds: tuple[Kind, ...] = ("connections", "variables") if args.kind == "all" else (KINDS_BY_WORD[args.kind],)
    names = None if args.names is None else names_from(args.names, kinds)
    target = _target(args)
    origin = _origin(args, target, kinds, names)
    found = [
        (kind, secret_id)
        for kind in kinds
        for secret_id in dict.fromkeys(_listed(origin, kind) if names is None else names[kind])
        if args.match is None or args.match.match(secret_id)
    ]
    if origin.guesses and not found:
        # An empty comparison would look like a proof, and an empty copy like a success.
        what = "to ask it for" if args.match is None else "that --match takes"
        raise ConfigurationError(
            f"{origin.title} cannot list its ids, and none {what} was found in target, environment and metastore. "
            f"{NAME_THEM}"
        )
    journal = _journal(args, _journal_mark(origin, target)) if args.apply else None
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
        unwritten = _shown(rows, args.output)
    except KeyboardInterrupt:
        _end_at_once(f"{_so_far(done, len(found), args, journal)} (what was under way was not waited for)")
    finally:
        rows.close()  # if nobody reads the output any more, wait for the writes under way, and record them
        if journal:
            journal.close()
    if fault := _cut_short(unwritten, journal, _counted(done, len(found))):
        raise SecretsError(fault)
    if interrupts.seen and sum(done.values()) < len(found):
        raise KeyboardInterrupt(_so_far(done, len(found), args, journal))
    _sum_up(origin, target, done, journal)
    if done[FAILED]:
        return NO_ANSWER
    return NOT_OK if done[DIFFERENT] or done[INVALID] else OK


def _shown(rows: Iterable[dict[str, Any]], form: str) -> str | None:
    """Print the rows as they come; return why standard output takes no more of them, or ``None``."""
    try:
        output.show_rows(rows, COLUMNS, form)
    except BrokenPipeError:  # it has an exit code of its own
        raise
    except OSError as error:
        output.drop(output.STDOUT)
        return error.strerror or type(error).__name__
    return None


def _cut_short(unwritten: str | None, journal: Journal | None, counted: str) -> str | None:
    """Return why a copy ended before its end, with what it did until then; ``None`` if it did not."""
    if unwritten:
        where = f" Journal: {journal.path}." if journal else ""
        return f"the output cannot be written ({unwritten}): {counted}.{where}"
    if journal and journal.failure:
        return (
            f"the journal {journal.path} cannot be written to any more ({journal.failure}): {counted}. Make room for "
            "it or name another by --journal, and copy again: what is written is then the same."
        )
    return None


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
        if flag in (FROM_KWARGS, TO_KWARGS):
            shown = _shown_kwargs(value if found else next(words, ""))
            typed += [f"{flag}={shown}"] if found else [flag, shown]
        else:
            typed.append(word)
    more = [] if args.journal is not None else ["--journal", str(journal)]
    return shlex.join([*typed, *more, *([] if args.resume else ["--resume"])])


def _shown_kwargs(text: str) -> str:
    """Return ``backend_kwargs`` as they were typed, or ``***`` if any of them may be a credential."""
    from airflow_providers_secrets.cli.masking import may_be_credentials

    return "***" if not text.startswith("@") and text != "-" and may_be_credentials(text) else text


def _end_at_once(text: str) -> NoReturn:
    """End the process after a second interrupt, without waiting for the writes in progress."""
    output.say(f"airflow-secrets {NAME}: {text}")
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
        self._stops: tuple[Copying, output.Progress] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def stops(self, copying: Copying, progress: output.Progress) -> None:
        """Let the first interrupt stop *copying*."""
        self._stops = copying, progress

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
        if self._stops is None:
            raise KeyboardInterrupt("interrupted before anything was written.")
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
        copying, progress = self._stops
        copying.stop()
        progress.title = "ending the writes under way; a second interrupt does not wait for them:"


def _sum_up(origin: Origin, target: Target, done: dict[str, int], journal: Journal | None) -> None:
    counted = ", ".join(f"{number} {state}" for state, number in done.items() if number) or "nothing to copy"
    output.say(f"{origin.title} → {target.title}: {counted}{'' if journal else f' (dry run{_would_write(done)})'}")
    if origin.guesses:
        output.say(
            f"{origin.title} cannot list its ids: these are of the target, environment and metastore, and others may "
            f"be missing. {NAME_THEM}"
        )
    if target.spelt(spelt := origin.spelt(SPELLING)) != target.spelt(SPELLING) and any(done.values()):
        output.say(
            f"The ids are as {origin.title} spells them, where {SPELLING} is {spelt}; {target.title} tells the two "
            "apart. Name them as DAGs do, by --names FILE."
        )
    if journal:
        if not journal.dropped_if_empty():
            output.say(f"journal: {journal.path}")
    elif target.needs_rights and (done[CREATE] or done[DIFFERENT]):
        output.say("A dry run does not try the right to write: airflow-secrets policy --allow write prints it.")


def _would_write(done: dict[str, int]) -> str:
    """Return which arguments make a dry run write, and how many ids; nothing where there is nothing to write."""
    new, different = done[CREATE], done[DIFFERENT]
    if not new:
        return f"; --apply --overwrite writes {different}" if different else ""
    return f"; --apply writes {new}" + (f", with --overwrite {new + different}" if different else "")


def _listed(origin: Origin, kind: Kind) -> Iterable[str]:
    with output.Progress(f"listing {kind}") as progress:
        for secret_id in origin.ids(kind):
            progress.step()
            yield secret_id


def _journal_mark(origin: Origin, target: Target) -> str:
    """Return a digest that marks a journal's lines as those of this source and target."""
    both = json.dumps([origin.title, origin.identity, target.title, target.identity])
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def _journal(args: argparse.Namespace, mark: str) -> Journal:
    journal = Journal(_journal_path(args), mark, resume=args.resume)
    if args.resume and not journal.verified:
        output.say(f"--resume skips nothing: {journal.path} names no id as verified for this source and target.")
    return journal


def _journal_path(args: argparse.Namespace) -> Path:
    if args.journal is not None:
        return Path(args.journal)
    members = [args.from_member, args.to_member]
    what = json.dumps([args.source, args.from_kwargs, args.target, args.to_kwargs, *(members if any(members) else ())])
    directory = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "airflow-secrets"
    of = hashlib.sha256(what.encode()).hexdigest()[:12]
    if args.resume and (latest := max(directory.glob(f"copy-*-{of}-*.jsonl"), default=None)):
        return latest
    return directory / f"copy-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{of}-{os.urandom(3).hex()}.jsonl"


# Endpoints.


def _backend(name: str, kwargs: str | None, member: int | None, flag: str) -> Configured:
    from airflow_providers_secrets.cli import configuration
    from airflow_providers_secrets.cli.airflow_conf import load_airflow
    from airflow_providers_secrets.cli.backend_names import class_path_of

    kwargs_flag = FROM_KWARGS if flag == FROM_MEMBER else TO_KWARGS
    if name == "configured":
        namespace = argparse.Namespace(backend=None, worker=False, member=None, kwargs=kwargs)
        found = configuration.configured(namespace, kwargs_flag)
    else:
        load_airflow()
        others = SOURCES if flag == FROM_MEMBER else TARGETS
        given = configuration.kwargs_from(kwargs, kwargs_flag) if kwargs is not None else {}
        found = configuration.make(class_path_of(name, others), given, name, dict.fromkeys(given, kwargs_flag))
    if member is not None:
        found = configuration.member_of(found, member, flag)
        if flag == FROM_MEMBER and not hasattr(found.backend, "get_conn_value"):
            raise ConfigurationError(
                f"member {member} ({found.class_path}) is not a store; copy from it by --from env or --from file:PATH."
            )
    return found


def _target(args: argparse.Namespace) -> Target:
    from airflow_providers_secrets.cli.airflow_conf import load_airflow
    from airflow_providers_secrets.cli.endpoints import ToBackend, ToMetastore
    from airflow_providers_secrets.lookup import operations

    if args.target == "metastore":
        for flag, given in (("--set", args.set), ("--as-uri", args.as_uri)):
            if given:
                raise ConfigurationError(f"{flag} is for backends, and metastore takes none; leave it out.")
        load_airflow()
        return ToMetastore()
    if args.target in ("env", "environment") or args.target.startswith("file:"):
        raise ConfigurationError("--to takes configured, metastore or a backend: values are not written to files.")
    settings = dict(args.set)
    target = ToBackend(_backend(args.target, args.to_kwargs, args.to_member, TO_MEMBER), settings, as_uri=args.as_uri)
    if args.apply or args.set:
        # Check this once, before anything is read or written, and not for each id.
        operations.store_for_write(target.backend, settings)
    return target


def _origin(
    args: argparse.Namespace, target: Target, kinds: tuple[Kind, ...], names: dict[Kind, list[str]] | None
) -> Origin:
    from airflow_providers_secrets.cli import configuration, endpoints
    from airflow_providers_secrets.cli.airflow_conf import load_airflow
    from airflow_providers_secrets.cli.copy_files import FromFile
    from airflow_providers_secrets.lookup.sources import Environment, Metastore

    if args.source.startswith("file:"):
        return FromFile(args.source.removeprefix("file:"), kinds)
    if args.source in ("env", "environment"):
        return endpoints.FromSource(Environment())
    if args.source == "metastore":
        load_airflow()
        return endpoints.FromSource(Metastore())
    configured = _backend(args.source, args.from_kwargs, args.from_member, FROM_MEMBER)
    if names is None and not configuration.is_ours(configured.backend):
        guessed = endpoints.FromBackend(configured, _names_elsewhere(target, kinds))
        guessed.guesses = True
        return guessed
    return endpoints.FromBackend(configured, names)


def _names_elsewhere(target: Target, kinds: tuple[Kind, ...]) -> dict[Kind, list[str]]:
    """Return the ids to request from a class that cannot list: those of target, environment and metastore.

    An environment or metastore that cannot be read is left out.

    :raises SecretsError: if the target cannot list them: a comparison of no ids would look like a proof.
    """
    from airflow_providers_secrets.cli.endpoints import FromSource, ToBackend
    from airflow_providers_secrets.lookup import inventory
    from airflow_providers_secrets.lookup.sources import Environment, Metastore

    names: dict[Kind, list[str]] = {kind: [] for kind in kinds}
    for kind in kinds:
        if isinstance(target, ToBackend) and target.backend.rule(kind).prefixes is not None:
            try:
                names[kind].extend(one.secret_id for one in inventory.listed_ids(target.backend, kind))
            except SecretsError:
                output.say("The ids to compare come from the target's listing; --names FILE names them without it.")
                raise
        for source in (Environment(), Metastore()):
            with contextlib.suppress(SecretsError):
                names[kind].extend(FromSource(source).ids(kind))
    return names
