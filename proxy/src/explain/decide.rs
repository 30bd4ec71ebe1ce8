//! Listener, filter chain, policies: each decided by the code that serves requests.

use super::dump::{Assignment, Dump};
use super::forward::{cluster, percent, route};
use super::story::{Share, Story};
use super::{Question, Side};
use crate::bootstrap::Environment;
use crate::cluster::Cluster;
use crate::cluster::config::{self as cluster_config, Members};
use crate::endpoint::config::{self as endpoint_config, Known};
use crate::env::Env;
use crate::filter::{Decision, Facts, Filter, FilterState, Step, StreamCx, fault, jwt_authn, registry};
use crate::http::{self, Settings, config::HcmConfig, config::Routes};
use crate::listener::config::{self as listener_config, ChainConfig, Terminal};
use crate::listener::{Ends, Hello, ListenerConfig, find, of_destination};
use crate::message::{Body, Request};
use crate::net::{CertFacts, PeerFacts, TlsFacts};
use crate::outcome::Reason;
use crate::route::{RouteContext, RouteTable};
use crate::tcp::config::NetworkFilter;
use crate::telemetry::access_log::object_of;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// Stands for an address that is not known: the port alone decides then (RFC 5737).
const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// What a worker would hold.
pub(super) struct World {
    listeners: Vec<Arc<ListenerConfig>>,
    tables: HashMap<Box<str>, Arc<RouteTable>>,
    pub(super) facts: Rc<Facts>,
    /// Clusters whose endpoints DNS knows.
    pub(super) resolved: HashSet<Arc<str>>,
}

pub(super) async fn decide(dump: &Dump, question: &Question) -> Story {
    let mut story = Story {
        request: String::from_utf8_lossy(
            &[question.head.method(), b" ", question.head.authority(), question.head.path()].concat(),
        )
        .into_owned(),
        not_understood: dump.unread.clone(),
        ..Story::default()
    };
    let world = World::of(dump, &mut story.not_understood);
    let destination = SocketAddr::new(destination(dump, question, &mut story), question.port);
    let Some(listener) = listener(&world, question.side, destination, &mut story) else {
        nothing(&mut story, Reason::NoRoute, "no listener takes the connection");
        return story;
    };
    let Some(chain) = chain(&listener, question, destination, &mut story) else {
        nothing(&mut story, Reason::NoRoute, "no filter chain fits: the connection is closed");
        return story;
    };
    let peer = Rc::new(peer(question, destination, &chain));
    if !connection_filters(&chain, &peer, &mut story) {
        nothing(&mut story, Reason::RbacDenied, "the connection is closed before any byte is read");
        return story;
    }
    match &chain.terminal {
        Terminal::Http(manager) => request(&world, manager, (question, &peer), &mut story).await,
        Terminal::Tcp(tcp) => {
            let total: u32 = tcp.clusters.iter().map(|(_, weight)| *weight).sum();
            let shares =
                tcp.clusters.iter().map(|(name, weight)| (name, percent(u64::from(*weight), u64::from(total))));
            story.step(
                "route",
                &*chain.name,
                "matched",
                "the connection is passed on as bytes, without a look at requests",
            );
            story.outcome.clusters =
                shares.map(|(name, percent)| Share { cluster: name.to_string(), percent }).collect();
            if let Some((name, _)) = tcp.clusters.first() {
                cluster(&world, name, destination, &mut story);
            }
        }
    }
    story
}

/// The answer of the proxy itself.
fn nothing(story: &mut Story, reason: Reason, because: &str) {
    story.step("outcome", "connection", "failed", because);
    story.outcome.flags = reason.face().flags.to_string();
    story.outcome.details = reason.face().details.to_owned();
}

