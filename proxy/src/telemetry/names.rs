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
    UpstreamRqCompleted Counter "upstream_rq_completed" "Requests answered.",
    UpstreamRq1xx Counter "upstream_rq_1xx" "Answers 1xx.",
    UpstreamRq2xx Counter "upstream_rq_2xx" "Answers 2xx.",
    UpstreamRq3xx Counter "upstream_rq_3xx" "Answers 3xx.",
    UpstreamRq4xx Counter "upstream_rq_4xx" "Answers 4xx.",
    UpstreamRq5xx Counter "upstream_rq_5xx" "Answers 5xx.",
    UpstreamRqTime Histogram "upstream_rq_time" "Time to the end of the answer, milliseconds.",
    UpstreamRqPendingOverflow Counter "upstream_rq_pending_overflow" "Requests refused by a limit.",
    UpstreamRqRetry Counter "upstream_rq_retry" "Retries.",
    UpstreamRqRetrySuccess Counter "upstream_rq_retry_success" "Retries that helped.",
    UpstreamRqRetryLimitExceeded Counter "upstream_rq_retry_limit_exceeded" "Requests whose retries were used up.",
    UpstreamRqTimeout Counter "upstream_rq_timeout" "Requests that ran into the route's time limit.",
    UpstreamRqPerTryTimeout Counter "upstream_rq_per_try_timeout" "Tries that ran into their time limit.",
    UpstreamRqRxReset Counter "upstream_rq_rx_reset" "Requests reset by the upstream.",
    UpstreamCxConnectFail Counter "upstream_cx_connect_fail" "Connections that could not be opened.",
    UpstreamCxDestroyWithActiveRq Counter "upstream_cx_destroy_with_active_rq" "Connections closed with requests in flight.",
    UpstreamCxProtocolError Counter "upstream_cx_protocol_error" "Connections with a protocol error.",
    UpstreamCxNoneHealthy Counter "upstream_cx_none_healthy" "Requests without a healthy endpoint.",
}

family! {
    /// The connections of a cluster (ST-1).
    ConnectionMetric, CONNECTION = "cluster", Some("envoy_cluster_name");
    UpstreamCxTotal Counter "upstream_cx_total" "Connections opened.",
    UpstreamCxActive Gauge "upstream_cx_active" "Connections open.",
    UpstreamCxHttp1Total Counter "upstream_cx_http1_total" "HTTP/1 connections opened.",
    UpstreamCxHttp2Total Counter "upstream_cx_http2_total" "HTTP/2 connections opened.",
    UpstreamCxDestroy Counter "upstream_cx_destroy" "Connections closed.",
    UpstreamCxConnectTimeout Counter "upstream_cx_connect_timeout" "Connects that ran into their time limit.",
    UpstreamCxConnectMs Histogram "upstream_cx_connect_ms" "Time of a connect with its handshake, milliseconds.",
    UpstreamCxOverflow Counter "upstream_cx_overflow" "Connections that the limit did not allow.",
    SslHandshake Counter "ssl.handshake" "TLS handshakes done.",
    SslConnectionError Counter "ssl.connection_error" "TLS handshakes that failed.",
}

family! {
    /// What a TCP proxy did (ST-5).
    TcpMetric, TCP = "tcp", Some("envoy_tcp_prefix");
    DownstreamCxTotal Counter "downstream_cx_total" "Connections.",
    DownstreamCxNoRoute Counter "downstream_cx_no_route" "Connections to an unknown cluster.",
    DownstreamCxRxBytesTotal Counter "downstream_cx_rx_bytes_total" "Bytes received from clients.",
    DownstreamCxTxBytesTotal Counter "downstream_cx_tx_bytes_total" "Bytes sent to clients.",
    IdleTimeout Counter "idle_timeout" "Connections closed because they were idle.",
    MaxDownstreamConnectionDuration Counter "max_downstream_connection_duration" "Connections closed at the end of their time.",
}

family! {
    /// The state of a cluster, as the main thread sees it (ST-1).
    ClusterState, CLUSTER_STATE = "cluster", Some("envoy_cluster_name");
    MembershipTotal Gauge "membership_total" "Endpoints.",
    MembershipHealthy Gauge "membership_healthy" "Healthy endpoints.",
    MembershipDegraded Gauge "membership_degraded" "Degraded endpoints.",
    UpstreamRqActive Gauge "upstream_rq_active" "Requests in flight.",
    CxOpen Gauge "circuit_breakers.default.cx_open" "Whether the limit of connections is reached.",
    RqOpen Gauge "circuit_breakers.default.rq_open" "Whether the limit of requests is reached.",
    RqPendingOpen Gauge "circuit_breakers.default.rq_pending_open" "Whether the limit of waiting requests is reached.",
    RqRetryOpen Gauge "circuit_breakers.default.rq_retry_open" "Whether the limit of retries is reached.",
    HighCxOpen Gauge "circuit_breakers.high.cx_open" "The same for requests of high priority.",
    HighRqOpen Gauge "circuit_breakers.high.rq_open" "The same for requests of high priority.",
    HighRqPendingOpen Gauge "circuit_breakers.high.rq_pending_open" "The same for requests of high priority.",
    HighRqRetryOpen Gauge "circuit_breakers.high.rq_retry_open" "The same for requests of high priority.",
    EjectionsActive Gauge "outlier_detection.ejections_active" "Endpoints ejected now.",
}

