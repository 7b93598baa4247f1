"""The exit codes of every subcommand."""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Found, or healthy."""
NOT_OK: Final = 1
"""Absent, or unhealthy."""
USAGE: Final = 2
"""Wrong arguments, or a wrong configuration."""
NO_ANSWER: Final = 3
"""The store denies access, or cannot be reached."""
