//! Formats of log lines and header values, compiled once to a list of pieces.

use super::facts::LogFacts;
use super::operator::Operator;
use super::value::{Json, Number, Show, Text, write_json_string};
use crate::bootstrap::Environment;

/// The text format that Istio's proxies use by default (spec AL-1).
pub const ISTIO_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The text format of Envoy where none is configured.
pub const ENVOY_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A format that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormatError(pub Box<str>);

#[derive(Debug, Clone)]
enum Piece {
    /// A single byte: between operators there is most often a space.
    Byte(u8),
    Literal(Box<[u8]>),
    Operator(Operator, Option<usize>),
}

impl Piece {
    fn literal(text: Vec<u8>) -> Option<Self> {
        match text.as_slice() {
            [] => None,
            [byte] => Some(Self::Byte(*byte)),
            _ => Some(Self::Literal(text.into())),
        }
    }
}

/// A text with command operators.
#[derive(Debug, Clone)]
pub struct Format {
    pieces: Box<[Piece]>,
}

impl Format {
    /// Compiles a format. Operators about this process (`%HOSTNAME%`, `%ENVIRONMENT(X)%`) are replaced at once.
    ///
    /// # Errors
    /// [`FormatError`] naming the operator that is wrong.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once('%') {
            literal.extend_from_slice(before.as_bytes());
            if let Some(after) = tail.strip_prefix('%') {
                literal.push(b'%');
                rest = after;
                continue;
            }
            let (operator, limit, after) = operator(tail, environment).map_err(|why| FormatError(why.into()))?;
            rest = after;
            if let Operator::Fixed(text) = operator {
                literal.extend_from_slice(text.get(..limit.unwrap_or(usize::MAX).min(text.len())).unwrap_or(&text));
                continue;
            }
            pieces.extend(Piece::literal(std::mem::take(&mut literal)));
            pieces.push(Piece::Operator(operator, limit));
        }
        literal.extend_from_slice(rest.as_bytes());
        pieces.extend(Piece::literal(literal));
        Ok(Self { pieces: pieces.into() })
    }

    /// Text without operators.
    pub fn literal(text: impl Into<Box<[u8]>>) -> Self {
        Self { pieces: [Piece::Literal(text.into())].into() }
    }

    /// The text, where there is no operator in it.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &*self.pieces {
            [] => Some(b""),
            [Piece::Byte(byte)] => Some(std::slice::from_ref(byte)),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the line; what is not known is `-`.
    pub fn write(&self, facts: &LogFacts<'_>, out: &mut Vec<u8>) {
        self.write_or(facts, b"-", out);
    }

    /// Appends the line; what is not known is left out.
    pub fn write_omitting(&self, facts: &LogFacts<'_>, out: &mut Vec<u8>) {
        self.write_or(facts, b"", out);
    }

    /// The value as a whole number, where it is one.
    pub(super) fn number(&self, facts: &LogFacts<'_>) -> Option<u64> {
        let mut number = Number::default();
        match &*self.pieces {
            [Piece::Operator(operator, None)] => operator.show(facts, &mut number),
            _ => {
                let mut text = Vec::with_capacity(20);
                self.write_omitting(facts, &mut text);
                number.text(&text);
            }
        }
        number.0
    }

    fn write_or(&self, facts: &LogFacts<'_>, absent: &[u8], out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Byte(byte) => out.push(*byte),
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Operator(operator, None) => operator.show(facts, &mut Text { out, absent }),
                Piece::Operator(operator, Some(limit)) => {
                    let from = out.len();
                    operator.show(facts, &mut Text { out, absent });
                    out.truncate(from + limit);
                }
            }
        }
    }
}

