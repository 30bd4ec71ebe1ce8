//! Endpoints and their order of preference.

use super::config::Known;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Where an endpoint is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP and port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Health of an endpoint as the control plane states it (LB-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// May be used.
    #[default]
    Healthy,
    /// Used only where no healthy one is left.
    Degraded,
    /// Not used, open connections go on.
    Draining,
    /// Not used.
    Unhealthy,
}

/// Region, zone and sub-zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Locality {
    /// Region.
    pub region: Box<str>,
    /// Zone.
    pub zone: Box<str>,
    /// Sub-zone.
    pub sub_zone: Box<str>,
}

/// What all workers share of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointShared {
    /// Requests (TCP: connections) in flight; written by each worker as it sends and finishes.
    pub active: AtomicU32,
    /// 5xx answers and failures in a row; written by workers with each answer.
    pub failures: AtomicU32,
    /// Gateway failures in a row; written by workers with each answer.
    pub gateway_failures: AtomicU32,
    /// Failures to get an answer in a row, where those count on their own; written by workers.
    pub local_failures: AtomicU32,
    /// Answers of this interval; written by workers with each answer.
    pub answers: AtomicU32,
    /// Those below 500.
    pub good_answers: AtomicU32,
    /// How often it was ejected; written by the worker that ejects.
    pub ejections: AtomicU32,
    /// Milliseconds of the process clock until which the endpoint is ejected; written by the outlier detector.
    pub ejected_until: AtomicU64,
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Address to dial.
    pub address: Address,
    /// The address as logs show it.
    pub text: Box<str>,
    /// Host name, where discovery gave one (`auto_host_rewrite`, logical DNS).
    pub hostname: Option<Box<str>>,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Stated health.
    pub health: Health,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// `envoy.transport_socket_match` metadata, sorted: which transport socket it wants (MT-7).
    pub socket_match: Box<[(Box<str>, Box<str>)]>,
    /// `istio.workload` metadata: `workload;namespace;canonical name;canonical revision;cluster` (MD-5).
    pub workload: Option<Box<str>>,
    /// What all workers share; survives updates of the endpoint's other fields.
    pub shared: Arc<EndpointShared>,
}

impl Endpoint {
    /// An endpoint with weight 1 and no metadata.
    pub fn at(address: Address) -> Self {
        Self {
            text: address.to_string().into(),
            address,
            hostname: None,
            weight: 1,
            health: Health::Healthy,
            locality: Arc::default(),
            socket_match: Box::default(),
            workload: None,
            shared: Arc::default(),
        }
    }

    /// This endpoint at an address; what is known of the address is kept.
    #[must_use]
    pub fn resolved(&self, address: Address, known: &Known) -> Self {
        Self {
            text: address.to_string().into(),
            shared: known.get(&address).cloned().unwrap_or_default(),
            address,
            hostname: self.hostname.clone(),
            weight: self.weight,
            health: self.health,
            locality: Arc::clone(&self.locality),
            socket_match: self.socket_match.clone(),
            workload: self.workload.clone(),
        }
    }
}

/// The endpoints of one priority.
#[derive(Debug, Default)]
pub struct Priority {
    /// All of them.
    pub all: Vec<Arc<Endpoint>>,
    /// Weight of each locality, where the control plane states them; empty: localities play no part.
    pub locality_weights: Vec<(Arc<Locality>, u32)>,
}

/// The endpoints of one cluster; immutable, replaced as a whole by the main thread.
#[derive(Debug, Default)]
pub struct HostSet {
    /// By priority, 0 first.
    pub priorities: Vec<Priority>,
    /// `overprovisioning_factor` in percent (LB-8: 140).
    pub overprovisioning_percent: u32,
}

impl HostSet {
    /// All endpoints in one priority.
    pub fn flat(endpoints: Vec<Endpoint>) -> Self {
        let all = endpoints.into_iter().map(Arc::new).collect();
        Self { priorities: vec![Priority { all, locality_weights: Vec::new() }], overprovisioning_percent: 140 }
    }

    /// All endpoints of all priorities.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.priorities.iter().flat_map(|p| &p.all)
    }
}
