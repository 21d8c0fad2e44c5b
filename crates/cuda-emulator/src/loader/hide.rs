//! A copy of the driver that lacks the functions of newer CUDA versions.
//!
//! Bindings resolve each function with `dlsym` when it is first called, and cudarc panics when that fails. To
//! let a test see exactly that, the functions must really be missing: so their entries in the dynamic symbol
//! table (System V ABI, "Symbol Table") are made undefined in a copy of the file, before it is loaded.

use std::path::Path;

use object::elf::{FileHeader64, SHT_DYNSYM};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{Endianness, read};

use super::InstallError;
use crate::device::CudaVersion;
use crate::functions::introduced;

/// The bytes of a library at `path`, without the functions that came after `newest`.
pub(crate) fn library_bytes(path: &Path, newest: Option<CudaVersion>) -> Result<Vec<u8>, InstallError> {
    let mut bytes =
        std::fs::read(path).map_err(|source| InstallError::Io { path: path.to_owned(), source })?;
    if let Some(newest) = newest {
        let not_elf =
            |error: read::Error| InstallError::NotElf { path: path.to_owned(), reason: error.to_string() };
        for entry in entries_after(&bytes, newest).map_err(not_elf)? {
            // An ELF64 symbol is 24 bytes: name (4), info, other, section (2), value (8), size (8). Section and
            // value zero make it undefined, and the dynamic loader passes over it.
            bytes[entry + 6..entry + 16].fill(0);
        }
    }
    Ok(bytes)
}

/// File offsets of the dynamic symbols to be made undefined.
fn entries_after(bytes: &[u8], newest: CudaVersion) -> read::Result<Vec<usize>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let symbols = sections.symbols(endian, bytes, SHT_DYNSYM)?;
    let table = sections.section(symbols.section())?.sh_offset(endian) as usize;
    let size = std::mem::size_of::<object::elf::Sym64<Endianness>>();
    let mut entries = Vec::new();
    for (index, symbol) in symbols.enumerate() {
        let name = symbol.name(endian, symbols.strings())?;
        let since = std::str::from_utf8(name).ok().and_then(introduced);
        if since.is_some_and(|since| since > newest) {
            entries.push(table + index.0 * size);
        }
    }
    Ok(entries)
}
