"""The command's output: tables, JSON, YAML, plain text, progress; and what is kept out of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import json
import logging
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_providers_secrets.errors import SecretsError, printable, shown_id

if TYPE_CHECKING:
    from rich.console import Console

FIRST_ROWS: Final = 200
"""Number of rows from which a table's column widths are measured; further rows are printed in batches of this size."""

UNFOLDED: Final = 2000
"""Minimum width of a table that does not go to a terminal, in characters."""

LONGEST_CELL: Final = 2000
"""Maximum length of a value in a table or plain text, in characters; what the user asks to see is shown whole."""

GAP: Final = 2
"""Number of characters between two columns of a table."""

STDOUT: Final = 1
STDERR: Final = 2
"""The descriptors of the standard streams."""

PROGRESS_AFTER: Final = 1.0
"""Seconds after which progress is shown, on a terminal."""

FINE: Final = True
FAULT: Final = False
ADVICE: Final = None
NEUTRAL: Final = "neutral"
"""The marks of a finding. Only a fault counts as unhealthy."""
MARKS: Final = {FINE: ("✓", "green"), FAULT: ("✗", "red"), ADVICE: ("!", "yellow"), NEUTRAL: ("·", "dim")}
"""How each mark is shown on a line."""
STATES: Final = {FINE: "fine", FAULT: "fault", ADVICE: "advice", NEUTRAL: "neutral"}
"""The words for the marks in plain text."""


@contextlib.contextmanager
def quiet(*, verbose: bool) -> Iterator[None]:
    """Keep log lines and warnings of Airflow, SDKs and this package out of the output, unless *verbose*.

    The command itself reports what the user must know, once.
    """
    if verbose:
        yield
        return
    global _quiet  # noqa: PLW0603
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.ExitStack() as undone:
        warnings.simplefilter("ignore")
        # Airflow adds filters of its own, unless Python was given some; Airflow 2 also shows warnings by itself.
        sys.warnoptions.append("ignore")
        undone.callback(sys.warnoptions.remove, "ignore")
        warnings.showwarning = lambda *_, **__: None
        _quiet = undone
        try:
            yield
        finally:
            _quiet = None
            logging.disable(disabled)


_quiet: contextlib.ExitStack | None = None
"""While :func:`quiet` is active, what it undoes at its end."""


def quiet_structlog() -> None:
    """Extend :func:`quiet` to structlog, with which Airflow 3 and official providers write to standard output.

    structlog ignores the settings of ``logging``, and Airflow configures it whenever it starts. So each configuration
    is made to drop everything.
    """
    try:
        import structlog
    except ImportError:  # Airflow 2
        return
    if _quiet is None or hasattr(structlog.configure, "__wrapped__"):
        return

    def drop(*_: object) -> NoReturn:
        raise structlog.DropEvent

    def begin() -> None:
        # In place: loggers that were made before hold the same list.
        with contextlib.suppress(AttributeError):
            structlog.get_config()["processors"].insert(0, drop)

    def end() -> None:
        structlog.configure = configure
        with contextlib.suppress(AttributeError, ValueError):
            structlog.get_config()["processors"].remove(drop)

    configure = structlog.configure

    @functools.wraps(configure)
    def configure_quietly(*args: Any, **how: Any) -> None:
        configure(*args, **how)
        begin()

    structlog.configure = configure_quietly
    begin()
    _quiet.callback(end)


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self.said:
            self.said.append(text)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings of this package in a list, each once, without showing them."""
    handler = _Collecting()
    logger = logging.getLogger("airflow_providers_secrets")
    disabled, propagate = logging.root.manager.disable, logger.propagate
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=DeprecationWarning, message=".*: option '")
        logging.disable(logging.NOTSET)
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield handler.said
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate
            logging.disable(disabled)
            for warning in caught:
                if (text := str(warning.message)) not in handler.said:
                    handler.said.append(text)


def console(*, at_least: int = 0) -> Console:
    """Return a console on standard output that prints every text unchanged.

    :param at_least: its minimum width if it is not a terminal, in characters.
    """
    from rich.console import Console

    class Raising(Console):
        def on_broken_pipe(self) -> None:
            """Leave a closed pipe to the command, which has an exit code for it; Rich would exit with 1."""
            raise BrokenPipeError

    # In a file or pipe, nothing is folded or cut.
    width = None if sys.stdout.isatty() else max(UNFOLDED, at_least)
    return Raising(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str, end: str = "\n") -> None:
    """Print a message to standard error, outside the command's output.

    Where nobody can read it, because the disk is full or the pipe is closed, it is dropped, and the command ends as it
    would have.
    """
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        drop(STDERR)


def drop(descriptor: int) -> None:
    """Discard what is left of a standard stream: Python would write it again at its exit, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


@contextlib.contextmanager
def result(done: str) -> Iterator[None]:
    """Print the result of a change inside; a failure to print it must not look like a failure of the change.

    :param done: what was changed, as a sentence without its full stop.
    :raises SecretsError: if standard output cannot be written.
    """
    reason: str | None
    try:
        yield
        sys.stdout.flush()
        return
    except BrokenPipeError:  # it has an exit code of its own
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
    drop(STDOUT)
    raise SecretsError(f"the output cannot be written ({reason}); {done}.")


def show_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    output: str,
    title: str = "",
    longest: int | None = LONGEST_CELL,
) -> int:
    """Print *rows* as they arrive, and return their number.

    :param output: one of :data:`.arguments.FORMATS`; plain has a tab between columns and no heading.
    :param longest: the length at which a value is cut in a table and plain text; ``None`` for never.
    """
    if output == "table":
        return _table_rows(rows, columns, title, longest)
    if output == "plain":
        return _plain_rows(rows, columns, longest)
    return (_json_rows if output == "json" else _yaml_rows)(rows, columns)


