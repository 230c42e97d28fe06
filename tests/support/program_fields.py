"""Real programs of pico nets, each field of whose JSON is replaced by what could become code."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import signal
import warnings
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from modelspeed.checkpoints.read import Source, read
from modelspeed.core.errors import CheckpointError
from torch import nn

JSON = ("models/model.json", "data/weights/model_weights_config.json",
        "data/constants/model_constants_config.json")  # fmt: skip
Pair = namedtuple("Pair", "a b")
SECONDS = 10  # for one call of a program that was read
BATCH = torch.export.Dim("batch", min=1, max=64)
VMAP = torch.__version__ >= "2.13"  # before, torch can't save a graph with it


class Flow(nn.Module):
    """Switches, branches, sizes, keywords, buffers, constants, names that are not Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"conv 1x1": nn.Conv1d(3, 3, 1), "a/b": nn.Linear(4, 4)})
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> dict[str, Any]:
        x = torch.cond(mask.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (x,))
        with torch.no_grad():
            y = self.layers["conv 1x1"](x)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.layers["a/b"](y)
        y = (torch.vmap(lambda t: t * 2)(y) if VMAP else y * 2) + torch.tensor([1.0])
        return {"a (b)": y.reshape(x.shape[0] * 3, -1) * self.scale, "size": x.shape[0] // 2}


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, ids: Any, mode: str, top: int) -> Any:
        x = self.norm(self.table(ids["ids"][0]).mean(1))
        return [x.topk(top).values, nn.functional.pad(x, (1, 1), mode="constant")], len(mode)


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.SiLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.interpolate(self.body(x), scale_factor=2.0, mode="bilinear")
        return y.permute(0, 2, 3, 1).to(torch.float64).flatten(1)[:, : x.shape[2] - 1]


def programs(folder: Path) -> list[Path]:
    """Written to `folder`, one for each net."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    ids = {"ids": [torch.zeros(2, 3, dtype=torch.int64)]}
    height = torch.export.Dim("height", min=4, max=32)
    made = {
        "linear": (linear, (torch.ones(2, 3),), {}, ({0: BATCH},)),
        "flow": (Flow(), (torch.ones(2, 3, 4),), {"mask": torch.ones(2)},
                 {"x": {0: BATCH}, "mask": None}),
        "nested": (Nested(), (ids, "a b", 2), {}, None),
        "picture": (Picture(), (torch.ones(1, 3, 8, 8),), {}, ({2: height},)),
    }  # fmt: skip
    paths = []
    for name, (net, args, kwargs, shapes) in made.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(net.eval(), args, kwargs, dynamic_shapes=shapes)
            paths.append(folder / f"{name}.pt2")
            torch.export.save(program, paths[-1])
    return paths


def payloads(marker: Path) -> list[Any]:
    """What each field is replaced by. Those that are code leave `marker` behind."""
    code = f"open({str(marker)!r}, 'w')"
    letters = ", ".join(map(str, code.encode()))
    bare = (
        f"A.B[A.C[[{letters}]]] for A.B.__class_getitem__ in [exec] "
        "for A.C.__class_getitem__ in [bytes]"
    )
    bare = bare.replace("A.B", "torch.nn.Identity").replace("A.C", "torch.nn.Flatten")
    return [
        # Brackets, names and numbers alone, as annotation, statement, argument, target, comment.
        f"*z: [{bare}]", f"z: [{bare}]", f"[{bare}]; z", f"*[{bare}], z", f"z[{bare}]",
        f"z, *[{bare}]", f"z.y: [{bare}]; z", f"[{bare}]", f"z; [{bare}]; z", f"z[0]: [{bare}]; z",
        # Calls, defaults, ends of texts and of lines.
        code, f"z={code}", f"z; {code}; z", f"z\n    {code}\n    z", f"z\r{code}", f"z\f{code}",
        f"'+{code}+'", f'"+{code}+"', f"'{code}'", f"z') or {code} or ('", f'z") or {code} or ("',
        f"']={code};z['", f"z'] or {code} or L['z", f"z #\n{code}", f"(lambda: {code})()",
        f"{{{code}}}", f"z if {code} else z", f"z:={code}", f"@{code}", f"\\\n{code}",
        # What imports, calls or is looked up by name.
        json.dumps([{"__enum__": 1, "fqn": "antigravity:A", "name": "B"}]),
        json.dumps([1, {"type": "builtins.dict", "context": json.dumps([f"z={code}"]),
                        "children_spec": [{"type": None, "context": None, "children_spec": []}]}]),
        json.dumps([1, {"type": "collections.defaultdict", "children_spec": [], "context": {
            "default_factory_module": "os", "default_factory_name": "abort",
            "dict_context": []}}]),
        "_operator.methodcaller", "_operator.call", "torch.ops.load_library",
        "torch.ops.aten.from_file.default", "torch.ops.inductor._reinterpret_tensor.default",
        "torch._dynamo.config.patch", "torch.load", "torch.hub.load", "math.__loader__.load_module",
        "#triton:x", "torch.ops.higher_order.triton_kernel_wrapper_functional",
        "builtins.exec", "os:system", "../../../etc/passwd", "/etc/passwd", "a/../../b",
        # Words of Python's, of the generated source, and letters that Python reads as others.
        "class", "None", "import", "lambda", "from", "True", "self", "torch", "__class__",
        "__builtins__", "__dict__", "forward", "code", "graph", "\uff45xec", "\u017felf", "\u00b5",
        "\u202ez", "z\u0000", "\ud800", "na\u00efve", "", " ", ".", "a..b", "*", "**", "*args",
        # What takes for ever to evaluate, to match or to hold.
        "9**9**9**9", "Pow(9,Pow(9,Pow(9,9)))", "1" * 40 + "x", "1" * 6000, "(" * 3000,
        "-" * 3000 + "1", "[" * 100_000, "a" * 200_000, "a." * 3000, "s999999999999",
        "Float('1', precision=999999999)", "1e999999999", "+".join(f"s{i}" for i in range(3000)),
        "*".join(f"(s0+s{i})" for i in range(40)),
        "Max(" + ",".join(f"s{i}" for i in range(300)) + ")",
        "Symbol('s0').func", "Symbol('x', commutative=False)", "factorial(10**9)", "10**10!",
        # Numbers and other kinds.
        0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400, 1.5, 1e308, float("nan"),
        float("inf"), True, False, None, [], {}, [[]], ["z"], {"z": "z"}, [1] * 100_000,
    ]  # fmt: skip


def places(held: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each text, number and key of a JSON; keys end in `KEY`."""
    if isinstance(held, dict):
        for key, value in held.items():
            yield (*path, key, KEY)
            yield from places(value, (*path, key))
    elif isinstance(held, list):
        yield path
        for at, value in enumerate(held):
            yield from places(value, (*path, at))
    else:
        yield path


