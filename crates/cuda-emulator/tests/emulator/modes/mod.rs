//! What a launch counts, and the emulator's modes: shuffled schedules, approximate instructions at the edges of their error, matrix sums
//! in several orders. A mode must change what hardware leaves open, and nothing else.

mod approximation;
mod counts;
mod matrix_order;
mod schedule;
