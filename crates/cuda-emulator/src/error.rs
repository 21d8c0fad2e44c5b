//! The driver's result codes (`CUresult`): numbers, names and descriptions.

use std::ffi::CStr;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! errors {
    ($($variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// A failure that a driver call can return. The names are those of `CUresult` without `CUDA_ERROR_`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u32)]
        pub enum CudaError {
            $(#[doc = $text] $variant = $code,)*
        }

        impl CudaError {
            /// All codes that this driver knows.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in the C headers, such as `CUDA_ERROR_OUT_OF_MEMORY`.
            pub fn name(self) -> &'static CStr {
                match self { $(Self::$variant => $name,)* }
            }

            /// A description of the error.
            pub fn text(self) -> &'static CStr {
                match self { $(Self::$variant => const { text(concat!($text, "\0")) },)* }
            }
        }
    };
}

/// The descriptions also document the variants, so the table has them without the terminating NUL.
const fn text(with_nul: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_nul.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a description must contain no NUL except the terminating one"),
    }
}

errors! {
    InvalidValue = 1, c"CUDA_ERROR_INVALID_VALUE", "an argument is out of range or null";
    OutOfMemory = 2, c"CUDA_ERROR_OUT_OF_MEMORY", "out of memory";
    NotInitialized = 3, c"CUDA_ERROR_NOT_INITIALIZED", "cuInit has not been called";
    Deinitialized = 4, c"CUDA_ERROR_DEINITIALIZED", "the driver is shutting down";
    ProfilerDisabled = 5, c"CUDA_ERROR_PROFILER_DISABLED", "the profiler is disabled";
    StubLibrary = 34, c"CUDA_ERROR_STUB_LIBRARY", "the loaded library is a stub, not a driver";
    CallRequiresNewerDriver = 36, c"CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", "the call needs a newer driver";
    DeviceUnavailable = 46, c"CUDA_ERROR_DEVICE_UNAVAILABLE", "the device is busy or unavailable";
    NoDevice = 100, c"CUDA_ERROR_NO_DEVICE", "no CUDA device was found";
    InvalidDevice = 101, c"CUDA_ERROR_INVALID_DEVICE", "no device has this ordinal";
    InvalidImage = 200, c"CUDA_ERROR_INVALID_IMAGE", "the module image is not valid";
    InvalidContext = 201, c"CUDA_ERROR_INVALID_CONTEXT", "no context is current, or the handle is not a context";
    NoBinaryForGpu = 209, c"CUDA_ERROR_NO_BINARY_FOR_GPU", "the module has no code for this device";
    EccUncorrectable = 214, c"CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable memory error on the device";
    UnsupportedLimit = 215, c"CUDA_ERROR_UNSUPPORTED_LIMIT", "the device does not support this limit";
    ContextAlreadyInUse = 216, c"CUDA_ERROR_CONTEXT_ALREADY_IN_USE", "the context is in use by another thread";
    InvalidPtx = 218, c"CUDA_ERROR_INVALID_PTX", "the PTX does not compile";
    JitCompilerNotFound = 221, c"CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "the PTX compiler library is missing";
    UnsupportedPtxVersion = 222, c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the PTX version is newer than the driver";
    InvalidSource = 300, c"CUDA_ERROR_INVALID_SOURCE", "the kernel source is not valid";
    FileNotFound = 301, c"CUDA_ERROR_FILE_NOT_FOUND", "the file was not found";
    SharedObjectSymbolNotFound = 302, c"CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND", "a shared library lacks a symbol";
    OperatingSystem = 304, c"CUDA_ERROR_OPERATING_SYSTEM", "a call to the operating system failed";
    InvalidHandle = 400, c"CUDA_ERROR_INVALID_HANDLE", "the handle is not valid";
    IllegalState = 401, c"CUDA_ERROR_ILLEGAL_STATE", "the object is in the wrong state for this call";
    NotFound = 500, c"CUDA_ERROR_NOT_FOUND", "no symbol of this name was found";
    NotReady = 600, c"CUDA_ERROR_NOT_READY", "the work has not finished yet";
    IllegalAddress = 700, c"CUDA_ERROR_ILLEGAL_ADDRESS", "a kernel accessed an address outside all allocations";
    LaunchOutOfResources = 701, c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "the launch needs more resources than a multiprocessor has";
    LaunchTimeout = 702, c"CUDA_ERROR_LAUNCH_TIMEOUT", "the kernel ran for too long";
    PrimaryContextActive = 708, c"CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", "the primary context is already active";
    ContextIsDestroyed = 709, c"CUDA_ERROR_CONTEXT_IS_DESTROYED", "the current context has been destroyed";
    Assert = 710, c"CUDA_ERROR_ASSERT", "an assertion failed on the device";
    HardwareStackError = 714, c"CUDA_ERROR_HARDWARE_STACK_ERROR", "stack error on the device";
    IllegalInstruction = 715, c"CUDA_ERROR_ILLEGAL_INSTRUCTION", "a kernel executed an illegal instruction";
    MisalignedAddress = 716, c"CUDA_ERROR_MISALIGNED_ADDRESS", "a kernel accessed a misaligned address";
    InvalidAddressSpace = 717, c"CUDA_ERROR_INVALID_ADDRESS_SPACE", "an address is in the wrong state space";
    InvalidPc = 718, c"CUDA_ERROR_INVALID_PC", "a kernel jumped outside its code";
    LaunchFailed = 719, c"CUDA_ERROR_LAUNCH_FAILED", "the launch failed";
    CooperativeLaunchTooLarge = 720, c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "the grid does not fit on the device at once";
    NotPermitted = 800, c"CUDA_ERROR_NOT_PERMITTED", "the call is not permitted here";
    NotSupported = 801, c"CUDA_ERROR_NOT_SUPPORTED", "the call is not supported on this system";
    SystemNotReady = 802, c"CUDA_ERROR_SYSTEM_NOT_READY", "the system is not ready to run CUDA";
    SystemDriverMismatch = 803, c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the versions of driver and kernel module differ";
    StreamCaptureUnsupported = 900, c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "the call is not permitted while the stream is being captured";
    StreamCaptureInvalidated = 901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "an earlier error invalidated the capture";
    StreamCaptureMerge = 902, c"CUDA_ERROR_STREAM_CAPTURE_MERGE", "the call would merge two captures";
    StreamCaptureUnmatched = 903, c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture did not begin on this stream";
    StreamCaptureUnjoined = 904, c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "a captured stream was not joined to the origin stream";
    StreamCaptureIsolation = 905, c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "a captured stream depends on work outside the capture";
    StreamCaptureImplicit = 906, c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "the call would create an implicit dependency on a stream being captured";
    CapturedEvent = 907, c"CUDA_ERROR_CAPTURED_EVENT", "the event was last recorded in a capturing stream";
    StreamCaptureWrongThread = 908, c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "the capture began on another thread";
    Timeout = 909, c"CUDA_ERROR_TIMEOUT", "the wait timed out";
    ExternalDevice = 911, c"CUDA_ERROR_EXTERNAL_DEVICE", "a device outside CUDA reported an error";
    Unknown = 999, c"CUDA_ERROR_UNKNOWN", "unknown error";
}

impl CudaError {
    /// The error with this code, or `None` if this driver never returns it.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|error| error.code() == code)
    }

    /// The code that the C functions return.
    pub fn code(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name().to_string_lossy(), self.text().to_string_lossy())
    }
}

impl std::error::Error for CudaError {}
