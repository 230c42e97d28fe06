"""Names: a public class or function of the package means one thing, wherever it is imported."""

from __future__ import annotations

import ast
from collections import defaultdict

from imports import ROOT, files

# By what they share: one form in each file, which is looked up or run by its file.
ALLOWED = {
    "plan": "each adjuster decides in its own `plan`",
    "render": "each report renders a record in its own `render`",
    "main": "each program starts at its own `main`",
    "apply": "the command, and what it does with the edits",
    "check": "the command, what it runs, and a written source folder that is checked",
    "export": "the command and the function of Python's face",
    "profile": "the command and what it runs",
    "tune": "the command and what it runs",
}


def homonyms() -> dict[str, list[str]]:
    found = defaultdict(list)
    for path in files():
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if public and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_no_public_name_is_defined_in_two_files():
    left = {n: p for n, p in homonyms().items() if n not in ALLOWED}
    assert left == {}


def test_the_list_names_nothing_that_is_gone():
    assert set(ALLOWED) <= set(homonyms())
