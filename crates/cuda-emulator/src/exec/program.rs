//! A module loaded on a device: its variables have addresses.

use super::decode::layout;
use crate::memory::{Memory, MemoryError};
use crate::ptx::ast::{Declaration, Initial};
use crate::ptx::types::Type;
use crate::ptx::{Module, Space};
use std::sync::Arc;

/// A module whose variables are allocated in a device's memory.
#[derive(Debug)]
pub struct Program {
    module: Arc<Module>,
    /// Addresses by index of the module's declarations; 0 for shared variables.
    pub(crate) addresses: Vec<u64>,
}

impl Program {
    /// Allocates and initialises the module's variables.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(module: Arc<Module>, memory: &Memory) -> Result<Self, MemoryError> {
        let mut program = Self { module: Arc::clone(&module), addresses: Vec::new() };
        for d in module.declarations() {
            let address = match d.space {
                Some(Space::Global | Space::Const) => {
                    let read_only = d.space == Some(Space::Const);
                    match memory.alloc_as(layout(d).0, read_only) {
                        Ok(address) => address,
                        Err(error) => {
                            program.release(memory);
                            return Err(error);
                        }
                    }
                }
                _ => 0,
            };
            program.addresses.push(address);
        }
        for (d, address) in module.declarations().iter().zip(&program.addresses) {
            if *address != 0 {
                // "Initializers": variables without one are initialised to zero.
                memory.fill(*address, &[0], layout(d).0)?;
                memory.write(*address, &program.initial_bytes(d))?;
            }
        }
        Ok(program)
    }

    fn initial_bytes(&self, d: &Declaration) -> Vec<u8> {
        let t = Type::named(&d.kind);
        let size = t.map_or(1, Type::bytes) as usize;
        let mut bytes = Vec::new();
        for element in &d.initial {
            let bits = match element {
                Initial::Integer(n) => *n as u64,
                Initial::Single(bits) if size == 8 => f64::from(f32::from_bits(*bits)).to_bits(),
                Initial::Single(bits) => u64::from(*bits),
                Initial::Double(bits) if size == 4 => u64::from((f64::from_bits(*bits) as f32).to_bits()),
                Initial::Double(bits) => *bits,
                Initial::Address { name, offset } => {
                    let index = self.module.declarations().iter().position(|v| v.name == *name);
                    index.map_or(0, |i| self.addresses[i].wrapping_add(*offset as u64))
                }
            };
            bytes.extend_from_slice(&bits.to_le_bytes()[..size]);
        }
        bytes
    }

    /// The module.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// Address and size in bytes of a `.global` or `.const` variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        let declarations = self.module.declarations();
        let i = declarations.iter().position(|d| d.name == name)?;
        (self.addresses[i] != 0).then(|| (self.addresses[i], layout(&declarations[i]).0))
    }

    /// Whether the allocation at this address belongs to the program, and is therefore not a leak of the caller.
    pub fn owns(&self, address: u64) -> bool {
        address != 0 && self.addresses.contains(&address)
    }

    /// Frees the variables.
    pub fn release(&self, memory: &Memory) {
        for address in self.addresses.iter().filter(|a| **a != 0) {
            // The caller may already have freed a variable by its address.
            let _ = memory.free(*address);
        }
    }
}
