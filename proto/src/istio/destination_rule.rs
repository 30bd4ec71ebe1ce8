//! DestinationRule (spec 1.4).

use super::{Duration, Later, WorkloadSelector};
use std::collections::BTreeMap;

istio_struct! {
    /// `spec` of a DestinationRule.
    DestinationRule {
        host: String,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        export_to: Vec<String>,
        workload_selector: Option<WorkloadSelector>,
    }
}

istio_struct! {
    /// A named part of a service.
    Subset {
        name: String,
        labels: BTreeMap<String, String>,
        traffic_policy: Option<TrafficPolicy>,
    }
}

istio_struct! {
    /// How a client treats the service.
    TrafficPolicy {
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
        port_level_settings: Vec<PortTrafficPolicy>,
        tunnel: Option<Later>,
        proxy_protocol: Option<Later>,
        retry_budget: Option<RetryBudget>,
    }
}

istio_struct! {
    /// What holds for one port alone.
    PortTrafficPolicy {
        port: Option<super::virtual_service::PortSelector>,
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
    }
}

istio_struct! {
    /// Choice of an endpoint: `simple` or `consistentHash`.
    LoadBalancerSettings {
        simple: Option<SimpleLb>,
        consistent_hash: Option<ConsistentHashLb>,
        locality_lb_setting: Option<LocalityLbSetting>,
        zone_aware_lb_setting: Option<Later>,
        warmup: Option<Warmup>,
        warmup_duration_secs: Option<Duration>,
    }
}

istio_enum! {
    /// The simple policies.
    SimpleLb { Unspecified, LeastRequest, RoundRobin, Random, Passthrough, LeastConn }
}

istio_struct! {
    /// Choice by a hash of the request: one key, one algorithm.
    ConsistentHashLb {
        http_header_name: Option<String>,
        http_cookie: Option<HttpCookie>,
        use_source_ip: Option<bool>,
        http_query_parameter_name: Option<String>,
        ring_hash: Option<RingHash>,
        maglev: Option<Maglev>,
        minimum_ring_size: Option<u64>,
    }
}

istio_struct! {
    /// A cookie as hash key.
    HttpCookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<Later>,
    }
}

istio_struct! {
    /// Ring hash.
    RingHash { minimum_ring_size: Option<u64> }
}

istio_struct! {
    /// Maglev.
    Maglev { table_size: Option<u64> }
}

istio_struct! {
    /// Slow start.
    Warmup {
        duration: Option<Duration>,
        minimum_percent: Option<f64>,
        aggression: Option<f64>,
    }
}

istio_struct! {
    /// Preference for near endpoints.
    LocalityLbSetting {
        distribute: Vec<Distribute>,
        failover: Vec<Failover>,
        failover_priority: Vec<String>,
        enabled: Option<bool>,
    }
}

istio_struct! {
    /// Shares by locality for clients of one locality.
    Distribute {
        from: String,
        to: BTreeMap<String, u32>,
    }
}

istio_struct! {
    /// The region that takes over.
    Failover {
        from: String,
        to: String,
    }
}

istio_struct! {
    /// Limits of connections and requests.
    ConnectionPoolSettings {
        tcp: Option<TcpSettings>,
        http: Option<HttpSettings>,
    }
}

istio_struct! {
    /// Limits of connections.
    TcpSettings {
        max_connections: Option<u32>,
        connect_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        max_connection_duration: Option<Duration>,
        idle_timeout: Option<Duration>,
    }
}

istio_struct! {
    /// Keep-alive of the kernel.
    TcpKeepalive {
        probes: Option<u32>,
        time: Option<Duration>,
        interval: Option<Duration>,
    }
}

istio_struct! {
    /// Limits of requests.
    HttpSettings {
        http1_max_pending_requests: Option<u32>,
        http2_max_requests: Option<u32>,
        max_requests_per_connection: Option<u32>,
        max_retries: Option<u32>,
        idle_timeout: Option<Duration>,
        h2_upgrade_policy: Option<H2UpgradePolicy>,
        use_client_protocol: Option<bool>,
        max_concurrent_streams: Option<u32>,
        http2_keep_alive: Option<Later>,
    }
}

istio_enum! {
    /// Upgrade of HTTP/1.1 to HTTP/2 towards the service.
    H2UpgradePolicy { Default, DoNotUpgrade, Upgrade }
}

istio_struct! {
    /// Ejection of endpoints that fail.
    OutlierDetection {
        consecutive_5xx_errors: Option<u32>,
        consecutive_gateway_errors: Option<u32>,
        consecutive_local_origin_failures: Option<u32>,
        consecutive_errors: Option<u32>,
        split_external_local_origin_errors: Option<bool>,
        interval: Option<Duration>,
        base_ejection_time: Option<Duration>,
        max_ejection_percent: Option<u32>,
        min_health_percent: Option<u32>,
        outlier_detection_http_error_codes: Vec<Later>,
    }
}

istio_struct! {
    /// Retries in flight as a share of the requests in flight.
    RetryBudget {
        percent: Option<f64>,
        min_retry_concurrency: Option<u32>,
        budget_interval: Option<Later>,
    }
}

istio_struct! {
    /// TLS towards the service.
    ClientTlsSettings {
        mode: ClientTlsMode,
        client_certificate: String,
        private_key: String,
        ca_certificates: String,
        credential_name: String,
        subject_alt_names: Vec<String>,
        sni: String,
        insecure_skip_verify: Option<bool>,
        ca_crl: Option<Later>,
    }
}

istio_enum! {
    /// Kind of TLS towards the service.
    ClientTlsMode { Disable, Simple, Mutual, IstioMutual }
}
