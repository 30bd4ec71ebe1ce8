//! Decisions that a service leaves with this proxy for a while, so that the next requests need no call (MX-97, design
//! decision G). One book per worker; what it holds is bounded, and goes when its time or its uses are over.

use super::StreamCx;
use crate::env::Instant;
use crate::message::RequestHead;
use crate::telemetry::Cells;
use crate::telemetry::names::{LimitMetric, PolicyMetric};
use foldhash::HashMap;
use std::cell::RefCell;
use std::collections::HashMap as Contexts;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// Header of a call that says that this proxy honours leases; the value is `1`.
pub const HEADER: &str = "x-ferromesh-lease";
/// Leases of one kind that a worker keeps (as many as Mixer's clients did, MX-32).
const MAX_LEASES: usize = 10_000;
/// Sets of attributes by which one filter looks leases up.
const MAX_SHAPES: usize = 16;
/// Longest lease that is believed.
const LONGEST: Duration = Duration::from_secs(600);

/// Leases by key.
#[derive(Debug)]
pub struct Leases<D> {
    entries: RefCell<HashMap<Rc<[u8]>, Lease<D>>>,
    /// Keys, the oldest first.
    order: RefCell<VecDeque<Rc<[u8]>>>,
}

#[derive(Debug)]
struct Lease<D> {
    decision: Rc<D>,
    until: Instant,
    /// How many more requests it is for; none: any number.
    uses: Option<u64>,
    counts: Box<[Count]>,
}

/// What a service allows of its answer.
#[derive(Debug, Default)]
pub struct Terms {
    /// How long it holds.
    pub time: Duration,
    /// For how many further requests; none: any number.
    pub uses: Option<u64>,
    /// What is counted with each of them, as the service counts its own answers.
    pub counts: Box<[Count]>,
}

/// What a use of a lease counts.
#[derive(Debug)]
pub enum Count {
    /// A rule and its handler, and what each use is to them.
    Rule(Rc<Cells<PolicyMetric>>, Box<[PolicyMetric]>),
    /// A rate limit, and how many hits each use is.
    Limit(Rc<Cells<LimitMetric>>, LimitMetric, u64),
}

impl Count {
    fn count(&self) {
        match self {
            Self::Rule(cells, metrics) => metrics.iter().for_each(|metric| cells.increment(*metric)),
            Self::Limit(cells, metric, hits) => cells.add(*metric, *hits),
        }
    }
}

impl<D> Default for Leases<D> {
    fn default() -> Self {
        Self { entries: RefCell::default(), order: RefCell::default() }
    }
}

impl<D> Leases<D> {
    /// Uses the lease of a key, if there is one, and counts that.
    pub fn take(&self, key: &[u8], now: Instant) -> Option<Rc<D>> {
        let mut entries = self.entries.borrow_mut();
        let lease = entries.get_mut(key)?;
        let left = match &mut lease.uses {
            None => true,
            Some(0) => false,
            Some(uses) => {
                *uses -= 1;
                true
            }
        };
        if left && now < lease.until {
            lease.counts.iter().for_each(Count::count);
            return Some(Rc::clone(&lease.decision));
        }
        entries.remove(key);
        None
    }

    /// Keeps a decision on these terms.
    pub fn keep(&self, key: Rc<[u8]>, decision: D, now: Instant, terms: Terms) {
        let Terms { time, uses, counts } = terms;
        if time.is_zero() || uses == Some(0) {
            return;
        }
        let (mut entries, mut order) = (self.entries.borrow_mut(), self.order.borrow_mut());
        let lease = Lease { decision: Rc::new(decision), until: now + time.min(LONGEST), uses, counts };
        if entries.insert(Rc::clone(&key), lease).is_none() {
            order.push_back(key);
        }
        while order.len() > MAX_LEASES {
            if let Some(oldest) = order.pop_front() {
                entries.remove(&oldest);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// IP address of the caller.
    SourceAddress,
    /// Identity of the caller.
    SourcePrincipal,
    /// Address and port of the called.
    DestinationAddress,
    /// Identity of the called.
    DestinationPrincipal,
    /// Method.
    Method,
    /// `:authority`.
    Host,
    /// Path without the query.
    Path,
    /// Scheme.
    Scheme,
    /// Query.
    Query,
    /// Server name of the TLS hello.
    Sni,
    /// A header, lower case.
    Header(Box<[u8]>),
    /// An entry of the route's context.
    Context(Box<str>),
}

impl Attribute {
    /// The attribute of a name in a lease; `None` for one that is not known: the lease is of no use then.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "source.address" => Self::SourceAddress,
            "source.principal" => Self::SourcePrincipal,
            "destination.address" => Self::DestinationAddress,
            "destination.principal" => Self::DestinationPrincipal,
            "request.method" => Self::Method,
            "request.host" => Self::Host,
            "request.path" => Self::Path,
            "request.scheme" => Self::Scheme,
            "request.query" => Self::Query,
            "connection.sni" => Self::Sni,
            _ => match (name.strip_prefix("request.headers/"), name.strip_prefix("context/")) {
                (Some(header), _) => Self::Header(header.to_ascii_lowercase().into_bytes().into()),
                (_, Some(key)) => Self::Context(key.into()),
                _ => return None,
            },
        })
    }

