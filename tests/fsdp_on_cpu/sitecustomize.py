"""Let accelerate shard a model over CPU processes, which torch supports but accelerate allows on accelerators only.

Python imports this `sitecustomize` automatically in each process of a run that has this folder on its path.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `accelerate.state` once, and patches it when it is loaded."""

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "accelerate.state":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            _shard_on_processors(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _shard_on_processors(state: Any) -> None:
    begin = state.AcceleratorState.__init__

    def changed(self: Any, *given: Any, **named: Any) -> None:
        if not state.AcceleratorState._shared_state:
            state.PartialState(cpu=True)
            state.PartialState._shared_state["distributed_type"] = state.DistributedType.MULTI_GPU
        begin(self, *given, **named)

    state.AcceleratorState.__init__ = changed


if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    sys.meta_path.insert(0, _Finder())
