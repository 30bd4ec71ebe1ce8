//! pilot, under the name of istiod: existing proxies and tools find it there.

use super::rights::{READ, in_cluster, in_namespace, rule, rule_for};
use super::workload::{Program, autoscaler, budget, merged, mount, network_policy, token};
use super::{Spec, account, citadel, own, service};
use pilot::source::kinds;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Name of everything that is pilot's.
pub(super) const NAME: &str = "istiod";
/// Label of what is a revision's own.
const REVISION: &str = "istio.io/rev";
/// The ports of its pods. That of xDS in the clear, 15010, is in Istio's Service, and off (bar S1).
const PORTS: [(&str, u16); 4] =
    [("http-debug", 8080), ("tls-xds", 15012), ("https-webhooks", 15017), ("http-monitoring", 15014)];
/// Annotation of its pods: pilot takes the trust domain at its start, and so a change of it starts it anew.
const TRUST_DOMAIN: &str = "ferromesh.io/trust-domain";
/// The ConfigMap with roots of token issuers beside the public ones (CA-32), and where pilot finds it.
pub(super) const ISSUER_ROOTS: (&str, &str) = ("pilot-jwks-extra-cacerts", "/cacerts");

pub(super) fn objects(spec: &Spec) -> anyhow::Result<Vec<Value>> {
    let ports = [
        ("grpc-xds", 15010, 15010),
        ("https-dns", 15012, 15012),
        ("https-webhook", 443, 15017),
        ("http-debug", 8080, 8080),
        ("http-monitoring", 15014, 15014),
    ];
    let own_name = spec.of_revision(NAME);
    let mut service = service(spec, &own_name, NAME, &ports);
    service["metadata"]["labels"]["istio"] = json!("pilot");
    // Pilots of other revisions are of the same app.
    service["spec"]["selector"][REVISION] = json!(spec.revision_label());
    let mut objects = settings(spec)?;
    objects.push(account(spec, NAME));
    objects.extend(in_cluster(spec, NAME, &cluster_rules(spec)));
    objects.extend(settings_rights(spec));
    objects.extend(in_namespace(spec, NAME, &own_rules(spec)));
    objects.extend(secrets(spec));
    objects.push(service);
    objects.extend(issuer_roots(spec));
    objects.push(deployment(spec));
    if is_scaled(spec) {
        let number = |path: &str, default| spec.at(path).as_u64().unwrap_or(default);
        let least = number("components.pilot.k8s.hpaSpec.minReplicas", number("values.pilot.autoscaleMin", 1));
        let most = number("components.pilot.k8s.hpaSpec.maxReplicas", number("values.pilot.autoscaleMax", 5));
        let percent = number("values.pilot.cpu.targetAverageUtilization", 80);
        objects.push(autoscaler(spec, &own_name, [least, most, percent]));
    }
    objects.extend(budget(spec, &own_name, NAME).map(|mut budget| {
        budget["spec"]["selector"]["matchLabels"][REVISION] = json!(spec.revision_label());
        budget
    }));
    let selector = json!({"app": NAME, REVISION: spec.revision_label()});
    objects.extend(network_policy(spec, &own_name, &spec.namespace(), &selector, &PORTS.map(|(_, port)| port)));
    objects.push(kept(spec));
    Ok(objects)
}

/// Roots of token issuers, where some are given.
fn issuer_roots(spec: &Spec) -> Option<Value> {
    let roots = spec.text("values.pilot.jwksResolverExtraRootCA");
    let mut map = own(spec, "v1", "ConfigMap", &spec.of_revision(ISSUER_ROOTS.0));
    map["data"] = json!({"extra.pem": roots});
    (!roots.is_empty()).then_some(map)
}

/// What was asked for, so that an upgrade need not be told again.
fn kept(spec: &Spec) -> Value {
    let mut map = own(spec, "v1", "ConfigMap", &spec.of_revision(super::WRITTEN));
    map["data"] = json!({"spec": spec.written().to_string()});
    map
}

fn is_scaled(spec: &Spec) -> bool {
    spec.is_on("values.pilot.autoscaleEnabled")
}

