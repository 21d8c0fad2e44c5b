//! What a loaded module offers: kernels, their attributes, module-scope variables.

use super::ast::{Declaration, File, Function, Initial, Place};
use super::parser::parse;
use crate::exec::code::Code;
use crate::exec::decode::{self, layout};

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
    threads: Option<[u32; 3]>,
    required: bool,
    pub(crate) code: Code,
}

impl Kernel {
    fn new(file: &File, function: &Function) -> Result<Self, LoadError> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for p in &function.parameters {
            let (bytes, align) = layout(p);
            let end = parameters.last().map_or(0, |p| p.offset + p.bytes);
            if p.space.is_none() || bytes == 0 || bytes > 32764 {
                return p.place.error(format!("{} cannot be a kernel's parameter", p.name));
            }
            parameters.push(Parameter {
                name: p.name.clone(),
                offset: end.next_multiple_of(align as u32),
                bytes: bytes as u32,
                align: align as u32,
            });
        }
        let code = decode::kernel(file, function, &parameters)?;
        let (threads, required) = (function.max_threads, function.required);
        Ok(Self { name: function.name.clone(), parameters, threads, required, code })
    }

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
        self.code.shared_bytes
    }

    /// Local memory (arrays, function parameters) of one thread, in bytes.
    pub fn local_bytes(&self) -> u32 {
        self.code.local_bytes
    }

    /// Upper limit on threads a block, from `.maxntid` or `.reqntid`; 1024 without either.
    pub fn max_threads(&self) -> u32 {
        self.threads.map_or(1024, |t| t.iter().product::<u32>().min(1024))
    }

    /// The block that `.reqntid` asks for.
    pub fn required_threads(&self) -> Option<[u32; 3]> {
        self.threads.filter(|_| self.required)
    }
}

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
    variables: Vec<Variable>,
    declarations: Vec<Declaration>,
    version: (u32, u32),
    target: u32,
    text: String,
}

impl Module {
    /// Parses and decodes PTX text.
    ///
    /// # Errors
    /// On the first thing that is not PTX or not supported, with its place.
    pub fn load(text: &str) -> Result<Self, LoadError> {
        let file = parse(text)?;
        let place = Place { line: 1, column: 1 };
        if file.version == (0, 0) || file.target == 0 {
            return place.error(".version or .target missing");
        }
        let entries = file.functions.iter().filter(|f| f.entry && f.body.is_some());
        let kernels = entries.map(|f| Kernel::new(&file, f)).collect::<Result<Vec<_>, _>>()?;
        let mut variables = Vec::new();
        for d in &file.variables {
            check_initial(&file, d)?;
            if let Some(space @ (Space::Global | Space::Const)) = d.space {
                let (bytes, align) = layout(d);
                if d.external || bytes == 0 {
                    return d.place.error(format!("{} has no definition in this module", d.name));
                }
                variables.push(Variable { name: d.name.clone(), space, bytes, align });
            }
        }
        let File { variables: declarations, version, target, .. } = file;
        Ok(Self { kernels, variables, declarations, version, target, text: text.to_owned() })
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
        self.version
    }

    /// The number in `.target`: 80 for `sm_80`.
    pub fn target(&self) -> u32 {
        self.target
    }

    pub(crate) fn declarations(&self) -> &[Declaration] {
        &self.declarations
    }

    /// The text of a line, without blanks around it.
    pub(crate) fn line(&self, number: u32) -> &str {
        self.text.lines().nth(number.saturating_sub(1) as usize).unwrap_or("").trim()
    }
}

fn check_initial(file: &File, d: &Declaration) -> Result<(), LoadError> {
    let (bytes, _) = layout(d);
    let size = crate::ptx::types::bits(&d.kind).unwrap_or(8) as u64 / 8;
    if d.initial.len() as u64 * size > bytes {
        return d.place.error(format!("the initialiser of {} is longer than the variable", d.name));
    }
    for element in &d.initial {
        if let Initial::Address { name, .. } = element {
            let known = file
                .variables
                .iter()
                .any(|v| v.name == *name && matches!(v.space, Some(Space::Global | Space::Const)));
            if !known || size != 8 {
                return d.place.error(format!("{name} is no variable whose address fits here"));
            }
        }
    }
    Ok(())
}
