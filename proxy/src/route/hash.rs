//! What consistent-hash balancers hash of a request: pure, with Envoy's function (XXH64 with seed 0), so that both
//! proxies choose the same endpoint.

use super::Route;
use crate::message::{Known, RequestHead};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;
use xxhash_rust::xxh64::xxh64;

/// One source of the hash.
#[derive(Debug, Clone)]
pub struct HashPolicy {
    /// Where the value comes from.
    pub source: HashSource,
    /// Whether later sources are left out once there is a hash.
    pub terminal: bool,
}

/// Where a value to hash comes from.
#[derive(Debug, Clone)]
pub enum HashSource {
    /// A header, possibly rewritten by a regex.
    Header(Box<[u8]>, Option<(Box<regex::bytes::Regex>, Box<[u8]>)>),
    /// A cookie, which is made if it has a time to live.
    Cookie {
        /// Name of the cookie.
        name: Box<str>,
        /// How long a made one lives; zero: as long as the browser's session; `None`: none is made.
        ttl: Option<Duration>,
        /// Path of a made one.
        path: Box<str>,
        /// Attributes of a made one, as written behind it.
        attributes: Box<str>,
    },
    /// The client's address, without the port.
    SourceIp,
    /// A query parameter.
    QueryParameter(Box<[u8]>),
}

/// The hash of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The hash; none: the balancer draws.
    pub hash: Option<u64>,
    /// A cookie that the response must set, so that the next request comes back.
    pub cookie: Option<NewCookie>,
}

/// A cookie made for stickiness.
#[derive(Debug, PartialEq, Eq)]
pub struct NewCookie {
    /// The value of `set-cookie`.
    pub header: String,
}

impl Route {
    /// Hashes a request of the client at `remote` that dialled `local`.
    pub fn hash(&self, head: &RequestHead, remote: SocketAddr, local: SocketAddr) -> Hashed {
        let mut out = Hashed::default();
        for policy in &self.hash_policy {
            let new = match &policy.source {
                HashSource::Header(name, rewrite) => hash_header(head, name, rewrite.as_ref()),
                HashSource::SourceIp => Some(xxh64(remote.ip().to_string().as_bytes(), 0)),
                HashSource::QueryParameter(name) => parameter(head.query(), name).map(|value| xxh64(value, 0)),
                HashSource::Cookie { name, ttl, path, attributes } => match (cookie(head, name), ttl) {
                    (Some(value), _) => Some(xxh64(value, 0)),
                    (None, Some(ttl)) => {
                        let value = format!("{:016x}", xxh64(format!("{remote}{local}").as_bytes(), 0));
                        let hash = xxh64(value.as_bytes(), 0);
                        out.cookie =
                            Some(NewCookie::of(name, &value, *ttl, &format!("{}{attributes}", path_text(path))));
                        Some(hash)
                    }
                    (None, None) => None,
                },
            };
            if let Some(new) = new {
                // rotated by one, so that the same values in another order hash differently
                out.hash = Some(out.hash.map_or(new, |old| old.rotate_left(1) ^ new));
            }
            if policy.terminal && out.hash.is_some() {
                break;
            }
        }
        out
    }
}

impl NewCookie {
    fn of(name: &str, value: &str, ttl: Duration, rest: &str) -> Self {
        let age = if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs()) };
        Self { header: format!("{name}=\"{value}\"{age}{rest}; HttpOnly") }
    }
}

fn path_text(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("; Path={path}") }
}

/// Several values of a header are hashed as one, in sorted order.
fn hash_header(
    head: &RequestHead,
    name: &[u8],
    rewrite: Option<&(Box<regex::bytes::Regex>, Box<[u8]>)>,
) -> Option<u64> {
    let mut values: Vec<Cow<'_, [u8]>> = match name {
        b":path" => vec![Cow::Borrowed(head.path())],
        b":authority" | b"host" => vec![Cow::Borrowed(head.authority())],
        b":method" => vec![Cow::Borrowed(head.method())],
        _ => head.headers.values(name).map(Cow::Borrowed).collect(),
    };
    if values.is_empty() {
        return None;
    }
    if let Some((regex, substitution)) = rewrite {
        for value in &mut values {
            *value = Cow::Owned(regex.replace_all(value, &**substitution).into_owned());
        }
    }
    values.sort_unstable();
    Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
}

fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let crumbs = head.headers.values_known(Known::Cookie).flat_map(|value| value.split(|byte| *byte == b';'));
    crumbs.map(<[u8]>::trim_ascii).find_map(|crumb| {
        let value = crumb.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
    })
}
