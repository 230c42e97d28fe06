"""The outcome of a simulated stream, as a report shows it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Simulated:
    """`in_time` of `requests` were answered by their deadline, `late` after it. `accuracy`: mean of
    the answers in time. `answers` by rung."""

    names: tuple[str, ...]
    replicas: int
    requests: int = 0
    in_time: int = 0
    late: int = 0
    refused: int = 0
    worth: float = 0.0
    answers: list[int] = field(default_factory=list)

    @property
    def attainment(self) -> float:
        return self.in_time / self.requests if self.requests else 1.0

    @property
    def accuracy(self) -> float:
        return self.worth / self.in_time if self.in_time else 0.0
