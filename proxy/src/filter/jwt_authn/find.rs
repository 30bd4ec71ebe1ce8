//! Where tokens stand in a request, and how they are taken out of it.

use crate::message::RequestHead;
use percent_encoding::percent_decode;
use std::sync::Arc;

/// Where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A header, after a prefix.
    Header(Arc<[u8]>, Arc<[u8]>),
    /// A query parameter.
    Query(Arc<[u8]>),
    /// A cookie.
    Cookie(Arc<[u8]>),
}

/// A token as it was found.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) text: Box<str>,
}

/// The tokens of a request in these places.
pub(super) fn tokens(places: &[Place], head: &RequestHead) -> Vec<Found> {
    let found = |place: &Place| {
        let text = match place {
            Place::Header(name, prefix) => after_prefix(&head.headers.joined(name)?, prefix)?,
            Place::Query(name) => parameter(head.query(), name)?,
            Place::Cookie(name) => head.headers.values(b"cookie").find_map(|list| {
                let pair = list
                    .split(|byte| *byte == b';')
                    .map(<[u8]>::trim_ascii)
                    .find_map(|pair| pair.strip_prefix(&**name)?.strip_prefix(b"="));
                pair.map(|value| {
                    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value).to_vec()
                })
            })?,
        };
        // What is no text is a bad token, not a missing one.
        Some(Found { place: place.clone(), text: String::from_utf8_lossy(&text).into() })
    };
    places.iter().filter_map(found).collect()
}

/// What follows the prefix, wherever it stands in the value; of that only what a token may be made of.
fn after_prefix(value: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    if prefix.is_empty() {
        return Some(value.to_vec());
    }
    let rest = value.get(memchr::memmem::find(value, prefix)? + prefix.len()..)?;
    let of_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let rest = rest.get(rest.iter().position(of_token).unwrap_or(rest.len())..)?;
    let end = rest.iter().position(|byte| !of_token(byte)).unwrap_or(rest.len());
    rest.get(..end).map(<[u8]>::to_vec)
}

/// The first parameter of the name, decoded.
fn parameter(query: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut pairs = query.split(|byte| *byte == b'&');
    pairs.find_map(|pair| Some(percent_decode(pair.strip_prefix(name)?.strip_prefix(b"=")?).collect()))
}

impl Place {
    /// Takes the token out of the request. Cookies stay, as with Envoy.
    pub(super) fn remove_from(&self, head: &mut RequestHead) {
        match self {
            Self::Header(name, _) => {
                head.headers.remove_name(name);
            }
            Self::Query(name) => {
                let own = |pair: &&[u8]| pair.strip_prefix(&**name).is_some_and(|rest| rest.starts_with(b"="));
                let kept: Vec<&[u8]> = head.query().split(|byte| *byte == b'&').filter(|pair| !own(pair)).collect();
                let query = kept.join(&b'&');
                let mut path = head.path_only().to_vec();
                if !query.is_empty() {
                    path.push(b'?');
                    path.extend_from_slice(&query);
                }
                head.set_path(&path);
            }
            Self::Cookie(_) => {}
        }
    }
}
