//! Sidecar (spec 1.7).

use super::gateway::Port;
use super::{Later, WorkloadSelector};

istio_struct! {
    /// `spec` of a Sidecar.
    Sidecar {
        workload_selector: Option<WorkloadSelector>,
        ingress: Vec<IngressListener>,
        egress: Vec<EgressListener>,
        inbound_connection_pool: Option<Later>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

istio_struct! {
    /// A port that the workload serves.
    IngressListener {
        port: Option<Port>,
        bind: String,
        capture_mode: CaptureMode,
        default_endpoint: String,
        tls: Option<Later>,
        connection_pool: Option<Later>,
    }
}

istio_struct! {
    /// What the workload may reach.
    EgressListener {
        port: Option<Port>,
        bind: String,
        capture_mode: CaptureMode,
        hosts: Vec<String>,
    }
}

istio_enum! {
    /// How traffic reaches a listener.
    CaptureMode { Default, Iptables, None }
}

istio_struct! {
    /// What becomes of traffic to unknown hosts.
    OutboundTrafficPolicy {
        mode: Option<OutboundMode>,
        egress_proxy: Option<Later>,
    }
}

/// The choices for traffic to unknown hosts; protobuf's default is REGISTRY_ONLY, the mesh's ALLOW_ANY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Refuse it.
    RegistryOnly,
    /// Let it pass.
    AllowAny,
}
