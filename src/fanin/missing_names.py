"""What scripts for Keras ask for and fanin does not have: said where they ask, with what takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

_LOOKUP = "numpy, pandas or scikit-learn before the model, or the estimators of fanin.sklearn"
_TORCH_LAYER = "the torch.nn.Module, which is a layer; its shapes are torch's, channels first"
_LOSS = "a function of your own, (y_true, y_pred) -> a value for each row, in torch's operations"
_TORCH_OPTIMIZER = "an optimizer of torch.optim's kind, made of model.parameters(): compile(optimizer=...) takes any"
_INSTEAD = {
    "fanin": {
        "Variable": "self.add_weight(shape=..., initializer=..., trainable=...) in a layer, or torch.nn.Parameter",
        "KerasTensor": "fanin.SymbolicTensor",
        "applications": "a torch.nn.Module, such as torchvision's, as a layer",
        "datasets": "the sources themselves, such as sklearn.datasets",
        "distribution": "torch.distributed",
        "dtype_policies": "fanin.DTypePolicy and fanin.mixed_precision",
        "ops": "torch's functions, also on what fanin.Input returns: torch.matmul, torch.cat, x.mean(dim=1)",
        "preprocessing": "fanin.utils and torch.utils.data",
        "random": "torch's: torch.randn, torch.rand, torch.randint",
        "wrappers": "the estimators of fanin.sklearn",
    },
    "fanin.layers": {
        "CategoryEncoding": _LOOKUP,
        "Discretization": _LOOKUP,
        "Dot": "(a * b).sum(-1, keepdim=True)",
        "EinsumDense": "Dense, which acts on the last axis at every rank",
        "GlobalAveragePooling1D": "x.mean(dim=1)",
        "Hashing": _LOOKUP,
        "IntegerLookup": _LOOKUP,
        "Lambda": "the function itself, f(x), also on what fanin.Input returns",
        "Permute": "x.transpose(1, 2)",
        "RepeatVector": "x.unsqueeze(1).expand(-1, n, -1)",
        "StringLookup": _LOOKUP,
        "TimeDistributed": "the layer itself: Dense acts on the last axis at every rank",
        "TorchModuleWrapper": "fanin.layers.TorchModule; in a Sequential, the module itself",
    },
    "fanin.losses": {
        "BinaryFocalCrossentropy": _LOSS,
        "CategoricalFocalCrossentropy": _LOSS,
        "CategoricalGeneralizedCrossEntropy": _LOSS,
        "Circle": _LOSS,
        "CTC": _LOSS,
        "Dice": _LOSS,
        "Tversky": _LOSS,
    },
    "fanin.metrics": {
        "BinaryIoU": "torchmetrics.JaccardIndex, in metrics=",
        "ConcordanceCorrelation": "torchmetrics.ConcordanceCorrCoef, in metrics=",
        "F1Score": "torchmetrics.F1Score, in metrics=",
        "FBetaScore": "torchmetrics.FBetaScore, in metrics=",
        "IoU": "torchmetrics.JaccardIndex, in metrics=",
        "MeanIoU": "torchmetrics.JaccardIndex, in metrics=",
        "OneHotIoU": "torchmetrics.JaccardIndex, in metrics=",
        "OneHotMeanIoU": "torchmetrics.JaccardIndex, in metrics=",
        "PearsonCorrelation": "torchmetrics.PearsonCorrCoef, in metrics=",
        "PrecisionAtRecall": "torchmetrics.PrecisionAtFixedRecall, in metrics=",
        "RecallAtPrecision": "torchmetrics.RecallAtFixedPrecision, in metrics=",
        "SensitivityAtSpecificity": "torchmetrics.SensitivityAtSpecificity, in metrics=",
        "SpecificityAtSensitivity": "torchmetrics.SpecificityAtSensitivity, in metrics=",
        "Sum": "torchmetrics.SumMetric",
    },
    "fanin.optimizers": {
        "Adafactor": "torch.optim.Adafactor(model.parameters())",
        "Ftrl": _TORCH_OPTIMIZER,
        "Lamb": _TORCH_OPTIMIZER,
        "MultiOptimizer": "compile(learning_rate_multipliers={pattern: factor}), or parameter groups of torch.optim",
        "Muon": "torch.optim.Muon for the matrices, and another optimizer for the rest, in a loop of your own",
        "ScheduleFreeAdamW": _TORCH_OPTIMIZER,
    },
    "fanin.utils": {
        "PyDataset": "torch.utils.data.Dataset",
        "disable_interactive_logging": "fit(..., verbose=2)",
        "plot_model": "model.summary()",
        "timeseries_dataset_from_array": "torch.utils.data.Dataset, or x.unfold",
    },
}
_TORCH_LAYERS = ("Conv", "Depthwise", "Separable", "MaxPool", "Average", "LSTM", "GRU", "RNN", "MultiHead", "Bidirect")


def explain(module: str) -> Callable[[str], NoReturn]:
    """A `__getattr__` for a module: AttributeError, which for Keras's names says what to write.

    >>> import fanin
    >>> fanin.layers.Lambda
    Traceback (most recent call last):
    AttributeError: fanin.layers has no 'Lambda'. Instead: the function itself, f(x), also on what fanin.Input returns.
    """
    known = _INSTEAD[module]

    def missing(name: str) -> NoReturn:
        instead = known.get(name)
        if instead is None and module == "fanin.layers" and name.startswith(_TORCH_LAYERS):
            instead = _TORCH_LAYER
        if instead is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        raise AttributeError(f"{module} has no {name!r}. Instead: {instead}.", name=name)

    return missing
