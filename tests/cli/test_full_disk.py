"""A disk that is full gives one sentence, and nothing half-written stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from modelspeed.batch.journal import NAME, BatchJournal
from modelspeed.cli.check_run import _append


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["list"], ["--version"]])
def test_stdout_that_takes_no_more_is_one_sentence(words, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "modelspeed", *words], stdout=full, text=True,
                              env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
                              stderr=subprocess.PIPE)  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "modelspeed: the disk is full.\n")


def test_a_reader_that_has_seen_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "modelspeed", "list"], stdout=write, text=True,
                          stderr=subprocess.PIPE)  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_torn_line_of_a_batch_journal_is_taken_back(tmp_path, monkeypatch):
    write = os.write
    with BatchJournal.open(tmp_path) as journal:
        journal.begin("a", "key", 1)
        before = (tmp_path / NAME).read_bytes()
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:9]))
        with pytest.raises(OSError) as raised:
            journal.begin("b", "key", 1)
        assert raised.value.errno == errno.ENOSPC
        assert (tmp_path / NAME).read_bytes() == before
        monkeypatch.undo()
        journal.begin("c", "key", 1)
    with BatchJournal.open(tmp_path) as journal:
        assert sorted(journal.begun) == ["a", "c"]


def test_a_summary_is_added_whole_or_not_at_all(tmp_path):
    """RLIMIT_FSIZE stands for the disk: it too takes a part of the text first."""
    import resource

    path = tmp_path / "summary.md"
    path.write_text("before\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError):
            _append(path, "of this step\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "before\n"
    _append(path, "of this step\n")
    assert path.read_text() == "before\nof this step\n"
