//! A cursor over an instruction's modifiers. Modifiers that are left over are an error.

use crate::exec::rounding::Rounding;
use crate::ptx::LoadError;
use crate::ptx::ast::{Instruction, Operand, Place};
use crate::ptx::types::Type;

/// An instruction and its remaining modifiers.
pub(crate) struct Form<'i> {
    pub(crate) instruction: &'i Instruction,
    left: Vec<&'i str>,
}

impl<'i> Form<'i> {
    pub(crate) fn new(instruction: &'i Instruction) -> Self {
        Self { instruction, left: instruction.modifiers.iter().map(String::as_str).collect() }
    }

    pub(crate) fn opcode(&self) -> &'i str {
        &self.instruction.opcode
    }

    pub(crate) fn place(&self) -> Place {
        self.instruction.place
    }

    /// An error about this instruction.
    pub(crate) fn error<T>(&self, message: impl AsRef<str>) -> Result<T, LoadError> {
        self.place().error(format!("{}: {}", self.instruction.form(), message.as_ref()))
    }

    /// The error for an unknown form.
    pub(crate) fn unsupported<T>(&self) -> Result<T, LoadError> {
        self.error("this form is not supported")
    }

    /// Takes a modifier if it is present.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let found = self.left.iter().position(|m| *m == name);
        if let Some(i) = found {
            self.left.remove(i);
        }
        found.is_some()
    }

    /// Takes the first modifier that is one of the alternatives.
    pub(crate) fn any(&mut self, names: &[&'static str]) -> Option<&'static str> {
        let i = self.left.iter().position(|m| names.contains(m))?;
        let taken = self.left.remove(i);
        names.iter().find(|n| **n == taken).copied()
    }

    /// Takes the first modifier that satisfies `keep`.
    pub(crate) fn matching(&mut self, keep: impl Fn(&str) -> bool) -> Option<&'i str> {
        let i = self.left.iter().position(|m| keep(m))?;
        Some(self.left.remove(i))
    }

    /// Takes the first type among the modifiers.
    pub(crate) fn kind(&mut self) -> Result<Type, LoadError> {
        if let Some(name) = self.left.iter().find(|m| Type::is_foreign(m)) {
            return self.error(format!("type .{name} is not supported"));
        }
        match self.left.iter().position(|m| Type::named(m).is_some()) {
            Some(i) => match Type::named(self.left.remove(i)) {
                Some(t) => Ok(t),
                None => self.unsupported(),
            },
            None => self.error("missing type"),
        }
    }

    /// Takes a rounding modifier: `.rn`, `.rz`, `.rm` or `.rp`.
    pub(crate) fn rounding(&mut self) -> Option<Rounding> {
        Some(match self.any(&["rn", "rz", "rm", "rp"])? {
            "rz" => Rounding::Zero,
            "rm" => Rounding::Down,
            "rp" => Rounding::Up,
            _ => Rounding::Nearest,
        })
    }

    /// The operands, of which there must be `N`.
    pub(crate) fn operands<const N: usize>(&self) -> Result<&'i [Operand; N], LoadError> {
        match self.instruction.operands.as_slice().try_into() {
            Ok(list) => Ok(list),
            Err(_) => self.error(format!("expected {N} operands, found {}", self.instruction.operands.len())),
        }
    }

    /// Fails if there are modifiers left.
    pub(crate) fn finish(&self) -> Result<(), LoadError> {
        match self.left.first() {
            None => Ok(()),
            Some(m) => self.error(format!("modifier .{m} is not supported here")),
        }
    }
}
