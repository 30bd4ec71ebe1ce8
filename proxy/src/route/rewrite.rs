//! New paths and hosts.

use super::{HostRewrite, PathRewrite, Route};
use crate::message::{Known, RequestHead};

impl PathRewrite {
    /// The new path for `path`, query included; `None` where nothing changes.
    pub fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (only, query) = split_query(path);
        Some(match self {
            Self::Full(text) => text.as_bytes().to_vec(),
            Self::Prefix(text, length) => [text.as_bytes(), only.get(*length..)?, query].concat(),
            Self::Regex(regex, substitution) => {
                let changed = regex.replace_all(only, &**substitution);
                [&*changed, query].concat()
            }
            Self::Template(rewrite) => [&rewrite.apply(only)?[..], query].concat(),
        })
    }
}

impl HostRewrite {
    /// The new host, where it depends on the request alone.
    fn of_request(&self, head: &RequestHead) -> Option<Vec<u8>> {
        match self {
            Self::Literal(host) => Some(host.as_bytes().to_vec()),
            Self::Header(name) => head.headers.get_name(name).filter(|value| !value.is_empty()).map(<[u8]>::to_vec),
            Self::PathRegex(regex, substitution) => {
                let host = regex.replace_all(head.path_only(), &**substitution).into_owned();
                (!host.is_empty()).then_some(host)
            }
            Self::Auto => None,
        }
    }
}

impl Route {
    /// Rewrites path and host of a request as the route says, after its header operations; the originals go into
    /// `x-envoy-original-path` and `x-envoy-original-host` (spec HD-10). `choice_host` is the host of a weighted choice.
    pub fn rewrite(&self, head: &mut RequestHead, choice_host: Option<&str>) {
        let new_path = self.path_rewrite.as_ref().and_then(|rewrite| rewrite.apply(head.path()));
        let new_host = match choice_host {
            Some(host) => Some(host.as_bytes().to_vec()),
            None => self.host_rewrite.as_ref().and_then(|rewrite| rewrite.of_request(head)),
        };
        // Envoy notes the original whenever a rewrite is configured, even where its pattern does not match.
        if self.path_rewrite.is_some() {
            let original = head.path().to_vec();
            head.headers.set(Known::XEnvoyOriginalPath, &original);
        }
        if let Some(path) = new_path {
            head.set_path(&path);
        }
        if let Some(host) = new_host {
            self.set_host(head, &host);
        }
    }

    /// Takes over the host name of the chosen endpoint, where the route says so (`auto_host_rewrite`).
    pub fn rewrite_host_of_endpoint(&self, head: &mut RequestHead, hostname: &str) {
        if matches!(self.host_rewrite, Some(HostRewrite::Auto)) && !hostname.is_empty() {
            self.set_host(head, hostname.as_bytes());
        }
    }

    fn set_host(&self, head: &mut RequestHead, host: &[u8]) {
        if head.authority() == host {
            return;
        }
        let original = head.authority().to_vec();
        head.headers.set(Known::XEnvoyOriginalHost, &original);
        if self.append_x_forwarded_host {
            let forwarded = match head.headers.get(Known::XForwardedHost) {
                Some(before) => [before, b",", &original].concat(),
                None => original,
            };
            head.headers.set(Known::XForwardedHost, &forwarded);
        }
        head.set_authority(host);
    }
}

/// Path and query, the query with its question mark.
pub(super) fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().position(|byte| *byte == b'?').unwrap_or(path.len()))
}

/// RE2's `\1` and `\\` in the words of the `regex` crate.
///
/// # Errors
/// A backslash before anything else.
pub(super) fn substitution(text: &str) -> Result<Box<[u8]>, String> {
    let mut out = String::with_capacity(text.len() + 4);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(digit) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
                Some('\\') => out.push('\\'),
                _ => return Err(format!("substitution {text:?}: after \\ comes a digit or another \\")),
            },
            '$' => out.push_str("$$"),
            other => out.push(other),
        }
    }
    Ok(out.into_bytes().into())
}
