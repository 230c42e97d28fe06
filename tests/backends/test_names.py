"""No room outside `backends` names a back end: what they need to know of one they ask it."""

from __future__ import annotations

import ast

import imports
import pytest
from modelspeed.backends.registry import BACKENDS, NAMES

# Modules of `backends` that speak of all back ends alike.
OPEN = {"registry", "agreement", "ranking", "readiness", "trust", "protocol"}
WORDS = {*NAMES, *(b.name for b in BACKENDS), "aoti"}
ALLOWED = {
    # The words of the user's `--runtime`.
    "core/runtimes.py": {"plain", "lowered", "openvino", "onnxruntime", "inductor"},
    "core/extras.py": {"openvino", "onnxruntime"},  # the packages and extras of those names
    "core/records.py": {"plain"},  # a record's runtime where none was chosen
    "cli/profile.py": {"plain"},  # a profile is of the checkpoint as it is
    "runtime/export.py": {"aoti"},  # a format of `modelspeed export`
    # Names of rewrites of a graph, which are that room's own.
    "graph/lowering/lower.py": {"folded", "channels_last", "onednn", "onednn_channels_last"},
    # torch's own namespaces of operators.
    "graph/operators.py": {"onednn"},
    "checkpoints/program_calls.py": {"inductor"},
    # The adjuster of that name.
    "adjusters/channels_last.py": {"channels_last"},
    "adjusters/registry.py": {"channels_last"},
    "configs/settings.py": {"channels_last"},
}
# It writes packages for other programs.
ALLOWED_IMPORTS = {"runtime/export.py": {"aoti", "compiler", "onnx_model"}}


def words_in(tree):
    return {
        node.value for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in WORDS
    }  # fmt: skip


def imported_from_backends(tree):
    """Modules of the room, by whatever way they are imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            *_, room, last = ("", *node.module.split("."))
            if room == "backends":
                yield last
            elif last == "backends":
                yield from (alias.name for alias in node.names)


FILES = [p for p in imports.files() if p.relative_to(imports.ROOT).parts[0] != "backends"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(imports.ROOT).as_posix())
def test_it_names_no_back_end(path):
    name, tree = path.relative_to(imports.ROOT).as_posix(), ast.parse(path.read_text())
    assert words_in(tree) <= ALLOWED.get(name, set())
    assert set(imported_from_backends(tree)) - OPEN <= ALLOWED_IMPORTS.get(name, set())


def test_what_is_allowed_is_needed():
    for name, words in ALLOWED.items():
        assert words_in(ast.parse((imports.ROOT / name).read_text())) == words, name


def test_a_name_would_be_seen():
    tree = ast.parse(
        "from ..backends.inductor import INDUCTOR\nfrom ..backends import aoti, registry\n"
        "from .compare_backends import costs\nif runtime == 'cuda_graph': pass"
    )
    assert words_in(tree) == {"cuda_graph"}
    assert list(imported_from_backends(tree)) == ["inductor", "aoti", "registry"]