    fn write(&self, head: &RequestHead, context: Option<&Contexts<String, String>>, cx: &StreamCx, out: &mut Vec<u8>) {
        let peer = &cx.peer;
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let known = match self {
            Self::SourceAddress => write_ip(peer.remote.ip(), out),
            Self::SourcePrincipal => write(peer.peer_id().map(str::as_bytes), out),
            Self::DestinationAddress => {
                out.extend_from_slice(&peer.local.port().to_be_bytes());
                write_ip(peer.local.ip(), out)
            }
            Self::DestinationPrincipal => write(peer.local_id().map(str::as_bytes), out),
            Self::Method => write(Some(head.method()), out),
            Self::Host => write(Some(head.authority()), out),
            Self::Path => write(Some(head.path_only()), out),
            Self::Scheme => write(Some(head.scheme()), out),
            Self::Query => write(head.path().get(head.path_only().len()..), out),
            Self::Sni => write(Some(peer.sni.as_bytes()), out),
            Self::Header(name) => write(head.headers.joined(name).as_deref(), out),
            Self::Context(key) => write(context.and_then(|context| context.get(&**key)).map(String::as_bytes), out),
        };
        // What is not there differs from what is empty.
        let length = if known { u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX) } else { u32::MAX };
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

fn write(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.unwrap_or_default());
    value.is_some()
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) -> bool {
    match ip {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    true
}

/// The sets of attributes that leases of each filter were given by.
#[derive(Debug, Default)]
pub struct Shapes {
    by_filter: RefCell<HashMap<u64, Vec<Rc<[Attribute]>>>>,
    /// Where keys are made that are looked up: none of them is allocated.
    scratch: RefCell<Vec<u8>>,
}

/// What keys are made of.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The route's context for the service.
    pub context: Option<&'a Contexts<String, String>>,
    /// The stream.
    pub cx: &'a StreamCx,
}

impl Shapes {
    /// What `take` finds under one of the keys under which a lease of this filter may be for this request.
    pub fn find<T>(&self, filter: u64, asked: Asked<'_>, take: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let known = self.by_filter.borrow();
        let shapes = known.get(&filter).map(Vec::as_slice).unwrap_or_default();
        let mut key = self.scratch.take();
        let found = shapes.iter().enumerate().find_map(|(index, by)| {
            write_key((filter, index), by, asked, &mut key);
            take(&key)
        });
        self.scratch.replace(key);
        found
    }

    /// The key of a lease by these attributes; `None` where the filter has too many sets of them already.
    pub fn key_of(&self, filter: u64, by: Vec<Attribute>, asked: Asked<'_>) -> Option<Rc<[u8]>> {
        let mut known = self.by_filter.borrow_mut();
        let shapes = known.entry(filter).or_default();
        let index = match shapes.iter().position(|shape| **shape == *by) {
            Some(index) => index,
            None if shapes.len() < MAX_SHAPES => {
                shapes.push(by.into());
                shapes.len() - 1
            }
            None => return None,
        };
        let shape = shapes.get(index)?;
        let mut key = Vec::with_capacity(64);
        write_key((filter, index), shape, asked, &mut key);
        Some(key.into())
    }
}

