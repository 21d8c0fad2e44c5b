//! Named cases of TIN.

use longseq::DType;

use super::TinCase;
use crate::named::{AnyCase, Named};

/// One user with rows of 64.
fn one_user(name: &'static str, dtype: DType, length: usize, candidates: usize) -> Named {
    let (histories, targets) = (vec![length], vec![candidates]);
    let case = TinCase { dtype, histories, targets, width: 64, positions: 431, ..Default::default() };
    Named { name, operation: "tin", case: AnyCase::Tin(case) }
}

/// What the benchmarks time: the shapes of target attention's.
pub(crate) fn benchmarks() -> Vec<Named> {
    vec![
        one_user("tin_c16_l10000_d64_f32", DType::F32, 10_000, 16),
        one_user("tin_c16_l10000_d64_bf16", DType::Bf16, 10_000, 16),
        one_user("tin_c100_l10000_d64_f32", DType::F32, 10_000, 100),
        one_user("tin_c1_l100000_d64_f32", DType::F32, 100_000, 1),
    ]
}

/// The same kinds of work, small.
pub(crate) fn small() -> Vec<Named> {
    vec![
        one_user("tin_c16_l1000_d64_f32", DType::F32, 1000, 16),
        one_user("tin_c16_l1000_d64_bf16", DType::Bf16, 1000, 16),
    ]
}
