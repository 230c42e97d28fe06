"""The parts of a `.pt2`: inspected, cleaned and repacked before torch reads them.

`torch.export.load` unpickles parts of an archive without an allow-list, finds parts by names of
any case and evaluates texts in its JSON. It is given what was checked here and nothing else, so
that it does not matter where its readers and ours differ.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import IO

import torch

from ..core.errors import CheckpointError
from ..core.json_values import JsonObject
from .pickles import imports_of_part, refuse
from .program_text import Texts
from .tensors import check_layout, tensors_in, unfit

# What torch before 2.8 wrote, without a folder around it. All but the graph is unpickled.
OLD = "serialized_exported_program.json"
OLD_PARTS = re.compile(
    rf"version|{re.escape(OLD)}|serialized_(?:state_dict|constants)\.(?:pt|json)|"
    r"serialized_example_inputs\.pt"
)
# `torch.export.load` gives back the program called `model`.
PARTS = re.compile(
    r"archive_format|archive_version|version|byteorder|"
    r"\.data/(?:version|serialization_id)|\.format_version|\.storage_alignment|"
    r"models/model\.json|data/weights/(?:model\.pt|model_weights_config\.json|weight_\d+)|"
    r"data/constants/(?:model\.pt|model_constants_config\.json|tensor_\d+)|"
    r"data/sample_inputs/model\.pt"
)
CONFIGS = {
    "data/weights/model_weights_config.json", "data/constants/model_constants_config.json",
}  # fmt: skip
BESIDE = re.compile(r"extra/.*|extra_files/.*")  # texts for people; torch does not need them


def checked(path: Path) -> IO[bytes]:
    """The archive at `path` as one in memory that runs nothing when torch loads it.

    Raises UnsafePickle naming what of it would run, CheckpointError for operators that are not
    registered here, ValueError where its JSON is none, or says what its parts do not hold.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w") as out:
        names, strange = _named(archive.namelist())
        refuse(path, strange)
        texts, root = Texts(), _root(names)
        for part, name in names.items():
            if part.endswith(".json") and not _unpickled(part, set()):
                before = len(texts.payloads)
                out.writestr(root + part, texts.cleaned(archive.read(name), part in CONFIGS))
                for payload in texts.payloads[before:]:
                    _check_payload(payload, part, names, archive)
        refuse(path, texts.refused)
        if texts.unknown:
            raise CheckpointError(
                f"`{path}` calls `{texts.unknown[0][:120]}`, which no operator of this torch is; "
                "import the library that registers it first (`--import MODULE`)."
            )
        for part, name in names.items():
            if not part.endswith(".json") or _unpickled(part, set()):
                content = archive.read(name)
                if _unpickled(part, texts.pickled):
                    content = _pickled(path, content)
                out.writestr(root + part, content)
    packed.seek(0)
    return packed


def _check_payload(
    payload: JsonObject, part: str, names: dict[str, str], archive: zipfile.ZipFile
) -> None:
    """Is what is said about a weight what its part of the archive holds?"""
    name = part.rpartition("/")[0] + "/" + str(payload.get("path_name"))
    if name not in names:
        raise ValueError(f"`{name}` is not in it")
    if not payload.get("use_pickle"):
        check_layout(payload.get("tensor_meta") or {}, archive.getinfo(names[name]).file_size)


def _pickled(path: Path, content: bytes) -> bytes:
    """A pickle of the same: torch reads what was written here, not what a stranger wrote."""
    refuse(path, imports_of_part(content))
    if not content:
        return content
    objects = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    for tensor in tensors_in(objects):
        if reason := unfit(tensor):
            raise ValueError(f"a tensor of it {reason}")
    packed = io.BytesIO()
    torch.save(objects, packed)
    return packed.getvalue()


def _named(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """The parts by their name inside the archive, and names that are none of torch's."""
    old = OLD in names
    pattern = OLD_PARTS if old else PARTS
    parts: dict[str, str] = {}
    strange: list[str] = []
    for name in names:
        part = name if old else name.partition("/")[2]
        if BESIDE.fullmatch(part) or name.endswith("/"):
            continue
        if not pattern.fullmatch(part):
            strange.append(f"{name} (none of the parts of a plain program)")
        elif part in parts:
            # Which one torch would take is not ours to say.
            strange.append("parts of the same name")
        parts[part] = name
    return parts, strange


def _root(names: dict[str, str]) -> str:
    return "" if OLD in names else "model/"


def _unpickled(part: str, pickled: set[str]) -> bool:
    """Does torch unpickle this part? `pickled`: those of which the archive's JSON says so."""
    old = part.startswith("serialized_") and part != OLD
    return old or part.endswith(".pt") or part.rpartition("/")[2] in pickled
