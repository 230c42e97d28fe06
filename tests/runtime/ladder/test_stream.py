from __future__ import annotations

import asyncio
import gc
import resource
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest
import torch
from fake_rungs import BAD, FakeClock, fake_ladder, rung_times
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from modelspeed.core.errors import Refused, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.runtime.ladder.ladder import Ladder
from modelspeed.runtime.ladder.policy import LookAhead
from modelspeed.runtime.ladder.stream import Stream
from torch import nn


def example(value):
    return torch.full((1, 1), float(value))


def manual(ladder, slo_ms=25.0, max_queue=64):
    """A stream without a thread: `serve_once` is called by the test."""
    policy = LookAhead(ladder.predictor, slo_ms)
    return Stream(
        ladder, policy, slo_ms=slo_ms, max_queue=max_queue, clock=ladder.clock_ms, start=False
    )


def test_answers_are_those_of_their_own_requests():
    ladder, _ = fake_ladder()
    stream = manual(ladder)
    found = [stream.submit(example(i)) for i in range(9)]
    while stream.serve_once():
        pass
    assert [float(f.result()[0, 0]) for f in found] == list(range(9))
    assert all(f.result().shape == (1, 3) for f in found)
    assert max(n for rung in ladder.rungs for n in rung.calls) > 1, "nothing ran as a batch"
    assert sum(ladder.stats().answers.values()) == 30 + 9
    assert not sum(ladder.stats().late.values())


def test_how_an_answer_came_about_is_beside_it():
    ladder, _ = fake_ladder()
    stream = manual(ladder)
    found = stream.submit(example(1))
    assert len(stream) == 1 and stream.serve_once() and not stream.serve_once()
    assert found.how.rung == 0 and found.how.name == "0-fake"


def test_the_most_urgent_is_first_and_what_cannot_make_it_is_refused_at_once():
    ladder, _ = fake_ladder()
    stream = manual(ladder)
    patient, urgent = stream.submit(example(1)), stream.submit(example(2), slo_ms=9)
    hopeless = stream.submit(example(3), slo_ms=0.1)
    assert isinstance(hopeless.exception(0), Refused) and hopeless.exception().reason == "late"
    stream.serve_once()
    assert urgent.done() and float(urgent.result()[0, 0]) == 2
    stream.close()
    assert patient.done() and ladder.stats().refused["late"] == 1


def test_what_became_hopeless_while_it_waited_is_refused():
    ladder, clock = fake_ladder()
    stream = manual(ladder)
    found = stream.submit(example(1))
    clock.pass_ms(30)
    assert stream.serve_once()
    with pytest.raises(Refused, match="deadline"):
        found.result(0)


def test_a_full_queue_refuses():
    ladder, _ = fake_ladder()
    stream = manual(ladder, slo_ms=1000.0, max_queue=2)
    found = [stream.submit(example(i)) for i in range(3)]
    assert [f.done() for f in found] == [False, False, True]
    assert found[2].exception().reason == "full" and ladder.stats().refused["full"] == 1
    stream.close()


def test_an_exception_stays_with_the_request_that_causes_it():
    ladder, _ = fake_ladder()
    stream = manual(ladder, slo_ms=100.0)
    found = [stream.submit(example(BAD if i == 2 else i)) for i in range(5)]
    stream.close()
    assert isinstance(found[2].exception(), ValueError)
    assert [float(found[i].result()[0, 0]) for i in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert ladder.stats().failed == 1


def test_canceled_requests_do_not_run_and_make_room():
    ladder, _ = fake_ladder()
    stream = manual(ladder, slo_ms=1000.0, max_queue=2)
    first, second = stream.submit(example(1)), stream.submit(example(2))
    assert first.cancel() and len(stream) == 1
    third = stream.submit(example(3))
    stream.close()
    assert sum(n for rung in ladder.rungs for n in rung.calls) == 2
    with pytest.raises(CancelledError):
        first.result()
    assert second.done() and third.done() and ladder.stats().dropped == 1


@pytest.mark.parametrize("drain", [True, False])
def test_closing_ends_all_and_takes_no_more(drain):
    ladder, _ = fake_ladder()
    stream = manual(ladder, slo_ms=1000.0)
    found = [stream.submit(example(i)) for i in range(3)]
    stream.close(drain=drain)
    for future in found:
        if drain:
            future.result(0)
        else:
            assert future.exception(0).reason == "closed"
    with pytest.raises(UsageError, match="closed"):
        stream.submit(example(0))
    stream.close()


def test_examples_of_other_shapes_run_apart():
    ladder, _ = fake_ladder()
    stream = manual(ladder, slo_ms=100.0)
    found = [stream.submit(torch.full((1, 1 + i % 2), float(i))) for i in range(6)]
    stream.close()
    assert [float(f.result()[0, 0]) for f in found] == list(range(6))


def test_more_than_one_example_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="one example with a batch dimension of 1"):
        manual(fake_ladder()[0]).submit(torch.zeros(2, 1))


