"""Folders as Hugging Face writes them: `config.json` and weights, opened without the network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.errors import CheckpointError, UnsafePickle
from .damage import first_line
from .detect import INDEX
from .extras import extra
from .loading_facts import headless, notes_on_loading
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


def load_pretrained(folder: Path, ignore: Sequence[str] = ()) -> tuple[nn.Module, list[str]]:
    """The model with its weights, in float32, and what was left out of them.

    `ignore`: regular expressions of names that the model need not take. Raises CheckpointError
    where the weights do not fit.
    """
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
            use_safetensors=file.suffix != ".bin", ignore_mismatched_sizes=True,
        )  # fmt: skip
    except UnsafePickle:
        raise
    except Exception as error:
        raise CheckpointError(f"`{folder}` can't be loaded: {first_line(error)}") from error
    notes = notes_on_loading(folder / CONFIG, made, facts, ignore) + headless(made, file)
    return made.eval(), notes


def inputs_of(folder: Path) -> list[dict[str, Any]]:
    """What the model takes as far as `config.json` says; empty where it does not."""
    found = _config(folder)
    image, channels = found.get("image_size"), found.get("num_channels", 3)
    words, longest = found.get("vocab_size"), found.get("max_position_embeddings", 128)
    frames = found.get("num_frames")
    if isinstance(image, int):
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
    logging = importlib.import_module("transformers.utils.logging")
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it reports of a load is said in a sentence of ours
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **changes
        )
    except Exception as error:
        raise CheckpointError(f"`{folder / CONFIG}` can't be read: {first_line(error)}") from error
    if hasattr(config, "use_cache"):
        config.use_cache = False  # a cache is an output of its own, and one call has no use for it
    named = next(iter(found.get("architectures") or ()), "")
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
