//! Every test of every operation, by stem and name.

use longseq::prelude::*;

use crate::case::Rules;

/// The stems that have tests.
pub const STEMS: [&str; 24] = [
    "target_attention",
    "target_attention_backward",
    "din",
    "din_backward",
    "sdim",
    "sdim_backward",
    "lookup",
    "lookup_backward",
    "decoupled",
    "decoupled_backward",
    "search",
    "selected",
    "selected_backward",
    "selected_tables",
    "tin",
    "tin_backward",
    "interest_channels",
    "interest_channels_backward",
    "long_sums",
    "sub_ranges",
    "memory",
    "waits",
    "forks",
    "hostile",
];

/// A test of one operation on any backend.
#[derive(Debug)]
pub struct Test<B> {
    /// The operation's stem.
    pub stem: &'static str,
    /// The test's name, unique in its stem.
    pub name: &'static str,
    /// Runs the test; it panics where the backend fails it.
    pub run: fn(&B, Rules),
}

/// The tests of a stem; none where there is no such stem.
pub fn tests<B: Backend + Sync>(stem: &str) -> Vec<Test<B>> {
    match stem {
        "target_attention" => crate::target_attention::tests::tests(),
        "target_attention_backward" => crate::target_attention::backward_tests::tests(),
        "din" => crate::din::tests::tests(),
        "din_backward" => crate::din::backward_tests::tests(),
        "sdim" => crate::sdim::tests::tests(),
        "sdim_backward" => crate::sdim::backward_tests::tests(),
        "lookup" => crate::lookup::tests::tests(),
        "lookup_backward" => crate::lookup::backward_tests::tests(),
        "decoupled" => crate::decoupled::tests::tests(),
        "decoupled_backward" => crate::decoupled::backward_tests::tests(),
        "search" => crate::search::tests::tests(),
        "selected" => crate::selected::tests::tests(),
        "selected_backward" => crate::selected::backward_tests::tests(),
        "selected_tables" => crate::selected::tables_tests::tests(),
        "tin" => crate::tin::tests::tests(),
        "tin_backward" => crate::tin::backward_tests::tests(),
        "interest_channels" => crate::interest_channels::tests::tests(),
        "interest_channels_backward" => crate::interest_channels::backward_tests::tests(),
        "long_sums" => crate::long_sums::tests(),
        "sub_ranges" => crate::sub_ranges::tests(),
        "memory" => crate::memory::tests(),
        "waits" => crate::waits::tests(),
        "forks" => crate::forks::tests(),
        "hostile" => crate::hostile::tests(),
        _ => Vec::new(),
    }
}

/// The names of the tests of a stem.
pub fn names(stem: &str) -> Vec<&'static str> {
    tests::<longseq::AnyBackend>(stem).iter().map(|test| test.name).collect()
}

/// Lists functions of a backend and its rules as the tests of a stem.
macro_rules! list_tests {
    ($stem:literal: $($name:ident),* $(,)?) => {
        /// The tests of this stem.
        pub fn tests<B: Backend + Sync>() -> Vec<$crate::registry::Test<B>> {
            vec![$($crate::registry::Test { stem: $stem, name: stringify!($name), run: $name::<B> }),*]
        }
    };
}
pub(crate) use list_tests;
