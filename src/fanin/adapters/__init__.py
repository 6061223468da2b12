"""Named low-rank adapters (LoRA) on any model: add, choose, scale, combine, merge and remove them."""

from fanin.adapters.adding import add, remove, set_active
from fanin.adapters.combining import combine, scale
from fanin.adapters.merging import merge, merged, unmerge
from fanin.adapters.report import Report, report

__all__ = ["Report", "add", "combine", "merge", "merged", "remove", "report", "scale", "set_active", "unmerge"]
