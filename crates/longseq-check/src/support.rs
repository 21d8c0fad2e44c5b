//! Which backend has which operation, for which storage type: asked of the backend by running a small case.

use std::collections::HashSet;
use std::fmt::Write as _;

use longseq::{AnyBackend, DType, SearchScore};

use crate::decoupled::{DecoupledBackwardCase, DecoupledCase};
use crate::device::TestDevice;
use crate::din::{DinBackwardCase, DinCase, StatisticsCase};
use crate::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use crate::lookup::{LookupBackwardCase, LookupCase, Storage, UpdateRowsCase};
use crate::named::{AnyCase, Named};
use crate::sdim::{SdimBackwardCase, SdimCase};
use crate::search::{Compared, NewestCase, SearchCase};
use crate::selected::{
    HistogramCase, SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase, SelectedTableCase,
};
use crate::target_attention::{AttentionBackwardCase, AttentionCase, MergeBackwardCase, MergeCase};
use crate::tin::{TinBackwardCase, TinCase};

/// Every call of every operation: its stem and its name, as [`Calls`](crate::Calls) know it.
pub const CALLS: [(&str, &str); 40] = [
    ("target_attention", "target_attention"),
    ("target_attention", "merge_attention"),
    ("target_attention_backward", "target_attention_backward"),
    ("target_attention_backward", "merge_attention_backward"),
    ("din", "din"),
    ("din_backward", "din_backward"),
    ("din_backward", "din_statistics"),
    ("sdim", "sdim_signatures"),
    ("sdim", "sdim_encode"),
    ("sdim", "sdim_append"),
    ("sdim", "sdim_remove"),
    ("sdim", "sdim_decay"),
    ("sdim", "sdim_add_tables"),
    ("sdim", "sdim_query"),
    ("sdim", "sdim_attend"),
    ("sdim_backward", "sdim_query_backward"),
    ("sdim_backward", "sdim_encode_backward"),
    ("sdim_backward", "sdim_attend_backward"),
    ("lookup", "lookup"),
    ("lookup_backward", "sort_ids"),
    ("lookup_backward", "lookup_backward"),
    ("lookup_backward", "update_rows"),
    ("decoupled", "decoupled_search"),
    ("decoupled", "decoupled_aggregate"),
    ("decoupled", "decoupled_attend"),
    ("decoupled_backward", "decoupled_search_backward"),
    ("decoupled_backward", "decoupled_aggregate_backward"),
    ("decoupled_backward", "decoupled_attend_backward"),
    ("search", "search"),
    ("search", "pack_signs"),
    ("selected", "selected_attention"),
    ("selected", "similarity_histogram"),
    ("selected", "newest_histogram"),
    ("selected_backward", "selected_attention_backward"),
    ("selected_tables", "selected_table_attention"),
    ("selected_tables", "selected_table_attention_backward"),
    ("tin", "tin"),
    ("tin_backward", "tin_backward"),
    ("interest_channels", "interest_channels"),
    ("interest_channels_backward", "interest_channels_backward"),
];

/// A small case of a call on rows stored so; `None` where the operation does not know that storage type.
pub fn small_case(call: &'static str, storage: Storage) -> Option<Named> {
    let dtype = match storage {
        Storage::F32 => Some(DType::F32),
        Storage::F16 => Some(DType::F16),
        Storage::Bf16 => Some(DType::Bf16),
        Storage::Int8 => None,
    };
    let (stem, _) = CALLS.iter().find(|(_, name)| *name == call)?;
    let case = match (*stem, call) {
        (_, "merge_attention") => AnyCase::Merge(MergeCase { dtype: dtype?, rows: 5, ..Default::default() }),
        (_, "merge_attention_backward") => {
            AnyCase::MergeBackward(MergeBackwardCase { dtype: dtype?, rows: 5, ..Default::default() })
        }
        // Tables are `f32` whatever the rows are.
        (_, "sdim_add_tables" | "sdim_decay") if storage != Storage::F32 => return None,
        ("target_attention", _) => AnyCase::Attention(AttentionCase { dtype: dtype?, ..Default::default() }),
        ("target_attention_backward", _) => {
            let forward = AttentionCase { dtype: dtype?, ..Default::default() };
            AnyCase::AttentionBackward(AttentionBackwardCase { forward, ..Default::default() })
        }
        (_, "din_backward") => {
            let forward = DinCase { dtype: dtype?, ..Default::default() };
            AnyCase::DinBackward(DinBackwardCase { forward, ..Default::default() })
        }
        (_, "din_statistics") => {
            let forward = DinCase { dtype: dtype?, ..Default::default() };
            AnyCase::DinStatistics(StatisticsCase { forward })
        }
        ("din", _) => AnyCase::Din(DinCase { dtype: dtype?, ..Default::default() }),
        ("sdim", _) => AnyCase::Sdim(SdimCase { dtype: dtype?, ..Default::default() }),
        ("sdim_backward", _) => {
            let forward = SdimCase { dtype: dtype?, ..Default::default() };
            AnyCase::SdimBackward(SdimBackwardCase { forward, ..Default::default() })
        }
        ("lookup", _) => AnyCase::Lookup(LookupCase { storage, ..Default::default() }),
        (_, "update_rows") => AnyCase::UpdateRows(UpdateRowsCase { dtype: dtype?, ..Default::default() }),
        ("lookup_backward", _) => {
            let forward = LookupCase { storage, ..Default::default() };
            AnyCase::LookupBackward(LookupBackwardCase { forward, sorted: true, ..Default::default() })
        }
        // 8-bit tables have no gradient.
        ("decoupled_backward", _) => {
            dtype?;
            let forward = DecoupledCase { storage, ..Default::default() };
            AnyCase::DecoupledBackward(DecoupledBackwardCase { forward, ..Default::default() })
        }
        (_, "pack_signs") => {
            let stored = match dtype? {
                DType::F16 => Compared::F16,
                DType::Bf16 => Compared::Bf16,
                _ => Compared::F32,
            };
            AnyCase::Search(SearchCase { score: SearchScore::Hamming, stored, ..Default::default() })
        }
        ("search", _) => AnyCase::Search(searched(storage)),
        (_, "newest_histogram") => {
            AnyCase::Newest(NewestCase { search: searched(storage), ..Default::default() })
        }
        // Similarities are `f32` whatever was searched.
        (_, "similarity_histogram") => {
            (storage == Storage::F32).then_some(AnyCase::Histogram(HistogramCase::default()))?
        }
        ("selected" | "selected_backward" | "tin" | "tin_backward", _) => {
            small_of_selected_or_tin(stem, dtype?)
        }
        // 8-bit tables have no gradient.
        (_, "selected_table_attention_backward") => dtype.map(|_| small_of_selected_tables(storage, true))?,
        ("selected_tables", _) => small_of_selected_tables(storage, false),
        ("interest_channels", _) => AnyCase::Channels(ChannelsCase { dtype: dtype?, ..Default::default() }),
        ("interest_channels_backward", _) => {
            let forward = ChannelsCase { dtype: dtype?, ..Default::default() };
            AnyCase::ChannelsBackward(ChannelsBackwardCase { forward, ..Default::default() })
        }
        _ => AnyCase::Decoupled(DecoupledCase { storage, ..Default::default() }),
    };
    Some(Named { name: call, operation: call, case })
}

