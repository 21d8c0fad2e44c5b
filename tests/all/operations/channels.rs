//! The tests of interest channels.

use super::{registry, run};

tests!(interest_channels on cpu webgpu cuda: (
    matches_independent_results,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_few_and_many_channels,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_axes_of_any_length,
    matches_reference_with_axes_near_each_other,
    matches_reference_with_zero_channels,
    matches_reference_on_a_long_history,
    keeps_the_best_in_any_order,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    keeps_nan_of_a_behaviour_to_its_user,
    ignores_rows_that_belong_to_nobody,
    names_the_candidate_whose_axes_depend_on_each_other,
    takes_the_first_of_equal_channels,
    refuses_what_does_not_fit,
    takes_parameters_of_any_size_for_nobody,
    matches_reference_on_the_small_named_cases,
));

tests!(interest_channels_backward on cpu webgpu cuda: (
    matches_independent_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_few_and_many_channels,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_axes_near_each_other,
    matches_reference_with_zero_channels,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    writes_what_is_asked_for,
    ignores_rows_that_belong_to_nobody,
    finds_positions_and_counts_outside,
    matches_reference_on_the_small_named_cases,
));