KEY = object()


def replaced(held: Any, path: tuple[Any, ...], new: Any) -> Any:
    held = copy.deepcopy(held)
    renames = path[-1] is KEY
    *way, last = path[:-1] if renames else path
    inner = held
    for step in way:
        inner = inner[step]
    if renames:
        content = inner.pop(last)
        inner[new if isinstance(new, str) else json.dumps(new)] = content
    elif isinstance(inner[last], list) and isinstance(new, str):
        inner[last] = [*inner[last], new]  # one more of what is there, such as a surplus name
    else:
        inner[last] = new
    return held


class Fields:
    """Of some programs: every field, and files with one of them replaced."""

    def __init__(self, originals: list[Path], marker: Path) -> None:
        self.marker = marker
        self.payloads = payloads(marker)
        for path in originals:  # what torch imports for it is then there in each child
            torch.export.load(path).module()
        self.parts = [_parts(path) for path in originals]
        self.places = [(at, name, place) for at, parts in enumerate(self.parts) for name in JSON
                       for place in places(json.loads(parts[name])) if place]  # fmt: skip
        # By kind of field, so that the thousands of sizes do not hide the few specs; keys apart.
        self.kinds: tuple[dict[Any, list[Any]], ...] = ({}, {})
        for place in self.places:
            kind = (place[1], *_kind(place[2]))
            self.kinds[place[2][-1] is KEY].setdefault(kind, []).append(place)

    def written(self, seed: int, path: Path) -> str:
        """File number `seed`, written to `path`, and what it is."""
        rng = random.Random(seed)
        keys = rng.random() < 0.1
        kinds = self.kinds[keys]
        at, name, place = rng.choice(kinds[rng.choice(list(kinds))])
        new = rng.choice(self.payloads)
        parts = dict(self.parts[at])
        parts[name] = json.dumps(replaced(json.loads(parts[name]), place, new)).encode()
        path.write_bytes(_archive(parts))
        shown = [step if step is not KEY else "(key)" for step in place]
        return f"{name} {shown} = {str(new)[:60]!r}"

    def outcome(self, path: Path) -> str:
        """`read`, `refused`, or what must not be."""
        said = _outcome(path)
        for held in (nn.Identity, nn.Flatten, nn.Module):
            if "__class_getitem__" in vars(held):
                del held.__class_getitem__
                said = "code ran"
        return "code ran" if self.marker.exists() else said


def _outcome(path: Path) -> str:
    try:
        source = read(path)
    except CheckpointError as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"lines: {error}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    # What is read must not run anything else either: with guards, and when it is called. In a
    # child: a switch that fails half-way, such as autocast or vmap, stays switched.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child starts none
        child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        os._exit(_called(source))
    status = os.waitpid(child, 0)[1]
    return "read" if status == 0 else "read, does not run"


def _called(source: Source) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # torch prints where a call failed
    try:
        assert source.program is not None and source.program.example_inputs is not None
        source.program.module()
        args, kwargs = source.program.example_inputs
        source.module(*args, **kwargs)
    except BaseException:
        return 1
    return 0


def _kind(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """Names of fields alone: neither numbers nor names that the model chose."""
    kept = [step for step in place if not isinstance(step, int)]
    free = ("tensor_values", "sym_int_values", "range_constraints", "config", "sym_bool_values")
    return tuple("*" if i and kept[i - 1] in free and step is not KEY else step
                 for i, step in enumerate(kept))  # fmt: skip


def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as old:
        return {n.partition("/")[2]: old.read(n) for n in old.namelist()}


def _archive(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, content in parts.items():
            new.writestr(f"m/{name}", content)
    return out.getvalue()
