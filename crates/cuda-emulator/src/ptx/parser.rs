//! Parses tokens to statements ("Syntax", "Directives").

use super::LoadError;
use super::ast::{File, Place, Statement};
use super::lexer::{Placed, Token, tokens};

/// A cursor over the tokens. The other parser modules add methods for what they parse.
pub(super) struct Parser {
    tokens: Vec<Placed>,
    next: usize,
}

/// Parses a whole file.
pub(crate) fn parse(text: &str) -> Result<File, LoadError> {
    Parser { tokens: tokens(text)?, next: 0 }.file()
}

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    pub(super) fn peek_second(&self) -> &Token {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)].token
    }

    pub(super) fn place(&self) -> Place {
        let t = &self.tokens[self.next];
        Place { line: t.line, column: t.column }
    }

    pub(super) fn bump(&mut self) -> Token {
        let token = self.tokens[self.next].token.clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    pub(super) fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), Token::Mark(m) if *m == mark)
    }

    pub(super) fn eat(&mut self, mark: &str) -> bool {
        let found = self.is_mark(mark);
        if found {
            self.bump();
        }
        found
    }

    pub(super) fn expect(&mut self, mark: &str) -> Result<(), LoadError> {
        if self.eat(mark) {
            return Ok(());
        }
        // A missing semicolon is reported at the previous token, not on the next line.
        let t = &self.tokens[if mark == ";" { self.next.saturating_sub(1) } else { self.next }];
        let place = Place { line: t.line, column: t.column };
        place.error(format!("expected `{mark}`, found {:?}", self.peek()))
    }

    pub(super) fn unexpected<T>(&self, wanted: &str) -> Result<T, LoadError> {
        self.place().error(format!("expected {wanted}, found {:?}", self.peek()))
    }

    pub(super) fn name(&mut self) -> Result<String, LoadError> {
        match self.bump() {
            Token::Name(name) => Ok(name),
            _ => {
                self.next -= 1;
                self.unexpected("a name")
            }
        }
    }

    pub(super) fn dot(&mut self) -> Option<String> {
        let Token::Dot(word) = self.peek() else { return None };
        let word = word.clone();
        self.bump();
        Some(word)
    }

    pub(super) fn count(&mut self) -> Result<u32, LoadError> {
        let place = self.place();
        match u32::try_from(self.constant()?) {
            Ok(n) => Ok(n),
            Err(_) => place.error("the number is out of range"),
        }
    }

    fn file(mut self) -> Result<File, LoadError> {
        let mut file = File { target: 0, ..File::default() };
        while *self.peek() != Token::End {
            let place = self.place();
            let Some(word) = self.dot() else { return self.unexpected("a directive") };
            match word.as_str() {
                "version" => match self.bump() {
                    Token::Double(bits) => {
                        let tenths = (f64::from_bits(bits) * 10.0).round() as u32;
                        file.version = (tenths / 10, tenths % 10);
                    }
                    _ => return place.error(".version without a number"),
                },
                "target" => loop {
                    let place = self.place();
                    let name = self.name()?;
                    if let Some(sm) = name.strip_prefix("sm_") {
                        let digits: String = sm.chars().take_while(char::is_ascii_digit).collect();
                        match digits.parse() {
                            Ok(sm) => file.target = sm,
                            Err(_) => return place.error(format!("unknown target {name}")),
                        }
                    } else if name != "debug" && name != "texmode_unified" && name != "texmode_independent" {
                        return place.error(format!("unknown target {name}"));
                    }
                    if !self.eat(",") {
                        break;
                    }
                },
                "address_size" => {
                    if self.count()? != 64 {
                        return place.error("only .address_size 64 is supported");
                    }
                }
                "visible" | "weak" | "common" => {}
                "extern" => match self.peek().clone() {
                    Token::Dot(d) if d == "func" || d == "entry" => {}
                    _ => {
                        let Some(space) = self.dot() else { return self.unexpected("a state space") };
                        self.variables(place, &space, true, &mut file.variables)?;
                    }
                },
                "entry" | "func" => {
                    let function = self.function(place, word == "entry")?;
                    file.functions.push(function);
                }
                "global" | "const" | "shared" => self.variables(place, &word, false, &mut file.variables)?,
                "pragma" | "file" => self.skip_line_directive(&word)?,
                "section" => self.skip_braces()?,
                other => return place.error(format!("directive .{other} is not supported")),
            }
        }
        Ok(file)
    }

    /// Skips `.pragma "…";`, `.file 1 "…"[, size, time]` and `.loc …`, which have no effect on results.
    pub(super) fn skip_line_directive(&mut self, word: &str) -> Result<(), LoadError> {
        if word == "pragma" {
            while !self.eat(";") {
                self.text_or_comma()?;
            }
            return Ok(());
        }
        let line = self.tokens[self.next - 1].line;
        while self.tokens[self.next].line == line && *self.peek() != Token::End {
            self.bump();
        }
        Ok(())
    }

    fn text_or_comma(&mut self) -> Result<(), LoadError> {
        match self.bump() {
            Token::Text(_) | Token::Mark(",") => Ok(()),
            _ => {
                self.next -= 1;
                self.unexpected("a string")
            }
        }
    }

    /// Skips a debug section.
    fn skip_braces(&mut self) -> Result<(), LoadError> {
        while !self.eat("{") {
            if *self.peek() == Token::End {
                return self.unexpected("`{`");
            }
            self.bump();
        }
        while !self.eat("}") {
            if *self.peek() == Token::End {
                return self.unexpected("`}`");
            }
            self.bump();
        }
        Ok(())
    }

    /// The statements up to the closing brace.
    pub(super) fn scope(&mut self) -> Result<Vec<Statement>, LoadError> {
        let mut list = Vec::new();
        while !self.eat("}") {
            let place = self.place();
            match self.peek().clone() {
                Token::Mark("{") => {
                    self.bump();
                    list.push(Statement::Scope(self.scope()?));
                }
                Token::Mark(";") => {
                    self.bump();
                }
                Token::Dot(word) => {
                    self.bump();
                    match word.as_str() {
                        "loc" => self.skip_line_directive(&word)?,
                        "pragma" => self.skip_line_directive(&word)?,
                        _ => {
                            let mut declared = Vec::new();
                            self.variables(place, &word, false, &mut declared)?;
                            list.extend(declared.into_iter().map(Statement::Declaration));
                        }
                    }
                }
                Token::Name(label) if *self.peek_second() == Token::Mark(":") => {
                    self.bump();
                    self.bump();
                    match self.peek().clone() {
                        Token::Dot(d) if d == "branchtargets" => {
                            self.bump();
                            let mut targets = vec![self.name()?];
                            while self.eat(",") {
                                targets.push(self.name()?);
                            }
                            self.expect(";")?;
                            list.push(Statement::BranchTargets(label, targets));
                        }
                        _ => list.push(Statement::Label(label, place)),
                    }
                }
                Token::Name(_) | Token::Mark("@") => list.push(Statement::Instruction(self.instruction()?)),
                _ => return self.unexpected("a statement"),
            }
        }
        Ok(list)
    }
}
