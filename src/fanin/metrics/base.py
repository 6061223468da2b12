"""What a metric is: a pure core that a compiled step can carry, and Keras's stateful face on top of it.

::

    init_variables() -> v      update(v, y_true, y_pred, w) -> v'      compute(v) -> result
    update_state(y_true, y_pred, w) ... result() ... reset_state()     keep v inside the metric
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fanin import config, initializers
from fanin.dtypes import as_dtype, as_policy, dtype_name, widest_float
from fanin.errors import NotTraceableError
from fanin.losses.base import align_weights, to_tensor
from fanin.program.trace import is_traced
from fanin.registry import Family, snake_case

Variables = dict[str, Tensor]


def weighted_total(
    values: Tensor, sample_weight: Any, mask: Tensor | None, what: str, rows: int
) -> tuple[Tensor, Tensor | float]:
    """Sum of w v over the rows, and sum of w, both in the accumulator's dtype; inner dimensions are averaged.

    Args:
        values: (B, ...) numbers or booleans, or one number for the whole batch, which then counts `rows` times.
        sample_weight: one per row or one per value; None for 1.
        mask: booleans of the shape of `values`: False does not count; None for all.
        what: a name for messages.
        rows: B.

    Raises ValueError for weights that do not fit.
    """
    dtype = widest_float(values.device)
    if sample_weight is None and mask is None:
        if values.ndim == 0:
            return values.to(dtype) * rows, float(rows)
        inner = values[:1].numel() if values.ndim > 1 else 1
        total = values.sum(dtype=dtype)
        return total if inner == 1 else total / inner, float(values.shape[0])
    if not values.is_floating_point():
        values = values.to(torch.float32)
    weight = values.new_ones(()) if sample_weight is None else align_weights(values, sample_weight, what)
    if values.ndim == 0:
        return (values * weight).to(dtype) * rows, weight.to(dtype) * rows
    weight = weight.expand_as(values)
    if mask is not None:
        values, weight = torch.where(mask, values, 0.0), torch.where(mask, weight, 0.0)
    inner = max(1, values[:1].numel())
    return (values * weight).sum(dtype=dtype) / inner, weight.sum(dtype=dtype) / inner


def _on_values(update: Callable[..., None]) -> Callable[..., None]:
    """An `update_state` without gradients, which counts only tensors that have values: not those by which the shapes of
    a layer are found out. NotTraceableError inside a step that is being traced."""

    @wraps(update)
    def update_state(self: Any, *args: Any, **kwargs: Any) -> None:
        fake = next((one for one in (*args, *kwargs.values()) if isinstance(one, FakeTensor)), None)
        if fake is None:
            with torch.no_grad():
                update(self, *args, **kwargs)
        elif is_traced(fake):
            raise NotTraceableError(f"a call updates the metric {self.name!r}")

    return update_state


class Metric:
    """Base of all metrics. A subclass writes `init_variables`, `update` and `compute`; Keras's face follows from them.

    Or it writes `update_state` and `result`, as Keras's do, and changes tensors of `add_variable` in place.

    Args:
        dtype: the dtype of the result; `floatx()` by default. Sums are kept in float64.
        name: the key in histories; by default the class's own, in snake case and unique.

    Attributes:
        traceable: whether `update` is pure torch, so that a compiled step can carry it. False for a subclass that
            overrides `update_state` alone.
        direction: "max" if larger is better, "min" if smaller is, None if unknown.

    After Keras's `keras.metrics.Metric`.

    >>> class Largest(Metric):
    ...     def init_variables(self, device=None):
    ...         return {"largest": torch.zeros((), device=device)}
    ...     def update(self, variables, y_true, y_pred, sample_weight=None):
    ...         return {"largest": torch.maximum(variables["largest"], (y_true - y_pred).abs().max())}
    ...     def compute(self, variables):
    ...         return variables["largest"]
    >>> Largest()(torch.zeros(2), torch.tensor([1.0, -3.0]))
    tensor(3.)

    >>> class Positives(Metric):
    ...     def __init__(self, name="positives", **kwargs):
    ...         super().__init__(name=name, **kwargs)
    ...         self.total = self.add_variable(shape=(), initializer="zeros", name="total")
    ...     def update_state(self, y_true, y_pred, sample_weight=None):
    ...         self.total.add_((y_pred > 0.5).sum())
    ...     def result(self):
    ...         return self.total.clone()
    >>> Positives()(torch.zeros(3), torch.tensor([0.9, 0.1, 0.7]))
    tensor(2.)
    """

    traceable: bool = True
    direction: str | None = None

    def __init__(self, dtype: Any = None, name: str | None = None):
        self.name = name or config.unique_name(snake_case(type(self).__name__))
        self._dtype = as_policy(dtype or config.floatx()).compute
        self._state: Variables | None = None
        self._added: Variables = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "update_state" in cls.__dict__ and "update" not in cls.__dict__:
            cls.traceable = False
        if "update_state" in cls.__dict__:
            cls.update_state = _on_values(cls.update_state)  # type: ignore[method-assign]

    @property
    def dtype(self) -> str:
        """The name of the dtype of the result."""
        return dtype_name(self._dtype)

    # --- the pure core

    def init_variables(self, device: torch.device | str | None = None) -> Variables:
        """Fresh variables, by name, on `device` (the default device if None)."""
        raise NotImplementedError(f"{type(self).__name__} does not define init_variables().")

    def update(self, variables: Variables, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Variables:
        """New variables after one batch; those given stay as they are.

        Args:
            variables: as `init_variables` or `update` gave them.
            y_true: targets, (B, ...).
            y_pred: predictions, (B, ...).
            sample_weight: one weight per row or per value; None for 1.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update().")

    def compute(self, variables: Variables) -> Tensor:
        """The metric's value for these variables; 0 where nothing was counted."""
        raise NotImplementedError(f"{type(self).__name__} does not define compute().")

    # --- Keras's face

    @property
    def state(self) -> Variables:
        """The variables it keeps, by name. Assign those of a compiled step to carry on from them."""
        if self._state is None:
            self._state = self.init_variables()
        return self._state

    @state.setter
    def state(self, variables: Variables) -> None:
        self._state = dict(variables)

    def add_variable(
        self,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: Any = "sum",
        name: str | None = None,
    ) -> Tensor:
        """A tensor that `update_state` changes in place (`add_`, `copy_`), and `reset_state` sets to 0.

        Args:
            shape: of the tensor.
            initializer: of its first value.
            dtype: a dtype or its name; that of the metric by default.
            aggregation: kept for Keras.
            name: by default its number.
        """
        fill = initializers.get("zeros" if initializer is None else initializer)
        assert fill is not None
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        made = fill(size, dtype=self._dtype if dtype is None else as_dtype(dtype))
        self._added[name or str(len(self._added))] = made
        return made

    def add_weight(
        self, shape: Any = (), initializer: Any = None, dtype: Any = None, name: str | None = None
    ) -> Tensor:
        """As `add_variable`."""
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Tensor]:
        """The variables it keeps, in order."""
        return list((self._added or self.state).values())

    @_on_values
    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Count one batch: (y_true, y_pred, sample_weight=None), for `Mean` (values, sample_weight=None)."""
        if self._state is None:
            tensors = [a.device for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            self._state = self.init_variables(next((d for d in tensors if d.type != "cpu"), None))
        self._state = self.update(self._state, *args, **kwargs)

    def result(self) -> Tensor:
        """The value over all that was counted since the last reset."""
        return self.compute(self.state)

    def reset_state(self) -> None:
        """Forget all that was counted. The state stays in its memory, to which compiled steps may add."""
        if self._state is not None:
            self._state = self._begun_anew(self._state)
        for variable in self._added.values():
            variable.zero_()

    @torch.no_grad()
    def _begun_anew(self, state: Variables) -> Variables | None:
        values = [*state.values()]
        if any(type(value) is not Tensor or value.is_inference() for value in values):
            return None
        fresh = self.init_variables(values[0].device if values else None)
        if {name: value.shape for name, value in fresh.items()} != {name: v.shape for name, v in state.items()}:
            return None
        for name, value in state.items():
            value.copy_(fresh[name])
        return state

    def reset_states(self) -> None:
        """`reset_state`, by Keras 2's name."""
        self.reset_state()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """`update_state`, then `result`."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r}>"


family: Family[Metric] = Family("metric", "keras.metrics", Metric)
family.add(Metric)


def as_pair(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors, on the device of the predictions."""
    pred = to_tensor(y_pred)
    return to_tensor(y_true, pred.device), pred
