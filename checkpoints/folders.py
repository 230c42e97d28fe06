"""Folders as Hugging Face writes them: `config.json` and weights, opened without the network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from ..core.errors import CheckpointError, UnsafePickle, first_line
from ..core.extras import extra
from ..core.json_values import JsonObject
from .bounds import bounded, check_repeats, size_of_weights
from .detect import INDEX
from .loading_facts import headless, notes_on_loading
from .pickles import load_inert
from .places import check_inside, there

CONFIG = "config.json"
# Settings that may name code on the hub.
CODE = {"_attn_implementation", "attn_implementation", "experts_implementation"}
WEIGHTS = ("model.safetensors", f"model{INDEX}", "pytorch_model.bin")


class ModelClass(Protocol):
    """A class of transformers, or one that finds the class by the configuration."""

    def __call__(self, config: object) -> nn.Module: ...

    def from_config(self, config: object) -> nn.Module: ...

    def from_pretrained(self, folder: Path, **how: object) -> tuple[nn.Module, JsonObject]: ...


def is_transformers(folder: Path) -> bool:
    """Does its `config.json` name a model of transformers, not of another library?"""
    config = _config(folder) if there(folder / CONFIG) else {}
    return "model_type" in config or "architectures" in config


def weights_in(folder: Path) -> Path | None:
    return next((check_inside(folder / n) for n in WEIGHTS if there(folder / n)), None)


def files_of(folder: Path) -> list[Path]:
    """All weight files of the folder, in order. Raises CheckpointError for what is not a file."""
    kinds = (".safetensors", ".bin", ".json")
    return sorted(check_inside(p) for p in folder.iterdir() if p.suffix in kinds)


def build_pretrained(folder: Path, **changes: object) -> nn.Module:
    """The model that `config.json` describes, with random weights; `changes` are settings of it."""
    files_of(folder)
    config, model_class = _described(folder, changes)
    try:
        with bounded(folder / CONFIG, *size_of_weights(weights_in(folder))):
            model = (
                model_class(config) if hasattr(model_class, "forward")
                else model_class.from_config(config)
            )  # fmt: skip
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"`{folder / CONFIG}` can't be built: {first_line(error)}") from error
    return model.eval()


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
    config, model_class = _described(folder, {})
    # Of a pickle: raises where it would run code.
    size = size_of_weights(file, load_inert(file) if file.suffix == ".bin" else None)
    try:
        with bounded(folder / CONFIG, *size):
            model, facts = model_class.from_pretrained(
                folder, config=config, local_files_only=True, trust_remote_code=False,
                dtype=torch.float32, output_loading_info=True,
                use_safetensors=file.suffix != ".bin", ignore_mismatched_sizes=True,
            )  # fmt: skip
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"`{folder}` can't be loaded: {first_line(error)}") from error
    notes = notes_on_loading(folder / CONFIG, model, facts, ignore) + headless(model, file)
    return model.eval(), notes


def config_inputs(folder: Path) -> list[JsonObject]:
    """The model's inputs as far as `config.json` gives them; empty if it does not."""
    config = _config(folder)
    image, channels = config.get("image_size"), config.get("num_channels", 3)
    words, longest = config.get("vocab_size"), config.get("max_position_embeddings", 128)
    frames = config.get("num_frames")
    numbers = (image, channels, words, longest, frames)
    if any(n is not None and type(n) is not int and not isinstance(n, list) for n in numbers):
        return []
    if type(image) is int and type(channels) is int:
        shape = [1, *([frames] if isinstance(frames, int) else []), channels, image, image]
        return [{"shape": shape, "dtype": "float32", "name": "pixel_values"}]
    if isinstance(words, int) and isinstance(longest, int) and not config.get("is_encoder_decoder"):
        shape = [1, min(128, longest)]
        return [{"shape": shape, "dtype": "int64", "name": "input_ids", "range": [0, words - 1]}]
    return []


def _described(folder: Path, changes: dict[str, object]) -> tuple[object, ModelClass]:
    """Configuration and class, without code of the folder's."""
    settings = _config(folder)
    if "auto_map" in settings and settings.get("model_type") is None:
        raise UnsafePickle(f"`{folder}` brings its own code (`auto_map`), which is not run.")
    _check_settings(folder / CONFIG, settings)
    transformers = extra("transformers", f"transformers:{folder}")
    logging = importlib.import_module("transformers.utils.logging")
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it reports of a load is said in our own sentence
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **changes
        )
    except Exception as error:
        raise CheckpointError(f"`{folder / CONFIG}` can't be read: {first_line(error)}") from error
    if hasattr(config, "use_cache"):
        config.use_cache = False  # a cache is an output of its own, and one call has no use for it
    listed = settings.get("architectures") or []
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise CheckpointError(
            f"`{folder / CONFIG}`: `architectures` is {str(listed)[:40]}; it must be "
            "a list of names."
        )
    named = next(iter(listed), "")
    known = str(named).isidentifier() and hasattr(transformers, str(named))
    return config, getattr(transformers, str(named)) if known else transformers.AutoModel


def _check_settings(path: Path, settings: JsonObject) -> None:
    """Raises where settings name other files, or code that would be fetched, or absurd sizes."""
    check_repeats(path, settings)
    if settings.get("transformers_weights"):
        raise CheckpointError(
            f"`{path}`: `transformers_weights` names other files, which are not read."
        )
    if there(path.parent / "adapter_config.json"):
        raise CheckpointError(
            f"`{path.parent}` holds an adapter (`adapter_config.json`), which may name a model "
            "elsewhere; merge it into the model and save that."
        )
    for key, value in _settings(settings):
        if key in CODE and "/" in str(value):
            raise UnsafePickle(f"`{path}`: `{key}` names code elsewhere, which is not run.")


def _settings(config: JsonObject | list[object]) -> Iterator[tuple[str, object]]:
    """Of a configuration and of those within it, such as `text_config`."""
    if isinstance(config, dict):
        yield from config.items()
    for part in config.values() if isinstance(config, dict) else config:
        if isinstance(part, (dict, list)):
            yield from _settings(part)


def _config(folder: Path) -> JsonObject:
    path = folder / CONFIG
    try:
        config = json.loads(check_inside(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"`{path}` can't be read: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"`{path}` is not a configuration: it does not hold a JSON object.")
    return config
