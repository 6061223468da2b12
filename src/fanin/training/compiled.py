"""What `compile` was told: optimizer, loss and metrics, made ready for a model's outputs."""

from __future__ import annotations

from typing import Any

import torch

from fanin import losses, metrics, optimizers
from fanin.graph.tree import as_list, leaves
from fanin.registry import serialize

Variables = dict[str, torch.Tensor]


class Compiled:
    """Optimizer, loss and metrics of one model.

    Args:
        optimizer: a name, one of ours, or torch.optim's: instance, class, or function of the parameters.
        loss: an identifier, or None where only added losses train the model.
        loss_weights: a factor for the loss, or a list with one.
        given_metrics: identifiers of metrics that ignore sample weights.
        given_weighted: identifiers of metrics that use them.
        run_eagerly: noted for the config.
        others: further arguments of Keras's compile; those that would change the result are refused.
    """

    def __init__(
        self,
        optimizer: Any,
        loss: Any,
        loss_weights: Any = None,
        given_metrics: Any = None,
        given_weighted: Any = None,
        run_eagerly: bool = False,
        others: dict[str, Any] | None = None,
    ):
        _refuse_unknown(others or {})
        self.given_loss = loss
        self.given_metrics = as_list(given_metrics)
        self.given_weighted = as_list(given_weighted)
        # "crossentropy" means one of three losses, by the shapes: `bind` settles which.
        self.loss = None if loss is None else losses.resolve(loss, (None, 1), (1, 1))
        self.loss_weight = _factor(loss_weights)
        self.given_loss_weights = loss_weights
        self.run_eagerly = bool(run_eagerly)
        for identifier in self.given_metrics + self.given_weighted:
            metrics.resolve(identifier, (None, 1), (1, 1))  # unknown names fail now, not at the first batch
        self.torch_maker: Any = None
        if optimizers.is_torch(optimizer) or _is_factory(optimizer):
            self.optimizer: Any = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
            self.torch_maker = None if self.optimizer is not None else optimizer
        else:
            self.optimizer = optimizers.get(optimizer)
        self.plain: list[Any] = []
        self.weighted: list[Any] = []
        self.metric_names: list[str] = []
        self._bound_to: Any = None

    # --- made ready for a model ------------------------------------------------------------------------------

    def bind(self, model: Any, output_shape: tuple[int | None, ...], y: Any) -> None:
        """Choose what "accuracy" means for these shapes, and make a torch optimizer that was given as a class."""
        if self.torch_maker is not None and self.optimizer is None:
            self.optimizer = self.torch_maker([p for p in model.parameters() if p.requires_grad])
            if not isinstance(self.optimizer, torch.optim.Optimizer):
                raise TypeError(f"compile: the optimizer function returned {self.optimizer!r}, no torch optimizer.")
        y_shape = tuple(next(leaves(y)).shape) if y is not None else output_shape
        key = (tuple(output_shape), len(y_shape), y_shape[-1] if len(y_shape) > 1 else None)
        if self._bound_to != key:
            self.loss = None if self.given_loss is None else losses.resolve(self.given_loss, output_shape, y_shape)
            self.plain = [metrics.resolve(given, output_shape, y_shape) for given in self.given_metrics]
            self.weighted = [metrics.resolve(given, output_shape, y_shape) for given in self.given_weighted]
            names = _names(self.given_metrics, self.plain, [])
            self.metric_names = [*names, *_names(self.given_weighted, self.weighted, names)]
            self._bound_to = key

    @property
    def metrics(self) -> list[Any]:
        """All metrics, those with sample weights last."""
        return [*self.plain, *self.weighted]

    def directions(self) -> dict[str, str | None]:
        """For each number that training gives, "max" if it should grow, "min" if it should shrink."""
        found = {"loss": "min"} | {
            n: metrics.direction(m) for n, m in zip(self.metric_names, self.metrics, strict=True)
        }
        return found | {f"val_{name}": way for name, way in found.items()}

    # --- the parts of a step ---------------------------------------------------------------------------------

    def compute_loss(self, y: Any, outputs: Any, weight: torch.Tensor | None) -> torch.Tensor:
        """The scalar loss of one batch, without penalties."""
        if self.loss is None:
            first = next(leaves(outputs))
            return torch.zeros((), dtype=first.dtype, device=first.device)
        value = self.loss(y, outputs, weight)
        return value if self.loss_weight is None else value * self.loss_weight

    def new_sums(self, device: torch.device | None = None) -> list[Variables]:
        """Empty sums for all metrics, on the device of the outputs; metrics that keep their own state are reset."""
        for metric in self.metrics:
            if not metric.traceable:
                metric.reset_state()
        return [metric.init_variables(device) if metric.traceable else {} for metric in self.metrics]

    def measure(self, sums: list[Variables], y: Any, outputs: Any, weight: torch.Tensor | None) -> list[Variables]:
        """New sums of all metrics after one batch."""
        weights = [None] * len(self.plain) + [weight] * len(self.weighted)
        found = []
        for metric, variables, sample_weight in zip(self.metrics, sums, weights, strict=True):
            if metric.traceable:
                found.append(metric.update(variables, y, outputs, sample_weight))
            else:
                metric.update_state(y, outputs, sample_weight)
                found.append(variables)
        return found

    def results(self, sums: list[Variables]) -> dict[str, float]:
        """The metrics as numbers, by the names that were given."""
        values = (
            metric.compute(variables) if metric.traceable else metric.result()
            for metric, variables in zip(self.metrics, sums, strict=True)
        )
        return {name: float(value) for name, value in zip(self.metric_names, values, strict=True)}

    # --- config ----------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any] | None:
        """Plain JSON data in Keras's form; None if a torch optimizer, loss or metric has no config."""
        try:
            return {
                "optimizer": serialize(self.optimizer) if self.torch_maker is None else serialize(self.torch_maker),
                "loss": serialize(self.given_loss),
                "loss_weights": serialize(self.given_loss_weights),
                "metrics": serialize(self.given_metrics) or None,
                "weighted_metrics": serialize(self.given_weighted) or None,
                "run_eagerly": self.run_eagerly,
                "steps_per_execution": 1,
                "jit_compile": "auto",
            }
        except ValueError:
            return None

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Compiled:
        """What `get_config` described."""
        optimizer = config.get("optimizer", "rmsprop")
        return cls(
            optimizers.deserialize(optimizer) if isinstance(optimizer, dict) else optimizer,
            config.get("loss"),
            config.get("loss_weights"),
            config.get("metrics"),
            config.get("weighted_metrics"),
            bool(config.get("run_eagerly")),
        )


