"""The protocol of a back end: one way, or a family of ways, to run a graph on this machine.

A new one is a file beside this and a row in registry.py; no other room names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import nn
from torch.fx import GraphModule

from ..core.model_io import Inputs


class Backend(Protocol):
    """Facts that searches, reports and `load` ask for, and the module that runs."""

    @property
    def name(self) -> str: ...

    @property
    def known(self) -> tuple[str, ...]:
        """Every runtime name that a manifest may hold for it. Names stay valid once given."""

    @property
    def packed(self) -> tuple[str, ...]:
        """Names under which int8, half precision and sparse weights have kernels of their own."""

    @property
    def offered(self) -> bool:
        """True if `--runtime` takes its name; other back ends are tried along with `lowered`."""

    @property
    def per_candidate(self) -> bool:
        """True if it is cheap enough for every candidate of a search, not just for the last one."""

    @property
    def by_shape(self) -> bool:
        """True if it prepares for each shape of inputs, so that a new one makes its call late."""

    @property
    def needs_compiler(self) -> bool:
        """True if it compiles native code: in minutes, only if asked for, kept in the artifact."""

    @property
    def any_format(self) -> bool:
        """True if a name that is fastest is also fastest for graphs in another number format."""

    @property
    def profiles_itself(self) -> bool:
        """True if a call costs more than its layers do, so that these are timed inside a call."""

    @property
    def version(self) -> str:
        """Of the library that runs it; empty for torch, whose version is known anyway."""

    def lacks(self, device: str) -> str | None:
        """The thing that is missing here to run on `device`, as `needs ...`; None if nothing is."""

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        """Names worth timing for this graph here, from the least to the furthest change."""

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        """A copy of `module` with the operators that `name` runs, where these can be told apart.

        Another machine may not have the kernels a variant was tuned for: there it stays as it is.
        """

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        """ms of each node of `graph` as `name` runs it, what is fused into it included.

        What has no node of its own may go by other names. Raises what `prepare` raises.
        """

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        """`module` ready to be called. `blob`: what `blob` gave before; its native code runs.

        Raises MeasureError if a compiler or CUDA refuses; a kernel may raise anything.
        """

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        """The graph compiled ahead of time for inputs like `inputs`, to be kept in the artifact.

        None if it prepares quickly at load. Raises MeasureError if the compiler fails.
        """


@runtime_checkable
class KeepsModel(Protocol):
    """A back end whose converted graph an artifact keeps, so that loading does not convert."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files in the artifact."""

    def opens_files(self, device: str) -> bool:
        """True if what opens them is here; converting may need more."""

    def kept_model(self, module: GraphModule, inputs: Inputs) -> dict[str, bytes]:
        """The contents of `files`: data without code, paths or this machine's names.

        Raises MeasureError where the library does not take the graph or it can't be kept.
        """

    def reopened(
        self, module: GraphModule, inputs: Inputs, files: Mapping[str, bytes]
    ) -> nn.Module:
        """`module` as `prepare` gives it, from what `kept_model` gave for inputs like `inputs`.

        Raises MeasureError where this library or machine does not take it, or it was made up.
        """
