//! Instructions, operands and constant expressions ("Instruction Statements", "Constant Expressions").

use super::LoadError;
use super::ast::{Instruction, Operand};
use super::lexer::Token;
use super::parser::Parser;

impl Parser {
    /// `@!p opcode.modifiers operands;`
    pub(super) fn instruction(&mut self) -> Result<Instruction, LoadError> {
        let guard = if self.eat("@") {
            let negated = self.eat("!");
            Some((self.name()?, negated))
        } else {
            None
        };
        let place = self.place();
        let opcode = self.name()?;
        let mut modifiers = Vec::new();
        while let Some(m) = self.dot() {
            modifiers.push(m);
        }
        let mut operands = Vec::new();
        if !self.is_mark(";") {
            operands.push(self.operand()?);
            while self.eat(",") {
                operands.push(self.operand()?);
            }
        }
        self.expect(";")?;
        Ok(Instruction { place, guard, opcode, modifiers, operands })
    }

    fn operand(&mut self) -> Result<Operand, LoadError> {
        let first = self.single_operand()?;
        if self.eat("|") {
            let second = self.single_operand()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn list(&mut self, end: &str) -> Result<Vec<Operand>, LoadError> {
        let mut list = Vec::new();
        while !self.eat(end) {
            list.push(self.single_operand()?);
            if !self.is_mark(end) {
                self.expect(",")?;
            }
        }
        Ok(list)
    }

    fn single_operand(&mut self) -> Result<Operand, LoadError> {
        match self.peek().clone() {
            Token::Mark("{") => {
                self.bump();
                Ok(Operand::Vector(self.list("}")?))
            }
            Token::Mark("(") if !matches!(self.peek_second(), Token::Integer(_)) => {
                self.bump();
                Ok(Operand::List(self.list(")")?))
            }
            Token::Mark("[") => {
                self.bump();
                let address = match self.peek().clone() {
                    Token::Name(name) => {
                        self.bump();
                        let base = self.component(name);
                        Operand::Address { base: Some(base), offset: self.offset()? }
                    }
                    _ => Operand::Address { base: None, offset: self.constant()? as i64 },
                };
                if self.eat(",") {
                    // Coordinates of textures and tensors, which no supported opcode takes.
                    let mut all = vec![address];
                    all.extend(self.list("]")?);
                    return Ok(Operand::List(all));
                }
                self.expect("]")?;
                Ok(address)
            }
            Token::Mark("!") => {
                self.bump();
                Ok(Operand::Not(Box::new(self.single_operand()?)))
            }
            Token::Name(name) => {
                self.bump();
                if name == "_" {
                    return Ok(Operand::Sink);
                }
                let name = self.component(name);
                if self.is_mark("+") || self.is_mark("-") {
                    return Ok(Operand::Offset { base: name, offset: self.offset()? });
                }
                Ok(Operand::Name(name))
            }
            Token::Single(bits) => {
                self.bump();
                Ok(Operand::Single(bits))
            }
            Token::Double(bits) => {
                self.bump();
                Ok(Operand::Double(bits))
            }
            Token::Mark("-") if matches!(self.peek_second(), Token::Single(_) | Token::Double(_)) => {
                self.bump();
                match self.bump() {
                    Token::Single(bits) => Ok(Operand::Single(bits ^ 1 << 31)),
                    Token::Double(bits) => Ok(Operand::Double(bits ^ 1 << 63)),
                    _ => self.unexpected("a number"),
                }
            }
            _ => Ok(Operand::Integer(self.constant()?)),
        }
    }

    /// `%tid.x`, `%v.y`.
    fn component(&mut self, name: String) -> String {
        match self.peek().clone() {
            Token::Dot(d) => {
                self.bump();
                format!("{name}.{d}")
            }
            _ => name,
        }
    }

    fn offset(&mut self) -> Result<i64, LoadError> {
        let mut sum = 0i64;
        loop {
            if self.eat("+") {
                sum = sum.wrapping_add(self.unary()? as i64);
            } else if self.eat("-") {
                sum = sum.wrapping_sub(self.unary()? as i64);
            } else {
                return Ok(sum);
            }
        }
    }

    /// A constant integer expression.
    pub(super) fn constant(&mut self) -> Result<i128, LoadError> {
        self.binary(0)
    }

    fn binary(&mut self, least: u8) -> Result<i128, LoadError> {
        let mut left = self.unary()?;
        loop {
            let place = self.place();
            let Token::Mark(mark) = *self.peek() else { return Ok(left) };
            let rank = match mark {
                "|" => 1,
                "^" => 2,
                "&" => 3,
                "<<" | ">>" => 4,
                "+" | "-" => 5,
                "*" | "/" | "%" => 6,
                _ => return Ok(left),
            };
            if rank <= least {
                return Ok(left);
            }
            self.bump();
            let right = self.binary(rank)?;
            let bits = |x: i128| u32::try_from(x).unwrap_or(64).min(64);
            left = match mark {
                "|" => left | right,
                "^" => left ^ right,
                "&" => left & right,
                "<<" => i128::from((left as i64).checked_shl(bits(right)).unwrap_or(0)),
                ">>" => left >> bits(right),
                "+" => left.wrapping_add(right),
                "-" => left.wrapping_sub(right),
                "*" => left.wrapping_mul(right),
                _ if right == 0 => return place.error("division by zero in a constant expression"),
                "/" => left / right,
                _ => left % right,
            };
        }
    }

    fn unary(&mut self) -> Result<i128, LoadError> {
        if self.eat("-") {
            return Ok(-self.unary()?);
        }
        if self.eat("~") {
            return Ok(!self.unary()?);
        }
        if self.eat("!") {
            return Ok(i128::from(self.unary()? == 0));
        }
        if self.eat("+") {
            return self.unary();
        }
        if self.eat("(") {
            let inner = self.constant()?;
            self.expect(")")?;
            return Ok(inner);
        }
        match *self.peek() {
            Token::Integer(n) => {
                self.bump();
                Ok(i128::from(n))
            }
            _ => self.unexpected("an operand"),
        }
    }
}
