//! Decodes statements to [`Code`]: names become register rows, calls are inlined, labels become positions.
//!
//! A called function is decoded again at each call, so that divergence needs no call stack. Only recursive calls save the
//! caller's state at run time (see [`frames`](super::frames)).

mod call;
pub(crate) mod form;
mod operands;
mod symbols;
mod uses;

pub(crate) use form::Form;
pub(crate) use symbols::{Register, Symbol};

use call::Open;

use super::code::{Action, Code, Preset, Step};
use super::counts::Class;
use super::frames::Frame;
use super::ops;
use super::registers::Guard;
use super::timing::Uses;
use crate::ptx::ast::{Declaration, File, Function, Instruction, Place, Statement};
use crate::ptx::{LoadError, Parameter, Space};
use std::collections::HashMap;
use symbols::Scope;

/// The state of decoding one kernel.
pub(crate) struct Decoder<'f> {
    pub(crate) file: &'f File,
    steps: Vec<Step>,
    scopes: Vec<Scope>,
    words: u32,
    longs: u32,
    predicates: u32,
    carry: Option<u32>,
    word_presets: HashMap<Preset, u32>,
    long_presets: HashMap<Preset, u32>,
    /// Positions of labels; `None` until the label is reached.
    labels: Vec<Option<u32>>,
    /// Shared variables by place of declaration, so that inlined copies of a function share them.
    shared: HashMap<(Place, String), u32>,
    shared_bytes: u32,
    shared_align: u32,
    local_bytes: u32,
    shared_grain: u32,
    global_grain: u32,
    /// The functions being inlined, outermost first.
    calls: Vec<Open>,
    /// The frames of recursive functions.
    frames: Vec<Frame>,
}

/// Size and alignment of a variable in bytes.
pub(crate) fn layout(d: &Declaration) -> (u64, u64) {
    (symbols::bytes_of(d), symbols::align_of(d))
}

/// Decodes a kernel; `parameters` gives the layout of its parameter block.
pub(crate) fn kernel(file: &File, function: &Function, parameters: &[Parameter]) -> Result<Code, LoadError> {
    let Some(body) = &function.body else { return function.place.error("entry without a body") };
    let mut decoder = Decoder::new(file);
    let mut scope = Scope::default();
    for p in parameters {
        scope.insert(p.name.clone(), Symbol::KernelParameter { offset: p.offset });
    }
    decoder.scopes.push(scope);
    decoder.statements(body)?;
    decoder.emit(Action::Exit, Guard::ALWAYS, Class::Control, function.place.line);
    decoder.code()
}

impl Guard {
    /// Predicate 0 is true in every lane.
    pub(crate) const ALWAYS: Self = Self { index: 0, flip: 0 };

    pub(crate) fn negated(self) -> Self {
        Self { index: self.index, flip: !self.flip }
    }
}

impl<'f> Decoder<'f> {
    fn new(file: &'f File) -> Self {
        Self {
            file,
            steps: Vec::new(),
            scopes: Vec::new(),
            words: 0,
            longs: 0,
            predicates: 1,
            carry: None,
            word_presets: HashMap::new(),
            long_presets: HashMap::new(),
            labels: Vec::new(),
            shared: HashMap::new(),
            shared_bytes: 0,
            shared_align: 16,
            local_bytes: 0,
            shared_grain: 2,
            global_grain: 2,
            calls: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn code(mut self) -> Result<Code, LoadError> {
        for step in &mut self.steps {
            let place = Place { line: step.line, column: 1 };
            let resolve = |label: &mut u32| match self.labels[*label as usize] {
                Some(position) => {
                    *label = position;
                    Ok(())
                }
                None => place.error("branch to an undefined label"),
            };
            match &mut step.action {
                Action::Branch(target) | Action::Return { otherwise: target, .. } => resolve(target)?,
                Action::Call(call) => resolve(&mut call.entry)?,
                Action::BranchTable { targets, .. } => targets.iter_mut().try_for_each(resolve)?,
                _ => {}
            }
        }
        let presets = |map: HashMap<Preset, u32>| map.into_iter().map(|(p, i)| (i, p)).collect();
        Ok(Code {
            steps: self.steps,
            words: self.words,
            longs: self.longs,
            predicates: self.predicates,
            word_presets: presets(self.word_presets),
            long_presets: presets(self.long_presets),
            frames: self.frames,
            shared_bytes: self.shared_bytes,
            dynamic_shared: self.shared_bytes.next_multiple_of(self.shared_align),
            local_bytes: self.local_bytes,
            shared_grain: self.shared_grain,
            global_grain: self.global_grain,
        })
    }

    pub(crate) fn emit(&mut self, action: Action, guard: Guard, class: Class, line: u32) {
        self.steps.push(Step { action, guard, class, line, uses: Uses::default() });
    }

    /// Notes an access of `bytes` bytes, the size of which limits the granularity of the space's race shadow.
    pub(crate) fn accesses(&mut self, space: Space, bytes: u32) {
        let grain = bytes.trailing_zeros();
        if matches!(space, Space::Shared | Space::Generic) {
            self.shared_grain = self.shared_grain.min(grain);
        }
        if matches!(space, Space::Global | Space::Generic) {
            self.global_grain = self.global_grain.min(grain);
        }
    }

    /// The predicate that holds the carry bit of the condition code.
    pub(crate) fn carry(&mut self) -> u32 {
        if let Some(carry) = self.carry {
            return carry;
        }
        let carry = self.new_register(1).index;
        self.carry = Some(carry);
        carry
    }

    pub(crate) fn new_label(&mut self) -> usize {
        self.labels.push(None);
        self.labels.len() - 1
    }

    fn set_label(&mut self, label: usize) {
        self.labels[label] = Some(self.steps.len() as u32);
    }

    fn statements(&mut self, list: &[Statement]) -> Result<(), LoadError> {
        self.scopes.push(Scope::default());
        for s in list {
            match s {
                Statement::Label(name, place) => {
                    let label = self.new_label();
                    self.declare(*place, name, Symbol::Label(label))?;
                }
                Statement::BranchTargets(name, targets) => {
                    self.declare(Place { line: 0, column: 0 }, name, Symbol::Targets(targets.clone()))?;
                }
                _ => {}
            }
        }
        for s in list {
            match s {
                Statement::Label(name, place) => match self.lookup(name) {
                    Some(Symbol::Label(label)) => self.set_label(label),
                    _ => return place.error(format!("{name} is not a label")),
                },
                Statement::BranchTargets(..) => {}
                Statement::Declaration(d) => self.declaration(d)?,
                Statement::Scope(inner) => self.statements(inner)?,
                Statement::Instruction(i) => self.instruction(i)?,
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn instruction(&mut self, i: &Instruction) -> Result<(), LoadError> {
        let guard = match &i.guard {
            None => Guard::ALWAYS,
            Some((name, negated)) => {
                let p = self.predicate_named(i.place, name)?;
                if *negated { p.negated() } else { p }
            }
        };
        let mut form = Form::new(i);
        match i.opcode.as_str() {
            "call" => self.call(&mut form, guard),
            "ret" => {
                form.flag("uni");
                form.finish()?;
                form.operands::<0>()?;
                self.emit(self.leave(), guard, Class::Control, i.place.line);
                Ok(())
            }
            _ => {
                let (class, action) = ops::decode(self, &mut form)?;
                form.finish()?;
                let uses = self.uses(i);
                self.steps.push(Step { action, guard, class, line: i.place.line, uses });
                Ok(())
            }
        }
    }
}
