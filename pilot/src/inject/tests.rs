use super::*;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn settings() -> Settings {
    Settings {
        config: Config::built_in(),
        values: Values::default(),
        mesh: MeshSettings::default(),
        revision: String::new(),
        native_sidecars: true,
    }
}

fn pod(annotations: Value) -> Pod {
    Pod::new(json!({
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "shop"}, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "a", "ports": [{"name": "http", "containerPort": 8080}]}]},
    }))
    .unwrap()
}

fn inject_with(pod: &Pod, settings: &Settings) -> Result<Pod, InjectError> {
    inject_at(pod, settings, &BTreeMap::new(), "/inject")
}

fn inject_at(
    pod: &Pod,
    settings: &Settings,
    namespace_annotations: &BTreeMap<String, String>,
    path: &str,
) -> Result<Pod, InjectError> {
    let (owner, cluster) = (owner_of_pod(pod, pod.meta("namespace")), ClusterPath::parse(path));
    run(&Input { pod, owner: &owner, namespace_annotations, settings, cluster: &cluster })
}

fn inject(pod: &Pod) -> Pod {
    inject_with(pod, &settings()).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(pod::name).collect()
}

fn env<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    pod::find(container["env"].as_array()?, name)?["value"].as_str()
}

fn args(pod: &Pod) -> Vec<&str> {
    let init = pod::find(pod.list("initContainers"), INIT).unwrap();
    init["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

fn after<'a>(args: &[&'a str], flag: &str) -> Option<&'a str> {
    args.get(args.iter().position(|arg| *arg == flag)? + 1).copied()
}

