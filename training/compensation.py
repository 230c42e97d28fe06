"""Making up for what was removed, in closed form: layer by layer, weights are fitted again.

The original runs once and its layers' outputs are kept at random places. Then the pruned graph
runs node by node; at each layer the weights that best give those outputs from the *pruned* net's
own inputs (ridge least squares toward the old weights) are put in before it runs, so that later
layers see what earlier ones still get wrong (He et al. 2017, eq. 5; here for any layer, and joins).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..adjusters.methods.calibration import one_batch
from ..core.model_io import Batches, Inputs
from ..graph.capture import tensor_at
from ..graph.interpreter import Recorder
from ..graph.layers import Layer, layers_of, outputs_at, patches_at, sample_positions
from ..graph.operators import aten
from ..graph.transposed import (
    forward_weight,
    outputs_left,
    transposed_layers_of,
    transposed_patches_at,
    turned,
)

NUMBERS = 24_000_000  # of the sampled matrix of one layer: 96 MB
SAMPLES_PER_FEATURE = 6
Kept = Mapping[tuple[str, int], tuple[int, ...]]


def compensate(
    module: GraphModule,
    original: GraphModule,
    train: Batches,
    kept: Kept,
    device: str = "cpu",
    *,
    shorter: bool = False,
    examples: int = 256,
    ridge: float = 0.005,
    like: Inputs | None = None,
) -> int:
    """Fit the layers of `module` in place to the outputs of `original`; how many were fitted.

    `kept` says which indices of the original's parameters are left (`graph.edits.kept_indices`).
    `shorter`: blocks were left out too, so that layers with all their inputs read other values.
    `like`: inputs laid out as those of `train`, which say where the batch is.
    """
    inputs = one_batch(train, module, examples, like).map(lambda x: x.to(device))
    with torch.no_grad():
        shown = _Shown(original)
        shown.of(inputs)
        fitted = _Fitted(module, shown, kept, ridge, shorter)
        fitted.of(inputs)
    return fitted.count


class _Nodes(Recorder):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.graph_module = module
        uses: Counter[int] = Counter()
        for node in module.graph.nodes:
            if node.op == "get_attr" and _is_tensor(module, str(node.target)):
                uses[id(tensor_at(module, str(node.target)))] += len(node.users)
        # A weight with several uses (under several names, if tied) can't be fitted to one of them.
        self.layers = {
            layer.node: layer
            for layer in (*layers_of(module), *transposed_layers_of(module))
            if all(uses[id(tensor_at(module, n))] == 1 for n in (layer.weight, layer.bias) if n)
        }


def _is_tensor(module: GraphModule, name: str) -> bool:
    try:
        return isinstance(attrgetter(name)(module), Tensor)
    except AttributeError:
        return False


class _Shown(_Nodes):
    """The original: outputs of its layers at random places."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.where: dict[str, Tensor] = {}
        self.wanted: dict[str, Tensor] = {}
        self.shapes: dict[str, torch.Size] = {}
        self.groups: dict[str, int] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        layer = self.layers.get(n)
        if layer is not None:
            weight = tensor_at(self.graph_module, layer.weight)
            # Inputs times kernel positions: a transposed weight has its inputs on axis 0.
            features = (
                weight[:, 0].numel() if layer.transposed else weight[0].numel() * layer.groups
            )
            samples = min(max(1024, SAMPLES_PER_FEATURE * features), NUMBERS // features + 1)
            where = sample_positions(layer, result, samples, seed=len(self.where))
            self.where[n.name] = where
            self.wanted[n.name] = outputs_at(layer, result, where).clone()
            self.shapes[n.name], self.groups[n.name] = weight.shape, layer.groups
        return result


class _Fitted(_Nodes):
    """The pruned graph: each layer is fitted before it runs."""

    def __init__(
        self, module: GraphModule, shown: _Shown, kept: Kept, ridge: float, changed: bool
    ) -> None:
        super().__init__(module)
        self.shown, self.kept, self.ridge, self.count = shown, kept, ridge, 0
        self._changed = changed

    def run_node(self, n: Node) -> Any:
        layer = self.layers.get(n)
        if layer is not None and n.name in self.shown.wanted:
            read = self.env[layer.source]
            ins = 0 if layer.transposed else 1
            self._changed = self._changed or (layer.weight, ins) in self.kept
            if self._changed:
                self._fit(layer, read)
        return super().run_node(n)

    def _fit(self, layer: Layer, read: Tensor) -> None:
        weight = forward_weight(self.graph_module, layer)
        name = layer.node.name
        wanted, kernel = self.shown.wanted[name], self.shown.shapes[name][2:]
        rows = self._rows(layer)
        if rows is not None:
            wanted = wanted[:, list(rows)]
        # The first part of a layer that was split bears its name, but gives something else.
        if weight.shape[2:] != kernel or wanted.shape[1] != weight.shape[0]:
            return
        read_by = transposed_patches_at if layer.transposed else patches_at
        patches = read_by(layer, read, kernel, self.shown.where[name])
        shift = _shift_of(self.graph_module, layer)
        constant = _constant(self.graph_module, layer)
        change, offset = _solve(
            weight, patches, wanted, layer.groups, constant, self.ridge, shift is not None
        )
        if not bool(torch.isfinite(change).all()):
            return
        if layer.transposed:
            change = turned(change, layer.groups)
        tensor_at(self.graph_module, layer.weight).data += change.to(weight.dtype)
        if shift is not None:
            vector, sign = shift
            vector.data += sign * offset.to(vector.dtype)
        self.count += 1

    def _rows(self, layer: Layer) -> Sequence[int] | None:
        """The original's output channels that are left; None if all are."""
        kept = [self.kept.get((layer.weight, axis)) for axis in (0, 1)]
        if not layer.transposed:
            return kept[0]
        return outputs_left(
            self.shown.shapes[layer.node.name], self.shown.groups[layer.node.name], kept
        )


def _constant(module: GraphModule, layer: Layer) -> Tensor | float:
    return tensor_at(module, layer.bias).double() if layer.bias is not None else 0.0


def _shift_of(module: GraphModule, layer: Layer) -> tuple[Tensor, float] | None:
    """Where a constant can be added to the outputs: the bias, or the mean of a batch norm."""
    if layer.bias is not None:
        return tensor_at(module, layer.bias), 1.0
    users = list(layer.node.users)
    if len(users) == 1 and users[0].target is aten.batch_norm.default:
        mean = users[0].args[3]
        if isinstance(mean, Node):
            return tensor_at(module, str(mean.target)), -1.0
    return None


def _solve(
    weight: Tensor,
    patches: Tensor,
    wanted: Tensor,
    groups: int,
    constant: Tensor | float,
    ridge: float,
    centered: bool,
) -> tuple[Tensor, Tensor]:
    """Change of the weight [out, in / groups, *kernel] and offset [out], float64.

    With x the inputs that the layer reads now, y the outputs it shall give, W its weight and b its
    bias, the gap is g = y - x W^T - b. Of each group, with X and G centered on their means,

        minimize |G - X D^T|^2 / samples + ridge * scale * |D|^2      D: the change of W

    has the solution D^T = (X^T X / samples + ridge * scale * I)^-1 X^T G / samples. The penalty is
    on the change and not on the weight, so a layer with too few samples keeps what training found.
    `scale` is the mean squared input: then one `ridge` fits layers of all magnitudes. The means
    left over go into the offset: mean(g) - mean(x) D^T.
    """
    outs, samples = weight.shape[0], len(patches)
    x = patches.reshape(samples, groups, -1).transpose(0, 1)  # [groups, samples, features]
    old = weight.reshape(groups, outs // groups, -1)
    y = wanted.reshape(samples, groups, outs // groups).transpose(0, 1)
    gap = y - x @ old.transpose(1, 2)
    if not isinstance(constant, float):
        gap = gap - constant.reshape(groups, 1, -1).to(gap.dtype)
    # Without a bias to take a constant up, the fit must go through 0 as the layer does.
    mean_x = x.mean(1, keepdim=True) if centered else torch.zeros_like(x[:, :1])
    mean_gap = gap.mean(1, keepdim=True) if centered else torch.zeros_like(gap[:, :1])
    x, gap = x - mean_x, gap - mean_gap
    # The products in float32 cost half; sums of samples are exact enough, inverting is not.
    x, gap = x.float(), gap.float()
    gram = (x.transpose(1, 2) @ x).double() / samples
    cross = (x.transpose(1, 2) @ gap).double() / samples
    scale = gram.diagonal(0, 1, 2).mean(1).clamp_min(1e-12)
    eye = torch.eye(gram.shape[1], dtype=torch.float64, device=gram.device)
    # Where inputs are not finite the factor is not either, and the caller leaves the layer alone.
    factor = torch.linalg.cholesky_ex(gram + ridge * scale[:, None, None] * eye).L
    change = torch.cholesky_solve(cross, factor)
    offset = mean_gap.double() - mean_x.double() @ change
    return change.transpose(1, 2).reshape(weight.shape), offset.reshape(-1)
