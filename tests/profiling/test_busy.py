from __future__ import annotations

import os

import pytest
from modelspeed.profiling.busy import by_whom


class Proc:
    """A /proc in which time passes when someone sleeps. Rates are in cores."""

    def __init__(self, path, **rates):
        self.path, self.rates, self.ticks = path, rates, {name: 1000.0 for name in rates}
        self.write()

    def write(self):
        total = sum(self.ticks.values())
        (self.path / "stat").write_text(f"cpu {total:.0f} 0 0 9 9 0 0 0 0 0\ncpu0 1 2\n")
        for pid, (name, ticks) in enumerate(self.ticks.items(), 100):
            if name.startswith("hidden"):
                continue
            group = os.getpgrp() if name == "ours" else pid
            folder = self.path / str(pid)
            folder.mkdir(exist_ok=True)
            rest = f"R 1 {group} 0 0 -1 0 0 0 0 0 {ticks:.0f} 0 0 0 20 0"
            (folder / "stat").write_text(f"{pid} ({name}) {rest}\n")

    def sleep(self, seconds):
        for name, rate in self.rates.items():
            self.ticks[name] += rate * seconds * os.sysconf("SC_CLK_TCK")
        self.write()


def named(tmp_path, **rates):
    proc = Proc(tmp_path, **rates)
    return by_whom(tmp_path, proc.sleep)


def test_the_busiest_are_named_first_and_our_own_left_out(tmp_path):
    found = named(tmp_path, ours=1.9, cc1plus=0.5, make=0.98, idle=0.0, a=0.2, b=0.3)
    assert found == (
        "`make` (process 102) takes 98% of a core, `cc1plus` (process 101) takes 50% of a core, "
        "`b` (process 105) takes 30% of a core"
    )


def test_a_name_may_hold_brackets_and_spaces(tmp_path):
    assert "`a) R (b c`" in named(tmp_path, **{"a) R (b c": 1.0})


def test_a_container_that_shows_none_says_how_much_others_take(tmp_path):
    found = named(tmp_path, ours=0.5, hidden=1.5)
    assert found.startswith("programs outside this container take 1.5 of ")


@pytest.mark.parametrize("rates", [{}, {"ours": 2.0}, {"idle": 0.01}])
def test_nobody_is_blamed_on_a_quiet_machine(tmp_path, rates):
    assert named(tmp_path, **rates) == ""


def test_a_system_without_proc_says_nothing(tmp_path):
    assert by_whom(tmp_path / "none", lambda _: None) == ""