impl World {
    fn of(dump: &Dump, not_understood: &mut Vec<String>) -> Self {
        let (environment, runtime) = (Environment::default(), BTreeMap::new());
        let cx =
            RouteContext { environment: &environment, runtime: &runtime, parse_override: &registry::parse_override };
        let facts = Facts::alone(Env::new());
        let mut refused = |kind: &str, name: &str, why: String| not_understood.push(format!("{kind} {name}: {why}"));
        let assignments: HashMap<&str, &Assignment> =
            dump.endpoints.iter().map(|assignment| (&*assignment.cluster_name, assignment)).collect();
        let mut resolved = HashSet::new();
        for written in &dump.clusters {
            match cluster_config::parse(written) {
                Ok(parsed) => {
                    if matches!(parsed.members, Members::Dns { .. }) {
                        resolved.insert(Arc::clone(&parsed.config.name));
                    }
                    add_cluster(&facts, parsed, &assignments);
                }
                Err(why) => refused("cluster", &written.name, why.to_string()),
            }
        }
        let mut tables = HashMap::new();
        for written in &dump.routes {
            match RouteTable::parse(written, cx) {
                Ok(table) => drop(tables.insert(written.name.as_str().into(), Arc::new(table))),
                Err(why) => refused("routes", &written.name, why.to_string()),
            }
        }
        let mut listeners = Vec::new();
        for written in &dump.listeners {
            match listener_config::parse(written, cx) {
                Ok(listener) => listeners.push(Arc::new(listener)),
                Err(why) => refused("listener", &written.name, why.to_string()),
            }
        }
        Self { listeners, tables, facts: Rc::new(facts), resolved }
    }
}

fn add_cluster(facts: &Facts, parsed: cluster_config::Parsed, assignments: &HashMap<&str, &Assignment>) {
    let assignment = match &parsed.members {
        Members::Static(assignment) => Some(assignment),
        Members::Eds(service) => assignments.get(&**service).copied(),
        Members::Dns { .. } | Members::OriginalDst => None,
    };
    let hosts = assignment.and_then(|assignment| endpoint_config::parse_addresses(assignment, &Known::default()).ok());
    let (config, hosts) = (Arc::new(parsed.config), Arc::new(hosts.unwrap_or_default()));
    facts.clusters.insert(Cluster::new(config, hosts, Rc::clone(&facts.env)));
}

/// The address that the client's connection goes to.
fn destination(dump: &Dump, question: &Question, story: &mut Story) -> IpAddr {
    if let Some(address) = question.to.or_else(|| question.host.parse().ok()) {
        return address;
    }
    if question.side == Side::Inbound {
        return SOME_ADDRESS;
    }
    let namespace = question.namespace.clone().or_else(|| namespace_of(dump.node.as_deref()?)).unwrap_or_default();
    let host = question.host.trim_end_matches('.');
    let found = dump.names.table.iter().find(|(name, info)| {
        let short = info.shortname.as_str();
        let forms = [name.as_str(), &format!("{short}.{}", info.namespace), &format!("{short}.{}.svc", info.namespace)];
        (!short.is_empty() && forms.contains(&host))
            || name.as_str() == host
            || (short == host && info.namespace == namespace)
    });
    match found.and_then(|(name, info)| Some((name, info.ips.first()?.parse().ok()?))) {
        Some((name, address)) => {
            story.step("name", name.clone(), "matched", format!("the mesh's name table says {address}"));
            address
        }
        None => {
            story.step("name", host, "unknown", "the configuration has no table of names with it: the port decides");
            SOME_ADDRESS
        }
    }
}

/// Namespace of `sidecar~10.0.0.1~pod.ns~ns.svc.cluster.local`.
fn namespace_of(node: &str) -> Option<String> {
    node.split('~').nth(3)?.split('.').next().map(str::to_owned)
}

fn listener(world: &World, side: Side, destination: SocketAddr, story: &mut Story) -> Option<Arc<ListenerConfig>> {
    let inbound = side == Side::Inbound;
    let own: Vec<&Arc<ListenerConfig>> =
        world.listeners.iter().filter(|listener| listener.inbound == inbound).collect();
    let captured = own.iter().find(|listener| listener.use_original_dst);
    let by_port = |listener: &&&Arc<ListenerConfig>| {
        let address = listener.address;
        let fits = address.ip().is_unspecified() || [address.ip(), SOME_ADDRESS].contains(&destination.ip());
        address.port() == destination.port() && fits
    };
    let found = match captured {
        Some(capture) => of_destination(own.iter().map(|listener| &***listener), destination)
            .and_then(|found| own.iter().find(|listener| std::ptr::eq(&****listener, found)))
            .or_else(|| own.iter().find(by_port).filter(|_| destination.ip() == SOME_ADDRESS))
            .or(Some(capture)),
        None => own.iter().find(by_port).or_else(|| own.first().filter(|_| inbound && own.len() == 1)),
    };
    let found = found.map(|listener| Arc::clone(listener));
    if let Some(listener) = &found {
        let because = match captured {
            Some(capture) if Arc::ptr_eq(capture, listener) => {
                format!("no listener is for {destination}: the one that captures the traffic serves it")
            }
            _ => format!("it is for connections to {destination}"),
        };
        story.step("listener", &*listener.name, "matched", because);
    }
    found
}

