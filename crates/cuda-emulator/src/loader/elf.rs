//! As much of ELF as it takes to find the dynamic symbols of a 64-bit little-endian shared library (System V ABI, "Object
//! Files").

/// A dynamic symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'f> {
    pub(crate) name: &'f str,
    /// File offset of its entry: name (4 bytes), info, other, section (2), value (8), size (8).
    pub(crate) entry: usize,
    /// Whether the library defines it; else it asks for it.
    pub(crate) defined: bool,
}

/// Type of the section that holds the dynamic symbols.
const SHT_DYNSYM: u64 = 11;

/// Size of a symbol's entry.
const ENTRY: usize = 24;

/// The number of `bytes` bytes at `offset`.
fn number(file: &[u8], offset: usize, bytes: usize) -> Option<usize> {
    let field = file.get(offset..offset.checked_add(bytes)?)?;
    field.iter().rev().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()))
}

/// A section's header.
struct Section {
    kind: usize,
    offset: usize,
    bytes: usize,
    link: usize,
}

fn section(file: &[u8], index: usize) -> Option<Section> {
    let (table, entry) = (number(file, 0x28, 8)?, number(file, 0x3a, 2)?);
    let header = index.checked_mul(entry)?.checked_add(table)?;
    Some(Section {
        kind: number(file, header.checked_add(4)?, 4)?,
        offset: number(file, header + 0x18, 8)?,
        bytes: number(file, header + 0x20, 8)?,
        link: number(file, header + 0x28, 4)?,
    })
}

/// The dynamic symbols; `None` if the file is not what this module reads.
pub(crate) fn dynamic_symbols(file: &[u8]) -> Option<Vec<Symbol<'_>>> {
    // Class 2 has 64-bit fields, data encoding 1 is little-endian.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let mut sections = (0..number(file, 0x3c, 2)?).filter_map(|index| section(file, index));
    let table = sections.find(|section| section.kind as u64 == SHT_DYNSYM)?;
    let strings = section(file, table.link)?;
    let strings = file.get(strings.offset..strings.offset.checked_add(strings.bytes)?)?;
    let symbol = |index: usize| {
        let entry = table.offset + index * ENTRY;
        let name = strings.get(number(file, entry, 4)?..)?;
        let name = std::str::from_utf8(name.split(|byte| *byte == 0).next()?).ok()?;
        Some(Symbol { name, entry, defined: number(file, entry + 6, 2)? != 0 })
    };
    (0..table.bytes / ENTRY).map(symbol).collect()
}
