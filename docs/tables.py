"""Write the tables of the documentation that the code knows: options, codes, messages, versions.

``python docs/tables.py`` rewrites them between ``<!-- table: NAME … -->`` and ``<!-- end of table -->``; a test of
tests/project fails while a page is not what this would write. Needs the package with the extra ``all``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import airflow_providers_secrets

DOCS: Final = Path(__file__).parent
PACKAGE: Final = Path(airflow_providers_secrets.__file__).parent

REGION: Final = re.compile(r"(<!-- table: ([^\n]*?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def cell(text: str) -> str:
    """Keep *text* from ending a cell, and from being read as markup."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


# options MODULE CLASS, options common


def options(module: str, name: str = "") -> str:
    backends = "airflow_providers_secrets.backends"
    common = importlib.import_module(f"{backends}.mixin").COMMON_OPTIONS
    if module == "common":
        declared = common
    else:
        shared = {id(option) for option in common}
        own = getattr(importlib.import_module(f"{backends}.{module}"), name).declared_options()
        declared = [option for option in own if id(option) not in shared]
    return table(("option", "default", "meaning"), (row(option) for option in declared))


def row(option: Any) -> tuple[str, str, str]:
    deprecated = f" Deprecated: use {option.deprecated}." if option.deprecated else ""
    meaning = f"{option.doc.removesuffix('.')}: {option.ignored}." if option.ignored else option.doc
    return f"`{option.name}`", default(option.default), cell(meaning) + deprecated


def default(value: Any) -> str:
    if value is None or value == ():
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f"`{value}`" if value != "" else '`""`'


# codes MODULE CLASS, codes common


def codes(module: str, name: str = "") -> str:
    """What each code of a store means, and the one thing to do about it."""
    from airflow_providers_secrets.lookup import outcomes
    from airflow_providers_secrets.stores import base

    if module == "common":
        rows = [(cell(shown(code)), cell(text)) for code, text in outcomes.ADVICE.items()]
        return table(("where the store's own table has no advice", "what to do"), rows)
    store = getattr(importlib.import_module(f"airflow_providers_secrets.stores.{module}"), name)
    by_advice: dict[str, list[str]] = {}
    for code, text in store.advice.items():
        by_advice.setdefault(text, []).append(shown(code))
    for code, outcome in {**base.COMMON_OUTCOMES, **store.outcomes}.items():
        if code not in store.advice and outcome is not base.Outcome.NOT_FOUND:
            by_advice.setdefault(outcomes.advice((code,), outcome, store.advice), []).append(shown(code))
    rows = [(cell(", ".join(names)), cell(text)) for text, names in by_advice.items()]
    return table(("code", "what to do"), rows)


def shown(code: Any) -> str:
    return f"`{code}`" if isinstance(code, str) else f"any other that is {code.value}"


# messages GROUP


GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "options": ("options.py", "backends/"),
    "ids": ("lookup/plan.py",),
    "secrets": ("lookup/decoding.py",),
    "cache": ("lookup/shared_cache/",),
    "aws": ("stores/aws/",),
    "vault": ("stores/vault/",),
    "google": ("stores/google/",),
    "azure": ("stores/azure/",),
    "kubernetes": ("stores/kubernetes/",),
    "command": ("cli/",),
    "page": ("ui/",),
    "lookup": ("",),
}
"""What the messages of each part of the package are about; a module is of the first group that it fits."""


@functools.cache
def in_tables_of_codes() -> frozenset[str]:
    """What the stores' own tables say, which are written from the code as well."""
    from airflow_providers_secrets.lookup import outcomes
    from airflow_providers_secrets.provider_info import get_provider_info

    told = set(outcomes.ADVICE.values())
    for path in get_provider_info()["secrets-backends"]:
        module, _, name = path.rpartition(".")
        if store_class := getattr(getattr(importlib.import_module(module), name), "store_class", None):
            module, _, name = store_class.partition(":")
            store = getattr(importlib.import_module(f"airflow_providers_secrets.stores.{module}"), name)
            told |= {*store.advice.values(), *(code for code in store.advice if isinstance(code, str))}
    return frozenset(told)


def messages(group: str) -> str:
    """The fixed parts of the messages of one group; ``…`` stands for what varies."""
    found = {
        text: None
        for path in sorted(PACKAGE.rglob("*.py"))
        if "testing" not in path.relative_to(PACKAGE).parts  # which speaks to developers of stores
        if group_of(path.relative_to(PACKAGE).as_posix()) == group
        for text in in_module(path)
        if text not in in_tables_of_codes()
    }
    return "".join(f"- `{text}`\n" for text in sorted(found, key=lambda text: text.lstrip("… '").lower()))


