from __future__ import annotations

from pathlib import Path

from modelspeed.configs.discovery import find_recipe


def test_the_nearest_recipe_is_found_first(tmp_path: Path) -> None:
    beside, cwd = tmp_path / "models", tmp_path / "cwd"
    beside.mkdir()
    cwd.mkdir()
    checkpoint = beside / "net.v2.pt"
    assert find_recipe(checkpoint, cwd) is None
    for path in (cwd / "modelspeed.yaml", beside / "modelspeed.yaml", beside / "net.v2.yaml"):
        path.write_text("version: 1\n")
        assert find_recipe(checkpoint, cwd) == path


def test_a_folder_or_the_checkpoint_itself_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "modelspeed.yaml").mkdir()
    checkpoint = tmp_path / "net.yaml"
    checkpoint.write_text("x")
    assert find_recipe(checkpoint, tmp_path) is None
