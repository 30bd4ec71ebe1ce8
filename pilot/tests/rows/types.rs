//! Spec 5.4: the types that may go over the wire, each exactly as listed there.

use crate::told::{Told, World};
use pilot::translate::cache::ResourceType;
use serde_json::Value;
use std::collections::BTreeSet;

const RULES: &str = "
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [reviews]
  http:
  - corsPolicy: {allowOrigins: [{exact: a}]}
    fault: {abort: {httpStatus: 503, percentage: {value: 1}}}
    retries: {attempts: 3, retryRemoteLocalities: true}
    route: [{destination: {host: reviews}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec: {rules: [{to: [{operation: {paths: ['/a/{*}']}}]}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e}
spec: {hosts: [far.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.80, selector: {app: reviews}, ports: [{name: grpc-web, port: 9000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: grpc-web, port: 9000}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: reviews-1}}]
";

fn world() -> World {
    World::with_mesh("accessLogFile: /dev/stdout\ndefaultProviders: {metrics: [prometheus]}\n", RULES)
}

/// Adds every type of a nested message; of a `TypedStruct` the type that it stands for too.
fn collect(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for key in ["@type", "type_url"] {
                out.extend(map.get(key).and_then(Value::as_str).map(|url| proto::any::type_name(url).to_owned()));
            }
            map.values().for_each(|inner| collect(inner, out));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect(inner, out)),
        _ => {}
    }
}

fn types(told: &Told) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (kind, get) in [
        (ResourceType::Cluster, Told::cluster as fn(&Told, &str) -> Value),
        (ResourceType::Listener, Told::listener),
        (ResourceType::Route, Told::routes),
    ] {
        for name in told.names(kind) {
            collect(&get(told, &name), &mut out);
        }
    }
    out
}

fn holds(told: &[&BTreeSet<String>], wanted: &[&str]) {
    for name in wanted {
        assert!(told.iter().any(|types| types.contains(*name)), "nobody is told {name}: {told:#?}");
    }
}

// spec: XT-1, XT-2, XT-3, XT-4, XT-7, XT-9, XT-10, XT-12
#[test]
fn every_type_of_the_checklist_is_sent_under_its_name() {
    let (client, server, gateway) = (types(&world().client()), types(&world().server()), types(&world().gateway()));
    let all = [&client, &server, &gateway];
    holds(
        &all,
        &[
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "envoy.extensions.filters.network.rbac.v3.RBAC",
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
            "envoy.extensions.filters.http.router.v3.Router",
            "envoy.extensions.filters.http.cors.v3.Cors",
            "envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "envoy.extensions.filters.http.fault.v3.HTTPFault",
            "envoy.extensions.filters.http.rbac.v3.RBAC",
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
            "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
        ],
    );
    let kinds: BTreeSet<String> = world()
        .client()
        .names(ResourceType::Cluster)
        .iter()
        .map(|name| world().client().cluster(name)["type"].as_str().unwrap_or("STATIC").to_owned())
        .collect();
    assert_eq!(kinds, ["EDS", "ORIGINAL_DST", "STATIC", "STRICT_DNS"].map(str::to_owned).into());
}

// spec: XT-5, XT-6, XM-5
#[test]
fn istios_private_types_go_to_proxies_that_have_them_alone() {
    let private = [
        "stats.PluginConfig",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "udpa.type.v1.TypedStruct",
        "io.istio.http.peer_metadata.Config",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ];
    holds(&[&types(&world().client()), &types(&world().gateway())], &private);
    let own =
        world().node("sidecar~10.0.0.9~client-1.default~default.svc.cluster.local", &["envoy.filters.http.router"]);
    let stock = types(&own);
    for name in private {
        assert!(!stock.contains(name), "a stock Envoy is told {name}");
    }
}

// spec: PI-8
#[test]
fn istios_kinds_are_watched_in_all_their_versions_or_refused_by_name() {
    let state = |api: &str, kind: &str| {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x}}\n");
        let parsed = pilot::source::memory::parse(&text, None);
        match parsed.problems.first() {
            Some(problem) if problem.message.starts_with("not supported yet: kind ") => "later",
            Some(problem) => panic!("{api} {kind}: {problem}"),
            None if parsed.objects.len() == 1 => "watched",
            None => "unused",
        }
    };
    let networking = ["VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar", "WorkloadEntry"];
    for (kind, version) in networking.iter().flat_map(|kind| ["v1", "v1beta1", "v1alpha3"].map(|v| (kind, v))) {
        assert_eq!(state(&format!("networking.istio.io/{version}"), kind), "watched", "{kind} {version}");
    }
    for (kind, version) in
        ["PeerAuthentication", "AuthorizationPolicy"].iter().flat_map(|kind| ["v1", "v1beta1"].map(|v| (kind, v)))
    {
        assert_eq!(state(&format!("security.istio.io/{version}"), kind), "watched", "{kind} {version}");
    }
    for version in ["v1", "v1alpha1"] {
        assert_eq!(state(&format!("telemetry.istio.io/{version}"), "Telemetry"), "watched", "{version}");
    }
    for (api, kind) in [
        ("networking.istio.io/v1", "WorkloadGroup"),
        ("networking.istio.io/v1beta1", "ProxyConfig"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin"),
        ("extensions.istio.io/v1alpha1", "TrafficExtension"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ] {
        assert_eq!(state(api, kind), "later", "{api} {kind}");
    }
    assert_eq!(state("apps/v1", "Deployment"), "unused");
}
