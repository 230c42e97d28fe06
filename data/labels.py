"""Classes of a data set's examples, where they are known without reading the examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from .arrays import Examples
from .image_folder import Images


def labels_of(dataset: Any, indices: Sequence[int]) -> list[int] | None:
    """The class of each of these examples; None where the data set does not say it."""
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset, [dataset.indices[i] for i in indices])
    if isinstance(dataset, Examples):
        return _integers(dataset.targets, [dataset.indices[i] for i in indices])
    if isinstance(dataset, Images):
        return _integers([target for _, target in dataset.items], indices)
    if isinstance(dataset, TensorDataset):
        return _integers(dataset.tensors[-1], indices)
    # As torchvision's data sets have them.
    own = getattr(dataset, "__dict__", {})
    return _integers(own.get("targets", own.get("labels")), indices)


def _integers(values: Any, indices: Sequence[int]) -> list[int] | None:
    """`values` at the places, if they are one whole number each."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, (list, tuple, np.ndarray)):
        return None
    try:
        row = np.asarray(values)
    except ValueError:  # of rows that differ in length
        return None
    if row.ndim != 1 or row.dtype.kind not in "iu" or max(indices, default=0) >= len(row):
        return None
    labels: list[int] = row[list(indices)].tolist()
    return labels
