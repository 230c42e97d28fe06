"""A run's findings, written down stage by stage, so that `--resume` goes on after a kill.

An entry is a safetensors file: arrays as tensors, all other facts as JSON in its metadata. Its
digest covers the entry before it, so it holds only on top of exactly what it was made from: a
damaged or foreign entry ends the journal there. Only the work that a user waits for is in it; the
final verdict is always measured again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..backends.registry import library_versions
from ..configs.load import dump_recipe
from ..configs.recipe import METRICS, Recipe
from ..configs.references import DATA, FILE, MODELS, parse_reference
from ..core.cache import cache_folder
from ..core.errors import ArtifactError
from ..core.files import write_whole
from ..core.progress import Progress, Silent
from ..core.records_json import from_json, to_json
from .job import Job

T = TypeVar("T")
TENSOR, ARRAY = "__tensor__", "__array__"
KEPT_DAYS = 14  # journals of runs that nobody went on with


@dataclass(frozen=True)
class Entry:
    """`facts` and `tensors` of a stage. `seconds`: what the run had taken by then."""

    stage: str
    seconds: float
    facts: str
    after: str
    tensors: dict[str, Tensor]

    @cached_property
    def digest(self) -> str:
        head = json.dumps([self.after, self.stage, self.seconds, self.facts])
        return hashlib.sha256(head.encode() + save(self.tensors)).hexdigest()

    def bytes(self) -> bytes:
        notes = {"stage": self.stage, "seconds": repr(self.seconds), "facts": self.facts}
        return save(self.tensors, {**notes, "after": self.after, "digest": self.digest})

    @classmethod
    def read(cls, path: Path, after: str) -> Entry | None:
        """The entry in a file, None where it is damaged or does not follow `after`."""
        try:
            with safe_open(path, framework="pt") as file:
                notes = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            seconds = float(notes["seconds"])
            entry = cls(notes["stage"], seconds, notes["facts"], notes["after"], tensors)
        except (SafetensorError, OSError, KeyError, ValueError):
            return None
        return entry if entry.after == after and entry.digest == notes.get("digest") else None


@dataclass
class Journal:
    """Entries in the order of the run: `get` takes the next one, `put` adds one.

    Without a folder nothing is kept. `head` is the digest of the last entry taken or added.
    """

    folder: Path | None = None
    progress: Progress = field(default_factory=Silent)
    head: str = ""
    left: list[Path] = field(default_factory=list)
    count: int = 0
    before: float = 0.0
    started: float = field(default_factory=time.monotonic)
    writable: bool = True

    @classmethod
    def open(cls, key: str, resume: bool, progress: Progress) -> Journal:
        """The journal of the run that `key` stands for; an earlier one goes on if `resume`."""
        runs = cache_folder() / "runs"
        _forget_old(runs)
        journal = cls(runs / key, progress, head=key)
        if resume:
            journal._recall()
        elif journal._files():
            progress.note("this run was begun before: `--resume` would have gone on from there")
            journal.remove()
        return journal

    @property
    def seconds(self) -> float:
        """Time this run has taken, what was interrupted before included."""
        return self.before + time.monotonic() - self.started

    def kept(self, stage: str, kind: type[T], make: Callable[[], T]) -> T:
        """The journal's entry for a stage; without one, it is made and written down."""
        value = self.get(stage, kind)
        if value is None:
            value = make()
            self.put(stage, value)
        return value

    def get(self, stage: str, kind: type[T]) -> T | None:
        """The next entry, if it is of that stage."""
        entry = Entry.read(self.left[0], self.head) if self.left else None
        if entry is None or entry.stage != stage:
            return None
        try:
            value = from_json(kind, _unpacked(entry), stage)
        except ArtifactError as error:  # of a modelspeed that calls itself the same version
            self.progress.note(f"an entry of the journal does not fit: {error}")
            return None
        self.left.pop(0)
        self.head, self.count = entry.digest, self.count + 1
        return value

    def mark(self, stage: str, value: object) -> None:
        """Later entries belong to `value`: those that follow another one are dropped."""
        left, head, count = list(self.left), self.head, self.count
        if self.get(stage, type(value)) != value:
            self.left, self.head, self.count = left, head, count
            self.put(stage, value)

    def put(self, stage: str, value: Any) -> None:
        """Write an entry, complete or not at all; what was to follow otherwise is dropped."""
        if self.folder is None or not self.writable:
            return
        facts, tensors = _packed(value)
        entry = Entry(stage, round(self.seconds, 3), facts, self.head, tensors)
        path = self.folder / f"{self.count + 1:03}-{stage}.safetensors"
        try:
            for stale in self._files()[self.count :]:
                stale.unlink()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, entry.bytes())
        except OSError as error:
            self.progress.note(f"the journal can't be written ({error.strerror}): no more is kept")
            self.writable = False
        self.left, self.head, self.count = [], entry.digest, self.count + 1

    def remove(self) -> None:
        """Delete the journal: the run is done, or starts over."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors")) if self.folder else []

    def _recall(self) -> None:
        """Find the entries that follow one another from the first on, and say which."""
        head, stages = self.head, Counter[str]()
        for path in self._files():
            entry = Entry.read(path, head)
            if entry is None:
                self.progress.note(f"`{path}` is damaged: that stage and those after it run again")
                break
            self.left.append(path)
            stages[entry.stage] += 1
            head, self.before = entry.digest, entry.seconds
        names = [s if n == 1 else f"{n} x {s}" for s, n in stages.items()]
        note = f"taken from the journal: {', '.join(names)}"
        self.progress.note(note if names else "no journal of this run was found: it starts over")


def key_of(kind: str, job: Job, recipe: Recipe, sha256: str, fingerprint: str) -> str:
    """20 hex digits that change with anything that a journalled result depends on."""
    texts = [
        kind, sha256, fingerprint, version("modelspeed"), torch.__version__, dump_recipe(recipe),
        *library_versions(),
        *(json.dumps(to_json(v), sort_keys=True) for v in (job.target, job.args, job.inputs)),
        str(job.seed), *(f"without {one.place}: {one.reason}" for one in recipe.left_out),
        *((json.dumps(job.imports),) if job.imports else ()),
    ]  # fmt: skip
    named = [(job.factory, job.base)]
    if recipe.data is not None:
        metric = recipe.data.metric if recipe.data.metric not in METRICS else None
        named += [(recipe.data.factory, str(recipe.base)), (metric, str(recipe.base))]
    digest = hashlib.sha256(json.dumps([texts, [factory for factory, _ in named]]).encode())
    for factory, base in named:
        if factory is not None:
            for line in state_of(factory, Path(base)):
                digest.update(hashlib.sha256(line).digest())
    return digest.hexdigest()[:20]


def state_of(factory: str, base: Path) -> Iterator[bytes]:
    """All that a factory's result depends on: its code; for data, names, sizes and times."""
    reference = parse_reference(factory, MODELS | DATA)
    path = reference.path(base) if reference else None
    if reference is None or path is None:
        return
    if reference.kind == FILE:
        yield path.read_bytes()
        return
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        status = file.stat()
        yield f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}".encode()


