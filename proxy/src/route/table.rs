//! Host and virtual-host lookup.

use super::Route;
use super::matcher::RouteMatcher;
use crate::message::{Metadata, RequestHead};
use foldhash::HashMap;
use std::borrow::Cow;

/// An immutable route table (`RouteConfiguration`).
#[derive(Debug, Default)]
pub struct RouteTable {
    pub(super) name: Box<str>,
    pub(super) hosts: Vec<VirtualHost>,
    /// The routes of all virtual hosts.
    pub(super) routes: Vec<Route>,
    pub(super) exact: HashMap<Box<[u8]>, usize>,
    /// `*.example.com` as `.example.com`, longest first.
    pub(super) suffixes: Wildcards,
    /// `example.*` as `example.`, longest first.
    pub(super) prefixes: Wildcards,
    /// `*`.
    pub(super) any: Option<usize>,
    pub(super) ignore_port: bool,
    pub(super) ignore_path_parameters: bool,
    /// Whether the control plane can be asked for virtual hosts that are not here.
    pub(super) on_demand: bool,
    /// Whether a route depends on what filters have left.
    pub(super) reads_metadata: bool,
    /// What answers plain HTTP where TLS is required.
    pub(super) to_https: Option<RouteId>,
    pub(super) single: Option<RouteId>,
}

/// Wildcard domains by the length of their fixed part.
#[derive(Debug, Default)]
pub(super) struct Wildcards {
    lengths: Vec<usize>,
    by_text: HashMap<Box<[u8]>, usize>,
}

/// One virtual host.
#[derive(Debug)]
pub(super) struct VirtualHost {
    pub(super) routes: Vec<(RouteMatcher, RouteId)>,
    pub(super) requires_tls: bool,
}

/// What a lookup needs beside the request's head.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// A random number, for runtime fractions.
    pub random: u64,
    /// What filters have left; needed where the table [reads it](RouteTable::reads_metadata).
    pub metadata: Option<&'a Metadata>,
}

/// A route's place in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteId(usize);

/// What a lookup found.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// This route.
    Found(RouteId),
    /// None: 404.
    NoRoute,
    /// Not known here, but the control plane may know (on-demand scope): wait for this host, then look again.
    Ask(Box<str>),
}

impl Wildcards {
    /// Adds a wildcard; whether it was new.
    pub(super) fn add(&mut self, text: &[u8], host: usize) -> bool {
        if !self.lengths.contains(&text.len()) {
            self.lengths.push(text.len());
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.by_text.insert(text.into(), host).is_none()
    }

    /// The longest wildcard of which `part` gives a text for its length; a wildcard stands for one character at least.
    fn find<'a>(&self, host: &'a [u8], part: impl Fn(&'a [u8], usize) -> Option<&'a [u8]>) -> Option<usize> {
        let shorter = self.lengths.iter().filter(|length| **length < host.len());
        shorter.filter_map(|length| self.by_text.get(part(host, *length)?)).next().copied()
    }
}

impl RouteTable {
    /// A table in which every request meets the same route.
    pub fn single(route: Route) -> Self {
        let mut table = Self::default();
        table.single = Some(table.add(route));
        table
    }

    pub(super) fn add(&mut self, route: Route) -> RouteId {
        self.routes.push(route);
        RouteId(self.routes.len() - 1)
    }

    /// A route that a lookup in this table found.
    #[inline]
    pub fn route(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id.0)
    }

    /// Name of the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a route depends on what filters have left.
    pub fn reads_metadata(&self) -> bool {
        self.reads_metadata
    }

    /// The route of a request.
    pub fn lookup(&self, head: &RequestHead, asked: Asked<'_>) -> Lookup {
        if let Some(single) = self.single {
            return Lookup::Found(single);
        }
        let Some(host) = self.host(head.authority()) else {
            return match std::str::from_utf8(head.authority()) {
                Ok(host) if self.on_demand => Lookup::Ask(host.to_ascii_lowercase().into()),
                _ => Lookup::NoRoute,
            };
        };
        if host.requires_tls
            && head.scheme() != b"https"
            && let Some(redirect) = self.to_https
        {
            return Lookup::Found(redirect);
        }
        let path = self.path(head);
        let found = host.routes.iter().find(|(matcher, _)| matcher.matches(head, path, asked));
        found.map_or(Lookup::NoRoute, |(_, route)| Lookup::Found(*route))
    }

    /// The path that routes are matched against.
    fn path<'a>(&self, head: &'a RequestHead) -> &'a [u8] {
        let path = head.path_only();
        if !self.ignore_path_parameters {
            return path;
        }
        path.split(|byte| *byte == b';').next().unwrap_or(path)
    }

    /// Exact domain, then the longest `*.suffix`, then the longest `prefix.*`, then `*`; case does not matter, a port may
    /// be ignored, and a trailing dot makes no difference (D8).
    fn host(&self, authority: &[u8]) -> Option<&VirtualHost> {
        let whole = if self.ignore_port { without_port(authority) } else { authority };
        let lower: Cow<'_, [u8]> = if whole.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(whole.to_ascii_lowercase())
        } else {
            Cow::Borrowed(whole)
        };
        let index = self.named(&lower).or_else(|| self.named(&without_dot(&lower)?)).or(self.any)?;
        self.hosts.get(index)
    }

    fn named(&self, host: &[u8]) -> Option<usize> {
        self.exact
            .get(host)
            .copied()
            .or_else(|| self.suffixes.find(host, |host, length| host.get(host.len() - length..)))
            .or_else(|| self.prefixes.find(host, |host, length| host.get(..length)))
    }
}

/// The host without its port; brackets of an IPv6 address stay.
fn without_port(authority: &[u8]) -> &[u8] {
    let Some(colon) = authority.iter().rposition(|byte| *byte == b':') else { return authority };
    let (host, port) = authority.split_at(colon);
    let is_port = port.iter().skip(1).all(u8::is_ascii_digit) && port.len() > 1;
    let is_bare_v6 = host.contains(&b':') && host.last() != Some(&b']');
    if is_port && !is_bare_v6 { host } else { authority }
}

/// `a.b.` as `a.b` and `a.b.:80` as `a.b:80`; `None` where there is no such dot.
fn without_dot(host: &[u8]) -> Option<Vec<u8>> {
    let name = without_port(host);
    let short = name.strip_suffix(b".")?;
    Some([short, host.get(name.len()..)?].concat())
}
