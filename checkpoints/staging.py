"""An artifact on its way: staged beside its place, measured there, then sealed by a rename.

What a fresh process loads and measures is the folder that the user gets: between the two only the
manifest, the recipe and the reports are written again, since they hold what was measured.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.export import ExportedProgram

from ..core.errors import ArtifactError, first_line
from ..core.files import CONVERTED, PACKAGE, sha256
from ..core.json_values import JsonObject
from ..core.model_io import Inputs
from ..core.naming import outside
from ..core.records import FORMAT_VERSION, Record
from ..core.records_json import to_json
from ..core.workspace import Workspace, workspace
from ..graph.capture import module_of
from .archives import archive
from .artifact import (
    GRAPH,
    OURS,
    PROGRAM,
    RECIPE,
    SAMPLE_SEED,
    WEIGHTS,
    absolute,
    check_writable,
    sample,
    unwritable,
)
from .graph_reader import read_graph
from .graph_text import graph_text, same_graph
from .graph_values import Unstorable
from .manifest import MANIFEST
from .samples import specs_of
from .shards import load_safetensors
from .size_samples import size_samples


@dataclass(frozen=True)
class Staged:
    """Weights, program and compiled blob are written; `facts` are the manifest's part about them.

    Gone at the end of `stage` unless it is sealed.
    """

    space: Workspace
    facts: JsonObject

    @property
    def folder(self) -> Path:
        """The whole artifact, to be loaded and measured."""
        return self.space.new

    def describe(
        self,
        record: Record,
        runtime: str,
        recipe_yaml: str,
        reports: Mapping[str, str] | None = None,
    ) -> None:
        """Write what says how it runs and what is known of it, instead of what was said before."""
        if strange := sorted(set(reports or ()) - OURS):
            raise ArtifactError(
                f"`{strange[0]}` is not a report; allowed are report.json, .md and .html."
            )
        manifest = {**self.facts, "runtime": runtime, "record": to_json(record)}
        texts = {MANIFEST: json.dumps(manifest, indent=1), RECIPE: recipe_yaml, **(reports or {})}
        try:
            for name, text in texts.items():
                (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(self.space.target, error) from error

    def without_package(self) -> Staged:
        """The same for a runtime that needs neither compiled blob nor converted graph."""
        for name in (PACKAGE, *CONVERTED):
            (self.folder / name).unlink(missing_ok=True)
        gone = ("package_sha256", "converted_sha256")
        facts = {name: fact for name, fact in self.facts.items() if name not in gone}
        return Staged(self.space, facts)

    def seal(self, *, force: bool) -> Path:
        """Put the folder in its place, complete or not at all. Raises ArtifactError."""
        target = self.space.target
        check_writable(target, force)
        try:
            self.space.put(replace=force)
        except OSError as error:
            raise unwritable(target, error) from error
        return target


@contextmanager
def stage(
    folder: Path,
    *,
    program: ExportedProgram,
    edits: list[JsonObject],
    inputs: Inputs,
    record: Record,
    runtime: str,
    recipe_yaml: str,
    package: bytes | None = None,
    converted: Mapping[str, bytes] | None = None,
) -> Iterator[Staged]:
    """Write the artifact of `program` (on the CPU) beside `folder`, to be measured and sealed.

    `package`: the program compiled for this machine (backends/aoti.py). `converted`: files of
    another library's by name, which hold it in that library's form. Raises ArtifactError
    where the disk refuses; what is at `folder` stays as it is.
    """
    folder = absolute(folder)
    with ExitStack() as open_until_the_end:
        try:
            space = open_until_the_end.enter_context(workspace(folder, parents=True))
            space.new.mkdir()
            facts = _written(space.new, program, edits, inputs, record, package, converted)
        except (OSError, SafetensorError) as error:
            raise unwritable(folder, error) from error
        staged = Staged(space, facts)
        staged.describe(record, runtime, recipe_yaml)
        yield staged


def save(
    folder: Path, *, record: Record, recipe_yaml: str, runtime: str, reports: Mapping[str, str],
    force: bool, **written: Any,
) -> Path:  # fmt: skip
    """Stage and seal at once, nothing measured in between. Arguments as of both."""
    check_writable(folder, force)
    with stage(
        folder, record=record, runtime=runtime, recipe_yaml=recipe_yaml, **written
    ) as staged:
        staged.describe(record, runtime, recipe_yaml, reports)
        return staged.seal(force=force)


def write_program(path: Path, program: ExportedProgram) -> None:
    """Write a `.pt2`. Raises OSError where the disk refuses."""
    with archive(path) as file:
        torch.export.save(program, file)


def _written(
    folder: Path,
    program: ExportedProgram,
    edits: list[JsonObject],
    inputs: Inputs,
    record: Record,
    package: bytes | None,
    converted: Mapping[str, bytes] | None,
) -> JsonObject:
    weights = _write_weights(folder / WEIGHTS, program)
    write_program(folder / PROGRAM, program)
    hashes: JsonObject = {"weights_sha256": weights, "program_sha256": sha256(folder / PROGRAM)}
    if package is not None:
        (folder / PACKAGE).write_bytes(package)
        hashes["package_sha256"] = sha256(folder / PACKAGE)
    for name, content in (converted or {}).items():
        (folder / name).write_bytes(content)
    if converted:
        digests = {name: sha256(folder / name) for name in converted}
        hashes["converted_sha256"] = digests
    specs = specs_of(inputs)
    first, second = sample(program, specs)
    others: JsonObject = {}
    if inputs.varies:
        others = size_samples(program.module(check_guards=False), specs, SAMPLE_SEED)
    hashes |= write_graph(folder, program)
    return {
        "format_version": FORMAT_VERSION,
        "source_sha256": record.source_sha256,
        **hashes,
        "inputs": specs,
        "edits": edits,
        "sample": {"seed": SAMPLE_SEED, "outputs": first, "again": second, **others},
        "environment": {
            "modelspeed": record.version,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    }


def _write_weights(path: Path, program: ExportedProgram) -> str:
    tensors: dict[str, Tensor] = {}
    for name, tensor in {**program.state_dict, **program.constants}.items():
        if isinstance(tensor, Tensor):
            # A clone each: safetensors refuses tensors that share memory.
            tensors[outside(name)] = tensor.detach().cpu().contiguous().clone()
    save_file(tensors, path)
    return sha256(path)


def write_graph(folder: Path, program: ExportedProgram) -> JsonObject:
    """The program as a graph that loads quickly; it is read back and compared before it counts."""
    module = module_of(program)
    try:
        text = graph_text(module)
        again = read_graph(text, load_safetensors(folder / WEIGHTS))
        if not same_graph(module, again):
            raise Unstorable("tensors that are computed when it is loaded")
    except ValueError as error:
        return {"graph_left_out": first_line(error)}
    (folder / GRAPH).write_text(text, encoding="utf-8")
    return {"graph_sha256": sha256(folder / GRAPH)}
