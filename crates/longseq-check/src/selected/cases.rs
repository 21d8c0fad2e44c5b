//! Named cases of attention over a selection.

use longseq::DType;

use super::{HistogramCase, SelectedBackwardCase, SelectedCase};
use crate::named::{AnyCase, Named};

/// One user's candidates over `top_k` of `length` behaviours each.
fn one_user(length: usize, candidates: usize, top_k: usize, width: usize) -> SelectedCase {
    let (histories, targets) = (vec![length], vec![candidates]);
    SelectedCase { histories, targets, top_k, width, value_width: Some(width), ..Default::default() }
}

fn attention(name: &'static str, case: SelectedCase) -> Named {
    Named { name, operation: "selected_attention", case: AnyCase::Selected(case) }
}

/// All gradients, stored as what they belong to.
fn backward(name: &'static str, forward: SelectedCase) -> Named {
    let case = SelectedBackwardCase { forward, narrow: true, ..Default::default() };
    Named { name, operation: "selected_attention_backward", case: AnyCase::SelectedBackward(case) }
}

fn histogram(name: &'static str, candidates: usize) -> Named {
    let case = HistogramCase { targets: vec![candidates], ..Default::default() };
    Named { name, operation: "similarity_histogram", case: AnyCase::Histogram(case) }
}

/// What the benchmarks time.
pub(crate) fn benchmarks() -> Vec<Named> {
    let dtype = DType::Bf16;
    vec![
        attention("selected_attention_k64_c100_l10000_d64_f32", one_user(10_000, 100, 64, 64)),
        attention(
            "selected_attention_k64_c100_l10000_d64_bf16",
            SelectedCase { dtype, ..one_user(10_000, 100, 64, 64) },
        ),
        attention("selected_attention_k50_c1000_l100000_d32_f32", one_user(100_000, 1000, 50, 32)),
        backward("selected_attention_backward_k64_c100_l10000_d64_f32", one_user(10_000, 100, 64, 64)),
        histogram("similarity_histogram_k50_c1000", 1000),
    ]
}

/// The same kinds of work, small.
pub(crate) fn small() -> Vec<Named> {
    let dtype = DType::Bf16;
    vec![
        attention("selected_attention_k64_c20_l1000_d64_f32", one_user(1000, 20, 64, 64)),
        attention(
            "selected_attention_k64_c20_l1000_d64_bf16",
            SelectedCase { dtype, ..one_user(1000, 20, 64, 64) },
        ),
        backward("selected_attention_backward_k64_c20_l1000_d64_f32", one_user(1000, 20, 64, 64)),
        histogram("similarity_histogram_k50_c100", 100),
    ]
}
