//! Requests of a bookshop, as Envoy's filter for external authorization reports them.

use mixer::policy::Engine;
use mixer::policy::load::Loader;
use mixer::serve::ext_authz::ExtAuthz;
use mixer::source::Texts;
use mixer::workload::{Follower, Table};
use proto::envoy::auth::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use proto::envoy::auth::{AttributeContext, CheckRequest};
use proto::envoy::core::{Address, SocketAddress, address, socket_address};
use std::sync::Arc;

/// Name, address and labels of the workloads; all are in the namespace `default`.
const WORKLOADS: [(&str, &str, &str); 6] = [
    ("productpage", "10.0.0.1", r#"{"app":"productpage","version":"v1"}"#),
    ("reviews-v2", "10.0.0.2", r#"{"app":"reviews","version":"v2"}"#),
    ("reviews-v3", "10.0.0.3", r#"{"app":"reviews","version":"v3"}"#),
    ("ratings", "10.0.0.4", r#"{"app":"ratings","version":"v1"}"#),
    ("ingress", "10.0.0.5", r#"{"istio":"ingressgateway"}"#),
    ("details", "10.0.0.6", r#"{"app":"details"}"#),
];

/// The table of these.
pub(crate) fn table() -> Table {
    let one = |(name, address, labels): &(&str, &str, &str)| {
        let app = name.split('-').next().unwrap();
        format!(
            r#"{{"name":"{name}-0","namespace":"default","addresses":["{address}"],"serviceAccount":"bookinfo-{app}",
            "labels":{labels},"workload":"{name}","services":["{app}.default.svc.cluster.local"]}}"#
        )
    };
    let all: Vec<String> = WORKLOADS.iter().map(one).collect();
    Table::new(serde_json::from_str(&format!("[{}]", all.join(","))).unwrap())
}

/// An engine with this YAML in force; panics where anything of it is refused.
pub(crate) fn engine(yaml: &str) -> Arc<Engine> {
    let engine = Arc::new(Engine::new());
    engine.load(&mut Loader::default(), &texts(yaml));
    assert!(engine.view().problems.is_empty(), "{:?}", engine.view().problems);
    engine
}

/// External authorization by an engine, with the table of the bookshop.
pub(crate) fn ext_authz(engine: &Arc<Engine>) -> ExtAuthz {
    ExtAuthz::new(engine.clone(), Follower::fixed(table()), engine.meters().unwrap().decisions)
}

/// One file.
pub(crate) fn texts(yaml: &str) -> Texts {
    Texts::from([("a.yaml".into(), yaml.to_owned())])
}

fn peer(name: &str, port: u16) -> Peer {
    let (.., ip, _) = WORKLOADS.iter().find(|(known, ..)| *known == name).unwrap_or(&("", "192.0.2.1", ""));
    let socket = SocketAddress {
        address: (*ip).to_owned(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    Peer { address: Some(address), ..Peer::default() }
}

/// A GET from one workload to another with these headers.
pub(crate) fn get(source: &str, destination: &str, headers: &[(&str, &str)]) -> CheckRequest {
    let app = destination.split('-').next().unwrap();
    let http = HttpRequest {
        method: "GET".to_owned(),
        host: format!("{app}:9080"),
        path: "/".to_owned(),
        scheme: "http".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        size: -1,
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(source, 40_000)),
            destination: Some(peer(destination, 9080)),
            request: Some(Request { http: Some(http), ..Request::default() }),
            tls_session: Some(TlsSession::default()),
            ..AttributeContext::default()
        }),
    }
}
