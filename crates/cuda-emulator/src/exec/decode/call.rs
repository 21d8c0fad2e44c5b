//! `call` ("Control Flow Instructions: call"): the callee is inlined.
//!
//! Parameters in `.param` space share the caller's bytes; register parameters are copied. The registers and variables of a
//! recursive function have one location, which a recursive call saves (see `frames`).

use super::super::code::Action;
use super::super::counts::Class;
use super::super::registers::Guard;
use super::symbols::{Scope, align_of, bytes_of};
use super::{Decoder, Form, Symbol};
use crate::exec::frames::{Frame, Passed, Recursion};
use crate::ptx::ast::{Declaration, File, Function, Instruction, Operand, Statement};
use crate::ptx::{LoadError, Space};
use std::collections::HashSet;

/// The offset of a variable in local memory.
fn offset_of(symbol: &Symbol) -> Option<u32> {
    match symbol {
        Symbol::Local { offset, .. } => Some(*offset),
        _ => None,
    }
}

/// A function that is being inlined.
#[derive(Debug)]
pub(super) struct Open {
    name: String,
    /// Its first instruction.
    entry: usize,
    /// The target of `ret`.
    end: usize,
    /// Index of its frame, if it is recursive.
    frame: Option<usize>,
    /// Its results and parameters.
    results: Vec<Symbol>,
    parameters: Vec<Symbol>,
}

/// Whether the statements call `callee`, directly or indirectly.
fn reaches(file: &File, statements: &[Statement], callee: &str, seen: &mut HashSet<String>) -> bool {
    statements.iter().any(|s| match s {
        Statement::Scope(inner) => reaches(file, inner, callee, seen),
        Statement::Instruction(i) if i.opcode == "call" => i.operands.iter().any(|o| {
            let Operand::Name(name) = o else { return false };
            name == callee
                || seen.insert(name.clone())
                    && file
                        .functions
                        .iter()
                        .filter(|f| f.name == *name)
                        .filter_map(|f| f.body.as_deref())
                        .any(|body| reaches(file, body, callee, seen))
        }),
        _ => false,
    })
}

impl<'f> Decoder<'f> {
    /// The action of `ret` at this position.
    pub(super) fn leave(&self) -> Action {
        match self.calls.last() {
            None => Action::Exit,
            Some(Open { end, frame: None, .. }) => Action::Branch(*end as u32),
            Some(Open { end, frame: Some(frame), .. }) => {
                Action::Return { frame: *frame, otherwise: *end as u32 }
            }
        }
    }

    pub(super) fn call(&mut self, form: &mut Form<'_>, guard: Guard) -> Result<(), LoadError> {
        form.flag("uni");
        form.finish()?;
        let none = Vec::new();
        let (results, name, arguments) = match form.instruction.operands.as_slice() {
            [Operand::Name(n)] => (&none, n, &none),
            [Operand::Name(n), Operand::List(a)] => (&none, n, a),
            [Operand::List(r), Operand::Name(n)] => (r, n, &none),
            [Operand::List(r), Operand::Name(n), Operand::List(a)] => (r, n, a),
            _ => return form.error("indirect calls are not supported"),
        };
        let line = form.place().line;
        if name == "__assertfail" {
            self.emit(Action::Trap, guard, Class::Control, line);
            return Ok(());
        }
        let file = self.file;
        let same_name = file.functions.iter().filter(|f| f.name == *name && !f.entry);
        let Some(callee) = same_name.max_by_key(|f| f.body.is_some()) else {
            return form.error(format!("{name} is not a function (indirect calls are not supported)"));
        };
        if let Some(open) = self.calls.iter().position(|c| c.name == *name) {
            return self.recurse(form, guard, callee, open, (results, arguments));
        }
        let end = self.new_label();
        if guard != Guard::ALWAYS {
            self.emit(Action::Branch(end as u32), guard.negated(), Class::Control, line);
        }
        self.copy_in(form, callee, results, arguments)?;
        self.set_label(end);
        Ok(())
    }

