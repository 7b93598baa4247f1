"""What the command reads besides its arguments: standard input, files, and answers on the terminal."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path

from airflow_providers_secrets.cli.output import say
from airflow_providers_secrets.errors import ConfigurationError


def ask_secret(prompt: str, instead: str) -> str:
    """Ask for a secret on the terminal.

    :param instead: the argument that reads it from standard input.
    :raises ConfigurationError: if there is no terminal, the prompt is left by Ctrl-D, or what is typed is no text.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"There is no terminal to ask for the value on; send it on standard input ({instead})."
        )
    from airflow_providers_secrets.lookup.connection_text import is_text

    fault = "what was typed is not UTF-8 text."
    try:
        text = getpass.getpass(prompt)
        if is_text(text):  # Python keeps other bytes of some terminals, as lone surrogates
            return text
    except (EOFError, UnicodeDecodeError) as error:  # the latter holds what was typed, so it must not be chained
        say("")  # ends the prompt's line
        if isinstance(error, EOFError):
            fault = f"nothing was typed; type it, or send it on standard input ({instead})."
    raise ConfigurationError(fault)


def confirmed(question: str) -> bool:
    """Ask a yes-or-no question on the terminal; only "y" and "yes" mean yes.

    :raises ConfigurationError: if there is no terminal, or what is typed is no text.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError("There is no terminal to ask on; add --yes to go ahead without being asked.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except UnicodeDecodeError:
        raise ConfigurationError("what was typed is not UTF-8 text.") from None


def refuse_two_readers(reads: Mapping[str, bool], cure: str) -> None:
    """Refuse two arguments that both read standard input: the second would find it empty.

    :param reads: for each argument that may read it, whether it does.
    :param cure: what to do instead.
    :raises ConfigurationError: naming the first two.
    """
    first, second, *_ = [*(argument for argument, it_does in reads.items() if it_does), "", ""]
    if second:
        raise ConfigurationError(f"{first} and {second} both read standard input; {cure}.")


def standard_input() -> str:
    """Return the text on standard input, without one newline at its end, which may be LF or CR LF.

    :raises ConfigurationError: if it is not UTF-8, whatever the locale.
    """
    binary = getattr(sys.stdin, "buffer", None)
    text: str | None
    try:
        text = sys.stdin.read() if binary is None else binary.read().decode()
    except UnicodeDecodeError:  # it holds the value, so it must not be chained
        text = None
    if text is None:
        raise ConfigurationError("standard input is not UTF-8 text.")
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def read_file(path: str, typed: str) -> str:
    """Return the text of a file.

    :param typed: how the argument that names it is written.
    :raises ConfigurationError: if it cannot be read.
    """
    if not path:  # Python would take it for the working directory
        raise ConfigurationError(f"the path of a file is missing; write {typed}.")
    reason: str | None
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # Windows editors begin it with a byte order mark
    except OSError as error:
        reason = error.strerror
    except ValueError:
        reason = "it is not UTF-8 text"
    raise ConfigurationError(f"{path} cannot be read: {reason}.")
