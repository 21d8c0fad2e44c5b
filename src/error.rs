//! What can go wrong, in words that say which operation, which argument, what was expected and what came.

/// What every fallible function of this crate returns on failure.
///
/// More variants come with more backends, so match with a wildcard arm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A buffer, a list of offsets or a list of tables does not have the shape that the operation needs.
    #[error("{operation}: {argument}: expected {expected}, got {got}")]
    Shape {
        /// The operation that was asked for.
        operation: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// What it should have been.
        expected: String,
        /// What it was.
        got: String,
    },
    /// A number among the operation's parameters makes no sense.
    #[error("{operation}: {argument}: expected {expected}, got {got}")]
    Parameter {
        /// The operation that was asked for.
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
        /// The operation that was asked for.
        operation: &'static str,
        /// What was asked for.
        what: String,
        /// What can be asked for instead.
        supported: String,
    },
    /// A size above what the index types or the device can hold.
    #[error("{operation}: {argument} needs {needed}, above the limit of {limit}")]
    Limit {
        /// The operation that was asked for.
        operation: &'static str,
        /// The argument that is too large.
        argument: &'static str,
        /// The size that the request needs.
        needed: u64,
        /// The largest size there is.
        limit: u64,
    },
    /// An id points outside its table, or a position outside its history.
    #[error("{operation}: {argument}[{position}] is {id}, which must be below {bound}")]
    IndexOutOfRange {
        /// The operation that was asked for.
        operation: &'static str,
        /// The argument that holds the id.
        argument: &'static str,
        /// Where in that argument the id stands (the lowest such place).
        position: u64,
        /// The id.
        id: u64,
        /// What it must be below: the rows of the table, the length of the history, the number of buckets.
        bound: u64,
    },
    /// An allocation failed.
    #[error("{operation}: out of memory for {bytes} bytes")]
    OutOfMemory {
        /// The operation that was asked for.
        operation: &'static str,
        /// How much memory was asked for.
        bytes: u64,
    },
    /// There is no graphics adapter to run on, or none that fits what was asked for.
    #[error("no adapter: {reason}")]
    NoAdapter {
        /// What was looked for and what was found.
        reason: String,
    },
    /// There is no NVIDIA driver to load.
    #[error("no CUDA driver: {reason}")]
    NoCudaDriver {
        /// What was looked for.
        reason: String,
    },
    /// There is a driver, but not the device that was asked for.
    #[error("no CUDA device: {reason}")]
    NoCudaDevice {
        /// What was looked for and what was found.
        reason: String,
    },
    /// The CUDA driver refused a call, or reports that work enqueued earlier failed.
    #[error("{operation}: the CUDA driver reports {name} ({code})")]
    Driver {
        /// The operation that met it.
        operation: &'static str,
        /// The driver's number for it (`CUresult`).
        code: u32,
        /// The driver's name for it.
        name: String,
    },
    /// The device went away: unplugged, reset, or destroyed by its owner.
    #[error("{operation}: the device is lost")]
    DeviceLost {
        /// The operation that met it.
        operation: &'static str,
    },
    /// The device did not finish in the time allowed. It may still finish: waiting again is allowed.
    #[error("{operation}: not finished after {milliseconds} ms")]
    Timeout {
        /// The operation that waited.
        operation: &'static str,
        /// How long it waited.
        milliseconds: u64,
    },
    /// The device or its driver reported a failure that no other variant describes.
    #[error("{operation}: the device reports: {message}")]
    Device {
        /// The operation during which it came.
        operation: &'static str,
        /// The driver's words.
        message: String,
    },
}

/// A result whose error is [`Error`](enum@Error) unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;
