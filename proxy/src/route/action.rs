//! Following a route: the choice of a cluster, the target of a redirect.

use super::rewrite::split_query;
use super::{Action, Redirect, Route, WeightedCluster};
use crate::message::RequestHead;
use std::borrow::Cow;

/// The cluster of a request.
#[derive(Debug)]
pub struct Choice<'a> {
    /// Its name.
    pub cluster: Cow<'a, str>,
    /// The entry of a weighted split, with operations of its own.
    pub weighted: Option<&'a WeightedCluster>,
}

impl Route {
    /// The cluster that the request goes to; `None` where the route does not forward, or where the header that names
    /// the cluster is missing.
    pub fn choose(&self, head: &RequestHead, random: u64) -> Option<Choice<'_>> {
        match &self.action {
            Action::Cluster(name) => Some(Choice { cluster: Cow::Borrowed(&**name), weighted: None }),
            Action::Weighted(choices, total) => {
                let mut left = random % (*total).max(1);
                let chosen = choices.iter().find(|choice| {
                    let weight = u64::from(choice.weight);
                    let is_here = left < weight;
                    left = left.saturating_sub(weight);
                    is_here
                })?;
                Some(Choice { cluster: Cow::Borrowed(&*chosen.name), weighted: Some(chosen) })
            }
            Action::ClusterHeader(name) => {
                let value = head.headers.get_name(name).filter(|value| !value.is_empty())?;
                Some(Choice { cluster: std::str::from_utf8(value).ok()?.to_owned().into(), weighted: None })
            }
            Action::Redirect(_) | Action::Direct { .. } | Action::NonForwarding => None,
        }
    }
}

impl Redirect {
    /// The value of `location` for a request.
    pub fn location(&self, head: &RequestHead) -> Vec<u8> {
        let old_scheme: &[u8] = if head.scheme().is_empty() { b"http" } else { head.scheme() };
        let scheme = self.scheme.as_deref().map_or(old_scheme, str::as_bytes);
        let (host, port) = split_port(head.authority());
        let mut out = [scheme, b"://", self.host.as_deref().map_or(host, str::as_bytes)].concat();
        match self.port {
            Some(0) => {}
            Some(port) => out.extend_from_slice(format!(":{port}").as_bytes()),
            None if self.host.is_some() => {}
            // a port that only repeats the old scheme does not go with the new one
            None => {
                let is_old_default =
                    (old_scheme == b"http" && port == b":80") || (old_scheme == b"https" && port == b":443");
                if scheme.eq_ignore_ascii_case(old_scheme) || !is_old_default {
                    out.extend_from_slice(port);
                }
            }
        }
        out.extend_from_slice(&self.path(head));
        out
    }

    fn path(&self, head: &RequestHead) -> Vec<u8> {
        let (only, query) = split_query(head.path());
        match &self.path {
            // a full path with a query of its own keeps that one
            Some(super::PathRewrite::Full(text)) if text.contains('?') => text.as_bytes().to_vec(),
            Some(super::PathRewrite::Full(text)) if self.strip_query => text.as_bytes().to_vec(),
            Some(super::PathRewrite::Full(text)) => [text.as_bytes(), query].concat(),
            Some(rewrite) => {
                let old = if self.strip_query { only } else { head.path() };
                rewrite.apply(old).unwrap_or_else(|| old.to_vec())
            }
            None if self.strip_query => only.to_vec(),
            None => head.path().to_vec(),
        }
    }
}

/// Host and port of an authority, the port with its colon.
fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority.iter().skip(colon + 1).all(u8::is_ascii_digit) => authority.split_at(colon),
        _ => (authority, b""),
    }
}
