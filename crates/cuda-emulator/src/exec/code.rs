//! A kernel in executable form.

use super::counts::Class;
use super::fault::Fault;
use super::frames::{Frame, Recursion};
use super::machine::Machine;
use super::registers::{Guard, Registers};
use super::timing::Uses;

/// A function of the registers alone, for the lanes of the mask.
pub(crate) type Compute = Box<dyn Fn(&mut Registers, u32) + Send + Sync>;

/// A function of registers and memory, for the lanes of the mask. The registers are those of warp [`Machine::warp`].
pub(crate) type Access =
    Box<dyn Fn(&mut Machine<'_>, &mut Registers, u32) -> Result<(), Fault> + Send + Sync>;

/// What an instruction does.
pub(crate) enum Action {
    Compute(Compute),
    Access(Access),
    /// Waits until all live lanes of the membermask have reached this instruction.
    Converged {
        /// The row of membermasks.
        members: u32,
        /// Whether the warp must not have diverged (`.aligned`).
        aligned: bool,
        run: Access,
    },
    Branch(u32),
    /// `brx.idx`: the row of indices, and the targets.
    BranchTable {
        index: u32,
        targets: Vec<u32>,
    },
    /// A recursive call.
    Call(Recursion),
    /// Returns from a recursive call; lanes that have not made one go to `otherwise`.
    Return {
        frame: usize,
        otherwise: u32,
    },
    Exit,
    Trap,
    Barrier(BarrierForm),
}

/// A decoded block barrier instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BarrierForm {
    /// The row of barrier numbers.
    pub(crate) number: u32,
    /// The row of thread counts; `None` means the whole block.
    pub(crate) threads: Option<u32>,
    /// Whether all lanes of a warp must execute it together.
    pub(crate) aligned: bool,
    /// Whether the warp waits, which it does not for `bar.arrive`.
    pub(crate) wait: bool,
    pub(crate) reduction: Option<Reduction>,
}

/// `bar.red`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reduction {
    pub(crate) kind: ReductionKind,
    pub(crate) destination: u32,
    pub(crate) source: Guard,
}

/// What `bar.red` combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReductionKind {
    Count,
    And,
    Or,
}

/// One decoded instruction.
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) guard: Guard,
    pub(crate) class: Class,
    pub(crate) line: u32,
    pub(crate) uses: Uses,
}

/// The value of a register that is set before the kernel starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Preset {
    Bits(u64),
    /// The address of a module variable plus an offset.
    Variable {
        index: usize,
        offset: i64,
    },
    /// The start of dynamic shared memory plus an offset.
    DynamicShared(i64),
    Special(Special),
}

/// Special registers that are constant during a warp's execution ("Special Registers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(u8),
    ThreadExtent(u8),
    Block(u8),
    BlockExtent(u8),
    Lane,
    Warp,
    WarpExtent,
    Multiprocessor,
    MultiprocessorExtent,
    Grid,
    MaskEqual,
    MaskLess,
    MaskLessEqual,
    MaskGreater,
    MaskGreaterEqual,
    DynamicSharedBytes,
    TotalSharedBytes,
}

/// A kernel's code and the resources it needs.
pub(crate) struct Code {
    pub(crate) steps: Vec<Step>,
    pub(crate) words: u32,
    pub(crate) longs: u32,
    pub(crate) predicates: u32,
    /// Registers of `words` set before the first instruction.
    pub(crate) word_presets: Vec<(u32, Preset)>,
    /// Registers of `longs` set before the first instruction.
    pub(crate) long_presets: Vec<(u32, Preset)>,
    /// Frames of the recursive functions.
    pub(crate) frames: Vec<Frame>,
    pub(crate) shared_bytes: u32,
    /// Offset of dynamic shared memory.
    pub(crate) dynamic_shared: u32,
    pub(crate) local_bytes: u32,
    /// Log2 of the size in bytes of the narrowest access to shared memory: the granularity of its race shadow.
    pub(crate) shared_grain: u32,
    /// The same for device memory.
    pub(crate) global_grain: u32,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}
