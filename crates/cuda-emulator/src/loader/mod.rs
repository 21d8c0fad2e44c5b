//! Finds the shared library that Cargo built next to the test, and loads it as the CUDA driver of this process.

mod elf;
mod hide;
mod place;

use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};

use crate::control::protocol::{BUILD, BUILD_ID, CONTROL, Control, Reply, Request};
use crate::device::CudaVersion;

pub(crate) use hide::library_bytes;
pub(crate) use place::find;

/// Why the emulator could not become this process's CUDA driver.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The shared library is not where Cargo places it.
    #[error("the emulator's shared library was not found at any of {searched:?}")]
    NotFound {
        /// The paths tried.
        searched: Vec<PathBuf>,
    },
    /// The dynamic loader rejected it.
    #[error("the emulator's shared library could not be loaded: {0}")]
    Load(#[from] libloading::Error),
    /// The library comes from another build than the test.
    #[error("{path} is from build {found:?}, but the test is from build {expected:?}")]
    OtherBuild {
        /// The library.
        path: PathBuf,
        /// Its build.
        found: String,
        /// The test's build.
        expected: String,
    },
    /// The process has already loaded another libcuda: install the emulator before the first CUDA call.
    #[error("this process has already loaded another libcuda")]
    AnotherDriver,
    /// The process has already loaded the emulator with another set of functions.
    #[error(
        "this process has already loaded the emulator with functions up to {loaded:?}, not {requested:?}"
    )]
    OtherFunctions {
        /// The newest CUDA version whose functions are visible; `None` means all.
        loaded: Option<CudaVersion>,
        /// The requested one.
        requested: Option<CudaVersion>,
    },
    /// Reading or rewriting the library failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The library is not an ELF file in which functions can be hidden.
    #[error("{path}: {reason}")]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The driver refused to begin a session.
    #[error("the emulator rejected the request: {0}")]
    Refused(String),
}

/// The loaded driver. It is never unloaded.
#[derive(Debug)]
pub(crate) struct Driver {
    control: Control,
    newest: Option<CudaVersion>,
}

static DRIVER: Mutex<Option<&'static Driver>> = Mutex::new(None);

/// Loads the driver, or returns the loaded one if it has the requested functions.
pub(crate) fn load(newest: Option<CudaVersion>) -> Result<&'static Driver, InstallError> {
    let mut loaded = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(driver) = *loaded {
        if driver.newest != newest {
            return Err(InstallError::OtherFunctions { loaded: driver.newest, requested: newest });
        }
        return Ok(driver);
    }
    let library = match already_loaded() {
        Some(library) => {
            if newest.is_some() {
                return Err(InstallError::OtherFunctions { loaded: None, requested: newest });
            }
            library
        }
        None => open(newest)?,
    };
    let driver = Box::leak(Box::new(Driver { control: control_of(&library)?, newest }));
    // The driver must outlive the statics of cudarc.
    std::mem::forget(library);
    *loaded = Some(driver);
    Ok(driver)
}

fn open(newest: Option<CudaVersion>) -> Result<Library, InstallError> {
    let path = find()?;
    let Some(newest) = newest else { return open_at(&path) };
    let bytes = library_bytes(&path, Some(newest))?;
    let copy = path.with_file_name(format!("libcuda-{}-{newest}.so", std::process::id()));
    let io = |source| InstallError::Io { path: copy.clone(), source };
    std::fs::write(&copy, bytes).map_err(io)?;
    let library = open_at(&copy);
    // The mapping keeps the contents; the name is no longer needed.
    std::fs::remove_file(&copy).map_err(io)?;
    library
}

fn open_at(path: &Path) -> Result<Library, InstallError> {
    // SAFETY: the library is this crate's own; it has no initialisers beyond those of Rust's standard library.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }?;
    let found = build_of(&library).ok_or(InstallError::AnotherDriver)?;
    let expected = BUILD_ID.trim_end_matches('\0');
    if found != expected {
        return Err(InstallError::OtherBuild { path: path.to_owned(), found, expected: expected.to_owned() });
    }
    Ok(library)
}

/// `dlopen` with this flag returns a library only if the process has already loaded it (Linux, glibc and musl).
const RTLD_NOLOAD: i32 = 4;

/// The libcuda that this process has already loaded, if any.
fn already_loaded() -> Option<Library> {
    ["libcuda.so", "libcuda.so.1"].into_iter().find_map(|name| {
        // SAFETY: with RTLD_NOLOAD nothing is loaded, so no initialiser runs.
        unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_NOLOAD) }.ok()
    })
}

fn build_of(library: &Library) -> Option<String> {
    // SAFETY: only the emulator exports this name, with this type.
    let build = unsafe { library.get::<extern "C" fn() -> *const c_char>(BUILD.as_bytes()) }.ok()?;
    // SAFETY: the function returns a C string that lives as long as the library.
    Some(unsafe { CStr::from_ptr(build()) }.to_string_lossy().into_owned())
}

/// The control function of a library that must be the emulator from the same build as this code.
fn control_of(library: &Library) -> Result<Control, InstallError> {
    let expected = BUILD_ID.trim_end_matches('\0');
    match build_of(library) {
        None => return Err(InstallError::AnotherDriver),
        Some(found) if found != expected => {
            let path = PathBuf::from("libcuda.so");
            return Err(InstallError::OtherBuild { path, found, expected: expected.to_owned() });
        }
        Some(_) => {}
    }
    // SAFETY: a library of the same build exports this name with this type.
    Ok(unsafe { *library.get::<Control>(CONTROL.as_bytes())? })
}

impl Driver {
    /// Sends a request and waits for the reply.
    pub(crate) fn ask(&self, request: &Request) -> Reply {
        unsafe extern "C" fn collect(data: *mut c_void, bytes: *const u8, length: usize) {
            // SAFETY: the driver calls this with the pointer given below and with bytes of that length.
            let (reply, bytes) =
                unsafe { (&mut *data.cast::<Vec<u8>>(), std::slice::from_raw_parts(bytes, length)) };
            reply.extend_from_slice(bytes);
        }
        let request = match serde_json::to_vec(request) {
            Ok(request) => request,
            Err(error) => return Reply::Refused(error.to_string()),
        };
        let mut reply = Vec::<u8>::new();
        // SAFETY: the pointers are valid for the call, and `collect` is given the reply it expects.
        unsafe { (self.control)(request.as_ptr(), request.len(), collect, (&raw mut reply).cast()) };
        serde_json::from_slice(&reply).unwrap_or_else(|error| Reply::Refused(error.to_string()))
    }
}
