//! The tests of `longseq-check` on every backend: `target_attention::cuda::merges_random_parts` and so on.

use longseq_check::device::{Kind, run_test};
use longseq_check::registry;

/// Runs a test of a stem on a backend; where there is no device, that is printed.
fn run(backend: Kind, stem: &str, name: &str) {
    if let Some(device) = backend.device() {
        run_test(&device, stem, name);
    }
}

/// Stamps the tests of a stem on the backends that have its calls: `tests!(stem on cpu cuda webgpu: (names))`.
macro_rules! tests {
    ($stem:ident on $($backend:ident)*: $tests:tt) => {
        mod $stem {
            $(tests_on!($backend $stem $tests);)*
            tests_on!(list $stem $tests);
        }
    };
}

/// The tests of a stem on one backend, or the check that none of them is left out.
macro_rules! tests_on {
    (cpu $stem:ident $tests:tt) => {
        mod cpu {
            stamp!(Cpu $stem $tests);
        }
    };
    (cuda $stem:ident $tests:tt) => {
        #[cfg(feature = "cuda")]
        mod cuda {
            stamp!(Cuda $stem $tests);
        }
    };
    (webgpu $stem:ident $tests:tt) => {
        #[cfg(feature = "wgpu")]
        mod webgpu {
            stamp!(Wgpu $stem $tests);
        }
    };
    (list $stem:ident ($($test:ident),* $(,)?)) => {
        #[test]
        fn every_test_is_listed() {
            assert_eq!(super::registry::names(stringify!($stem)), [$(stringify!($test)),*]);
        }
    };
}

macro_rules! stamp {
    ($kind:ident $stem:ident ($($test:ident),* $(,)?)) => {
        $(#[test]
        fn $test() {
            super::super::run(longseq_check::device::Kind::$kind, stringify!($stem), stringify!($test));
        })*
    };
}

mod channels;
mod device;
mod long_sums;
mod searches;
mod tables;

tests!(target_attention on cpu cuda webgpu: (
    matches_published_multi_head_attention,
    matches_published_jagged_attention,
    matches_qin,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_weighting,
    divides_by_the_length_of_each_history,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_users,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    merges_to_the_whole,
    merges_random_parts,
    matches_reference_on_the_small_named_cases,
    takes_finite_masks_for_scores,
    takes_scales_near_the_limits,
    keeps_nan_from_anywhere_to_its_candidates,
    weighs_values_near_the_limits,
    merges_dead_parts,
    counts_weights_down_to_normal_numbers,
));

tests!(target_attention_backward on cpu cuda webgpu: (
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_weighting,
    divides_by_the_length_of_each_history,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_with_a_gradient_of_lse,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_users_and_candidates,
    matches_reference_on_random_batches,
    adds_up_many_candidates,
    writes_what_is_asked_for,
    takes_finite_masks_for_scores,
    adds_weights_of_large_scores_up_to_one,
    keeps_nan_to_its_users,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    splits_gradients_of_merges,
    matches_reference_on_the_small_named_cases,
));

tests!(din on cpu cuda webgpu: (
    matches_fuxictr,
    matches_deepctr,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_with_every_activation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
    takes_scores_near_the_limits,
    keeps_nan_to_its_candidates,
    weighs_behaviours_near_the_limits,
));

tests!(din_backward on cpu cuda webgpu: (
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_with_every_activation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_users_and_candidates,
    matches_reference_on_wide_rows_in_parts,
    matches_reference_with_many_pieces_and_parts,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    takes_scores_near_the_limits,
    keeps_nan_to_what_depends_on_it,
    ignores_what_a_removed_behaviour_holds,
    ignores_candidates_whose_behaviours_are_all_removed,
    takes_large_numbers_of_dice,
    takes_batches_without_candidates,
    ignores_rows_that_belong_to_nobody,
    measures_layers,
    matches_reference_on_the_small_named_cases,
));

