//! Path templates: `/a/{name=*}/{rest=**}.json`, matched and rewritten
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/path/match/uri_template/v3/uri_template_match.proto>).

use crate::message::matcher::whole_regex;
use std::sync::Arc;

/// Characters that one segment may hold, after Envoy's reading of RFC 3986.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]";

/// A compiled template.
#[derive(Debug, Clone)]
pub struct Template {
    regex: Arc<regex::bytes::Regex>,
}

/// A path made of a template's variables.
#[derive(Debug)]
pub struct TemplateRewrite {
    template: Template,
    pieces: Box<[Piece]>,
}

#[derive(Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Variable(Box<str>),
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// What is wrong with it.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("path template {text:?} must begin with /"));
        }
        let mut pattern = String::new();
        let mut names: Vec<&str> = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '*']) {
            let (literal, tail) = rest.split_at(at);
            pattern.push_str(&regex::escape(literal));
            if let Some(inner) = tail.strip_prefix('{') {
                let (inside, after) =
                    inner.split_once('}').ok_or_else(|| format!("path template {text:?}: {{ is not closed"))?;
                let (name, form) = inside.split_once('=').unwrap_or((inside, "*"));
                let word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if name.is_empty()
                    || !word(name)
                    || name.starts_with(|c: char| c.is_ascii_digit())
                    || names.contains(&name)
                {
                    return Err(format!("path template {text:?}: variable {name:?} is no name, or is there twice"));
                }
                names.push(name);
                pattern.push_str(&format!("(?P<{name}>{})", form_regex(form)));
                rest = after;
            } else {
                let (stars, after) = match tail.strip_prefix("**") {
                    Some(after) => ("**", after),
                    None => ("*", tail.strip_prefix('*').unwrap_or(tail)),
                };
                pattern.push_str(&form_regex(stars));
                rest = after;
            }
        }
        pattern.push_str(&regex::escape(rest));
        let regex = whole_regex(&pattern).map_err(|why| format!("path template {text:?}: {why}"))?;
        Ok(Self { regex: Arc::new(regex) })
    }

    /// Whether a path has this form.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.regex.is_match(path)
    }
}

/// The form of a variable: segments of literals and stars.
fn form_regex(form: &str) -> String {
    let mut pattern = String::new();
    let mut rest = form;
    while let Some((literal, tail)) = rest.split_once('*') {
        pattern.push_str(&regex::escape(literal));
        if let Some(after) = tail.strip_prefix('*') {
            pattern.push_str(&format!("(?:{SEGMENT}|/)*"));
            rest = after;
        } else {
            pattern.push_str(&format!("{SEGMENT}+"));
            rest = tail;
        }
    }
    pattern.push_str(&regex::escape(rest));
    pattern
}

impl TemplateRewrite {
    /// Compiles a rewrite of the variables of `template`.
    ///
    /// # Errors
    /// A variable that the template lacks.
    pub(super) fn parse(text: &str, template: &Template) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("path template rewrite {text:?} must begin with /"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once('{') {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.as_bytes().into()));
            }
            let (name, after) =
                tail.split_once('}').ok_or_else(|| format!("path template rewrite {text:?}: {{ is not closed"))?;
            if !template.regex.capture_names().flatten().any(|known| known == name) {
                return Err(format!("path template rewrite {text:?}: the match has no variable {name:?}"));
            }
            pieces.push(Piece::Variable(name.into()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.as_bytes().into()));
        }
        Ok(Self { template: template.clone(), pieces: pieces.into() })
    }

    /// The new path; `None` if the path does not have the template's form.
    pub(super) fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        let captures = self.template.regex.captures(path)?;
        let mut out = Vec::with_capacity(path.len());
        for piece in &self.pieces {
            match piece {
                // a variable that took nothing leaves no double slash
                Piece::Literal(text) if out.ends_with(b"/") && text.starts_with(b"/") => {
                    out.extend_from_slice(text.get(1..).unwrap_or_default());
                }
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Variable(name) => {
                    out.extend_from_slice(captures.name(name).map(|found| found.as_bytes()).unwrap_or_default())
                }
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_segments() {
        let cases = [
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/*/c", "/a//c", false),
            ("/**", "/a/b", true),
            ("/a/{rest=**}.json", "/a/b/c.json", true),
            ("/a/{rest=**}.json", "/a/b/c", false),
            ("/{x}/y.z", "/q/yxz", false),
        ];
        for (template, path, expected) in cases {
            assert_eq!(Template::parse(template).unwrap().matches(path.as_bytes()), expected, "{template} {path}");
        }
        for wrong in ["a", "/{a", "/{a}/{a}", "/{1a}", "/{}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_are_moved() {
        let template = Template::parse("/{country}/{rest=**}").unwrap();
        let rewrite = TemplateRewrite::parse("/x/{rest}/{country}", &template).unwrap();
        assert_eq!(rewrite.apply(b"/de/a/b").unwrap(), b"/x/a/b/de");
        assert_eq!(rewrite.apply(b"/de/").unwrap(), b"/x/de");
        assert!(TemplateRewrite::parse("/{other}", &template).is_err());
    }
}
