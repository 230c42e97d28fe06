from __future__ import annotations

import os

import pytest
from modelspeed.core.ownership import objection

OTHER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def code(tmp_path, monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)
    file = tmp_path / "ckpts" / "lib" / "model.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (file.parent / "__pycache__").mkdir()
    (file.parent / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"")
    (file.parent / "helper.py").write_text("")
    (file.parent / "package").mkdir()
    (file.parent / "package" / "__init__.py").write_text("")
    (file.parent / "package" / "__pycache__").mkdir()
    (file.parent / "package" / "part.py").write_text("")
    (file.parent / "package" / "deep").mkdir()
    (file.parent / "package" / "deep" / "part.py").write_text("")
    (file.parent / "package" / "deep" / "again").symlink_to("..")
    (file.parent / "unmarked").mkdir()
    (file.parent / "unmarked" / "part.py").write_text("")
    return file


def test_what_is_all_the_users_own_is_not_objected_to(code):
    assert objection([code], [code.parents[1]]) == ""
    assert objection([code.parent / "gone.py"]) == ""


@pytest.mark.parametrize(
    "place", ["lib/model.py", "lib", ".", "lib/helper.py", "lib/__pycache__",
              "lib/package/__init__.py", "lib/package/part.py", "lib/package/deep/part.py",
              "lib/package/__pycache__", "lib/unmarked", "lib/unmarked/part.py",
              "lib/__pycache__/model.cpython-311.pyc"],
)  # fmt: skip
@pytest.mark.parametrize("change", ["owner", "all", "group"])
def test_one_place_of_another_user_or_open_to_others_is_enough(code, place, change):
    path = code.parents[1] / place
    if change == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        os.chown(path, OTHER, -1)
    elif change == "all":
        path.chmod(0o777)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root may give files away")
        os.chown(path, -1, OTHER)
        path.chmod(0o770)
    assert str(path) in objection([code], [code.parents[1]])


def test_where_a_module_beside_leads_as_a_link_counts(code):
    (code.parents[1] / "elsewhere.py").write_text("")
    (code.parent / "linked.py").symlink_to("../elsewhere.py")
    assert objection([code]) == ""
    (code.parents[1] / "elsewhere.py").chmod(0o666)
    assert "elsewhere.py" in objection([code])


def test_folders_of_data_beside_the_code_do_not_count(code):
    (code.parent / "data").mkdir()
    (code.parent / "data" / "0.png").write_bytes(b"")
    (code.parent / "data").chmod(0o777)
    assert objection([code]) == ""


@as_root
def test_folders_above_the_checkpoints_do_not_count(code):
    os.chown(code.parents[2], OTHER, -1)
    try:
        assert objection([code], [code.parents[1]]) == ""
        assert objection([code], [code.parents[2]])
    finally:
        os.chown(code.parents[2], 0, -1)


@as_root
def test_for_root_the_files_of_who_called_sudo_are_own_ones(code, monkeypatch):
    os.chown(code, OTHER, -1)
    assert objection([code])
    monkeypatch.setenv("SUDO_UID", str(OTHER))
    assert objection([code]) == ""
    monkeypatch.setenv("SUDO_UID", "0; 12345")
    assert objection([code])


@as_root
def test_a_link_counts_and_where_it_leads(code, tmp_path):
    link = tmp_path / "link.py"
    link.symlink_to(code)
    assert objection([link]) == ""
    os.chown(code, OTHER, -1)
    assert str(code) in objection([link])
    os.chown(code, 0, -1)
    os.chown(link, OTHER, -1, follow_symlinks=False)
    assert str(link) in objection([link])