tests!(sdim on cpu cuda webgpu: (
    matches_fuxictr,
    matches_fuxictr_simhash_of_eta,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_without_normalisation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_long_histories_in_many_buckets,
    matches_reference_on_random_batches,
    matches_reference_with_weights,
    forgets_the_oldest_behaviours,
    decays_as_weights_do,
    multiplies_numbers_that_are_not_finite,
    refuses_weights_and_factors_that_do_not_fit,
    reads_tables_that_requests_share,
    finds_users_without_a_table,
    writes_tables_in_slots,
    makes_tables_of_all_slots,
    refuses_slots_that_name_nothing,
    matches_reference_with_signatures_of_items,
    finds_items_that_are_not_there,
    finds_signatures_outside_of_items,
    refuses_items_that_do_not_fit,
    ignores_rows_that_belong_to_nobody,
    hashes_exact_zeros_to_zero,
    hashes_whole_numbers_exactly,
    adds_tables_of_two_halves,
    matches_reference_on_the_small_named_cases,
    keeps_numbers_that_are_not_finite_in_their_bucket,
    normalises_rows_near_the_limits,
    queries_tables_that_hold_anything,
    adds_up_equal_rows,
));

tests!(sdim_backward on cpu cuda webgpu: (
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_without_normalisation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_candidates,
    matches_reference_with_weights,
    matches_reference_on_random_batches,
    keeps_nan_to_its_buckets,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
    takes_tables_that_hold_anything,
    adds_up_gradients_that_cancel_along_a_row,
    finds_signatures_outside,
    matches_gradients_with_signatures_of_items,
    refuses_what_does_not_fit,
    takes_users_in_parts,
));

tests!(lookup on cpu cuda webgpu: (
    looks_rows_up_from_every_storage,
    looks_rows_up_in_bags,
    looks_up_random_bags,
    matches_reference_on_the_small_named_cases,
    adds_up_long_bags,
    finds_an_id_outside_at_the_end_of_a_long_bag,
    averages_rows_near_the_limits,
    weighs_rows_in_bags,
    skips_ids_outside,
    keeps_a_nan_weight_to_its_bag,
));

tests!(lookup_backward on cpu cuda webgpu: (
    matches_reference_from_every_storage,
    matches_reference_in_bags,
    matches_reference_in_every_form,
    matches_reference_on_unusual_numbers,
    matches_reference_on_long_runs,
    matches_reference_on_random_lookups,
    matches_reference_on_the_small_named_cases,
    keeps_nan_to_the_rows_that_read_it,
    matches_reference_with_weights,
    sorts_columns_and_their_continuations,
    refuses_bad_ids_and_orders,
    updates_rows_with_every_optimiser,
    updates_rows_of_any_width,
    steps_on_gradients_whose_squares_vanish,
    updates_random_rows,
    refuses_bad_updates_and_changes_nothing,
));

tests!(decoupled on cpu cuda webgpu: (
    matches_dare,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_from_every_storage,
    matches_reference_with_one_to_four_features,
    matches_reference_with_few_and_many_kept,
    matches_reference_with_the_most_kept_from_every_storage,
    matches_reference_when_every_score_ties,
    matches_reference_where_kept_rows_cancel,
    matches_reference_with_ids_outside,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    ignores_rows_that_belong_to_nobody,
    sorts_nan_last,
    ignores_what_a_behaviour_without_weight_holds,
    matches_reference_on_the_small_named_cases,
    finds_the_best_in_any_order,
    names_the_limit_before_it_allocates,
    takes_scores_near_the_limits,
    weighs_rows_near_the_limits,
    counts_rows_without_weight,
    takes_scales_near_the_limits,
));

