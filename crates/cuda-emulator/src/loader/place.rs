//! Where Cargo places the shared library.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};

use super::InstallError;

/// The shared library of the build that this code belongs to.
///
/// Cargo writes it into `<target>/<profile>/deps`, as for any library dependency, and for the crate itself also one
/// level up. Both are siblings of ancestors of this crate's build directory, which is known at compile time and is the
/// same for tests, examples and documentation tests. The location of the running program is tried next, for binaries
/// that were moved together with their target directory.
pub(crate) fn find() -> Result<PathBuf, InstallError> {
    let name = format!("{DLL_PREFIX}cuda_emulator{DLL_SUFFIX}");
    let program = std::env::current_exe().unwrap_or_default();
    let searched: Vec<PathBuf> = [Path::new(env!("OUT_DIR")), &program]
        .into_iter()
        .flat_map(|start| start.ancestors().skip(1).take(4))
        .flat_map(|directory| [directory.join("deps").join(&name), directory.join(&name)])
        .collect();
    match searched.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(InstallError::NotFound { searched }),
    }
}
