from __future__ import annotations

import asyncio
import json
import re
import threading

import pytest
import torch
from fake_rungs import BAD, FakeClock, rung_times
from modelspeed.core.errors import Refused, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.runtime.http_service import HttpService
from modelspeed.runtime.ladder.ladder import Ladder
from safetensors.torch import load, save
from torch import nn


class Doubled(nn.Module):
    broken = False

    def forward(self, x):
        if self.broken or (x == BAD).any():
            raise ValueError("a bad input\nof many lines")
        return x * 2


def ladder_of(module, example=None, **other):
    example = Inputs.of(torch.zeros(2, 1)) if example is None else example
    return Ladder([module] * 4, rung_times(), example=example, **other)


@pytest.fixture
def service():
    made = HttpService(ladder_of(Doubled()), slo_ms=60_000)
    yield made
    made.close()


async def parts(*bodies):
    for body in bodies:
        yield body


def body(value=3.0, **more):
    return save({"input0": torch.full((1, 1), value), **more})


def ask(service, given=None, method="POST", slo_ms=None):
    given = body() if given is None else given
    half = len(given) // 2
    return asyncio.run(service.answer(method, slo_ms, parts(given[:half], given[half:])))


def said(answer):
    return json.loads(answer.body)["error"]


def test_an_answer_says_how_it_came_about(service):
    answer = ask(service)
    assert answer.status == 200 and float(load(answer.body)["output"]) == 6.0
    head = answer.headers
    assert head["Modelspeed-Rung"] == "0-fake" and head["Modelspeed-Late-Expected"] == "false"
    taken, total = (float(head[f"Modelspeed-{n}-Ms"]) for n in ("Taken", "Total"))
    assert 0 < taken < total < 60_000 and float(head["Modelspeed-Predicted-Ms"]) > 0


def test_many_are_answered_at_once(service):
    async def all_of_them():
        return await asyncio.gather(
            *(service.answer("POST", None, parts(body(float(i)))) for i in range(40))
        )

    answers = asyncio.run(all_of_them())
    assert [float(load(a.body)["output"]) for a in answers] == [2.0 * i for i in range(40)]


def test_a_description_names_inputs_and_counts(service):
    ask(service)
    found = json.loads(ask(service, method="GET").body)
    assert found["inputs"] == [{"name": "input0", "dtype": "float32", "shape": [1, 1]}]
    assert found["rungs"] == [f"{i}-fake" for i in range(4)] and found["slo_ms"] == 60_000
    assert sum(found["stats"]["answers"].values()) == 1


@pytest.mark.parametrize(
    ("given", "slo_ms", "sentence"),
    [
        (b"not tensors", None, "not in the form of safetensors"),
        (body(more=torch.zeros(1)), None, "this ladder takes `input0`"),
        (save({"input0": torch.zeros(1, 2)}), None, r"takes float32 of shape \[1, 1\]"),
        (body(), "soon", "`slo_ms` is `soon`"),
        (body(), "-1", "`slo_ms` is `-1`"),
        (body(), "0", "above 0"),
        (body(), "inf", "above 0"),
        (body(), "nan", "above 0"),
    ],
)
def test_a_bad_request_is_told_in_a_sentence(service, given, slo_ms, sentence):
    answer = ask(service, given, slo_ms=slo_ms)
    assert answer.status == 400 and "Retry-After" not in answer.headers
    assert re.search(sentence, said(answer)) and "\n" not in said(answer)


def test_a_body_that_is_too_large_is_not_read_to_its_end(service):
    seen = []

    async def endless():
        while True:
            seen.append(1)
            yield bytes(1 << 14)

    answer = asyncio.run(service.answer("POST", None, endless()))
    assert answer.status == 413 and "bytes" in said(answer) and len(seen) < 10


def test_other_methods_are_refused(service):
    answer = ask(service, method="PUT")
    assert answer.status == 405 and answer.headers["Allow"] == "GET, POST"


def test_what_cannot_be_in_time_is_refused_with_a_time_to_come_back(service):
    answer = ask(service, slo_ms="0.001")
    assert answer.status == 503 and answer.headers["Retry-After"] == "1"
    assert json.loads(answer.body)["reason"] == "late" and "deadline" in said(answer)


def test_a_deadline_counts_from_the_head_of_a_request():
    clock = FakeClock()
    made = HttpService(ladder_of(Doubled(), clock=clock), slo_ms=20.0)

    async def slow():
        yield body()[:9]
        clock.pass_ms(19.9)
        yield body()[9:]

    answer = asyncio.run(made.answer("POST", None, slow()))
    made.close()
    assert answer.status == 503 and json.loads(answer.body)["reason"] == "late"


def test_an_error_of_the_model_is_one_line(service):
    answer = ask(service, body(BAD))
    assert answer.status == 500 and said(answer) == "the model raised ValueError: a bad input."
    assert ask(service).status == 200


def test_closing_answers_what_waits_and_refuses_what_comes(service):
    async def talk():
        waiting = [
            asyncio.ensure_future(service.answer("POST", None, parts(body()))) for _ in range(20)
        ]
        while not len(service.stream) and not any(task.done() for task in waiting):
            await asyncio.sleep(0)
        await asyncio.to_thread(service.close)
        return await asyncio.gather(*waiting)

    for answer in asyncio.run(talk()):
        assert answer.status == 200 or json.loads(answer.body)["reason"] == "closed"
    answer = ask(service)
    assert answer.status == 503 and json.loads(answer.body)["reason"] == "closed"
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(service.check())


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def forward(self, x):
        self.entered.set()
        assert self.gate.wait(10)
        return x


def test_a_client_that_goes_away_takes_its_request_back():
    module = Gated()
    made = HttpService(ladder_of(module), slo_ms=60_000)
    module.gate.clear()
    module.entered.clear()

    async def leave():
        first = asyncio.ensure_future(made.answer("POST", None, parts(body())))
        assert await asyncio.to_thread(module.entered.wait, 10)
        others = [asyncio.ensure_future(made.answer("POST", None, parts(body()))) for _ in range(9)]
        while len(made.stream) < 9:
            await asyncio.sleep(0)
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        module.gate.set()
        return await first

    assert asyncio.run(leave()).status == 200
    made.close()
    assert made.ladder.stats().dropped == 9 and sum(made.ladder.stats().answers.values()) == 1


def test_health_is_an_answer_to_the_example():
    module = Doubled()
    made = HttpService(ladder_of(module), slo_ms=60_000)
    asyncio.run(made.check())
    module.broken = True
    with pytest.raises(ValueError, match="bad input"):
        asyncio.run(made.check())
    made.close()


def test_a_full_queue_is_not_bad_health(service, monkeypatch):
    async def full(*_, **__):
        raise Refused("the stream's queue is full.", "full")

    monkeypatch.setattr(service, "stream", full)
    asyncio.run(service.check())
    monkeypatch.undo()


def test_a_ladder_of_scalars_is_refused_at_once():
    with pytest.raises(UsageError, match=r"one example .* shape \[\]"):
        HttpService(ladder_of(Doubled(), Inputs.of(torch.tensor(1.0))), slo_ms=10)
