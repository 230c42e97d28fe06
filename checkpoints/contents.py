"""The contents of a checkpoint, read without running what it carries and before any model is
built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..core.errors import CheckpointError, UnsafePickle, first_line
from ..core.files import sha256
from ..core.naming import with_names_inside
from .detect import detect
from .folders import files_of, is_transformers, load_pretrained, weights_in
from .pickles import load_inert
from .programs import load_program
from .shards import load_safetensors, load_shards, shards_of
from .weights import check_finite, state_dict_of
from .wrappings import Unwrapped, unwrap

Kind = Literal["pt2", "state_dict", "safetensors", "pickle", "folder", "torchscript"]


@dataclass(frozen=True)
class Contents:
    """One of `program`, `module` and `weights`. `about` is what lay around the weights."""

    path: Path
    kind: Kind
    sha256: str
    about: Unwrapped
    program: ExportedProgram | None = None
    module: nn.Module | None = None
    weights: dict[str, Tensor] | None = None


def contents(
    path: Path, *, trust_pickle: bool = False, build: bool = True, ignore: Sequence[str] = ()
) -> Contents:
    """Open `path`; the format is told from the content.

    `build`: a folder of transformers is built and loaded by that library. `ignore`: regular
    expressions of tensors' names that are left out. Raises CheckpointError in one sentence for
    anything unreadable, UnsafePickle where reading would run code and `trust_pickle` is not set.
    """
    if path.is_dir():
        return _folder(path, trust_pickle, build, ignore)
    kind = detect(path)
    if kind == "torchscript":
        raise CheckpointError(
            f"`{path}` is a TorchScript archive, which has no graph that could be changed; "
            "export the model it was made from with `torch.export.save`, or give its state dict "
            "and `--model FILE.py:factory`. `modelspeed profile` measures it as it is."
        )
    shards = sorted(set(shards_of(path).values())) if kind == "index" else ()
    digest = sha256(path, *(path.parent / name for name in shards))
    if kind == "pt2":
        program = _program(path, trust_pickle)
        check_finite(path, {**program.state_dict})
        return Contents(path, "pt2", digest, Unwrapped(None, notes=_whole(ignore)), program=program)
    if kind in ("safetensors", "index"):
        tensors = load_safetensors(path) if kind == "safetensors" else load_shards(path)
        weights, notes = state_dict_of(path, tensors, ignore)
        about = Unwrapped(tensors, notes=tuple(notes))
        return Contents(path, "safetensors", digest, about, weights=weights)
    about = unwrap(_torch_file(path, trust_pickle))
    module = about.content
    if isinstance(module, nn.Module):
        check_finite(path, module.state_dict())
        about = replace(about, notes=(*about.notes, *_whole(ignore)))
        return Contents(path, "pickle", digest, about, module=module.eval())
    weights, notes = state_dict_of(path, about.content, ignore)
    about = replace(about, notes=(*about.notes, *notes))
    return Contents(path, "state_dict", digest, about, weights=weights)


def _whole(ignore: Sequence[str]) -> tuple[str, ...]:
    """A stored module has no tensors but its own, so there is nothing to leave out."""
    return tuple(
        f"`--ignore {text}` has no effect: the file holds a whole model" for text in ignore
    )


def _folder(path: Path, trust_pickle: bool, build: bool, ignore: Sequence[str]) -> Contents:
    file = weights_in(path)
    if not is_transformers(path):
        if file is None:
            raise CheckpointError(
                f"`{path}` is a folder without `config.json` and weights of Hugging Face; name a "
                "checkpoint file in it."
            )
        return contents(file, trust_pickle=trust_pickle, ignore=ignore)
    if not build and file is not None:
        return contents(file, trust_pickle=trust_pickle, ignore=ignore)
    digest = sha256(*files_of(path))
    module, notes = load_pretrained(path, ignore)
    check_finite(path, module.state_dict())
    about = Unwrapped(None, notes=tuple(notes))
    return Contents(path, "folder", digest, about, module=module)


def _program(path: Path, trust_pickle: bool) -> ExportedProgram:
    try:
        return with_names_inside(load_program(path, trust_pickle))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"`{path}` can't be read as .pt2: {first_line(error)}") from error


def _torch_file(path: Path, trust_pickle: bool) -> object:
    try:
        if not trust_pickle:
            return load_inert(path)
        return torch.load(path, map_location="cpu", weights_only=False)
    except UnsafePickle:
        raise
    except (AttributeError, ImportError) as error:
        raise CheckpointError(
            f"`{path}` needs a class that can't be imported here: {first_line(error)}"
        ) from error
    except Exception as error:
        raise CheckpointError(f"`{path}` is truncated or damaged: {first_line(error)}") from error
