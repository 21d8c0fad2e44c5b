//! The syntax tree, before names are resolved.

use super::{LoadError, Space};

/// A position in the text, counting from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    pub(crate) fn error<T>(self, message: impl Into<String>) -> Result<T, LoadError> {
        Err(LoadError { line: self.line, column: self.column, message: message.into() })
    }
}

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) version: (u32, u32),
    pub(crate) target: u32,
    pub(crate) variables: Vec<Declaration>,
    pub(crate) functions: Vec<Function>,
}

/// `.entry` or `.func`.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) entry: bool,
    pub(crate) results: Vec<Declaration>,
    pub(crate) parameters: Vec<Declaration>,
    /// `.maxntid` or `.reqntid`.
    pub(crate) max_threads: Option<[u32; 3]>,
    /// `.reqntid`.
    pub(crate) required: bool,
    /// Absent in a forward declaration.
    pub(crate) body: Option<Vec<Statement>>,
}

/// A declaration of one variable, register or parameter.
#[derive(Debug, Clone)]
pub(crate) struct Declaration {
    pub(crate) place: Place,
    pub(crate) name: String,
    /// `None` for `.reg`.
    pub(crate) space: Option<Space>,
    /// A fundamental type, without the dot: `b32`.
    pub(crate) kind: String,
    /// 1, 2 or 4 from `.v2`, `.v4`.
    pub(crate) vector: u64,
    pub(crate) align: Option<u64>,
    /// Array extents; 0 for `[]`.
    pub(crate) extents: Vec<u64>,
    /// `%r<100>`: declares `%r0` to `%r99`.
    pub(crate) range: Option<u32>,
    pub(crate) external: bool,
    pub(crate) initial: Vec<Initial>,
}

/// An element of an initialiser. Nested initialisers are padded with zeros and flattened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Initial {
    Integer(i128),
    Single(u32),
    Double(u64),
    /// The address of a variable plus an offset.
    Address {
        name: String,
        offset: i64,
    },
}

/// A statement of a function's body.
#[derive(Debug)]
pub(crate) enum Statement {
    Label(String, Place),
    Declaration(Declaration),
    Scope(Vec<Statement>),
    Instruction(Instruction),
    /// `name: .branchtargets a, b;`
    BranchTargets(String, Vec<String>),
}

/// An instruction as written.
#[derive(Debug, Clone)]
pub(crate) struct Instruction {
    pub(crate) place: Place,
    /// Name of the guard predicate and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    pub(crate) opcode: String,
    pub(crate) modifiers: Vec<String>,
    pub(crate) operands: Vec<Operand>,
}

impl Instruction {
    /// The opcode with its modifiers, for error messages.
    pub(crate) fn form(&self) -> String {
        let mut form = self.opcode.clone();
        for m in &self.modifiers {
            form.push('.');
            form.push_str(m);
        }
        form
    }
}

/// An operand as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// A register, special register, symbol or label; `%tid.x` keeps its dot.
    Name(String),
    Integer(i128),
    Single(u32),
    Double(u64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `(a, b)`.
    List(Vec<Operand>),
    /// `[base + offset]`.
    Address {
        base: Option<String>,
        offset: i64,
    },
    /// `name + offset`: an address as a value.
    Offset {
        base: String,
        offset: i64,
    },
    /// `!p`.
    Not(Box<Operand>),
    /// `p|q`.
    Pair(Box<Operand>, Box<Operand>),
    /// `_`.
    Sink,
}
