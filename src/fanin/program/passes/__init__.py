"""The passes that simplify a traced graph, in their order; each is one file with one function."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from fanin.program.passes.bias_gradients import sum_rows_by_product
from fanin.program.passes.common_subexpressions import merge_common_subexpressions
from fanin.program.passes.cross_entropy import simplify_cross_entropy
from fanin.program.passes.dead_code import drop_dead_code
from fanin.program.passes.dropout_draws import draw_random_words
from fanin.program.passes.fused_activations import fuse_activations
from fanin.program.passes.hoisting import mark_constants
from fanin.program.passes.narrow_products import rearrange_narrow_products
from fanin.program.passes.onednn_products import use_onednn
from fanin.program.passes.packed_weights import pack_weights
from fanin.program.passes.partitioned_products import split_products
from fanin.program.passes.prepared_values import mark_prepared
from fanin.program.passes.redundant_copies import drop_copies
from fanin.program.passes.redundant_views import drop_views
from fanin.program.passes.small_products import mark_small_products
from fanin.program.passes.step_counters import mark_counters
from fanin.program.passes.widened_products import widen_small_products
from fanin.program.trace import Traced

Pass = Callable[[fx.Graph], None]
TracedPass = Callable[[Traced], None]

PASSES: tuple[Pass, ...] = (
    drop_views,
    drop_copies,
    merge_common_subexpressions,
    simplify_cross_entropy,
    drop_dead_code,
    mark_constants,
    draw_random_words,
    sum_rows_by_product,
    split_products,
    fuse_activations,
    widen_small_products,
    rearrange_narrow_products,
    use_onednn,
    mark_small_products,
    mark_counters,
    drop_dead_code,
)

# Further passes, where static tensors do not change: from one `Program.prepare` to the next, or for good.
UNTIL_PREPARED: tuple[TracedPass, ...] = (mark_prepared,)
FOR_GOOD: tuple[TracedPass, ...] = (mark_prepared, pack_weights)

# Passes after which results may differ in the last bits, or in their random numbers; the others are exact.
ROUNDING: tuple[Pass, ...] = (
    draw_random_words,
    simplify_cross_entropy,
    sum_rows_by_product,
    split_products,
    widen_small_products,
    rearrange_narrow_products,
    use_onednn,
    mark_small_products,
)
