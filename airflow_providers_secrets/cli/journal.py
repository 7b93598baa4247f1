"""The journal of a copy: which ids were copied, so that an interrupted copy can be continued."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Final

from airflow_providers_secrets.cli.copying import CREATED, OVERWRITTEN, SAME, Item
from airflow_providers_secrets.errors import ConfigurationError

JOURNAL_START: Final = '{"kind": '
"""The start of every journal, even of one whose first line was cut off by a kill."""


class Journal:
    """A file with one JSON object per line: kind, id, state. Never a value.

    When it is read again, lines that a kill cut off or that no copy writes, and lines of another source or target, are
    ignored.

    :param of: identifies source and target.
    :param resume: continue the file; otherwise it is truncated.
    :ivar failure: why it can no longer be written.
    :raises ConfigurationError: if it cannot be written, or is another kind of file: the source may be named by mistake.
    """

    def __init__(self, path: Path, of: str, *, resume: bool) -> None:
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
            flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if resume else os.O_TRUNC)
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
            except (ValueError, KeyError, TypeError, RecursionError):  # RecursionError: nested too deeply
                continue
            if entry.get("of") != self._of or not all(isinstance(part, str) for part in key):
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
