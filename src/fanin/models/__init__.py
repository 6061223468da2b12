"""Models: layers that can be trained, evaluated, run over data and saved."""

from fanin.models.sequential import Sequential

__all__ = ["Sequential"]
