//! Accepting connections, and taking each to its filter chain.

use super::chain_match::{Ends, Hello, find};
use super::config::{ChainConfig, ListenerConfig, Terminal};
use super::inspect::{Found, inspect};
use super::original_dst;
use super::peers::Peers;
use crate::drain::{Drain, Stage};
use crate::filter::Facts;
use crate::filter::rbac::Subject;
use crate::http::{Settings, serve};
use crate::message::Metadata;
use crate::net::{Io, PeerFacts};
use crate::outcome::Flags;
use crate::tcp::config::NetworkFilter;
use crate::tcp::serve_tcp;
use crate::telemetry::Cells;
use crate::telemetry::access_log::{Entry, LogFacts, Times};
use crate::telemetry::istio::Reporter;
use crate::telemetry::names::{ListenerMetric, ServerMetric};
use bytes::BytesMut;
use identity::verify::VerifyError;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// A chain on this worker.
#[derive(Debug)]
pub struct Chain {
    /// What is configured.
    pub config: Arc<ChainConfig>,
    /// Its listener takes traffic of the workload's clients.
    pub inbound: bool,
    /// HTTP settings, where the chain ends in HTTP.
    pub http: Option<Rc<Settings>>,
    /// Its connections, and whether they are to leave.
    pub drain: Rc<Drain>,
    /// Those of its connections that proved who they are.
    pub peers: Rc<Peers>,
}

impl Chain {
    /// Ends connections whose peer is revoked by now (robustness C6).
    pub fn sweep(&self) {
        let Some((context, _)) = &self.config.tls else { return };
        let lists = context.ready.load().as_ref().and_then(|ready| ready.revoked.clone());
        let ended = self.peers.sweep(lists.as_ref());
        if ended > 0 {
            tracing::info!(chain = &*self.config.name, ended, "connections of revoked peers end");
        }
    }
}

/// A listener on this worker; replaced as a whole when its configuration changes. Connections pin theirs (D6).
#[derive(Debug)]
pub struct Listener {
    /// What is configured.
    pub config: Arc<ListenerConfig>,
    /// Its chains in the order of the configuration, the default chain last.
    pub chains: Vec<Rc<Chain>>,
    /// Its statistics on this worker.
    pub stats: Rc<Cells<ListenerMetric>>,
    /// Connections that no chain has taken yet.
    pub drain: Rc<Drain>,
}

impl Listener {
    /// Its own drain and those of its chains.
    pub fn drains(&self) -> impl Iterator<Item = Rc<Drain>> {
        std::iter::once(&self.drain).chain(self.chains.iter().map(|chain| &chain.drain)).cloned()
    }
}

/// How many downstream connections there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Taken so far.
    pub taken: u64,
    /// Taken so far by listeners for traffic to the workload.
    pub inbound: u64,
}

impl std::ops::Add for Connections {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { open: self.open + other.open, taken: self.taken + other.taken, inbound: self.inbound + other.inbound }
    }
}

/// What accept loops of one worker share.
#[derive(Debug)]
pub struct Serve {
    /// Clock and clusters.
    pub facts: Rc<Facts>,
    /// Listeners by name.
    pub listeners: RefCell<HashMap<Arc<str>, Rc<Listener>>>,
    /// Connections of this worker.
    pub connections: Cell<Connections>,
    /// Number of the next connection; workers start far apart.
    pub next_id: Cell<u64>,
}

impl Serve {
    /// The listener for an original destination: exact address, then any address with the port (OD-1).
    fn for_destination(&self, destination: SocketAddr) -> Option<Rc<Listener>> {
        let listeners = self.listeners.borrow();
        let found = of_destination(listeners.values().map(|listener| &*listener.config), destination)?;
        listeners.get(&found.name).cloned()
    }
}

/// The listener for an original destination: exact address, then any address with the port (OD-1).
pub fn of_destination<'a>(
    listeners: impl Iterator<Item = &'a ListenerConfig> + Clone,
    destination: SocketAddr,
) -> Option<&'a ListenerConfig> {
    let at = |address: SocketAddr| {
        let fits = |config: &&ListenerConfig| {
            !config.bind_to_port && (config.address == address || config.more_addresses.contains(&address))
        };
        listeners.clone().find(fits)
    };
    let any: IpAddr = match destination {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    at(destination).or_else(|| at(SocketAddr::new(any, destination.port())))
}

/// How long a client may be silent where it is the one that speaks first.
const SILENT_CLIENT: Duration = Duration::from_secs(60);

