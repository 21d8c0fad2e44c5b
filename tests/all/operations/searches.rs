//! The tests of searches by rows, signs and keys.

use super::{registry, run};

tests!(search on cpu cuda webgpu: (
    matches_eta,
    matches_muse,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_a_bias,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_when_every_score_ties,
    matches_reference_on_a_long_history,
    finds_the_best_in_any_order,
    finds_the_newest_in_any_order,
    matches_reference_on_random_batches,
    ignores_rows_that_belong_to_nobody,
    sorts_nan_last,
    takes_rows_near_the_limits,
    takes_int8_rows_with_any_scale,
    adds_up_wide_rows_by_blocks,
    keeps_no_rows_of_zeros,
    keeps_the_newest_of_a_key,
    ignores_bits_past_the_width,
    packs_exact_zeros_to_zero,
    names_limits_before_it_allocates,
    takes_batches_of_nobody,
    refuses_what_a_score_does_not_take,
    matches_reference_on_the_small_named_cases,
));
