//! Every metric of the proxy: name, type, labels, meaning. Names are Envoy's (spec ST-1 to ST-5) and Istio's (TM).

use super::counters::{Family, InFamily, Metric, MetricKind};

macro_rules! family {
    (
        $(#[$doc:meta])*
        $name:ident, $family:ident = $prefix:literal, $label:expr;
        $($variant:ident $kind:ident $text:literal $help:literal,)*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = $help] $variant,)* }

        #[doc = concat!("Metrics of `", stringify!($name), "`.")]
        pub static $family: Family = Family {
            prefix: $prefix,
            label: $label,
            metrics: &[$(Metric { name: $text, kind: MetricKind::$kind, help: $help },)*],
        };

        impl InFamily for $name {
            const FAMILY: &'static Family = &$family;
            const OFFSETS: &'static [usize] = &{
                const METRICS: &[Metric] = &[$(Metric { name: $text, kind: MetricKind::$kind, help: $help },)*];
                const FAMILY: Family = Family { prefix: $prefix, label: $label, metrics: METRICS };
                let mut offsets = [0; METRICS.len()];
                let mut at = 0;
                while at < METRICS.len() {
                    offsets[at] = FAMILY.offset(at);
                    at += 1;
                }
                offsets
            };

            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

family! {
    /// What a cluster did (ST-1).
    ClusterMetric, CLUSTER = "cluster", Some("envoy_cluster_name");
    UpstreamRqTotal Counter "upstream_rq_total" "Requests sent.",
    UpstreamRqActive Gauge "upstream_rq_active" "Requests in flight.",
    UpstreamRqCompleted Counter "upstream_rq_completed" "Requests answered.",
    UpstreamRq1xx Counter "upstream_rq_1xx" "Answers 1xx.",
    UpstreamRq2xx Counter "upstream_rq_2xx" "Answers 2xx.",
    UpstreamRq3xx Counter "upstream_rq_3xx" "Answers 3xx.",
    UpstreamRq4xx Counter "upstream_rq_4xx" "Answers 4xx.",
    UpstreamRq5xx Counter "upstream_rq_5xx" "Answers 5xx.",
    UpstreamRqTime Histogram "upstream_rq_time" "Time to the end of the answer, milliseconds.",
    UpstreamRqPendingTotal Counter "upstream_rq_pending_total" "Requests that waited for a connection.",
    UpstreamRqPendingActive Gauge "upstream_rq_pending_active" "Requests that wait for a connection.",
    UpstreamRqPendingOverflow Counter "upstream_rq_pending_overflow" "Requests refused by a limit.",
    UpstreamRqPendingFailureEject Counter "upstream_rq_pending_failure_eject" "Requests failed because their connection did.",
    UpstreamRqRetry Counter "upstream_rq_retry" "Retries.",
    UpstreamRqRetrySuccess Counter "upstream_rq_retry_success" "Retries that helped.",
    UpstreamRqRetryOverflow Counter "upstream_rq_retry_overflow" "Retries refused by a limit or budget.",
    UpstreamRqRetryLimitExceeded Counter "upstream_rq_retry_limit_exceeded" "Requests whose retries were used up.",
    UpstreamRqTimeout Counter "upstream_rq_timeout" "Requests that ran into the route's time limit.",
    UpstreamRqPerTryTimeout Counter "upstream_rq_per_try_timeout" "Tries that ran into their time limit.",
    UpstreamRqRxReset Counter "upstream_rq_rx_reset" "Requests reset by the upstream.",
    UpstreamRqTxReset Counter "upstream_rq_tx_reset" "Requests reset by this proxy.",
    UpstreamRqCancelled Counter "upstream_rq_cancelled" "Requests given up before a connection was there.",
    UpstreamRqMaintenanceMode Counter "upstream_rq_maintenance_mode" "Requests refused by maintenance mode.",
    UpstreamCxTotal Counter "upstream_cx_total" "Connections opened.",
    UpstreamCxActive Gauge "upstream_cx_active" "Connections open.",
    UpstreamCxHttp1Total Counter "upstream_cx_http1_total" "HTTP/1 connections opened.",
    UpstreamCxHttp2Total Counter "upstream_cx_http2_total" "HTTP/2 connections opened.",
    UpstreamCxConnectFail Counter "upstream_cx_connect_fail" "Connections that could not be opened.",
    UpstreamCxConnectTimeout Counter "upstream_cx_connect_timeout" "Connections that were not open in time.",
    UpstreamCxConnectMs Histogram "upstream_cx_connect_ms" "Time to connect, milliseconds.",
    UpstreamCxLengthMs Histogram "upstream_cx_length_ms" "Life of connections, milliseconds.",
    UpstreamCxOverflow Counter "upstream_cx_overflow" "Connections refused by a limit.",
    UpstreamCxDestroy Counter "upstream_cx_destroy" "Connections closed.",
    UpstreamCxDestroyLocal Counter "upstream_cx_destroy_local" "Connections closed here.",
    UpstreamCxDestroyRemote Counter "upstream_cx_destroy_remote" "Connections closed by the upstream.",
    UpstreamCxDestroyWithActiveRq Counter "upstream_cx_destroy_with_active_rq" "Connections closed with requests in flight.",
    UpstreamCxIdleTimeout Counter "upstream_cx_idle_timeout" "Connections closed because they were idle.",
    UpstreamCxProtocolError Counter "upstream_cx_protocol_error" "Connections with a protocol error.",
    UpstreamCxNoneHealthy Counter "upstream_cx_none_healthy" "Requests without a healthy endpoint.",
    UpstreamCxRxBytesTotal Counter "upstream_cx_rx_bytes_total" "Bytes received.",
    UpstreamCxTxBytesTotal Counter "upstream_cx_tx_bytes_total" "Bytes sent.",
    MembershipTotal Gauge "membership_total" "Endpoints.",
    MembershipHealthy Gauge "membership_healthy" "Healthy endpoints.",
    MembershipDegraded Gauge "membership_degraded" "Degraded endpoints.",
    MembershipExcluded Gauge "membership_excluded" "Excluded endpoints.",
    MembershipChange Counter "membership_change" "Changes of the endpoints.",
    CxOpen Gauge "circuit_breakers.default.cx_open" "Whether the limit of connections is reached.",
    CxPoolOpen Gauge "circuit_breakers.default.cx_pool_open" "Whether the limit of pools is reached.",
    RqOpen Gauge "circuit_breakers.default.rq_open" "Whether the limit of requests is reached.",
    RqPendingOpen Gauge "circuit_breakers.default.rq_pending_open" "Whether the limit of waiting requests is reached.",
    RqRetryOpen Gauge "circuit_breakers.default.rq_retry_open" "Whether the limit of retries is reached.",
    EjectionsActive Gauge "outlier_detection.ejections_active" "Endpoints ejected now.",
    EjectionsTotal Counter "outlier_detection.ejections_total" "Endpoints ejected.",
    EjectionsEnforcedTotal Counter "outlier_detection.ejections_enforced_total" "Ejections enforced.",
    EjectionsEnforcedConsecutive5xx Counter "outlier_detection.ejections_enforced_consecutive_5xx" "Ejections for consecutive 5xx.",
    EjectionsEnforcedConsecutiveGateway Counter "outlier_detection.ejections_enforced_consecutive_gateway_failure" "Ejections for consecutive gateway failures.",
    EjectionsOverflow Counter "outlier_detection.ejections_overflow" "Ejections left out because too many were ejected.",
    LbHealthyPanic Counter "lb_healthy_panic" "Picks in panic mode.",
    LbZoneRoutingAllDirectly Counter "lb_zone_routing_all_directly" "Picks in the own zone.",
    UpdateAttempt Counter "update_attempt" "Updates of the endpoints tried.",
    UpdateSuccess Counter "update_success" "Updates of the endpoints.",
    UpdateFailure Counter "update_failure" "Updates of the endpoints that failed.",
    UpdateEmpty Counter "update_empty" "Updates without an endpoint.",
}

