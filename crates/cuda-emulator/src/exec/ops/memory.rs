//! "Data Movement": ld, ldu, st and prefetch, with vectors, cache hints and ordering modifiers.

use super::Decoded;
use crate::exec::access::{Shape, Words, load, store};
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form, Register, Symbol};
use crate::exec::registers::{LANES, Registers, Row};
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};
use crate::ptx::{LoadError, Space};

/// An address operand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    row: u32,
    long: bool,
    offset: u64,
}

impl Addresses {
    #[inline(always)]
    pub(super) fn row(self, r: &Registers) -> Row<u64> {
        let mut out = [0; LANES];
        if self.long {
            let x = r.row::<u64>(self.row);
            for lane in 0..LANES {
                out[lane] = x[lane].wrapping_add(self.offset);
            }
        } else {
            // 32-bit addresses wrap at 32 bits.
            let x = r.row::<u32>(self.row);
            for lane in 0..LANES {
                out[lane] = u64::from(x[lane].wrapping_add(self.offset as u32));
            }
        }
        out
    }
}

/// Takes a state space modifier; without one the space is generic.
pub(super) fn space(form: &mut Form<'_>) -> Space {
    const SPACES: [&str; 8] =
        ["global", "const", "shared", "shared::cta", "local", "param", "param::entry", "param::func"];
    match form.any(&SPACES) {
        Some("global") => Space::Global,
        Some("const") => Space::Const,
        Some("shared" | "shared::cta") => Space::Shared,
        Some("local") => Space::Local,
        Some(_) => Space::Param,
        None => Space::Generic,
    }
}

/// Decodes an address operand. The symbol it is based on must be in the given space; it also distinguishes the parameters
/// of functions, which are in local memory, from those of the kernel.
pub(super) fn addresses(
    d: &mut Decoder<'_>,
    form: &Form<'_>,
    o: &Operand,
    space: Space,
) -> Result<(Addresses, Space), LoadError> {
    let (a, symbol) = d.address(form, o)?;
    let mut found = space;
    if let Some(symbol) = symbol {
        let of = super::moves::space_of(&symbol);
        if space != Space::Generic && of != Some(space) {
            return form.error(format!("the address is in {of:?} space, not in {space:?} space"));
        }
        found = match (of, &symbol) {
            (Some(Space::Param), Symbol::Local { .. }) => Space::Local,
            (Some(of), _) => of,
            (None, _) => space,
        };
    }
    Ok((Addresses { row: a.row, long: a.long, offset: a.offset as u64 }, found))
}

/// Takes ordering and scope modifiers ("ld", "st"): whether the access is strong, and whether it also acquires or releases.
fn ordering(form: &mut Form<'_>) -> Result<(bool, Option<&'static str>), LoadError> {
    let order = form.any(&["weak", "volatile", "relaxed", "acquire", "release", "mmio"]);
    let scope = form.any(&["cta", "cluster", "gpu", "sys"]);
    match (order, scope) {
        (None | Some("weak" | "volatile"), None) => Ok((order == Some("volatile"), None)),
        (Some("relaxed"), Some(_)) => Ok((true, None)),
        (Some("mmio"), Some(_)) if form.flag("relaxed") => Ok((true, None)),
        (Some("acquire"), Some(_)) => Ok((true, Some("acquire"))),
        (Some("release"), Some(_)) => Ok((true, Some("release"))),
        _ => form.error("invalid combination of ordering and scope"),
    }
}

/// Takes hints that have no effect on results (cache operators, eviction priorities, prefetch sizes); returns whether there
/// is a cache policy operand.
fn take_hints(form: &mut Form<'_>) -> bool {
    form.any(&["ca", "cg", "cs", "lu", "cv", "wb", "wt"]);
    form.matching(|m| m.starts_with("L1::"));
    form.matching(|m| m.starts_with("L2::") && m != "L2::cache_hint");
    form.flag("L2::cache_hint")
}

