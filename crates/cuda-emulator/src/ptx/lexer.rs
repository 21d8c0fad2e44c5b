//! Splits PTX text into tokens ("Lexical Elements").

use super::LoadError;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// An identifier; names of registers and special registers include the `%`.
    Name(String),
    /// A directive or modifier, without the dot: `global`, `shared::cta`.
    Dot(String),
    /// An integer literal.
    Integer(u64),
    /// `0f3F800000`.
    Single(u32),
    /// `0d3FF0000000000000` or a decimal literal.
    Double(u64),
    /// A quoted string.
    Text(String),
    /// A punctuation mark; `<<` and `>>` are one token each.
    Mark(&'static str),
    /// The end of the text.
    End,
}

/// A token and its position.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

const MARKS: [&str; 27] = [
    "<<", ">>", ",", ";", ":", "{", "}", "(", ")", "[", "]", "<", ">", "+", "-", "=", "@", "!", "|", "&",
    "~", "*", "/", "^", "?", "%", ".",
];

/// Splits the text; the last token is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>, LoadError> {
    let mut lexer = Lexer { rest: text, line: 1, column: 1 };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank()?;
        let (line, column) = (lexer.line, lexer.column);
        let token = lexer.token()?;
        let end = token == Token::End;
        out.push(Placed { token, line, column });
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'t> {
    rest: &'t str,
    line: u32,
    column: u32,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

impl<'t> Lexer<'t> {
    fn error(&self, message: impl Into<String>) -> LoadError {
        LoadError { line: self.line, column: self.column, message: message.into() }
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (head, tail) = self.rest.split_at(bytes);
        for c in head.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = tail;
        head
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn skip_blank(&mut self) -> Result<(), LoadError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                let Some(end) = self.rest.find("*/") else {
                    return Err(self.error("unterminated comment"));
                };
                self.take(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token, LoadError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        let second = self.rest.chars().nth(1).unwrap_or(' ');
        match first {
            '0'..='9' => self.number(),
            '"' => {
                let Some(end) = self.rest[1..].find('"') else {
                    return Err(self.error("unterminated string"));
                };
                let quoted = self.take(end + 2);
                Ok(Token::Text(quoted[1..=end].to_owned()))
            }
            '.' if is_word(second) => {
                self.take(1);
                let mut word = self.take_while(is_word).to_owned();
                while self.rest.starts_with("::") {
                    word.push_str(self.take(2));
                    word.push_str(self.take_while(is_word));
                }
                Ok(Token::Dot(word))
            }
            '%' if is_word(second) => {
                let mut word = self.take(1).to_owned();
                word.push_str(self.take_while(is_word));
                Ok(Token::Name(word))
            }
            c if is_word(c) => Ok(Token::Name(self.take_while(is_word).to_owned())),
            c => match MARKS.iter().find(|m| self.rest.starts_with(**m)) {
                Some(mark) => {
                    self.take(mark.len());
                    Ok(Token::Mark(mark))
                }
                None => Err(self.error(format!("unexpected character {c:?}"))),
            },
        }
    }

    /// "Integer Constants" and "Floating-Point Constants".
    fn number(&mut self) -> Result<Token, LoadError> {
        let start = self.error("");
        let bad = |word: &str| LoadError { message: format!("invalid number: {word}"), ..start.clone() };
        let word = self.take_while(is_word);
        let digits = word.trim_end_matches('U');
        let radix = |prefix: usize, radix: u32| {
            u64::from_str_radix(&digits[prefix..], radix).map(Token::Integer).map_err(|_| bad(word))
        };
        match word.get(..2) {
            Some("0f" | "0F") if word.len() == 10 => {
                u32::from_str_radix(&word[2..], 16).map(Token::Single).map_err(|_| bad(word))
            }
            Some("0d" | "0D") if word.len() == 18 => {
                u64::from_str_radix(&word[2..], 16).map(Token::Double).map_err(|_| bad(word))
            }
            Some("0x" | "0X") => radix(2, 16),
            Some("0b" | "0B") => radix(2, 2),
            _ => {
                let fraction =
                    self.rest.strip_prefix('.').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
                if !fraction && !word.contains(['e', 'E']) {
                    return if digits.len() > 1 && digits.starts_with('0') {
                        radix(1, 8)
                    } else {
                        radix(0, 10)
                    };
                }
                let mut literal = word.to_owned();
                if fraction {
                    literal.push_str(self.take(1));
                    literal.push_str(self.take_while(is_word));
                }
                if literal.ends_with(['e', 'E']) && self.rest.starts_with(['+', '-']) {
                    literal.push_str(self.take(1));
                    literal.push_str(self.take_while(is_word));
                }
                literal.parse::<f64>().map(|x| Token::Double(x.to_bits())).map_err(|_| bad(&literal))
            }
        }
    }
}