/// Pause after an accept that failed for want of descriptors or memory (F17).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on one socket for the listener `name` until it is dropped.
pub async fn accept_loop(serve: Rc<Serve>, name: Arc<str>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((stream, remote)) => {
                let Some(listener) = serve.listeners.borrow().get(&name).cloned() else { return };
                tokio::task::spawn_local(counted(Rc::clone(&serve), listener, stream, remote));
            }
            Err(error) => {
                tracing::warn!(listener = &*name, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn counted(serve: Rc<Serve>, listener: Rc<Listener>, stream: TcpStream, remote: SocketAddr) {
    let one = Connections { open: 1, taken: 1, inbound: u64::from(listener.config.inbound) };
    serve.connections.update(|all| all + one);
    let stats = Rc::clone(&listener.stats);
    stats.increment(ListenerMetric::DownstreamCxTotal);
    let _active = stats.hold(ListenerMetric::DownstreamCxActive);
    let _open = serve.facts.stats.server().hold(ServerMetric::TotalConnections);
    Box::pin(connection(&serve, listener, stream, remote)).await;
    stats.increment(ListenerMetric::DownstreamCxDestroy);
    serve.connections.update(|all| Connections { open: all.open - 1, ..all });
}

async fn connection(serve: &Serve, mut listener: Rc<Listener>, mut stream: TcpStream, remote: SocketAddr) {
    let Ok(mut local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut redirected = false;
    if listener.config.inspectors.original_dst || listener.config.use_original_dst {
        if let Some(original) = original_dst::of(&stream) {
            redirected = original != local;
            local = original;
        }
        if listener.config.use_original_dst
            && let Some(other) = serve.for_destination(local)
        {
            listener = other;
        }
    }
    let id = serve.next_id.replace(serve.next_id.get() + 1);
    let mut peer = PeerFacts::plain(id, remote, local);
    let mut prefix = BytesMut::new();
    let mut found = Found::default();
    let dialled = Ends { destination: local, source: remote, direct_source: remote };
    let inspecting = inspected(&listener, dialled, &mut stream, &mut prefix, &mut found);
    let Some(true) = listener.drain.join(&serve.facts.env).until(Stage::Released, inspecting).await else { return };
    if let Some((source, destination)) = found.proxied {
        (peer.remote, peer.local) = (source, destination);
    }
    let ends = Ends { destination: peer.local, source: peer.remote, direct_source: peer.direct_remote };
    let Some(config) = find(&listener.config, ends, &found.hello) else {
        tracing::debug!(listener = &*listener.config.name, %remote, %local, redirected, "no filter chain matches");
        listener.stats.increment(ListenerMetric::NoFilterChainMatch);
        peer.sni = found.hello.sni.as_str().into();
        log_unmatched(serve, &listener.config, &peer);
        return;
    };
    let Some(chain) = listener.chains.iter().find(|chain| Arc::ptr_eq(&chain.config, config)).cloned() else { return };
    peer.filter_chain = chain.config.name.clone();
    peer.sni = found.hello.sni.as_str().into();
    let io = match &chain.config.tls {
        None => Io::Tcp(stream, prefix),
        Some((context, _)) => {
            let handshake = Box::pin(context.accept(stream, prefix, &found.hello.applications, &mut peer));
            match tokio::time::timeout(chain.config.handshake_timeout, handshake).await {
                Ok(Ok(io)) => {
                    listener.stats.increment(ListenerMetric::SslHandshake);
                    io
                }
                Ok(Err(error)) => {
                    tracing::debug!(listener = &*listener.config.name, %remote, %error, "TLS handshake failed");
                    listener.stats.increment(handshake_failure(&error));
                    return;
                }
                Err(_) => return listener.stats.increment(ListenerMetric::SslTimeout),
            }
        }
    };
    let peer = Rc::new(peer);
    let proven = peer.tls.as_ref().is_some_and(|tls| tls.peer.is_some()).then(|| chain.peers.join(&peer));
    let serving = Box::pin(hand_over(serve, &chain, io, peer, &found));
    match proven {
        None => serving.await,
        Some(place) => tokio::select! {
            biased;
            () = serving => {}
            () = place.revoked() => {}
        },
    }
}

/// How long the inspectors may take. Their time is there for servers that speak first, and no server of HTTP or TLS does:
/// where a silent client is none of theirs, what it will say decides, however late (a busy machine, a connection that is
/// opened in advance).
fn inspection_limit(config: &ListenerConfig, ends: Ends) -> Option<Duration> {
    let limit = config.inspect_timeout?;
    let client_first = || match find(config, ends, &Hello::default()) {
        None => true,
        Some(chain) => chain.tls.is_some() || matches!(chain.terminal, Terminal::Http(_)),
    };
    Some(if config.continue_on_timeout && client_first() { limit.max(SILENT_CLIENT) } else { limit })
}

/// Runs the inspectors within their time; false where the connection is to be closed.
async fn inspected(
    listener: &Listener,
    ends: Ends,
    stream: &mut TcpStream,
    prefix: &mut BytesMut,
    found: &mut Found,
) -> bool {
    let config = &listener.config;
    let inspecting = inspect(stream, config.inspectors_at(ends.destination.port()), prefix, found);
    let done = match inspection_limit(config, ends) {
        None => inspecting.await,
        Some(limit) => match tokio::time::timeout(limit, inspecting).await {
            Ok(done) => done,
            Err(_) => {
                listener.stats.increment(ListenerMetric::DownstreamPreCxTimeout);
                return config.continue_on_timeout;
            }
        },
    };
    match done {
        Ok(()) => true,
        // A client that closes its half at once may still want to read what the server says.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => !prefix.is_empty(),
        Err(error) => {
            tracing::debug!(listener = &*config.name, %error, "inspection ended the connection");
            false
        }
    }
}

async fn hand_over(serve: &Serve, chain: &Chain, io: Io, peer: Rc<PeerFacts>, found: &Found) {
    let subject = Subject { peer: &peer, head: None, metadata: None };
    let mut left = Metadata::new();
    for filter in chain.config.filters.iter() {
        let denied = match filter {
            NetworkFilter::Rbac(policies) => {
                if let Some(shadow) = &policies.shadow {
                    left.insert("envoy.filters.network.rbac".into(), shadow.verdict(&subject).into());
                }
                policies.rules.as_ref().and_then(|rules| rules.judge(&subject).err()).map(|policy| policy.to_string())
            }
            NetworkFilter::ExtAuthz(service) => {
                let allowed = Box::pin(service.allows(&peer, &left, &serve.facts)).await;
                (!allowed).then(|| "ext_authz".to_owned())
            }
            NetworkFilter::Stats(_) | NetworkFilter::MetadataExchange(_) => None,
        };
        if let Some(by) = denied {
            tracing::debug!(remote = %peer.remote, by, "connection denied");
            return;
        }
    }
    match (&chain.config.terminal, &chain.http) {
        (Terminal::Http(config), Some(settings)) => {
            let h2 = found.hello.applications.iter().any(|a| a == b"h2c");
            Box::pin(serve::serve_http(io, settings, Arc::clone(&config.filters), peer, h2)).await;
        }
        (Terminal::Tcp(config), _) => {
            let side = if chain.inbound { Reporter::Destination } else { Reporter::Source };
            let counts = chain.config.filters.iter().find_map(|filter| match filter {
                NetworkFilter::Stats(stats) => Some((side, stats)),
                _ => None,
            });
            let stay = chain.drain.join(&serve.facts.env);
            serve_tcp((io, stay), config, &serve.facts, &peer, counts).await;
        }
        (Terminal::Http(_), None) => {}
    }
}

/// Where a TLS handshake that failed is counted.
fn handshake_failure(error: &std::io::Error) -> ListenerMetric {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => ListenerMetric::SslFailVerifyNoCert,
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<VerifyError>() {
                Some(VerifyError::WrongName { .. }) => ListenerMetric::SslFailVerifySan,
                _ => ListenerMetric::SslFailVerifyError,
            }
        }
        Some(Error::InvalidCertificate(_)) => ListenerMetric::SslFailVerifyError,
        _ => ListenerMetric::SslConnectionError,
    }
}

/// Logs a connection that no chain takes: the listener's own access log is for those alone (AL-3).
fn log_unmatched(serve: &Serve, config: &ListenerConfig, peer: &PeerFacts) {
    let env = &serve.facts.env;
    let facts = LogFacts {
        flags: Flags::NR,
        start: Some(env.wall(env.now())),
        times: Times { total: Some(Duration::ZERO), ..Times::default() },
        peer: Some(peer),
        entry: Entry::TcpConnectionEnd,
        ..LogFacts::default()
    };
    for log in &config.access_log {
        log.log(&facts, env.below(u64::MAX), &serve.facts.logs);
    }
}
