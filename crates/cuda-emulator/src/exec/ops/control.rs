//! "Control Flow Instructions": bra, brx.idx, exit; and trap, nanosleep from "Miscellaneous Instructions".

use super::Decoded;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form, Symbol};
use crate::ptx::LoadError;
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let action = match form.opcode() {
        "bra" => {
            form.flag("uni");
            let [Operand::Name(name)] = form.operands()? else { return form.error("expected a label") };
            Action::Branch(label(d, form, name)?)
        }
        "brx" => {
            if !form.flag("idx") {
                return form.unsupported();
            }
            form.flag("uni");
            let [index, Operand::Name(list)] = form.operands()? else {
                return form.error("expected an index and a list of targets");
            };
            let index = d.source(form, index, Type { meaning: Meaning::Unsigned, bits: 32 })?;
            let Some(Symbol::Targets(names)) = d.lookup(list) else {
                return form.error(format!("{list} is not a list of targets"));
            };
            let targets = names.iter().map(|n| label(d, form, n)).collect::<Result<_, _>>()?;
            Action::BranchTable { index, targets }
        }
        "exit" => {
            form.operands::<0>()?;
            Action::Exit
        }
        "trap" => {
            form.operands::<0>()?;
            Action::Trap
        }
        "nanosleep" => {
            let t = form.kind()?;
            let [a] = form.operands()?;
            d.source(form, a, t)?;
            Action::Compute(Box::new(|_, _| {}))
        }
        _ => return form.unsupported(),
    };
    Ok((Class::Control, action))
}

/// The number of a label, which is replaced by its position at the end of decoding.
fn label(d: &mut Decoder<'_>, form: &Form<'_>, name: &str) -> Result<u32, LoadError> {
    match d.lookup(name) {
        Some(Symbol::Label(label)) => Ok(label as u32),
        _ => form.error(format!("label {name} is not defined")),
    }
}
