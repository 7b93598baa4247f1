"""The exit codes of every subcommand."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Found, healthy, or done."""
NOT_OK: Final = 1
"""Absent, unhealthy, or something is left to do."""
USAGE: Final = 2
"""Wrong arguments, or a wrong configuration."""
NO_ANSWER: Final = 3
"""Denied, unavailable, or unusable: there is no answer."""
INTERRUPTED: Final = 130
"""Ended by Ctrl-C; a copy also by SIGTERM or SIGHUP."""
CLOSED_PIPE: Final = 141
"""Whoever read the output has stopped reading (``| head``)."""
EPILOG: Final = (
    "exit codes: 0 found or healthy, 1 absent or unhealthy, 2 usage or configuration, 3 denied or unavailable, "
    "130 interrupted"
)
