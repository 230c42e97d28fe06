"""A lab without a model: what a variant takes and loses is arithmetic, so the optimum is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import Recipe, Step
from modelspeed.core.model_io import Batches, Inputs
from modelspeed.core.progress import Silent
from modelspeed.core.records import Closeness, Comparison, Latency, Target, Verification
from modelspeed.graph.edits.apply import Cast
from modelspeed.search.decision import Decision
from modelspeed.search.droppable_blocks import DroppableBlocks
from modelspeed.search.knapsack import Choice, Problem, Term
from modelspeed.search.lab import HeldOut
from modelspeed.search.layer_options import AS_IT_IS, LayerOption, LayerOptions, choice_of
from modelspeed.search.search import Search
from modelspeed.search.space import SearchSpace
from modelspeed.search.trials import Trial
from modelspeed.search.variant import Variant
from torch import nn
from torch.fx import Graph, GraphModule

T = TypeVar("T")
Table = Mapping[int, float]  # by width


def exactly(ms: float) -> Latency:
    return Latency(50.0, ms, ms, ms)


class WidthsAsTheyAre:
    """Stands for a pruner: what it would drop of a group is told by the width it keeps."""

    def keeping(self, widths: Mapping[str, int]) -> dict[Any, Any]:
        return dict(widths)


@dataclass
class FakeLab:
    """`times` (ms) and `losses` by group and width are the truth; `predicted` what tables say.

    `layers`: by node, the group whose time it is, the step that makes it run otherwise, the share
    of the time it takes then, and what that loses. `formats`: by step of the whole model, the
    share of time and the loss. `slower`: what the fresh process sees by width of group "a".
    `broken`: widths of group "a" that fail to build. `patience`: questions of `in_time` until the
    time is up.
    """

    recipe: Recipe
    times: Mapping[str, Table]
    losses: Mapping[str, Table]
    predicted: Mapping[str, Table] | None = None
    layers: Mapping[str, tuple[str, int, float, float]] = field(default_factory=dict)
    formats: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    said: Mapping[str, float] = field(default_factory=dict)  # losses of layers as predicted
    target: Target = field(default_factory=lambda: Target(ms=1.0))
    slower: Callable[[int], float] = lambda width: 1.0
    broken: frozenset[int] = frozenset()
    patience: float = float("inf")
    fixed_ms: float = 0.0
    has_data: bool = True
    runtime: str = "plain"
    fingerprint: str = "fake"
    built: list[Decision] = field(default_factory=list)
    verified: list[Decision] = field(default_factory=list)
    set_aside_rows: dict[str, str] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)
    written: list[Any] = field(default_factory=list)
    progress: Silent = field(default_factory=Silent)
    _decisions: dict[int, Decision] = field(default_factory=dict)
    _alive: list[Variant] = field(default_factory=list)  # ids are those of living modules

    @property
    def reference(self) -> Latency:
        whole = sum(max(table.values()) for table in self.times.values())
        return exactly(self.fixed_ms + whole)

    @property
    def quiet_ms(self) -> float:
        return self.reference.value_ms

    def space(self) -> SearchSpace:
        """The knapsack of what is predicted."""
        tables = self.predicted or self.times
        choices = {
            g: Choice(tuple(sorted(t)), tuple(self.losses[g][w] for w in sorted(t)))
            for g, t in tables.items()
        }
        terms, options = [], {}
        for group, table in tables.items():
            terms.append(Term((group,), np.array([table[w] for w in sorted(table)])))
        for node, (group, step, share, loss) in self.layers.items():
            loss = self.said.get(node, loss)
            choices[choice_of(node)] = Choice((0, 1), (loss, 0.0))
            options[node] = (LayerOption(step, share, loss), AS_IT_IS)
            at = next(i for i, t in enumerate(terms) if t.names == (group,))
            both = terms[at].ms[:, None] * np.array([share, 1.0])
            terms[at] = Term((group, choice_of(node)), both)
        problem = Problem(choices, terms, self.fixed_ms)
        return SearchSpace(WidthsAsTheyAre(), DroppableBlocks(), problem, LayerOptions(options))  # type: ignore[arg-type]

    def search(self) -> Search:
        """Begun: the whole was measured, and what is no faster is no format to search in."""
        search = Search(self, self.space())
        search.measure(search.problem.whole())
        search.number_formats = (-1, *(f for f, (share, _) in self.formats.items() if share < 1))
        search.steps = tuple(sorted({step for _, step, *_ in self.layers.values()}))
        return search

    def optimum(self, budget_ms: float) -> float:
        """The least true loss of all that there is within the budget."""
        rows = itertools.product(*(sorted(t) for t in self.times.values()))
        fits = []
        for widths in rows:
            at = dict(zip(self.times, widths, strict=True))
            for nodes in itertools.product((False, True), repeat=len(self.layers)):
                taken = {n for n, yes in zip(self.layers, nodes, strict=True) if yes}
                for number_format in (None, *self.formats):
                    if number_format is None or not taken:
                        ms, loss = self._truth(at, taken, number_format)
                        if ms <= budget_ms:
                            fits.append(loss)
        return min(fits)

    def _truth(
        self, widths: Mapping[str, int], nodes: set[str], number_format: int | None
    ) -> tuple[float, float]:
        ms = {g: self.times[g][w] for g, w in widths.items()}
        loss = sum(self.losses[g][w] for g, w in widths.items())
        for node in nodes:
            group, _, share, lost = self.layers[node]
            ms[group] *= share
            loss += lost
        share, lost = self.formats[number_format] if number_format is not None else (1.0, 0.0)
        return share * (self.fixed_ms + sum(ms.values())), loss + lost

    def of(self, decision: Decision) -> tuple[float, float]:
        """True milliseconds and loss."""
        widths = {g: max(t) for g, t in self.times.items()} | dict(decision.dropped)  # type: ignore[arg-type]
        nodes = {n for taken in decision.taken for n in taken.nodes or ()}
        whole = [self.recipe.adjust.index(t.step) for t in decision.taken if t.nodes is None]
        return self._truth(widths, nodes, next(iter(whole), None))

    def build(self, decision: Decision, *, recover: bool = False) -> Variant:
        self.built.append(decision)
        if dict(decision.dropped).get("a") in self.broken:  # type: ignore[call-overload]
            raise RuntimeError("this width does not build")
        whole = any(t.nodes is None for t in decision.taken)
        edits = (Cast("bfloat16"),) if whole else ()
        module = GraphModule(nn.Module(), _empty())
        self._decisions[id(module)] = decision
        variant = Variant(module, edits)
        self._alive.append(variant)
        return variant

    def latency(self, variant: Variant, runtimes: tuple[str, ...] = ()) -> tuple[Latency, str]:
        ms, _ = self.of(self._decisions[id(variant.module)])
        return exactly(ms), next(iter(runtimes), self.runtime)

    def held_out(self, variant: Variant | None) -> HeldOut:
        if variant is None:
            return HeldOut(1.0, 0.0)
        _, loss = self.of(self._decisions[id(variant.module)])
        return HeldOut(1.0 - loss, loss)

    def verify(self, variant: Variant) -> Verification:
        decision = self.built[-1]
        self.verified.append(decision)
        ms, _ = self.of(decision)
        ms *= self.slower(dict(decision.dropped).get("a", max(self.times["a"])))  # type: ignore[call-overload]
        gain = self.reference.value_ms / ms
        found = Comparison(gain, gain, gain, "faster")
        return Verification(
            self.reference,
            exactly(ms),
            found,
            Closeness(0.0, 1e-3, (1,)),
            reference_ms=self.quiet_ms,
        )

    def start(self, step: Step) -> Context:
        raise NotImplementedError

    def context(self, module: GraphModule) -> Context:
        raise NotImplementedError

    def runtimes_for(self, module: GraphModule) -> tuple[str, ...]:
        return (self.runtime_for(module),)

    def runtime_for(self, module: GraphModule) -> str:
        return "packed"

    def remember(self, stage: str, kind: type[T], make: Callable[[], T]) -> T:
        return make()

    def recall(self, stage: str, kind: type[T]) -> T | None:
        return None

    def write_down(self, stage: str, value: Any) -> None:
        if isinstance(value, Trial):
            self.written.append(value)

    def leave_out_step(self, place: int, error: Exception) -> None:
        self.left_out[place] = str(error)

    def set_aside(self, name: str, why: Exception | str) -> str:
        self.set_aside_rows[name] = str(why)
        return str(why)

    def in_time(self, seconds: float | None = None) -> bool:
        self.patience -= 1
        return self.patience >= 0


@dataclass
class GraphLab(FakeLab):
    """With a real graph and data, for what looks at layers."""

    module: GraphModule | None = None
    inputs: Inputs = field(default_factory=Inputs)
    train: Batches | None = None
    packed: str = "plain"

    def start(self, step: Step) -> Context:
        assert self.module is not None
        return self.context(self.module)

    def context(self, module: GraphModule) -> Context:
        return Context(module, self.inputs, self.train)

    def runtimes_for(self, module: GraphModule) -> tuple[str, ...]:
        return (self.runtime_for(module),)

    def runtime_for(self, module: GraphModule) -> str:
        return self.packed


def _empty() -> Graph:
    graph = Graph()
    graph.output(())
    return graph
