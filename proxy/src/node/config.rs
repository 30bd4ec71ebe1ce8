//! `Node` → its facts.

use super::NodeFacts;
use crate::telemetry::istio::Workload;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::envoy::core::Node;
use proto::envoy::wkt::{Struct, Value, value::Kind};
use std::sync::Arc;

impl NodeFacts {
    /// The facts of `node`; `identity` is the proxy's SPIFFE id, where it is known.
    pub fn of(node: &Node, identity: Option<&str>) -> Self {
        let metadata = node.metadata.clone().unwrap_or_default();
        let text = |path: &[&str]| lookup(&metadata, path);
        let workload = Workload::new(text, identity);
        let kind = node.id.split('~').next().unwrap_or_default();
        let pairs = [
            ("namespace", text(&["NAMESPACE"])),
            ("cluster", text(&["CLUSTER_ID"])),
            ("service", Some(&*workload.canonical_service)),
            ("revision", Some(&*workload.canonical_revision)),
            ("app", text(&["LABELS", "app"])),
            ("version", text(&["LABELS", "version"])),
            ("workload", text(&["WORKLOAD_NAME"])),
            ("name", text(&["NAME"])),
            ("type", Some(if kind == "router" { "gateway" } else { "pod" })),
            ("identity", identity),
        ];
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let known = pairs.into_iter().filter_map(|(key, text)| Some((key.to_owned(), value(text?))));
        let fields = Struct { fields: known.collect() };
        Self {
            id: node.id.as_str().into(),
            cluster: node.cluster.as_str().into(),
            encoded: Node { extensions: Vec::new(), client_features: Vec::new(), ..node.clone() }
                .encode_to_vec()
                .into(),
            exchange: STANDARD.encode(encode_sorted(&fields)).into(),
            workload: Arc::new(workload),
        }
    }
}

/// The struct with its keys in order, so that equal nodes send equal bytes.
fn encode_sorted(fields: &Struct) -> Vec<u8> {
    let mut keys: Vec<_> = fields.fields.iter().collect();
    keys.sort_by(|a, b| a.0.cmp(b.0));
    keys.into_iter()
        .flat_map(|(key, value)| Struct { fields: [(key.clone(), value.clone())].into() }.encode_to_vec())
        .collect()
}

fn lookup<'a>(fields: &'a Struct, path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    match (fields.fields.get(*first)?.kind.as_ref()?, rest.is_empty()) {
        (Kind::StringValue(text), true) => Some(text),
        (Kind::StructValue(inner), false) => lookup(inner, rest),
        _ => None,
    }
}
