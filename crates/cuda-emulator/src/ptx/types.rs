//! Fundamental types, state spaces and kernel parameters ("Fundamental Types", "State Spaces").

/// What the bits of a type mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Meaning {
    /// `.b8` to `.b64`.
    Bits,
    Unsigned,
    Signed,
    /// `.f16`, `.f32`, `.f64`.
    Float,
    /// `.bf16`.
    Brain,
    /// `.f16x2`.
    FloatPair,
    /// `.bf16x2`.
    BrainPair,
    /// `.tf32`.
    Tensor,
    Predicate,
}

/// A type of an instruction or a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Type {
    pub(crate) meaning: Meaning,
    /// Width in bits; 1 for predicates.
    pub(crate) bits: u32,
}

impl Type {
    /// The type of that name, without its dot.
    pub(crate) fn named(name: &str) -> Option<Self> {
        use Meaning::{Bits, Brain, BrainPair, Float, FloatPair, Predicate, Signed, Tensor, Unsigned};
        let (meaning, bits) = match name {
            "b8" => (Bits, 8),
            "b16" => (Bits, 16),
            "b32" => (Bits, 32),
            "b64" => (Bits, 64),
            "u8" => (Unsigned, 8),
            "u16" => (Unsigned, 16),
            "u32" => (Unsigned, 32),
            "u64" => (Unsigned, 64),
            "s8" => (Signed, 8),
            "s16" => (Signed, 16),
            "s32" => (Signed, 32),
            "s64" => (Signed, 64),
            "f16" => (Float, 16),
            "f32" => (Float, 32),
            "f64" => (Float, 64),
            "bf16" => (Brain, 16),
            "f16x2" => (FloatPair, 32),
            "bf16x2" => (BrainPair, 32),
            "tf32" => (Tensor, 32),
            "pred" => (Predicate, 1),
            _ => return None,
        };
        Some(Self { meaning, bits })
    }

    /// Whether the PTX ISA has a type of this name that the emulator does not ("Alternate Floating-Point Data Formats", "Packed
    /// Data Types", "Matrix Data-types").
    pub(crate) fn is_foreign(name: &str) -> bool {
        const FORMATS: [&str; 7] = ["e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "ue8m0", "ue4m3"];
        const OTHERS: [&str; 12] =
            ["b1", "b4", "u4", "s4", "b4x16", "b6x16_p32", "b128", "f32x2", "u16x2", "s16x2", "u8x4", "s8x4"];
        let packed = |lanes: &str| ["", "x2", "x4"].contains(&lanes);
        OTHERS.contains(&name) || FORMATS.iter().any(|f| name.strip_prefix(f).is_some_and(packed))
    }

    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.bits / 8)
    }
}

/// Width of a named type in bits.
pub(crate) fn bits(name: &str) -> Option<u32> {
    Type::named(name).map(|t| t.bits)
}

/// A state space ("State Spaces").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// Read-only device memory of at most 64 KiB.
    Const,
    /// On-chip memory, shared by the threads of a block.
    Shared,
    /// Memory private to a thread.
    Local,
    /// Kernel or function parameters.
    Param,
    /// Any of the above, distinguished by the address.
    Generic,
}

/// A kernel parameter and its place in the parameter block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The PTX name.
    pub name: String,
    /// Byte offset in the parameter block.
    pub offset: u32,
    /// Size in bytes.
    pub bytes: u32,
    /// Alignment in bytes.
    pub align: u32,
}
