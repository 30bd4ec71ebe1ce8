//! Text → tree. The grammar is Go's of expressions, as far as CEXL uses it (MX-52, MX-53).

use super::Fault;

/// The longest text, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 64;
/// The most parts.
pub const MAX_PARTS: usize = 512;

/// A part of an expression and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// Column, in characters from 1.
    pub column: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A literal text.
    Text(String),
    /// A literal whole number.
    Int(i64),
    /// Another literal number.
    Double(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A dotted name.
    Name(String),
    /// A function; `a.f(b)` has `a` as its receiver.
    Call(String, Option<Box<Tree>>, Vec<Tree>),
    /// `map[key]`.
    Entry(Box<Tree>, Box<Tree>),
    /// Two operands.
    Binary(Operator, Box<Tree>, Box<Tree>),
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `+`
    Plus,
    /// `|`: the second where the first is absent.
    Default,
}

/// Sign and precedence (Go's) of each operator; longer signs first.
const OPERATORS: [(&str, Operator, u8); 10] = [
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("==", Operator::Equal, 3),
    ("!=", Operator::NotEqual, 3),
    ("<=", Operator::LessOrEqual, 3),
    (">=", Operator::GreaterOrEqual, 3),
    ("<", Operator::Less, 3),
    (">", Operator::Greater, 3),
    ("+", Operator::Plus, 4),
    ("|", Operator::Default, 4),
];

impl Operator {
    /// Its sign.
    pub fn sign(self) -> &'static str {
        OPERATORS.iter().find(|(_, operator, _)| *operator == self).map_or("", |(sign, _, _)| sign)
    }
}

/// Parses a text.
///
/// # Errors
/// Where it is malformed or beyond a limit.
pub fn parse(text: &str) -> Result<Tree, Fault> {
    if text.len() > MAX_LENGTH {
        return Err(Fault::new(1, format!("longer than {MAX_LENGTH} bytes")));
    }
    let mut parser = Parser { rest: text.char_indices().peekable(), text, column: 1, depth: 0, parts: 0 };
    let tree = parser.binary(1)?;
    parser.space();
    match parser.peek() {
        None => Ok(tree),
        Some('!') => Err(parser.fault("there is no operator !, write == false")),
        Some(other) => Err(parser.fault(format!("unexpected {other}"))),
    }
}

struct Parser<'t> {
    rest: std::iter::Peekable<std::str::CharIndices<'t>>,
    text: &'t str,
    column: usize,
    depth: usize,
    parts: usize,
}

