//! A stock Envoy as a sidecar beside ours, under the same pilot: its certificate comes from citadel's agent in its pod.

use super::space::Space;
use crate::images;
use e2e::cluster::PATIENCE;
use serde_json::{Value, json};
use std::time::Instant;

/// Namespace of the scenario, and the name of all that is the Envoy's.
const NAMESPACE: &str = "stock";
const NAME: &str = "shop";
/// Where the agent of its pod serves secrets.
const SOCKET: &str = "/var/run/agent/sds.sock";

fn http2(name: &str, address: &Value, kind: &str) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": name, "type": kind, "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    })
}

/// What Istio's agent would write for its Envoy; name and address of the pod come with the flags.
fn bootstrap() -> Value {
    let (istiod, ads) = ("istiod.istio-system.svc", json!({"ads": {}, "resource_api_version": "V3"}));
    let secret = |name: &str| {
        let services = json!([{"envoy_grpc": {"cluster_name": "sds-grpc"}}]);
        let source = json!({"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": services});
        json!({"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": source}})
    };
    let mut pilot =
        http2("xds-grpc", &json!({"socket_address": {"address": istiod, "port_value": 15012}}), "STRICT_DNS");
    pilot["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": istiod,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [secret("default")],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": istiod}}],
                },
                "validation_context_sds_secret_config": secret("ROOTCA"),
            },
        },
    }});
    let services = json!([{"envoy_grpc": {"cluster_name": "xds-grpc"}}]);
    json!({
        "node": {
            "cluster": format!("{NAME}.{NAMESPACE}"),
            "metadata": {
                "NAMESPACE": NAMESPACE, "SERVICE_ACCOUNT": NAME, "WORKLOAD_NAME": NAME, "CLUSTER_ID": "Kubernetes",
                "LABELS": {"app": NAME}, "INTERCEPTION_MODE": "REDIRECT", "MESH_ID": "cluster.local", "PROXY_CONFIG": {},
            },
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": services,
            },
            "cds_config": ads, "lds_config": ads,
        },
        "static_resources": {"clusters": [pilot, http2("sds-grpc", &json!({"pipe": {"path": SOCKET}}), "STATIC")]},
    })
}

/// The pod: redirection as injection makes it, the agent, the Envoy, and an application that also calls.
fn deployment() -> Value {
    let variable = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let names = json!([variable("POD", "metadata.name"), variable("IP", "status.podIP")]);
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let token = json!({"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200, "path": "token"}});
    let proxy_user = json!({"runAsUser": 1337, "runAsGroup": 1337});
    let rules = "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x -b * -d 15090,15020,15021";
    let rules: Vec<&str> =
        rules.split(' ').flat_map(|word| if word == "-x" { vec!["-x", ""] } else { vec![word] }).collect();
    let node = format!("sidecar~$(IP)~$(POD).{NAMESPACE}~{NAMESPACE}.svc.cluster.local");
    let own = "node: {metadata: {NAME: $(POD), INSTANCE_IPS: $(IP)}}";
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": {
        "selector": {"matchLabels": {"app": NAME}},
        "template": {
            "metadata": {"labels": {
                "app": NAME, "sidecar.istio.io/inject": "false", "security.istio.io/tlsMode": "istio",
            }},
            "spec": {
                "serviceAccountName": NAME, "terminationGracePeriodSeconds": 2,
                "securityContext": {"fsGroup": 1337},
                "initContainers": [{
                    "name": "istio-init", "image": "ferromesh/proxy:0.1.0", "command": ["pilot-agent"], "args": rules,
                    "securityContext": {
                        "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
                        "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
                    },
                }],
                "containers": [
                    {
                        "name": "agent", "image": "ferromesh/citadel:0.1.0", "securityContext": proxy_user,
                        "args": [
                            "agent", "--ca-addr=istiod.istio-system.svc:15012", "--ca-root=/var/run/roots/root-cert.pem",
                            "--token-file=/var/run/tokens/token", format!("--socket={SOCKET}"),
                            format!("--identity=spiffe://cluster.local/ns/{NAMESPACE}/sa/{NAME}"),
                        ],
                        "volumeMounts": [
                            mount("agent", "/var/run/agent"), mount("token", "/var/run/tokens"), mount("roots", "/var/run/roots"),
                        ],
                    },
                    {
                        "name": "envoy", "image": "ferromesh/envoy:0.1.0", "env": names, "securityContext": proxy_user,
                        "args": [
                            "-c", "/etc/envoy/bootstrap.json", "--service-node", node, "--config-yaml", own,
                            "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
                        ],
                        "volumeMounts": [mount("agent", "/var/run/agent"), mount("bootstrap", "/etc/envoy")],
                    },
                    {
                        "name": NAME, "image": "ferromesh/tools:0.1.0",
                        "command": ["meshctl", "server", "-http-port", "8080"],
                    },
                ],
                "volumes": [
                    {"name": "agent", "emptyDir": {"medium": "Memory"}},
                    {"name": "token", "projected": {"sources": [token]}},
                    {"name": "roots", "configMap": {"name": "istio-ca-root-cert"}},
                    {"name": "bootstrap", "configMap": {"name": NAME}},
                ],
            },
        },
    }})
}

