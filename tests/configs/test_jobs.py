from __future__ import annotations

import pytest
from modelspeed.configs.discovery import matching_files, names_for
from modelspeed.configs.entries import entries, set_values
from modelspeed.configs.jobs import JobSettings, load_jobs, parse_size
from modelspeed.core.errors import ConfigError, UsageError

GOOD = """
version: 1
out: fast
memory_limit: 4GB
defaults: {target_ms: 5, config: recipe.yaml, threads: 1}
jobs:
  - checkpoint: "*.pt"
  - {checkpoint: sub/a.pt, name: other, target_speedup: 2, model: "m.py:build", input_size: 160}
"""
NOTHING = JobSettings()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.pt", "a.pt", "sub/a.pt"):
        (tmp_path / name).touch()
    path = tmp_path / "jobs.yaml"
    path.write_text(GOOD)
    return path


def test_defaults_hold_for_all_a_job_says_more_and_flags_win(file, tmp_path):
    found, jobs, base = entries([str(file)], JobSettings(threads=2), tmp_path)
    assert [(e.name, e.checkpoint.name) for e in found] == [
        ("a", "a.pt"), ("b", "b.pt"), ("other", "a.pt"),
    ]  # fmt: skip
    config = str(tmp_path / "recipe.yaml")
    assert set_values(found[0].settings) == {"target_ms": 5, "config": config, "threads": 2}
    assert set_values(found[2].settings) == {
        "target_speedup": 2, "config": config, "threads": 2, "model": f"{tmp_path}/m.py:build",
        "input_size": "160",
    }  # fmt: skip
    assert jobs.memory_limit == "4GB" and base == tmp_path
    flags = JobSettings(fastest=True)
    assert all(
        "target_ms" not in set_values(e.settings) for e in entries([str(file)], flags, base)[0]
    )


def test_every_problem_of_a_jobs_file_is_named_with_its_line(file):
    file.write_text("version: 1\nworker: 2\nmemory_limit: much\njobs:\n"
                    "  - {checkpoint: a.pt, name: ../x}\n  - {checkpoint: '*.pt', name: one}\n"
                    "  - {checkpoint: a.pt, target_ms: 0}\n  - {target_ms: 1}\n")  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load_jobs(file)
    text = str(caught.value)
    for part in ("`jobs.yaml:2`: the jobs file has the unknown key `worker`; did you mean `workers",
                 "`jobs.yaml:3`: `memory_limit` is 'much'; it must be a size", "jobs[0].name",
                 "jobs[2].target_ms", "`jobs[3].checkpoint` is missing"):  # fmt: skip
        assert part in text, text
    file.write_text("version: 1\njobs:\n  - {checkpoint: '*.pt', name: one}\n"
                    "  - {checkpoint: a.pt, target_ms: 1, fastest: true}\n")  # fmt: skip
    with pytest.raises(ConfigError, match="one of `target_ms`"):
        load_jobs(file)
    file.write_text("version: 1\njobs:\n  - {checkpoint: '*.pt', name: one}\n")
    with pytest.raises(ConfigError, match="several files"):
        load_jobs(file)


def test_names_are_stems_and_tell_equal_ones_apart_by_folder(tmp_path, file):
    assert names_for([tmp_path / "b.pt"]) == ["b"]
    assert names_for([file.parent / "x" / "a.pt", file.parent / "y" / "a.pt"]) == ["x-a", "y-a"]
    with pytest.raises(UsageError, match="give them a `name`"):
        names_for([tmp_path / "x" / "a.pt", tmp_path / "x" / "a.pth"])
    with pytest.raises(UsageError, match="asked for twice"):
        entries(["a.pt", "*.pt"], NOTHING, tmp_path)
    with pytest.raises(UsageError, match="either one jobs file"):
        entries(["jobs.yaml", "a.pt"], NOTHING, tmp_path)


def test_patterns_match_files_and_nothing_is_an_error_but_a_missing_file_is_an_item(tmp_path, file):
    assert [p.name for p in matching_files("**/a.pt", tmp_path)] == ["a.pt", "a.pt"]
    assert matching_files("gone.pt", tmp_path) == (tmp_path / "gone.pt",)
    with pytest.raises(UsageError, match="matches no file"):
        matching_files("*.bin", tmp_path)
    odd = tmp_path / "a[1].pt"
    odd.touch()
    assert matching_files("a[1].pt", tmp_path) == (odd,)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("2k", 2048), ("1.5 GB", 3 << 29), ("4GiB", 4 << 30)]
)
def test_sizes_are_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "much", "1e9", "4 GB more"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="4GB"):
        parse_size(text)
