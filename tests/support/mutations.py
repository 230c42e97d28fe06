"""Damaged and hostile versions of small real files, and what reading them does."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modelspeed.checkpoints import artifact, staging
from modelspeed.checkpoints.read import read
from modelspeed.configs.load import load_recipe
from modelspeed.configs.recipe import DataSpec
from modelspeed.core.errors import ModelspeedError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Machine, Record, Target
from modelspeed.data.arrays import array_loaders
from modelspeed.runtime.load import load
from safetensors.torch import save_file
from torch import nn

RECORD = Record(
    "tune", "now", "0", "m.pt", "0" * 64, Machine("c", 1, 1, "cpu", "float32", "2", "3", "l"),
    Target(), "none", "", Latency(50, 1, 1, 1),
)  # fmt: skip
RECIPE = """version: 1
model: {factory: "model.py:build", args: {width: 8}}
inputs: [{shape: [1, 3], dtype: float32, name: x}]
data: {factory: "folder:images", images: {size: 8, mean: [0.5], std: [0.5]}}
target: {ms: 5.0, percentile: 50}
adjust:
  - prune: {max_ratio: 0.8, match: {"stem.*": skip}}
  - fold_batchnorm
"""
WATCHED = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
)


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def _program() -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(build(), (torch.ones(2, 3),), dynamic_shapes=({0: batch},))


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo ran > ran",)


def originals(folder: Path) -> dict[str, tuple[Path, str]]:
    """By kind: the file or folder that is read, and the file of it that is damaged."""
    folder.mkdir(parents=True)
    weights = build().state_dict()
    torch.save(weights, folder / "zip.pt")
    torch.save(weights, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {f"model.{k}": v for k, v in weights.items()}, "epoch": 3,
                "pytorch-lightning_version": "2", "hyper_parameters": {"width": 8}},
               folder / "light.ckpt")  # fmt: skip
    torch.save({"w": weights, "x": Runs()}, folder / "hostile.pt")
    save_file(weights, folder / "s.safetensors")
    torch.export.save(_program(), folder / "p.pt2")
    (folder / "shards").mkdir()
    save_file(weights, folder / "shards" / "model-1.safetensors")
    names = dict.fromkeys(weights, "model-1.safetensors")
    index = "model.safetensors.index.json"
    (folder / "shards" / index).write_text(json.dumps({"weight_map": names}))
    (folder / "r.yaml").write_text(RECIPE)
    np.savez(folder / "a.npz", inputs=np.ones((6, 3)), targets=np.ones(6, dtype=np.int64))
    staging.save(
        folder / "fast", program=_program(), edits=[], record=RECORD, recipe_yaml="version: 1\n",
        inputs=Inputs((torch.ones(1, 3),)), runtime="plain", reports={}, force=False,
    )  # fmt: skip
    plain = ("zip.pt", "old.pt", "light.ckpt", "hostile.pt", "s.safetensors", "p.pt2")
    found = {n: (folder / n, n) for n in (*plain, "r.yaml", "a.npz")}
    found["index"] = (folder / "shards", index)
    for n in ("modelspeed.json", "model.safetensors", "model.pt2"):
        found[f"fast/{n}"] = (folder / "fast", n)
    return found


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _splice(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    at = rng.randrange(len(data))
    return data[:at] + data[a:b][:4096] + data[at + rng.choice((0, b - a)) :]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice((1, 8, 64))
    return data[:at] + rng.choice((b"\0", b"\xff")) * count + data[at + count :]


def _head(data: bytes, rng: random.Random) -> bytes:
    """Another length where a header's length may stand."""
    number = rng.choice((0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1, len(data)))
    return number.to_bytes(8, "little") + data[8:]


