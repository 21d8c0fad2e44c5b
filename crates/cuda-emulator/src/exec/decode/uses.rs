//! The registers that an instruction reads and writes, for the model of time.

use super::{Decoder, Symbol};
use crate::exec::timing::{CopyStep, Id, Uses};
use crate::ptx::ast::{Instruction, Operand};

/// Opcodes without a result in a register.
const WITHOUT_RESULT: [&str; 13] = [
    "st", "red", "bra", "brx", "exit", "trap", "bar", "barrier", "membar", "fence", "cp", "prefetch",
    "stmatrix",
];

impl Decoder<'_> {
    pub(super) fn uses(&mut self, i: &Instruction) -> Uses {
        let mut uses = Uses { copies: copy_step(i), ..Uses::default() };
        let has_result = !WITHOUT_RESULT.contains(&i.opcode.as_str());
        for (at, operand) in i.operands.iter().enumerate() {
            let into = if has_result && at == 0 { &mut uses.writes } else { &mut uses.reads };
            self.registers(operand, into);
        }
        uses
    }

    fn registers(&mut self, operand: &Operand, into: &mut Vec<Id>) {
        match operand {
            Operand::Name(name)
            | Operand::Offset { base: name, .. }
            | Operand::Address { base: Some(name), .. } => {
                if let Some(Symbol::Register(register)) = self.lookup(name) {
                    into.push(match register.bits {
                        1 => Id::Predicate(register.index),
                        64 => Id::Long(register.index),
                        _ => Id::Word(register.index),
                    });
                }
            }
            Operand::Vector(list) | Operand::List(list) => {
                for operand in list {
                    self.registers(operand, into);
                }
            }
            Operand::Not(operand) => self.registers(operand, into),
            Operand::Pair(first, second) => {
                self.registers(first, into);
                self.registers(second, into);
            }
            _ => {}
        }
    }
}

fn copy_step(i: &Instruction) -> CopyStep {
    let is = |modifier: &str| i.modifiers.iter().any(|m| m == modifier);
    match i.operands.first() {
        _ if i.opcode != "cp" => CopyStep::Other,
        _ if is("commit_group") => CopyStep::Commit,
        Some(Operand::Integer(keep)) if is("wait_group") => {
            CopyStep::Wait(usize::try_from(*keep).unwrap_or(0))
        }
        _ if is("wait_all") => CopyStep::Wait(0),
        _ => CopyStep::Issue,
    }
}
