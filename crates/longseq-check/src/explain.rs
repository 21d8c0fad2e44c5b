//! Everything about one named case on one device: formula, shapes, work, launches, errors.

use std::fmt::Write as _;
use std::time::Instant;

use longseq::AnyBackend;

use crate::case::Failure;
use crate::compare::recorded;
use crate::decoupled::DecoupledCase;
use crate::device::TestDevice;
use crate::din::DinCase;
use crate::interest_channels::ChannelsCase;
use crate::lookup::LookupCase;
use crate::named::{AnyCase, Named};
use crate::sdim::SdimCase;
use crate::search::SearchCase;
use crate::selected::{SelectedCase, SelectedTableCase};
use crate::target_attention::{AttentionCase, MergeBackwardCase, MergeCase};
use crate::tin::TinCase;

/// The formula of a stem.
pub fn formula(stem: &str) -> &'static str {
    match stem {
        "target_attention" => crate::target_attention::FORMULA,
        "target_attention_backward" => crate::target_attention::BACKWARD_FORMULA,
        "din" => crate::din::FORMULA,
        "din_backward" => crate::din::BACKWARD_FORMULA,
        "sdim" => crate::sdim::FORMULA,
        "sdim_backward" => crate::sdim::BACKWARD_FORMULA,
        "lookup" => crate::lookup::FORMULA,
        "lookup_backward" => crate::lookup::BACKWARD_FORMULA,
        "decoupled_backward" => crate::decoupled::BACKWARD_FORMULA,
        "search" => crate::search::FORMULA,
        "selected" | "selected_tables" => crate::selected::FORMULA,
        "interest_channels" => crate::interest_channels::FORMULA,
        "interest_channels_backward" => crate::interest_channels::BACKWARD_FORMULA,
        "tin" => crate::tin::FORMULA,
        "tin_backward" => crate::tin::BACKWARD_FORMULA,
        "selected_backward" => crate::selected::BACKWARD_FORMULA,
        _ => crate::decoupled::FORMULA,
    }
}

/// What is known of a case before it runs.
pub fn describe(named: &Named) -> String {
    let work = named.work();
    let intensity = work.flops as f64 / work.bytes.max(1) as f64;
    let mut text = format!("{}: {} of {}\n\n", named.name, named.operation, named.stem());
    let _ = writeln!(text, "formula\n{}\n", indented(formula(named.stem())));
    let _ = writeln!(text, "case\n    {:?}\n", named.case);
    let _ = writeln!(text, "shapes\n{}\n", indented(&shapes(&named.case)));
    let _ = write!(
        text,
        "work\n    {} flops, {} bytes at least: {intensity:.2} flops per byte\n    {} bytes that loads are spread over",
        work.flops,
        work.bytes,
        named.footprint()
    );
    text
}

fn selected(case: &SelectedCase) -> String {
    let values = case.value_width.map_or("the keys".into(), |width| format!("[{width}] per head"));
    let (heads, kv_heads, width) = (case.heads, case.kv_heads, case.width);
    format!(
        "{}\nqueries [{heads}, {width}], keys [{kv_heads}, {width}], values {values}; K = {}",
        batch(case.batch()),
        case.top_k
    )
}

