//! `proxy-config listener` (spec CT-4).

use super::{Shown, address_of, items, member, path, sections, text};
use crate::output::Table;
use serde_json::Value;

/// Which listeners to show.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Filter {
    /// Address of the listener.
    #[arg(long)]
    pub(super) address: Option<String>,
    /// Port of the listener.
    #[arg(long)]
    pub(super) port: Option<u64>,
    /// HTTP, TCP or HTTP+TCP.
    #[arg(long = "type")]
    pub(super) kind: Option<String>,
    /// A row per filter chain.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(super) verbose: bool,
}

/// ALPN lists that have a name of their own.
const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];
const MESH_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const MESH_TCP: &[&str] = &["istio-peer-exchange", "istio"];

/// Listeners of all states.
pub(super) fn show(dump: &Value, filter: &Filter) -> Shown {
    let mut table = match filter.verbose {
        true => Table::new(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"]),
        false => Table::new(&["ADDRESSES", "PORT", "TYPE"]),
    };
    let mut values = Vec::new();
    for section in sections(dump, "ListenersConfigDump") {
        let fixed = items(section, "static_listeners").iter().map(|entry| member(entry, "listener"));
        let dynamic =
            items(section, "dynamic_listeners").iter().map(|entry| path(entry, &["active_state", "listener"]));
        for listener in fixed.chain(dynamic).filter(|listener| !listener.is_null()) {
            let (address, port) = address_of(member(listener, "address"));
            let kind = kind(listener);
            let chosen = filter.address.as_ref().is_none_or(|wanted| *wanted == address)
                && filter.port.is_none_or(|wanted| Some(wanted) == port)
                && filter.kind.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind));
            if !chosen {
                continue;
            }
            let more = items(listener, "additional_addresses").iter().map(|a| address_of(member(a, "address")).0);
            let addresses = std::iter::once(address).chain(more).collect::<Vec<_>>().join(", ");
            let port = port.map(|port| port.to_string()).unwrap_or_default();
            if !filter.verbose {
                table.row([addresses, port, kind.to_owned()]);
            } else {
                for chain in chains(listener) {
                    table.row([addresses.clone(), port.clone(), described(chain), destination(chain)]);
                }
            }
            values.push(listener.clone());
        }
    }
    (table, values)
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    let last = Some(member(listener, "default_filter_chain")).filter(|chain| !chain.is_null());
    items(listener, "filter_chains").iter().chain(last)
}