family! {
    /// What an HTTP connection manager did (ST-2).
    HttpMetric, HTTP = "http", Some("envoy_http_conn_manager_prefix");
    DownstreamRqTotal Counter "downstream_rq_total" "Requests.",
    DownstreamRqActive Gauge "downstream_rq_active" "Requests in flight.",
    DownstreamRqHttp1Total Counter "downstream_rq_http1_total" "HTTP/1 requests.",
    DownstreamRqHttp2Total Counter "downstream_rq_http2_total" "HTTP/2 requests.",
    DownstreamRq1xx Counter "downstream_rq_1xx" "Answers 1xx.",
    DownstreamRq2xx Counter "downstream_rq_2xx" "Answers 2xx.",
    DownstreamRq3xx Counter "downstream_rq_3xx" "Answers 3xx.",
    DownstreamRq4xx Counter "downstream_rq_4xx" "Answers 4xx.",
    DownstreamRq5xx Counter "downstream_rq_5xx" "Answers 5xx.",
    DownstreamRqCompleted Counter "downstream_rq_completed" "Requests answered.",
    DownstreamRqTime Histogram "downstream_rq_time" "Time to the end of the answer, milliseconds.",
    DownstreamRqTimeout Counter "downstream_rq_timeout" "Requests that did not arrive in time.",
    DownstreamRqIdleTimeout Counter "downstream_rq_idle_timeout" "Streams closed because they were idle.",
    DownstreamRqMaxDurationReached Counter "downstream_rq_max_duration_reached" "Streams closed at the end of their time.",
    DownstreamRqRxReset Counter "downstream_rq_rx_reset" "Requests reset by the client.",
    DownstreamRqTxReset Counter "downstream_rq_tx_reset" "Requests reset here.",
    DownstreamRqTooLarge Counter "downstream_rq_too_large" "Requests whose body was too large.",
    DownstreamRqNonRelativePath Counter "downstream_rq_non_relative_path" "Requests without a path.",
    DownstreamRqWsOnNonWsRoute Counter "downstream_rq_ws_on_non_ws_route" "Upgrades that are not allowed.",
    DownstreamRqOverloadClose Counter "downstream_rq_overload_close" "Requests refused under overload.",
    DownstreamCxTotal Counter "downstream_cx_total" "Connections.",
    DownstreamCxActive Gauge "downstream_cx_active" "Connections open.",
    DownstreamCxHttp1Total Counter "downstream_cx_http1_total" "HTTP/1 connections.",
    DownstreamCxHttp2Total Counter "downstream_cx_http2_total" "HTTP/2 connections.",
    DownstreamCxSslTotal Counter "downstream_cx_ssl_total" "TLS connections.",
    DownstreamCxSslActive Gauge "downstream_cx_ssl_active" "TLS connections open.",
    DownstreamCxProtocolError Counter "downstream_cx_protocol_error" "Connections with a protocol error.",
    DownstreamCxDestroy Counter "downstream_cx_destroy" "Connections closed.",
    DownstreamCxDestroyRemote Counter "downstream_cx_destroy_remote" "Connections closed by the client.",
    DownstreamCxDestroyLocal Counter "downstream_cx_destroy_local" "Connections closed here.",
    DownstreamCxDestroyActiveRq Counter "downstream_cx_destroy_active_rq" "Connections closed with requests in flight.",
    DownstreamCxDrainClose Counter "downstream_cx_drain_close" "Connections closed while draining.",
    DownstreamCxIdleTimeout Counter "downstream_cx_idle_timeout" "Connections closed because they were idle.",
    DownstreamCxRxBytesTotal Counter "downstream_cx_rx_bytes_total" "Bytes received.",
    DownstreamCxTxBytesTotal Counter "downstream_cx_tx_bytes_total" "Bytes sent.",
    NoRoute Counter "no_route" "Requests without a route.",
    NoCluster Counter "no_cluster" "Requests to an unknown cluster.",
    RqTotal Counter "rq_total" "Requests routed.",
    RqDirectResponse Counter "rq_direct_response" "Requests answered by the route.",
    RqRedirect Counter "rq_redirect" "Requests redirected.",
    RbacAllowed Counter "rbac.allowed" "Requests allowed by policy.",
    RbacDenied Counter "rbac.denied" "Requests denied by policy.",
    RbacShadowAllowed Counter "rbac.shadow_allowed" "Requests that a shadow policy would allow.",
    RbacShadowDenied Counter "rbac.shadow_denied" "Requests that a shadow policy would deny.",
    ExtAuthzOk Counter "ext_authz.ok" "Requests allowed by an authorization service.",
    ExtAuthzDenied Counter "ext_authz.denied" "Requests denied by an authorization service.",
    ExtAuthzError Counter "ext_authz.error" "Authorization services that did not answer.",
    FaultAbortsInjected Counter "fault.aborts_injected" "Requests aborted on purpose.",
    FaultDelaysInjected Counter "fault.delays_injected" "Requests delayed on purpose.",
    LocalRateLimited Counter "http_local_rate_limit.rate_limited" "Requests over the local limit.",
    LocalRateLimitEnforced Counter "http_local_rate_limit.enforced" "Requests refused by the local limit.",
}