class WholeBatch(nn.Module):
    """Two outputs, one of which belongs to the batch."""

    def forward(self, x):
        return {"logits": x * 2, "mean": x.mean()}


def ladder_of(module, clock=None, **other):
    return Ladder([module] * 4, rung_times(**other), clock=clock or FakeClock())


def test_outputs_that_cannot_be_split_are_made_one_by_one():
    ladder = ladder_of(WholeBatch())
    stream = manual(ladder, slo_ms=1000.0)
    found = [stream.submit(example(i)) for i in range(6)]
    stream.close()
    assert [float(f.result()["logits"]) for f in found] == [0, 2, 4, 6, 8, 10]
    assert [float(f.result()["mean"]) for f in found] == [0, 1, 2, 3, 4, 5]


class OnlyFour(nn.Module):
    def forward(self, x, *, bias):
        assert x.shape == (4, 1) and bias.shape == (4, 1)
        return (x + bias, None)


def test_a_graph_of_one_batch_size_gets_that_size():
    times = rung_times(only_sizes=True)
    for row in times:
        row.samples_ms.pop(1), row.samples_ms.pop(2), row.samples_ms.pop(8), row.samples_ms.pop(16)
    ladder = Ladder([OnlyFour()] * 4, times, clock=FakeClock())
    stream = manual(ladder, slo_ms=1000.0)
    found = [stream.submit(example(i), bias=example(10)) for i in range(5)]
    stream.close()
    assert [float(f.result()[0]) for f in found] == [10, 11, 12, 13, 14]
    assert found[0].result()[1] is None


class Interleaved(RuleBasedStateMachine):
    """Any order of submitting, canceling, failing, serving and closing."""

    @initialize(max_queue=st.integers(1, 6))
    def open(self, max_queue):
        self.ladder, self.clock = fake_ladder(answers=0)
        self.stream = manual(self.ladder, max_queue=max_queue)
        self.requests, self.ends, self.closed = [], {}, False

    @precondition(lambda self: not self.closed)
    @rule(bad=st.booleans(), slo=st.sampled_from([0.1, 2.0, 25.0, 200.0]))
    def submit(self, bad, slo):
        number = len(self.requests)
        future = self.stream.submit(example(BAD if bad else number), slo_ms=slo)
        self.requests.append((future, bad))
        future.add_done_callback(lambda _: self.ends.update({number: self.ends.get(number, 0) + 1}))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        future, _ = data.draw(st.sampled_from(self.requests))
        was_done = future.done()
        assert future.cancel() == (not was_done or future.cancelled())

    @rule()
    def serve(self):
        self.stream.serve_once()

    @rule(ms=st.floats(0, 30))
    def wait(self, ms):
        self.clock.pass_ms(ms)

    @rule(factor=st.sampled_from([0.5, 1.0, 3.0]))
    def change_the_machine(self, factor):
        for rung in self.ladder.rungs:
            rung.slowdown = factor

    @rule(drain=st.booleans())
    def close(self, drain):
        self.stream.close(drain=drain)
        self.closed = True
        assert all(future.done() for future, _ in self.requests)

    @invariant()
    def nothing_ends_twice(self):
        assert all(count == 1 for count in self.ends.values())

    def teardown(self):
        if not hasattr(self, "stream"):
            return
        self.stream.close()
        assert sorted(self.ends) == list(range(len(self.requests)))
        self.nothing_ends_twice()
        for number, (future, bad) in enumerate(self.requests):
            if future.cancelled() or isinstance(future.exception(), Refused):
                continue
            assert (future.exception() is not None) == bad
            if not bad:
                assert float(future.result()[0, 0]) == number
        stats = self.ladder.stats()
        ended = sum(stats.answers.values()) + sum(stats.refused.values())
        assert ended + stats.failed + stats.dropped == len(self.requests)


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# With its own thread and the real clock


class Doubled(nn.Module):
    def forward(self, x):
        if (x == BAD).any():
            raise ValueError("a bad input")
        return x * 2


def quick_ladder():
    """Rungs that take no time to speak of, measured as if they took some ms."""
    return Ladder([Doubled()] * 4, rung_times())