    fn copy_in(
        &mut self,
        form: &Form<'_>,
        callee: &'f Function,
        results: &[Operand],
        arguments: &[Operand],
    ) -> Result<(), LoadError> {
        let Some(body) = &callee.body else {
            return form.error(format!("{} has no body in this module", callee.name));
        };
        if results.len() != callee.results.len() || arguments.len() != callee.parameters.len() {
            return form.error(format!("wrong number of arguments for {}", callee.name));
        }
        let recursive = reaches(self.file, body, &callee.name, &mut HashSet::new());
        let start = (self.words, self.longs, self.predicates);
        let mut scope = Scope::default();
        let mut bind = |decoder: &mut Self, formals: &[Declaration], actuals: &[Operand], input| {
            let mut symbols = Vec::new();
            for (formal, actual) in formals.iter().zip(actuals) {
                let symbol = decoder.bind(form, formal, actual, input)?;
                scope.insert(formal.name.clone(), symbol.clone());
                symbols.push(symbol);
            }
            Ok(symbols)
        };
        let results = bind(self, &callee.results, results, false)?;
        let parameters = bind(self, &callee.parameters, arguments, true)?;
        let local = self.local_bytes;
        let frame = recursive.then(|| {
            self.frames.push(Frame::default());
            self.frames.len() - 1
        });
        let (entry, end) = (self.new_label(), self.new_label());
        let outer = std::mem::replace(&mut self.scopes, vec![scope]);
        self.set_label(entry);
        self.calls.push(Open { name: callee.name.clone(), entry, end, frame, results, parameters });
        self.statements(body)?;
        if frame.is_some() {
            self.emit(self.leave(), Guard::ALWAYS, Class::Control, callee.place.line);
        }
        let open = self.calls.pop();
        if let (Some(frame), Some(open)) = (frame, open) {
            let formals = callee.results.iter().zip(&open.results);
            let formals = formals.chain(callee.parameters.iter().zip(&open.parameters));
            self.frames[frame] = Frame {
                words: start.0..self.words,
                longs: start.1..self.longs,
                predicates: start.2..self.predicates,
                local: local..self.local_bytes,
                formals: formals
                    .filter_map(|(d, s)| offset_of(s).map(|at| at..at + bytes_of(d) as u32))
                    .collect(),
            };
        }
        self.scopes = outer;
        self.set_label(end);
        Ok(())
    }

    /// A call of a function that is being inlined.
    fn recurse(
        &mut self,
        form: &Form<'_>,
        guard: Guard,
        callee: &'f Function,
        open: usize,
        (results, arguments): (&[Operand], &[Operand]),
    ) -> Result<(), LoadError> {
        let (entry, frame) = (self.calls[open].entry as u32, self.calls[open].frame);
        let Some(frame) = frame else { return form.error("unexpected recursive call") };
        if results.len() != callee.results.len() || arguments.len() != callee.parameters.len() {
            return form.error(format!("wrong number of arguments for {}", callee.name));
        }
        let pass = |decoder: &mut Self, formals: &[Declaration], actuals: &[Operand], input: bool| {
            let mut list = Vec::new();
            for (i, (formal, actual)) in formals.iter().zip(actuals).enumerate() {
                let here = decoder.bind(form, formal, actual, input)?;
                let open = &decoder.calls[open];
                let there = if input { &open.parameters[i] } else { &open.results[i] };
                let (Some(here), Some(there)) = (offset_of(&here), offset_of(there)) else {
                    return form.error("recursive calls must pass their parameters in .param space");
                };
                let (from, to) = if input { (here, there) } else { (there, here) };
                list.push(Passed { from, to, bytes: bytes_of(formal) as u32 });
            }
            Ok(list)
        };
        let arguments = pass(self, &callee.parameters, arguments, true)?;
        let results = pass(self, &callee.results, results, false)?;
        let call = Action::Call(Recursion { frame, entry, arguments, results });
        self.emit(call, guard, Class::Control, form.place().line);
        Ok(())
    }

    /// The symbol of a formal parameter inside the callee.
    fn bind(
        &mut self,
        form: &Form<'_>,
        formal: &Declaration,
        actual: &Operand,
        input: bool,
    ) -> Result<Symbol, LoadError> {
        let symbol = match actual {
            Operand::Name(name) => self.lookup(name),
            _ => None,
        };
        match (formal.space, symbol) {
            (Some(_), Some(local @ Symbol::Local { space: Space::Param, .. })) => Ok(local),
            // An output register is that of the caller: it is only written when the callee returns.
            (None, Some(register @ Symbol::Register(_))) if !input => Ok(register),
            (None, _) if input => {
                let Some(t) = crate::ptx::types::Type::named(&formal.kind) else { return form.unsupported() };
                let copy = self.new_register(t.bits);
                let name = format!("{}%formal{}", formal.name, copy.index);
                self.declare(form.place(), &name, Symbol::Register(copy))?;
                let operands = vec![Operand::Name(name), actual.clone()];
                self.synthetic(form, "mov", &[&formal.kind], operands)?;
                Ok(Symbol::Register(copy))
            }
            (Some(space), _) if input => {
                let offset = self.reserve_local(bytes_of(formal), align_of(formal));
                let symbol = Symbol::Local { offset, space };
                let name = format!("{}%formal{offset}", formal.name);
                self.declare(form.place(), &name, symbol.clone())?;
                let operands = vec![Operand::Address { base: Some(name), offset: 0 }, actual.clone()];
                self.synthetic(form, "st", &["param", &formal.kind], operands)?;
                Ok(symbol)
            }
            _ => form.error(format!("{actual:?} cannot be passed as {}", formal.name)),
        }
    }

    fn synthetic(
        &mut self,
        form: &Form<'_>,
        opcode: &str,
        modifiers: &[&str],
        operands: Vec<Operand>,
    ) -> Result<(), LoadError> {
        self.instruction(&Instruction {
            place: form.place(),
            guard: None,
            opcode: opcode.to_owned(),
            modifiers: modifiers.iter().map(|m| (*m).to_owned()).collect(),
            operands,
        })
    }
}
