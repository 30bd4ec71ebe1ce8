//! What is fixed about a cluster.

use crate::balancer::Policy;
use crate::endpoint::{Endpoint, Limits, Outlier, Thresholds};
use crate::tls::ClientContext;
use std::net::IpAddr;
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
    /// Firewall mark of connections (`SO_MARK`), by which rules tell the proxy's traffic from the application's.
    pub mark: Option<u32>,
    /// TCP keepalive: idle time, interval, probes.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// `istio` metadata: host, name, namespace of the first service.
    pub service: Option<Arc<[Box<str>; 3]>>,
    /// Outside the mesh, or excluded from metadata exchange (MD-4).
    pub external: bool,
    /// When endpoints that fail are left alone.
    pub outlier: Option<Outlier>,
    /// TLS sessions name the host of the request (`auto_sni`, DR-35).
    pub auto_sni: bool,
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
            mark: None,
            keepalive: None,
            service: None,
            external: false,
            outlier: None,
            auto_sni: false,
        }
    }

    /// The transport socket that an endpoint asks for.
    pub fn transport(&self, endpoint: &Endpoint) -> Option<(usize, &TransportMatch)> {
        self.transports
            .iter()
            .enumerate()
            .find(|(_, t)| t.wants.iter().all(|want| endpoint.socket_match.contains(want)))
    }
}
