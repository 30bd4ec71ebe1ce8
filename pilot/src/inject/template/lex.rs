//! Text of a template → pieces of text and tokens of actions.

/// A piece of a template, with its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) line: usize,
    pub(super) kind: PieceKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum PieceKind {
    /// Text that goes out as it is.
    Text(String),
    /// An action, without its braces.
    Action(Vec<Token>),
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name, such as a function or a keyword.
    Word(String),
    /// `.Name`; behind another value without a space between them, or by itself.
    Field {
        name: String,
        joined: bool,
    },
    /// `.` alone.
    Dot,
    /// `$name`, or `$`.
    Variable(String),
    Text(String),
    Int(i64),
    Float(f64),
    Open,
    Close,
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Cuts a template into pieces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let (mut rest, mut line, mut trim) = (text, 1, false);
    while !rest.is_empty() {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let trims_left = action.is_some_and(|action| action.starts_with("- ") || action.starts_with("-\n"));
        let mut shown = before;
        if trim {
            shown = shown.trim_start();
        }
        if trims_left {
            shown = shown.trim_end();
        }
        if !shown.is_empty() {
            pieces.push(Piece { line, kind: PieceKind::Text(shown.to_owned()) });
        }
        line += before.matches('\n').count();
        let Some(action) = action else { break };
        let action = if trims_left { action.strip_prefix('-').unwrap_or(action) } else { action };
        let at = format!("line {line}");
        let (inner, after, trims_right) =
            body(action).ok_or_else(|| format!("{at}: an action is not closed by }}}}"))?;
        let comment = inner.trim_start().starts_with("/*");
        if !comment {
            let tokens = tokens(inner).map_err(|why| format!("{at}: {why}"))?;
            pieces.push(Piece { line, kind: PieceKind::Action(tokens) });
        }
        line += inner.matches('\n').count();
        (rest, trim) = (after, trims_right);
    }
    Ok(pieces)
}

/// The inside of an action, what follows it, and whether it trims what follows.
fn body(action: &str) -> Option<(&str, &str, bool)> {
    if action.trim_start().starts_with("/*") {
        let (inner, after) = action.split_once("*/")?;
        let (space, after) = after.split_once("}}")?;
        return Some((inner, after, space.trim() == "-"));
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in action.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None => {
                let (inner, after) = action.split_at(at);
                if let Some(after) = after.strip_prefix("}}") {
                    let trimmed = inner.strip_suffix('-').filter(|inner| inner.ends_with([' ', '\n', '\t']));
                    return Some((trimmed.unwrap_or(inner), after, trimmed.is_some()));
                }
            }
        }
    }
    None
}

fn tokens(inner: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = inner.chars().peekable();
    let mut spaced = true;
    while let Some(c) = chars.next() {
        let word = |first: Option<char>, chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut word: String = first.into_iter().collect();
            while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                word.push(next);
            }
            word
        };
        if c.is_whitespace() {
            spaced = true;
            continue;
        }
        let token = match c {
            '(' => Token::Open,
            ')' => Token::Close,
            '|' => Token::Pipe,
            ',' => Token::Comma,
            '=' => Token::Assign,
            ':' if chars.next_if_eq(&'=').is_some() => Token::Declare,
            '.' => match word(None, &mut chars) {
                name if name.is_empty() => Token::Dot,
                name => Token::Field { name, joined: !spaced },
            },
            '$' => Token::Variable(word(None, &mut chars)),
            '"' => Token::Text(quoted(&mut chars)?),
            '`' => Token::Text(raw(&mut chars)?),
            c if c.is_alphabetic() || c == '_' => Token::Word(word(Some(c), &mut chars)),
            c if c.is_ascii_digit() || c == '-' || c == '+' => number(c, &mut chars)?,
            other => return Err(format!("unexpected {other:?}")),
        };
        tokens.push(token);
        spaced = false;
    }
    Ok(tokens)
}

fn number(first: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, String> {
    let mut text = String::from(first);
    while let Some(next) = chars.next_if(|next| next.is_ascii_alphanumeric() || *next == '.') {
        text.push(next);
    }
    let int = text.parse().map(Token::Int);
    int.or_else(|_| text.parse().map(Token::Float)).map_err(|_| format!("{text} is no number"))
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None | Some('\n') => return Err("a text is not closed by \"".to_owned()),
            Some('"') => return Ok(text),
            Some('\\') => text.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(c @ ('\\' | '"' | '\'')) => c,
                other => return Err(format!("\\{} means nothing", other.unwrap_or(' '))),
            }),
            Some(c) => text.push(c),
        }
    }
}

fn raw(chars: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return Err("a text is not closed by `".to_owned()),
            Some('`') => return Ok(text),
            Some(c) => text.push(c),
        }
    }
}