family! {
    /// What an HTTP connection manager did (ST-2).
    HttpMetric, HTTP = "http", Some("envoy_http_conn_manager_prefix");
    DownstreamRqTotal Counter "downstream_rq_total" "Requests.",
    DownstreamRqHttp1Total Counter "downstream_rq_http1_total" "HTTP/1 requests.",
    DownstreamRqHttp2Total Counter "downstream_rq_http2_total" "HTTP/2 requests.",
    DownstreamRq1xx Counter "downstream_rq_1xx" "Answers 1xx.",
    DownstreamRq2xx Counter "downstream_rq_2xx" "Answers 2xx.",
    DownstreamRq3xx Counter "downstream_rq_3xx" "Answers 3xx.",
    DownstreamRq4xx Counter "downstream_rq_4xx" "Answers 4xx.",
    DownstreamRq5xx Counter "downstream_rq_5xx" "Answers 5xx.",
    DownstreamRqCompleted Counter "downstream_rq_completed" "Requests answered.",
    DownstreamRqTime Histogram "downstream_rq_time" "Time to the end of the answer, milliseconds.",
    DownstreamRqIdleTimeout Counter "downstream_rq_idle_timeout" "Streams closed because they were idle.",
    DownstreamRqMaxDurationReached Counter "downstream_rq_max_duration_reached" "Streams closed at the end of their time.",
    DownstreamRqRxReset Counter "downstream_rq_rx_reset" "Requests reset by the client.",
    DownstreamRqTooLarge Counter "downstream_rq_too_large" "Requests whose body was too large.",
    DownstreamRqWsOnNonWsRoute Counter "downstream_rq_ws_on_non_ws_route" "Upgrades that are not allowed.",
    DownstreamCxTotal Counter "downstream_cx_total" "Connections.",
    DownstreamCxActive Gauge "downstream_cx_active" "Connections open.",
    DownstreamCxDestroy Counter "downstream_cx_destroy" "Connections closed.",
    NoRoute Counter "no_route" "Requests without a route.",
    NoCluster Counter "no_cluster" "Requests to an unknown cluster.",
    RqTotal Counter "rq_total" "Requests routed.",
    RqDirectResponse Counter "rq_direct_response" "Requests answered by the route.",
    RqRedirect Counter "rq_redirect" "Requests redirected.",
    RbacDenied Counter "rbac.denied" "Requests denied by policy.",
    JwtDenied Counter "jwt_authn.denied" "Requests denied for want of a good token.",
    ExtAuthzDenied Counter "ext_authz.denied" "Requests denied by an authorization service.",
    ExtAuthzError Counter "ext_authz.error" "Authorization services that did not answer.",
    FaultAbortsInjected Counter "fault.aborts_injected" "Requests aborted on purpose.",
    FaultDelaysInjected Counter "fault.delays_injected" "Requests delayed on purpose.",
    LocalRateLimited Counter "http_local_rate_limit.rate_limited" "Requests over the local limit.",
}

family! {
    /// What a listener did (ST-3).
    ListenerMetric, LISTENER = "listener", Some("envoy_listener_address");
    DownstreamCxTotal Counter "downstream_cx_total" "Connections.",
    DownstreamCxActive Gauge "downstream_cx_active" "Connections open.",
    DownstreamCxDestroy Counter "downstream_cx_destroy" "Connections closed.",
    NoFilterChainMatch Counter "no_filter_chain_match" "Connections that no filter chain took.",
    DownstreamPreCxTimeout Counter "downstream_pre_cx_timeout" "Connections that were inspected for too long.",
    SslHandshake Counter "ssl.handshake" "TLS handshakes done.",
    SslConnectionError Counter "ssl.connection_error" "TLS handshakes that failed for other reasons than a certificate.",
    SslFailVerifyNoCert Counter "ssl.fail_verify_no_cert" "Clients without the certificate that is required.",
    SslFailVerifyError Counter "ssl.fail_verify_error" "Clients whose certificate nobody vouches for.",
    SslFailVerifySan Counter "ssl.fail_verify_san" "Clients whose certificate has no acceptable name.",
    SslTimeout Counter "downstream_cx_transport_socket_connect_timeout" "TLS handshakes that took too long.",
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
    DaysUntilFirstCertExpiring Gauge "days_until_first_cert_expiring" "Days until a certificate expires.",
    TotalConnections Gauge "total_connections" "Connections of clients open.",
    HotRestartEpoch Gauge "hot_restart_epoch" "Number of this process among those that replaced each other.",
    InitializationTimeMs Histogram "initialization_time_ms" "Time from the start until it was live, milliseconds.",
}