// spec: PI-54, PI-55
#[test]
fn labels_of_namespace_and_pod_choose_the_revision() {
    use Reason::*;
    type Row = (Option<&'static str>, Option<&'static str>, Option<&'static str>, Option<&'static str>, &'static str);
    // istio-injection, istio.io/rev of the namespace; inject, istio.io/rev of the pod; our revision
    let table: &[(Row, Decision)] = &[
        ((None, None, None, None, ""), Decision::Skip(NoLabel)),
        ((Some("enabled"), None, None, None, ""), Decision::Inject(NamespaceEnabled)),
        ((Some("enabled"), Some("x"), None, None, ""), Decision::Inject(NamespaceEnabled)),
        ((Some("enabled"), Some("x"), None, None, "x"), Decision::Skip(NamespaceOtherRevision)),
        ((Some("enabled"), None, Some("false"), None, ""), Decision::Skip(PodRefuses)),
        ((Some("disabled"), None, None, None, ""), Decision::Skip(NamespaceDisabled)),
        ((Some("disabled"), Some("default"), Some("true"), None, ""), Decision::Skip(NamespaceDisabled)),
        ((None, Some("default"), None, None, ""), Decision::Inject(NamespaceRevision)),
        ((None, Some("x"), None, None, "x"), Decision::Inject(NamespaceRevision)),
        ((None, Some("x"), None, Some("y"), "y"), Decision::Skip(NamespaceOtherRevision)),
        ((None, Some("x"), Some("true"), None, ""), Decision::Skip(NamespaceOtherRevision)),
        ((None, Some("x"), Some("false"), None, "x"), Decision::Skip(PodRefuses)),
        ((None, None, Some("true"), None, ""), Decision::Inject(PodWants)),
        ((None, None, Some("true"), None, "x"), Decision::Skip(NoLabel)),
        ((None, None, Some("true"), Some("x"), "x"), Decision::Inject(PodRevision)),
        ((None, None, Some("true"), Some("x"), ""), Decision::Skip(PodOtherRevision)),
        ((None, None, None, Some("x"), "x"), Decision::Inject(PodRevision)),
        ((None, None, None, Some("default"), ""), Decision::Inject(PodRevision)),
    ];
    for ((injection, namespace_revision, inject, pod_revision, own), expected) in table {
        let namespace = Labels { injection: *injection, revision: *namespace_revision, inject: None };
        let pod = Labels { injection: None, revision: *pod_revision, inject: *inject };
        let row = format!("{namespace:?} {pod:?} {own:?}");
        assert_eq!(chosen_by_webhooks(namespace, pod, own, false), *expected, "{row}");
    }
    let none = Labels::default();
    assert_eq!(chosen_by_webhooks(none, none, "", true), Decision::Inject(NamespacesByDefault));
    let disabled = Labels { injection: Some("disabled"), ..none };
    assert!(!chosen_by_webhooks(disabled, none, "", true).injects());
}

// spec: PI-55, PI-56
#[test]
fn the_injector_asks_the_pod_then_the_selectors_then_the_policy() {
    let config = |text: &str| Config::parse(text).unwrap();
    let labelled = |labels: Value, annotations: Value| {
        Pod::new(json!({"metadata": {"labels": labels, "annotations": annotations}})).unwrap()
    };
    let enabled = config("policy: enabled");
    let plain = labelled(json!({}), json!({}));
    assert_eq!(required(&plain, "ns", &enabled), Decision::Inject(Reason::PolicyEnabled));
    assert_eq!(required(&plain, "ns", &config("policy: disabled")), Decision::Skip(Reason::PolicyDisabled));
    assert_eq!(required(&plain, "ns", &config("policy: maybe")), Decision::Skip(Reason::PolicyUnknown));
    assert_eq!(required(&plain, "kube-system", &enabled), Decision::Skip(Reason::IgnoredNamespace));
    let host = Pod::new(json!({"spec": {"hostNetwork": true}, "metadata": {"labels": {decision::INJECT: "true"}}}));
    assert_eq!(required(&host.unwrap(), "ns", &enabled), Decision::Skip(Reason::HostNetwork));

    let label_wins = labelled(json!({decision::INJECT: "false"}), json!({decision::INJECT: "true"}));
    assert_eq!(required(&label_wins, "ns", &enabled), Decision::Skip(Reason::PodRefuses));
    let annotated = labelled(json!({}), json!({decision::INJECT: "true"}));
    assert_eq!(required(&annotated, "ns", &config("policy: disabled")), Decision::Inject(Reason::PodWants));

    let selectors = config(
        "policy: disabled\nneverInjectSelector: [{matchLabels: {app: no}}]\n\
         alwaysInjectSelector: [{matchExpressions: [{key: app, operator: In, values: [no, yes]}]}, {}]\n",
    );
    let app = |name: &str| labelled(json!({"app": name}), json!({}));
    assert_eq!(required(&app("no"), "ns", &selectors), Decision::Skip(Reason::NeverSelector));
    assert_eq!(required(&app("yes"), "ns", &selectors), Decision::Inject(Reason::AlwaysSelector));
    assert_eq!(
        required(&app("other"), "ns", &selectors),
        Decision::Skip(Reason::PolicyDisabled),
        "an empty one selects none"
    );
    let asked = labelled(json!({"app": "no", decision::INJECT: "true"}), json!({}));
    assert_eq!(required(&asked, "ns", &selectors), Decision::Inject(Reason::PodWants));
    let wrong = Config::parse("neverInjectSelector: [{matchExpressions: [{key: a, operator: In}]}]").unwrap_err();
    assert!(wrong.to_string().starts_with("neverInjectSelector[0].matchExpressions[0].values: "), "{wrong}");
}

// spec: PI-63, PI-64
#[test]
fn the_proxy_is_native_where_the_cluster_can_and_first_where_it_cannot() {
    let injected = inject(&pod(json!({})));
    assert_eq!(names(injected.spec("initContainers")), [INIT, PROXY]);
    assert_eq!(names(injected.spec("containers")), ["app"]);
    let proxy = injected.proxy().unwrap();
    assert_eq!((proxy["restartPolicy"].as_str(), &proxy["lifecycle"]["postStart"]), (Some("Always"), &Value::Null));
    let drain = json!(["pilot-agent", "request", "--debug-port=15020", "POST", "drain"]);
    assert_eq!(proxy["lifecycle"]["preStop"]["exec"]["command"], drain);

    let old = Settings { native_sidecars: false, ..settings() };
    let first = inject_with(&pod(json!({})), &old).unwrap();
    assert_eq!(names(first.spec("containers")), [PROXY, "app"]);
    let hook = &first.proxy().unwrap()["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(*hook, json!(["pilot-agent", "wait"]));
    let no_hold = pod(json!({"proxy.istio.io/config": "holdApplicationUntilProxyStarts: false"}));
    let last = inject_with(&no_hold, &old).unwrap();
    assert_eq!(names(last.spec("containers")), ["app", PROXY]);
    assert_eq!(last.proxy().unwrap()["lifecycle"], Value::Null);
    let opted_in = inject_with(&pod(json!({"sidecar.istio.io/nativeSidecar": "true"})), &old).unwrap();
    assert_eq!(names(opted_in.spec("initContainers")), [INIT, PROXY]);
    let opted_out = inject(&pod(json!({"sidecar.istio.io/nativeSidecar": "false"})));
    assert_eq!(names(opted_out.spec("containers")), [PROXY, "app"]);
}

// spec: PI-59, AN-1
// bar: S7
#[test]
fn redirection_follows_the_annotations_and_needs_two_capabilities() {
    let injected = inject(&pod(json!({
        "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.1.0.0/16",
        "traffic.sidecar.istio.io/includeInboundPorts": "80,81",
        "traffic.sidecar.istio.io/excludeInboundPorts": "82",
        "traffic.sidecar.istio.io/includeOutboundPorts": "443",
        "traffic.sidecar.istio.io/excludeOutboundPorts": "9",
        "traffic.sidecar.istio.io/excludeInterfaces": "eth1",
        "traffic.sidecar.istio.io/kubevirtInterfaces": "net1",
        "istio.io/reroute-virtual-interfaces": "net2",
    })));
    let args = args(&injected);
    let expected = [
        ("-p", "15001"),
        ("-z", "15006"),
        ("-u", "1337"),
        ("-m", "REDIRECT"),
        ("-i", "10.0.0.0/8"),
        ("-x", "10.1.0.0/16"),
        ("-b", "80,81"),
        ("-d", "15090,15021,82,15020"),
        ("-q", "443"),
        ("-o", "9"),
        ("-c", "eth1"),
        ("-k", "net2"),
    ];
    for (flag, value) in expected {
        assert_eq!(after(&args, flag), Some(value), "{flag}");
    }
    let init = pod::find(injected.list("initContainers"), INIT).unwrap();
    let security = &init["securityContext"];
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}));
    assert_eq!((&security["privileged"], &security["allowPrivilegeEscalation"]), (&json!(false), &json!(false)));
    let none = inject(&pod(json!({"sidecar.istio.io/interceptionMode": "NONE"})));
    assert_eq!(names(none.spec("initContainers")), [PROXY]);
    for (name, value) in [
        ("traffic.sidecar.istio.io/includeInboundPorts", "80,x"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "a;rm"),
        ("sidecar.istio.io/interceptionMode", "SOMEHOW"),
        ("sidecar.istio.io/proxyCPU", "many"),
        ("proxy.istio.io/config", "[1]"),
        ("proxy.istio.io/overrides", "{\"containers\": 1}"),
    ] {
        let error = inject_with(&pod(json!({name: value})), &settings()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("annotation {name}: {value:?}: ")), "{error}");
    }
}

