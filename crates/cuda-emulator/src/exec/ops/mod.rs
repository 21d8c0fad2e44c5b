//! The instructions, one file per group: how a form is decoded and what it does.
//!
//! An unknown form is an error that names it.

mod approximate;
mod async_copy;
mod atomics;
mod barriers;
mod bits;
mod carry;
mod compare;
mod control;
mod conversion;
mod convert;
mod convert_pairs;
mod double;
mod float;
mod half;
mod integer;
mod logic;
mod matrix;
mod matrix_loads;
mod memory;
mod moves;
mod warps;

use super::code::Action;
use super::counts::Class;
use super::decode::{Decoder, Form};
use crate::ptx::LoadError;
use crate::ptx::types::{Meaning, Type};

/// The result of decoding an instruction.
type Decoded = Result<(Class, Action), LoadError>;

/// Decodes one instruction other than `call` and `ret`.
pub(crate) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    match form.opcode() {
        "add" | "addc" | "sub" | "subc" | "mad" | "madc" if carry::takes(form) => carry::decode(d, form),
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "abs" | "neg" | "min" | "max" | "rcp"
        | "sqrt" | "copysign" => arithmetic(d, form),
        "sad" | "mul24" | "mad24" => integer::decode(d, form),
        "dp4a" | "dp2a" => integer::dot_product(d, form),
        "popc" | "clz" | "bfind" | "brev" | "bfe" | "bfi" | "bmsk" | "szext" | "fns" | "prmt" => {
            bits::decode(d, form)
        }
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shf" | "shl" | "shr" => logic::decode(d, form),
        "testp" => float::test(d, form),
        "setp" => compare::set_predicate(d, form),
        "set" => compare::set(d, form),
        "selp" => compare::select_by_predicate(d, form),
        "slct" => compare::select_by_sign(d, form),
        "mov" => moves::mov(d, form),
        "cvta" => moves::convert_address(d, form),
        "isspacep" => moves::is_space(d, form),
        "ld" | "ldu" => memory::ld(d, form),
        "st" => memory::st(d, form),
        "prefetch" | "prefetchu" | "applypriority" => memory::hint(d, form),
        "cvt" => convert::decode(d, form),
        "ex2" | "lg2" | "rsqrt" | "sin" | "cos" | "tanh" => approximate::transcendental(d, form),
        "atom" | "red" => atomics::decode(d, form),
        "cp" => async_copy::decode(d, form),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => warps::decode(d, form),
        "ldmatrix" | "stmatrix" | "movmatrix" => matrix_loads::decode(d, form),
        "mma" => matrix::decode(d, form),
        "bra" | "brx" | "exit" | "trap" | "nanosleep" => control::decode(d, form),
        "bar" | "barrier" => barriers::decode(d, form),
        "membar" | "fence" => barriers::fence(d, form),
        opcode => form.error(format!("opcode {opcode} is not supported")),
    }
}

/// Opcodes that integers and floats share; the last type among the modifiers decides.
fn arithmetic(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let kind = form.instruction.modifiers.iter().rev().find_map(|m| Type::named(m));
    match kind {
        Some(Type { meaning: Meaning::Signed | Meaning::Unsigned, .. }) => integer::decode(d, form),
        Some(Type { meaning: Meaning::Float, bits: 32 }) => float::decode(d, form),
        Some(Type { meaning: Meaning::Float, bits: 64 }) => double::decode(d, form),
        Some(t) if half::takes(t) => half::decode(d, form),
        _ => form.unsupported(),
    }
}