family! {
    /// The clusters as a whole (ST-3).
    ClusterManagerMetric, CLUSTER_MANAGER = "cluster_manager", None;
    ActiveClusters Gauge "active_clusters" "Clusters in use.",
    CdsUpdateAttempt Counter "cds.update_attempt" "Updates tried.",
    CdsUpdateSuccess Counter "cds.update_success" "Updates accepted.",
    CdsUpdateRejected Counter "cds.update_rejected" "Updates with a refused resource.",
}

family! {
    /// The listeners as a whole (ST-3).
    ListenerManagerMetric, LISTENER_MANAGER = "listener_manager", None;
    TotalListenersActive Gauge "total_listeners_active" "Listeners in use.",
    WorkersStarted Gauge "workers_started" "Whether workers accept connections.",
    LdsUpdateAttempt Counter "lds.update_attempt" "Updates tried.",
    LdsUpdateSuccess Counter "lds.update_success" "Updates accepted.",
    LdsUpdateRejected Counter "lds.update_rejected" "Updates with a refused resource.",
}

family! {
    /// The stream to the control plane.
    ControlPlaneMetric, CONTROL_PLANE = "control_plane", None;
    ConnectedState Gauge "connected_state" "Whether the stream is up.",
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
    /// Decisions by a rule of mixer's that are taken here (design decision G); mixer adds them to its own.
    PolicyMetric, POLICY = "", None;
    Hits Counter "ferromesh_policy_hits_total" "Requests that the rule applied to.",
    Denials Counter "ferromesh_policy_denials_total" "Requests that the rule refused.",
    Failures Counter "ferromesh_policy_failures_total" "Requests for which the rule's match had no value.",
    Dispatches Counter "ferromesh_policy_dispatches_total" "How often the handler decided.",
    Refusals Counter "ferromesh_policy_refusals_total" "How often the handler refused.",
}

family! {
    /// Hits of a rate limit that are counted here: of a local one, and of a shared one those that a lease answers. mixer adds
    /// them to its own.
    LimitMetric, LIMIT = "", None;
    Within Counter "ferromesh_limit_within_total" "Hits within the limit.",
    Over Counter "ferromesh_limit_over_total" "Hits beyond the limit.",
}

family! {
    /// Access logs that go to a service (MX-118).
    LogExportMetric, LOG_EXPORT = "access_logs", None;
    GrpcWritten Counter "grpc_access_log.logs_written" "Entries of requests given to a stream.",
    GrpcDropped Counter "grpc_access_log.logs_dropped" "Entries of requests dropped.",
    TcpWritten Counter "tcp_grpc_access_log.logs_written" "Entries of connections given to a stream.",
    TcpDropped Counter "tcp_grpc_access_log.logs_dropped" "Entries of connections dropped.",
    OtlpWritten Counter "open_telemetry_access_log.logs_written" "Entries sent.",
    OtlpDropped Counter "open_telemetry_access_log.logs_dropped" "Entries dropped.",
}

family! {
    /// Spans that go to a collector (TR-4).
    SpanExportMetric, SPAN_EXPORT = "tracing", None;
    OtlpSent Counter "opentelemetry.spans_sent" "Spans sent.",
    OtlpDropped Counter "opentelemetry.spans_dropped" "Spans dropped.",
    ZipkinSent Counter "zipkin.spans_sent" "Spans sent.",
    ZipkinDropped Counter "zipkin.spans_dropped" "Spans dropped.",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_offsets_follow_each_other() {
        for family in [
            &CLUSTER,
            &CLUSTER_STATE,
            &CONNECTION,
            &TCP,
            &HTTP,
            &LISTENER,
            &SERVER,
            &CLUSTER_MANAGER,
            &LISTENER_MANAGER,
            &ISTIO_HTTP,
            &ISTIO_TCP,
            &POLICY,
            &LIMIT,
            &LOG_EXPORT,
            &SPAN_EXPORT,
        ] {
            let names: BTreeSet<_> = family.metrics.iter().map(|metric| metric.name).collect();
            assert_eq!(names.len(), family.metrics.len(), "{}", family.prefix);
        }
        assert_eq!(IstioHttpMetric::OFFSETS, [0, 1, 22, 43]);
        assert_eq!(ISTIO_HTTP.cells(), 64);
    }
}
