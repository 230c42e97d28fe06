"""Folders as Hugging Face writes them: `config.json` and weights, opened without the network."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import CheckpointError, UnsafePickle
from .damage import first_line
from .detect import INDEX
from .extras import extra
from .pickles import load_inert

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", f"model{INDEX}", "pytorch_model.bin")


def is_transformers(folder: Path) -> bool:
    """Does its `config.json` name a model of transformers, not of another library?"""
    found = _config(folder) if (folder / CONFIG).is_file() else {}
    return "model_type" in found or "architectures" in found


def weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def files_of(folder: Path) -> list[Path]:
    """All weight files of the folder, in order."""
    return sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json"))


def build_pretrained(folder: Path, **changes: Any) -> nn.Module:
    """The model that `config.json` describes, with random weights; `changes` are settings of it."""
    config, model_class = _described(folder, changes)
    try:
        made: nn.Module = (
            model_class(config) if hasattr(model_class, "forward")
            else model_class.from_config(config)
        )  # fmt: skip
    except Exception as error:
        raise CheckpointError(f"`{folder / CONFIG}` can't be built: {first_line(error)}") from error
    return made.eval()


def load_pretrained(folder: Path) -> nn.Module:
    """The model with its weights, in float32. Raises CheckpointError where they do not fit."""
    file = weights_in(folder)
    if file is None:
        raise CheckpointError(
            f"`{folder}` has a `{CONFIG}`, but no weights: none of {', '.join(WEIGHTS)}."
        )
    if file.suffix == ".bin":
        load_inert(file)  # raises where it would run code
    config, model_class = _described(folder, {})
    try:
        made, facts = model_class.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False,
            dtype=torch.float32, output_loading_info=True,
            use_safetensors=file.suffix != ".bin",
        )  # fmt: skip
    except UnsafePickle:
        raise
    except Exception as error:
        raise CheckpointError(f"`{folder}` can't be loaded: {first_line(error)}") from error
    wrong = [*facts.get("missing_keys", ()), *facts.get("mismatched_keys", ())]
    if wrong:
        names = ", ".join(f"`{n}`" for n in sorted(map(str, wrong))[:3])
        raise CheckpointError(
            f"`{folder}`: {len(wrong)} weights of `{type(made).__name__}` are missing or of "
            f"another shape ({names}); likely `architectures` in `{CONFIG}` is another model's."
        )
    return made.eval()  # type: ignore[no-any-return]


def inputs_of(folder: Path) -> list[dict[str, Any]]:
    """What the model takes as far as `config.json` says; empty where it does not."""
    found = _config(folder)
    image, channels = found.get("image_size"), found.get("num_channels", 3)
    words, longest = found.get("vocab_size"), found.get("max_position_embeddings", 128)
    frames = found.get("num_frames")
    numbers = (image, channels, words, longest, frames)
    if any(n is not None and type(n) is not int and not isinstance(n, list) for n in numbers):
        return []
    if type(image) is int and type(channels) is int:
        shape = [1, *([frames] if isinstance(frames, int) else []), channels, image, image]
        return [{"shape": shape, "dtype": "float32", "name": "pixel_values"}]
    if isinstance(words, int) and isinstance(longest, int) and not found.get("is_encoder_decoder"):
        shape = [1, min(128, longest)]
        return [{"shape": shape, "dtype": "int64", "name": "input_ids", "range": [0, words - 1]}]
    return []


def _described(folder: Path, changes: dict[str, Any]) -> tuple[Any, Any]:
    """Configuration and class, without code of the folder's."""
    found = _config(folder)
    if "auto_map" in found and found.get("model_type") is None:
        raise UnsafePickle(f"`{folder}` brings its own code (`auto_map`), which is not run.")
    transformers = extra("transformers", f"transformers:{folder}")
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **changes
        )
    except Exception as error:
        raise CheckpointError(f"`{folder / CONFIG}` can't be read: {first_line(error)}") from error
    if hasattr(config, "use_cache"):
        config.use_cache = False  # a cache is an output of its own, and one call has no use for it
    listed = found.get("architectures") or []
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise CheckpointError(
            f"`{folder / CONFIG}`: `architectures` is {str(listed)[:40]}; it must be "
            "a list of names."
        )
    named = next(iter(listed), "")
    known = str(named).isidentifier() and hasattr(transformers, str(named))
    return config, getattr(transformers, str(named)) if known else transformers.AutoModel


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"`{path}` can't be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"`{path}` is no configuration: it holds no JSON object.")
    return found
