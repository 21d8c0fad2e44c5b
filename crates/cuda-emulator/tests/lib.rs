//! The tests of `cuda-emulator`: `emulator/` is one test binary, `hidden_functions.rs` another.
//!
//! They are a package of their own because profiles apply to whole packages: the emulator is optimised, and its tests
//! would cost as much to compile as the emulator itself.