family! {
    /// What a listener did (ST-3).
    ListenerMetric, LISTENER = "listener", Some("envoy_listener_address");
    DownstreamCxTotal Counter "downstream_cx_total" "Connections.",
    DownstreamCxActive Gauge "downstream_cx_active" "Connections open.",
    DownstreamCxDestroy Counter "downstream_cx_destroy" "Connections closed.",
    DownstreamCxOverflow Counter "downstream_cx_overflow" "Connections refused by a limit.",
    DownstreamCxOverloadReject Counter "downstream_cx_overload_reject" "Connections refused under overload.",
    DownstreamCxTransportSocketConnectTimeout Counter "downstream_cx_transport_socket_connect_timeout" "Handshakes that were not done in time.",
    DownstreamPreCxTimeout Counter "downstream_pre_cx_timeout" "Connections whose inspection was not done in time.",
    DownstreamPreCxActive Gauge "downstream_pre_cx_active" "Connections under inspection.",
    NoFilterChainMatch Counter "no_filter_chain_match" "Connections that no filter chain took.",
    SslHandshake Counter "ssl.handshake" "TLS handshakes.",
    SslConnectionError Counter "ssl.connection_error" "TLS errors.",
    SslFailVerifyNoCert Counter "ssl.fail_verify_no_cert" "Clients without a certificate.",
    SslFailVerifyError Counter "ssl.fail_verify_error" "Clients with a certificate that does not verify.",
    SslFailVerifySan Counter "ssl.fail_verify_san" "Clients with a name that is not allowed.",
}

