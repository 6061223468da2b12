"""Compiled functions of tensors: trace, simplify, plan memory, run as one straight line. Knows tensors, no layer."""

from fanin.program.inductor import InductorProgram as InductorProgram
from fanin.program.run import Program as Program
