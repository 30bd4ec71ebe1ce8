use super::*;
use crate::install::profile;
use std::collections::BTreeSet;

fn rendered(profile: &str) -> Vec<Value> {
    let spec = Spec::new(&[], &[format!("profile={profile}")]).unwrap();
    render(&spec).unwrap().into_iter().flat_map(|part| part.objects).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn containers(objects: &[Value]) -> impl Iterator<Item = (&Value, &Value)> {
    let pods =
        objects.iter().filter(|object| object["kind"] == "Deployment").map(|one| &one["spec"]["template"]["spec"]);
    pods.flat_map(|pod| pod["containers"].as_array().unwrap().iter().map(move |container| (pod, container)))
}

// spec: IN-8
// bar: S6
/// robustness S6: verbs are written out, secrets are read in the own namespace alone, and citadel's by name.
#[test]
fn rights_are_written_out_and_secrets_stay_in_their_namespace() {
    for profile in profile::NAMES {
        for object in rendered(profile) {
            for rule in object["rules"].as_array().into_iter().flatten() {
                let text = format!("{} {}: {rule}", object["kind"], object["metadata"]["name"]);
                for list in ["verbs", "resources", "apiGroups"] {
                    let all = rule[list].as_array().unwrap();
                    assert!(!all.is_empty() && !all.iter().any(|one| one.as_str().unwrap().contains('*')), "{text}");
                }
                let names = |list: &str| {
                    rule[list].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect::<BTreeSet<_>>()
                };
                assert!(!names("verbs").contains("delete") && !names("verbs").contains("deletecollection"), "{text}");
                if names("resources").contains("secrets") {
                    assert_eq!(object["kind"], "Role", "{text}");
                    let of_citadel = object["metadata"]["name"] == "citadel";
                    let by_name = rule["resourceNames"].as_array().is_some_and(|names| names.len() == 2);
                    assert!(!of_citadel || by_name || names("verbs") == BTreeSet::from(["create"]), "{text}");
                    assert!(
                        of_citadel || names("verbs").is_subset(&BTreeSet::from(["get", "list", "watch"])),
                        "{text}"
                    );
                }
            }
        }
    }
}

// spec: IN-1, IN-2
#[test]
fn nothing_is_outside_the_namespace_but_definitions_webhooks_and_rights() {
    let outside = [
        "Namespace",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ];
    for profile in profile::NAMES {
        let objects = rendered(profile);
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            let namespace = object["metadata"]["namespace"].as_str();
            assert_eq!(namespace.is_none(), outside.contains(&kind), "{kind} {}", object["metadata"]["name"]);
            let own = kind != "NetworkAttachmentDefinition"; // OpenShift's is where all namespaces see it
            assert!(!own || namespace.is_none_or(|namespace| namespace == "istio-system"));
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels[MANAGED], RECONCILE, "{kind}");
            assert_eq!(
                labels["istio.io/rev"].is_null(),
                kind == "Namespace",
                "{kind}: the namespace asks for no sidecars"
            );
        }
        let keys: BTreeSet<String> =
            objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect();
        assert_eq!(keys.len(), objects.len(), "{profile}: an object twice");
    }
    let count = |profile| rendered(profile).len();
    assert!(count("empty") == 0 && count("minimal") < count("default") && count("default") < count("demo") + 3);
}

// spec: IN-1
#[test]
fn profiles_differ_as_istios_do() {
    let kinds = |profile: &str, kind: &str| {
        let named =
            |object: &Value| (object["kind"] == kind).then(|| object["metadata"]["name"].as_str().unwrap().to_owned());
        rendered(profile).iter().filter_map(named).collect::<Vec<_>>()
    };
    assert_eq!(kinds("default", "Deployment"), ["citadel", "istiod", "mixer", "istio-ingressgateway"]);
    assert_eq!(
        kinds("demo", "Deployment"),
        ["citadel", "istiod", "mixer", "istio-ingressgateway", "istio-egressgateway"]
    );
    assert_eq!(kinds("minimal", "Deployment"), ["citadel", "istiod"]);
    assert_eq!(kinds("default", "HorizontalPodAutoscaler"), ["istiod", "istio-ingressgateway"]);
    assert!(kinds("demo", "HorizontalPodAutoscaler").is_empty());
    let demo = rendered("demo");
    assert!(
        named(&demo, "ConfigMap", "istio")["data"]["mesh"].as_str().unwrap().contains("accessLogFile: /dev/stdout")
    );
    for profile in ["default", "preview"] {
        let objects = rendered(profile);
        let mesh = named(&objects, "ConfigMap", "istio")["data"]["mesh"].as_str().unwrap();
        assert!(mesh.contains("ISTIO_META_DNS_CAPTURE"), "{profile}: {mesh}");
    }
}