family! {
    /// What a TCP proxy did (ST-5).
    TcpMetric, TCP = "tcp", Some("envoy_tcp_prefix");
    DownstreamCxTotal Counter "downstream_cx_total" "Connections.",
    DownstreamCxNoRoute Counter "downstream_cx_no_route" "Connections without a cluster.",
    DownstreamCxRxBytesTotal Counter "downstream_cx_rx_bytes_total" "Bytes received.",
    DownstreamCxTxBytesTotal Counter "downstream_cx_tx_bytes_total" "Bytes sent.",
    IdleTimeout Counter "idle_timeout" "Connections closed because they were idle.",
    MaxDownstreamConnectionDuration Counter "max_downstream_connection_duration" "Connections closed at the end of their time.",
    UpstreamFlushTotal Counter "upstream_flush_total" "Connections that went on to flush upstream.",
    UpstreamFlushActive Gauge "upstream_flush_active" "Connections that flush upstream.",
    RbacAllowed Counter "rbac.allowed" "Connections allowed by policy.",
    RbacDenied Counter "rbac.denied" "Connections denied by policy.",
}

family! {
    /// The process (ST-4).
    ServerMetric, SERVER = "server", None;
    State Gauge "state" "0 live, 1 draining, 2 pre-initializing, 3 initializing.",
    Live Gauge "live" "Whether the process is live.",
    Uptime Gauge "uptime" "Seconds since the start.",
    Concurrency Gauge "concurrency" "Workers.",
    MemoryAllocated Gauge "memory_allocated" "Bytes of resident memory.",
    MemoryHeapSize Gauge "memory_heap_size" "Bytes of data memory.",
    TotalConnections Gauge "total_connections" "Connections open.",
    ParentConnections Gauge "parent_connections" "Connections of the process before this one.",
    HotRestartEpoch Gauge "hot_restart_epoch" "Number of the start.",
    DaysUntilFirstCertExpiring Gauge "days_until_first_cert_expiring" "Days until a certificate expires.",
    InitializationTimeMs Histogram "initialization_time_ms" "Time until the process was ready, milliseconds.",
    Version Gauge "version" "Version of the program as a number.",
    AccessLogDropped Counter "access_log_dropped" "Log lines dropped because the disk was too slow.",
    SeriesOverflow Counter "series_overflow" "Label sets that went into the overflow series.",
}

