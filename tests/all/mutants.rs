//! Backends that are wrong on purpose (`longseq_check::mutant`): the check must catch each.

#[test]
fn every_fault_of_target_attention_is_caught() {
    longseq_check::target_attention::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_target_attention_is_caught() {
    longseq_check::target_attention::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_din_is_caught() {
    longseq_check::din::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_din_is_caught() {
    longseq_check::din::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_sdim_is_caught() {
    longseq_check::sdim::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_sdim_is_caught() {
    longseq_check::sdim::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_lookups_is_caught() {
    longseq_check::lookup::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_table_gradients_is_caught() {
    longseq_check::lookup::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_decoupled_embeddings_is_caught() {
    longseq_check::decoupled::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_decoupled_embeddings_is_caught() {
    longseq_check::decoupled::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_search_is_caught() {
    longseq_check::search::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_attention_over_selections_is_caught() {
    longseq_check::selected::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_attention_over_selections_is_caught() {
    longseq_check::selected::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_attention_over_selections_from_tables_is_caught() {
    longseq_check::selected::tables_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_tin_is_caught() {
    longseq_check::tin::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_tin_is_caught() {
    longseq_check::tin::backward_tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_interest_channels_is_caught() {
    longseq_check::interest_channels::tests::every_fault_is_caught();
}

#[test]
fn every_fault_of_gradients_of_interest_channels_is_caught() {
    longseq_check::interest_channels::backward_tests::every_fault_is_caught();
}

#[test]
fn sub_ranges_read_one_after_the_other_are_caught() {
    longseq_check::sub_ranges::every_fault_is_caught();
}
