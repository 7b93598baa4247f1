"""The processes of this machine, as its /proc has them."""

from __future__ import annotations

import os
from pathlib import Path


def processes_of(directory: Path) -> dict[int, str]:
    """The command lines, by process id, of those that work in *directory* or know it from their environment.

    One of the two is not enough: redis-server writes its title over what /proc tells of its environment.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink())
            if os.fsencode(directory) in told:
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:  # another user's, or just ended
            continue
    return found