/// The shapes of inputs and outputs.
fn shapes(case: &AnyCase) -> String {
    let attention = |case: &AttentionCase| {
        let values = case.value_width.map_or("the keys".into(), |width| format!("[{width}] per head"));
        let (heads, kv_heads, width) = (case.heads, case.kv_heads, case.width);
        format!(
            "{}\nqueries [{heads}, {width}], keys [{kv_heads}, {width}], values {values}",
            batch(case.batch())
        )
    };
    let sdim = |case: &SdimCase| {
        let (width, groups, bits) = (case.width, case.groups, case.bits);
        format!("{}\nrows of {width}, {groups} groups of {bits} bits", batch(case.batch()))
    };
    let din = |case: &DinCase| {
        format!("{}\nrows of {}, hidden layers {:?}", batch(case.batch()), case.width, case.hidden)
    };
    let decoupled = |case: &DecoupledCase| {
        format!(
            "{}\ntables of {:?} rows; attention widths {:?}, representation widths {:?}; K = {}",
            batch(case.batch()),
            case.table_rows,
            case.attention_widths,
            case.representation_widths,
            case.top_k
        )
    };
    let tin = |case: &TinCase| {
        format!("{}\nrows of {}, {} positions", batch(case.batch()), case.width, case.positions)
    };
    let channels = |case: &ChannelsCase| {
        let (width, channels, top_k) = (case.width, case.channels, case.top_k);
        format!("{}\nrows of {width}, {channels} channels; K = {top_k}", batch(case.batch()))
    };
    let search =
        |case: &SearchCase| format!("{}\nrows of {}; K = {}", batch(case.batch()), case.width, case.top_k);
    let selected_tables = |case: &SelectedTableCase| {
        let (keys, rows) = (case.keys, &case.table_rows);
        format!("{}\nkeys from {keys:?}, tables of {rows:?} rows", selected(&case.forward))
    };
    match case {
        AnyCase::Attention(case) => attention(case),
        AnyCase::AttentionBackward(case) => attention(&case.forward),
        AnyCase::Merge(MergeCase { rows, value_width, .. })
        | AnyCase::MergeBackward(MergeBackwardCase { rows, value_width, .. }) => {
            format!("two results of {rows} rows of {value_width}")
        }
        AnyCase::Din(case) => din(case),
        AnyCase::DinBackward(case) => din(&case.forward),
        AnyCase::DinStatistics(case) => din(&case.forward),
        AnyCase::Sdim(case) => sdim(case),
        AnyCase::SdimBackward(case) => sdim(&case.forward),
        AnyCase::Decoupled(case) => decoupled(case),
        AnyCase::DecoupledBackward(case) => decoupled(&case.forward),
        AnyCase::Lookup(case) => bags(case),
        AnyCase::LookupBackward(case) => format!("{}; {:?}", bags(&case.forward), case.forms),
        AnyCase::Search(case) => search(case),
        AnyCase::Newest(case) => format!("{}; {} bins", search(&case.search), case.op().bins()),
        AnyCase::Selected(case) => selected(case),
        AnyCase::SelectedBackward(case) => selected(&case.forward),
        AnyCase::SelectedTable(case) => selected_tables(case),
        AnyCase::SelectedTableBackward(case) => selected_tables(&case.forward),
        AnyCase::Channels(case) => channels(case),
        AnyCase::ChannelsBackward(case) => channels(&case.forward),
        AnyCase::Tin(case) => tin(case),
        AnyCase::TinBackward(case) => tin(&case.forward),
        AnyCase::Histogram(case) => {
            let (candidates, bins) = (case.batch().targets().total(), case.op().bins());
            format!("candidates {candidates}; K = {}; {bins} bins", case.top_k)
        }
        AnyCase::UpdateRows(case) => {
            format!("{} ids of a table of {} rows of {}", case.ids, case.rows, case.width)
        }
    }
}

/// The users of a batch, and what they have.
fn batch(batch: longseq::Batch) -> String {
    let (histories, targets) = (batch.histories(), batch.targets());
    format!(
        "users {}, behaviours {} (longest history {}), candidates {}",
        histories.users(),
        histories.total(),
        histories.max_length(),
        targets.total()
    )
}

/// The shapes of a look-up.
fn bags(case: &LookupCase) -> String {
    format!(
        "{} ids in {} bags; tables of {:?} rows, widths {:?} and {:?}",
        case.bags.iter().sum::<usize>(),
        case.bags.len(),
        case.table_rows,
        case.widths,
        case.second_widths
    )
}

/// Makes the call of the case once with the trace of `LONGSEQ_TRACE=1`, which prints plan and launches on standard error,
/// and returns how long it took.
///
/// # Errors
/// What the call returned.
pub fn trace(device: &AnyBackend, named: &Named) -> Result<String, Failure> {
    let mut time = None;
    device.measure_case(named, &mut |call| {
        let start = Instant::now();
        set_trace(true);
        let result = call();
        set_trace(false);
        time = Some(start.elapsed());
        result
    })?;
    let time = time.unwrap_or_default();
    Ok(format!("call\n    returned after {time:.1?}; on a GPU, work may go on (see `longseq-check bench`)"))
}

/// Compares every call of the case with the reference: per output, the largest error and its share of the bound.
///
/// # Errors
/// The mismatches.
pub fn errors(device: &AnyBackend, named: &Named) -> Result<String, Failure> {
    let (result, comparisons) = recorded(|| device.check_case(&named.case));
    let mut text = "error against the f64 reference\n".to_owned();
    for comparison in &comparisons {
        let _ = write!(
            text,
            "    {}: {} elements, largest error {:.2e}, at most {:.4} of the error allowed for an element",
            comparison.name, comparison.elements, comparison.largest_error, comparison.share_of_bound
        );
        let _ = match comparison.nmse {
            Some(nmse) => writeln!(text, "; normalised mean squared error {nmse:.1e}"),
            None => writeln!(text),
        };
    }
    if comparisons.is_empty() {
        text.push_str("    compared exactly\n");
    }
    result.map(|()| text)
}

/// Switches the trace of launches on or off.
fn set_trace(on: bool) {
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    longseq::set_trace(on);
    // The CPU launches nothing.
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    let _ = on;
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
