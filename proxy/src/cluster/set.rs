//! Clusters of one worker.

use super::settings::{ClusterConfig, Discovery, Protocol};
use super::upstream::{Failure, InFlight, Pick, TcpUpstream, Upstream};
use crate::balancer::{Balancer, Wish};
use crate::endpoint::{Address, Endpoint, HostSet, Limit, Limits, Permit};
use crate::env::Env;
use crate::message::{Body, RequestHead, Version};
use crate::net::Io;
use crate::outcome::{Outcome, Reason};
use crate::pool::{Carries, Counted, Dial, Dialled, IdleAge, Pool, connect, h1, h2};
use crate::telemetry::Cells;
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::names::{ClusterMetric, ConnectionMetric};
use crate::tls::ClientContext;
use foldhash::{HashMap, HashMapExt};
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    address: Address,
    transport: usize,
    alpn: Option<Arc<[Vec<u8>]>>,
    server_name: Option<Arc<str>>,
}

/// One cluster on this worker.
#[derive(Debug)]
pub struct Cluster {
    /// What is fixed.
    pub config: Arc<ClusterConfig>,
    env: Rc<Env>,
    hosts: RefCell<Arc<HostSet>>,
    balancer: RefCell<Balancer>,
    pools: RefCell<HashMap<PoolKey, Rc<Pool>>>,
    dialer: Option<Dialer>,
    stats: OnceCell<Rc<EnvoyStats>>,
    requests: OnceCell<Rc<Cells<ClusterMetric>>>,
}

/// How long a request that waits for a connection sleeps before it looks at the shared limit again: another worker may
/// have given a place back.
const RECHECK: Duration = Duration::from_millis(5);

impl Cluster {
    /// A cluster over `hosts`.
    pub fn new(config: Arc<ClusterConfig>, hosts: Arc<HostSet>, env: Rc<Env>) -> Rc<Self> {
        let balancer = RefCell::new(Balancer::new(config.policy, config.panic_percent, &hosts, &env));
        let pools = RefCell::new(HashMap::new());
        Rc::new(Self {
            config,
            env,
            hosts: RefCell::new(hosts),
            balancer,
            pools,
            dialer: None,
            stats: OnceCell::new(),
            requests: OnceCell::new(),
        })
    }

    /// A cluster whose connections `dialer` makes: the seam for simulation.
    pub fn simulated(config: Arc<ClusterConfig>, hosts: Arc<HostSet>, env: Rc<Env>, dialer: Dialer) -> Rc<Self> {
        let balancer = RefCell::new(Balancer::new(config.policy, config.panic_percent, &hosts, &env));
        let pools = RefCell::new(HashMap::new());
        Rc::new(Self {
            config,
            env,
            hosts: RefCell::new(hosts),
            balancer,
            pools,
            dialer: Some(dialer),
            stats: OnceCell::new(),
            requests: OnceCell::new(),
        })
    }

    /// Counts its connections from now on.
    pub fn count(&self, stats: Rc<EnvoyStats>) {
        if self.stats.set(stats).is_err() {
            tracing::debug!(cluster = &*self.config.name, "connections are counted already");
        }
    }

    /// Where its requests are counted, found once.
    pub fn requests(&self, stats: &EnvoyStats) -> &Cells<ClusterMetric> {
        self.requests.get_or_init(|| stats.cluster(&self.config.name))
    }

    fn cells(&self) -> Rc<Cells<ConnectionMetric>> {
        match self.stats.get() {
            Some(stats) => stats.connections(&self.config.name),
            None => Rc::new(Cells::unread()),
        }
    }

    /// Replaces the endpoints. Pools of endpoints that are gone close their idle connections; busy ones end by
    /// themselves.
    pub fn set_hosts(&self, hosts: Arc<HostSet>, now_ms: u64) {
        self.balancer.borrow_mut().refresh(&hosts, now_ms);
        let stays = |key: &PoolKey| hosts.iter().any(|host| host.address == key.address);
        if self.config.discovery == Discovery::Given {
            self.pools.borrow_mut().retain(|key, pool| {
                let stays = stays(key);
                if !stays {
                    pool.close();
                }
                stays
            });
        }
        *self.hosts.borrow_mut() = hosts;
    }

