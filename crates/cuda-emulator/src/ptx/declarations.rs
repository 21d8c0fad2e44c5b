//! Functions, their parameters, variables and initialisers ("Kernel and Function Directives", "Variables").

use super::ast::{Declaration, Function, Initial, Place};
use super::lexer::Token;
use super::parser::Parser;
use super::{LoadError, Space};

impl Parser {
    pub(super) fn function(&mut self, place: Place, entry: bool) -> Result<Function, LoadError> {
        let results = if self.is_mark("(") { self.parameters()? } else { Vec::new() };
        let name = self.name()?;
        let parameters = if self.is_mark("(") { self.parameters()? } else { Vec::new() };
        let mut function = Function {
            place,
            name,
            entry,
            results,
            parameters,
            max_threads: None,
            required: false,
            body: None,
        };
        loop {
            let place = self.place();
            let Some(word) = self.dot() else { break };
            match word.as_str() {
                "maxntid" | "reqntid" => {
                    let mut extents = [1; 3];
                    for (i, e) in extents.iter_mut().enumerate() {
                        if i > 0 && !self.eat(",") {
                            break;
                        }
                        *e = self.count()?;
                    }
                    function.max_threads = Some(extents);
                    function.required = word == "reqntid";
                }
                "minnctapersm" | "maxnreg" | "maxnctapersm" => {
                    self.count()?;
                }
                "noreturn" => {}
                "pragma" => self.skip_line_directive(&word)?,
                other => return place.error(format!("directive .{other} is not supported on a function")),
            }
        }
        if self.eat("{") {
            function.body = Some(self.scope()?);
        } else {
            self.expect(";")?;
        }
        Ok(function)
    }

    fn parameters(&mut self) -> Result<Vec<Declaration>, LoadError> {
        self.expect("(")?;
        let mut list = Vec::new();
        while !self.eat(")") {
            let place = self.place();
            match self.dot().as_deref() {
                Some("param") => list.push(self.declaration(place, Some(Space::Param), false)?),
                Some("reg") => list.push(self.declaration(place, None, false)?),
                _ => return place.error("expected .param or .reg"),
            }
            if !self.is_mark(")") {
                self.expect(",")?;
            }
        }
        Ok(list)
    }

    pub(super) fn variables(
        &mut self,
        place: Place,
        space: &str,
        external: bool,
        out: &mut Vec<Declaration>,
    ) -> Result<(), LoadError> {
        let space = match space {
            "global" => Some(Space::Global),
            "const" => Some(Space::Const),
            "shared" => Some(Space::Shared),
            "local" => Some(Space::Local),
            "param" => Some(Space::Param),
            "reg" => None,
            other => return place.error(format!("state space .{other} is not supported")),
        };
        let first = self.declaration(place, space, external)?;
        let mut pattern = first.clone();
        out.push(first);
        while self.eat(",") {
            pattern.place = self.place();
            pattern.initial.clear();
            self.declarator(&mut pattern)?;
            out.push(pattern.clone());
        }
        self.expect(";")
    }

    /// Everything after the state space, up to a comma or semicolon.
    fn declaration(
        &mut self,
        place: Place,
        space: Option<Space>,
        external: bool,
    ) -> Result<Declaration, LoadError> {
        let mut d = Declaration {
            place,
            name: String::new(),
            space,
            kind: String::new(),
            vector: 1,
            align: None,
            extents: Vec::new(),
            range: None,
            external,
            initial: Vec::new(),
        };
        let mut pointer = false;
        loop {
            let place = self.place();
            let Some(word) = self.dot() else { break };
            match word.as_str() {
                // After `.ptr`, the alignment is that of the memory that the parameter points to.
                "align" if pointer => {
                    self.count()?;
                }
                "align" => d.align = Some(u64::from(self.count()?)),
                "v2" => d.vector = 2,
                "v4" => d.vector = 4,
                "ptr" => pointer = true,
                "global" | "const" | "shared" | "local" if pointer => {}
                "attribute" => self.skip_attribute()?,
                kind if super::types::bits(kind).is_some() => d.kind = word,
                other => return place.error(format!("type .{other} is not supported")),
            }
        }
        if d.kind.is_empty() {
            return place.error("declaration without a type");
        }
        self.declarator(&mut d)?;
        Ok(d)
    }

    fn skip_attribute(&mut self) -> Result<(), LoadError> {
        self.expect("(")?;
        while !self.eat(")") {
            if *self.peek() == Token::End {
                return self.unexpected("`)`");
            }
            self.bump();
        }
        Ok(())
    }

    fn declarator(&mut self, d: &mut Declaration) -> Result<(), LoadError> {
        d.name = self.name()?;
        d.extents.clear();
        d.range = None;
        if self.eat("<") {
            d.range = Some(self.count()?);
            self.expect(">")?;
        }
        while self.eat("[") {
            let extent = if self.is_mark("]") { 0 } else { u64::from(self.count()?) };
            d.extents.push(extent);
            self.expect("]")?;
        }
        if self.eat("=") {
            let extents = d.extents.clone();
            d.initial = self.initial(&extents, d.vector)?;
        }
        Ok(())
    }

    /// An initialiser; incomplete nested initialisers are padded with zeros.
    fn initial(&mut self, extents: &[u64], vector: u64) -> Result<Vec<Initial>, LoadError> {
        if !self.eat("{") {
            return Ok(vec![self.initial_element()?]);
        }
        let inner = extents.get(1..).unwrap_or(&[]);
        let size: u64 = inner.iter().product::<u64>() * if extents.len() <= 1 { 1 } else { vector };
        let mut list = Vec::new();
        while !self.eat("}") {
            if self.is_mark("{") {
                let before = list.len();
                list.extend(self.initial(inner, vector)?);
                let whole = before + usize::try_from(size).unwrap_or(0).max(1);
                if list.len() < whole {
                    list.resize(whole, Initial::Integer(0));
                }
            } else {
                list.push(self.initial_element()?);
            }
            if !self.is_mark("}") {
                self.expect(",")?;
            }
        }
        Ok(list)
    }

    fn initial_element(&mut self) -> Result<Initial, LoadError> {
        match self.peek().clone() {
            Token::Single(bits) => {
                self.bump();
                Ok(Initial::Single(bits))
            }
            Token::Double(bits) => {
                self.bump();
                Ok(Initial::Double(bits))
            }
            Token::Name(name) => {
                self.bump();
                let name = if name == "generic" && self.eat("(") {
                    let inner = self.name()?;
                    self.expect(")")?;
                    inner
                } else {
                    name
                };
                let offset = if self.is_mark("+") || self.is_mark("-") { self.constant()? } else { 0 };
                Ok(Initial::Address { name, offset: offset as i64 })
            }
            Token::Mark("-") if matches!(self.peek_second(), Token::Single(_) | Token::Double(_)) => {
                self.bump();
                match self.bump() {
                    Token::Single(bits) => Ok(Initial::Single(bits ^ 1 << 31)),
                    Token::Double(bits) => Ok(Initial::Double(bits ^ 1 << 63)),
                    _ => self.unexpected("a number"),
                }
            }
            _ => Ok(Initial::Integer(self.constant()?)),
        }
    }
}
