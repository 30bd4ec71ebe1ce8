//! Clusters of one worker.

use super::upstream::{Failure, InFlight, Pick, TcpUpstream, Upstream};
use crate::balancer::{Balancer, Policy, Wish};
use crate::endpoint::{Address, Endpoint, HostSet, Limit, Limits, Permit, Thresholds};
use crate::env::Env;
use crate::message::{Body, RequestHead};
use crate::outcome::{Outcome, Reason};
use crate::pool::{Dial, IdleAge, Pool, connect, h1};
use crate::tls::ClientContext;
use foldhash::{HashMap, HashMapExt};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How a cluster's endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// Endpoints are given from outside (static, EDS, DNS).
    Given,
    /// The endpoint is the address that the client dialled.
    OriginalDst,
}

/// HTTP version towards the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    H1,
    /// HTTP/2
    H2,
    /// What ALPN negotiates.
    Auto,
    /// What the client used (DR-30).
    Downstream,
}

/// A transport socket and the endpoint metadata that asks for it (MT-7); the first that fits is used.
#[derive(Debug, Clone)]
pub struct TransportMatch {
    /// Name, such as `tlsMode-istio`.
    pub name: Box<str>,
    /// Pairs that the endpoint's metadata must hold; empty fits all.
    pub wants: Box<[(Box<str>, Box<str>)]>,
    /// TLS; none is plaintext.
    pub tls: Option<Arc<ClientContext>>,
}

/// What is fixed about a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Name, such as `outbound|80||a.b.svc.cluster.local`.
    pub name: Arc<str>,
    /// How endpoints are found.
    pub discovery: Discovery,
    /// Balancing policy.
    pub policy: Policy,
    /// Panic threshold in percent (LB-7).
    pub panic_percent: u32,
    /// Bound of one connect (DR-22).
    pub connect_timeout: Duration,
    /// Idle bound of upstream connections (DR-28).
    pub idle_timeout: Duration,
    /// Idle bound that is assumed of a peer of which nothing is known (D3).
    pub assumed_idle: Duration,
    /// Requests per connection; 0: no limit (DR-26).
    pub max_requests_per_connection: u32,
    /// Breakers of default and high priority.
    pub limits: [Arc<Limits>; 2],
    /// HTTP version.
    pub protocol: Protocol,
    /// Transport sockets, most specific first; the last is the default.
    pub transports: Vec<TransportMatch>,
    /// Source addresses to bind.
    pub source: Box<[IpAddr]>,
    /// TCP keepalive: idle time, interval, probes.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// `istio` metadata: host, name, namespace of the first service.
    pub service: Option<Arc<[Box<str>; 3]>>,
}

