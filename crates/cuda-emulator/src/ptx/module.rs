//! A loaded module: kernels with their attributes, and module-scope variables.

use super::ast::{Declaration, File, Function, Initial, Place};
use super::error::LoadError;
use super::parser::parse;
use super::types::{Parameter, Space};
use crate::exec::code::Code;
use crate::exec::decode::{self, layout};

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
                return p.place.error(format!("{} cannot be a kernel parameter", p.name));
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

    /// The parameters in order. Their offsets follow from sizes and alignments.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Size of the parameter block in bytes.
    pub fn parameter_bytes(&self) -> u32 {
        self.parameters.last().map_or(0, |p| p.offset + p.bytes)
    }

    /// Statically declared shared memory in bytes.
    pub fn static_shared_bytes(&self) -> u32 {
        self.code.shared_bytes
    }

    /// Local memory (arrays, function parameters) per thread, in bytes.
    pub fn local_bytes(&self) -> u32 {
        self.code.local_bytes
    }

    /// Maximum number of threads per block, from `.maxntid` or `.reqntid`; 1024 without either.
    pub fn max_threads(&self) -> u32 {
        self.threads.map_or(1024, |t| t.iter().product::<u32>().min(1024))
    }

    /// The block dimensions that `.reqntid` requires.
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
    /// At the first construct that is invalid or unsupported, with its position.
    pub fn load(text: &str) -> Result<Self, LoadError> {
        let file = parse(text)?;
        let place = Place { line: 1, column: 1 };
        if file.version == (0, 0) || file.target == 0 {
            return place.error("missing .version or .target");
        }
        let entries = file.functions.iter().filter(|f| f.entry && f.body.is_some());
        let kernels = entries.map(|f| Kernel::new(&file, f)).collect::<Result<Vec<_>, _>>()?;
        let mut variables = Vec::new();
        for d in &file.variables {
            check_initial(&file, d)?;
            if let Some(space @ (Space::Global | Space::Const)) = d.space {
                let (bytes, align) = layout(d);
                if d.external || bytes == 0 {
                    return d.place.error(format!("{} is not defined in this module", d.name));
                }
                variables.push(Variable { name: d.name.clone(), space, bytes, align });
            }
        }
        let File { variables: declarations, version, target, .. } = file;
        Ok(Self { kernels, variables, declarations, version, target, text: text.to_owned() })
    }

    /// The kernel (`.entry`) with this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// All kernels, in order of appearance.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Module-scope variables in `.global` and `.const`.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// `.version` as (major, minor).
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

    /// The text that the module was loaded from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a line, without surrounding white space.
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
                return d.place.error(format!("{name} is not a variable whose address can be stored here"));
            }
        }
    }
    Ok(())
}