    /// Looks again at ejections and closes idle connections that are too old.
    pub fn sweep(&self, now_ms: u64) {
        if let Some(outlier) = &self.config.outlier {
            outlier.sweep(&self.hosts.borrow(), now_ms);
        }
        self.balancer.borrow_mut().refresh(&self.hosts.borrow(), now_ms);
        let now = self.env.now();
        let mut pools = self.pools.borrow_mut();
        pools.values().for_each(|pool| pool.sweep(now));
        if self.config.discovery == Discovery::OriginalDst || self.config.auto_sni {
            pools.retain(|_, pool| pool.idle_count() > 0 || Rc::strong_count(pool) > 1);
        }
    }

    /// Takes notice of an ejection.
    pub fn refresh(&self, now_ms: u64) {
        self.balancer.borrow_mut().refresh(&self.hosts.borrow(), now_ms);
    }

    /// The version of HTTP that a request of `downstream` goes out with, as far as it is known before connecting.
    pub fn speaks(&self, downstream: Version) -> Version {
        match self.config.protocol {
            Protocol::H1 => Version::H11,
            Protocol::H2 | Protocol::Auto => Version::H2,
            Protocol::Downstream => downstream,
        }
    }

    /// The endpoints.
    pub fn hosts(&self) -> Arc<HostSet> {
        Arc::clone(&self.hosts.borrow())
    }

    /// The next endpoint. `dialled` is the client's original destination.
    ///
    /// # Errors
    /// [`Reason::NoHealthyUpstream`].
    pub fn pick(&self, wish: Wish<'_>, dialled: Option<SocketAddr>) -> Result<Arc<Endpoint>, Outcome> {
        if self.config.discovery == Discovery::OriginalDst {
            let address = dialled.ok_or(Reason::NoHealthyUpstream)?;
            return Ok(Arc::new(Endpoint::at(Address::Ip(address))));
        }
        self.balancer.borrow_mut().pick(&self.env, wish).ok_or_else(|| Reason::NoHealthyUpstream.into())
    }

    fn pool(
        &self,
        pick: Pick<'_>,
        server_name: Option<Arc<str>>,
    ) -> Result<(Rc<Pool>, Option<Arc<ClientContext>>), Outcome> {
        let (transport, socket) = self
            .config
            .transport(pick.endpoint)
            .ok_or_else(|| Outcome::with_detail(Reason::ConnectFailure, "no transport socket fits the endpoint"))?;
        let alpn = pick.alpn.cloned();
        let key = PoolKey { address: pick.endpoint.address.clone(), transport, alpn, server_name: server_name.clone() };
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(key).or_insert_with(|| {
            let age = IdleAge::new(self.config.idle_timeout, self.config.assumed_idle);
            Pool::new(Arc::clone(pick.endpoint), server_name, self.config.max_requests_per_connection, age)
        });
        Ok((Rc::clone(pool), socket.tls.clone()))
    }

