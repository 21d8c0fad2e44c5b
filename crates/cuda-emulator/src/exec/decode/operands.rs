//! Decodes operands to register rows ("Instruction Operands"). Constants, special registers and addresses of variables are
//! rows as well, which are set before a warp starts.

use super::super::code::{Preset, Special};
use super::super::registers::Guard;
use super::{Decoder, Form, Register, Symbol};
use crate::ptx::LoadError;
use crate::ptx::ast::{Operand, Place};
use crate::ptx::types::{Meaning, Type};

/// An address operand: a row plus a constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) row: u32,
    /// Whether `row` has 64-bit cells.
    pub(crate) long: bool,
    pub(crate) offset: i64,
}

impl Decoder<'_> {
    /// The row of a preset value.
    pub(crate) fn preset(&mut self, long: bool, preset: Preset) -> u32 {
        let (map, counter) = if long {
            (&mut self.long_presets, &mut self.longs)
        } else {
            (&mut self.word_presets, &mut self.words)
        };
        *map.entry(preset).or_insert_with(|| {
            *counter += 1;
            *counter - 1
        })
    }

    /// A row that holds a constant in all lanes.
    pub(crate) fn constant(&mut self, bits: u32, value: u64) -> u32 {
        let masked = if bits == 64 { value } else { value & ((1 << bits) - 1) };
        self.preset(bits == 64, Preset::Bits(masked))
    }

    /// The row of a source operand of type `t`; the register must have the width of the type.
    pub(crate) fn source(&mut self, form: &Form<'_>, o: &Operand, t: Type) -> Result<u32, LoadError> {
        self.source_of_width(form, o, t, false)
    }

    /// As [`Self::source`]; with `wider`, the register may be wider than the type ("Operand Size Exceeding
    /// Instruction-Type Size").
    pub(crate) fn source_of_width(
        &mut self,
        form: &Form<'_>,
        o: &Operand,
        t: Type,
        wider: bool,
    ) -> Result<u32, LoadError> {
        match o {
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Register(r)) if r.bits == t.bits => Ok(r.index),
                Some(Symbol::Register(r)) if wider && r.bits > t.bits && (r.bits == 64) == (t.bits == 64) => {
                    Ok(r.index)
                }
                Some(Symbol::Register(r)) => form
                    .error(format!("{name} has {} bits, but the instruction's type has {}", r.bits, t.bits)),
                Some(symbol) => self.symbol_address(form, name, &symbol, 0, t),
                None => self.special(form, name, t),
            },
            Operand::Offset { base, offset } => match self.lookup(base) {
                Some(symbol) => self.symbol_address(form, base, &symbol, *offset, t),
                None => form.error(format!("{base} is not declared")),
            },
            _ => {
                let value = self.immediate(form, o, t)?;
                Ok(self.constant(t.bits, value))
            }
        }
    }

    /// The bits of a literal as type `t`.
    pub(crate) fn immediate(&self, form: &Form<'_>, o: &Operand, t: Type) -> Result<u64, LoadError> {
        let float = matches!(t.meaning, Meaning::Float | Meaning::Bits);
        match (o, t.bits) {
            (Operand::Integer(n), _) if !(t.meaning == Meaning::Float && t.bits >= 32) => Ok(*n as u64),
            (Operand::Single(bits), 32) if float => Ok(u64::from(*bits)),
            (Operand::Single(bits), 64) if float => Ok(f64::from(f32::from_bits(*bits)).to_bits()),
            (Operand::Double(bits), 64) if float => Ok(*bits),
            (Operand::Double(bits), 32) if float => Ok(u64::from((f64::from_bits(*bits) as f32).to_bits())),
            _ => form.error(format!("operand {o:?} does not match the type")),
        }
    }

    /// The row of the address of a variable, in its own state space.
    fn symbol_address(
        &mut self,
        form: &Form<'_>,
        name: &str,
        symbol: &Symbol,
        offset: i64,
        t: Type,
    ) -> Result<u32, LoadError> {
        if t.bits < 32 {
            return form.error(format!("the address of {name} does not fit into {} bits", t.bits));
        }
        let preset = match symbol {
            Symbol::KernelParameter { offset: at } => Preset::Bits((i64::from(*at) + offset) as u64),
            Symbol::Shared { offset: at } => Preset::Bits((i64::from(*at) + offset) as u64),
            Symbol::Local { offset: at, .. } => Preset::Bits((i64::from(*at) + offset) as u64),
            Symbol::DynamicShared => Preset::DynamicShared(offset),
            Symbol::Variable { index, .. } => Preset::Variable { index: *index, offset },
            Symbol::Register(_) | Symbol::Label(_) | Symbol::Targets(_) => {
                return form.error(format!("{name} has no address"));
            }
        };
        Ok(self.preset(t.bits == 64, preset))
    }

    fn special(&mut self, form: &Form<'_>, name: &str, t: Type) -> Result<u32, LoadError> {
        let axis = |base: fn(u8) -> Special| match name.rsplit('.').next() {
            Some("x") => Some(base(0)),
            Some("y") => Some(base(1)),
            Some("z") => Some(base(2)),
            _ => None,
        };
        let special = match name.split('.').next().unwrap_or(name) {
            "%tid" => axis(Special::Thread),
            "%ntid" => axis(Special::ThreadExtent),
            "%ctaid" => axis(Special::Block),
            "%nctaid" => axis(Special::BlockExtent),
            "%laneid" => Some(Special::Lane),
            "%warpid" => Some(Special::Warp),
            "%nwarpid" => Some(Special::WarpExtent),
            "%smid" => Some(Special::Multiprocessor),
            "%nsmid" => Some(Special::MultiprocessorExtent),
            "%gridid" => Some(Special::Grid),
            "%lanemask_eq" => Some(Special::MaskEqual),
            "%lanemask_lt" => Some(Special::MaskLess),
            "%lanemask_le" => Some(Special::MaskLessEqual),
            "%lanemask_gt" => Some(Special::MaskGreater),
            "%lanemask_ge" => Some(Special::MaskGreaterEqual),
            "%dynamic_smem_size" => Some(Special::DynamicSharedBytes),
            "%total_smem_size" => Some(Special::TotalSharedBytes),
            "WARP_SZ" => return Ok(self.constant(t.bits, 32)),
            _ => None,
        };
        match special {
            // Values are truncated to 16 bits, as on the device.
            Some(s) if t.bits <= 32 || s == Special::Grid => {
                Ok(self.preset(t.bits == 64, Preset::Special(s)))
            }
            Some(_) => form.error(format!("{name} has 32 bits")),
            None => form.error(format!("{name} is not declared or not supported")),
        }
    }

    /// A register operand, which must be declared.
    pub(crate) fn register(&mut self, form: &Form<'_>, o: &Operand) -> Result<Register, LoadError> {
        match o {
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Register(r)) => Ok(r),
                _ => form.error(format!("{name} is not a register")),
            },
            _ => form.error(format!("expected a register, found {o:?}")),
        }
    }

    /// The row of a destination of type `t`; `_` gets a row that is never read.
    pub(crate) fn destination(&mut self, form: &Form<'_>, o: &Operand, t: Type) -> Result<u32, LoadError> {
        if *o == Operand::Sink {
            return Ok(self.new_register(t.bits).index);
        }
        let r = self.register(form, o)?;
        if r.bits != t.bits {
            let name = if let Operand::Name(name) = o { name } else { "the destination" };
            return form
                .error(format!("{name} has {} bits, but the instruction's type has {}", r.bits, t.bits));
        }
        Ok(r.index)
    }

    pub(super) fn predicate_named(&mut self, place: Place, name: &str) -> Result<Guard, LoadError> {
        match self.lookup(name) {
            Some(Symbol::Register(Register { index, bits: 1 })) => Ok(Guard { index, flip: 0 }),
            _ => place.error(format!("{name} is not a predicate")),
        }
    }

    /// A predicate source operand, which may be negated.
    pub(crate) fn predicate(&mut self, form: &Form<'_>, o: &Operand) -> Result<Guard, LoadError> {
        match o {
            Operand::Name(name) => self.predicate_named(form.place(), name),
            Operand::Not(inner) => Ok(self.predicate(form, inner)?.negated()),
            Operand::Integer(0) => Ok(Guard::ALWAYS.negated()),
            Operand::Integer(_) => Ok(Guard::ALWAYS),
            _ => form.error(format!("expected a predicate, found {o:?}")),
        }
    }

    /// A predicate destination; `_` gets one that is never read.
    pub(crate) fn predicate_destination(&mut self, form: &Form<'_>, o: &Operand) -> Result<u32, LoadError> {
        match o {
            Operand::Sink => Ok(self.new_register(1).index),
            Operand::Name(name) => Ok(self.predicate_named(form.place(), name)?.index),
            _ => form.error(format!("expected a predicate, found {o:?}")),
        }
    }

    /// An address operand ("Addresses as Operands"), and the symbol it is based on.
    pub(crate) fn address(
        &mut self,
        form: &Form<'_>,
        o: &Operand,
    ) -> Result<(Address, Option<Symbol>), LoadError> {
        let Operand::Address { base, offset } = o else {
            return form.error(format!("expected an address, found {o:?}"));
        };
        let Some(base) = base else {
            return Ok((Address { row: self.constant(64, 0), long: true, offset: *offset }, None));
        };
        match self.lookup(base) {
            Some(Symbol::Register(r)) if r.bits == 64 || r.bits == 32 => {
                Ok((Address { row: r.index, long: r.bits == 64, offset: *offset }, None))
            }
            Some(Symbol::Register(_)) | None => form.error(format!("{base} is not an address")),
            Some(symbol) => {
                let t = Type { meaning: Meaning::Bits, bits: 64 };
                let row = self.symbol_address(form, base, &symbol, 0, t)?;
                Ok((Address { row, long: true, offset: *offset }, Some(symbol)))
            }
        }
    }
}
