"""Callbacks: what happens at the edges of training, of an epoch, and of a batch."""

from __future__ import annotations

from fanin.callbacks.backup_and_restore import BackupAndRestore
from fanin.callbacks.base import Callback
from fanin.callbacks.callback_list import CallbackList
from fanin.callbacks.csv_logger import CSVLogger
from fanin.callbacks.early_stopping import EarlyStopping
from fanin.callbacks.history import History
from fanin.callbacks.lambda_callback import LambdaCallback
from fanin.callbacks.learning_rate_scheduler import LearningRateScheduler
from fanin.callbacks.model_checkpoint import ModelCheckpoint
from fanin.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from fanin.callbacks.swap_ema_weights import SwapEMAWeights
from fanin.callbacks.tensorboard import TensorBoard
from fanin.callbacks.terminate_on_nan import TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
