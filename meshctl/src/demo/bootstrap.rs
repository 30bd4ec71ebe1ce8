//! The start configuration of one proxy: what Istio's agent would write for an Envoy, for both data planes alike.

use crate::demo::plan::{MIXER_ACCOUNT, MIXER_GRPC, Plan, Proxy, Workload};
use crate::demo::rootless;
use proto::wire::{
    CLUSTER_MIXER, CLUSTER_SDS, CLUSTER_XDS, PORT_METRICS, PORT_READY, PORT_XDS_PLAIN, SECRET_DEFAULT, SECRET_ROOT,
};
use serde_json::{Value, json};

/// Socket of the admin interface, below the workload's directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Socket of the SDS agent beside an Envoy.
pub const SDS_SOCKET: &str = "sds.sock";

/// The bootstrap of a workload's proxy.
pub fn bootstrap(plan: &Plan, workload: &Workload) -> Value {
    let directory = plan.proxy_directory(workload);
    let socket = |name: &str| json!({"pipe": {"path": directory.join(name)}});
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    // Envoy waits up to 30 s between attempts to reach pilot; an edit should be live sooner after an outage.
    let reconnect = json!({"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}});
    let mut clusters = vec![xds_cluster(), mixer_cluster()];
    let mut resources = json!({});
    if plan.has_envoy(workload) {
        clusters.push(http2(json!({
            "name": CLUSTER_SDS, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": assignment(CLUSTER_SDS, &socket(SDS_SOCKET)),
        })));
        clusters.push(json!({
            "name": "prometheus_stats", "type": "STATIC", "connect_timeout": "0.250s",
            "load_assignment": assignment("prometheus_stats", &socket(ADMIN_SOCKET)),
        }));
        resources["listeners"] = json!([
            local_listener(PORT_METRICS, "/stats/prometheus", "/stats/prometheus"),
            local_listener(PORT_READY, "/healthz/ready", "/ready"),
        ]);
    }
    resources["clusters"] = json!(clusters);
    let mut admin = socket(ADMIN_SOCKET);
    admin["pipe"]["mode"] = json!(0o660);
    let mut bootstrap = json!({
        "node": node(plan, workload),
        "admin": {"address": admin, "profile_path": "/dev/null"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER_XDS, "retry_policy": reconnect}}],
            },
            "cds_config": ads, "lds_config": ads,
        },
        "static_resources": resources,
        "stats_flush_interval": "1s",
        "stats_sinks": [{"name": "envoy.stat_sinks.open_telemetry", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER_MIXER}},
        }}],
    });
    if plan.one_user {
        // SOL_SOCKET, SO_MARK
        let mark = json!({"level": 1, "name": 36, "int_value": rootless::MARK, "state": "STATE_PREBIND"});
        bootstrap["cluster_manager"] = json!({"upstream_bind_config": {"socket_options": [mark]}});
    }
    bootstrap
}

/// Where metrics go, each second.
fn mixer_cluster() -> Value {
    let address = json!({
        "socket_address": {"address": Plan::control_address().to_string(), "port_value": MIXER_GRPC},
    });
    let secret = |name: &str| {
        json!({"name": name, "sds_config": {
            "resource_api_version": "V3", "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER_SDS}}],
            },
        }})
    };
    let identity = format!("spiffe://cluster.local/ns/istio-system/sa/{MIXER_ACCOUNT}");
    let mut cluster = http2(json!({
        "name": CLUSTER_MIXER, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": assignment(CLUSTER_MIXER, &address),
    }));
    cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [secret(SECRET_DEFAULT)],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": identity}}],
                },
                "validation_context_sds_secret_config": secret(SECRET_ROOT),
            },
        },
    }});
    cluster
}

fn node(plan: &Plan, workload: &Workload) -> Value {
    let Workload { name, kube_namespace, account, .. } = workload;
    let kind = if workload.proxy == Proxy::Gateway { "router" } else { "sidecar" };
    json!({
        "id": format!("{kind}~{}~{}.{kube_namespace}~{kube_namespace}.svc.cluster.local", workload.v4, workload.pod_name()),
        "cluster": format!("{name}.{kube_namespace}"),
        "metadata": {
            "NAME": workload.pod_name(), "NAMESPACE": kube_namespace, "WORKLOAD_NAME": name, "SERVICE_ACCOUNT": account,
            "OWNER": format!("kubernetes://apis/apps/v1/namespaces/{kube_namespace}/deployments/{name}"),
            "LABELS": workload.labels(), "INSTANCE_IPS": format!("{},{}", workload.v4, workload.v6),
            "CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local", "NODE_NAME": "this-machine",
            "ISTIO_VERSION": env!("CARGO_PKG_VERSION"), "INTERCEPTION_MODE": "REDIRECT",
            "DNS_CAPTURE": if plan.has_envoy(workload) { "false" } else { "true" },
            "PROXY_CONFIG": {},
        },
    })
}

fn xds_cluster() -> Value {
    let address = json!({
        "socket_address": {"address": Plan::control_address().to_string(), "port_value": PORT_XDS_PLAIN},
    });
    let mut cluster = http2(json!({
        "name": CLUSTER_XDS, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": assignment(CLUSTER_XDS, &address),
    }));
    cluster["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 300}});
    cluster
}

fn http2(mut cluster: Value) -> Value {
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster
}

fn assignment(cluster: &str, address: &Value) -> Value {
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

/// A listener that shows one path of the admin interface, as Istio's bootstrap has them.
fn local_listener(port: u16, path: &str, admin_path: &str) -> Value {
    let route =
        json!({"match": {"path": path}, "route": {"cluster": "prometheus_stats", "prefix_rewrite": admin_path}});
    json!({
        "name": format!("local_{port}"),
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": format!("local_{port}"),
                "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [route]}]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::DataPlane;

    // spec: NI-1
    #[test]
    fn the_node_says_who_the_proxy_is() {
        let plan = Plan::new("t", DataPlane::Ferromesh);
        let sidecar = bootstrap(&plan, plan.workload("reviews-v1").unwrap());
        assert_eq!(sidecar["node"]["id"], "sidecar~10.44.1.3~reviews-v1-0.default~default.svc.cluster.local");
        assert_eq!(sidecar["node"]["cluster"], "reviews-v1.default");
        let gateway = bootstrap(&plan, plan.workload("gateway").unwrap());
        assert!(gateway["node"]["id"].as_str().unwrap().starts_with("router~"));
        assert_eq!(gateway["node"]["metadata"]["LABELS"]["istio"], "ingressgateway");
    }
}