impl ClusterConfig {
    /// A plaintext HTTP/1 cluster with Envoy's defaults.
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.into(),
            discovery: Discovery::Given,
            policy: Policy::RoundRobin,
            panic_percent: 50,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(3600),
            assumed_idle: Duration::from_secs(3600),
            max_requests_per_connection: 0,
            limits: [Limits::new(Thresholds::default()), Limits::new(Thresholds::default())],
            protocol: Protocol::H1,
            transports: vec![TransportMatch { name: "".into(), wants: Box::default(), tls: None }],
            source: Box::default(),
            keepalive: None,
            service: None,
        }
    }

    /// The transport socket that an endpoint asks for.
    fn transport(&self, endpoint: &Endpoint) -> Option<(usize, &TransportMatch)> {
        self.transports
            .iter()
            .enumerate()
            .find(|(_, t)| t.wants.iter().all(|want| endpoint.socket_match.contains(want)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    address: Address,
    transport: usize,
    alpn: Option<Arc<[Vec<u8>]>>,
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
}

/// How long a request that waits for a connection sleeps before it looks at the shared limit again: another worker may
/// have given a place back.
const RECHECK: Duration = Duration::from_millis(5);

impl Cluster {
    /// A cluster over `hosts`.
    pub fn new(config: Arc<ClusterConfig>, hosts: Arc<HostSet>, env: Rc<Env>) -> Rc<Self> {
        let balancer = RefCell::new(Balancer::new(config.policy, config.panic_percent, &hosts, &env));
        Rc::new(Self { config, env, hosts: RefCell::new(hosts), balancer, pools: RefCell::new(HashMap::new()) })
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
        self.balancer.borrow_mut().refresh(&self.hosts.borrow(), now_ms);
        let now = self.env.now();
        let mut pools = self.pools.borrow_mut();
        pools.values().for_each(|pool| pool.sweep(now));
        if self.config.discovery == Discovery::OriginalDst {
            pools.retain(|_, pool| pool.idle_count() > 0 || Rc::strong_count(pool) > 1);
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

    fn pool(&self, pick: &Pick) -> Result<(Rc<Pool>, Option<Arc<ClientContext>>), Outcome> {
        let (transport, socket) = self
            .config
            .transport(&pick.endpoint)
            .ok_or_else(|| Outcome::with_detail(Reason::ConnectFailure, "no transport socket fits the endpoint"))?;
        let key = PoolKey { address: pick.endpoint.address.clone(), transport, alpn: pick.alpn.clone() };
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(key).or_insert_with(|| {
            let age = IdleAge::new(self.config.idle_timeout, self.config.assumed_idle);
            Pool::new(Arc::clone(&pick.endpoint), self.config.max_requests_per_connection, age)
        });
        Ok((Rc::clone(pool), socket.tls.clone()))
    }

    /// Opens an exchange: permit, pool or connect. Cancel-safe: what was taken is given back.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub async fn open(&self, head: &RequestHead, body: Body, pick: &Pick) -> Result<Upstream, Failure> {
        let limits = &self.config.limits[usize::from(pick.high_priority)];
        let request_permit = match limits.take(Limit::Requests) {
            Ok(permit) => permit,
            Err(outcome) => return Err(Failure::before_sending(outcome)),
        };
        let (pool, tls) = match self.pool(pick) {
            Ok(found) => found,
            Err(outcome) => return Err(Failure::before_sending(outcome)),
        };
        let conn = match pool.checkout(self.env.now()) {
            Some(conn) if !pick.fresh => conn,
            _ => match self.connection(&pool, limits, tls, pick).await {
                Ok(conn) => conn,
                Err(outcome) => return Err(Failure::before_sending(outcome)),
            },
        };
        let flight = InFlight::new(&pick.endpoint, request_permit);
        Ok(Upstream::h1(h1::Exchange::new(conn, pool, head, body, self.env.now()), flight))
    }

    /// A new connection, or one that comes free while the limit forbids a new one.
    async fn connection(
        &self,
        pool: &Rc<Pool>,
        limits: &Arc<Limits>,
        tls: Option<Arc<ClientContext>>,
        pick: &Pick,
    ) -> Result<Box<h1::Conn>, Outcome> {
        let _pending = limits.take(Limit::Pending)?;
        let permit: Permit = loop {
            if let Ok(permit) = limits.take(Limit::Connections) {
                break permit;
            }
            if let Some(conn) = pool.checkout(self.env.now()) {
                return Ok(conn);
            }
            if let Err(_elapsed) = tokio::time::timeout(RECHECK, pool.freed.notified()).await {
                // Another worker may have given its place back.
            }
        };
        let dialled = Box::pin(connect(&pool.endpoint.address, &self.dial(tls, pick))).await?;
        Ok(h1::Conn::new(dialled.io, dialled.local, Some(permit), self.env.now()))
    }

    fn dial(&self, tls: Option<Arc<ClientContext>>, pick: &Pick) -> Dial {
        Dial {
            timeout: self.config.connect_timeout,
            source: self.config.source.clone(),
            keepalive: self.config.keepalive,
            tls,
            alpn: pick.alpn.clone(),
        }
    }

    /// Opens a connection of its own for bytes both ways. Cancel-safe.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open_tcp(&self, pick: &Pick) -> Result<TcpUpstream, Outcome> {
        let limits = &self.config.limits[usize::from(pick.high_priority)];
        let permit = limits.take(Limit::Connections)?;
        let (_, socket) = self
            .config
            .transport(&pick.endpoint)
            .ok_or_else(|| Outcome::with_detail(Reason::ConnectFailure, "no transport socket fits the endpoint"))?;
        let dial = self.dial(socket.tls.clone(), pick);
        let dialled = Box::pin(connect(&pick.endpoint.address, &dial)).await?;
        Ok(TcpUpstream { io: dialled.io, local: dialled.local, _flight: InFlight::new(&pick.endpoint, permit) })
    }

    /// Puts a connection into the pool of an endpoint as if it had served before: how simulations bring their own.
    pub fn adopt(&self, endpoint: &Arc<Endpoint>, io: crate::net::Io) -> Result<(), Outcome> {
        let pick = Pick::new(Arc::clone(endpoint));
        let (pool, _) = self.pool(&pick)?;
        let permit = self.config.limits[0].take(Limit::Connections)?;
        pool.give_back(h1::Conn::new(io, None, Some(permit), self.env.now()), self.env.now());
        Ok(())
    }
}

/// All clusters of one worker.
#[derive(Debug, Default)]
pub struct ClusterSet {
    clusters: RefCell<HashMap<Arc<str>, Rc<Cluster>>>,
}

impl ClusterSet {
    /// The cluster of this name.
    pub fn get(&self, name: &str) -> Option<Rc<Cluster>> {
        self.clusters.borrow().get(name).cloned()
    }

    /// Adds or replaces a cluster. Streams that use the old one keep it (7.2).
    pub fn insert(&self, cluster: Rc<Cluster>) {
        self.clusters.borrow_mut().insert(Arc::clone(&cluster.config.name), cluster);
    }

    /// Removes a cluster.
    pub fn remove(&self, name: &str) {
        self.clusters.borrow_mut().remove(name);
    }

    /// All clusters, in no order.
    pub fn all(&self) -> Vec<Rc<Cluster>> {
        self.clusters.borrow().values().cloned().collect()
    }
}
