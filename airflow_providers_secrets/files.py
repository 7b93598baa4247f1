"""Files that are read again only once they have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

Version = tuple[int, int, int, int]
Content = TypeVar("Content")


def version(path: str) -> Version:
    """Return what is different once the file at *path* has been written or replaced: its inode, size and times.

    The time of a file's status counts, too: a copy may keep the time of the content (``cp --preserve``), but not that.

    :raises OSError: if there is no such file, or it is not accessible.
    :raises ValueError: if *path* is not a valid path.
    """
    about = os.stat(path)  # noqa: PTH116  # pathlib would be imported for it
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def read_once(read: Callable[[str], Content]) -> Callable[[str], Content]:
    """Return a function that gives what *read* returns for a path, and calls it again only for a changed file.

    What *read* returns is kept for the process's lifetime, and forked children inherit it; what it raises is not kept.
    Any thread may call the function. Besides what *read* raises, it raises what :func:`version` does.
    """
    known: dict[str, tuple[Version, Content]] = {}

    def unless_known(path: str) -> Content:
        now = version(path)  # before reading: a change in between is noticed by the next call
        seen = known.get(path)
        if seen is None or seen[0] != now:
            seen = known[path] = now, read(path)
        return seen[1]

    return unless_known
