from __future__ import annotations

import io

import pytest
from modelspeed.cli.progress import Live
from rich.console import Console


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live(clock):
    return Live(clock)


def shown(live):
    """The lines as a terminal has them, without bars."""
    out = Console(file=io.StringIO(), width=120)
    out.print(live.progress.get_renderable())
    lines = out.file.getvalue().splitlines()
    return [" ".join(w for w in line.split() if w[0].isalnum()) for line in lines]


def test_the_run_and_below_it_its_stage_or_the_part_of_one(live, clock):
    live.expect(["loading", "searching", "prune"])
    live.stage("loading")
    assert shown(live) == ["stage 1 of 3 0:00", "loading 0:00"]
    live.stage("searching")
    live.stage("verifying")
    clock.now = 65
    assert shown(live) == ["stage 2 of 3 1:05", "searching: verifying 1:05"]
    live.expect(["prune", "finetune", "verifying"])
    live.stage("prune")
    clock.now = 70
    assert shown(live)[0] == "stage 3 of 5 1:10"


def test_time_left_is_said_only_where_something_is_known_of_it(live, clock):
    live.expect(["loading", "training"], 120)
    live.stage("loading")
    clock.now = 20
    assert shown(live) == ["stage 1 of 2 0:20, 1:40 of the limit left", "loading 0:20"]
    live.stage("training", 100)
    live.advance(4)
    clock.now = 30
    assert shown(live)[1] == "training 0:10"
    live.advance(21)
    clock.now = 45
    assert shown(live)[1] == "training 0:25, about 1:15 left"
    live.advance(75)
    clock.now = 130
    assert shown(live) == ["stage 2 of 2 2:10", "training 1:50"]


def test_without_expectations_there_is_one_line(live):
    live.stage("measuring")
    assert shown(live) == ["measuring 0:00"]


def test_plain_lines_where_there_is_no_terminal(live, capsys):
    live.expect(["loading"])
    live.stage("loading")
    live.note("x" * 200)
    assert capsys.readouterr().err == f"loading ...\n  {'x' * 200}\n"
