//! The tests of `longseq`: `all/` is one test binary, since each costs a link. `memory.rs` belongs to `longseq-check`, which is
//! optimised: it calls kernels on a million behaviours.
//!
//! They are a package of their own because profiles apply to whole packages: `longseq-check` is optimised, and calls of the
//! CPU's generic kernels in optimised tests would have them compiled again.
