"""What a rig needs of the machine: skipped with the command that fixes it, and a failure where CI lacks it."""

from __future__ import annotations

import importlib.util
import os
from typing import NoReturn

import pytest


def module(name: str, extra: str) -> None:
    """Go on only where the SDK *name*, of the package's *extra*, is installed."""
    _needed(name, f"pip install 'airflow-providers-secrets[{extra}]'")


def test_module(name: str) -> None:
    """Go on only where *name*, which the tests alone need, is installed."""
    _needed(name, "pip install --group test")


def _needed(name: str, cure: str) -> None:
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a parent package
        found = False
    if found:
        return
    unmet(f"{name} is not installed; run: {cure}")


def unmet(reason: str) -> NoReturn:
    """Skip, or fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