// spec: IN-10, IN-11, IN-15, IN-23
// bar: S6
/// robustness S6: the agent reads pods and changes nothing in the API server.
#[test]
fn the_node_agent_brings_what_a_node_needs_and_pods_are_injected_for_it() {
    let of = |sets: &[&str]| {
        let spec = Spec::new(&[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>()).unwrap();
        render(&spec).unwrap().into_iter().flat_map(|part| part.objects).collect::<Vec<Value>>()
    };
    let values = |objects: &[Value]| -> Value {
        serde_json::from_str(named(objects, "ConfigMap", "istio-sidecar-injector")["data"]["values"].as_str().unwrap())
            .unwrap()
    };
    assert_eq!(values(&of(&[]))["pilot"]["cni"]["enabled"], false);
    let objects = of(&["components.cni.enabled=true", "values.cni.excludeNamespaces={kube-system,other}"]);
    let injected = values(&objects);
    assert_eq!(injected["pilot"]["cni"], json!({"enabled": true, "provider": "default"}));
    assert_eq!(injected["global"]["proxy"]["seccompProfile"]["type"], "RuntimeDefault");
    let pod = &named(&objects, "DaemonSet", "istio-cni-node")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["securityContext"]["privileged"], false);
    assert!(container["args"].to_string().contains("--exclude-namespaces=kube-system,other"), "{container}");
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/opt/cni/bin");
    let role = named(&objects, "ClusterRole", "istio-cni-istio-system");
    assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]));

    let openshift = rendered("openshift");
    assert_eq!(values(&openshift)["pilot"]["cni"], json!({"enabled": true, "provider": "multus"}));
    let pod = &named(&openshift, "DaemonSet", "istio-cni-node")["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][1]["hostPath"]["path"], "/etc/cni/multus/net.d");
    assert_eq!(pod["containers"][0]["securityContext"]["seLinuxOptions"]["type"], "spc_t");
    assert!(pod["containers"][0]["args"].to_string().contains("--chained=false"));
    assert_eq!(named(&openshift, "NetworkAttachmentDefinition", "istio-cni")["metadata"]["namespace"], "default");
}

// spec: IN-24
#[test]
fn openshift_has_routes_to_the_ingress_gateway_and_nobody_touches_gateway_api() {
    for profile in profile::NAMES {
        for object in rendered(profile) {
            let text = object.to_string();
            assert!(
                !text.contains("gateway.networking.k8s.io"),
                "{profile}: {} {}",
                object["kind"],
                object["metadata"]["name"]
            );
            assert!(object["kind"] != "Route" || profile == "openshift", "{profile}");
        }
    }
    let objects = rendered("openshift");
    let ports = &named(&objects, "Service", "istio-ingressgateway")["spec"]["ports"];
    for (name, port, tls) in [
        ("istio-ingressgateway", "http2", json!(null)),
        ("istio-ingressgateway-https", "https", json!({"termination": "passthrough"})),
    ] {
        let route = named(&objects, "Route", name);
        assert_eq!((&route["spec"]["port"]["targetPort"], &route["spec"]["tls"]), (&json!(port), &tls));
        assert_eq!(
            (&route["spec"]["to"]["name"], &route["metadata"]["namespace"]),
            (&json!("istio-ingressgateway"), &json!("istio-system"))
        );
        assert!(ports.as_array().unwrap().iter().any(|one| one["name"] == port));
    }
    let sets = ["profile=openshift", "components.ingressGateways[0].routes.enabled=false"].map(str::to_owned);
    let without = render(&Spec::new(&[], &sets).unwrap()).unwrap();
    assert!(!without.iter().flat_map(|part| &part.objects).any(|object| object["kind"] == "Route"));
}