    /// Opens an exchange: permit, pool or connect. Cancel-safe: what was taken is given back.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub async fn open(&self, head: &RequestHead, body: Body, pick: Pick<'_>) -> Result<Upstream, Failure> {
        let limits = &self.config.limits[usize::from(pick.high_priority)];
        let request_permit = match limits.take(Limit::Requests) {
            Ok(permit) => permit,
            Err(outcome) => return Err(Failure::before_sending(outcome)),
        };
        let server_name = self.config.auto_sni.then(|| host(head.authority()).into());
        let (pool, tls) = match self.pool(pick, server_name) {
            Ok(found) => found,
            Err(outcome) => return Err(Failure::before_sending(outcome)),
        };
        let wanted = self.protocol(head.version);
        let conn = match self.connection(&pool, limits, tls, pick, wanted).await {
            Ok(conn) => conn,
            Err(outcome) => return Err(Failure::before_sending(outcome)),
        };
        let flight = InFlight::new(pick.endpoint, request_permit);
        Ok(match conn {
            Conn::H1(conn) => Upstream::h1(h1::Exchange::new(conn, pool, head, body, self.env.now()), flight),
            Conn::H2(shared) => Upstream::h2(h2::Exchange::new(shared, head, body), flight),
        })
    }

    /// The protocol for a request that came in `version`.
    fn protocol(&self, version: Version) -> Protocol {
        match self.config.protocol {
            Protocol::Downstream if version == Version::H2 => Protocol::H2,
            Protocol::Downstream => Protocol::H1,
            protocol => protocol,
        }
    }

    /// The version that a request which came in `version` will be sent in, as far as that is known before connecting.
    pub fn upstream_version(&self, version: Version) -> Version {
        if self.protocol(version) == Protocol::H2 { Version::H2 } else { Version::H11 }
    }

    /// A connection that can take a request now: a kept one, a new one, or one that comes free.
    #[expect(clippy::too_many_arguments, reason = "what one pick decided, borrowed")]
    async fn connection(
        &self,
        pool: &Rc<Pool>,
        limits: &Arc<Limits>,
        tls: Option<Arc<ClientContext>>,
        pick: Pick<'_>,
        wanted: Protocol,
    ) -> Result<Conn, Outcome> {
        if let Some(conn) = self.kept(pool, pick, wanted) {
            return Ok(conn);
        }
        let _pending = limits.take(Limit::Pending)?;
        let mut overflow = false;
        loop {
            // Connects are single-flight where one connection will carry many requests.
            let alone = wanted == Protocol::H1 || !pool.connecting.get();
            if alone {
                if let Ok(permit) = limits.take(Limit::Connections) {
                    let _connecting = (wanted != Protocol::H1).then(|| Connecting::start(pool));
                    return self.connect(pool, tls, pick, wanted, permit).await;
                }
                if !overflow {
                    self.cells().increment(ConnectionMetric::UpstreamCxOverflow);
                    overflow = true;
                }
            }
            if let Err(_elapsed) = tokio::time::timeout(RECHECK, pool.freed.notified()).await {
                // Another worker may have given its place back.
            }
            if let Some(conn) = self.kept(pool, pick, wanted) {
                return Ok(conn);
            }
        }
    }

    fn kept(&self, pool: &Pool, pick: Pick<'_>, wanted: Protocol) -> Option<Conn> {
        if wanted != Protocol::H1
            && let Some(shared) = pool.shared()
        {
            return Some(Conn::H2(shared));
        }
        if wanted == Protocol::H2 || pick.fresh {
            return None;
        }
        pool.checkout(self.env.now()).map(Conn::H1)
    }

    #[expect(clippy::too_many_arguments, reason = "what one pick decided, borrowed")]
    async fn connect(
        &self,
        pool: &Rc<Pool>,
        tls: Option<Arc<ClientContext>>,
        pick: Pick<'_>,
        wanted: Protocol,
        permit: Permit,
    ) -> Result<Conn, Outcome> {
        let dialled = match &self.dialer {
            Some(Dialer(dialer)) => {
                let refused =
                    || Outcome::with_detail(Reason::ConnectFailure, "delayed connect error: Connection refused");
                let io = dialer(&pool.endpoint.address).ok_or_else(refused)?;
                Dialled { io, local: None, peer_id: None, took: Duration::ZERO }
            }
            None => {
                let dial = Dial { server_name: pool.server_name.clone(), ..self.dial(tls, pick) };
                Box::pin(self.dialled(&pool.endpoint.address, dial)).await?
            }
        };
        let now = self.env.now();
        let alpn_h2 = dialled.io.alpn().is_some_and(|alpn| alpn == b"h2");
        let facts = (dialled.local, dialled.peer_id);
        if wanted == Protocol::H2 || (wanted == Protocol::Auto && alpn_h2) {
            let held = (permit, Counted::opened(self.cells(), Carries::H2, dialled.took));
            let shared = h2::Shared::start(dialled.io, facts, held, now);
            pool.share(Rc::clone(&shared));
            return Ok(Conn::H2(shared));
        }
        let held = (permit, Counted::opened(self.cells(), Carries::H1, dialled.took));
        Ok(Conn::H1(h1::Conn::new(dialled.io, facts, held, now)))
    }

    /// Dials, and counts what comes of it.
    async fn dialled(&self, address: &Address, dial: Dial) -> Result<Dialled, Outcome> {
        let dialled = connect(address, &dial).await;
        if let Err(Outcome { reason: Reason::ConnectTimeout, .. }) = &dialled {
            self.cells().increment(ConnectionMetric::UpstreamCxConnectTimeout);
        }
        if dial.tls.is_some() {
            let failed =
                |outcome: &Outcome| outcome.detail.as_deref().is_some_and(|text| text.starts_with("TLS error"));
            match &dialled {
                Ok(_) => self.cells().increment(ConnectionMetric::SslHandshake),
                Err(outcome) if failed(outcome) => self.cells().increment(ConnectionMetric::SslConnectionError),
                Err(_) => {}
            }
        }
        dialled
    }

    fn dial(&self, tls: Option<Arc<ClientContext>>, pick: Pick<'_>) -> Dial {
        Dial {
            timeout: self.config.connect_timeout,
            source: self.config.source.clone(),
            mark: self.config.mark,
            keepalive: self.config.keepalive,
            tls,
            alpn: pick.alpn.cloned(),
            server_name: None,
        }
    }

    /// Opens a connection of its own for bytes both ways. Cancel-safe.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open_tcp(&self, pick: Pick<'_>) -> Result<TcpUpstream, Outcome> {
        let limits = &self.config.limits[usize::from(pick.high_priority)];
        let permit = limits.take(Limit::Connections).inspect_err(|_| {
            self.cells().increment(ConnectionMetric::UpstreamCxOverflow);
        })?;
        let (_, socket) = self
            .config
            .transport(pick.endpoint)
            .ok_or_else(|| Outcome::with_detail(Reason::ConnectFailure, "no transport socket fits the endpoint"))?;
        let dial = self.dial(socket.tls.clone(), pick);
        let dialled = Box::pin(self.dialled(&pick.endpoint.address, dial)).await?;
        let counted = Counted::opened(self.cells(), Carries::Tcp, dialled.took);
        let held = (InFlight::new(pick.endpoint, permit), counted);
        Ok(TcpUpstream { io: dialled.io, local: dialled.local, _held: held })
    }
}