impl Parser<'_> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.column, message)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.column += 1;
        self.rest.next().map(|(_, c)| c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    /// What is not read yet.
    fn ahead(&mut self) -> &str {
        let at = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        self.text.get(at..).unwrap_or_default()
    }

    fn tree(&mut self, column: usize, kind: Kind) -> Result<Tree, Fault> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(self.fault(format!("more than {MAX_PARTS} parts")));
        }
        Ok(Tree { column, kind })
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fault(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Operands joined by operators of at least this precedence.
    fn binary(&mut self, least: u8) -> Result<Tree, Fault> {
        let mut left = self.operand()?;
        loop {
            self.space();
            let ahead = self.ahead();
            let found = OPERATORS.iter().find(|(sign, _, _)| ahead.starts_with(sign));
            let Some((sign, operator, precedence)) = found.filter(|(_, _, precedence)| *precedence >= least) else {
                return Ok(left);
            };
            let column = self.column;
            for _ in sign.chars() {
                self.next();
            }
            let right = self.deeper(|parser| parser.binary(precedence + 1))?;
            left = self.tree(column, Kind::Binary(*operator, Box::new(left), Box::new(right)))?;
        }
    }

    /// One operand with what follows it: names, calls, entries.
    fn operand(&mut self) -> Result<Tree, Fault> {
        self.space();
        let column = self.column;
        let mut tree = match self.peek() {
            None => return Err(self.fault("an expression is missing here")),
            Some('(') => {
                self.next();
                let inner = self.deeper(|parser| parser.binary(1))?;
                self.expect(')')?;
                inner
            }
            Some('"' | '`') => {
                let text = self.literal_text()?;
                self.tree(column, Kind::Text(text))?
            }
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let number = self.number()?;
                self.tree(column, number)?
            }
            Some(c) if is_name(c) => self.named(column)?,
            Some('!') => return Err(self.fault("there is no operator !, write == false")),
            Some('\'') => return Err(self.fault("texts stand in double quotes")),
            Some(other) => return Err(self.fault(format!("unexpected {other}"))),
        };
        loop {
            self.space();
            tree = match self.peek() {
                Some('.') => self.after_dot(tree)?,
                Some('[') => {
                    self.next();
                    let key = self.deeper(|parser| parser.binary(1))?;
                    self.expect(']')?;
                    self.tree(column, Kind::Entry(Box::new(tree), Box::new(key)))?
                }
                _ => return Ok(tree),
            };
        }
    }

    fn named(&mut self, column: usize) -> Result<Tree, Fault> {
        let name = self.name();
        self.space();
        if self.peek() == Some('(') {
            let arguments = self.arguments()?;
            return self.tree(column, Kind::Call(name, None, arguments));
        }
        match name.as_str() {
            "true" => self.tree(column, Kind::Bool(true)),
            "false" => self.tree(column, Kind::Bool(false)),
            _ => self.tree(column, Kind::Name(name)),
        }
    }

    fn after_dot(&mut self, before: Tree) -> Result<Tree, Fault> {
        self.next();
        self.space();
        let column = self.column;
        if !self.peek().is_some_and(is_name) {
            return Err(self.fault("a name is missing after the dot"));
        }
        let name = self.name();
        self.space();
        if self.peek() == Some('(') {
            let arguments = self.arguments()?;
            return self.tree(column, Kind::Call(name, Some(Box::new(before)), arguments));
        }
        match before.kind {
            Kind::Name(first) => self.tree(before.column, Kind::Name(format!("{first}.{name}"))),
            _ => Err(Fault::new(column, format!("{name} is no function: a call needs parentheses"))),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Tree>, Fault> {
        self.next();
        let mut arguments = Vec::new();
        self.space();
        if self.take(')') {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.deeper(|parser| parser.binary(1))?);
            self.space();
            if !self.take(',') {
                self.expect(')')?;
                return Ok(arguments);
            }
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        self.space();
        if self.take(wanted) { Ok(()) } else { Err(self.fault(format!("{wanted} is missing here"))) }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| is_name(*c) || c.is_ascii_digit()) {
            name.push(c);
            self.next();
        }
        name
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| {
            c.is_ascii_alphanumeric() || *c == '.' || (text.is_empty() || text.ends_with(['e', 'E'])) && *c == '-'
        }) {
            text.push(c);
            self.next();
        }
        let malformed = |_| self.fault(format!("{text} is no number"));
        if let Some(hex) = text.strip_prefix("0x") {
            return i64::from_str_radix(hex, 16).map(Kind::Int).map_err(|_| self.fault(format!("{text} is no number")));
        }
        match text.parse::<i64>() {
            Ok(number) => Ok(Kind::Int(number)),
            Err(_) => text.parse::<f64>().map_err(malformed).and_then(|number| match number.is_finite() {
                true => Ok(Kind::Double(number)),
                false => Err(self.fault(format!("{text} is no number"))),
            }),
        }
    }

    /// A text in double quotes with Go's escapes, or raw between back quotes.
    fn literal_text(&mut self) -> Result<String, Fault> {
        let quote = self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.fault("the text has no end")),
                Some(c) if Some(c) == quote => return Ok(text),
                Some('\\') if quote == Some('"') => text.push(self.escape()?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let digits = match self.next() {
            Some('n') => return Ok('\n'),
            Some('t') => return Ok('\t'),
            Some('r') => return Ok('\r'),
            Some(c @ ('\\' | '"' | '\'')) => return Ok(c),
            // Go refuses `\.`; people who write patterns do not know that.
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.fault("unknown escape: write \\\\ for a back slash, or put the text in back quotes")),
        };
        let mut code = 0_u32;
        for _ in 0..digits {
            let digit = self.next().and_then(|c| c.to_digit(16));
            code = code.wrapping_mul(16) + digit.ok_or_else(|| self.fault("an escape lacks hexadecimal digits"))?;
        }
        char::from_u32(code).ok_or_else(|| self.fault("the escape is no character"))
    }
}

fn is_name(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}
