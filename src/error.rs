//! Errors that name the operation, the argument, what was expected and what was given.

/// The error of every fallible function of this crate.
///
/// More backends may add variants, so match with a wildcard arm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A buffer, a list of offsets or a list of tables does not have the shape that the operation needs.
    #[error("{operation}: {argument}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// What it should have been.
        expected: String,
        /// What it was.
        got: String,
    },
    /// A parameter of the operation is invalid.
    #[error("{operation}: {argument}: expected {expected}, got {got}")]
    Parameter {
        /// The operation.
        operation: &'static str,
        /// The parameter at fault.
        argument: &'static str,
        /// What it should have been.
        expected: String,
        /// What it was.
        got: String,
    },
    /// A well-formed request that this operation or backend cannot serve.
    #[error("{operation}: {what} is not supported; supported: {supported}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// The unsupported request.
        what: String,
        /// What is supported instead.
        supported: String,
    },
    /// A size exceeds what the index types or the device can represent.
    #[error("{operation}: {argument} needs {needed}, above the limit of {limit}")]
    Limit {
        /// The operation.
        operation: &'static str,
        /// The argument that is too large.
        argument: &'static str,
        /// The size that the request needs.
        needed: u64,
        /// The largest supported size.
        limit: u64,
    },
    /// An id points outside its table, or a position outside its history.
    #[error("{operation}: {argument}[{position}] is {id}, which must be below {bound}")]
    IndexOutOfRange {
        /// The operation.
        operation: &'static str,
        /// The argument that holds the id.
        argument: &'static str,
        /// The lowest position of such an id in that argument.
        position: u64,
        /// The id.
        id: u64,
        /// What it must be below: the rows of the table, the length of the history, the number of buckets. On `Cuda`, where more than a
        /// hundred calls between two waits have other bounds for the same argument, it may be the id, which the bound is at most.
        bound: u64,
    },
    /// An allocation failed.
    #[error("{operation}: out of memory for {bytes} bytes")]
    OutOfMemory {
        /// The operation.
        operation: &'static str,
        /// The size of the allocation.
        bytes: u64,
    },
    /// There is no graphics adapter, or none that matches the request.
    #[error("no adapter: {reason}")]
    NoAdapter {
        /// What was looked for and what was found.
        reason: String,
    },
    /// The NVIDIA driver could not be loaded.
    #[error("no CUDA driver: {reason}")]
    NoCudaDriver {
        /// What was looked for.
        reason: String,
    },
    /// The driver is present, but not the requested device.
    #[error("no CUDA device: {reason}")]
    NoCudaDevice {
        /// What was looked for and what was found.
        reason: String,
    },
    /// The CUDA driver rejected a call, or reports that work enqueued earlier failed.
    #[error("{operation}: the CUDA driver reports {name} ({code})")]
    Driver {
        /// The operation that received the error.
        operation: &'static str,
        /// The error code (`CUresult`).
        code: u32,
        /// The name of the error code.
        name: String,
    },
    /// The device was lost: unplugged, reset, or destroyed by its owner.
    #[error("{operation}: the device is lost")]
    DeviceLost {
        /// The operation that received the error.
        operation: &'static str,
    },
    /// The device did not finish in the time allowed. It may still finish; waiting again is allowed.
    #[error("{operation}: not finished after {milliseconds} ms")]
    Timeout {
        /// The operation that waited.
        operation: &'static str,
        /// The time waited.
        milliseconds: u64,
    },
    /// The device or its driver reported an error that no other variant describes.
    #[error("{operation}: the device reports: {message}")]
    Device {
        /// The operation during which it was reported.
        operation: &'static str,
        /// The driver's message.
        message: String,
    },
}

/// A result whose error type defaults to [`Error`](enum@Error).
pub type Result<T, E = Error> = std::result::Result<T, E>;