/// The ConfigMaps that pilot follows (PI-7).
fn settings(spec: &Spec) -> anyhow::Result<Vec<Value>> {
    let mut mesh = own(spec, "v1", "ConfigMap", &spec.of_revision("istio"));
    mesh["data"] = json!({"mesh": spec.mesh_config()?});
    let mut injector = own(spec, "v1", "ConfigMap", &spec.of_revision("istio-sidecar-injector"));
    let given = spec.at("values.sidecarInjectorWebhook");
    let mut config = json!({
        "policy": if spec.text("values.global.proxy.autoInject") == "disabled" { "disabled" } else { "enabled" },
        "defaultTemplates": ["sidecar"],
    });
    for field in ["defaultTemplates", "templates", "neverInjectSelector", "alwaysInjectSelector", "injectedAnnotations"]
    {
        if !given[field].is_null() {
            config[field] = given[field].clone();
        }
    }
    let values = json!({
        "global": spec.at("values.global"),
        "pilot": {"cni": merged(&json!({"enabled": false, "provider": "default"}), spec.at("values.pilot.cni"))},
        "sidecarInjectorWebhook": merged(&json!({"rewriteAppHTTPProbe": true}), given),
        "gateways": merged(&json!({}), spec.at("values.gateways")),
        "revision": spec.revision(),
    });
    injector["data"] =
        json!({"config": serde_saphyr::to_string(&config)?, "values": serde_json::to_string_pretty(&values)?});
    Ok(vec![mesh, injector])
}

fn deployment(spec: &Spec) -> Value {
    let namespace = spec.namespace();
    let mut args = vec![
        "discovery".to_owned(),
        format!("--namespace={namespace}"),
        format!("--ca-addr={}.{namespace}.svc:{}", citadel::NAME, citadel::PORT),
        format!("--roots-config-map={}", spec.roots()),
        format!("--token-audience={}", spec.audience()),
        format!("--secret-namespaces={}", secret_namespaces(spec).join(",")),
        format!("--log-output-level={}", spec.text("values.global.logging.level")),
    ];
    let cluster = spec.text("values.global.multiCluster.clusterName");
    if !cluster.is_empty() {
        args.push(format!("--cluster-id={cluster}"));
    }
    if !spec.revision().is_empty() {
        args.push(format!("--revision={}", spec.revision()));
    }
    let sampling = spec.text("values.pilot.traceSampling");
    if !sampling.is_empty() {
        args.push(format!("--trace-sampling={sampling}"));
    }
    if spec.is_on("values.global.logAsJson") {
        args.push("--log-as-json".to_owned());
    }
    let issuer_roots = issuer_roots(spec);
    if issuer_roots.is_some() {
        args.push(format!("--jwks-extra-roots={}/extra.pem", ISSUER_ROOTS.1));
    }
    let image = spec.text("values.pilot.image");
    let name = spec.of_revision(NAME);
    let program = Program {
        name: &name,
        app: NAME,
        image: spec.image(if image.is_empty() { "pilot" } else { &image }),
        args,
        ports: &PORTS,
        ready: ("/ready", 8080),
        k8s: "components.pilot.k8s",
    };
    let mut deployment = program.deployment(spec, NAME);
    if deployment["spec"]["strategy"].is_null() {
        // Istio's: the new ones are all there before the old ones go.
        deployment["spec"]["strategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}});
    }
    mount(&mut deployment, "istio-token", "/var/run/secrets/tokens", &token(spec));
    mount(&mut deployment, "tls", "/var/run/secrets/istiod", &json!({"emptyDir": {"medium": "Memory"}}));
    if let Some(map) = issuer_roots {
        let volume = json!({"configMap": {"name": map["metadata"]["name"]}});
        mount(&mut deployment, "extracacerts", ISSUER_ROOTS.1, &volume);
    }
    // Of the default one it stays as it was: a selector cannot be changed.
    if !spec.revision().is_empty() {
        deployment["spec"]["selector"]["matchLabels"][REVISION] = json!(spec.revision());
    }
    deployment["spec"]["template"]["metadata"]["labels"][REVISION] = json!(spec.revision_label());
    by_values(spec, &mut deployment);
    deployment["spec"]["template"]["metadata"]["annotations"][TRUST_DOMAIN] = json!(spec.trust_domain());
    deployment
}

/// What Istio's values say of the Deployment, where `k8s` does not.
fn by_values(spec: &Spec, deployment: &mut Value) {
    let (values, k8s) = (spec.at("values.pilot"), spec.at("components.pilot.k8s"));
    let written = |field: &str| !values[field].is_null() && k8s[field].is_null();
    let replicas = [k8s, values].map(|given| given["replicaCount"].as_u64()).into_iter().flatten().next();
    if !is_scaled(spec) {
        deployment["spec"]["replicas"] = json!(replicas.unwrap_or(1));
    }
    let labels = deployment["metadata"]["labels"].clone();
    deployment["metadata"]["labels"] = merged(&labels, &values["deploymentLabels"]);
    let metadata = &mut deployment["spec"]["template"]["metadata"];
    metadata["labels"] = merged(&json!({"istio": "pilot"}), &merged(&values["podLabels"], &metadata["labels"]));
    metadata["annotations"] = merged(&values["podAnnotations"], &metadata["annotations"]);
    let pod = &mut deployment["spec"]["template"]["spec"];
    for field in ["nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"] {
        if written(field) {
            pod[field] = values[field].clone();
        }
    }
    let container = &mut pod["containers"][0];
    if written("resources") {
        container["resources"] = values["resources"].clone();
    }
    let mut env = container["env"].as_array().cloned().unwrap_or_default();
    for (name, value) in values["env"].as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        env.push(json!({"name": name, "value": text}));
    }
    container["env"] = json!(env);
}

