//! Pieces → a tree of nodes.

use super::functions;
use super::lex::{Piece, PieceKind, Token, pieces};
use std::collections::BTreeMap;

/// How deep blocks and parentheses may stand in each other.
const MAX_DEPTH: usize = 64;

/// A parsed template: its nodes, and those that it defines by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Parsed {
    pub(super) nodes: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// A node, with its line.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: NodeKind,
}

#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    Text(String),
    /// A pipeline whose result goes out.
    Output(Pipeline),
    /// `$name := pipeline` or `$name = pipeline`.
    Set {
        name: String,
        value: Pipeline,
        declares: bool,
    },
    If {
        condition: Pipeline,
        then: Vec<Node>,
        or: Vec<Node>,
    },
    With {
        value: Pipeline,
        variable: Option<String>,
        then: Vec<Node>,
        or: Vec<Node>,
    },
    Range {
        over: Pipeline,
        key: Option<String>,
        item: Option<String>,
        body: Vec<Node>,
        or: Vec<Node>,
    },
    /// `template "name" pipeline`
    Call {
        name: String,
        with: Option<Pipeline>,
    },
}

/// Commands, each given the result of the one before.
pub(super) type Pipeline = Vec<Command>;

/// A function with its arguments, or one value.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Call { function: String, arguments: Vec<Operand> },
    Value(Operand),
}

/// A value and the fields that are taken of it.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(serde_json::Value),
    Group(Pipeline),
    /// A function without arguments as an argument.
    Call(String),
}

/// Parses a template.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter(), defined: BTreeMap::new() };
    let (nodes, end) = parser.block(0)?;
    match end {
        End::Text => Ok(Parsed { nodes, defined: parser.defined }),
        End::Else(line, _) | End::Closed(line) => Err(format!("line {line}: there is nothing that this ends")),
    }
}

/// What ended a block.
enum End {
    Text,
    Closed(usize),
    /// `else` with what follows it, as in `else if`.
    Else(usize, Vec<Token>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    defined: BTreeMap<String, Vec<Node>>,
}

impl Parser {
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, End), String> {
        let mut nodes = Vec::new();
        while let Some(Piece { line, kind }) = self.pieces.next() {
            let at = |why: String| format!("line {line}: {why}");
            if depth > MAX_DEPTH {
                return Err(at("blocks stand too deep in each other".to_owned()));
            }
            let tokens = match kind {
                PieceKind::Text(text) => {
                    nodes.push(Node { line, kind: NodeKind::Text(text) });
                    continue;
                }
                PieceKind::Action(tokens) => tokens,
            };
            let rest = tokens.get(1..).unwrap_or_default().to_vec();
            let word = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match word {
                "end" => return Ok((nodes, End::Closed(line))),
                "else" => return Ok((nodes, End::Else(line, rest))),
                "if" | "with" | "range" => nodes.push(self.control(line, word, &rest, depth)?),
                "define" => self.define(line, &rest, depth)?,
                _ => nodes.push(Node { line, kind: simple(&tokens).map_err(at)? }),
            }
        }
        Ok((nodes, End::Text))
    }

    /// A block and its `else`; what opened it stands on `line`.
    fn branches(&mut self, line: usize, word: &str, depth: usize) -> Result<(Vec<Node>, Vec<Node>), String> {
        let open = || format!("line {line}: {word} has no end");
        let (then, end) = self.block(depth + 1)?;
        match end {
            End::Closed(_) => Ok((then, Vec::new())),
            End::Text => Err(open()),
            End::Else(line, more) => {
                if let Some((Token::Word(word), rest)) = more.split_first() {
                    return Ok((then, vec![self.control(line, word, rest, depth + 1)?]));
                }
                let (or, end) = self.block(depth + 1)?;
                match end {
                    End::Closed(_) => Ok((then, or)),
                    End::Text | End::Else(..) => Err(open()),
                }
            }
        }
    }

    fn control(&mut self, line: usize, word: &str, rest: &[Token], depth: usize) -> Result<Node, String> {
        let at = |why: String| format!("line {line}: {why}");
        let (names, tokens) = declared(rest).map_err(at)?;
        let value = pipeline(tokens).map_err(at)?;
        let (then, or) = self.branches(line, word, depth)?;
        let mut names = names.into_iter();
        let kind = match (word, names.next(), names.next()) {
            ("if", None, _) => NodeKind::If { condition: value, then, or },
            ("with", variable, None) => NodeKind::With { value, variable, then, or },
            ("range", first, second) => {
                let (key, item) = if second.is_some() { (first, second) } else { (None, first) };
                NodeKind::Range { over: value, key, item, body: then, or }
            }
            _ => return Err(at(format!("{word} cannot be written like this"))),
        };
        Ok(Node { line, kind })
    }

