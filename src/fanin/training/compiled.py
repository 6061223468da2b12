"""The arguments of `compile`: optimizer, loss and metrics, resolved for a model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fanin import arguments, losses, metrics, optimizers
from fanin.dtypes import DTypePolicy
from fanin.errors import DataError
from fanin.metrics.base import Variables
from fanin.optimizers import LossScaleOptimizer, Optimizer
from fanin.registry import serialize
from fanin.training import multipliers
from fanin.training.output_metrics import OutputMetrics
from fanin.training.outputs import Output, choose, metric_names, names_of, paths, spread

_EXTRA_KEYS = ("learning_rate_multipliers", "jit_compile")


class Compiled:
    """Optimizer, loss and metrics of one model.

    Args:
        optimizer: a name, one of fanin's, or torch.optim's: instance, class, or function of the parameters.
        loss: an identifier, or one for each output in a list or dict; None where only added losses train the model. Of
            a class or config, here and below, the object is made at once.
        loss_weights: a factor for each loss, likewise.
        given_metrics: identifiers of metrics that ignore sample weights; for several outputs a list or dict of such.
        given_weighted: identifiers of metrics that use them, likewise.
        run_eagerly: whether steps are not compiled.
        others: learning_rate_multipliers, see `multipliers.py`; and further arguments of Keras's compile: those that
            would change the result are refused.

    `bind` resolves what depends on the outputs of a model; until then there are no `outputs` and no metrics.
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
        others = dict(others or {})
        self.multipliers = multipliers.check(others.pop("learning_rate_multipliers", None))
        _refuse_unknown(others)
        self.jit_compile = others.get("jit_compile", "auto")
        self.given_loss = loss = _instantiated(loss, losses)
        self.given_metrics = given_metrics = _instantiated(given_metrics, metrics)
        self.given_weighted = given_weighted = _instantiated(given_weighted, metrics)
        self.given_loss_weights = loss_weights
        self.run_eagerly = bool(run_eagerly)
        # Unknown names fail now, not at the first batch. "crossentropy" is one of three, by shapes: any will do here.
        for identifier in _identifiers(loss):
            losses.resolve(identifier, (None, 1), (1, 1))
        for identifier in _identifiers(given_metrics) + _identifiers(given_weighted):
            metrics.resolve(identifier, (None, 1), (1, 1))
        for factor in _identifiers(loss_weights):
            _checked_factor(factor)
        self.torch_maker: Any = None
        if optimizers.is_torch(optimizer) or _is_factory(optimizer):
            self.optimizer: Any = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
            self.torch_maker = None if self.optimizer is not None else optimizer
        else:
            self.optimizer = optimizers.get(optimizer)
        self.given_optimizer = self.optimizer
        self._scales_loss = bool(others.get("auto_scale_loss", True))
        self.outputs: list[Output] = []
        self._shapes: list[Any] = []
        self.measuring = OutputMetrics([], [])
        self._bound_to: Any = None
        self.engine: Any = None  # the `Engine`, which the first trainer makes

    @property
    def has_optimizer(self) -> bool:
        """Whether there is an optimizer, or a function that makes one."""
        return self.optimizer is not None or self.torch_maker is not None

    @property
    def has_loss(self) -> bool:
        """Whether there is a loss that needs targets."""
        return bool(_identifiers(self.given_loss))

    # --- resolved for a model --------------------------------------------------------------------------------

    def use_loss_scaling_for(self, policy: DTypePolicy) -> None:
        """Scale losses for a model in mixed_float16, unless `auto_scale_loss` is False; torch's optimizers do not."""
        optimizer = self.given_optimizer
        is_wanted = self._scales_loss and policy.name == "mixed_float16" and isinstance(optimizer, Optimizer)
        if is_wanted and not isinstance(optimizer, LossScaleOptimizer):
            self.optimizer = LossScaleOptimizer(optimizer, name="loss_scale_optimizer")

    def outputs_for(self, shapes: Any, layer_names: list[str] | None) -> list[Output]:
        """The outputs of a model, with losses and metrics as given, not resolved. ValueError for what fits no output.

        Args:
            shapes: a structure of shapes, like what the model returns.
            layer_names: the names of the layers of the outputs, where there is a graph.
        """
        found = paths(shapes)
        names: list[Any] = [None] if len(found) == 1 else names_of([path for path, _ in found], layer_names)
        known = names_of([path for path, _ in found], layer_names) if len(found) == 1 else names
        parts = zip(
            names,
            found,
            spread(self.given_loss, known, "loss"),
            spread(self.given_loss_weights, known, "loss_weights"),
            spread(self.given_metrics, known, "metrics", several=True),
            spread(self.given_weighted, known, "weighted_metrics", several=True),
            strict=True,
        )
        return [
            Output(
                name, path, loss, None if factor is None else float(factor), _identifiers(plain), _identifiers(weighted)
            )
            for name, (path, _), loss, factor, plain, weighted in parts
        ]

    def bind(self, model: Any, output_shape: Any, y: Any) -> None:
        """Resolve losses and metrics for these outputs and targets, and make a torch optimizer given as a class."""
        if self.torch_maker is not None and self.optimizer is None:
            self.optimizer = self.given_optimizer = self.torch_maker([p for p in model.parameters() if p.requires_grad])
            if not isinstance(self.optimizer, torch.optim.Optimizer):
                raise TypeError(f"compile: the optimizer function returned {self.optimizer!r}, no torch optimizer.")
        multipliers.apply(self.optimizer, model, self.multipliers)
        layer_names = model.output_names if getattr(model, "_network", None) is not None else None
        outputs = self.outputs_for(output_shape, layer_names)
        shapes = [shape for _, shape in paths(output_shape)]
        targets = choose(outputs, y, "y", needed=self.has_loss)
        y_shapes = [shape if t is None else tuple(t.shape) for shape, t in zip(shapes, targets, strict=True)]
        key = [(shape, len(of), of[-1] if len(of) > 1 else None) for shape, of in zip(shapes, y_shapes, strict=True)]
        if self._bound_to == key:
            return
        given = [output.plain for output in outputs], [output.weighted for output in outputs]
        for output, shape, of in zip(outputs, shapes, y_shapes, strict=True):
            output.loss = None if output.loss is None else losses.resolve(output.loss, shape, of)
            options = shape, of, bool(getattr(output.loss, "from_logits", False))
            output.plain = [metrics.resolve(metric, *options) for metric in output.plain]
            output.weighted = [metrics.resolve(metric, *options) for metric in output.weighted]
        self.outputs, self._shapes = outputs, shapes
        self.measuring = OutputMetrics(outputs, metric_names(outputs, *given))
        self._bound_to = key

    def bound_state(self) -> dict[str, Any]:
        """The attributes that `bind` sets, and the engine if there is one: what a pass depends on."""
        names = ("outputs", "_shapes", "_bound_to", "measuring", *(["engine"] if self.engine is not None else []))
        return {name: getattr(self, name) for name in names}

    def check_targets(self, y: Any, name: str) -> None:
        """Check all targets before training: DataError that names the row for those that cannot be learned."""
        if not self.has_loss:
            return
        if y is None:
            raise DataError(f"{name} is missing: the loss needs targets.")
        for output, shape, target in zip(self.outputs, self._shapes, choose(self.outputs, y, name, True), strict=True):
            if output.loss is not None:
                shown = name if output.name is None else f"{name}[{output.name!r}]"
                output.loss.check_targets(target, shape, shown)

    @property
    def loss_objects(self) -> list[Any]:
        """The losses and traceable metrics, and the objects that they call: all whose attributes a step depends on."""
        own = [output.loss for output in self.outputs if output.loss is not None]
        own += [metric for metric in self.measuring.metrics if metric.traceable]
        return own + [value for one in own for value in vars(one).values() if callable(value)]

    @property
    def loss_names(self) -> list[str]:
        """The names of the losses of the outputs, where there are several."""
        names = [f"{output.name}_loss" for output in self.outputs if output.loss is not None]
        return names if len(names) > 1 else []

    def directions(self) -> dict[str, str | None]:
        """For each name in the logs, "max" if it should grow, "min" if it should shrink, None if unknown."""
        found: dict[str, str | None] = dict.fromkeys(["loss", *self.loss_names], "min")
        found |= {n: metrics.direction(m) for n, m in zip(self.measuring.names, self.measuring.metrics, strict=True)}
        return found | {f"val_{name}": way for name, way in found.items()}

    # --- in steps --------------------------------------------------------------------------------------------

    def compute_loss(self, y: Any, outputs: Any, weight: Any) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """The scalar loss of one batch, without penalties, and the loss of each output where there are several; None
        where no output has a loss."""
        values, total = [], None
        targets = choose(self.outputs, y, "y", needed=True)
        weights = choose(self.outputs, weight, "sample_weight", needed=False)
        for output, target, sample_weight in zip(self.outputs, targets, weights, strict=True):
            if output.loss is None:
                continue
            values.append(output.loss(target, output.pick(outputs), sample_weight))
            term = values[-1] if output.factor is None else values[-1] * output.factor
            total = term if total is None else total + term
        return total, values if len(values) > 1 else []

    def losses_so_far(self) -> dict[str, torch.Tensor]:
        """The mean losses of the pass, by name; none before its first step."""
        if self.engine is None or not self.engine.sums.rows:
            return {}
        return dict(zip(["loss", *self.loss_names], self.engine.sums.means(), strict=True))

    def sums_so_far(self) -> list[Variables]:
        """The sums of the metrics of the pass; none before its first step."""
        return [] if self.engine is None or not self.engine.sums.rows else self.engine.sums.metrics

    # --- config ----------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any] | None:
        """Plain JSON data in Keras's form; None if a torch optimizer, loss or metric has no config."""
        optimizer = self.given_optimizer if self.torch_maker is None else self.torch_maker
        try:
            config = {
                "optimizer": serialize(optimizer),
                "loss": serialize(self.given_loss),
                "loss_weights": serialize(self.given_loss_weights),
                "metrics": serialize(self.given_metrics) or None,
                "weighted_metrics": serialize(self.given_weighted) or None,
                "run_eagerly": self.run_eagerly,
                "steps_per_execution": 1,
                "jit_compile": self.jit_compile,
            }
        except ValueError:
            return None
        return config if self._scales_loss else {**config, "auto_scale_loss": False}

    def extra_config(self) -> dict[str, Any]:
        """What files have besides `get_config`, without defaults: see `take_compile_config`."""
        given = {"learning_rate_multipliers": self.multipliers, "jit_compile": self.jit_compile}
        return {key: value for key, value in given.items() if value not in ({}, None, "auto")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Compiled:
        """The inverse of `get_config`."""
        optimizer = config.get("optimizer", "rmsprop")
        others = {key: config[key] for key in (*_EXTRA_KEYS, "auto_scale_loss") if config.get(key) is not None}
        return cls(
            optimizers.deserialize(optimizer) if isinstance(optimizer, dict) else optimizer,
            config.get("loss"),
            config.get("loss_weights"),
            config.get("metrics"),
            config.get("weighted_metrics"),
            bool(config.get("run_eagerly")),
            others,
        )


def take_compile_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """Remove and return the arguments of `compile` from a model's config in a file; None if it was not compiled.

    Besides "compile_config" there is what Keras's compile does not take, and `jit_compile`: in Keras's files it is not
    the argument of `compile` but what Keras made of it, True on JAX and on GPUs.
    """
    extra_config = {key: config.pop(key, None) for key in _EXTRA_KEYS}
    how = config.pop("compile_config", None)
    if not isinstance(how, dict):
        return None
    return how | {key: value for key, value in extra_config.items() if value is not None or key in how}


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


def _instantiated(given: Any, family: Any) -> Any:
    """The same lists and dicts with objects for classes and configs.

    If only `bind` made them, custom objects would not be in scope, and each call of it would give them other names.
    """
    if isinstance(given, Mapping):
        is_config = "class_name" in given and "config" in given
        return (
            family.deserialize(given)
            if is_config
            else {key: _instantiated(item, family) for key, item in given.items()}
        )
    if isinstance(given, (list, tuple)):
        return [_instantiated(item, family) for item in given]
    return family.get(given) if isinstance(given, type) else given


def _identifiers(given: Any) -> list[Any]:
    """The identifiers in a nested list or dict; a config {"class_name", "config"} is one."""
    if given is None:
        return []
    if isinstance(given, Mapping) and not ("class_name" in given and "config" in given):
        return [found for item in given.values() for found in _identifiers(item)]
    if isinstance(given, (list, tuple)):
        return [found for item in given for found in _identifiers(item)]
    return [given]


def _checked_factor(value: Any) -> None:
    if not arguments.is_real(value):
        raise ValueError(f"compile: loss_weights are numbers, found {value!r}.")
