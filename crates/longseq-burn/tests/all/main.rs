//! The tests of the adapter.
