"""Findings about a checkpoint on this machine, kept from one run to the next.

A file's name is the hash of all that a finding depends on: the machine's fingerprint (processor,
instructions, threads, torch, system), the checkpoint, the graph, the inputs, this package and what
the environment tells the libraries. Another one of these finds nothing. It is only a cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

from torch.fx import GraphModule

from ..core.cache import cache_folder, keep
from ..core.errors import ArtifactError
from ..core.files import read_text
from ..core.model_io import Inputs
from ..core.records_json import from_json, to_json

VERSION = 1  # another one where kernels, or how they are ranked, change
LIBRARIES = ("ATEN_", "DNNL_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "PYTORCH_", "TORCH_")
T = TypeVar("T")


@dataclass(frozen=True)
class MachineCache:
    """`key` stands for the machine, the checkpoint and the inputs."""

    key: str

    @classmethod
    def of(cls, fingerprint: str, sha256: str, graph: GraphModule, inputs: Inputs) -> MachineCache:
        named = sorted((k, v) for k, v in os.environ.items() if k.startswith(LIBRARIES))
        facts = [
            VERSION, version("modelspeed"), fingerprint, sha256, str(graph.graph), named,
            [(list(x.shape), list(x.stride()), str(x.dtype), str(x.device)) for x in inputs],
        ]  # fmt: skip
        return cls(hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24])

    def kept(
        self,
        name: str,
        kind: type[T],
        make: Callable[[], T],
        lasts: Callable[[T], bool],
        fits: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """The finding of an earlier run, or that of `make`, which is kept where it `lasts`.

        A file that holds what does not `fit` is as good as none.
        """
        path = cache_folder() / f"{name}-{self.key}.json"
        with suppress(ArtifactError, OSError, ValueError, RecursionError):
            known = from_json(kind, json.loads(read_text(path)), name)
            if fits(known):
                return known
        found = make()
        if lasts(found):
            keep(path, json.dumps(to_json(found)))
        return found
