//! The variants of the search kernel: its lists, and what holds the rows of the behaviours.

use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::selection::{IN_MEMORY, IN_WORKGROUP, Lists, ORDER, PIECES, SCORES, SELECT};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::tables::BoundTable;

/// Tables that a workgroup can bind, besides pieces, queries, ids, lists, and a report of bad ids.
pub(super) const MAX_TABLES: usize = 3;

params! {
    /// Twin of the struct in shaders/decoupled/search.wgsl.
    pub(super) struct SearchParams {
        first_piece: u32,
        first_history: u32,
        ids_base: u32,
        features: u32,
        top_k: u32,
        first_whole: u32,
        width4: u32,
        check_ids: u32,
        scale_base: u32,
        offset_base: u32,
        factor: f32,
        // Up to the next vec4.
        unused1: u32,
        unused2: u32,
        unused3: u32,
        feature0: [u32; 4],
        feature1: [u32; 4],
        feature2: [u32; 4],
    }
}

/// What holds the rows of the behaviours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// So many tables of one storage type.
    Tables(usize, Format),
    /// One table of 8-bit rows.
    Int8(Format),
    /// One table into which the rows of all were gathered.
    Gathered,
}

impl Keys {
    /// How the kernel reads the tables in place, for the best `top_k`. It cannot if there are too many, if their storage types differ, or
    /// if lists in the device's memory take the binding of a table.
    pub(super) fn in_place(tables: &[BoundTable], top_k: usize) -> Option<Self> {
        if Lists::are_in_memory(top_k) {
            return None;
        }
        let vectors = tables.iter().all(|table| table.format.vectors);
        let format = |table: &BoundTable| table.format.with_vectors(vectors);
        let first = format(tables.first()?);
        match tables {
            [table] if table.int8 => Some(Self::Int8(first)),
            [_] | [_, _] | [_, _, _] => {
                let alike = tables.iter().all(|table| !table.int8 && format(table) == first);
                alike.then_some(Self::Tables(tables.len(), first))
            }
            _ => None,
        }
    }
}

pub(super) fn search_kernel(lists: Lists, keys: Keys) -> Kernel {
    const TABLES: &str = include_str!("../../../shaders/decoupled/keys_tables.wgsl");
    const INT8: &str = include_str!("../../../shaders/decoupled/keys_int8.wgsl");
    const GATHERED: &str = include_str!("../../../shaders/decoupled/keys_gathered.wgsl");
    const SEARCH: &str = include_str!("../../../shaders/decoupled/search.wgsl");
    let (tables, format) = match keys {
        Keys::Tables(tables, format) => (tables, format),
        Keys::Int8(format) => (1, format),
        Keys::Gathered => (0, Format::f32(true)),
    };
    let mut slots = vec![
        Slot::plain("pieces", "vec4<u32>"),
        Slot::plain("queries", "mat4x4<f32>"),
        Slot::plain("ids", "u32"),
        Slot::read("table0", format),
    ];
    let sources: &'static [&'static str] = match keys {
        Keys::Tables(..) => {
            slots.extend([Slot::read("table1", format), Slot::read("table2", format)]);
            &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, TABLES, SEARCH]
        }
        Keys::Int8(_) => {
            slots.extend([Slot::plain("scale", "f32"), Slot::plain("offset", "f32")]);
            &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, INT8, SEARCH]
        }
        Keys::Gathered if lists.in_memory => &[ORDER, SCORES, SELECT, IN_MEMORY, PIECES, GATHERED, SEARCH],
        Keys::Gathered => &[ORDER, SCORES, SELECT, IN_WORKGROUP, PIECES, GATHERED, SEARCH],
    };
    slots.extend(lists.slots());
    slots.push(Slot::write("report", "atomic<u32>"));
    let mut constants = lists.constants(false);
    constants.push(("TABLES", tables as u32));
    Kernel {
        name: "decoupled/search",
        params: &SearchParams::BLOCK,
        threads: THREADS,
        sources,
        constants,
        slots,
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let tables = (1..=MAX_TABLES).flat_map(|tables| Format::ALL.map(|format| Keys::Tables(tables, format)));
    let int8 = [true, false].map(|vectors| Keys::Int8(Format::int8(vectors)));
    let in_place: Vec<Keys> = tables.chain(int8).collect();
    let kernels = |lists: Lists| {
        let in_place = in_place.iter().copied().filter(move |_| !lists.in_memory);
        in_place.chain([Keys::Gathered]).map(move |keys| search_kernel(lists, keys))
    };
    Lists::all().flat_map(kernels).collect()
}
