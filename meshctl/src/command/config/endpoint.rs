//! `proxy-config endpoint` and `eds` (spec CT-6).

use super::{Shown, address_of, items, member, path, sections, text};
use crate::output::Table;
use serde_json::Value;

/// Which endpoints to show.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Part of the cluster's name.
    #[arg(long)]
    pub(super) cluster: Option<String>,
    /// Address of the endpoint.
    #[arg(long)]
    pub(super) address: Option<String>,
    /// Port of the endpoint.
    #[arg(long)]
    pub(super) port: Option<u64>,
    /// HEALTHY, UNHEALTHY and so on.
    #[arg(long)]
    pub(super) status: Option<String>,
}

impl Filter {
    fn accepts(&self, cluster: &str, address: &str, port: Option<u64>, status: &str) -> bool {
        self.cluster.as_ref().is_none_or(|wanted| cluster.contains(wanted.as_str()))
            && self.address.as_ref().is_none_or(|wanted| wanted == address)
            && self.port.is_none_or(|wanted| Some(wanted) == port)
            && self.status.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(status))
    }
}

fn joined(address: &str, port: Option<u64>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

/// The health that the control plane gave; protobuf leaves the default out.
fn health(status: &Value) -> &str {
    match text(status) {
        "" | "UNKNOWN" => "HEALTHY",
        other => other,
    }
}

/// Hosts of all clusters with the proxy's own view of their health.
pub(super) fn show(clusters: &Value, filter: &Filter) -> Shown {
    let mut table = Table::new(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    let mut values = Vec::new();
    for cluster in items(clusters, "cluster_statuses") {
        let name = text(&cluster["name"]);
        for host in items(cluster, "host_statuses") {
            let (address, port) = address_of(member(host, "address"));
            let state = member(host, "health_status");
            let status = health(member(state, "eds_health_status"));
            if !filter.accepts(name, &address, port, status) {
                continue;
            }
            let outlier = if member(state, "failed_outlier_check") == true { "FAILED" } else { "OK" };
            table.row([joined(&address, port).as_str(), status, outlier, name]);
            values.push(host.clone());
        }
    }
    table.sort();
    (table, values)
}

/// Endpoints as they were sent.
pub(super) fn show_eds(dump: &Value, filter: &Filter) -> Shown {
    let mut table = Table::new(&["NAME", "STATUS", "LOCALITY", "CLUSTER"]);
    let mut values = Vec::new();
    for section in sections(dump, "EndpointsConfigDump") {
        let entries =
            items(section, "static_endpoint_configs").iter().chain(items(section, "dynamic_endpoint_configs"));
        for assignment in entries.map(|entry| member(entry, "endpoint_config")) {
            let name = text(member(assignment, "cluster_name"));
            for group in items(assignment, "endpoints") {
                let locality = ["region", "zone", "sub_zone"].map(|part| text(path(group, &["locality", part])));
                let locality = locality.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
                for endpoint in items(group, "lb_endpoints") {
                    let (address, port) = address_of(path(endpoint, &["endpoint", "address"]));
                    let status = health(member(endpoint, "health_status"));
                    if !filter.accepts(name, &address, port, status) {
                        continue;
                    }
                    table.row([joined(&address, port).as_str(), status, &locality, name]);
                    values.push(endpoint.clone());
                }
            }
        }
    }
    table.sort();
    (table, values)
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use serde_json::json;

    // spec: CT-6
    #[test]
    fn hosts_show_health_and_outlier_check() {
        let host = |address: &str, state: Value| json!({"address": {"socket_address": {"address": address, "port_value": 9080}}, "health_status": state});
        let clusters = json!({"cluster_statuses": [{"name": "outbound|9080||reviews", "host_statuses": [
            host("10.0.0.2", json!({"eds_health_status": "UNHEALTHY"})),
            host("10.0.0.1", json!({"eds_health_status": "HEALTHY", "failed_outlier_check": true})),
            host("fd00::1", json!({})),
        ]}]});
        let (table, _) = show(&clusters, &Filter::default());
        let lines: Vec<String> = table.lines().iter().map(|line| words(line)).collect();
        assert_eq!(
            lines,
            [
                "ENDPOINT|STATUS|OUTLIER CHECK|CLUSTER",
                "10.0.0.1:9080|HEALTHY|FAILED|outbound|9080||reviews",
                "10.0.0.2:9080|UNHEALTHY|OK|outbound|9080||reviews",
                "[fd00::1]:9080|HEALTHY|OK|outbound|9080||reviews",
            ]
        );
        let some = |filter: Filter| show(&clusters, &filter).1.len();
        assert_eq!(some(Filter { status: Some("unhealthy".into()), ..Filter::default() }), 1);
        assert_eq!(some(Filter { address: Some("10.0.0.1".into()), port: Some(9080), ..Filter::default() }), 1);
        assert_eq!(some(Filter { cluster: Some("ratings".into()), ..Filter::default() }), 0);
    }

    // spec: CT-6
    #[test]
    fn eds_shows_localities() {
        let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}}}});
        let dump = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "c", "endpoints": [
                {"locality": {"region": "r", "zone": "z"}, "lb_endpoints": [endpoint]}]}}],
        }]});
        let (table, _) = show_eds(&dump, &Filter::default());
        assert_eq!(words(&table.lines()[0]), "NAME|STATUS|LOCALITY|CLUSTER");
        assert_eq!(words(&table.lines()[1]), "10.0.0.1:1|HEALTHY|r/z|c");
    }
}