    fn define(&mut self, line: usize, rest: &[Token], depth: usize) -> Result<(), String> {
        let [Token::Text(name)] = rest else { return Err(format!("line {line}: write define \"name\"")) };
        let (nodes, end) = self.block(depth + 1)?;
        if !matches!(end, End::Closed(_)) {
            return Err(format!("line {line}: define has no end"));
        }
        self.defined.insert(name.clone(), nodes);
        Ok(())
    }
}

/// `$a, $b :=` in front of a pipeline.
fn declared(tokens: &[Token]) -> Result<(Vec<String>, &[Token]), String> {
    match tokens {
        [Token::Variable(a), Token::Declare, rest @ ..] => Ok((vec![a.clone()], rest)),
        [Token::Variable(a), Token::Comma, Token::Variable(b), Token::Declare, rest @ ..] => {
            Ok((vec![a.clone(), b.clone()], rest))
        }
        rest => Ok((Vec::new(), rest)),
    }
}

fn simple(tokens: &[Token]) -> Result<NodeKind, String> {
    match tokens {
        [Token::Word(word), Token::Text(name)] if word == "template" => {
            Ok(NodeKind::Call { name: name.clone(), with: None })
        }
        [Token::Word(word), Token::Text(name), rest @ ..] if word == "template" => {
            Ok(NodeKind::Call { name: name.clone(), with: Some(pipeline(rest)?) })
        }
        [Token::Word(word), ..] if ["block", "break", "continue"].contains(&word.as_str()) => {
            Err(format!("{word} is not supported"))
        }
        [Token::Variable(name), sign @ (Token::Declare | Token::Assign), rest @ ..] => {
            Ok(NodeKind::Set { name: name.clone(), value: pipeline(rest)?, declares: *sign == Token::Declare })
        }
        tokens => pipeline(tokens).map(NodeKind::Output),
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut rest = tokens;
    let parsed = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(parsed) } else { Err("a parenthesis is closed that was not opened".to_owned()) }
}

/// Commands up to the end or to a closing parenthesis, which is left.
fn commands(tokens: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > MAX_DEPTH {
        return Err("parentheses stand too deep in each other".to_owned());
    }
    let mut commands = Vec::new();
    loop {
        let command = command(tokens, depth)?;
        if matches!(command, Command::Value(_)) && !commands.is_empty() {
            return Err("behind | a function is needed".to_owned());
        }
        commands.push(command);
        match tokens.split_first() {
            Some((Token::Pipe, rest)) => *tokens = rest,
            _ => return Ok(commands),
        }
    }
}

fn command(tokens: &mut &[Token], depth: usize) -> Result<Command, String> {
    let word = match tokens.split_first() {
        Some((Token::Word(word), rest)) if literal(word).is_none() => Some((word, rest)),
        _ => None,
    };
    if let Some((word, rest)) = word {
        *tokens = rest;
        if !functions::is_known(word) {
            return Err(format!("there is no function {word}"));
        }
        let mut arguments = Vec::new();
        while !matches!(tokens.first(), None | Some(Token::Pipe | Token::Close)) {
            arguments.push(operand(tokens, depth)?);
        }
        return Ok(Command::Call { function: word.clone(), arguments });
    }
    let value = operand(tokens, depth)?;
    match tokens.first() {
        None | Some(Token::Pipe | Token::Close) => Ok(Command::Value(value)),
        // `.Method argument` is Go's; data have no methods here.
        Some(_) => Err("only a function takes arguments".to_owned()),
    }
}

fn literal(word: &str) -> Option<serde_json::Value> {
    match word {
        "true" => Some(true.into()),
        "false" => Some(false.into()),
        "nil" => Some(serde_json::Value::Null),
        _ => None,
    }
}

fn operand(tokens: &mut &[Token], depth: usize) -> Result<Operand, String> {
    let Some((first, rest)) = tokens.split_first() else { return Err("a value is missing".to_owned()) };
    *tokens = rest;
    let mut fields = Vec::new();
    let base = match first {
        Token::Dot => Base::Dot,
        Token::Field { name, .. } => {
            fields.push(name.clone());
            Base::Dot
        }
        Token::Variable(name) => Base::Variable(name.clone()),
        Token::Text(text) => Base::Literal(text.as_str().into()),
        Token::Int(number) => Base::Literal((*number).into()),
        Token::Float(number) => Base::Literal((*number).into()),
        Token::Word(word) => match literal(word) {
            Some(value) => Base::Literal(value),
            None if functions::is_known(word) => Base::Call(word.clone()),
            None => return Err(format!("there is no function {word}")),
        },
        Token::Open => {
            let inner = commands(tokens, depth + 1)?;
            match tokens.split_first() {
                Some((Token::Close, rest)) => *tokens = rest,
                _ => return Err("a parenthesis is not closed".to_owned()),
            }
            Base::Group(inner)
        }
        other => return Err(format!("unexpected {other:?}")),
    };
    while let Some((Token::Field { name, joined: true }, rest)) = tokens.split_first() {
        fields.push(name.clone());
        *tokens = rest;
    }
    Ok(Operand { base, fields })
}
