//! Ports, header names, labels, annotations and file names that several components must agree on.
//! Names are Istio's where Istio has one (spec PT, PT-15, AN, NM-4, NM-12).

/// Outbound capture (PT-1).
pub const PORT_OUTBOUND: u16 = 15001;
/// Inbound capture (PT-2).
pub const PORT_INBOUND: u16 = 15006;
/// HBONE (PT-3).
pub const PORT_HBONE: u16 = 15008;
/// Proxy admin, loopback only (PT-4).
pub const PORT_ADMIN: u16 = 15000;
/// Merged metrics and probes (PT-5).
pub const PORT_STATUS: u16 = 15020;
/// Readiness (PT-6).
pub const PORT_READY: u16 = 15021;
/// DNS proxy (PT-8).
pub const PORT_DNS: u16 = 15053;
/// The proxy's own metrics (PT-7).
pub const PORT_METRICS: u16 = 15090;
/// pilot: plaintext xDS (PT-11).
pub const PORT_XDS_PLAIN: u16 = 15010;
/// pilot: xDS and certificate relay over TLS (PT-11).
pub const PORT_XDS_TLS: u16 = 15012;
/// Metrics of a control-plane process (PI-1).
pub const PORT_MONITORING: u16 = 15014;
/// pilot: webhooks (PI-1).
pub const PORT_WEBHOOK: u16 = 15017;
/// citadel: certificate service.
pub const PORT_CITADEL: u16 = 8060;
/// uid and gid of the proxy (PT-12).
pub const PROXY_UID: u32 = 1337;
/// Source address of inbound passthrough connections (PT-13).
pub const INBOUND_PASSTHROUGH_SOURCE: &str = "127.0.0.6";
/// The same for IPv6 (PT-13).
pub const INBOUND_PASSTHROUGH_SOURCE_V6: &str = "::6";

/// SDS name of the workload's own certificate (NM-12, CA-25).
pub const SECRET_DEFAULT: &str = "default";
/// SDS name of the trust roots (NM-12, CA-25).
pub const SECRET_ROOT: &str = "ROOTCA";
/// Name of the cluster of mixer in a bootstrap.
pub const CLUSTER_MIXER: &str = "mixer-grpc";
/// Variable of a proxy: where it reports its metrics by OTLP, as `http://HOST:PORT` of a service of the mesh
/// (OpenTelemetry's standard name).
pub const VARIABLE_METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
/// Name of the access log in which a proxy that counts itself tells mixer of failed and sampled requests.
pub const LOG_FAILURES: &str = "ferromesh";
/// Name of the access log in which a proxy that does not tells mixer of every request.
pub const LOG_REQUESTS: &str = "requests";
/// Cluster name of the SDS socket (NM-4).
pub const CLUSTER_SDS: &str = "sds-grpc";
/// Cluster name of pilot (NM-4).
pub const CLUSTER_XDS: &str = "xds-grpc";

/// Catch-all outbound cluster (NM-4).
pub const CLUSTER_PASSTHROUGH: &str = "PassthroughCluster";
/// Cluster without endpoints (NM-4).
pub const CLUSTER_BLACK_HOLE: &str = "BlackHoleCluster";
/// Catch-all inbound cluster (NM-4).
pub const CLUSTER_INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Pod label: the workload accepts mesh mTLS (PT-15).
pub const LABEL_TLS_MODE: &str = "security.istio.io/tlsMode";
/// Name of the workload in metrics, where it is not that of the owner.
pub const LABEL_WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Pod label: canonical service name (PT-15).
pub const LABEL_CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// Pod label: canonical service revision (PT-15).
pub const LABEL_CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Label of an EndpointSlice: its Service (PI-15).
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Service annotation: visibility (GEN-4).
pub const ANNOTATION_EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Service annotation: which endpoints are asked first (DR-19).
pub const ANNOTATION_TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// The ConfigMap with the roots in every namespace, where nothing else is said (CA-14).
pub const ROOTS_CONFIG_MAP: &str = "istio-ca-root-cert";
/// Audience of service-account tokens for the CA (PT-14).
pub const TOKEN_AUDIENCE: &str = "istio-ca";
/// Metadata exchange: node id (MD-1).
pub const HEADER_PEER_METADATA_ID: &str = "x-envoy-peer-metadata-id";
/// Metadata exchange: base64 of a protobuf Struct (MD-1).
pub const HEADER_PEER_METADATA: &str = "x-envoy-peer-metadata";
