//! The tests of the device: memory that is written in place, and waits.

use super::{registry, run};

tests!(memory on cpu cuda webgpu: (
    copies_to_and_from_any_element,
    copies_more_than_a_block,
    keeps_the_order_of_calls,
    takes_sources_that_change_afterwards,
    refuses_copies_of_other_lengths,
));

tests!(waits on cpu cuda webgpu: (
    downloads_without_blocking,
    reports_errors_without_blocking,
    leaves_errors_of_dropped_waits_to_the_next,
    downloads_on_many_threads,
));