/// Where gateways are: their certificates are in Secrets beside them (CA-26).
fn secret_namespaces(spec: &Spec) -> Vec<String> {
    let of = |gateway: &&Value| gateway["namespace"].as_str().map(str::to_owned);
    let mut namespaces: Vec<String> = spec.gateways().iter().filter_map(of).chain([spec.namespace()]).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    namespaces
}

/// To read Secrets there, and nowhere else.
fn secrets(spec: &Spec) -> Vec<Value> {
    let rules = [rule("", &["secrets"], &READ)];
    let at = |namespace: String| {
        let mut objects = in_namespace(spec, NAME, &rules);
        for object in &mut objects {
            object["metadata"]["name"] = json!("istiod-secrets");
            object["metadata"]["namespace"] = json!(namespace);
        }
        objects[1]["roleRef"]["name"] = json!("istiod-secrets");
        objects
    };
    secret_namespaces(spec).into_iter().flat_map(at).collect()
}

/// To see the cluster, to say what became of the mesh's objects, to bring the roots to every namespace, to ask whether a
/// token is good and whether a gateway may have Secrets, and to keep the webhooks current.
fn cluster_rules(spec: &Spec) -> Vec<Value> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in kinds::TABLE.iter().filter(|row| row.is_custom()) {
        groups.entry(row.group).or_default().push(row.plural());
    }
    let mut rules = vec![
        rule("", &["nodes", "pods", "services", "namespaces"], &READ),
        rule("discovery.k8s.io", &["endpointslices"], &READ),
        rule("apiextensions.k8s.io", &["customresourcedefinitions"], &READ),
    ];
    for (group, plurals) in groups {
        let status: Vec<String> = plurals.iter().map(|plural| format!("{plural}/status")).collect();
        let names = |list: &[String]| list.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
        rules.push(json!({"apiGroups": [group], "resources": names(&plurals), "verbs": READ}));
        rules.push(json!({"apiGroups": [group], "resources": names(&status), "verbs": ["patch", "update"]}));
    }
    rules.extend([
        rule_for("", &["configmaps"], &[&spec.roots()], &["get", "list", "watch", "patch"]),
        rule("", &["configmaps"], &["create"]),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule("authorization.k8s.io", &["subjectaccessreviews"], &["create"]),
        rule(
            "admissionregistration.k8s.io",
            &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            &["get", "list", "watch", "update", "patch"],
        ),
    ]);
    rules
}

/// To follow the settings of its revision.
fn settings_rights(spec: &Spec) -> [Value; 2] {
    let maps = ["istio", "istio-sidecar-injector"].map(|name| spec.of_revision(name));
    let mut objects = in_namespace(spec, NAME, &[rule_for("", &["configmaps"], &[&maps[0], &maps[1]], &READ)]);
    let name = spec.of_revision("istiod-settings");
    for object in &mut objects {
        object["metadata"]["name"] = json!(name);
    }
    objects[1]["roleRef"]["name"] = json!(name);
    objects
}

/// Leases, the roots, and the probe of the validation, which is never stored.
fn own_rules(spec: &Spec) -> Vec<Value> {
    vec![
        rule("coordination.k8s.io", &["leases"], &["get", "create", "update"]),
        rule_for("", &["configmaps"], &[&spec.roots()], &READ),
        rule("networking.istio.io", &["gateways"], &["create"]),
    ]
}