/// Objects of the scenario.
fn objects() -> String {
    let own = |kind: &str, more: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": NAME}});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let ports = json!([{"name": "http", "port": 8080}]);
    let istio = |api: &str, kind: &str, spec: Value| json!({"apiVersion": api, "kind": kind, "metadata": {"name": NAME}, "spec": spec});
    let (security, networking) = ("security.istio.io/v1", "networking.istio.io/v1");
    let here = json!({"destination": {"host": NAME}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        own("ServiceAccount", json!({})),
        own("ConfigMap", json!({"data": {"bootstrap.json": bootstrap().to_string()}})),
        own("Service", json!({"spec": {"selector": {"app": NAME}, "ports": ports}})),
        istio(security, "PeerAuthentication", json!({"mtls": {"mode": "STRICT"}})),
        istio(security, "AuthorizationPolicy", json!({
            "selector": {"matchLabels": {"app": NAME}}, "action": "DENY",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/stock/sa/client"]}}],
                       "to": [{"operation": {"paths": ["/admin"]}}]}],
        })),
        istio(networking, "VirtualService", json!({
            "hosts": [NAME], "http": [{"headers": {"response": {"set": {"x-rule": "seen"}}}, "route": [here]}],
        })),
        deployment(),
    ]})
    .to_string()
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn a_stock_envoy_is_a_sidecar_beside_ours() {
    let space = Space::with_bookshop(NAMESPACE);
    let directory = tempfile::tempdir().unwrap();
    let envoy = meshctl::demo::programs::fetch_envoy().unwrap();
    images::load_envoy(&space.mesh.cluster, directory.path(), &envoy);
    space.apply(&objects());
    space.rolled_out();
    space.start_stranger();
    // In: from ours to the Envoy, which knows who asks.
    let url = format!("http://{NAME}:8080/");
    let live = space.until(&url, &[], |status, _| status == 200);
    assert!(space.shell(&format!("meshctl curl -curl-stdout-headers {url}")).contains("x-rule: seen"));
    let denied = space.get(&format!("{url}admin"), &[]);
    assert!(denied.0 == 403 && denied.1.starts_with("RBAC: access denied"), "by its path and by who asks: {denied:?}");
    let line = format!("meshctl curl -timeout 3s http://{}:8080/ 2>&1 || true", space.address(NAME));
    let stranger = space.kubectl(&["exec", "stranger", "--", "sh", "-c", &line]).unwrap();
    assert!(!stranger.contains("200 OK"), "STRICT shuts out who has no certificate: {stranger}");
    // Out: from the Envoy to ours, under STRICT.
    let ask = |url: &str| {
        let line = format!("meshctl curl {url} 2>&1 || true");
        space.kubectl(&["exec", &format!("deploy/{NAME}"), "-c", NAME, "--", "sh", "-c", &line]).unwrap()
    };
    let begun = Instant::now();
    while !ask("http://details:9080/details/0").contains("PublisherA") {
        assert!(begun.elapsed() < PATIENCE, "{}", ask("http://details:9080/details/0"));
    }
    let good = (0..50).filter(|_| ask("http://productpage:9080/api/v1/products/0").contains("PublisherA")).count();
    assert_eq!(good, 50);
    let (_, status) = crate::install::meshctl(&space.mesh.cluster, &["proxy-status", "-n", NAMESPACE, "-o", "json"]);
    let shown: Value = serde_json::from_str(&status).unwrap_or_else(|_| panic!("{status}"));
    let row = shown.as_array().unwrap().iter().find(|row| row.to_string().contains(&format!("{NAME}-")));
    let row = row.unwrap_or_else(|| panic!("pilot does not know it: {shown}"));
    for (kind, resources) in row["resources"].as_object().unwrap() {
        assert_eq!(resources["sent"], resources["acked"], "{kind}: {row}");
        assert!(resources["lastError"].is_null(), "{kind}: {row}");
    }
    space.figure(&format!("the Envoy answers {:.1} s after its pod; 50 of 50 calls out", live.as_secs_f64()));
}
