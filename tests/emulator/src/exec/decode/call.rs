//! `call` ("Control Flow Instructions: call"): the callee's body is decoded in place.
//!
//! Parameters in `.param` space share the caller's bytes; register parameters are copied.

use super::super::code::Action;
use super::super::counts::Class;
use super::super::registers::Guard;
use super::symbols::{Scope, align_of, bytes_of};
use super::{Decoder, Form, Symbol};
use crate::ptx::ast::{Declaration, Function, Instruction, Operand};
use crate::ptx::{LoadError, Space};

impl<'f> Decoder<'f> {
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
            return form.error(format!("{name} is no function (indirect calls are not supported)"));
        };
        if self.calls.contains(name) {
            return form.error(format!("{name} calls itself: recursion is not supported"));
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
            return form.error(format!("{} takes another number of parameters", callee.name));
        }
        let mut scope = Scope::default();
        for (formal, actual) in callee.results.iter().zip(results) {
            let symbol = self.bind(form, formal, actual, false)?;
            scope.insert(formal.name.clone(), symbol);
        }
        for (formal, actual) in callee.parameters.iter().zip(arguments) {
            let symbol = self.bind(form, formal, actual, true)?;
            scope.insert(formal.name.clone(), symbol);
        }
        let outer = std::mem::replace(&mut self.scopes, vec![scope]);
        let label = self.new_label();
        let outer_return = self.return_label.replace(label);
        self.calls.push(callee.name.clone());
        self.statements(body)?;
        self.calls.pop();
        self.return_label = outer_return;
        self.scopes = outer;
        self.set_label(label);
        Ok(())
    }

    /// What a formal parameter's name stands for inside the callee.
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
            // An output register is shared with the caller's: it is only written on the way out.
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
