"""Names of a user's modules and weights, inside a graph and outside of it.

A graph is a module itself, with a `graph`, `code` and `meta` of its own, and is spelled as Python:
names that collide with either are written otherwise inside, and so is every letter beyond ASCII,
because Python folds those (NFKC): `ﬁ` and `fi` would be one attribute. The writing can be undone
without knowing what was renamed, so that stored names mean the same under every torch.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from keyword import iskeyword

from torch import nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule

MARK = "user__"  # before a part of a name that is written otherwise
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")
# Set by torch.export or by ourselves on graphs, and not there from the start.
_ADDED = {"_in_spec", "_out_spec", "shape_env", "self", "meta", "_guards_fn", "_guards_code"}


def inside(name: str) -> str:
    """The dotted `name` of a tensor as a graph holds it."""
    return ".".join(_inside(part) for part in name.split("."))


def outside(name: str) -> str:
    """The user's name for what `inside` wrote."""
    return ".".join(_outside(part) for part in name.split("."))


def with_names_inside(program: ExportedProgram) -> ExportedProgram:
    """`program`, in place, with names that a graph can carry."""
    for table in (program.state_dict, program.constants):
        if any(inside(name) != name for name in table):
            renamed = {inside(name): value for name, value in table.items()}
            table.clear()
            table.update(renamed)
    signature = program.graph_signature
    for spec in (*signature.input_specs, *signature.output_specs):
        if spec.target is not None and not spec.target.startswith("*"):
            spec.target = inside(spec.target)
    return program


def _inside(part: str) -> str:
    taken = iskeyword(part) or part in _taken() or part.startswith((MARK, "_packed_"))
    if _PLAIN.fullmatch(part) and not taken:
        return part
    return MARK + re.sub(r"_(?=x)|[^A-Za-z0-9_]", lambda m: f"_x{ord(m[0]):x}_", part)


def _outside(part: str) -> str:
    if not part.startswith(MARK):
        return part
    return re.sub(r"_x([0-9a-f]{1,6})_", _letter, part.removeprefix(MARK))


def _letter(match: re.Match[str]) -> str:
    """A foreign file may hold what `inside` never writes: a number of no letter, or a dot."""
    code = int(match[1], 16)
    return chr(code) if code <= sys.maxunicode and chr(code) != "." else match[0]


@cache
def _taken() -> frozenset[str]:
    graph = GraphModule(nn.Module(), Graph())
    return frozenset({*dir(graph), *vars(graph), *_ADDED})
