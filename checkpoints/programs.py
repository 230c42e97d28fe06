"""Exported programs (`.pt2`), opened once nothing in them would run code."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..core.errors import CheckpointError, first_line
from ..graph.capture import without_warnings


def load_program(path: Path, trust: bool = False) -> ExportedProgram:
    """Raises UnsafePickle where reading would run code; torch's own errors otherwise."""
    from .program_parts import checked  # torch's serializer imports its compiler: a second and more

    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it logs a traceback of every damaged file
    try:
        # A file object: given a name, torch warns where it does not end in `.pt2`.
        with path.open("rb") if trust else checked(path) as file, without_warnings():
            return torch.export.load(file)
    finally:
        log.setLevel(level)


def program_module(path: Path, program: ExportedProgram) -> GraphModule:
    """The program as a module. Raises CheckpointError where its parts do not fit each other."""
    try:
        return program.module(check_guards=False)
    except Exception as error:
        raise CheckpointError(
            f"`{path}` holds a program that is damaged: {first_line(error)}"
        ) from error