/// The filter chain, by what the first bytes of the connection say.
fn chain(
    listener: &ListenerConfig,
    question: &Question,
    destination: SocketAddr,
    story: &mut Story,
) -> Option<Arc<ChainConfig>> {
    let mesh_tls = question.side == Side::Inbound && question.identity.is_some();
    let https = question.head.scheme() == b"https";
    let applications: &[&[u8]] = match (mesh_tls, https) {
        (true, _) => &[b"istio-http/1.1", b"istio", b"http/1.1"],
        (false, true) => &[b"h2", b"http/1.1"],
        (false, false) => &[b"http/1.1"],
    };
    let hello = Hello {
        tls: mesh_tls || https,
        sni: if https && !mesh_tls { question.host.clone() } else { String::new() },
        applications: applications.iter().map(|name| name.to_vec()).collect(),
    };
    let ends = Ends { destination, source: question.from, direct_source: question.from };
    let chain = find(listener, ends, &hello)?;
    let default = listener.default_chain.as_ref().is_some_and(|default| Arc::ptr_eq(default, chain));
    let because = match (default, mesh_tls, https) {
        (true, ..) => "no other chain fits".to_owned(),
        (_, true, _) => "mutual TLS of the mesh".to_owned(),
        (_, _, true) => format!("TLS for {}", question.host),
        _ => "plaintext HTTP".to_owned(),
    };
    story.step("filter chain", if chain.name.is_empty() { "unnamed" } else { &*chain.name }, "matched", because);
    Some(Arc::clone(chain))
}

fn peer(question: &Question, destination: SocketAddr, chain: &ChainConfig) -> PeerFacts {
    let plain = PeerFacts::plain(0, question.from, destination);
    let proven = question.identity.as_ref().filter(|_| chain.tls.is_some());
    let tls = proven.map(|identity| TlsFacts {
        peer: Some(CertFacts { uri_sans: vec![identity.as_str().into()], ..CertFacts::default() }),
        ..TlsFacts::default()
    });
    PeerFacts { tls, filter_chain: chain.name.clone(), ..plain }
}

/// Policies of the connection; false where one denies.
fn connection_filters(chain: &ChainConfig, peer: &PeerFacts, story: &mut Story) -> bool {
    let subject = crate::filter::rbac::Subject { peer, head: None, metadata: None };
    for filter in chain.filters.iter() {
        match filter {
            NetworkFilter::Rbac(policies) => {
                match policies.rules.as_ref().map_or(Ok(()), |rules| rules.judge(&subject)) {
                    Ok(()) => story.step(
                        "policy",
                        "rbac of the connection",
                        "passed",
                        "no policy of the connection denies it",
                    ),
                    Err(policy) => {
                        story.step("policy", policy.to_string(), "denied", Reason::RbacDenied.why());
                        return false;
                    }
                }
            }
            NetworkFilter::ExtAuthz(_) => {
                story.step("policy", "ext_authz of the connection", "asks", "what the service says is not known here");
            }
            NetworkFilter::Stats(_) | NetworkFilter::MetadataExchange(_) => {}
        }
    }
    true
}

