//! The vocabulary of the wire: Envoy's and Istio's messages, their names and their JSON form.
//!
//! This crate has no behaviour. The modules, in the order in which one meets them:
//! - [`envoy`]: short names for Envoy's v3 API (crate `envoy-types`)
//! - [`otlp`]: short names for OpenTelemetry's protocol (crate `opentelemetry-proto`)
//! - [`missing`]: messages that `envoy-types` lacks, with the source of each field number
//! - [`istio`]: Istio's objects as written in YAML, one file per kind
//! - [`program`]: policy that mixer leaves with proxies
//! - [`type_url`]: type URL ↔ short name, one table
//! - [`any`]: packing and unpacking `google.protobuf.Any`
//! - [`json`]: protobuf's JSON mapping, for bootstrap files and dumps
//! - [`value`]: `google.protobuf.Value` as JSON
//! - [`duration`]: durations as protobuf, Go and Envoy write them
//! - [`wire`]: ports, header names, labels, annotations and file names that all components share
//! - [`ca`]: the certificate service

pub mod any;
pub mod duration;
pub mod envoy;
pub mod istio;
pub mod json;
pub mod missing;
pub mod otlp;
pub mod program;
pub mod type_url;
pub mod value;
pub mod wire;

/// The certificate service, wire-compatible with `istio.v1.auth.IstioCertificateService`.
#[allow(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    clippy::or_fun_call,
    reason = "generated code"
)]
pub mod ca {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}
