"""Named low-rank adapters (LoRA) on any model: add, choose, mix, scale, combine, merge, save and remove them."""

from fanin.adapters.adding import add, remove, set_active
from fanin.adapters.combining import combine, scale
from fanin.adapters.files import load, save
from fanin.adapters.merging import merge, merged, unmerge
from fanin.adapters.report import Report, report
from fanin.adapters.rows import rows

__all__ = [
    "Report",
    "add",
    "combine",
    "load",
    "merge",
    "merged",
    "remove",
    "report",
    "rows",
    "save",
    "scale",
    "set_active",
    "unmerge",
]
