//! `proxy-config cluster` (spec CT-3).

use super::{Shown, items, member, origin, parts, sections, text};
use crate::output::Table;
use serde_json::Value;

/// Which clusters to show.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Host of the service.
    #[arg(long)]
    pub(super) fqdn: Option<String>,
    /// inbound or outbound.
    #[arg(long)]
    pub(super) direction: Option<String>,
    /// Port of the service.
    #[arg(long)]
    pub(super) port: Option<String>,
    /// Subset of the service.
    #[arg(long)]
    pub(super) subset: Option<String>,
}

impl Filter {
    fn accepts(&self, [direction, port, subset, fqdn]: [&str; 4]) -> bool {
        let fits = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        fits(&self.direction, direction)
            && fits(&self.port, port)
            && fits(&self.subset, subset)
            && self.fqdn.as_ref().is_none_or(|wanted| fqdn.contains(wanted.as_str()))
    }
}

/// Clusters of all states.
pub(super) fn show(dump: &Value, filter: &Filter) -> Shown {
    let mut table = Table::new(&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"]);
    let mut values = Vec::new();
    for section in sections(dump, "ClustersConfigDump") {
        for state in ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"] {
            let clusters = items(section, state).iter().map(|entry| member(entry, "cluster"));
            // Of one that was refused there is the reason alone.
            for cluster in clusters.filter(|cluster| !cluster.is_null()) {
                let name = text(&cluster["name"]);
                let [direction, port, subset, fqdn] = parts(name).unwrap_or(["", "", "", name]);
                if !filter.accepts([direction, port, subset, fqdn]) {
                    continue;
                }
                let rule = origin(cluster, "destination-rule").unwrap_or_default();
                let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
                table.row([fqdn.to_owned(), dash(port), dash(subset), dash(direction), kind(cluster).to_owned(), rule]);
                values.push(cluster.clone());
            }
        }
    }
    table.sort();
    (table, values)
}

fn kind(cluster: &Value) -> &str {
    let custom = text(super::path(cluster, &["cluster_type", "name"]));
    match (text(&cluster["type"]), custom) {
        ("", "") => "STATIC", // the default of the enum is left out of JSON
        ("", custom) => custom,
        (kind, _) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use serde_json::json;

    fn dump() -> Value {
        let rule = "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews";
        json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "static_clusters": [{"cluster": {"name": "xds-grpc"}}],
            "dynamic_active_clusters": [
                {"cluster": {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "type": "EDS",
                             "metadata": {"filter_metadata": {"istio": {"config": rule}}}}},
                {"cluster": {"name": "inbound|9080||", "type": "ORIGINAL_DST"}},
            ],
            "dynamic_warming_clusters": [{"error_state": {"details": "outbound|80||a: lb_policy: is wrong"}}],
        }, {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_clusters": [{}]}]})
    }

    // spec: CT-3
    #[test]
    fn columns_are_those_of_istioctl() {
        let (table, values) = show(&dump(), &Filter::default());
        let lines = table.lines();
        assert_eq!(words(&lines[0]), "SERVICE FQDN|PORT|SUBSET|DIRECTION|TYPE|DESTINATION RULE");
        assert_eq!(words(&lines[1]), "9080|-|inbound|ORIGINAL_DST");
        assert_eq!(words(&lines[2]), "reviews.default.svc.cluster.local|9080|v1|outbound|EDS|reviews.default");
        assert_eq!(words(&lines[3]), "xds-grpc|-|-|-|STATIC");
        assert_eq!(values.len(), 3);
    }

    // spec: CT-3
    #[test]
    fn filters_choose() {
        let count = |filter: Filter| show(&dump(), &filter).1.len();
        assert_eq!(count(Filter { direction: Some("outbound".into()), ..Filter::default() }), 1);
        assert_eq!(count(Filter { port: Some("9080".into()), ..Filter::default() }), 2);
        assert_eq!(count(Filter { subset: Some("v1".into()), fqdn: Some("reviews".into()), ..Filter::default() }), 1);
        assert_eq!(count(Filter { fqdn: Some("ratings".into()), ..Filter::default() }), 0);
    }
}
