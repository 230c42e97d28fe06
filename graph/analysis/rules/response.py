"""Global response norm (Woo et al. 2023, ConvNeXt V2): how strong a channel is among all channels.

`gamma * (x * (norm(x) / (mean over channels of norm(x) + eps))) + ...`. A channel that is ignored
adds nothing to the sum of that mean, but counts in it: with fewer channels the mean is n / kept as
large, which `gamma` makes up for (exactly but for eps).
"""

from __future__ import annotations

from torch.fx import Node

from ...operators import aten
from ..labels import Labels
from ..walk import Rescale, Walk

_NORMS = (aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim)
_LAYERS = (aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
           aten.batch_norm.default)  # fmt: skip
# Zero stays zero, and no axis changes its meaning but by moving.
_ZERO_STAYS = (aten.gelu.default, aten.relu.default, aten.relu_.default, aten.silu.default,
               aten.silu_.default, aten.tanh.default, aten.hardswish.default,
               aten.leaky_relu.default, aten.dropout.default, aten.clone.default,
               aten.contiguous.default, aten.permute.default, aten.transpose.int)  # fmt: skip
_VIEWS = (aten.view.default, aten.reshape.default, aten.unsqueeze.default)


def is_response_norm(walk: Walk, mean: Node, labels: Labels | None) -> bool:
    """True if the mean over `labels` is that of a global response norm; notes what follows."""
    size = mean.args[0]
    if labels is None or not isinstance(size, Node) or size.target not in _NORMS:
        return False
    total = _sole_user(mean, aten.add.Tensor)
    if total is None or isinstance(total.args[1], Node):
        return False
    share = _sole_user(total, aten.div.Tensor)
    if share is None or share.args != (size, total):
        return False
    scaled = _sole_user(share, aten.mul.Tensor)
    gamma = _scale_of(walk, scaled) if scaled is not None else None
    if gamma is None or not _silent(walk, size.args[0], labels):
        return False
    walk.rescales.append(Rescale(gamma, labels))
    return True


def _sole_user(node: Node, target: object) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target is target else None


def _scale_of(walk: Walk, scaled: Node) -> str | None:
    """The parameter that alone multiplies `scaled` next."""
    users = list(scaled.users)
    if len(users) != 1:
        return None
    if users[0].target is aten.mul.Tensor:
        factors = users[0].args
    elif users[0].target is aten.addcmul.default and not users[0].kwargs:
        factors = users[0].args[1:]
    else:
        return None
    factor = next((f for f in factors if f is not scaled), None)
    while isinstance(factor, Node) and factor.target in _VIEWS and len(factor.users) == 1:
        factor = factor.args[0]
    if not isinstance(factor, Node) or factor.op != "get_attr" or len(factor.users) != 1:
        return None
    return str(factor.target) if walk.is_untied(factor) else None


def _silent(walk: Walk, node: object, labels: Labels) -> bool:
    """True if `node` is zero at a unit of `labels` as soon as the unit's own parameters are."""
    while isinstance(node, Node) and node.target in _ZERO_STAYS:
        node = node.args[0]
    if not isinstance(node, Node) or node.target not in _LAYERS:
        return False
    weight = node.args[1]
    if (
        not isinstance(weight, Node) or weight.op != "get_attr"
    ):  # a norm without scale is never zero
        return False
    units = walk.of(weight)[0]
    return units is not None and bool((walk.labels.roots(units) == walk.labels.roots(labels)).all())
