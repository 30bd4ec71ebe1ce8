//! `MeshConfig.extensionProviders` (spec TL-6, AZ-20).

use super::{Duration, Later};
use std::collections::BTreeMap;

istio_struct! {
    /// A provider: its name and one of the others.
    ExtensionProvider {
        name: String,
        envoy_ext_authz_http: Option<ExtAuthzHttp>,
        envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
        zipkin: Option<Zipkin>,
        opentelemetry: Option<OpenTelemetry>,
        prometheus: Option<Prometheus>,
        envoy_file_access_log: Option<FileAccessLog>,
        envoy_http_als: Option<HttpAls>,
        envoy_tcp_als: Option<TcpAls>,
        envoy_otel_als: Option<OtelAls>,
        datadog: Option<Later>,
        skywalking: Option<Later>,
        stackdriver: Option<Later>,
        lightstep: Option<Later>,
        opencensus: Option<Later>,
        sds: Option<Later>,
    }
}

istio_struct! {
    /// An authorization service over HTTP.
    #[derive(Eq, Hash)]
    ExtAuthzHttp {
        service: String,
        #[serde(deserialize_with = "super::port")]
        port: u16,
        timeout: Option<Duration>,
        path_prefix: String,
        fail_open: bool,
        clear_route_cache: Option<Later>,
        status_on_error: String,
        include_headers_in_check: Vec<String>,
        include_request_headers_in_check: Vec<String>,
        include_additional_headers_in_check: BTreeMap<String, String>,
        include_request_body_in_check: Option<RequestBody>,
        headers_to_upstream_on_allow: Vec<String>,
        headers_to_downstream_on_deny: Vec<String>,
        headers_to_downstream_on_allow: Vec<String>,
    }
}

istio_struct! {
    /// An authorization service over gRPC.
    #[derive(Eq, Hash)]
    ExtAuthzGrpc {
        service: String,
        #[serde(deserialize_with = "super::port")]
        port: u16,
        timeout: Option<Duration>,
        fail_open: bool,
        clear_route_cache: Option<Later>,
        status_on_error: String,
        include_request_body_in_check: Option<RequestBody>,
    }
}

istio_struct! {
    /// The part of the body that the service sees.
    #[derive(Eq, Hash)]
    RequestBody { max_request_bytes: u32, allow_partial_message: bool, pack_as_bytes: bool }
}

istio_struct! {
    /// Zipkin's collector.
    #[derive(Eq, Hash)]
    Zipkin {
        service: String,
        #[serde(deserialize_with = "super::port")]
        port: u16,
        max_tag_length: Option<u32>,
        enable_64bit_trace_id: bool,
        path: String,
        timeout: Option<Later>,
        headers: Option<Later>,
        trace_context_option: TraceContext,
    }
}

istio_enum! {
    /// Which headers carry a trace.
    TraceContext { UseB3, UseB3WithW3cPropagation }
}

istio_struct! {
    /// A collector of OpenTelemetry.
    #[derive(Eq, Hash)]
    OpenTelemetry {
        service: String,
        #[serde(deserialize_with = "super::port")]
        port: u16,
        max_tag_length: Option<u32>,
        http: Option<OtlpHttp>,
        grpc: Option<Later>,
        resource_detectors: Option<Later>,
        dynatrace_sampler: Option<Later>,
        service_attribute_enrichment: Option<Later>,
    }
}

istio_struct! {
    /// OTLP over HTTP.
    #[derive(Eq, Hash)]
    OtlpHttp { path: String, timeout: Option<Duration>, headers: Option<Later> }
}

istio_struct! {
    /// Prometheus: nothing to say.
    #[derive(Eq, Hash)]
    Prometheus {}
}

istio_struct! {
    /// Access logs in a file.
    #[derive(Eq, Hash)]
    FileAccessLog { path: String, log_format: Option<LogFormat>, omit_empty_values: bool }
}

istio_struct! {
    /// The form of a line: one of the two.
    #[derive(Eq, Hash)]
    LogFormat { text: Option<String>, labels: Option<BTreeMap<String, String>> }
}

istio_struct! {
    /// Envoy's access log service for requests.
    #[derive(Eq, Hash)]
    HttpAls {
        service: String,
        #[serde(deserialize_with = "super::port")]
        port: u16,
        log_name: String,
        filter_state_objects_to_log: Vec<String>,
        additional_request_headers_to_log: Vec<String>,
        additional_response_headers_to_log: Vec<String>,
        additional_response_trailers_to_log: Vec<String>,
    }
}

istio_struct! {
    /// Envoy's access log service for connections.
    #[derive(Eq, Hash)]
    TcpAls { service: String, port: u16, log_name: String, filter_state_objects_to_log: Vec<String> }
}

istio_struct! {
    /// Access logs to a collector of OpenTelemetry.
    #[derive(Eq, Hash)]
    OtelAls { service: String, port: u16, log_name: String, log_format: Option<LogFormat> }
}

impl ExtensionProvider {
    /// How many kinds of provider are written: one is right.
    pub fn forms(&self) -> usize {
        let forms = [
            self.envoy_ext_authz_http.is_some(),
            self.envoy_ext_authz_grpc.is_some(),
            self.zipkin.is_some(),
            self.opentelemetry.is_some(),
            self.prometheus.is_some(),
            self.envoy_file_access_log.is_some(),
            self.envoy_http_als.is_some(),
            self.envoy_tcp_als.is_some(),
            self.envoy_otel_als.is_some(),
        ];
        forms.into_iter().filter(|written| *written).count()
    }

    /// The service behind it, where there is one: host, with or without `NAMESPACE/` before it, and port.
    pub fn service(&self) -> Option<(&str, u16)> {
        let http = self.envoy_ext_authz_http.as_ref().map(|p| (p.service.as_str(), p.port));
        let grpc = self.envoy_ext_authz_grpc.as_ref().map(|p| (p.service.as_str(), p.port));
        let zipkin = self.zipkin.as_ref().map(|p| (p.service.as_str(), p.port));
        let otlp = self.opentelemetry.as_ref().map(|p| (p.service.as_str(), p.port));
        let als = self.envoy_http_als.as_ref().map(|p| (p.service.as_str(), p.port));
        let tcp = self.envoy_tcp_als.as_ref().map(|p| (p.service.as_str(), p.port));
        let otel = self.envoy_otel_als.as_ref().map(|p| (p.service.as_str(), p.port));
        [http, grpc, zipkin, otlp, als, tcp, otel].into_iter().flatten().next()
    }
}
