"""Changes the package line by line, and says which changes no test notices: mutation testing of what needs a server.

    python tests/support/mutants.py [--sample N | --each N] [--seed N] MODULE... -- PYTEST ARGUMENTS

In an environment that has mutmut 3, and everything that the tests need, but not the package itself. mutmut makes the mutants, in a copy
of the checkout. Its own runner starts what it runs in forks of a process that has run all tests once, whose servers
would be threads that no child has. Here the process that forks has collected the tests and run none; a child

- runs them all, on the package as it is, and notes which functions each test calls, in whatever process; then
- one child for each mutant runs those that call its function until one fails: first those that have caught others, then
  the quickest.

A mutant whose tests take too long counts as caught. Every survivor is printed as a diff.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

CHECKOUT: Final = Path(__file__).parents[2]
COPIED: Final = ("airflow_providers_secrets", "tests", "docs", "benchmarks", "pyproject.toml", "provider.yaml")
GENERATED: Final = " # type: ignore # mutmut generated"
SLOWER: Final = 5
"""How many times longer the tests of a mutant may take than they did before,"""
AT_LEAST: Final = 60
"""beside these seconds."""

TRAMPOLINE: Final = '''
"""Calls a function, or its mutant that is under test; notes the call where calls are to be noted."""
import functools
import os

MutantDict = dict


def wrap_in_trampoline(mutants, is_classmethod=False):
    def wrapped(function):
        def chosen():
            under_test = os.environ.get("MUTANT_UNDER_TEST", "")
            if under_test == "none" and (notes := os.environ.get("MUTANTS_NOTES")):
                called = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.write(called, f"{function.__module__}.{mutants['_mutmut_orig'].__name__[:-len('__mutmut_orig')]}\\n".encode())
                os.close(called)
            module, _, name = under_test.rpartition(".")
            return mutants.get(name if module == function.__module__ else "", mutants["_mutmut_orig"])

        @functools.wraps(function)
        def trampoline(*args, **kwargs):
            if is_classmethod:
                return getattr(args[0], chosen().__name__)(*args[1:], **kwargs)
            return chosen()(*args, **kwargs)

        return trampoline

    return wrapped
'''


class Mutants:
    """A plugin of pytest, in place of its loop over the tests.

    :param names: of the mutants, each ``module.function__mutmut_number``.
    """

    def __init__(self, names: list[str], notes: Path) -> None:
        self.names = names
        self.outcomes: dict[str, str] = {}
        self._catches: Counter[str] = Counter()
        self._notes = notes
        self._failed = False
        self._quiet = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        calls = self._calls(session.items)
        print(f"{len(calls)} of {len(session.items)} tests pass on what mutmut makes of the package", flush=True)
        for name in self.names:
            function = name.rpartition("__mutmut_")[0]
            items = [
                item for item in session.items if function in calls.get(item.nodeid, {"functions": ()})["functions"]
            ]
            items.sort(key=lambda item: (-self._catches[item.nodeid], calls[item.nodeid]["seconds"]))
            longest = AT_LEAST + SLOWER * int(sum(calls[item.nodeid]["seconds"] for item in items))
            self.outcomes[name] = self._outcome(name, items, longest)
            print(name, self.outcomes[name], flush=True)
        return True

    def _calls(self, items: list[pytest.Item]) -> dict[str, Any]:
        """Run every test once; return the seconds and the functions called of each that passes."""
        results = self._notes.with_suffix(".json")

        def run_all() -> None:
            os.environ["MUTANTS_NOTES"] = str(self._notes)
            calls = {}
            for position, item in enumerate(items):
                self._notes.write_text("")
                self._failed, started = False, time.monotonic()
                run(item, items[position + 1 : position + 2])
                if not self._failed:
                    functions = sorted(set(self._notes.read_text().split()))
                    calls[item.nodeid] = {"seconds": time.monotonic() - started, "functions": functions}
                else:
                    sys.__stderr__.write(f"left out: {item.nodeid}\n")
                results.write_text(json.dumps(calls))

        self._in_child("none", run_all, 24 * 3600)
        found: dict[str, Any] = json.loads(results.read_text())
        return found

    def _outcome(self, name: str, items: list[pytest.Item], longest: int) -> str:
        if not items:
            return "no test calls it"
        by = self._notes.with_suffix(".by")
        by.write_text("")

        def run_until_one_fails() -> None:
            for position, item in enumerate(items):
                by.write_text(item.nodeid)
                run(item, items[position + 1 : position + 2])
                if self._failed:
                    os._exit(1)

        status = self._in_child(name, run_until_one_fails, longest)
        if status == 0:
            return "survived"
        self._catches[by.read_text()] += 1
        how = {1: "", -signal.SIGALRM: ", after too long"}.get(status, f", which ended with {status}")
        return f"caught by {by.read_text()}{how}"

    def _in_child(self, mutant: str, work: Callable[[], None], seconds: int) -> int:
        child = os.fork()
        if not child:
            self._work_in_child(mutant, work, seconds)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _work_in_child(self, mutant: str, work: Callable[[], None], seconds: int) -> NoReturn:
        status = 3
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            os.environ["MUTANT_UNDER_TEST"] = mutant
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1):
                os.dup2(quiet, number)
            work()
            status = 0
        finally:
            os._exit(status)


def run(item: pytest.Item, following: list[pytest.Item]) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following[0] if following else None)


def mutated(copy: Path, module: str) -> tuple[list[str], str]:
    """Write the mutants of *module* into *copy*; return their names, and the text that holds them all."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    path = copy / module
    made = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
    text = made.code.replace(
        "from mutmut.mutation.trampoline import", "from airflow_providers_secrets.trampoline import"
    )
    path.write_text(text, encoding="utf-8")
    dotted = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return [f"{dotted}.{name}" for name in made.mutant_names], text


