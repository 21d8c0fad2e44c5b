//! The counts of a launch, and the emulator's modes: shuffled schedules, approximate instructions at the limits of their
//! error, summation orders of matrix instructions. A mode changes only what is unspecified on hardware.

mod approximation;
mod counts;
mod matrix_order;
mod schedule;