def _json_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> int:
    number = 0
    for number, row in enumerate(rows, 1):
        text = _json({column: _plain(row.get(column)) for column in columns})
        print("[" if number == 1 else ",", text, sep="\n", end="")
    print("\n]" if number else "[]")
    return number


def _yaml_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> int:
    number = 0
    for row in rows:
        number += 1  # returned
        print(_yaml([{c: _plain(row.get(c)) for c in columns}]), end="")
    if not number:
        print("[]")
    return number


def _plain_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], longest: int | None) -> int:
    number = 0
    for row in rows:
        number += 1  # returned
        print("\t".join(_cell(row.get(column), longest) for column in columns))
    return number


def _table_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], title: str, longest: int | None) -> int:
    from rich import box
    from rich.table import Table

    source = iter(rows)
    shown = 0
    widths = [len(column) for column in columns]
    while batch := [[_cell(row.get(c), longest) for c in columns] for row in itertools.islice(source, FIRST_ROWS)]:
        widths = [max(width, *(len(row[i]) for row in batch)) for i, width in enumerate(widths)]
        table = Table(
            title=title if not shown else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_header=not shown,
            show_edge=False,
        )
        shows = console(at_least=sum(widths) + GAP * len(widths))
        least = [min(width, 12) for width in widths] if sys.stdout.isatty() else widths
        # If even these widths do not fit, Rich would cut off the rest.
        fits = sum(least) + GAP * len(least) <= shows.width
        for column, width in zip(columns, least, strict=True):
            table.add_column(column, overflow="fold", min_width=width if fits else None)
        for row in batch:
            table.add_row(*row)
        with shows.capture() as captured:
            shows.print(table, soft_wrap=False)
        # Rich fills every cell to its column's width, the last one and empty ones too.
        sys.stdout.write("".join(f"{line.rstrip(' ')}\n" for line in captured.get().splitlines()))
        sys.stdout.flush()
        shown += len(batch)
    return shown


def show_record(record: Mapping[str, Any], output: str) -> None:
    """Print one object as JSON or YAML; the caller prints the other formats."""
    plain = _plain(record)
    if output == "json":
        print(_json(plain, indent=2))
    else:
        print(_yaml(plain), end="")


def _json(plain: Any, indent: int | None = None) -> str:
    """Return *plain* as JSON text without loss and without control characters that a terminal would obey."""
    text = json.dumps(plain, indent=indent, ensure_ascii=not _is_utf_8())
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def _yaml(plain: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=_is_utf_8())
    return text


def _is_utf_8() -> bool:
    """Tell whether standard output can encode every character; any other encoding needs escapes."""
    return _encoding().replace("-", "").replace("_", "").lower() in ("utf8", "utf8sig")


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def as_it_is(value: str) -> str:
    """Return a value to be printed unchanged, for a program to read.

    :raises SecretsError: if standard output cannot encode it: an escape would be read as the value.
    """
    try:
        value.encode(_encoding())
        return value
    except UnicodeEncodeError:  # it holds the value, so it must not be chained
        pass
    raise SecretsError(
        f"the value has characters that standard output, in {_encoding()}, cannot hold. Set PYTHONIOENCODING=utf-8, "
        "or use a UTF-8 locale."
    )


def shown(name: str) -> str:
    """Return an id or a name of a secret for display, masking what may be a value typed by mistake."""
    return printable(shown_id(name), 128)


def _plain(value: Any) -> Any:
    """Return *value* in types that JSON and YAML have; JSON has no number for what Python writes as ``NaN``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).isoformat(timespec="seconds")
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _cell(value: Any, longest: int | None) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    text = ", ".join(map(str, plain)) if isinstance(plain, list) else str(plain)
    return printable(text, len(text) if longest is None else longest)


def show_finding(ok: bool | str | None, what: str, cure: str | None = None) -> None:  # noqa: FBT001
    """Print one line with its mark, and the remedy below it."""
    from rich.text import Text

    mark, style = MARKS[ok]
    line = Text(f"{mark} ", style=style).append(printable(what, 4000), style="default")
    console().print(line)
    if cure:
        console().print(Text(f"    {printable(cure, 2000)}", style="dim"))


class Progress:
    """One line about work in progress, shown only on a terminal and after one second.

    :param title: what is being done.
    :param total: how many steps there will be, if that is known.
    """

    def __init__(self, title: str, total: int | None = None) -> None:
        self.title = title
        self._total = total
        self._done = 0
        self._notes: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def step(self, note: str | None = None) -> None:
        """Count one step, and one *note* more."""
        self._done += 1
        if note:
            self._notes[note] = self._notes.get(note, 0) + 1

    def __enter__(self) -> Progress:  # noqa: PYI034  # typing.Self is of Python 3.11
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()

    def _show(self) -> None:
        started = time.monotonic()
        if self._ended.wait(PROGRESS_AFTER):
            return
        while True:
            print(f"\r\x1b[K{self._line(time.monotonic() - started)}", end="", file=sys.stderr, flush=True)
            if self._ended.wait(0.2):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                return

    def _line(self, seconds: float) -> str:
        so_far = f" {self._done}" if self._done else ""
        if self._total:
            so_far = f" {self._done}/{self._total} ({100 * self._done // self._total} %)"
        notes = "".join(f", {number} {note}" for note, number in self._notes.items())
        return f"{self.title}{so_far}{notes} · {seconds:.0f} s"