def _packed(value: Any) -> tuple[str, dict[str, Tensor]]:
    """A dataclass as JSON, with its tensors and arrays apart."""
    tensors: dict[str, Tensor] = {}

    def lifted(array: Any) -> dict[str, str]:
        if not isinstance(array, (Tensor, np.ndarray)):
            raise TypeError(f"a journal holds no {type(array).__name__}")
        name = str(len(tensors))
        # A copy each: safetensors refuses tensors that share memory.
        if isinstance(array, np.ndarray):
            tensors[name] = torch.from_numpy(np.array(array))
            return {ARRAY: name}
        tensors[name] = array.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {TENSOR: name}

    return json.dumps(to_json(value), default=lifted), tensors


def _unpacked(entry: Entry) -> Any:
    def lowered(table: dict[str, Any]) -> Any:
        if TENSOR in table:
            return entry.tensors[table[TENSOR]]
        return entry.tensors[table[ARRAY]].numpy() if ARRAY in table else table

    return json.loads(entry.facts, object_hook=lowered)


def _forget_old(runs: Path) -> None:
    limit = time.time() - KEPT_DAYS * 86400
    with suppress(OSError):
        for folder in runs.iterdir():
            if folder.stat().st_mtime < limit:
                shutil.rmtree(folder, ignore_errors=True)
