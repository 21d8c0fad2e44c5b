//! Options that must be set before the driver is loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::protocol::{Reply, Request};
use super::{Emulator, Session};
use crate::device::{CudaVersion, Device};
use crate::loader::{self, InstallError};

/// Loads the emulator with options that [`Emulator::install`] leaves at their defaults.
#[derive(Clone, Debug)]
pub struct Installer {
    device: Device,
    newest: Option<CudaVersion>,
}

impl Installer {
    pub(super) fn new(device: Device) -> Self {
        Self { device, newest: None }
    }

    /// Leaves out every driver function introduced after this version of CUDA.
    ///
    /// These functions are really missing from the library, as in an old driver: `dlsym` fails, and cudarc panics with
    /// the function's name. [`crate::functions::functions`] lists the versions. A process has one driver, so all its
    /// tests must make the same choice: put such tests in a test binary of their own.
    pub fn hide_functions_newer_than(mut self, version: CudaVersion) -> Self {
        self.newest = Some(version);
        self
    }

    /// Loads the emulator if it is not loaded yet, and begins a session for this thread.
    ///
    /// # Errors
    /// As [`Emulator::install`]; also if the emulator is already loaded with a different set of functions.
    pub fn install(self) -> Result<Emulator, InstallError> {
        let driver = loader::load(self.newest)?;
        match driver.ask(&Request::Begin(Box::new(self.device))) {
            Reply::Session(number) => Ok(Emulator { session: Arc::new(Session { driver, number }) }),
            other => Err(InstallError::Refused(format!("{other:?}"))),
        }
    }

    /// Writes the library as `libcuda.so` into a directory, for programs that find it through `LD_LIBRARY_PATH`.
    /// Returns the file's path.
    ///
    /// # Errors
    /// If the library is missing or the file cannot be written.
    pub fn write_library(&self, directory: &Path) -> Result<PathBuf, InstallError> {
        let bytes = loader::library_bytes(&loader::find()?, self.newest)?;
        let path = directory.join("libcuda.so");
        std::fs::write(&path, bytes).map_err(|source| InstallError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}
