"""Stages hand on values: nobody changes a session or a variant from outside of its file."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, fields

import imports
import pytest
from modelspeed.search.variant import Variant
from modelspeed.tuning.session import Session

HOMES = {"tuning/session.py", "search/variant.py"}
NAMES = {f.name for kind in (Session, Variant) for f in fields(kind)}
OWNERS = {"session", "variant", "bench", "lab"}


def assigned(path):
    """(owner, attribute) of each assignment to an attribute of something that is not `self`."""
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    yield ast.unparse(part.value), part.attr


def test_no_attribute_is_assigned_from_outside():
    for path in imports.files():
        name = path.relative_to(imports.ROOT).as_posix()
        for owner, attribute in assigned(path) if name not in HOMES else ():
            last = owner.rpartition(".")[2]
            assert not (last in OWNERS and attribute in NAMES), f"{name}: {owner}.{attribute}"
            assert last not in {"session", "variant"}, f"{name}: {owner}.{attribute}"
        assert "object.__setattr__" not in path.read_text() or name not in HOMES


def test_they_cannot_be_changed_either():
    variant = Variant(None)
    with pytest.raises(FrozenInstanceError):
        variant.runtime = "onednn"
    assert variant.with_step("row") is not variant and variant.steps == ()
    assert Session.__dataclass_params__.frozen
