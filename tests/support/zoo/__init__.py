"""Pico topologies by name, one idea each, with the groups that the analysis should find."""

from importlib import import_module
from pkgutil import iter_modules

from .entry import ZOO, Entry

__all__ = ["ZOO", "Entry"]

for family in iter_modules(__path__):
    import_module(f"{__name__}.{family.name}")
