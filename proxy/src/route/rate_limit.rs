//! Descriptors: what a rate limit service is asked about a request (Envoy: `config.route.v3.RateLimit`).

use crate::message::RequestHead;
use crate::message::matcher::HeaderMatcher;
use crate::net::PeerFacts;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One descriptor in the making.
#[derive(Debug)]
pub struct RateLimit {
    /// Which filter asks about it, of several.
    pub stage: u32,
    pub(super) actions: Box<[Action]>,
    pub(super) hits: Option<Hits>,
}

/// How many hits a request is.
#[derive(Debug)]
pub(super) enum Hits {
    Fixed(u32),
    /// The number in this header; 1 where there is none.
    Header(Box<[u8]>),
}

/// Keys and values, in order.
pub type Entries = Vec<(Box<str>, String)>;

/// What descriptors are made of.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorFacts<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The client.
    pub peer: &'a PeerFacts,
    /// Name of this proxy's own service cluster.
    pub source: &'a str,
    /// Name of the cluster that the request goes to.
    pub destination: Option<&'a str>,
}

#[derive(Debug)]
pub(super) enum Action {
    SourceCluster,
    DestinationCluster,
    RemoteAddress,
    MaskedRemoteAddress { v4: u32, v6: u32 },
    Fixed { key: Box<str>, value: Box<str> },
    Header { name: Box<[u8]>, key: Box<str>, skip: bool },
    Query { name: Box<str>, key: Box<str>, skip: bool },
    HeaderMatch { key: Box<str>, value: Box<str>, expect: bool, headers: Box<[HeaderMatcher]> },
    Named { attribute: Attribute, key: Box<str>, skip: bool },
}

/// The part of CEL that descriptors of a mesh are made of: one attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute {
    PeerUri,
    Path,
    UrlPath,
    Method,
    Host,
}

impl RateLimit {
    /// How many hits a request is, where it is not one.
    pub fn hits(&self, head: &RequestHead) -> Option<u32> {
        match self.hits.as_ref()? {
            Hits::Fixed(hits) => Some(*hits),
            Hits::Header(name) => std::str::from_utf8(head.headers.get_name(name)?).ok()?.trim().parse().ok(),
        }
    }

    /// The descriptor of a request; `None` where one of its actions has nothing to say.
    pub fn descriptor(&self, facts: DescriptorFacts<'_>) -> Option<Entries> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.entry(facts) {
                Entry::Is(key, value) => entries.push((key.into(), value.into_owned())),
                Entry::Skipped => {}
                Entry::Missing => return None,
            }
        }
        (!entries.is_empty()).then_some(entries)
    }
}

enum Entry<'a> {
    Is(&'a str, Cow<'a, str>),
    /// Left out of the descriptor.
    Skipped,
    /// Without it there is no descriptor.
    Missing,
}

impl Attribute {
    fn of<'a>(self, facts: DescriptorFacts<'a>) -> Option<Cow<'a, str>> {
        let text = String::from_utf8_lossy;
        Some(match self {
            Self::PeerUri => facts.peer.peer_id()?.into(),
            Self::Path => text(facts.head.path()),
            Self::UrlPath => text(facts.head.path_only()),
            Self::Method => text(facts.head.method()),
            Self::Host => text(facts.head.authority()),
        })
    }
}

impl Action {
    fn entry<'a>(&'a self, facts: DescriptorFacts<'a>) -> Entry<'a> {
        let found = |key: &'a str, value: Option<Cow<'a, str>>, skip: bool| match value {
            Some(value) => Entry::Is(key, value),
            None if skip => Entry::Skipped,
            None => Entry::Missing,
        };
        match self {
            Self::SourceCluster => Entry::Is("source_cluster", facts.source.into()),
            Self::DestinationCluster => found("destination_cluster", facts.destination.map(Cow::Borrowed), false),
            Self::RemoteAddress => Entry::Is("remote_address", facts.peer.remote.ip().to_string().into()),
            Self::MaskedRemoteAddress { v4, v6 } => {
                Entry::Is("masked_remote_address", masked(facts.peer.remote.ip(), *v4, *v6).into())
            }
            Self::Fixed { key, value } => Entry::Is(key, (&**value).into()),
            Self::Header { name, key, skip } => found(key, header(facts.head, name), *skip),
            Self::Query { name, key, skip } => found(key, query(facts.head.path(), name), *skip),
            Self::HeaderMatch { key, value, expect, headers } => {
                let matches = headers.iter().all(|matcher| matcher.matches_request(facts.head));
                if matches == *expect { Entry::Is(key, (&**value).into()) } else { Entry::Missing }
            }
            Self::Named { attribute, key, skip } => found(key, attribute.of(facts), *skip),
        }
    }
}

fn header<'a>(head: &'a RequestHead, name: &'a [u8]) -> Option<Cow<'a, str>> {
    let text = |bytes: &'a [u8]| Some(String::from_utf8_lossy(bytes));
    match name {
        b":path" => text(head.path()),
        b":method" => text(head.method()),
        b":authority" | b"host" => text(head.authority()),
        b":scheme" => text(head.scheme()),
        _ => Some(String::from_utf8_lossy(&head.headers.joined(name)?).into_owned().into()),
    }
}

/// The first value of a query parameter, decoded.
fn query<'a>(path: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let text = std::str::from_utf8(path).ok()?;
    let pairs = text.split_once('?')?.1.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy())
}

/// `10.1.0.0/16`
fn masked(ip: IpAddr, v4: u32, v6: u32) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - v4).unwrap_or_default();
            format!("{}/{v4}", Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - v6).unwrap_or_default();
            format!("{}/{v6}", Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}