struct Data {
    registers: Vec<Register>,
    element: Type,
    vector: u32,
}

impl Data {
    /// The registers of a value or vector operand.
    fn decode(
        d: &mut Decoder<'_>,
        form: &Form<'_>,
        o: &Operand,
        element: Type,
        vector: u32,
        write: bool,
    ) -> Result<Self, LoadError> {
        let list = match o {
            Operand::Vector(list) => list.as_slice(),
            single => std::slice::from_ref(single),
        };
        if list.len() != vector as usize {
            return form.error(format!("expected {vector} elements, found {}", list.len()));
        }
        if element.meaning == Meaning::Predicate || element.bits * vector > 128 {
            return form.unsupported();
        }
        let mut registers = Vec::new();
        for o in list {
            let register = match o {
                Operand::Sink if !write => d.new_register(element.bits),
                Operand::Name(name) if matches!(d.lookup(name), Some(Symbol::Register(_))) => {
                    d.register(form, o)?
                }
                o if write => {
                    let bits = element.bits.max(16);
                    let t = Type { bits, ..element };
                    let t = if bits > element.bits { Type { meaning: Meaning::Bits, bits } } else { t };
                    Register { index: d.source(form, o, t)?, bits }
                }
                _ => return form.error("expected a register"),
            };
            if register.bits < element.bits || register.bits == 1 {
                return form.error(format!(
                    "a register of {} bits for a type of {} bits",
                    register.bits, element.bits
                ));
            }
            registers.push(register);
        }
        Ok(Self { registers, element, vector })
    }

    fn size(&self) -> u32 {
        self.element.bits / 8 * self.vector
    }

    /// Whether the words are copied to registers unchanged.
    fn plain(&self) -> bool {
        self.element.bits == 32 && self.registers.iter().all(|r| r.bits == 32)
    }

    /// Writes loaded words to the registers; values are sign- or zero-extended as the type requires.
    fn put(&self, r: &mut Registers, words: &Words, mask: u32) {
        let bits = self.element.bits;
        let signed = self.element.meaning == Meaning::Signed;
        for (i, register) in self.registers.iter().enumerate() {
            let mut out = [0u64; LANES];
            for lane in 0..LANES {
                out[lane] = if bits == 64 {
                    u64::from(words[2 * i][lane]) | u64::from(words[2 * i + 1][lane]) << 32
                } else {
                    let at = i as u32 * bits;
                    let field = u64::from(words[(at / 32) as usize][lane] >> (at % 32));
                    let unused = 64 - bits;
                    if signed {
                        ((field << unused) as i64 >> unused) as u64
                    } else {
                        field << unused >> unused
                    }
                };
            }
            if register.bits == 64 {
                r.put(register.index, &out, mask);
            } else {
                let keep = (u64::from(u32::MAX) >> (32 - register.bits)) as u32;
                r.put(register.index, &out.map(|x| x as u32 & keep), mask);
            }
        }
    }

    fn gather(&self, r: &Registers) -> Words {
        let bits = self.element.bits;
        let mut words = [[0; LANES]; 4];
        if bits == 32 && self.registers.iter().all(|register| register.bits == 32) {
            for (word, register) in words.iter_mut().zip(&self.registers) {
                *word = *r.row(register.index);
            }
            return words;
        }
        for (i, register) in self.registers.iter().enumerate() {
            let at = i as u32 * bits;
            let (row, shift) = ((at / 32) as usize, at % 32);
            let keep = u64::MAX >> (64 - bits);
            for lane in 0..LANES {
                let x = if register.bits == 64 {
                    r.row::<u64>(register.index)[lane]
                } else {
                    u64::from(r.row::<u32>(register.index)[lane])
                } & keep;
                if bits == 64 {
                    words[row][lane] = x as u32;
                    words[row + 1][lane] = (x >> 32) as u32;
                } else {
                    words[row][lane] |= (x as u32) << shift;
                }
            }
        }
        words
    }
}