def test_many_threads_submit_at_once():
    ladder, found = quick_ladder(), []
    with ladder.stream(slo_ms=60_000, max_queue=10_000) as stream:

        def submit(first):
            for i in range(first, first + 50):
                found.append((i, stream.submit(example(i))))

        threads = [threading.Thread(target=submit, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ladder.stats().queue == len(stream)
    assert all(float(future.result(0)) == 2 * i for i, future in found) and len(found) == 200
    assert ladder.stats().queue == 0 and not ladder._streams


def test_asyncio_awaits_answers_refusals_and_errors():
    async def talk(stream):
        answers = await asyncio.gather(*(stream(example(i)) for i in range(5)))
        with pytest.raises(ValueError, match="bad"):
            await stream(example(BAD))
        with pytest.raises(Refused):
            await stream(example(0), slo_ms=0.001)
        return [float(y) for y in answers]

    with quick_ladder().stream(slo_ms=60_000) as stream:
        assert asyncio.run(talk(stream)) == [0, 2, 4, 6, 8]


def test_a_task_that_is_canceled_takes_its_request_back():
    ladder, _ = fake_ladder()
    stream = manual(ladder)

    async def give_up():
        task = asyncio.ensure_future(stream(example(1)))
        await asyncio.sleep(0)
        assert len(stream) == 1 and task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert len(stream) == 0 and ladder.stats().dropped == 1


def test_how_says_that_an_answer_was_not_sure_to_be_in_time():
    ladder, clock = fake_ladder()
    stream = manual(ladder)
    sure = stream.submit(example(1))
    stream.serve_once()
    assert not sure.how.late_expected
    unsure = stream.submit(example(2))
    clock.pass_ms(unsure.deadline - clock.now - 1.005)
    stream.serve_once()
    assert unsure.how.rung == 3 and unsure.how.late_expected


@pytest.mark.parametrize(("slo", "queue"), [(0, 5), (-1, 5), (float("inf"), 5), (5, 0)])
def test_streams_without_time_or_room_are_refused(slo, queue):
    with pytest.raises(UsageError, match="above 0"):
        manual(fake_ladder()[0], slo_ms=slo, max_queue=queue)


def test_leaving_the_block_by_an_error_does_not_wait_for_the_queue():
    ladder, gate = quick_ladder(), threading.Event()
    ladder._ready = (lambda x: (gate.wait(5), x)[1],) * 4
    with pytest.raises(KeyError), ladder.stream(slo_ms=60_000) as stream:
        found = [stream.submit(example(i)) for i in range(40)]
        gate.set()
        raise KeyError
    assert all(future.done() for future in found)


def test_an_error_of_the_policy_reaches_who_waits():
    ladder = quick_ladder()
    broken = LookAhead(ladder.predictor, 25.0)
    broken.decide = lambda *_: 1 / 0
    seen, left = [], []
    before, threading.excepthook = threading.excepthook, lambda args: seen.append(args.exc_type)
    try:
        stream = Stream(
            ladder, broken, slo_ms=1e6, max_queue=9, clock=ladder.clock_ms, on_close=left.append
        )
        with pytest.raises(ZeroDivisionError):
            stream.submit(example(1)).result(5)
        assert left == [stream]
        stream.close()
    finally:
        threading.excepthook = before
    assert seen == [ZeroDivisionError] and left == [stream]


def soak(requests):
    """Sends that many through a stream; KiB of memory that it grew by after the first tenth."""
    ladder, ended = quick_ladder(), [0, 0]
    with ladder.stream(slo_ms=60_000, max_queue=4096) as stream:

        def count(future):
            ended[future.exception() is not None] += 1

        for i in range(requests):
            while len(stream) > 2000:
                time.sleep(0.001)
            stream.submit(example(i % 7)).add_done_callback(count)
            if i == requests // 10:
                gc.collect()
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert ended == [requests, 0], ended
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def test_a_short_soak_loses_nothing():
    assert soak(3000) < 64 << 10


@pytest.mark.long
def test_a_soak_of_a_million_requests_loses_nothing_and_its_memory_stays_flat():
    assert soak(1_000_000) < 16 << 10


def test_wait_works_on_what_submit_returns():
    with quick_ladder().stream(slo_ms=60_000) as stream:
        assert not wait([stream.submit(example(i)) for i in range(20)], timeout=10).not_done


@pytest.mark.parametrize(("axes", "where"), [((1,), "its batch in axis 1"), ((None,), "no batch")])
def test_a_batch_that_is_not_the_first_axis_is_refused_before_it_is_put_together(axes, where):
    inputs = Inputs((torch.ones(5, 2),), batch_axes=axes)
    ladder = Ladder([nn.Identity()], rung_times((1.0,), (0.9,)), example=inputs)
    for opened in (lambda: ladder.stream(25.0), ladder.cascade):
        with pytest.raises(UsageError, match=f"`input 0` has {where}"):
            opened()
    assert ladder(torch.ones(5, 2)).shape == (5, 2)