// spec: IN-3, IN-27
#[test]
fn network_policies_let_in_what_each_component_is_asked() {
    assert!(!rendered("demo").iter().any(|object| object["kind"] == "NetworkPolicy"), "Istio's default");
    let sets =
        ["profile=demo", "components.cni.enabled=true", "values.global.networkPolicy.enabled=true", "revision=fm"];
    let spec = Spec::new(&[], &sets.map(str::to_owned)).unwrap();
    let objects: Vec<Value> = render(&spec).unwrap().into_iter().flat_map(|part| part.objects).collect();
    let workloads =
        objects.iter().filter(|object| ["Deployment", "DaemonSet"].contains(&object["kind"].as_str().unwrap()));
    for workload in workloads {
        let name = workload["metadata"]["name"].as_str().unwrap();
        let policy = &named(&objects, "NetworkPolicy", name)["spec"];
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        let selector = policy["podSelector"]["matchLabels"].as_object().unwrap();
        assert!(
            !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value),
            "{name}: {selector:?} {labels}"
        );
        assert_eq!((&policy["egress"], &policy["policyTypes"]), (&json!([{}]), &json!(["Ingress", "Egress"])));
        let open: Vec<u64> =
            policy["ingress"][0]["ports"].as_array().unwrap().iter().filter_map(|one| one["port"].as_u64()).collect();
        let ports = workload["spec"]["template"]["spec"]["containers"][0]["ports"].as_array();
        for port in ports.into_iter().flatten() {
            assert!(open.contains(&port["containerPort"].as_u64().unwrap()), "{name}: {open:?} {port}");
        }
        let services =
            objects.iter().filter(|object| object["kind"] == "Service" && object["metadata"]["name"] == name);
        let ports = services.flat_map(|service| service["spec"]["ports"].as_array().unwrap());
        for port in ports.filter(|port| port["port"] != 15010) {
            assert!(open.contains(&port["targetPort"].as_u64().unwrap()), "{name}: {open:?} {port}");
        }
    }
}

// spec: IN-22
// bar: S7
/// robustness S7 for the control plane: nobody is root, nothing is writable, no capability.
#[test]
fn pods_fit_the_restricted_level_and_openshift_chooses_their_users() {
    for profile in ["demo", "openshift"] {
        let objects = rendered(profile);
        for (pod, container) in containers(&objects) {
            let name = &container["name"];
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            if name != "istio-proxy" {
                assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
                assert_eq!(pod["securityContext"]["runAsUser"].is_null(), profile == "openshift", "{name}");
            }
        }
    }
}

