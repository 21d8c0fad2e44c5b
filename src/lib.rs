//! Kernels for long user-behaviour sequences.
