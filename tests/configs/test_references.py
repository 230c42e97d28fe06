"""What `--model` and `--data` may name."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelspeed.configs.inputs import with_flags
from modelspeed.configs.recipe import DataSpec, Recipe
from modelspeed.configs.references import DATA, MODELS, Reference, parse_reference
from modelspeed.core.errors import UsageError
from pydantic import ValidationError

CWD = Path("/here")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a/b.py:f", Reference("file", "a/b.py", "f")),
        ("/a/b.py:f", Reference("file", "/a/b.py", "f")),
        ("torchvision:resnet18", Reference("torchvision", "resnet18")),
        ("timm:vit_tiny.augreg", Reference("timm", "vit_tiny.augreg")),
        ("transformers:my folder", Reference("transformers", "my folder")),
    ],
)
def test_models_are_functions_or_a_librarys(text, wanted):
    assert parse_reference(text, MODELS) == wanted and wanted.text() == text


@pytest.mark.parametrize(
    "text",
    ["", "timm", "timm:", "timm: x", "folder:x", "keras:x", "a.py:a-b", "a.txt:f", "x\0.py:f"],
)
def test_what_is_neither_is_none(text):
    assert parse_reference(text, MODELS) is None


def test_flags_become_absolute_where_they_name_something_on_disk():
    for text, wanted in [("timm:resnet18", "timm:resnet18"),
                         ("transformers:bert", "transformers:/here/bert")]:  # fmt: skip
        changed = with_flags(Recipe(), model=text, cwd=CWD).model
        assert changed is not None and changed.factory == wanted
    changed = with_flags(Recipe(), data="folder:images", cwd=CWD).data
    assert changed is not None and changed.factory == "folder:/here/images"


def test_data_and_models_do_not_mix_and_the_sentence_says_what_is_allowed():
    with pytest.raises(UsageError, match=r"`--model` is 'folder:x'; it must be .*timm:resnet18"):
        with_flags(Recipe(), model="folder:x", cwd=CWD)
    with pytest.raises(ValidationError, match="folder:DIR"):
        DataSpec(factory="timm:resnet18")
    assert parse_reference("arrays:a.npz", DATA) == Reference("arrays", "a.npz")