fn class(space: Space) -> Class {
    match space {
        Space::Global | Space::Generic => Class::Global,
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Const | Space::Param => Class::Constant,
    }
}

fn vector(form: &mut Form<'_>) -> u32 {
    match form.any(&["v2", "v4", "v8"]) {
        Some("v2") => 2,
        Some("v4") => 4,
        Some(_) => 8,
        None => 1,
    }
}

/// "ld", "ld.global.nc", "ldu".
pub(super) fn ld(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let space = space(form);
    let (strong, order) = ordering(form)?;
    if form.opcode() == "ldu" && !matches!(space, Space::Global | Space::Generic) {
        return form.error("ldu supports device memory only");
    }
    if form.flag("nc") && space != Space::Global {
        return form.error(".nc requires .global");
    }
    let hint = take_hints(form);
    let vector = vector(form);
    let element = form.kind()?;
    let operands = form.instruction.operands.as_slice();
    let (o, a) = match (operands, hint) {
        ([o, a], false) | ([o, a, _], true) => (o, a),
        _ => return form.error("wrong number of operands"),
    };
    let (addresses, space) = addresses(d, form, a, space)?;
    let data = Data::decode(d, form, o, element, vector, false)?;
    let shape = Shape { space, size: data.size(), strong };
    d.accesses(space, shape.size);
    let acquire = order == Some("acquire");
    if order == Some("release") {
        return form.unsupported();
    }
    let action: Action = if data.plain() {
        let rows: Vec<u32> = data.registers.iter().map(|r| r.index).collect();
        Action::Access(Box::new(move |m, r, mask| {
            let mut words = [[0; LANES]; 4];
            load(m, shape, &addresses.row(r), mask, &mut words)?;
            for (row, word) in rows.iter().zip(&words) {
                r.put(*row, word, mask);
            }
            if acquire {
                m.acquire();
            }
            Ok(())
        }))
    } else {
        Action::Access(Box::new(move |m, r, mask| {
            let mut words = [[0; LANES]; 4];
            load(m, shape, &addresses.row(r), mask, &mut words)?;
            data.put(r, &words, mask);
            if acquire {
                m.acquire();
            }
            Ok(())
        }))
    };
    Ok((class(space), action))
}

/// "st".
pub(super) fn st(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let space = space(form);
    if matches!(space, Space::Const) {
        return form.error("constant memory is read-only");
    }
    let (strong, order) = ordering(form)?;
    let hint = take_hints(form);
    let vector = vector(form);
    let element = form.kind()?;
    let (a, o) = match (form.instruction.operands.as_slice(), hint) {
        ([a, o], false) | ([a, o, _], true) => (a, o),
        _ => return form.error("wrong number of operands"),
    };
    let (addresses, space) = addresses(d, form, a, space)?;
    let data = Data::decode(d, form, o, element, vector, true)?;
    let shape = Shape { space, size: data.size(), strong };
    d.accesses(space, shape.size);
    let release = order == Some("release");
    if order == Some("acquire") {
        return form.unsupported();
    }
    let action: Action = Action::Access(Box::new(move |m, r, mask| {
        if release {
            m.fence();
        }
        store(m, shape, &addresses.row(r), mask, &data.gather(r))
    }));
    Ok((class(space), action))
}

/// "prefetch", "prefetchu", "applypriority": hints without effect. Addresses are not checked, because a device does not
/// fault on them either.
pub(super) fn hint(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let space = space(form);
    form.any(&["L1", "L2", "L2::evict_last", "L2::evict_normal", "L2::128B"]);
    form.flag("L2::evict_normal");
    let Some(a) = form.instruction.operands.first() else { return form.error("missing address") };
    addresses(d, form, a, space)?;
    Ok((Class::Global, Action::Compute(Box::new(|_, _| {}))))
}