/// Reads `NAME(arguments):length%`; gives back what follows.
fn operator<'a>(text: &'a str, environment: &Environment) -> Result<(Operator, Option<usize>, &'a str), String> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return Err(format!("no operator after %: a percent sign that is text is written %% (at {:?})", head(text)));
    }
    let mut arguments = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (inside, after) = inner.split_once(')').ok_or_else(|| format!("%{name}( is not closed by )"))?;
        arguments = Some(inside);
        rest = after;
    }
    let mut limit = None;
    if let Some(number) = rest.strip_prefix(':') {
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let (digits, after) = number.split_at(end);
        limit = Some(digits.parse().map_err(|_| format!("%{name}: a length is a number"))?);
        rest = after;
    }
    let rest = rest.strip_prefix('%').ok_or_else(|| format!("%{name} is not closed by % (at {:?})", head(rest)))?;
    Ok((Operator::parse(name, arguments, environment)?, limit, rest))
}

fn head(text: &str) -> String {
    text.chars().take(16).collect()
}

/// A JSON object (or a part of one) with command operators in its strings.
#[derive(Debug, Clone)]
pub struct JsonFormat {
    root: Node,
    omit_absent: bool,
}

#[derive(Debug, Clone)]
enum Node {
    Object(Vec<(Box<[u8]>, Self)>),
    List(Vec<Self>),
    /// Number, boolean or null as written.
    Constant(Box<[u8]>),
    /// A string that is one operator: it keeps its type.
    Operator(Operator, Option<usize>),
    /// Any other string.
    Text(Format),
}

impl JsonFormat {
    /// Compiles an object; keys come out in the order of `object`.
    ///
    /// # Errors
    /// [`FormatError`] naming the key and the operator that is wrong.
    pub fn parse(
        object: &serde_json::Map<String, serde_json::Value>,
        omit_absent: bool,
        environment: &Environment,
    ) -> Result<Self, FormatError> {
        let value = serde_json::Value::Object(object.clone());
        Ok(Self { root: Node::parse(&value, environment)?, omit_absent })
    }

    /// Appends one line with its line feed.
    pub fn write(&self, facts: &LogFacts<'_>, out: &mut Vec<u8>) {
        self.root.write(facts, self.omit_absent, out);
        out.push(b'\n');
    }
}

impl Node {
    fn parse(value: &serde_json::Value, environment: &Environment) -> Result<Self, FormatError> {
        Ok(match value {
            serde_json::Value::Object(fields) => {
                let mut nodes = Vec::with_capacity(fields.len());
                for (key, value) in fields {
                    let node = Self::parse(value, environment)
                        .map_err(|error| FormatError(format!("{key}: {}", error.0).into()))?;
                    let mut quoted = Vec::new();
                    write_json_string(key.as_bytes(), &mut quoted);
                    nodes.push((quoted.into(), node));
                }
                Self::Object(nodes)
            }
            serde_json::Value::Array(items) => {
                Self::List(items.iter().map(|item| Self::parse(item, environment)).collect::<Result<_, _>>()?)
            }
            serde_json::Value::String(text) => {
                let format = Format::parse(text, environment)?;
                match &*format.pieces {
                    [Piece::Operator(operator, limit)] => Self::Operator(operator.clone(), *limit),
                    _ => Self::Text(format),
                }
            }
            other => Self::Constant(other.to_string().into_bytes().into()),
        })
    }

    /// Appends the value; true where it is an operator's that is not known.
    fn write(&self, facts: &LogFacts<'_>, omit_absent: bool, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Object(fields) => {
                out.push(b'{');
                let from = out.len();
                for (key, node) in fields {
                    let before = out.len();
                    if before > from {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    out.push(b':');
                    let is_absent = node.write(facts, omit_absent, out);
                    if omit_absent && is_absent {
                        out.truncate(before);
                    }
                }
                out.push(b'}');
            }
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(facts, omit_absent, out);
                }
                out.push(b']');
            }
            Self::Constant(text) => out.extend_from_slice(text),
            Self::Operator(operator, limit) => {
                let mut json = Json { out, limit: *limit, was_absent: false };
                operator.show(facts, &mut json);
                return json.was_absent;
            }
            Self::Text(format) => {
                let mut text = Vec::with_capacity(64);
                format.write_or(facts, if omit_absent { b"" } else { b"-" }, &mut text);
                write_json_string(&text, out);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
