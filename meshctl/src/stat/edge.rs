//! Who speaks to whom, and whether mutual TLS protects it (CT-44).

use super::scrape::{Labels, Scrape};
use serde::Serialize;
use std::collections::BTreeMap;

/// One direction between two workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Workload that asks.
    pub src: String,
    /// Its namespace.
    pub src_namespace: String,
    /// Workload that is asked; the service where no workload answered.
    pub dst: String,
    /// Its namespace.
    pub dst_namespace: String,
    /// Identity of who asks, as the server's proxy verified it.
    pub client_id: String,
    /// Identity of who is asked.
    pub server_id: String,
    /// Whether every request came by mutual TLS.
    pub secured: bool,
    /// Why not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
}

/// What is known of an edge.
#[derive(Default)]
struct Known {
    client_id: String,
    server_id: String,
    told: bool,
    plain: bool,
}

/// The edges of everything that was counted so far, sorted.
pub fn edges(scrape: &Scrape) -> Vec<Edge> {
    let mut known: BTreeMap<[String; 4], Known> = BTreeMap::new();
    let counted = |family: &str| matches!(family, "istio_requests_total" | "istio_tcp_connections_opened_total");
    for ((_, labels), _) in scrape.values.iter().filter(|((family, _), value)| counted(family) && **value > 0.0) {
        known.entry(ends(labels)).or_default().add(labels);
    }
    let edge = |([src_namespace, src, dst_namespace, dst], known): ([String; 4], Known)| {
        let reason = match (known.told, known.plain, known.client_id.is_empty()) {
            (true, false, _) => "",
            (true, true, true) => "no TLS: the client has no identity",
            (true, true, false) => "no TLS: some requests came in plaintext",
            (false, ..) => "not told: the server has no proxy, or nothing reached it",
        };
        let (client_id, server_id) = (known.client_id, known.server_id);
        Edge { src, src_namespace, dst, dst_namespace, client_id, server_id, secured: reason.is_empty(), reason }
    };
    known.into_iter().map(edge).collect()
}

fn ends(labels: &Labels) -> [String; 4] {
    let or = |value: &str, other: &str| if value.is_empty() { other.to_owned() } else { value.to_owned() };
    let (service, namespace) = (labels.get("destination_service_name"), labels.get("destination_service_namespace"));
    [
        or(labels.get("source_workload_namespace"), "-"),
        or(labels.get("source_workload"), "outside"),
        or(labels.get("destination_workload_namespace"), &or(namespace, "-")),
        or(labels.get("destination_workload"), &or(service, "outside")),
    ]
}

impl Known {
    fn add(&mut self, labels: &Labels) {
        for (own, name) in [(&mut self.client_id, "source_principal"), (&mut self.server_id, "destination_principal")] {
            if own.is_empty() {
                labels.get(name).clone_into(own);
            }
        }
        if labels.get("reporter") == "destination" {
            self.told = true;
            self.plain |= labels.get("connection_security_policy") != "mutual_tls";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-44
    #[test]
    fn an_edge_is_secured_where_the_server_says_so() {
        let line = |reporter: &str, src: &str, dst: &str, policy: &str, id: &str| {
            format!(
                "istio_requests_total{{reporter=\"{reporter}\",source_workload=\"{src}\",source_workload_namespace=\"n\",\
                 destination_workload=\"{dst}\",destination_workload_namespace=\"n\",source_principal=\"{id}\",\
                 connection_security_policy=\"{policy}\"}} 3\n"
            )
        };
        let text = [
            line("destination", "a", "b", "mutual_tls", "spiffe://a"),
            line("source", "a", "b", "unknown", "spiffe://a"),
            line("destination", "unknown", "b", "none", "unknown"),
            line("source", "a", "unknown", "unknown", "spiffe://a"),
        ]
        .concat();
        let edges = edges(&Scrape::parse(&text));
        let of = |src: &str, dst: &str| edges.iter().find(|edge| edge.src == src && edge.dst == dst).unwrap();
        assert_eq!(edges.len(), 3);
        assert!(of("a", "b").secured && of("a", "b").client_id == "spiffe://a");
        assert_eq!(of("outside", "b").reason, "no TLS: the client has no identity");
        assert!(of("a", "outside").reason.starts_with("not told"));
    }
}
