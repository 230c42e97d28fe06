from __future__ import annotations

import sys
from pathlib import Path

import pytest
from modelspeed.core.errors import DataError, UsageError
from modelspeed.core.user_code import load_factory


def written(folder: Path, text: str) -> Path:
    (folder / "model.py").write_text(text)
    return folder


def test_a_factory_is_called_with_its_arguments_and_the_file_imported_once(tmp_path):
    (tmp_path / "helper_of_factory_test.py").write_text("K = 2\n")
    text = "from helper_of_factory_test import K\nruns = []\ndef build(n=1):\n    runs.append(n)\n"
    base, path = written(tmp_path, text + "    return K * n, len(runs)\n"), list(sys.path)
    assert load_factory("model.py:build", base)(n=3) == (6, 1)
    assert load_factory("model.py:build", base)(n=3) == (6, 2)
    assert sys.path == path and "model" not in sys.modules
    del sys.modules["helper_of_factory_test"]


@pytest.mark.parametrize("spec", ["model.py", "model.txt:build", "none.py:build", ":build"])
def test_a_missing_file_or_name_is_a_usage_error(tmp_path, spec):
    with pytest.raises(UsageError, match="`"):
        load_factory(spec, written(tmp_path, "def build(): pass\n"))


def test_the_nearest_name_is_offered(tmp_path):
    with pytest.raises(UsageError, match="no function `biuld`; it has `build`"):
        load_factory("model.py:biuld", written(tmp_path, "def build(): pass\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n1 / 0\n", r"at model.py:2: ZeroDivisionError: division by zero"),
        ("x = (\n", r"at model.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"at model.py:2: SystemExit"),
    ],
)
def test_a_failing_import_names_the_users_line(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        load_factory("model.py:build", written(tmp_path, text))


def test_a_failing_call_names_the_users_line(tmp_path):
    build = load_factory(
        "model.py:build", written(tmp_path, "def build():\n    raise KeyError(1)\n")
    )
    with pytest.raises(DataError, match=r"model.py:2: KeyError: 1"):
        build()
