"""A graph without its weights, from which a loaded module makes another one like itself."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..graph.capture import module_of, moved, without_warnings
from .graph_reader import read_graph


class Blueprint(Protocol):
    """Tensors of `module` are to be replaced: they may have no values."""

    def module(self) -> GraphModule: ...

    def on(self, device: str) -> Blueprint:
        """The same, for calls that make tensors on `device`."""

    def packed(self) -> tuple[bytes, str]: ...


@dataclass(frozen=True)
class Text:
    """Of an artifact's `model.graph.json`."""

    text: str
    device: str = "cpu"

    def module(self) -> GraphModule:
        return read_graph(self.text, None, self.device)

    def on(self, device: str) -> Text:
        return replace(self, device=device)

    def packed(self) -> tuple[bytes, str]:
        return self.text.encode(), self.device


@dataclass(frozen=True)
class Program:
    """Of an artifact that has no such file."""

    program: ExportedProgram

    def module(self) -> GraphModule:
        return module_of(self.program)

    def on(self, device: str) -> Program:
        with without_warnings():
            return Program(moved(copy.deepcopy(self.program), device))

    def packed(self) -> tuple[bytes, str]:
        file = io.BytesIO()
        with without_warnings():
            torch.export.save(self.program, file)
        return file.getvalue(), ""


def blueprint_from(content: bytes, device: str) -> Blueprint:
    if device:
        return Text(content.decode(), device)
    with without_warnings():
        return Program(torch.export.load(io.BytesIO(content)))