tests!(decoupled_backward on cpu cuda webgpu: (
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_from_every_storage,
    matches_reference_with_one_to_four_features,
    matches_reference_with_few_and_many_kept,
    matches_reference_when_every_score_ties,
    matches_reference_on_unusual_numbers,
    matches_reference_with_ids_outside,
    matches_reference_on_hot_rows,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    keeps_nan_to_its_candidate,
    ignores_what_a_removed_behaviour_holds,
    removes_a_score_that_overflows,
    takes_more_kept_than_a_search_finds,
    ignores_removed_behaviours_in_several_chunks,
    weighs_rows_near_the_limits,
    names_the_widest_rows,
    ignores_rows_that_belong_to_nobody,
    names_the_backward_call,
    refuses_what_has_no_gradient,
    matches_reference_on_the_small_named_cases,
));

tests!(selected on cpu cuda webgpu: (
    matches_published_attention,
    matches_muse,
    matches_twin,
    matches_sim,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_mix,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    attends_to_what_a_search_kept,
    keeps_nan_to_its_candidate,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    takes_finite_masks_for_scores,
    leaves_terms_out,
    weighs_values_near_the_limits,
    reads_views_at_any_offset,
    finds_positions_and_counts_outside,
    takes_batches_of_nobody,
    refuses_what_does_not_fit,
    counts_similarities,
    counts_edges_and_unusual_numbers,
    counts_random_similarities,
    counts_the_newest,
    counts_the_newest_of_random_batches,
    matches_reference_on_the_small_named_cases,
));

tests!(selected_backward on cpu cuda webgpu: (
    matches_published_gradients,
    matches_differences_of_muse,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_every_mix,
    matches_reference_with_grouped_heads,
    matches_reference_with_a_bias,
    matches_reference_with_a_gradient_of_lse,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_on_a_long_history,
    matches_reference_on_rows_that_many_read,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    takes_finite_masks_for_scores,
    keeps_nan_to_what_depends_on_it,
    ignores_what_a_removed_behaviour_holds,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
));

tests!(tin on cpu cuda webgpu: (
    matches_the_formula,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_given_positions,
    matches_reference_with_few_and_many_positions,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    keeps_nan_to_its_candidate,
    ignores_rows_that_belong_to_nobody,
    counts_positions_from_the_newest,
    finds_positions_outside,
    refuses_what_does_not_fit,
    matches_reference_on_the_small_named_cases,
));

tests!(tin_backward on cpu cuda webgpu: (
    matches_differences_of_the_formula,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_with_given_positions,
    matches_reference_with_few_and_many_positions,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_with_large_scores,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    ignores_rows_that_belong_to_nobody,
    adds_up_by_position,
    weighs_equal_large_scores,
    finds_positions_outside_of_gradients,
    refuses_gradients_that_do_not_fit,
));

tests!(sub_ranges on cpu cuda webgpu: (
    takes_histories_anywhere,
    takes_long_histories_anywhere,
    takes_histories_of_narrow_rows_anywhere,
    searches_histories_anywhere,
    takes_bags_anywhere,
    writes_gradients_of_histories_anywhere,
    writes_gradients_of_narrow_rows_anywhere,
    writes_gradients_of_long_histories_anywhere,
    refuses_gradients_of_rows_that_users_share,
    refuses_what_takes_no_sub_ranges,
    reads_the_newest_without_a_copy,
));

tests!(forks on cpu cuda webgpu: (
    reports_to_each_fork_its_own_errors,
    reports_to_concurrent_threads_their_own_errors,
    serves_mixed_requests_on_many_threads,
    lets_everything_be_dropped_in_any_order,
));

tests!(hostile on cpu cuda webgpu: (
    refuses_sizes_beyond_the_address_space,
    refuses_zero_widths_and_counts,
    checks_before_it_allocates,
    reports_outputs_that_no_memory_holds,
    takes_batches_of_nobody,
    takes_parameters_of_any_size_for_nobody,
    finds_ids_outside_at_every_place,
    finds_positions_and_counts_outside_a_selection,
    decodes_int8_rows_with_any_scale,
    reads_views_at_any_offset,
    takes_more_kept_than_there_are,
    adds_up_to_the_end_of_the_range,
    refuses_wrong_weights,
    skips_whole_bags,
));