/// The host of an authority, without its port.
fn host(authority: &[u8]) -> Cow<'_, str> {
    let end = match authority.first() {
        Some(b'[') => authority.iter().position(|byte| *byte == b']'),
        _ => authority.iter().position(|byte| *byte == b':'),
    };
    let host = authority.get(..end.unwrap_or(authority.len())).unwrap_or(authority);
    String::from_utf8_lossy(host.strip_prefix(b"[").unwrap_or(host))
}

/// A connection that can take a request.
enum Conn {
    H1(Box<h1::Conn>),
    H2(Rc<h2::Shared>),
}

/// Says that a shared connection is being opened, until it is or has failed.
struct Connecting<'a>(&'a Pool);

impl<'a> Connecting<'a> {
    fn start(pool: &'a Pool) -> Self {
        pool.connecting.set(true);
        Self(pool)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.freed.notify_waiters();
    }
}

/// Makes connections in simulation; `None` refuses.
#[derive(Clone)]
pub struct Dialer(pub Rc<Opens>);

/// Opens a connection to an address.
type Opens = dyn Fn(&Address) -> Option<Io>;

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

/// All clusters of one worker.
#[derive(Debug, Default)]
pub struct ClusterSet {
    clusters: RefCell<HashMap<Arc<str>, Rc<Cluster>>>,
    /// The one that was found last: requests follow each other to the same, and a name is compared sooner than hashed.
    last: RefCell<Option<Rc<Cluster>>>,
    /// Wakes requests that wait for a cluster.
    arrived: Notify,
}

impl ClusterSet {
    /// Waits until a cluster of this name is there. Cancel-safe.
    pub async fn arrival(&self, name: &str) -> Rc<Cluster> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(cluster) = self.get(name) {
                return cluster;
            }
            arrived.await;
        }
    }

    /// The cluster of this name.
    pub fn get(&self, name: &str) -> Option<Rc<Cluster>> {
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|cluster| *cluster.config.name != *name) {
            *last = Some(Rc::clone(self.clusters.borrow().get(name)?));
        }
        last.clone()
    }

    /// Adds or replaces a cluster. Streams that use the old one keep it (7.2).
    pub fn insert(&self, cluster: Rc<Cluster>) {
        self.last.take();
        self.clusters.borrow_mut().insert(Arc::clone(&cluster.config.name), cluster);
        self.arrived.notify_waiters();
    }

    /// Removes a cluster.
    pub fn remove(&self, name: &str) {
        self.last.take();
        self.clusters.borrow_mut().remove(name);
    }

    /// All clusters, in no order.
    pub fn all(&self) -> Vec<Rc<Cluster>> {
        self.clusters.borrow().values().cloned().collect()
    }
}