def _refuse_unknown(others: dict[str, Any]) -> None:
    harmless = {
        "jit_compile": ("auto", None, False, True),
        "steps_per_execution": (1, None),
        "auto_scale_loss": (True, False),
    }
    for name, value in others.items():
        if name not in harmless:
            raise TypeError(f"compile has no argument {name!r}.")
        if value not in harmless[name]:
            raise ValueError(f"compile: {name}={value!r} is not supported; leave it out.")


def _is_factory(value: Any) -> bool:
    ours = isinstance(value, (str, dict, optimizers.Optimizer)) or (
        isinstance(value, type) and issubclass(value, optimizers.Optimizer)
    )
    return callable(value) and not ours


def _factor(loss_weights: Any) -> float | None:
    given = as_list(loss_weights)
    if not given:
        return None
    if len(given) != 1 or isinstance(given[0], bool) or not isinstance(given[0], (int, float)):
        raise ValueError(f"compile: loss_weights must be one number for the one output, found {loss_weights!r}.")
    return float(given[0])


def _names(given: list[Any], made: list[Any], taken: list[str]) -> list[str]:
    """The names in histories, as Keras gives them: the string that was given, else the metric's own.

    A weighted metric whose name a plain one has (`taken`) becomes "weighted_<name>"; one that comes again is numbered.
    """
    names: list[str] = []
    for identifier, metric in zip(given, made, strict=True):
        name = identifier if isinstance(identifier, str) else metric.name
        name = f"weighted_{name}" if name in taken else name
        count = sum(known == name or known.startswith(f"{name}_") for known in names)
        names.append(name if name not in names else f"{name}_{count}")
    return names