/// A request within the connection.
async fn request(
    world: &World,
    manager: &Arc<HcmConfig>,
    (question, peer): (&Question, &Rc<PeerFacts>),
    story: &mut Story,
) {
    let table = match &manager.routes {
        Routes::Inline(table) => Some(Arc::clone(table)),
        Routes::Rds(name) => world.tables.get(&**name).cloned(),
    };
    if let (None, Routes::Rds(name)) = (&table, &manager.routes) {
        story.step("route", &**name, "failed", "the configuration has no table of routes with this name");
    }
    let inbound = question.side == Side::Inbound;
    let settings =
        Settings::new(Arc::clone(manager), Rc::clone(&world.facts), table.clone().unwrap_or_default(), inbound);
    let mut cx = StreamCx::new(&world.facts, peer, table.unwrap_or_default(), world.facts.env.now());
    cx.inbound = inbound;
    let mut request = Request { head: question.head.clone(), body: Body::Empty };
    if let Some(response) = http::arrive(&settings, &cx, &mut request) {
        return answered(&cx, response.head.status, "the request itself is not acceptable", story);
    }
    for filter in manager.filters.iter() {
        if !passes(filter, &mut request, &cx, story).await {
            return;
        }
    }
    route(world, &request, &cx, story);
}

fn answered(cx: &StreamCx, status: u16, because: &str, story: &mut Story) {
    let info = cx.info.borrow();
    story.outcome.status = Some(status);
    story.outcome.flags = info.flags.to_string();
    story.outcome.details = info.details.as_deref().unwrap_or_default().to_owned();
    story.step("outcome", status.to_string(), "denied", because);
}

/// What depends on others or on chance is told: whether it was.
fn tells(filter: &Filter, request: &Request, cx: &StreamCx, story: &mut Story) -> bool {
    match filter {
        Filter::ExtAuthz(service) if service.asks(&request.head, cx) => {
            let because = "an authorization service decides; what it says is not known here";
            story.step("policy", service.cluster(), "asks", because);
        }
        Filter::ExtAuthz(_) => {}
        Filter::RateLimit(limit) => {
            let because = "a rate limit service counts; what it says is not known here";
            story.step("policy", limit.cluster(), "asks", because);
        }
        Filter::RateLimitQuota(quota) => {
            let because = "it denies where this proxy's share of the bucket is used up";
            story.step("policy", quota.cluster(), "may", because);
        }
        Filter::LocalRateLimit(_) => {
            story.step("policy", "local rate limit", "may", "it denies with 429 where its bucket is empty");
        }
        Filter::Fault(own) => {
            let of_route = cx.override_of::<fault::Fault>(&request.head, fault::NAME);
            if let Some(text) = of_route.as_deref().unwrap_or(own).describe(&request.head) {
                story.step("fault", "fault", "may", text);
                story.made_by(cx.route(&request.head).and_then(|route| object_of(route.origin.as_deref()?)));
            }
        }
        _ => return false,
    }
    true
}

/// One filter; false where it answers. What depends on others or on chance is told and not done.
async fn passes(filter: &Filter, request: &mut Request, cx: &StreamCx, story: &mut Story) -> bool {
    if cx.is_disabled(&request.head, filter.name()) {
        story.step("filter", filter.name(), "off", "the route switches it off");
        return true;
    }
    if tells(filter, request, cx, story) {
        return true;
    }
    let mut state = FilterState::None;
    let decision = match filter.on_request(&mut state, request, cx) {
        Step::Done(decision) => decision,
        Step::Wait(wait) => wait.await,
    };
    let denied_by = cx.info.borrow().outcome.as_ref().and_then(|outcome| outcome.detail.clone());
    match decision {
        Decision::Continue => {
            match filter {
                Filter::Rbac(rbac) if rbac.rules.is_some() => {
                    story.step("policy", "AuthorizationPolicy", "passed", rbac.why_passed(request, cx));
                }
                Filter::JwtAuthn(_) => {
                    let who = jwt_authn::principal(cx)
                        .map_or_else(|| "no token".to_owned(), |who| format!("a token of {who}"));
                    story.step("policy", "RequestAuthentication", "passed", who);
                }
                _ => {}
            }
            true
        }
        Decision::Reply(response) => {
            let name = denied_by.as_deref().unwrap_or_else(|| filter.name()).to_owned();
            let why = cx.info.borrow().outcome.as_ref().map_or("it answers by itself", |outcome| outcome.reason.why());
            story.step("policy", name, "denied", why);
            answered(cx, response.head.status, why, story);
            false
        }
    }
}
