from __future__ import annotations

import os
import stat

import pytest
from modelspeed.core.files import write_whole


def test_what_was_there_stays_where_writing_fails_and_nothing_is_left_behind(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "first")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"second")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "first")]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", "ü")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == "ü".encode()
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR)
    write_whole(tmp_path / "pipe", "x")
    assert os.read(end, 9) == b"x" and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    os.close(end)