// spec: PI-60, PI-62, AN-2, AN-3
// bar: S7
#[test]
fn the_container_follows_the_annotations() {
    let annotations = json!({
        "sidecar.istio.io/proxyCPU": "1", "sidecar.istio.io/proxyMemoryLimit": "1Gi",
        "sidecar.istio.io/logLevel": "debug", "sidecar.istio.io/componentLogLevel": "http:trace",
        "sidecar.istio.io/agentLogLevel": "x:debug", "sidecar.istio.io/bootstrapOverride": "own",
        "sidecar.istio.io/userVolume": "{\"v\": {\"emptyDir\": {}}}",
        "sidecar.istio.io/userVolumeMount": "{\"v\": {\"mountPath\": \"/v\"}}",
        "readiness.status.sidecar.istio.io/periodSeconds": "7", "sidecar.istio.io/capNetBindService": "true",
    });
    let injected = inject(&pod(annotations));
    let proxy = injected.proxy().unwrap();
    let args: Vec<&str> = proxy["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let expected = [
        "proxy",
        "sidecar",
        "--domain",
        "$(POD_NAMESPACE).svc.cluster.local",
        "--proxyLogLevel=debug",
        "--proxyComponentLogLevel=http:trace",
        "--log_output_level=x:debug",
    ];
    assert_eq!(args, expected);
    assert_eq!(proxy["resources"], json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}));
    assert_eq!(proxy["readinessProbe"]["periodSeconds"], 7);
    let security = &proxy["securityContext"];
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}));
    assert_eq!((&security["readOnlyRootFilesystem"], &security["runAsUser"]), (&json!(true), &json!(0)));
    assert_eq!(env(proxy, "ISTIO_BOOTSTRAP_OVERRIDE"), Some("/etc/istio/custom-bootstrap/custom_bootstrap.json"));
    let volumes = [
        "workload-socket",
        "credential-socket",
        "workload-certs",
        "custom-bootstrap-volume",
        "istio-envoy",
        "istio-data",
        "istio-podinfo",
        "istio-token",
        "istiod-ca-cert",
        "istio-ca-crl",
        "v",
    ];
    assert_eq!(names(injected.spec("volumes")), volumes);
    assert!(proxy["volumeMounts"].as_array().unwrap().contains(&json!({"name": "v", "mountPath": "/v"})));
    let plain = inject(&pod(json!({"status.sidecar.istio.io/port": "0"})));
    let proxy = plain.proxy().unwrap();
    assert_eq!((&proxy["readinessProbe"], &proxy["startupProbe"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&proxy["securityContext"]["runAsUser"], &proxy["securityContext"]["runAsNonRoot"]),
        (&json!(1337), &json!(true))
    );
}

