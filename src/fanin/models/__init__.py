"""Models: layers that can be trained, evaluated, run over data and saved."""

from fanin.models.cloning import clone_model, model_from_json
from fanin.models.loading import load_model, save_model
from fanin.models.model import Model
from fanin.models.sequential import Sequential

__all__ = ["Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]
