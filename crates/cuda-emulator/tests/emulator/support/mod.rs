//! Shared by the emulator's tests: a device, a table runner for single instructions, edge values, and rounding.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of the support module")]

pub(crate) mod gpu;
pub(crate) mod rounding;
pub(crate) mod table;
pub(crate) mod word;

pub(crate) use gpu::{Gpu, launch};
pub(crate) use table::{Near, Row, Table};
pub(crate) use word::{Expect, Outcome, Pair, Width, Word};
