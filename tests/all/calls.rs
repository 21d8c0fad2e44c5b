//! How often each call asks a device for something, with a batch that is new and with one that was used before, against a table that is
//! committed: `benches/record/calls-cuda.md` and `calls-wgpu.md`. A call that begins to launch, copy, allocate or wait more often fails, and so
//! does one that does so less often until the table says so. `LONGSEQ_WRITE_CALLS=1 cargo test --test all ::calls::` writes the tables.

use std::fmt::Write as _;

use longseq::{AnyBackend, SearchScore};
use longseq_check::device::TestDevice;
use longseq_check::lookup::{LookupCase, Pool, Storage};
use longseq_check::search::{Compared, SearchCase};
use longseq_check::support::{CALLS, small_case};
use longseq_check::{AnyCase, Named};

/// What is counted: columns of a table.
pub(crate) type Counts = Vec<usize>;

/// A small case of every call, in `f32`, and the other kernels of calls that have several: by name.
fn cases() -> Vec<(String, Named)> {
    let named = |operation, case| Named { name: operation, operation, case };
    let mut cases: Vec<(String, Named)> = CALLS
        .iter()
        .filter_map(|(_, call)| Some(((*call).to_owned(), small_case(call, Storage::F32)?)))
        .collect();
    let lookup = |bags: Vec<usize>, pool| {
        let case = LookupCase { bags, pool, ..Default::default() };
        named("lookup", AnyCase::Lookup(case))
    };
    cases.push(("lookup, each".into(), lookup(vec![1; 40], Pool::Each)));
    cases.push(("lookup, bags".into(), lookup(vec![3, 0, 20, 1], Pool::Sum)));
    let searched =
        |score, stored| named("search", AnyCase::Search(SearchCase { score, stored, ..Default::default() }));
    let scores = [
        ("cosine", SearchScore::Cosine, Compared::Codes),
        ("Hamming", SearchScore::Hamming, Compared::F32),
        ("match", SearchScore::Match, Compared::F32),
    ];
    cases.extend(scores.map(|(name, score, stored)| (format!("search, {name}"), searched(score, stored))));
    cases
}

/// Calls each case with a batch that is new, and again: `count` returns what was asked for since the last time.
///
/// # Panics
/// Where the numbers are not those of the committed table.
pub(crate) fn assert_calls(
    device: &AnyBackend,
    table: &str,
    columns: &[&str],
    count: &mut dyn FnMut() -> Counts,
) {
    let mut rows = Vec::new();
    for (name, case) in cases() {
        // The first time kernels are compiled, and memory of the handle is made.
        device.measure_case(&case, &mut |call| call()).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let mut measured = |call: &mut longseq_check::Call<'_>| {
            for batch in ["new", "seen"] {
                count();
                call()?;
                rows.push((format!("{name} | {batch}"), count()));
            }
            Ok(())
        };
        device.measure_case(&case, &mut measured).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
    let mut text = format!("# What calls ask of a device: `{}`\n\n{HEAD}", table.trim_end_matches(".md"));
    let _ = writeln!(
        text,
        "\n| call | batch | {} |\n|---|---|{}",
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    for (name, counts) in &rows {
        let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
        let _ = writeln!(text, "| {name} | {} |", counts.join(" | "));
    }
    let path = longseq_check::repository().join("benches/record").join(table);
    if std::env::var("LONGSEQ_WRITE_CALLS").is_ok_and(|value| value == "1") {
        return std::fs::write(&path, text).expect("the file can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let wrong = differences(&committed, &text);
    assert!(wrong.is_empty(), "{table}, {}:\n{}", columns.join(", "), wrong.join("\n"));
}

const HEAD: &str = "\
Counted on small cases in `f32`, per public call: the first with a batch, and a later one. Outputs are the caller's. No time is measured.
Written by `LONGSEQ_WRITE_CALLS=1 cargo test --test all ::calls::`; the same test fails where a number has changed.
";

/// The lines that only one of the texts has, each with its side.
fn differences(committed: &str, counted: &str) -> Vec<String> {
    let only = |side: &'static str, one: &str, other: &str| -> Vec<String> {
        let known: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !known.contains(line)).map(|line| format!("{side}: {line}")).collect()
    };
    [only("recorded", committed, counted), only("counted", counted, committed)].concat()
}

#[test]
fn a_changed_count_is_named() {
    let table = "| call | batch | launches |\n| din | new | 3 |\n| din | seen | 2 |\n";
    assert_eq!(differences(table, table), Vec::<String>::new());
    let changed = table.replace("seen | 2", "seen | 3");
    assert_eq!(differences(table, &changed), ["recorded: | din | seen | 2 |", "counted: | din | seen | 3 |"]);
}