// spec: IN-3, IN-4, IN-5, IN-6
#[test]
fn what_users_write_reaches_its_object() {
    let sets = [
        "hub=example/mesh",
        "tag=9",
        "namespace=mesh",
        "values.pilot.autoscaleEnabled=false",
        "values.pilot.replicaCount=3",
        "values.pilot.env.A=b",
        "components.pilot.k8s.nodeSelector.zone=a",
        "values.global.proxy.logLevel=debug",
        "components.ingressGateways[0].k8s.service.type=NodePort",
        "components.ingressGateways[0].k8s.replicaCount=2",
        "values.global.imagePullSecrets={one}",
        "values.global.defaultPodDisruptionBudget.enabled=false",
        "meshConfig.trustDomain=corp.example",
        "meshConfig.trustDomainAliases={old.example,older.example}",
        "values.sidecarInjectorWebhook.rewriteAppHTTPProbe=false",
    ];
    let spec = Spec::new(&[], &sets.map(str::to_owned)).unwrap();
    let objects: Vec<Value> = render(&spec).unwrap().into_iter().flat_map(|part| part.objects).collect();
    let istiod = named(&objects, "Deployment", "istiod");
    let (pod, container) = (&istiod["spec"]["template"]["spec"], &istiod["spec"]["template"]["spec"]["containers"][0]);
    assert_eq!((&istiod["spec"]["replicas"], &istiod["metadata"]["namespace"]), (&json!(3), &json!("mesh")));
    assert_eq!((&container["image"], &pod["nodeSelector"]), (&json!("example/mesh/pilot:9"), &json!({"zone": "a"})));
    assert!(container["env"].as_array().unwrap().contains(&json!({"name": "A", "value": "b"})));
    assert!(container["args"].as_array().unwrap().contains(&json!("--ca-addr=citadel.mesh.svc:8060")));
    assert_eq!(istiod["spec"]["template"]["metadata"]["annotations"]["ferromesh.io/trust-domain"], "corp.example");
    let citadel = &named(&objects, "Deployment", "citadel")["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(citadel.to_string().contains("--relay=spiffe://corp.example/ns/mesh/sa/istiod"), "{citadel}");
    let mixer = &named(&objects, "Deployment", "mixer")["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(mixer.to_string().contains("--trust-domain-aliases=old.example,older.example"), "{mixer}");
    let values = named(&objects, "ConfigMap", "istio-sidecar-injector")["data"]["values"].as_str().unwrap();
    let values: Value = serde_json::from_str(values).unwrap();
    assert_eq!(values["global"]["proxy"]["logLevel"], "debug");
    assert_eq!(values["sidecarInjectorWebhook"]["rewriteAppHTTPProbe"], false);
    assert_eq!(named(&objects, "Service", "istio-ingressgateway")["spec"]["type"], "NodePort");
    let gateway = &named(&objects, "Deployment", "istio-ingressgateway")["spec"];
    assert_eq!(gateway["replicas"], 2);
    let container = &gateway["template"]["spec"]["containers"][0];
    assert_eq!(container["startupProbe"]["periodSeconds"], 1, "ready without waiting for the next look");
    assert_eq!(named(&objects, "ServiceAccount", "istiod")["imagePullSecrets"], json!([{"name": "one"}]));
    let kinds: BTreeSet<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert!(!kinds.contains("PodDisruptionBudget") && !kinds.contains("HorizontalPodAutoscaler"));
}

// spec: CA-32, IN-6
#[test]
fn pilot_gets_the_roots_of_token_issuers() {
    let of = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let parts = render(&Spec::new(&[], &sets).unwrap()).unwrap();
        parts.into_iter().flat_map(|part| part.objects).collect::<Vec<Value>>()
    };
    let pem = "values.pilot.jwksResolverExtraRootCA=-----BEGIN CERTIFICATE-----";
    for (revision, name) in [("", "pilot-jwks-extra-cacerts"), ("revision=canary", "pilot-jwks-extra-cacerts-canary")] {
        let sets: Vec<&str> = [pem, revision].into_iter().filter(|set| !set.is_empty()).collect();
        let objects = of(&sets);
        assert_eq!(named(&objects, "ConfigMap", name)["data"]["extra.pem"], "-----BEGIN CERTIFICATE-----");
        let istiod = objects
            .iter()
            .find(|object| object["kind"] == "Deployment" && object["metadata"]["labels"]["app"] == "istiod");
        let pod = &istiod.unwrap()["spec"]["template"]["spec"];
        let volume = json!({"name": "extracacerts", "configMap": {"name": name}});
        assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
        let args = pod["containers"][0]["args"].to_string();
        assert!(args.contains("--jwks-extra-roots=/cacerts/extra.pem"), "{args}");
    }
    assert!(!json!(of(&[])).to_string().contains("cacerts/extra.pem"));
}

// spec: CA-14, IN-4
#[test]
fn the_roots_have_the_name_that_users_choose() {
    let of = |name: &str| {
        let sets = [format!("values.global.trustBundleName={name}"), "profile=demo".to_owned()];
        let parts = render(&Spec::new(&[], &sets).unwrap()).unwrap();
        parts.into_iter().flat_map(|part| part.objects).collect::<Vec<Value>>()
    };
    let given = json!(of("mesh-two-roots")).to_string();
    assert!(!given.contains("istio-ca-root-cert"), "pilot, citadel, mixer, injection, rights");
    for part in [
        "--roots-config-map=mesh-two-roots",
        "\"resourceNames\":[\"mesh-two-roots\"]",
        "\"configMap\":{\"name\":\"mesh-two-roots\"}",
    ] {
        assert!(given.contains(part), "{part}");
    }
    assert!(json!(of("")).to_string().contains("--roots-config-map=istio-ca-root-cert"), "as where nothing is said");
}

// spec: PI-61, IN-3, IN-4
#[test]
fn proxies_find_the_pilot_of_their_revision_and_namespace() {
    let of = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let parts = render(&Spec::new(&[], &sets).unwrap()).unwrap();
        parts.into_iter().flat_map(|part| part.objects).collect::<Vec<Value>>()
    };
    for (sets, map, address) in [
        (&[][..], "istio", "istiod.istio-system.svc:15012"),
        (&["namespace=mesh"], "istio", "istiod.mesh.svc:15012"),
        (&["revision=canary"], "istio-canary", "istiod-canary.istio-system.svc:15012"),
        (&["meshConfig.defaultConfig.discoveryAddress=a.b:1"], "istio", "a.b:1"),
    ] {
        let mesh = named(&of(sets), "ConfigMap", map)["data"]["mesh"].as_str().unwrap().to_owned();
        let mesh: Value = serde_saphyr::from_str(&mesh).unwrap();
        assert_eq!(mesh["defaultConfig"]["discoveryAddress"], address, "{sets:?}");
    }
}