def group_of(module: str) -> str:
    return next(group for group, starts in GROUPS.items() if module.startswith(starts))


RAISED: Final = re.compile(
    r"(Error|Unusable|Unreadable|Blocked|AlreadyExists|SourceFailed|InvalidSecret|StoreUnavailable|AccessDenied"
    r"|StoreMisconfigured)$"
)
SAYS: Final = (
    "print",
    "info",
    "debug",
    "write",
    "exit",
    "warn",
    "LookupPlan",
    "error",
    "_ended",
    "say",
    "_say",
    "Finding",
    "Item",
    "failure",
)
NAMED: Final = re.compile(r"^(reason|cure|fault|problem|conflict|refusals|MISPLACED)$")
ANSWERS: Final = re.compile(r"refusal|conflict|_problem|misreading|_unusable")


NO_MESSAGE: Final = re.compile(r"^(HELP|EXAMPLE|EPILOG|DESCRIPTION|HEADERS|GREETING|ELSEWHERE|write_settings|code)$")
"""What is not printed, or by ``--help`` alone."""
NOT_SAID: Final = (
    "Option",
    "_option",
    "add_argument",
    "add_parser",
    "compile",
    "escape",
    "NamedTuple",
    "TypeVar",
)
"""Calls whose texts stand elsewhere in the pages, or are none."""
CODE: Final = re.compile(
    r"\(\?|\\|\|\w|\.\*|[{] |redis\.call"
    r"|^(aws|az|gcloud|vault|kubectl|airflow|airflow-secrets|default-src|import|role) "
    r"|^…vault |^# "
)
"""A template, a pattern or a command line rather than words."""
SENTENCE: Final = 4
"""From how many words on a text counts as said, wherever it stands."""


def in_module(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from sentences(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            to_notes = (
                called == "append" and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "notes"
            )
            if RAISED.search(called) or called in SAYS or to_notes:
                given = [*node.args, *(word.value for word in node.keywords)]
                yield from (text for one in given for text in texts(one))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(NAMED.match(name_of(target)) for target in targets):
                yield from texts(node.value)
        elif isinstance(node, ast.FunctionDef) and ANSWERS.search(node.name):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return | ast.Yield) and inner.value is not None:
                    yield from texts(inner.value)


def sentences(node: ast.AST) -> Iterator[str]:
    """Yield every text of a few words that may be printed: whoever adds a message need not think of this table."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(NO_MESSAGE.match(name_of(target)) for target in targets):
            return
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in NOT_SAID:
            return
    if isinstance(node, ast.Constant | ast.JoinedStr):
        for text in texts(node):
            if len(text.replace("…", "").split()) >= SENTENCE and not CODE.search(text):
                yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from sentences(child)


def name_of(target: ast.expr) -> str:
    """Return the variable's name, or the key's under which a dictionary gets it."""
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return str(target.slice.value)
    return target.id if isinstance(target, ast.Name) else ""


def texts(node: ast.expr) -> Iterator[str]:
    """Yield what is a sentence, or a part of one, with an ellipsis for what varies."""
    if isinstance(node, ast.BoolOp | ast.Dict):
        for value in node.values:
            yield from texts(value)
        return
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = re.sub(r"%[srgd]", "…", node.value)
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
                yield from texts(part.value)
        text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    else:
        return
    if len(fixed := text.replace("…", "").strip(" :.'()").split()) > 1 and len(" ".join(fixed)) >= MIN_LENGTH:
        yield " ".join(text.split())


MIN_LENGTH: Final = 8
"""The shortest text, in characters without what varies, that somebody could search for."""


# versions


def versions() -> str:
    """The oldest version of each library that the extras admit."""
    text = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")  # tomllib comes with Python 3.11
    extras = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    rows = []
    for extra, needed in re.findall(r"^([\w-]+) = (\[.*?\])(?:\s*#.*)?$", extras, re.MULTILINE):
        outside = [one for one in ast.literal_eval(needed) if not one.startswith("airflow-providers-secrets")]
        if outside:
            rows.append((f"`{extra}`", ", ".join(cell(one.replace(">=", " ").replace("==", " ")) for one in outside)))
    return table(("extra", "brings, in this version or a later one"), rows)


TABLES: Final[dict[str, Callable[..., str]]] = {
    "options": options,
    "codes": codes,
    "messages": messages,
    "versions": versions,
}


def written(text: str) -> str:
    """Return a page's *text* with its tables as the code has them."""

    def fill(found: re.Match[str]) -> str:
        name, *arguments = found[2].split()
        return f"{found[1]}\n{TABLES[name](*arguments)}\n{found[3]}"

    return REGION.sub(fill, text)


def main() -> int:
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            page.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{page.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
