//! mixer: policy, telemetry and the page. It has no rights at the API server.

use super::workload::{Program, mount, token};
use super::{Spec, account, citadel, service};
use proto::wire::{LABEL_TLS_MODE, PORT_XDS_TLS};
use serde_json::{Value, json};

/// Name of everything that is mixer's.
const NAME: &str = "mixer";

pub(super) fn objects(spec: &Spec) -> Vec<Value> {
    let namespace = spec.namespace();
    let program = Program {
        name: NAME,
        app: NAME,
        image: spec.image(NAME),
        args: [
            "serve",
            "--grpc-addr=:9091",
            "--http-addr=:8080",
            "--monitoring-addr=:15014",
            &format!("--pilot=https://istiod.{namespace}.svc:{PORT_XDS_TLS}"),
            &format!("--ca-addr={}.{namespace}.svc:{}", citadel::NAME, citadel::PORT),
            &format!("--identity=spiffe://{}/ns/{namespace}/sa/{NAME}", spec.trust_domain().replace('@', ".")),
            &format!("--trust-domain-aliases={}", spec.trust_domain_aliases().join(",")),
            "--state-dir=/var/run/secrets/mixer",
            "--otlp-grpc-addr=:4317",
            "--otlp-http-addr=:4318",
            "--zipkin-addr=:9411",
        ]
        .map(str::to_owned)
        .to_vec(),
        ports: &[
            ("grpc-mixer", 9091),
            ("http-page", 8080),
            ("http-monitoring", 15014),
            ("grpc-otlp", 4317),
            ("http-otlp", 4318),
            ("http-zipkin", 9411),
        ],
        ready: ("/ready", 15014),
        k8s: "components.mixer.k8s",
    };
    let ports: Vec<(&str, u16, u16)> = program.ports.iter().map(|(name, port)| (*name, *port, *port)).collect();
    let mut deployment = program.deployment(spec, NAME);
    deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] = json!(false);
    // Proxies speak mTLS to it, as to every workload of the mesh.
    deployment["spec"]["template"]["metadata"]["labels"][LABEL_TLS_MODE] = json!("istio");
    mount(&mut deployment, "istio-token", "/var/run/secrets/tokens", &token(spec));
    mount(&mut deployment, "roots", "/var/run/secrets/istio", &json!({"configMap": {"name": spec.roots()}}));
    mount(&mut deployment, "identity", "/var/run/secrets/mixer", &json!({"emptyDir": {"medium": "Memory"}}));
    let replicas = spec.at("components.mixer.k8s.replicaCount");
    deployment["spec"]["replicas"] = if replicas.is_null() { 1.into() } else { replicas.clone() };
    let mut objects = vec![account(spec, NAME), service(spec, NAME, NAME, &ports), deployment];
    objects.extend(program.network_policy(spec, &json!({"app": NAME})));
    objects
}