// spec: PI-61, PI-65, PT-15
#[test]
fn the_proxy_knows_who_it_serves() {
    let mut written = pod(json!({"proxy.istio.io/config": "concurrency: 3\nproxyMetadata: {A: b}\n"})).into_value();
    written["metadata"]["generateName"] = json!("shop-5d8-");
    written["metadata"]["labels"]["pod-template-hash"] = json!("5d8");
    written["metadata"]["labels"]["version"] = json!("v2");
    written["metadata"]["ownerReferences"] =
        json!([{"controller": true, "kind": "ReplicaSet", "name": "shop-5d8", "apiVersion": "apps/v1"}]);
    written["spec"]["terminationGracePeriodSeconds"] = json!(90);
    let injected = inject(&Pod::new(written).unwrap());
    let proxy = injected.proxy().unwrap();
    let expected = [
        ("ISTIO_META_WORKLOAD_NAME", "shop"),
        ("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/ns/deployments/shop"),
        ("ISTIO_META_APP_CONTAINERS", "app"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("TRUST_DOMAIN", "cluster.local"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("PROXY_CONFIG", "{\"concurrency\":3,\"proxyMetadata\":{\"A\":\"b\"}}\n"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "90"),
        ("A", "b"),
    ];
    for (name, value) in expected {
        assert_eq!(env(proxy, name), Some(value), "{name}");
    }
    let labels = [
        ("security.istio.io/tlsMode", "istio"),
        ("service.istio.io/canonical-name", "shop"),
        ("service.istio.io/canonical-revision", "v2"),
    ];
    for (name, value) in labels {
        assert_eq!(injected.label(name), Some(value), "{name}");
    }
    assert_eq!(injected.annotation("istio.io/rev"), Some("default"));
    assert_eq!(injected.annotation("kubectl.kubernetes.io/default-container"), Some("app"));
    let status: Value = serde_json::from_str(injected.annotation(STATUS).unwrap()).unwrap();
    assert_eq!((&status["initContainers"], &status["containers"]), (&json!([INIT, PROXY]), &Value::Null));
}

// spec: PC-2, GW-19
#[test]
fn a_pod_says_a_part_of_what_stands_before_it_and_the_mesh_the_rest() {
    let mut mesh = settings();
    let written = "defaultConfig: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: SANITIZE}}";
    mesh.mesh = MeshSettings::parse(written).unwrap();
    let own = pod(json!({"proxy.istio.io/config": "gatewayTopology: {numTrustedProxies: 0}"}));
    let injected = inject_with(&own, &mesh).unwrap();
    let told: Value = serde_json::from_str(env(injected.proxy().unwrap(), "PROXY_CONFIG").unwrap()).unwrap();
    assert_eq!(told["gatewayTopology"], json!({"numTrustedProxies": 0, "forwardClientCertDetails": "SANITIZE"}));
}

// spec: PI-58
#[test]
fn the_path_of_the_webhook_names_cluster_and_network() {
    let none = BTreeMap::new();
    let injected = inject_at(&pod(json!({})), &settings(), &none, "/inject/cluster/c2/net/n2").unwrap();
    let proxy = injected.proxy().unwrap();
    assert_eq!((env(proxy, "ISTIO_META_CLUSTER_ID"), env(proxy, "ISTIO_META_NETWORK")), (Some("c2"), Some("n2")));
    assert_eq!(injected.label("topology.istio.io/network"), Some("n2"));
    let mut own = pod(json!({}));
    own.set_label("topology.istio.io/network", "mine");
    let injected = inject_at(&own, &settings(), &none, "/inject/net/n2").unwrap();
    assert_eq!(env(injected.proxy().unwrap(), "ISTIO_META_NETWORK"), Some("mine"));
}

// spec: HL-1, PI-66
#[test]
fn probes_and_hooks_go_to_the_proxy() {
    let mut written = pod(json!({})).into_value();
    written["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/r", "port": "http", "scheme": "HTTPS"}, "periodSeconds": 5, "timeoutSeconds": 2});
    written["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 9}});
    written["spec"]["containers"][0]["startupProbe"] = json!({"grpc": {"port": 10, "service": "s"}});
    written["spec"]["containers"][0]["lifecycle"] =
        json!({"preStop": {"httpGet": {"path": "/stop", "port": 8}}, "postStart": {"exec": {"command": ["x"]}}});
    let written = Pod::new(written).unwrap();
    let injected = inject(&written);
    let app = pod::find(injected.list("containers"), "app").unwrap();
    let to = |path: &str| json!({"path": path, "port": 15020});
    let mut ready = to("/app-health/app/readyz");
    ready["scheme"] = json!("HTTP");
    assert_eq!(app["readinessProbe"], json!({"periodSeconds": 5, "timeoutSeconds": 2, "httpGet": ready}));
    assert_eq!(app["livenessProbe"], json!({"httpGet": to("/app-health/app/livez")}));
    assert_eq!(app["startupProbe"], json!({"httpGet": to("/app-health/app/startupz")}));
    assert_eq!(app["lifecycle"]["preStop"], json!({"httpGet": to("/app-lifecycle/app/prestopz")}));
    assert_eq!(app["lifecycle"]["postStart"], json!({"exec": {"command": ["x"]}}));
    let told: Value = serde_json::from_str(env(injected.proxy().unwrap(), "ISTIO_KUBE_APP_PROBERS").unwrap()).unwrap();
    let expected = json!({
        "/app-health/app/livez": {"tcpSocket": {"port": 9}},
        "/app-health/app/readyz": {"httpGet": {"path": "/r", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 2},
        "/app-health/app/startupz": {"grpc": {"port": 10, "service": "s"}},
        "/app-lifecycle/app/prestopz": {"httpGet": {"path": "/stop", "port": 8}},
    });
    assert_eq!(told, expected);
    assert_eq!(inject(&injected), injected, "twice is once");
    let mut left = written;
    left.set_annotation("sidecar.istio.io/rewriteAppHTTPProbers", "false");
    let injected = inject(&left);
    assert_eq!(injected.list("containers")[0]["livenessProbe"], json!({"tcpSocket": {"port": 9}}));
    assert_eq!(env(injected.proxy().unwrap(), "ISTIO_KUBE_APP_PROBERS"), None);
}

// spec: OB-2, AN-4
#[test]
fn metrics_of_the_application_are_merged() {
    let told = |annotations: Value| {
        let injected = inject(&pod(annotations));
        let told = env(injected.proxy().unwrap(), "ISTIO_PROMETHEUS_ANNOTATIONS").map(str::to_owned);
        let own = ["scrape", "port", "path"]
            .map(|name| injected.annotation(&format!("prometheus.io/{name}")).map(str::to_owned));
        (told, own.map(|value| value.unwrap_or_default()))
    };
    let merged = ["true", "15020", "/stats/prometheus"].map(str::to_owned);
    assert_eq!(told(json!({})), (None, merged.clone()));
    let one = told(json!({"prometheus.io/scrape": "true", "prometheus-io/port": "8080"}));
    assert_eq!(one, (Some(r#"{"scrape":"true","path":"","port":"8080"}"#.to_owned()), merged.clone()));
    let several = told(json!({"prometheus.istio.io/scrape-targets": "8080, 9100:/m"}));
    let json = r#"{"scrape":"","path":"/metrics","port":"8080","targets":[{"port":"8080","path":"/metrics"},{"port":"9100","path":"/m"}]}"#;
    assert_eq!(several, (Some(json.to_owned()), merged));
    let no = [String::new(), String::new(), String::new()];
    assert_eq!(told(json!({"prometheus.istio.io/merge-metrics": "false"})), (None, no));
    assert_eq!(told(json!({"prometheus.io/scrape": "false"})).1[1], "");
    for port in ["0", "x", "15090", "15021", "15000"] {
        let error = inject_with(&pod(json!({"prometheus.io/port": port})), &settings()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("annotation prometheus.io/port: {port:?}: ")), "{error}");
    }
}

// spec: IN-22, IN-23
#[test]
fn on_openshift_the_proxy_takes_ids_of_the_namespace() {
    let range = BTreeMap::from([("openshift.io/sa.scc.uid-range".to_owned(), "1000/10".to_owned())]);
    let injected = inject_at(&pod(json!({})), &settings(), &range, "/inject").unwrap();
    let security = &injected.proxy().unwrap()["securityContext"];
    assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(1009), &json!(1009)));
    assert_eq!(after(&args(&injected), "-u"), Some("1009"));
    let values = json!({"pilot": {"cni": {"enabled": true, "provider": "multus"}}});
    let by_agent = Settings { values: Values::new(&values), ..settings() };
    let injected = inject_at(&pod(json!({})), &by_agent, &range, "/inject").unwrap();
    let check = pod::find(injected.list("initContainers"), VALIDATION).unwrap();
    assert_eq!(check["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(
        (&check["securityContext"]["runAsUser"], &check["securityContext"]["runAsNonRoot"]),
        (&json!(1009), &json!(true))
    );
    assert_eq!(injected.annotation("k8s.v1.cni.cncf.io/networks"), Some("default/istio-cni"));
}

// spec: PI-57
#[test]
fn a_gateway_is_a_proxy_with_its_own_settings() {
    let written = Pod::new(json!({
        "metadata": {"annotations": {"inject.istio.io/templates": "gateway"}},
        "spec": {"containers": [{
            "name": "istio-proxy", "image": "auto", "resources": {"limits": {"cpu": "1"}},
            "env": [{"name": "OWN", "value": "x"}], "ports": [{"containerPort": 8080}],
        }]},
    }));
    let injected = inject(&written.unwrap());
    assert_eq!((names(injected.spec("containers")), names(injected.spec("initContainers"))), (vec![PROXY], vec![]));
    let proxy = injected.proxy().unwrap();
    assert_eq!(proxy["image"], format!("ferromesh/proxy:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!((&proxy["args"][1], env(proxy, "OWN")), (&json!("router"), Some("x")));
    assert_eq!(proxy["resources"], json!({"limits": {"cpu": "1"}}));
    assert_eq!(proxy["ports"].as_array().unwrap().len(), 2);
    assert_eq!(inject(&injected), injected, "twice is once");
    let mut transparent = settings();
    transparent.mesh = MeshSettings::parse("defaultConfig: {interceptionMode: TPROXY}").unwrap();
    assert!(inject_with(&injected, &transparent).is_ok(), "a gateway intercepts nothing");
    let refused = inject_with(&pod(json!({})), &transparent).unwrap_err().to_string();
    assert!(refused.contains("interceptionMode") && refused.ends_with("use REDIRECT"), "{refused}");
    let wrong = pod(json!({"inject.istio.io/templates": "sidecar,nothing"}));
    let error = inject_with(&wrong, &settings()).unwrap_err().to_string();
    assert!(error.ends_with("there is no template \"nothing\"; there are gateway, sidecar"), "{error}");
}

// spec: PI-57
#[test]
fn the_pods_own_proxy_container_wins_field_by_field() {
    let mut written = pod(json!({})).into_value();
    let own = json!({"name": "istio-proxy", "image": "auto", "securityContext": {"runAsUser": 7, "runAsGroup": 8},
        "env": [{"name": "TRUST_DOMAIN", "value": "own"}]});
    written["spec"]["containers"].as_array_mut().unwrap().push(own);
    let injected = inject(&Pod::new(written).unwrap());
    let proxy = injected.proxy().unwrap();
    assert_eq!(names(injected.spec("containers")), ["app"], "it moves to where native sidecars stand");
    assert_eq!((env(proxy, "TRUST_DOMAIN"), &proxy["securityContext"]["runAsUser"]), (Some("own"), &json!(7)));
    assert_eq!(after(&args(&injected), "-u"), Some("7"));
    assert_eq!(inject(&injected), injected, "twice is once");
}

// spec: PI-57
#[test]
fn templates_of_the_user_are_merged_in_order() {
    let custom = "defaultTemplates: [sidecar, own]\naliases: {both: [sidecar, own]}\ninjectedAnnotations: {x: y}\n\
        templates:\n  own: |\n    metadata: {labels: {owner: {{ .DeploymentMeta.Name | quote }}}}\n    spec:\n      \
        containers:\n      {{- range .Spec.Containers }}\n      - name: {{ .Name }}\n        env: [{name: C, value: {{ \
        $.Revision | default \"none\" }}}]\n      {{- end }}\n";
    let own = Settings { config: Config::parse(custom).unwrap(), ..settings() };
    let injected = inject_with(&pod(json!({})), &own).unwrap();
    assert_eq!((injected.label("owner"), injected.annotation("x")), (Some("p"), Some("y")));
    assert_eq!(env(&injected.list("containers")[0], "C"), Some("none"));
    assert!(injected.proxy().is_some());
    let alias = inject_with(&pod(json!({"inject.istio.io/templates": "both"})), &own).unwrap();
    assert_eq!(alias.label("owner"), Some("p"));
    let error = Config::parse("templates: {bad: \"a\\n{{ nothing }}\"}").unwrap_err().to_string();
    assert_eq!(error, "template bad: line 2: there is no function nothing");
}

#[test]
fn a_pod_of_another_shape_is_refused() {
    for (value, path) in [
        (json!([]), "pod"),
        (json!({"metadata": {"labels": {"a": 1}}}), "metadata.labels"),
        (json!({"spec": {"containers": {"a": 1}}}), "spec.containers"),
        (json!({"spec": 1}), "spec"),
    ] {
        let error = Pod::new(value).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: ")), "{error}");
    }
}

/// All paths of an object.
fn paths(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| paths(value, format!("{path}/{name}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| paths(item, format!("{path}/{at}"), found))
        }
        _ => found.push(path),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    // bar: S5
    /// Whatever stands in labels and annotations stays a value; it never becomes structure (S5).
    #[test]
    fn texts_of_the_pod_cannot_change_its_structure(text in any::<String>(), line in "[ -~\n]{0,40}") {
        let shape = |text: &str, line: &str| {
            let mut pod = pod(json!({
                "sidecar.istio.io/logLevel": text, "sidecar.istio.io/proxyImage": format!("x/{line}"),
                "sidecar.istio.io/bootstrapOverride": line, "sidecar.istio.io/agentLogLevel": line,
            }));
            pod.set_label("app", format!("a{text}"));
            pod.set_label("version", format!("v{line}"));
            let mut found = Vec::new();
            paths(inject(&pod).value(), String::new(), &mut found);
            found
        };
        prop_assert_eq!(shape(&text, &line), shape("warning", "plain"));
    }
}

// spec: PI-57
#[test]
fn the_patch_makes_the_pod() {
    let written = pod(json!({}));
    let injected = inject(&written);
    let mut patched = written.value().clone();
    json_patch::patch(&mut patched, &patch(written.value(), &injected)).unwrap();
    assert_eq!(&patched, injected.value());
}
