//! A copy of the driver that lacks the functions of newer CUDA versions.
//!
//! Bindings resolve each function with `dlsym` when it is first called, and cudarc panics when that fails. For a test to
//! see exactly that, the functions must really be missing: their entries in the dynamic symbol table are made undefined
//! in a copy of the file before it is loaded.

use std::path::Path;

use super::InstallError;
use super::elf::dynamic_symbols;
use crate::device::CudaVersion;
use crate::functions::introduced;

/// The bytes of the library at `path`, without the functions introduced after `newest`.
pub(crate) fn library_bytes(path: &Path, newest: Option<CudaVersion>) -> Result<Vec<u8>, InstallError> {
    let mut bytes =
        std::fs::read(path).map_err(|source| InstallError::Io { path: path.to_owned(), source })?;
    let Some(newest) = newest else { return Ok(bytes) };
    let Some(symbols) = dynamic_symbols(&bytes) else {
        let reason = "no dynamic symbol table of a 64-bit little-endian ELF file".to_owned();
        return Err(InstallError::NotElf { path: path.to_owned(), reason });
    };
    let newer = |name: &str| introduced(name).is_some_and(|since| since > newest);
    let hidden = symbols.iter().filter(|symbol| symbol.defined && newer(symbol.name));
    for entry in hidden.map(|symbol| symbol.entry).collect::<Vec<_>>() {
        // Section and value. A symbol of section 0 is undefined, so the dynamic loader ignores it.
        bytes[entry + 6..entry + 16].fill(0);
    }
    Ok(bytes)
}
