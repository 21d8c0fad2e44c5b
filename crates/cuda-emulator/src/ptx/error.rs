//! The error of loading a module.

/// Why PTX text could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}, column {column}: {message}")]
pub struct LoadError {
    /// Line in the PTX text, counting from 1.
    pub line: u32,
    /// Column in that line, counting from 1.
    pub column: u32,
    /// A description of the error; names the opcode or modifier if it is unknown.
    pub message: String,
}