def _numbers(data: bytes, rng: random.Random) -> bytes:
    """A number of a text replaced by an absurd one."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not found:
        return _flip(data, rng)
    spot = rng.choice(found)
    new = rng.choice(
        (b"-1", b"0", b"99999999999", b"1e999", b"NaN", b'"x"', b"null", b"[]", b"1.5")
    )
    return data[: spot.start()] + new + data[spot.end() :]


def _words(data: bytes, rng: random.Random) -> bytes:
    """A quoted word replaced by a path trick, a control character, an odd script."""
    found = list(re.finditer(rb'"[^"\n]{1,60}"', data)) or list(re.finditer(rb"\w{3,}", data))
    if not found:
        return _flip(data, rng)
    spot = rng.choice(found)
    odd = ("../../../etc/passwd", "/etc/passwd", "\u202e\u0000x", "名前", "x" * 5000, "",
           "__import__('os').system('echo ran > ran')",
           "!!python/object/apply:os.system ['x']")  # fmt: skip
    return data[: spot.start()] + json.dumps(rng.choice(odd)).encode() + data[spot.end() :]


def _members(data: bytes, rng: random.Random) -> bytes:
    """The archive with a part renamed, doubled, left out, replaced or blown up."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            parts = [(n, old.read(n)) for n in old.namelist()]
    except zipfile.BadZipFile:
        return _flip(data, rng)
    at = rng.randrange(len(parts))
    name, content = parts[at]
    evil = pickle.dumps(Runs(), protocol=2)
    change = rng.choice(("rename", "double", "drop", "evil", "bomb", "damage"))
    if change == "rename":
        parts[at] = (rng.choice(("../../up", "/abs", "a/../b", "\u202e", name.upper())), content)
    elif change == "drop":
        del parts[at]
    elif change == "double":
        parts.append((name, rng.choice((content, evil))))
    else:
        new = {"evil": evil, "bomb": bytes(30 << 20), "damage": _any(content or b"x", rng)}
        parts[at] = (name, new[change])
    out = io.BytesIO()
    pack = zipfile.ZIP_DEFLATED if change == "bomb" else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", pack) as archive:
        for part, held in parts:
            archive.writestr(zipfile.ZipInfo(part), held, compress_type=pack)
    return out.getvalue()


def _any(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((_cut, _flip, _splice, _zeros, _head, _numbers, _words))(data, rng)


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut, "flip": _flip, "splice": _splice, "zeros": _zeros, "head": _head,
    "numbers": _numbers, "words": _words, "members": _members,
}  # fmt: skip


def outcome(kind: str, where: tuple[Path, str], mutation: str, seed: int) -> str:
    """Damage the file in place, read what it belongs to, put it back.

    `read`, `refused: <error>`, or what must not be: `traceback: ...`, `code ran`, `leftover`,
    `no sentence: ...`.
    """
    path, name = where
    file = path / name if path.is_dir() else path
    before, names = file.read_bytes(), sorted(path.parent.rglob("*"))
    rng = random.Random(f"{kind} {mutation} {seed}")
    file.write_bytes(MUTATIONS[mutation](before, rng))
    _ran.clear()
    try:
        with _watching():
            found = _read(kind, path)
    finally:
        file.write_bytes(before)
    if _ran or Path("ran").exists():
        return f"code ran: {_ran}"
    return found if sorted(path.parent.rglob("*")) == names else "leftover"


def _read(kind: str, path: Path) -> str:
    try:
        if kind == "r.yaml":
            load_recipe(path)
        elif kind == "a.npz":
            list(array_loaders(DataSpec(factory="arrays:a.npz"), path)[0])
        elif kind.startswith("fast/"):
            artifact.read_artifact(path, verify=True)
            load(path, model=build())
        else:
            read(path, factory=build)
    except ModelspeedError as error:
        lines = str(error).splitlines()
        table = len(lines) > 1 and "does not fit the model" in lines[0]
        told = lines and all(lines) and (len(lines) == 1 or table or kind == "r.yaml")
        return f"refused: {type(error).__name__}" if told else f"no sentence: {str(error)[:200]!r}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:120]}"
    return "read"


_ran: list[str] = []
_state = {"hooked": False, "on": False}


def _note(event: str, _args: Any) -> None:
    if _state["on"] and event in WATCHED:
        _ran.append(event)


@contextmanager
def _watching() -> Iterator[None]:
    """Inside, starting a process or connecting counts as code that ran. Hooks can't be removed."""
    if not _state["hooked"]:
        sys.addaudithook(_note)
    _state.update(hooked=True, on=True)
    try:
        yield
    finally:
        _state["on"] = False
