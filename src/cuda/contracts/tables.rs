//! The tables of kernels list exactly the entries of the PTX that ships, with their block sizes and registers.

use std::collections::BTreeMap;
use std::fs;

use crate::cuda::kernel::Kernel;
use crate::cuda::kernels::{files, kernels, source_of};
use crate::cuda::{decoupled, din, interest_channels, lookup, sdim, search, selected, target_attention, tin};

/// All rows of all tables.
pub(super) fn rows() -> Vec<Kernel> {
    let stems = [target_attention::table(), din::table(), sdim::table(), lookup::table(), decoupled::table()];
    let others = [search::table(), selected::table(), tin::table(), interest_channels::table()];
    [stems.concat(), others.concat()].concat()
}

/// The entries of all PTX files: file and symbol, with the most threads per block.
fn entries() -> BTreeMap<(&'static str, String), u32> {
    let mut entries = BTreeMap::new();
    for (file, text) in kernels() {
        for entry in text.split(".entry ").skip(1) {
            let (symbol, rest) = entry.split_once('(').expect("parameters");
            let threads = rest.split_once(".maxntid ").and_then(|(_, rest)| rest.split_once(','));
            let threads = threads.and_then(|(threads, _)| threads.trim().parse().ok());
            entries.insert((file, symbol.trim().to_owned()), threads.expect("launch bounds"));
        }
    }
    entries
}

#[test]
fn rows_and_entries_are_the_same() {
    let rows: BTreeMap<_, _> =
        rows().iter().map(|row| ((row.file, row.symbol.to_owned()), row.threads)).collect();
    assert_eq!(rows, entries(), "tables on the left, kernels/ptx on the right");
}

#[test]
fn rows_are_listed_once() {
    let mut symbols: Vec<_> = rows().iter().map(|row| row.symbol).collect();
    let count = symbols.len();
    symbols.sort_unstable();
    symbols.dedup();
    assert_eq!(symbols.len(), count);
}

#[test]
fn registers_are_what_ptxas_reports() {
    let folder = crate::repository().join("kernels/ptx");
    let mut wrong = Vec::new();
    for row in rows() {
        let table = fs::read_to_string(folder.join(format!("{}.csv", row.file))).expect("a table");
        let reported = table.lines().find_map(|line| {
            let mut cells = line.split(',');
            let ours = cells.next() == Some(row.symbol) && cells.next() == Some("sm_80");
            ours.then(|| cells.next().and_then(|cell| cell.parse::<u32>().ok()))?
        });
        if reported != Some(row.registers) {
            wrong.push(format!("{}: {} in the table, ptxas says {reported:?}", row.symbol, row.registers));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_ptx_file_has_its_source() {
    let folder = crate::repository().join("kernels");
    for (file, text) in kernels() {
        assert!(folder.join(source_of(file)).is_file(), "the source of {file}");
        // The text is for readers, and what ships is compressed.
        let readable = std::fs::read_to_string(folder.join(format!("ptx/{file}.ptx"))).expect("PTX");
        assert!(readable == text, "{file}.ptx.z is not {file}.ptx; run kernels/compile {file}");
    }
    assert_eq!(kernels().len(), files().count(), "a file that cannot be read");
}
