"""Size attributes of torch's own modules, brought in line with new tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ...core.errors import EditError

# Their kernels take all sizes from a few attributes that can't say what pruning leaves.
RIGID = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)


class Absent(nn.Module):
    """In place of a layer of a residual branch that was left out.

    The last one of the branch gives zeros, those before it pass on a copy: an activation that
    works in place must not change what goes around the branch.
    """

    def __init__(self, last: bool, pair: bool) -> None:
        super().__init__()
        self.last, self.pair = last, pair

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor | tuple[Tensor, None]:
        out = torch.zeros_like(x) if self.last else x.clone()
        return (out, None) if self.pair else out

    def extra_repr(self) -> str:
        return "zeros" if self.last else "copy"


def put_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> set[str]:
    """Put the tensors under their names and set the sizes of torch's modules that hold them.

    Tied parameters stay tied; one of their names is enough. Returns the names of modules whose
    shapes changed. Raises EditError naming the first module that can't take its tensors.
    """
    new: dict[int, list[tuple[Tensor, Tensor]]] = {}
    changed: set[str] = set()
    named = _by_tensor(model, tensors)
    names = _names_of(model)
    for path, module in model.named_modules():
        for table in (module._parameters, module._buffers):
            for leaf, old in list(table.items()):
                own = (tensors.get(_dotted(name, leaf)) for name in names[module])
                tensor = next((x for x in own if x is not None), None)
                if old is not None and tensor is None:
                    tensor = named.get(id(old))
                if tensor is None or (old is not None and not _fits(module, old, tensor)):
                    _refuse_lost(path, module, leaf, old, tensor)
                    continue
                if old is not None and old.shape != tensor.shape:
                    changed.add(path)
                table[leaf] = _like(old, tensor, new, parameter=table is module._parameters)
        if path in changed:
            _set_sizes(path, module)
    return changed


def _names_of(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Every name of each module: one that stands in two places is exported under either."""
    names: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(path)
    return names


def _by_tensor(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """The entry for each tensor of the model, under any of its names."""
    entries: dict[int, Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for leaf, old in (*module._parameters.items(), *module._buffers.items()):
            name = _dotted(path, leaf)
            if old is not None and name in tensors:
                entries.setdefault(id(old), tensors[name])
    return entries


def _dotted(path: str, leaf: str) -> str:
    return f"{path}.{leaf}" if path else leaf


def _fits(module: nn.Module, old: Tensor, tensor: Tensor) -> bool:
    return old.dim() == tensor.dim() and (
        old.shape == tensor.shape or not isinstance(module, RIGID)
    )


def _refuse_lost(
    path: str, module: nn.Module, leaf: str, old: Tensor | None, tensor: Tensor | None
) -> None:
    if old is None or leaf == "num_batches_tracked":
        return
    kind = type(module).__name__
    if tensor is None:
        raise EditError(f"`{path}` ({kind}) has `{leaf}`, which the artifact does not have")
    raise EditError(
        f"`{path}` ({kind}) can't take `{leaf}` of {list(tensor.shape)} in place of "
        f"{list(old.shape)}"
    )


def _like(
    old: Tensor | None,
    tensor: Tensor,
    new: dict[int, list[tuple[Tensor, Tensor]]],
    *,
    parameter: bool,
) -> Tensor:
    """The tensor made for one name, for its other names too, unless the artifact parts them."""
    for source, own in new.get(id(old), ()) if old is not None else ():
        if source is tensor or (source.shape == tensor.shape and torch.equal(source, tensor)):
            return own
    own = tensor.detach().clone() if old is None else tensor.detach().to(old).clone()
    if parameter:
        floating = own.is_floating_point()
        own = nn.Parameter(own, requires_grad=floating and (old is None or old.requires_grad))
    if old is not None:
        new.setdefault(id(old), []).append((tensor, own))
    return own


def _set_sizes(path: str, module: nn.Module) -> None:
    weight = getattr(module, "weight", None)
    shape = list(weight.shape) if isinstance(weight, Tensor) else []
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, _ConvNd):
        _set_channels(module)
    elif isinstance(module, _NormBase):
        module.num_features = shape[0] if shape else module.running_mean.shape[0]  # type: ignore[union-attr]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shape[0]
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = shape
    elif type(module).__module__.startswith("torch.nn."):
        raise EditError(f"`{path}` ({type(module).__name__}) can't change its widths")


def _set_channels(conv: _ConvNd) -> None:
    """For the groups it has; called again where those change."""
    first, second = conv.weight.shape[:2]
    if isinstance(conv, _ConvTransposeNd):
        conv.in_channels, conv.out_channels = first, second * conv.groups
    else:
        conv.out_channels, conv.in_channels = first, second * conv.groups


def set_groups(module: nn.Module, groups: int) -> bool:
    """Set the groups of a convolution or group norm; False where `module` is neither."""
    if isinstance(module, _ConvNd):
        module.groups = groups
        _set_channels(module)
        return True
    if isinstance(module, nn.GroupNorm):
        module.num_groups = groups
        return True
    return False


def without_norm(norm: nn.Module) -> nn.Module:
    """The module in place of a batch norm that was folded into the layer before it.

    A class of the user's may do more than normalize and stays; it is without figures until
    `neutral` gives it some.
    """
    if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.Identity()
    for table in (norm._parameters, norm._buffers):
        table.update(dict.fromkeys(table))
    return norm


def neutral(norm: nn.Module, channels: int) -> None:
    """Give a batch norm figures with which it changes nothing."""
    if isinstance(norm, _NormBase):
        norm.running_mean, norm.running_var = torch.zeros(channels), torch.ones(channels)
        # 1 plus that is 1; torch 2.11 takes no 0.
        norm.eps, norm.num_features = 1e-30, channels