fn write_key((filter, shape): (u64, usize), by: &[Attribute], asked: Asked<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&filter.to_be_bytes());
    out.extend_from_slice(&(shape as u64).to_be_bytes());
    by.iter().for_each(|attribute| attribute.write(asked.head, asked.context, asked.cx, out));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::filter::Facts;
    use crate::message::Version;
    use crate::net::PeerFacts;
    use crate::route::RouteTable;
    use std::sync::Arc;

    fn cx(from: [u8; 4]) -> StreamCx {
        let facts = Rc::new(Facts::alone(Env::seeded(1)));
        let peer = PeerFacts::plain(1, (from, 5000).into(), ([10, 0, 0, 9], 80).into());
        StreamCx::new(&facts, &Rc::new(peer), Arc::new(RouteTable::default()), Instant::now())
    }

    fn head(path: &str, headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"shop", path.as_bytes());
        headers.iter().for_each(|(name, value)| head.headers.append(name.as_bytes(), value.as_bytes()));
        head
    }

    // spec: MX-32, MX-97
    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_with_its_time_and_with_its_uses_and_the_book_is_bounded() {
        let leases = Leases::default();
        let now = Instant::now();
        let keep = |key, decision, s, uses| {
            let time = Duration::from_secs(s);
            leases.keep(key, decision, now, Terms { time, uses, ..Terms::default() });
        };
        let key = |n: usize| -> Rc<[u8]> { n.to_be_bytes().as_slice().into() };
        keep(key(1), "yes", 5, Some(2));
        assert_eq!(leases.take(&key(1), now).as_deref(), Some(&"yes"));
        assert!(leases.take(&key(1), now).is_some() && leases.take(&key(1), now).is_none());
        keep(key(2), "no", 5, None);
        assert!(leases.take(&key(2), now + Duration::from_millis(4_999)).is_some());
        assert!(leases.take(&key(2), now + Duration::from_secs(5)).is_none());
        keep(key(3), "zero", 0, None);
        assert!(leases.is_empty(), "not to be reused");
        keep(key(4), "long", 1 << 40, None);
        assert!(leases.take(&key(4), now + LONGEST).is_none(), "nobody is believed for ever");
        for n in 0..MAX_LEASES + 100 {
            keep(key(n), "x", 5, None);
        }
        assert_eq!(leases.len(), MAX_LEASES);
        assert!(leases.take(&key(0), now).is_none() && leases.take(&key(MAX_LEASES + 99), now).is_some());
    }

    // spec: MX-32
    #[test]
    fn requests_share_a_lease_only_where_they_agree_in_all_that_it_depends_on() {
        let shapes = Shapes::default();
        let by = |names: &[&str]| names.iter().map(|name| Attribute::parse(name).unwrap()).collect::<Vec<_>>();
        let (one, other) = (cx([10, 0, 0, 1]), cx([10, 0, 0, 2]));
        let key = |names: &[&str], head: &RequestHead, cx: &StreamCx| {
            shapes.key_of(1, by(names), Asked { head, context: None, cx }).unwrap()
        };
        let (a, b) = (head("/a?q=1", &[("x-user", "jo")]), head("/a?q=2", &[("x-user", "")]));
        assert_eq!(key(&["request.path"], &a, &one), key(&["request.path"], &b, &other));
        assert_ne!(key(&["request.query"], &a, &one), key(&["request.query"], &b, &one));
        assert_ne!(key(&["source.address"], &a, &one), key(&["source.address"], &a, &other));
        assert_ne!(key(&["request.headers/x-user"], &a, &one), key(&["request.headers/x-user"], &b, &one));
        let absent = head("/a", &[]);
        assert_ne!(
            key(&["request.headers/x-user"], &absent, &one),
            key(&["request.headers/x-user"], &b, &one),
            "absent is not empty"
        );
        assert_eq!(key(&[], &a, &one), key(&[], &b, &other), "a decision that depends on nothing is for all");
        assert_eq!(Attribute::parse("request.body"), None);
        let asked = Asked { head: &a, context: None, cx: &one };
        let keys = |filter: u64| {
            let seen = RefCell::new(std::collections::HashSet::new());
            let none: Option<()> = shapes.find(filter, asked, |key| {
                seen.borrow_mut().insert(key.to_vec());
                None
            });
            assert_eq!(none, None);
            seen.into_inner().len()
        };
        assert_eq!((keys(1), keys(2)), (5, 0), "another filter's leases are its own");
        for n in 0..MAX_SHAPES {
            shapes.key_of(1, by(&[&format!("request.headers/h{n}")]), asked);
        }
        assert_eq!(keys(1), MAX_SHAPES);
    }
}