family! {
    /// The clusters as a whole (ST-3).
    ClusterManagerMetric, CLUSTER_MANAGER = "cluster_manager", None;
    ActiveClusters Gauge "active_clusters" "Clusters in use.",
    WarmingClusters Gauge "warming_clusters" "Clusters that wait for endpoints.",
    ClusterAdded Counter "cluster_added" "Clusters added.",
    ClusterModified Counter "cluster_modified" "Clusters changed.",
    ClusterRemoved Counter "cluster_removed" "Clusters removed.",
    CdsUpdateAttempt Counter "cds.update_attempt" "Updates tried.",
    CdsUpdateSuccess Counter "cds.update_success" "Updates accepted.",
    CdsUpdateRejected Counter "cds.update_rejected" "Updates with a refused resource.",
}

family! {
    /// The listeners as a whole (ST-3).
    ListenerManagerMetric, LISTENER_MANAGER = "listener_manager", None;
    ListenerAdded Counter "listener_added" "Listeners added.",
    ListenerModified Counter "listener_modified" "Listeners changed.",
    ListenerRemoved Counter "listener_removed" "Listeners removed.",
    ListenerCreateFailure Counter "listener_create_failure" "Listeners that could not listen.",
    TotalListenersActive Gauge "total_listeners_active" "Listeners in use.",
    TotalListenersWarming Gauge "total_listeners_warming" "Listeners that wait for routes.",
    TotalListenersDraining Gauge "total_listeners_draining" "Listeners that drain.",
    WorkersStarted Gauge "workers_started" "Whether workers accept connections.",
    LdsUpdateAttempt Counter "lds.update_attempt" "Updates tried.",
    LdsUpdateSuccess Counter "lds.update_success" "Updates accepted.",
    LdsUpdateRejected Counter "lds.update_rejected" "Updates with a refused resource.",
}

family! {
    /// The stream to the control plane.
    ControlPlaneMetric, CONTROL_PLANE = "control_plane", None;
    ConnectedState Gauge "connected_state" "Whether the stream is up.",
    PendingRequests Gauge "pending_requests" "Requests that wait.",
}

family! {
    /// Istio's metrics of HTTP and gRPC requests (TM-1 to TM-4).
    IstioHttpMetric, ISTIO_HTTP = "", None;
    RequestsTotal Counter "istio_requests_total" "Requests.",
    RequestDurationMs Histogram "istio_request_duration_milliseconds" "Time to the end of the answer, milliseconds.",
    RequestBytes Histogram "istio_request_bytes" "Bytes received from the client.",
    ResponseBytes Histogram "istio_response_bytes" "Bytes sent to the client.",
}

family! {
    /// Istio's metrics of gRPC messages (TM-4).
    IstioGrpcMetric, ISTIO_GRPC = "", None;
    RequestMessagesTotal Counter "istio_request_messages_total" "gRPC messages from the client.",
    ResponseMessagesTotal Counter "istio_response_messages_total" "gRPC messages to the client.",
}

family! {
    /// Istio's metrics of TCP connections (TM-5, TM-6).
    IstioTcpMetric, ISTIO_TCP = "", None;
    SentBytesTotal Counter "istio_tcp_sent_bytes_total" "Bytes sent to the client.",
    ReceivedBytesTotal Counter "istio_tcp_received_bytes_total" "Bytes received from the client.",
    ConnectionsOpenedTotal Counter "istio_tcp_connections_opened_total" "Connections opened.",
    ConnectionsClosedTotal Counter "istio_tcp_connections_closed_total" "Connections closed.",
}

family! {
    /// Istio's metric of the build (TM-7).
    IstioBuildMetric, ISTIO_BUILD = "", None;
    Build Gauge "istio_build" "1, with the version as label.",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_offsets_follow_each_other() {
        for family in
            [&CLUSTER, &HTTP, &LISTENER, &TCP, &SERVER, &CLUSTER_MANAGER, &LISTENER_MANAGER, &ISTIO_HTTP, &ISTIO_TCP]
        {
            let names: BTreeSet<_> = family.metrics.iter().map(|metric| metric.name).collect();
            assert_eq!(names.len(), family.metrics.len(), "{}", family.prefix);
        }
        assert_eq!(IstioHttpMetric::OFFSETS, [0, 1, 22, 43]);
        assert_eq!(ISTIO_HTTP.cells(), 64);
    }
}
