"""The contract of the Dense layer, row by row, and the tests that hold each row.

The rows come from three documents: "blog" is a walk through Keras's Dense, "keras-3.6" its page in Keras 3.6, "tf-1.4"
its page in TensorFlow 1.4. The texts are the project's own words. `python tests/contract_rows.py` runs the tests and
prints a table; its last line says how many rows hold.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "contract"
ALL = ("blog", "keras-3.6", "tf-1.4")
BOTH = ("keras-3.6", "tf-1.4")
OLD = ("tf-1.4",)


@dataclass(frozen=True)
class Row:
    """One row: its number, the documents it comes from, what it asks, and the tests, as "file::function".

    `status` is "tested", or "later" for a row that nothing holds yet.
    """

    number: int
    sources: tuple[str, ...]
    text: str
    tests: tuple[str, ...]
    status: str = "tested"


def row(number: int, sources: tuple[str, ...], text: str, **tests: str) -> Row:
    """A row from file names and the functions in them: operation="a b" means test_operation.py::test_a and ::test_b."""
    names = tuple(f"test_{file}.py::test_{name}" for file, found in tests.items() for name in found.split())
    return Row(number, sources, text, names, "tested" if names else "later")


ONE_CALL = "several_calls_are_ambiguous_and_the_message_says_where_to_ask lists_for_several_inputs_and_outputs"
SINGLE = "never_called_single only_real_tensors_single symbolic_single"
AT = "never_called_at only_real_tensors_at symbolic_at"
LEDGER = "never_called_losses_and_updates only_real_tensors_losses_and_updates symbolic_losses_and_updates"
MASKS = f"masks_travel_with_the_symbols {ONE_CALL}"
EACH = "get_at_each_call a_missing_index_says_how_many_there_are"
EACH_MASK = "masks_at_each_call a_missing_index_says_how_many_there_are"
AGREE = "shapes_answer_for_several_calls_that_agree"
ORDER = "weights_are_ordered_by_declared_trainability_then_creation freezing_never_reorders_weights"

ROWS = (
    # --- the operation ---
    row(
        1, ALL, "output = activation(inputs @ kernel + bias)",
        operation="output_is_input_times_kernel_plus_bias without_activation_it_is_linear "
        "the_activation_is_applied_to_each_element_after_the_bias other_dtypes_are_cast_to_that_of_the_layer "
        "numpy_arrays_are_taken",
    ),
    row(
        2, ALL, "inputs of rank above 2: the last axis meets axis 0 of the kernel",
        operation="the_last_axis_of_the_input_meets_the_first_of_the_kernel one_layer_meets_ranks_2_3_and_4 "
        "an_input_of_higher_rank_is_not_copied an_input_that_is_not_contiguous_gives_the_same "
        "only_the_last_dimension_must_be_known",
    ),
    row(
        3, BOTH, "(B, ..., I) -> (B, ..., U), known without running; rank 1 refused",
        operation="compute_output_shape_says_what_running_gives rank_1_is_refused_except_in_a_transform "
        "another_last_dimension_is_refused",
        torch="vmap_and_jacrev_over_single_rows per_sample_gradients",
    ),
    row(
        4, OLD, "the first layer says the input shape, later ones need not",
        operation="the_example_of_2017 ways_to_give_the_input_shape a_batch_size_can_be_given "
        "without_a_shape_the_first_call_builds",
        behaviours_2017="a_model_is_deferred_until_it_knows_its_shape",
    ),
    # --- arguments ---
    row(
        5, ALL, "units: a positive integer",
        arguments="units_is_a_positive_integer other_units_are_refused order_and_defaults_are_those_of_the_pages "
        "all_arguments_by_position arguments_are_attributes_of_the_same_name",
    ),
    row(
        6, ALL, "activation: None, name, callable, layer or module",
        arguments="activation_by_name activation_that_is_a_function_a_module_or_a_layer "
        "an_activation_with_weights_trains_with_the_layer unknown_activations_are_refused_with_a_hint",
        operation="without_activation_it_is_linear",
    ),
    row(7, ALL, "use_bias: without one, bias is None", arguments="use_bias all_arguments_by_position"),
    row(
        8, ALL, "kernel_initializer, bias_initializer: all forms; glorot_uniform's bounds",
        arguments="the_default_kernel_is_glorot_uniform forms_of_an_initializer "
        "bias_initializer_gets_the_shape_of_the_bias an_initializer_of_the_wrong_shape_is_refused "
        "an_initializer_tensor_stays_its_owners",
    ),
    row(
        9, ALL, "kernel_regularizer, bias_regularizer: one entry in losses each",
        arguments="kernel_and_bias_regularizers the_orthogonal_regularizer_reaches_the_kernel "
        "your_own_regularizer_class",
        behaviours_2017="three_regularizers_on_one_dense_are_three_losses",
        models="a_models_penalties_train_its_weights",
    ),
    row(
        10, ALL, "activity_regularizer: on the output after the activation, for each call",
        arguments="the_activity_regularizer_sees_the_output_after_the_activation_over_the_batch "
        "one_activity_loss_for_each_call an_empty_batch_has_a_finite_activity_loss",
    ),
    row(
        11, ALL, "kernel_constraint, bias_constraint: after each update, in fit and in plain loops",
        arguments="constraints_hold_after_each_update weight_clipping_of_a_wgan_critic_in_a_plain_loop",
    ),
    row(
        12, ("keras-3.6",), "lora_rank, lora_alpha: a frozen kernel and two small trainable matrices",
        lora="lora_rank_freezes_the_kernel_and_adds_two_small_matrices lora_arguments_are_in_the_config "
        "lora_trains_at_less_cost_than_the_whole_kernel",
    ),
    row(
        13, ("keras-3.6",), "enable_lora(rank) on an existing layer",
        lora="enable_lora_on_an_existing_layer enable_lora_is_refused_before_build_twice_and_with_a_constraint",
    ),
    row(
        14, BOTH, "further keywords: name, trainable, dtype, input_shape, ...; unknown ones named",
        arguments="keywords_of_every_layer weights_are_used_when_the_layer_is_built forms_of_dtype "
        "a_mixed_policy_keeps_float32_weights_and_computes_in_16_bits an_unknown_argument_is_named "
        "two_ways_to_say_the_shape_are_refused an_input_shape_that_is_none_is_refused",
    ),
    # --- properties ---
    row(15, OLD, "activity_regularizer", properties="activity_regularizer"),
    row(
        16, OLD, "dtype: of the weights, as a name",
        properties="dtype_is_that_of_the_weights_as_a_name",
        torch="moving_to_another_dtype_takes_the_policy_along",
    ),
    row(17, OLD, "name: unique unless given", properties="name_is_unique_unless_given"),
    row(
        18, OLD, "graph: the symbolic calls that reach the layer, as an fx graph",
        properties="graph_is_an_fx_graph_of_the_calls_that_reach_the_layer graph_computes_what_the_layers_compute "
        "graph_of_two_calls_holds_both",
        unasked="never_called_graph_and_scope only_real_tensors_graph_and_scope symbolic_graph_and_scope",
    ),
    row(
        19, OLD, "scope_name: the name scope of the weights",
        properties="scope_name_is_distinct_for_layers_named_alike",
        unasked="never_called_graph_and_scope only_real_tensors_graph_and_scope symbolic_graph_and_scope",
    ),
    row(20, OLD, "input: of the only call", properties=f"input_and_output_of_one_call {ONE_CALL}", unasked=SINGLE),
    row(
        21, OLD, "output: of the only call",
        properties=f"input_and_output_of_one_call {ONE_CALL}",
        unasked=f"{SINGLE} layers_of_a_sequential_built_by_a_real_call_have_symbolic_calls",
    ),
    row(22, OLD, "input_mask: of the only call", properties=MASKS, unasked=SINGLE),
    row(23, OLD, "output_mask: of the only call", properties=MASKS, unasked=SINGLE),
    row(24, OLD, "input_shape: also of calls that agree", properties=AGREE, unasked=SINGLE),
    row(25, OLD, "output_shape: also of calls that agree", properties=AGREE, unasked=SINGLE),
    row(
        26, OLD, "losses: weights once each, symbolic calls, the last real call",
        properties="losses_hold_each_weight_once_and_each_symbolic_call losses_are_those_of_the_last_outermost_call "
        "collect_losses_keeps_those_of_all_calls losses_carry_gradients_into_a_plain_loop "
        "a_frozen_weight_gives_no_loss losses_of_a_first_call_under_no_grad_are_plain_numbers",
        models="losses_of_a_model_are_those_of_its_layers losses_of_a_model_leave_out_other_calls_of_a_shared_layer",
        unasked=LEDGER,
    ),
    row(
        27, OLD, "updates: in training order, none of frozen layers",
        properties="updates_in_training_order_and_none_while_frozen an_update_is_handed_back_as_it_was_given "
        "updates_of_symbolic_calls",
        models="updates_of_a_model updates_run_in_a_plain_loop a_frozen_layer_is_not_updated_by_fit",
        behaviours_2017="updates_run_in_training",
    ),
    row(28, OLD, "trainable_variables", properties=f"{ORDER} trainable_and_requires_grad_are_one_truth"),
    row(29, OLD, "trainable_weights", properties=f"{ORDER} freezing_before_the_first_call_holds_after_it"),
    row(30, OLD, "non_trainable_variables", properties=ORDER),
    row(31, OLD, "non_trainable_weights", properties=ORDER, models="trainability_toggles_as_a_whole_and_in_part"),
    row(32, OLD, "variables", properties=ORDER),
    row(
        33, OLD, "weights: declared trainable ones first, then by creation",
        properties=f"{ORDER} weights_of_a_model_go_layer_by_layer_and_shared_ones_count_once",
    ),
    # --- methods ---
    row(
        34, OLD, "__init__",
        arguments="order_and_defaults_are_those_of_the_pages all_arguments_by_position",
        methods="a_new_layer_has_no_weights_and_no_calls",
    ),
    row(
        35, OLD, "__call__: builds, adds a node, sets the history; arguments reach call",
        methods="a_call_on_a_symbol_builds_adds_a_node_and_sets_the_history "
        "a_call_without_the_shape_it_needs_is_a_value_error positional_and_keyword_arguments_reach_call "
        "the_inputs_may_be_given_by_name a_call_without_inputs_is_a_type_error",
        behaviours_2017="unknown_arguments_of_a_call_are_refused",
    ),
    row(
        36, OLD, "__deepcopy__: equal, nothing shared, no calls; pickle too",
        methods="copies_are_equal_and_share_nothing a_copy_of_an_unbuilt_layer_builds_by_itself "
        "a_copy_keeps_losses_and_updates_that_are_functions a_copy_shares_tied_weights_as_the_original_does",
        unasked="a_copy_was_never_called",
    ),
    row(
        37, OLD, "add_loss(losses, inputs=None)",
        methods="add_loss_takes_one_or_a_list losses_for_given_inputs_are_the_same_objects "
        "a_loss_added_outside_a_call_that_has_a_history_warns",
        behaviours_2017="a_loss_in_build_and_one_in_call",
        unasked=LEDGER,
    ),
    row(
        38, OLD, "add_update(updates, inputs=None)",
        methods="updates_for_given_inputs_are_the_same_objects",
        behaviours_2017="an_update_in_build_and_one_in_call",
        unasked=LEDGER,
    ),
    row(
        39, OLD, "get_losses_for(inputs)",
        methods="losses_for_given_inputs_are_the_same_objects unconditional_losses_hold_the_penalties_of_weights "
        "conditional_losses_follow_the_graph",
        unasked=LEDGER,
    ),
    row(40, OLD, "get_updates_for(inputs)", methods="updates_for_given_inputs_are_the_same_objects", unasked=LEDGER),
    row(
        41, OLD, "add_variable: creates, or returns the existing one",
        methods="add_variable_creates_or_returns_the_existing_one add_variable_inside_build_and_dtypes",
        unasked=LEDGER,
    ),
    row(
        42, OLD, "add_weight: in the order of 2017 and in that of Keras 3",
        methods="add_weight_takes_the_order_of_2017_and_that_of_keras_3 names_of_weights shapes_of_weights "
        "add_weight_refuses_what_it_does_not_know a_constraint_of_a_weight_is_applied_after_each_update",
    ),
    row(43, OLD, "apply(inputs): the call; with a function, the walk of PyTorch",
        methods="apply_is_the_call_or_the_walk_of_pytorch"),
    row(44, OLD, "build(input_shape): makes the weights once", methods="build_makes_the_weights_once",
        torch="first_calls_from_8_threads"),
    row(45, OLD, "call(inputs): the bare computation", methods="call_is_the_bare_computation"),
    row(
        46, OLD, "compute_mask(inputs, mask=None)",
        methods="compute_mask in_a_call_a_layer_without_masks_drops_it_with_a_warning",
        behaviours_2017="a_mask_reaches_call_and_a_custom_compute_mask_sets_it "
        "a_mask_given_at_a_symbolic_call_reaches_it",
    ),
    row(47, OLD, "count_params(): ValueError before build", methods="count_params"),
    row(
        48, OLD, "get_config(): plain JSON data",
        methods="config_is_plain_json_and_comes_back config_has_the_keys_and_order_of_keras "
        "a_function_that_no_file_could_bring_back_is_refused_by_name",
    ),
    row(
        49, OLD, "from_config(config): reads Keras 2's and 3's, leaves it unchanged",
        methods="config_is_plain_json_and_comes_back a_config_of_keras_2_is_read "
        "a_config_of_keras_3_is_read_with_its_extra_keys build_config_brings_the_weights_back",
        models="config_of_a_nested_model_comes_back_with_names_and_order",
        behaviours_2017="layer_order_and_names_survive_json",
    ),
    row(50, OLD, "get_input_at(i)", methods=EACH, unasked=AT),
    row(51, OLD, "get_output_at(i)", methods=EACH, unasked=AT),
    row(52, OLD, "get_input_mask_at(i)", methods=EACH_MASK, unasked=AT),
    row(53, OLD, "get_output_mask_at(i)", methods=EACH_MASK, unasked=AT),
    row(54, OLD, "get_input_shape_at(i)", methods=EACH, unasked=AT),
    row(55, OLD, "get_output_shape_at(i)", methods=EACH, unasked=AT),
    row(56, OLD, "get_weights(): copies as numpy arrays", methods="get_weights_gives_copies_in_order"),
    row(
        57, OLD, "set_weights(weights): a wrong count or shape changes nothing",
        methods="set_weights_round_trip set_weights_refuses_and_changes_nothing set_weights_before_build_is_refused "
        "set_weights_refuses_objects",
        behaviours_2017="weights_are_set_and_read_in_the_order_of_the_layers",
    ),
)  # fmt: skip


class Outcomes:
    """A pytest plugin that notes, for each "file::function", the outcomes of its cases."""

    def __init__(self) -> None:
        self.found: dict[str, list[bool]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = Path(report.nodeid.partition("[")[0]).name
        if report.when == "call" or not report.passed:
            self.found[name].append(report.passed)


def main() -> int:
    """Run the tests of all rows, print the table, and return 0 if every row that should hold does."""
    outcomes = Outcomes()
    tests = sorted({str(FOLDER / test) for found in ROWS for test in found.tests})
    pytest.main(["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", *tests], plugins=[outcomes])
    print()
    held, failed = 0, 0
    for found in ROWS:
        results = [outcomes.found[test] for test in found.tests]
        holds = bool(results) and all(cases and all(cases) for cases in results)
        held += holds
        failed += not holds and found.status == "tested"
        verdict = "holds" if holds else found.status if found.status == "later" else "FAILS"
        print(f"{found.number:2}  {verdict:5}  {len(found.tests):2} tests  {', '.join(found.sources):24}  {found.text}")
    print(f"contract: {held} of {len(ROWS)} rows hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
