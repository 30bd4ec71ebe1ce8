//! `proxy-config route` (spec CT-5).

use super::{Shown, items, member, origin, path, sections, text};
use crate::output::Table;
use serde_json::Value;

/// Which routes to show.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Name of the route configuration.
    #[arg(long)]
    pub(super) name: Option<String>,
}

/// Route configurations of all states, a row per route.
pub(super) fn show(dump: &Value, filter: &Filter) -> Shown {
    let mut table = Table::new(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    let mut values = Vec::new();
    for section in sections(dump, "RoutesConfigDump") {
        let entries = items(section, "static_route_configs").iter().chain(items(section, "dynamic_route_configs"));
        for config in entries.map(|entry| member(entry, "route_config")) {
            let name = text(&config["name"]);
            if filter.name.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            for host in items(config, "virtual_hosts") {
                let domains = domains(items(host, "domains"));
                for route in items(host, "routes") {
                    let (matched, fallback) = matched(route);
                    let service = origin(route, "virtual-service").unwrap_or(fallback);
                    table.row([name, text(&host["name"]), &domains, &matched, &service]);
                }
            }
            values.push(config.clone());
        }
    }
    (table, values)
}

/// The match as istioctl writes it, and what stands for the virtual service where there is none.
pub(super) fn matched(route: &Value) -> (String, String) {
    let wanted = member(route, "match");
    let prefix = text(&wanted["prefix"]);
    let separated = text(member(wanted, "path_separated_prefix"));
    let regex = text(path(wanted, &["safe_regex", "regex"]));
    let mut shown = if !text(&wanted["path"]).is_empty() {
        text(&wanted["path"]).to_owned()
    } else if !separated.is_empty() {
        format!("PathSeparatedPrefix:{separated}")
    } else if !regex.is_empty() {
        format!("regex {regex}")
    } else {
        format!("{prefix}*")
    };
    let names: Vec<&str> = items(wanted, "headers").iter().map(|header| text(&header["name"])).collect();
    if !names.is_empty() {
        shown.push_str(&format!(" headers {}", names.join(",")));
    }
    let status = path(route, &["direct_response", "status"]).as_u64();
    (shown, status.map(|status| status.to_string()).unwrap_or_default())
}

/// Domains without ports and without the forms in between; of more than two the rest is counted.
fn domains(all: &[Value]) -> String {
    let plain: Vec<&str> = all.iter().map(text).filter(|d| !has_port(d) && !d.ends_with('.')).collect();
    let partial = |domain: &str| {
        let longer = |other: &&str| other.strip_prefix(domain).is_some_and(|rest| rest.starts_with('.'));
        domain.contains(".svc") && plain.iter().any(longer)
    };
    let shown: Vec<&str> = plain.iter().copied().filter(|domain| !partial(domain)).collect();
    match shown.as_slice() {
        [] => all.first().map(text).unwrap_or_default().to_owned(),
        [first, second, rest @ ..] if !rest.is_empty() => format!("{first}, {second} + {} more...", rest.len()),
        few => few.join(", "),
    }
}

fn has_port(domain: &str) -> bool {
    let after_bracket = domain.rsplit(']').next().unwrap_or(domain);
    after_bracket.rsplit_once(':').is_some_and(|(_, port)| port == "*" || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use serde_json::json;

    // spec: CT-5
    #[test]
    fn a_row_per_route_with_its_virtual_service() {
        let config = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews";
        let names =
            ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local", "10.0.0.3"];
        let domains: Vec<String> =
            names.iter().flat_map(|n| [format!("{n}."), (*n).to_owned(), format!("{n}:9080")]).collect();
        let dump = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": [{"route_config": {"name": "9080", "virtual_hosts": [{
                "name": "reviews.default.svc.cluster.local:9080", "domains": domains,
                "routes": [
                    {"match": {"path": "/a", "headers": [{"name": "end-user"}]}, "metadata": {"filter_metadata": {"istio": {"config": config}}}},
                    {"match": {"safe_regex": {"regex": "/b.*"}}},
                    {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
                    {"match": {"path_separated_prefix": "/c"}},
                ],
            }]}}, {"route_config": {"name": "80"}}],
        }]});
        let (table, values) = show(&dump, &Filter { name: Some("9080".into()) });
        let lines: Vec<String> = table.lines().iter().map(|line| words(line)).collect();
        let head = "9080|reviews.default.svc.cluster.local:9080|reviews, reviews.default + 2 more...";
        assert_eq!(
            lines,
            [
                "NAME|VHOST NAME|DOMAINS|MATCH|VIRTUAL SERVICE".to_owned(),
                format!("{head}|/a headers end-user|reviews.default"),
                format!("{head}|regex /b.*"),
                format!("{head}|/*|404"),
                format!("{head}|PathSeparatedPrefix:/c"),
            ]
        );
        assert_eq!(values.len(), 1);
    }
}
