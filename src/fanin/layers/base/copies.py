"""Copies of a layer: deepcopy, pickle, and the state_dict, also of layers that are not built."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from fanin.layers.base.scope import Entry


class Copies(nn.Module):
    """The part of a layer that copies it. Copies share nothing, and have no symbolic calls."""

    name: str
    built: bool
    build: Any

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle keeps."""
        return self._state_to_copy()

    def _state_to_copy(self) -> dict[str, Any]:
        """The state without nodes, recorded losses and lock: what copies and pickles keep."""
        state = self.__dict__.copy()
        state.pop("_lock", None)
        state.update(
            inbound_nodes=[], _outbound=[], _record=None, _token=object(), _met_tensors=False, _direct_dtype=None
        )
        for kind in ("_kept_losses", "_kept_updates"):
            kept = [entry for entry in state[kind] if entry.inputs is None and callable(entry.value)]
            state[kind] = [Entry(entry.value, state["_token"], None) for entry in kept]
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """An equal layer with equal weights that shares nothing and has no symbolic calls."""
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self._state_to_copy(), memo))  # type: ignore[no-untyped-call]
        return duplicate

    # --- state_dict ------------------------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        waiting = {name: p for name, p in self._parameters.items() if p is not None and is_lazy(p)}
        if not waiting:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            return
        self._parameters.update(dict.fromkeys(waiting))
        try:
            super()._save_to_state_dict(destination, prefix, keep_vars)
        finally:
            self._parameters.update(waiting)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing: list[str],
        unexpected: list[str],
        errors: list[str],
    ) -> None:
        if not self.built:
            own = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}  # fmt: skip
            try:
                shape = self._shape_from_state({name: tuple(v.shape) for name, v in own.items() if "." not in name})
            except ValueError as error:  # torch reports what the list holds, from all modules, in one RuntimeError
                errors.append(str(error))
                return
            waiting = [name for name, p in self._parameters.items() if name in own and p is not None and is_lazy(p)]
            if shape is not None:
                self.build(shape)
            elif waiting:
                errors.append(
                    f"Layer {self.name!r} is not built, and {', '.join(map(repr, waiting))} in the state_dict does not "
                    "say its input shape: build it, or call it once, before."
                )
                return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        """The input shape that stored weights of these shapes imply, or None; how a state_dict builds a layer."""
        return None
