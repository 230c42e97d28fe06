"""Imports between the package's own files, read from the syntax tree: nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (
    "core", "configs", "reporting", "graph", "profiling", "backends", "checkpoints", "adjusters",
    "data", "runtime", "search", "training", "tuning", "batch", "cli",
)  # fmt: skip


def files() -> list[Path]:
    return sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Files, relative to the root, that `path` imports at whatever level: in a function, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                if (base / f"{alias.name}.py").exists():
                    found.add(base / f"{alias.name}.py")
                elif base.with_suffix(".py").exists():
                    found.add(base.with_suffix(".py"))
    return {p.relative_to(ROOT).as_posix() for p in found}


def graph() -> dict[str, set[str]]:
    return {p.relative_to(ROOT).as_posix(): imported(p) for p in files()}


def cycles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Each way back to a file that is still open on the way there (depth first)."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> Iterator[list[str]]:
        if name in way:
            yield [*way[way.index(name) :], name]
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                yield from visit(other, [*way, name])
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])