def difference(text: str, name: str) -> str:
    """Return what the mutant *name* changes, as a diff."""
    mutant = name.rpartition(".")[2]
    original = re.sub(r"__mutmut_\d+$", "__mutmut_orig", mutant)
    sources = {
        node.name: (ast.get_source_segment(text, node) or "").replace(node.name, "").replace(GENERATED, "").splitlines()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in (mutant, original)
    }
    lines = difflib.unified_diff(sources[original], sources[mutant], original, mutant, lineterm="", n=2)
    return "\n".join(list(lines)[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, help="so many of the mutants, drawn at random; all of them without it")
    parser.add_argument("--each", type=int, help="so many of each module's mutants, in place of --sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="a file of the package, from the checkout on")
    own, tests = sys.argv[1:], []
    if "--" in own:
        own, tests = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    copy = Path(tempfile.mkdtemp(prefix="mutants-"))
    for name in COPIED:
        source = CHECKOUT / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, copy / name, ignore=ignored) if source.is_dir() else shutil.copy(source, copy)
    (copy / "airflow_providers_secrets/trampoline.py").write_text(TRAMPOLINE)
    texts, names, of_each = {}, [], []
    chosen = random.Random(given.seed)
    for module in given.modules:
        found, text = mutated(copy, module)
        names += found
        of_each += chosen.sample(found, min(given.each or 0, len(found)))
        texts |= dict.fromkeys(found, text)
    # In the order drawn, so that what a run has tried when it is ended is a sample, too.
    drawn = chosen.sample(of_each or names, min(len(of_each) or given.sample or len(names), len(names)))
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)
    os.environ["MUTANT_UNDER_TEST"] = ""
    plugin = Mutants(drawn, copy / "notes")
    pytest.main(["-p", "no:cacheprovider", "-p", "no:xdist", "-q", *tests], plugins=[plugin])
    survivors = [name for name, outcome in plugin.outcomes.items() if not outcome.startswith("caught")]
    for name in survivors:
        print(f"\n{name}: {plugin.outcomes[name]}\n{difference(texts[name], name)}")
    print()
    for module, of in sorted(Counter(name.rpartition(".")[0] for name in drawn).items()):
        missed = sum(name.rpartition(".")[0] == module for name in survivors)
        print(f"{module}: {of - missed} of {of} caught")
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} caught, drawn from {len(names)}")
    shutil.rmtree(copy, ignore_errors=True)


if __name__ == "__main__":
    main()