/// The small cases of all calls on rows of every storage, each once, and of searches among what else they compare.
pub fn small_cases() -> Vec<AnyCase> {
    let of_calls = CALLS.iter().flat_map(|(_, call)| Storage::ALL.map(|storage| small_case(call, storage)));
    let mut cases: Vec<AnyCase> = of_calls.flatten().map(|named| named.case).collect();
    let by = |score, stored, bias| SearchCase { score, stored, bias, ..Default::default() };
    let dot = SearchScore::Dot { scale: 0.5 };
    cases.extend(
        [by(dot, Compared::Int8, true), by(SearchScore::Match, Compared::F32, false)].map(AnyCase::Search),
    );
    let mut seen = HashSet::new();
    cases.retain(|case| seen.insert(format!("{case:?}")));
    cases
}

fn small_of_selected_or_tin(stem: &str, dtype: DType) -> AnyCase {
    let selected = SelectedCase { dtype, ..Default::default() };
    let tin = TinCase { dtype, ..Default::default() };
    match stem {
        "selected" => AnyCase::Selected(selected),
        "selected_backward" => {
            AnyCase::SelectedBackward(SelectedBackwardCase { forward: selected, ..Default::default() })
        }
        "tin" => AnyCase::Tin(tin),
        _ => AnyCase::TinBackward(TinBackwardCase { forward: tin, ..Default::default() }),
    }
}

fn small_of_selected_tables(storage: Storage, backward: bool) -> AnyCase {
    let forward = SelectedTableCase { storage, ..Default::default() };
    if backward {
        AnyCase::SelectedTableBackward(SelectedTableBackwardCase { forward, ..Default::default() })
    } else {
        AnyCase::SelectedTable(forward)
    }
}

/// A search among rows stored so.
fn searched(storage: Storage) -> SearchCase {
    let stored = match storage {
        Storage::F32 => Compared::F32,
        Storage::F16 => Compared::F16,
        Storage::Bf16 => Compared::Bf16,
        Storage::Int8 => Compared::Codes,
    };
    SearchCase { stored, ..Default::default() }
}

/// What a device answers to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It runs.
    Yes,
    /// It answers `Unsupported`.
    No,
    /// It fails otherwise.
    Fails,
    /// The operation does not know the storage type.
    NotApplicable,
}

impl Answer {
    /// Asks a device.
    pub fn of(device: &AnyBackend, call: &'static str, storage: Storage) -> Self {
        let Some(case) = small_case(call, storage) else { return Self::NotApplicable };
        match device.measure_case(&case, &mut |call| call()) {
            Ok(()) => Self::Yes,
            Err(failure) if failure.is_unsupported() => Self::No,
            Err(_) => Self::Fails,
        }
    }

    /// A cell of the table.
    fn cell(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Fails => "fails",
            Self::NotApplicable => "",
        }
    }
}

/// The table in Markdown: a row per call, a column per device and storage type.
pub fn table(devices: &[(&str, AnyBackend)], stem: Option<&str>, storages: &[Storage]) -> String {
    let (mut text, mut rule) = ("| operation |".to_owned(), "|---|".to_owned());
    for (name, _) in devices {
        for storage in storages {
            let _ = write!(text, " {name} {} |", storage.name());
            rule.push_str("---|");
        }
    }
    let _ = writeln!(text, "\n{rule}");
    for (_, call) in CALLS.iter().filter(|(of, _)| stem.is_none_or(|stem| stem == *of)) {
        let _ = write!(text, "| `{call}` |");
        for (_, device) in devices {
            for &storage in storages {
                let _ = write!(text, " {} |", Answer::of(device, call, storage).cell());
            }
        }
        text.push('\n');
    }
    text
}
