//! Named cases of interest channels.

use longseq::{DType, KeptAmong};

use super::{ChannelsBackwardCase, ChannelsCase};
use crate::named::{AnyCase, Named};

/// One user, four channels.
fn one_user(dtype: DType, length: usize, candidates: usize, width: usize) -> ChannelsCase {
    let (histories, targets) = (vec![length], vec![candidates]);
    ChannelsCase { dtype, histories, targets, width, top_k: 100, ..Default::default() }
}

fn forward(name: &'static str, case: ChannelsCase) -> Named {
    Named { name, operation: "interest_channels", case: AnyCase::Channels(case) }
}

fn backward(name: &'static str, forward: ChannelsCase) -> Named {
    let case = AnyCase::ChannelsBackward(ChannelsBackwardCase { forward, ..Default::default() });
    Named { name, operation: "interest_channels_backward", case }
}

/// What the benchmarks time: the published shape (`d40`, a history of 5000), and those of target attention.
pub(crate) fn benchmarks() -> Vec<Named> {
    let published = one_user(DType::F32, 5000, 1, 40);
    let all = ChannelsCase { among: KeptAmong::All, ..published.clone() };
    vec![
        forward("interest_channels_c1_l5000_d40_f32", published.clone()),
        forward("interest_channels_all_c1_l5000_d40_f32", all),
        forward("interest_channels_c16_l10000_d64_f32", one_user(DType::F32, 10_000, 16, 64)),
        forward("interest_channels_c16_l10000_d64_bf16", one_user(DType::Bf16, 10_000, 16, 64)),
        backward("interest_channels_backward_c1_l5000_d40_f32", published),
    ]
}

/// The same kinds of work, small.
pub(crate) fn small() -> Vec<Named> {
    let all = ChannelsCase { among: KeptAmong::All, ..one_user(DType::F32, 1000, 1, 40) };
    vec![
        forward("interest_channels_c16_l1000_d64_f32", one_user(DType::F32, 1000, 16, 64)),
        forward("interest_channels_all_c1_l1000_d40_f32", all),
        backward("interest_channels_backward_c16_l1000_d64_f32", one_user(DType::F32, 1000, 16, 64)),
    ]
}
