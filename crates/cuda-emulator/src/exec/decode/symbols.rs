//! Names in scope, and the layout of variables.

use super::Decoder;
use crate::ptx::ast::{Declaration, Place};
use crate::ptx::types::{Meaning, Type};
use crate::ptx::{LoadError, Space};
use std::collections::HashMap;

/// The names declared in one block.
pub(super) type Scope = HashMap<String, Symbol>;

/// A declared register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) index: u32,
    /// 1 for a predicate, otherwise 8 to 64.
    pub(crate) bits: u32,
}

/// The meaning of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Symbol {
    Register(Register),
    KernelParameter {
        offset: u32,
    },
    Shared {
        offset: u32,
    },
    DynamicShared,
    /// A local variable, or a parameter of a function call, which is kept in local memory.
    Local {
        offset: u32,
        space: Space,
    },
    /// Index into the module's variables.
    Variable {
        index: usize,
        space: Space,
    },
    Label(usize),
    Targets(Vec<String>),
}

/// Size of a declared variable in bytes.
pub(crate) fn bytes_of(d: &Declaration) -> u64 {
    let element = Type::named(&d.kind).map_or(0, Type::bytes) * d.vector;
    element * d.extents.iter().product::<u64>()
}

/// Alignment in bytes: as declared, otherwise that of the type.
pub(crate) fn align_of(d: &Declaration) -> u64 {
    d.align.unwrap_or_else(|| Type::named(&d.kind).map_or(1, Type::bytes) * d.vector).max(1)
}

impl Decoder<'_> {
    pub(crate) fn declare(&mut self, place: Place, name: &str, symbol: Symbol) -> Result<(), LoadError> {
        let Some(scope) = self.scopes.last_mut() else {
            return place.error("declaration outside a function body");
        };
        match scope.insert(name.to_owned(), symbol) {
            None => Ok(()),
            Some(_) => place.error(format!("{name} is declared twice")),
        }
    }

    /// Looks up a name: inner scopes first, then the module's variables.
    pub(crate) fn lookup(&mut self, name: &str) -> Option<Symbol> {
        if let Some(s) = self.scopes.iter().rev().find_map(|s| s.get(name)) {
            return Some(s.clone());
        }
        let file = self.file;
        let index = file.variables.iter().position(|v| v.name == name)?;
        let v = &file.variables[index];
        Some(match v.space {
            Some(Space::Shared) => self.shared_variable(v),
            Some(space) => Symbol::Variable { index, space },
            None => return None,
        })
    }

    /// A new register of the given width.
    pub(crate) fn new_register(&mut self, bits: u32) -> Register {
        let counter = match bits {
            1 => &mut self.predicates,
            64 => &mut self.longs,
            _ => &mut self.words,
        };
        let index = *counter;
        *counter += 1;
        Register { index, bits }
    }

    /// A variable inside a function.
    pub(super) fn declaration(&mut self, d: &Declaration) -> Result<(), LoadError> {
        let Some(t) = Type::named(&d.kind) else { return d.place.error("unknown type") };
        if d.space.is_some() && !d.initial.is_empty() {
            return d.place.error("initialisers inside functions are not supported");
        }
        match d.space {
            None => {
                if d.vector != 1 || !d.extents.is_empty() {
                    return d.place.error("registers that are vectors or arrays are not supported");
                }
                let bits = if t.meaning == Meaning::Predicate { 1 } else { t.bits };
                match d.range {
                    None => {
                        let register = self.new_register(bits);
                        self.declare(d.place, &d.name, Symbol::Register(register))
                    }
                    Some(count) => (0..count).try_for_each(|i| {
                        let register = self.new_register(bits);
                        self.declare(d.place, &format!("{}{i}", d.name), Symbol::Register(register))
                    }),
                }
            }
            Some(Space::Shared) => {
                let symbol = self.shared_variable(d);
                self.declare(d.place, &d.name, symbol)
            }
            Some(space @ (Space::Local | Space::Param)) => {
                if d.extents.contains(&0) {
                    return d.place.error("local array without a size");
                }
                let offset = self.reserve_local(bytes_of(d), align_of(d));
                self.declare(d.place, &d.name, Symbol::Local { offset, space })
            }
            Some(_) => d.place.error("this state space is only supported at module scope"),
        }
    }

    pub(super) fn reserve_local(&mut self, bytes: u64, align: u64) -> u32 {
        let offset = self.local_bytes.next_multiple_of(align as u32);
        self.local_bytes = offset + bytes as u32;
        offset
    }

    fn shared_variable(&mut self, d: &Declaration) -> Symbol {
        let align = align_of(d) as u32;
        self.shared_align = self.shared_align.max(align);
        if d.external || d.extents.contains(&0) {
            return Symbol::DynamicShared;
        }
        let key = (d.place, d.name.clone());
        if let Some(offset) = self.shared.get(&key) {
            return Symbol::Shared { offset: *offset };
        }
        let offset = self.shared_bytes.next_multiple_of(align);
        self.shared_bytes = offset + bytes_of(d) as u32;
        self.shared.insert(key, offset);
        Symbol::Shared { offset }
    }
}
