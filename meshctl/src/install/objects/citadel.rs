//! citadel: its rights end at its own namespace, but for asking whether a token is good.

use super::rights::{READ, in_cluster, in_namespace, rule, rule_for};
use super::workload::Program;
use super::{Spec, account, service};
use citadel::ca::secret::{OWN, PLUGGED};
use serde_json::{Value, json};

/// Name of everything that is citadel's.
pub(super) const NAME: &str = "citadel";
/// Port of the certificate service.
pub(super) const PORT: u16 = 8060;

/// Variables of istiod's with the life of certificates, which are citadel's, and its flags.
const LIVES: [(&str, &str); 2] =
    [("DEFAULT_WORKLOAD_CERT_TTL", "workload-cert-ttl-s"), ("MAX_WORKLOAD_CERT_TTL", "max-workload-cert-ttl-s")];

/// Names under which pilots are found: those of all revisions, which have one identity.
fn hosts(spec: &Spec) -> Vec<String> {
    let namespace = spec.namespace();
    let of = |name: String| [".svc", "", ".svc.cluster.local"].map(|end| format!("{name}.{namespace}{end}"));
    spec.pilots().into_iter().flat_map(of).collect()
}

pub(super) fn objects(spec: &Spec) -> Vec<Value> {
    let namespace = spec.namespace();
    let review = rule("authentication.k8s.io", &["tokenreviews"], &["create"]);
    let own = [
        rule_for("", &["secrets"], &[PLUGGED, OWN], &["get", "list", "watch", "update"]),
        rule_for("", &["configmaps"], &[&spec.roots()], &[READ[0], READ[1], READ[2], "patch"]),
        rule("", &["secrets", "configmaps"], &["create"]),
    ];
    let istiod = format!("spiffe://{}/ns/{namespace}/sa/istiod", spec.trust_domain().replace('@', "."));
    let mut args = vec![
        "serve".to_owned(),
        format!("--log={}", spec.text("values.global.logging.level")),
        format!("--listen=0.0.0.0:{PORT}"),
        "--monitoring-addr=:15014".to_owned(),
        format!("--trust-domain={}", spec.trust_domain()),
        format!("--host={NAME}.{namespace}.svc"),
        format!("--roots-config-map={}", spec.roots()),
        format!("--token-audience={}", spec.audience()),
        format!("--relay={istiod}"),
        format!("--host-names={istiod}={}", hosts(spec).join(",")),
    ];
    for (variable, flag) in LIVES {
        let life = spec.life(variable);
        args.extend(life.map(|life| format!("--{flag}={}", life.as_secs())));
    }
    let program = Program {
        name: NAME,
        app: NAME,
        image: spec.image(NAME),
        args,
        ports: &[("grpc-ca", PORT), ("http-monitoring", 15014)],
        ready: ("/ready", 15014),
        k8s: "components.citadel.k8s",
    };
    let mut objects = vec![account(spec, NAME)];
    objects.extend(in_cluster(spec, NAME, &[review]));
    objects.extend(in_namespace(spec, NAME, &own));
    objects.push(service(spec, NAME, NAME, &[("grpc-ca", PORT, PORT), ("http-monitoring", 15014, 15014)]));
    let mut deployment = program.deployment(spec, NAME);
    let replicas = spec.at("components.citadel.k8s.replicaCount");
    deployment["spec"]["replicas"] = if replicas.is_null() { 1.into() } else { replicas.clone() };
    objects.push(deployment);
    objects.extend(program.network_policy(spec, &json!({"app": NAME})));
    objects
}