// spec: PI-51, CA-8, IN-1, IN-4
#[test]
fn the_audience_of_tokens_and_the_share_of_traces_reach_who_needs_them() {
    let sets = ["values.global.sds.token.aud=mesh", "profile=demo"].map(str::to_owned);
    let parts = render(&Spec::new(&[], &sets).unwrap()).unwrap();
    let objects: Vec<Value> = parts.into_iter().flat_map(|part| part.objects).collect();
    let args = |name: &str| {
        let pod = &named(&objects, "Deployment", name)["spec"]["template"]["spec"];
        (pod["containers"][0]["args"].to_string(), pod["volumes"].to_string())
    };
    for name in ["istiod", "citadel"] {
        assert!(args(name).0.contains("--token-audience=mesh"), "{name}");
    }
    for name in ["istiod", "mixer"] {
        assert!(args(name).1.contains("\"audience\":\"mesh\""), "{name}");
    }
    assert!(args("istiod").0.contains("--trace-sampling=100"), "the demo shows every trace");
    let life = |text: &str| {
        let spec = Spec::new(&[], &[format!("values.pilot.env.DEFAULT_WORKLOAD_CERT_TTL={text}")])?;
        let parts = render(&spec)?;
        let objects: Vec<Value> = parts.into_iter().flat_map(|part| part.objects).collect();
        anyhow::Ok(named(&objects, "Deployment", "citadel").to_string())
    };
    assert!(life("2h").unwrap().contains("--workload-cert-ttl-s=7200"), "citadel signs");
    assert!(life("a day").unwrap_err().to_string().starts_with("values.pilot.env.DEFAULT_WORKLOAD_CERT_TTL: "));
}

// spec: IN-3, PI-57
#[test]
fn the_settings_are_those_that_pilot_reads() {
    use ::pilot::inject::{Config, Values};
    for profile in ["default", "demo", "openshift", "preview"] {
        let objects = rendered(profile);
        let injector = &named(&objects, "ConfigMap", "istio-sidecar-injector")["data"];
        let config = Config::parse(injector["config"].as_str().unwrap()).unwrap();
        assert_eq!(config.default_templates, ["sidecar"]);
        let values = Values::parse(injector["values"].as_str().unwrap()).unwrap();
        assert_eq!(values.text("global.hub"), "ferromesh");
        assert_eq!(values.text("global.proxy.image"), "proxy", "what is not written is the template's default");
        ::pilot::model::mesh_config::parse(named(&objects, "ConfigMap", "istio")["data"]["mesh"].as_str().unwrap())
            .unwrap();
    }
}

// spec: PI-2, PI-5
#[test]
fn pilot_is_found_where_istiod_is_and_grows_and_stays_as_it_does() {
    let objects = rendered("default");
    let ports = named(&objects, "Service", "istiod")["spec"]["ports"].as_array().unwrap().clone();
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!("{} {}→{}", port["name"].as_str().unwrap(), port["port"], port["targetPort"]))
        .collect();
    for port in
        ["grpc-xds 15010→15010", "https-dns 15012→15012", "https-webhook 443→15017", "http-monitoring 15014→15014"]
    {
        assert!(ports.contains(&port.to_owned()), "{port} in {ports:?}");
    }
    let scaler = &named(&objects, "HorizontalPodAutoscaler", "istiod")["spec"];
    assert_eq!((&scaler["minReplicas"], &scaler["maxReplicas"]), (&json!(1), &json!(5)));
    assert_eq!(scaler["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    assert_eq!(named(&objects, "PodDisruptionBudget", "istiod")["spec"]["minAvailable"], 1);
    let rolling = &named(&objects, "Deployment", "istiod")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!((&rolling["maxSurge"], &rolling["maxUnavailable"]), (&json!("100%"), &json!("25%")));
}
