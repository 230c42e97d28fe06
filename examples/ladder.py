"""A load that rises and falls, answered by a ladder; latency and accuracy over time as HTML.

modelspeed ladder examples/digits/digits_resnet.pt --speedups 1,2,4,8 --out digits-ladder
python examples/ladder.py digits-ladder ladder-load.html
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from statistics import mean

import modelspeed
from modelspeed.examples.digits.data import loaders
from modelspeed.reporting.charts import Line, chart

SECONDS, SLO_MS, WINDOWS = 20.0, 50.0, 20
Answer = tuple[float, float, bool]  # second, latency in ms, right


def serve(folder: str, seconds: float = SECONDS) -> tuple[list[Answer], modelspeed.Ladder]:
    """The answers to a load of 0.3 to 3 times what the original can bear, and back."""
    ladder, answers = modelspeed.load(folder), []
    images = [(x[None], int(y)) for xs, ys in loaders()[1] for x, y in zip(xs, ys, strict=True)]
    bears = 1000.0 / ladder.predictor.expected_ms(0, 1)  # requests a second

    def note(future, at, label):
        if not future.exception():
            took = 1000.0 * (time.perf_counter() - begun - at)
            answers.append((at, took, int(future.result().argmax()) == label))

    with ladder.stream(slo_ms=SLO_MS) as stream:
        begun, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - begun) < seconds:
            x, label = images[sent % len(images)]
            future = stream.submit(x)
            future.add_done_callback(lambda f, at=now, label=label: note(f, at, label))
            sent += 1
            time.sleep(1.0 / (bears * (0.3 + 2.7 * math.sin(math.pi * now / seconds))))
    return answers, ladder


def page(answers: list[Answer], seconds: float = SECONDS) -> str:
    rows: dict[int, list[Answer]] = {}
    for answer in answers:
        rows.setdefault(int(answer[0] / seconds * WINDOWS), []).append(answer)
    at = {w: (w + 0.5) * seconds / WINDOWS for w in sorted(rows)}
    curves = {
        "median latency, ms": [(at[w], sorted(a[1] for a in rows[w])[len(rows[w]) // 2])
                               for w in at],
        "accuracy": [(at[w], mean(a[2] for a in rows[w])) for w in at],
        "answers a second": [(at[w], len(rows[w]) * WINDOWS / seconds) for w in at],
    }  # fmt: skip
    style = "<style>body{max-width:720px;font-family:sans-serif}.axis{stroke:#bbb}</style>"
    return style + "".join(
        chart([Line(name, points)], "seconds", name, log_x=False) for name, points in curves.items()
    )


if __name__ == "__main__":
    answers, ladder = serve(sys.argv[1])
    Path(sys.argv[2]).write_text(page(answers))
    print(ladder.stats())
