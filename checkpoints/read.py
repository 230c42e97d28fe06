"""A checkpoint as a module, whatever the file holds, without running what it carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from ..core.errors import CheckpointError, ModelspeedError
from .contents import Contents, Kind, contents
from .leftovers import harmless, is_shadow
from .libraries import libraries_with, model_factory
from .programs import program_module
from .weights import fill
from .wrappings import bare

Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Source:
    """A checkpoint as an eval-mode module. `program` where it was exported.

    `notes` are sentences about what was chosen or left out of the file.
    """

    path: Path
    kind: Kind
    module: nn.Module
    program: ExportedProgram | None
    sha256: str
    notes: tuple[str, ...] = ()


def read(
    path: Path,
    *,
    factory: Factory | None = None,
    args: Mapping[str, object] | None = None,
    trust_pickle: bool = False,
    ignore: Sequence[str] = (),
) -> Source:
    """Open `path` and build what it holds; `factory` is for weights alone.

    `ignore`: regular expressions of the names of tensors that are not the model's.
    Raises CheckpointError in one sentence for anything unreadable or unfit, UnsafePickle where
    reading would run code and `trust_pickle` is not set.
    """
    content = contents(path, trust_pickle=trust_pickle, build=factory is None, ignore=ignore)
    notes = content.about.notes
    if content.program is not None:
        captured = program_module(path, content.program)
        return Source(path, content.kind, captured, content.program, content.sha256, notes)
    if content.module is not None:
        return Source(path, content.kind, content.module, None, content.sha256, notes)
    module = _built(content, factory, args or {})
    notes += tuple(fill(path, module, content.weights or {}))
    return Source(path, content.kind, module.eval(), None, content.sha256, notes)


def arch_arguments(content: Contents) -> dict[str, int]:
    """The number of classes: the rows of the last weight, where a classifier ends in one."""
    matrices = [
        v for k, v in (content.weights or {}).items()
        if k.endswith("weight") and v.dim() > 1 and not harmless(k) and not is_shadow(k)
    ]  # fmt: skip
    return {"num_classes": matrices[-1].shape[0]} if matrices else {}


def library_of(content: Contents) -> str | None:
    """`LIBRARY:arch` where an installed library has what the file says it is.

    Where several have one of that name, the one whose names of weights are the file's.
    """
    specs = libraries_with(content.about.arch) if content.about.arch else []
    if len(specs) < 2:
        return next(iter(specs), None)
    names = {bare(name) for name in content.weights or {}}
    return max(specs, key=lambda spec: len(names & _names_in(spec, content)))


def _names_in(spec: str, content: Contents) -> set[str]:
    try:
        return set(model_factory(spec, Path("."))(**arch_arguments(content)).state_dict())
    except ModelspeedError:
        return set()


def _built(content: Contents, factory: Factory | None, args: Mapping[str, object]) -> nn.Module:
    if factory is None:
        return _by_arch(content)
    module = factory(**args)
    if not isinstance(module, nn.Module):
        raise CheckpointError(
            f"the model factory returned {type(module).__name__}; it must return an `nn.Module`."
        )
    return module


def _by_arch(content: Contents) -> nn.Module:
    """Training scripts of timm and torchvision say in the file what the model is."""
    arch, spec = content.about.arch, library_of(content)
    if spec is None:
        says = f" (it says that it is a `{arch}`, which no installed library has)" if arch else ""
        raise CheckpointError(
            f"`{content.path}` holds only weights{says}; name the class with `--model "
            "FILE.py:factory`, a library's model such as `--model torchvision:resnet18`, or "
            "`model.factory` in the recipe."
        )
    return model_factory(spec, Path("."))(**arch_arguments(content))
