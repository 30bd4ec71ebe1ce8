//! Telemetry (telemetry.istio.io, spec 1.10).

use super::{Duration, Later, WorkloadSelector};
use std::collections::BTreeMap;

istio_struct! {
    /// `spec` of a Telemetry.
    Telemetry {
        selector: Option<WorkloadSelector>,
        target_ref: Option<Later>,
        target_refs: Option<Later>,
        tracing: Vec<Tracing>,
        metrics: Vec<Metrics>,
        access_logging: Vec<AccessLogging>,
    }
}

istio_struct! {
    /// A provider by its name.
    #[derive(Eq)]
    ProviderRef { name: String }
}

istio_enum! {
    /// Which side of a request is meant.
    WorkloadMode { ClientAndServer, Client, Server }
}

istio_struct! {
    /// The side.
    #[derive(Eq)]
    ModeSelector { mode: WorkloadMode }
}

istio_struct! {
    /// How requests are traced.
    Tracing {
        r#match: Option<ModeSelector>,
        providers: Vec<ProviderRef>,
        random_sampling_percentage: Option<f64>,
        disable_span_reporting: Option<bool>,
        custom_tags: BTreeMap<String, CustomTag>,
        use_request_id_for_trace_sampling: Option<bool>,
        enable_istio_tags: Option<bool>,
        disable_context_propagation: Option<Later>,
    }
}

istio_struct! {
    /// Where the value of a tag comes from: one of the four.
    #[derive(Eq, Hash)]
    CustomTag {
        literal: Option<Literal>,
        environment: Option<FromVariable>,
        header: Option<FromHeader>,
        formatter: Option<Formatter>,
    }
}

istio_struct! {
    /// The value itself.
    #[derive(Eq, Hash)]
    Literal { value: String }
}

istio_struct! {
    /// A variable of the proxy's environment.
    #[derive(Eq, Hash)]
    FromVariable { name: String, default_value: String }
}

istio_struct! {
    /// A header of the request.
    #[derive(Eq, Hash)]
    FromHeader { name: String, default_value: String }
}

istio_struct! {
    /// Command operators of access logs.
    #[derive(Eq, Hash)]
    Formatter { value: String }
}

istio_struct! {
    /// Which metrics go where.
    Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverride>,
        reporting_interval: Option<Duration>,
    }
}

istio_struct! {
    /// A change of some metrics.
    #[derive(Eq)]
    MetricsOverride {
        r#match: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

istio_struct! {
    /// The metrics that are meant.
    #[derive(Eq)]
    MetricSelector {
        metric: Option<IstioMetric>,
        custom_metric: Option<String>,
        mode: WorkloadMode,
    }
}

istio_enum! {
    /// Istio's standard metrics.
    IstioMetric {
        AllMetrics, RequestCount, RequestDuration, RequestSize, ResponseSize, TcpOpenedConnections,
        TcpClosedConnections, TcpSentBytes, TcpReceivedBytes, GrpcRequestMessages, GrpcResponseMessages,
    }
}

istio_struct! {
    /// A change of one label.
    #[derive(Eq)]
    TagOverride { operation: TagOperation, value: String }
}

istio_enum! {
    /// What happens to the label.
    TagOperation { Upsert, Remove }
}

istio_struct! {
    /// Where access logs go.
    #[derive(Eq)]
    AccessLogging {
        r#match: Option<ModeSelector>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<LogFilter>,
    }
}

istio_struct! {
    /// Which entries are written.
    #[derive(Eq)]
    LogFilter { expression: String }
}
