//! The tests of attention over a selection from tables.

use super::{registry, run};

tests!(selected_tables on cpu cuda webgpu: (
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_widths,
    matches_reference_from_every_storage,
    matches_reference_with_one_to_four_features,
    matches_reference_with_every_mix,
    matches_reference_with_grouped_heads,
    matches_reference_on_unusual_numbers,
    matches_reference_with_few_and_many_kept,
    matches_reference_with_ids_outside,
    matches_reference_on_hot_rows,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    keeps_nan_to_its_candidate,
    ignores_rows_that_belong_to_nobody,
    aggregates_as_decoupled_embeddings_do,
    ignores_rows_of_removed_behaviours,
    finds_positions_counts_and_ids_outside,
    takes_batches_of_nobody,
    refuses_what_does_not_fit,
));
