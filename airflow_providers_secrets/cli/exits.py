"""The exit codes of every subcommand."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Found, healthy, or done."""
NOT_OK: Final = 1
"""Absent, unhealthy, or something is left to do."""
USAGE: Final = 2
"""Wrong arguments, a wrong configuration, or an id that is never looked up."""
NO_ANSWER: Final = 3
"""Denied, unavailable, or unusable: there is no answer."""
INTERRUPTED: Final = 130
"""Ended by Ctrl-C; a copy also by SIGTERM or SIGHUP."""
CLOSED_PIPE: Final = 141
"""The reader of the output has closed the pipe (``| head``)."""
EPILOG: Final = (
    "exit codes: 0 found, healthy, done; 1 absent, unhealthy, or something is left to do; 2 usage, configuration, or a "
    "refused id; 3 denied, unavailable, or unusable; 130 interrupted; 141 whoever read the output has stopped"
)
