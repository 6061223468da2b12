"""`compile`, and what it was told: in properties, and as plain data."""

from __future__ import annotations

from typing import Any

from fanin.models.step_hooks import StepHooks
from fanin.registry import serialize_config, with_objects
from fanin.training.compiled import Compiled


class Compiling(StepHooks):
    """The part of a model that is told how to train."""

    def compile(  # Keras's meaning, not nn.Module's
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        learning_rate_multipliers: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: a name, a fanin optimizer, or torch.optim's: an instance, a class, or a function(parameters).
            loss: a name, a Loss, a torch.nn loss, or a callable (y_true, y_pred) -> value for each row, or a scalar.
                For several outputs one for all, or a list by position, or a dict by name (the keys of the outputs, or
                the names of their layers); None for an output that is not trained.
            loss_weights: a factor for each loss, likewise.
            metrics: names, metrics (torchmetrics' too) or callables; sample weights do not touch them. For several
                outputs a list or dict of such lists.
            weighted_metrics: likewise, with sample weights.
            run_eagerly: whether steps run operation by operation, as for a debugger, or for functions that count or
                print in Python. Default: a step is traced once for each kind of batch, and runs compiled.
            learning_rate_multipliers: pattern -> factor on the learning rate of the weights it matches, by the names of
                layers and weights: {"embedding": 0.1, "*/bias": 2.0}. The last pattern that matches holds.
            **kwargs: jit_compile=True hands the traced step to torch's inductor; auto_scale_loss=False leaves the loss
                of a model in mixed_float16 unscaled, see `fanin.optimizers.LossScaleOptimizer`.

        Raises ValueError or TypeError for anything unknown; the model then stays as it was compiled before.
        """
        others = {**kwargs, "learning_rate_multipliers": learning_rate_multipliers}
        compiled = Compiled(optimizer, loss, loss_weights, metrics, weighted_metrics, run_eagerly, others)
        compiled.use_loss_scaling_for(self.dtype_policy)
        known = self._known_outputs()
        if known is not None:
            compiled.outputs_for(*known)  # what fits no output fails now
        self.__dict__["_compiled_with"] = compiled

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self.__dict__.get("_compiled_with") is not None

    @property
    def run_eagerly(self) -> bool:
        """Whether steps run operation by operation, as `compile` was told; may be set."""
        return self.compiled and self._compiled().run_eagerly

    @run_eagerly.setter
    def run_eagerly(self, value: bool) -> None:
        self._compiled().run_eagerly = bool(value)

    @property
    def jit_compile(self) -> Any:
        """What `compile` was told of `jit_compile`: True, False or "auto"."""
        return self._compiled().jit_compile

    @property
    def optimizer(self) -> Any:
        """The optimizer that the model was compiled with; None before."""
        return self._compiled().optimizer if self.compiled else None

    @property
    def programs(self) -> list[Any]:
        """The compiled steps that `fit`, `evaluate` and `predict` made so far, as `fanin.program.Program`.

        `model.programs[-1].print()` shows the lines that run, with shapes, operations, FLOPs, bytes and memory.
        """
        compiled, prediction = self.__dict__.get("_compiled_with"), self.__dict__.get("_prediction")
        engine = None if compiled is None else compiled.engine
        return [program for owner in (engine, prediction) if owner is not None for program in owner.programs]

    @property
    def loss(self) -> Any:
        """The loss that the model was compiled with, as it was given."""
        return self._compiled().given_loss

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns: "loss", the losses of several outputs, and the metrics."""
        compiled = self._compiled()
        return ["loss", *compiled.loss_names, *compiled.measuring.names]

    def _known_outputs(self) -> tuple[Any, list[str] | None] | None:
        """The shapes of the outputs and the names of their layers, if the model knows them before it is called."""
        return None if self._network is None else (self.output_shape, self.output_names)

    def get_compile_config(self) -> dict[str, Any] | None:
        """How the model was compiled, as plain JSON data, or None."""
        compiled = self.__dict__.get("_compiled_with")
        return None if compiled is None else compiled.get_config()

    def described_compile(self) -> dict[str, Any]:
        """What a file says of it beside the model's config, under "compile_config" and fanin's own keys; {} of None."""
        config = self.get_compile_config()
        if config is None:
            return {}
        described = {"compile_config": serialize_config(self, "get_compile_config", config)}
        compiled = self.__dict__.get("_compiled_with")  # None where the model has a `compile` of its own
        return described if compiled is None else described | compiled.extra_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `get_compile_config` described."""
        objects = {key: with_objects(config.get(key)) for key in ("loss", "metrics", "weighted_metrics")}
        compiled = Compiled.from_config({**config, **objects})
        compiled.use_loss_scaling_for(self.dtype_policy)
        self.__dict__["_compiled_with"] = compiled
