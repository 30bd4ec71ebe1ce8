//! Host and virtual-host lookup.

use super::Route;
use crate::message::RequestHead;
use std::sync::Arc;

/// An immutable route table (`RouteConfiguration`).
#[derive(Debug, Default)]
pub struct RouteTable {
    single: Option<Arc<Route>>,
}

/// What a lookup needs beside the request's head.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// A random number, for runtime fractions.
    pub random: u64,
}

/// What a lookup found.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// This route.
    Found(Arc<Route>),
    /// None: 404.
    NoRoute,
    /// Not known here, but the control plane may know (on-demand scope): wait for this host, then look again.
    Ask(Box<str>),
}

impl RouteTable {
    /// A table in which every request meets the same route.
    pub fn single(route: Route) -> Self {
        Self { single: Some(Arc::new(route)) }
    }

    /// The route of a request.
    pub fn lookup(&self, _head: &RequestHead, _asked: Asked) -> Lookup {
        self.single.clone().map_or(Lookup::NoRoute, Lookup::Found)
    }
}
