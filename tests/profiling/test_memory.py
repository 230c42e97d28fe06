"""Memory of a process, by the difference."""

from __future__ import annotations

import torch
from modelspeed.profiling.memory import STATM, used_memory

MB = 1 << 20


def test_what_is_held_is_seen_and_so_is_what_was_freed():
    if not STATM.is_file():
        assert used_memory() == 0
        return
    before = used_memory()
    held = [torch.ones(MB // 16) for _ in range(256)]  # 64 MB in pieces
    during = used_memory()
    assert 60 * MB < during - before < 80 * MB
    del held
    assert used_memory() - before < 16 * MB