/// What all chains together are for.
fn kind(listener: &Value) -> &'static str {
    let mut found = (false, false);
    for filter in chains(listener).flat_map(|chain| items(chain, "filters")) {
        found.0 |= is_http(filter);
        found.1 |= is_tcp(filter);
    }
    match found {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

fn has_type(filter: &Value, name: &str) -> bool {
    text(&member(filter, "typed_config")["@type"]).ends_with(name)
}

fn is_http(filter: &Value) -> bool {
    has_type(filter, ".HttpConnectionManager")
}

fn is_tcp(filter: &Value) -> bool {
    has_type(filter, ".TcpProxy")
}

fn described(chain: &Value) -> String {
    let wanted = member(chain, "filter_chain_match");
    let mut facts = Vec::new();
    let names: Vec<&str> = items(wanted, "server_names").iter().map(text).collect();
    if !names.is_empty() {
        facts.push(format!("SNI: {}", names.join(",")));
    }
    let transport = text(member(wanted, "transport_protocol"));
    if !transport.is_empty() {
        facts.push(format!("Trans: {transport}"));
    }
    let protocols: Vec<&str> = items(wanted, "application_protocols").iter().map(text).collect();
    match protocols.as_slice() {
        [] => {}
        PLAIN_HTTP => facts.push("App: HTTP".to_owned()),
        MESH_HTTP => facts.push("App: HTTP TLS".to_owned()),
        MESH_TCP => facts.push("App: TCP TLS".to_owned()),
        others => facts.push(format!("App: {}", others.join(","))),
    }
    let port = member(wanted, "destination_port").as_u64();
    let ranges: Vec<String> = items(wanted, "prefix_ranges").iter().map(range).collect();
    match (ranges.is_empty(), port) {
        (true, None) => {}
        (true, Some(port)) => facts.push(format!("Addr: *:{port}")),
        (false, None) => facts.push(format!("Addr: {}", ranges.join(","))),
        (false, Some(port)) => facts.push(format!("Addr: {}:{port}", ranges.join(","))),
    }
    if facts.is_empty() { "ALL".to_owned() } else { facts.join("; ") }
}

fn range(range: &Value) -> String {
    let address = text(member(range, "address_prefix"));
    match member(range, "prefix_len").as_u64() {
        Some(32) if !address.contains(':') => address.to_owned(),
        Some(128) => address.to_owned(),
        length => format!("{address}/{}", length.unwrap_or(0)),
    }
}

fn destination(chain: &Value) -> String {
    let filters = items(chain, "filters");
    if let Some(http) = filters.iter().find(|filter| is_http(filter)) {
        let config = member(http, "typed_config");
        let name = text(path(config, &["rds", "route_config_name"]));
        if !name.is_empty() {
            return format!("Route: {name}");
        }
        let hosts = items(member(config, "route_config"), "virtual_hosts");
        let matches = hosts.iter().flat_map(|host| items(host, "routes")).map(|r| super::route::matched(r).0);
        return format!("Inline Route: {}", matches.collect::<Vec<_>>().join(", "));
    }
    let Some(tcp) = filters.iter().find(|filter| is_tcp(filter)) else { return "Non-HTTP/Non-TCP".to_owned() };
    let config = member(tcp, "typed_config");
    let weighted = items(member(config, "weighted_clusters"), "clusters").iter().map(|c| text(&c["name"]));
    let one = text(&config["cluster"]);
    match one {
        "" => format!("Cluster: {}", weighted.collect::<Vec<_>>().join(", ")),
        name if super::parts(name).is_some() => format!("Cluster: {name}"),
        name => name.to_owned(), // PassthroughCluster, BlackHoleCluster
    }
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use serde_json::json;

    fn dump() -> Value {
        let hcm =
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        let address = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
        json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners": [
                {"active_state": {"listener": {
                    "address": address("0.0.0.0", 9080), "additional_addresses": [{"address": address("::", 9080)}],
                    "filter_chains": [{
                        "filter_chain_match": {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]},
                        "filters": [{"typed_config": {"@type": hcm, "rds": {"route_config_name": "9080"}}}],
                    }],
                    "default_filter_chain": {"filters": [{"typed_config": {"@type": tcp, "cluster": "PassthroughCluster"}}]},
                }}},
                {"active_state": {"listener": {
                    "address": address("0.0.0.0", 15006),
                    "filter_chains": [{
                        "filter_chain_match": {"destination_port": 9080, "transport_protocol": "tls"},
                        "filters": [{"typed_config": {"@type": hcm, "route_config": {"virtual_hosts": [{"routes": [{"match": {"prefix": "/"}}]}]}}}],
                    }, {
                        "filter_chain_match": {"prefix_ranges": [{"address_prefix": "10.0.0.1", "prefix_len": 32}], "application_protocols": ["istio-peer-exchange", "istio"]},
                        "filters": [{"typed_config": {"@type": tcp, "cluster": "inbound|9080||"}}],
                    }],
                }}},
                {"error_state": {}},
            ],
        }]})
    }

    fn filter() -> Filter {
        Filter { address: None, port: None, kind: None, verbose: true }
    }

    // spec: CT-4
    #[test]
    fn a_row_per_filter_chain() {
        let (table, values) = show(&dump(), &filter());
        let lines: Vec<String> = table.lines().iter().map(|line| words(line)).collect();
        assert_eq!(
            lines,
            [
                "ADDRESSES|PORT|MATCH|DESTINATION",
                "0.0.0.0, ::|9080|Trans: raw_buffer; App: HTTP|Route: 9080",
                "0.0.0.0, ::|9080|ALL|PassthroughCluster",
                "0.0.0.0|15006|Trans: tls; Addr: *:9080|Inline Route: /*",
                "0.0.0.0|15006|App: TCP TLS; Addr: 10.0.0.1|Cluster: inbound|9080||",
            ]
        );
        assert_eq!(values.len(), 2);
    }

    // spec: CT-4
    #[test]
    fn filters_choose_and_short_form_shows_the_type() {
        let short = Filter { port: Some(9080), kind: Some("http+tcp".into()), verbose: false, ..filter() };
        let (table, _) = show(&dump(), &short);
        assert_eq!(words(&table.lines()[1]), "0.0.0.0, ::|9080|HTTP+TCP");
        assert!(show(&dump(), &Filter { address: Some("::1".into()), ..filter() }).1.is_empty());
    }
}
