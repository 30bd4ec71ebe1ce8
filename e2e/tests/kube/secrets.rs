//! Secrets of a cluster for gateways: who gets them, and what pilot holds of them.

use crate::support;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::cluster::{Bare, Cluster, PATIENCE};
use pilot::ads::relay::{self, Presents};
use pilot::ads::tls::Files;
use pilot::delivery::Command;
use pilot::source::Kind;
use proto::envoy::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

/// Service accounts of the gateway's namespace: `gw` may list Secrets there, `poor` may not.
const OBJECTS: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: gw, namespace: istio-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: poor, namespace: istio-system}
---
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {serviceAccountName: gw, containers: [{name: a, image: a}]}
---
apiVersion: v1
kind: Pod
metadata: {name: poor-1, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {serviceAccountName: poor, containers: [{name: a, image: a}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: secrets, namespace: istio-system}
rules: [{apiGroups: [''], resources: [secrets], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gw, namespace: istio-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: secrets}
subjects: [{kind: ServiceAccount, name: gw, namespace: istio-system}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example], tls: {mode: MUTUAL, credentialName: a}}]
";

const OWN: &str = "kubernetes://a";
const ROOTS: &str = "kubernetes://a-cacert";

/// A certificate that is its own authority: PEM of it and of its key.
fn certificate(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn secret(namespace: &str, name: &str, fields: &[(&str, &str)]) -> String {
    let data: serde_json::Map<String, Value> =
        fields.iter().map(|(name, text)| ((*name).to_owned(), STANDARD.encode(text).into())).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data})
        .to_string()
}

/// A stream of secrets.
struct Sds {
    _requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Sds {
    /// Asks for both secrets as a gateway of an account.
    async fn ask(cluster: &Cluster, channel: Channel, account: &str) -> Self {
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &format!("{account}-1")];
        let token = ["create", "token", account, "-n", "istio-system", "--audience", "istio-ca"];
        let token = cluster.kubectl(&[&token[..], &bound].concat()).unwrap();
        let metadata = json!({"SERVICE_ACCOUNT": account, "LABELS": {"istio": "ingressgateway"}});
        let node = proto::envoy::core::Node {
            id: format!("router~10.0.0.9~{account}-1.istio-system~istio-system.svc.cluster.local"),
            metadata: Some(support::structure(&metadata)),
            ..Default::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: proto::type_url::SECRET.to_owned(),
            resource_names_subscribe: vec![OWN.to_owned(), ROOTS.to_owned()],
            ..Default::default()
        };
        let (requests, queue) = mpsc::channel(1);
        requests.send(first).await.unwrap();
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(queue));
        request.metadata_mut().insert("authorization", format!("Bearer {}", token.trim()).parse().unwrap());
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = Box::pin(client.delta_aggregated_resources(request)).await.unwrap().into_inner();
        Self { _requests: requests, responses }
    }

    /// Names of what comes next, and of what there is not.
    async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let response = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("nothing came");
        let response = response.unwrap().unwrap();
        (response.resources.into_iter().map(|resource| resource.name).collect(), response.removed_resources)
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

// spec: CA-26, CA-27, GW-12
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn the_api_server_says_who_gets_secrets() {
    let cluster = Cluster::bare("secrets", Bare::Api).unwrap();
    let namespace = |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n");
    cluster.apply(&(namespace("istio-system") + &namespace("shop"))).unwrap();
    support::apply_definitions(&cluster);
    cluster.apply(OBJECTS).unwrap();
    let (chain, key) = certificate("a.example");
    let fields = [("tls.crt", chain.as_str()), ("tls.key", &key), ("ca.crt", &chain)];
    cluster.apply(&secret("istio-system", "a", &fields)).unwrap();
    cluster.apply(&secret("shop", "a", &fields)).unwrap();
    cluster.apply(&secret("istio-system", "database", &[("password", "S3CR3T")])).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let (own, own_key) = certificate("localhost");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate_file, key_file) = (file("own.pem", &own), file("own.key", &own_key));
    let tls = ["--tls-cert-file", &certificate_file, "--tls-key-file", &key_file, "--ca-cert-file", &certificate_file];
    let ports = ["--secure-grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--monitoring-addr", ""];
    let source = ["--https-addr", "", "--kubeconfig", cluster.kubeconfig().to_str().unwrap()];
    let pilot = support::pilot_with(&[&tls[..], &ports, &source].concat()).await;
    support::ready(&pilot).await;

    let world = pilot.hub.ask(Command::World).await.unwrap();
    let held: Vec<String> =
        world.objects.iter().filter(|o| o.key.kind == Kind::Secret).map(|o| o.key.to_string()).collect();
    assert_eq!(held, ["Secret istio-system/a", "Secret shop/a"], "a Secret without certificates is not held");

    let roots = Path::new(&certificate_file).to_owned();
    let files = Files { certificate: roots.clone(), key: roots.clone(), roots };
    let address = format!("localhost:{}", pilot.secure_grpc.unwrap().port());
    let channel = relay::channel(&address, files, Presents::Nothing).unwrap();
    let mut poor = Sds::ask(&cluster, channel.clone(), "poor").await;
    assert_eq!(poor.next().await, (texts(&[ROOTS]), texts(&[OWN])), "authorities alone, which are public");
    let mut gateway = Sds::ask(&cluster, channel, "gw").await;
    assert_eq!(gateway.next().await, (texts(&[OWN, ROOTS]), Vec::new()));

    let (chain, key) = certificate("a.example");
    let began = Instant::now();
    cluster.apply(&secret("istio-system", "a", &[("tls.crt", &chain), ("tls.key", &key), ("ca.crt", &chain)])).unwrap();
    assert_eq!(gateway.next().await.0, [OWN, ROOTS], "rotated");
    println!("a changed Secret is told after {:.2} s, kubectl's own time included", began.elapsed().as_secs_f64());
    assert_eq!(poor.next().await.0, [ROOTS]);
    without_the_right(&cluster, directory.path()).await;
}

/// A pilot that may not list Secrets serves all the rest.
async fn without_the_right(cluster: &Cluster, directory: &Path) {
    cluster
        .apply(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: modest, namespace: istio-system}\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: modest}\nrules: [{apiGroups: ['', discovery.k8s.io, apiextensions.k8s.io, networking.istio.io, security.istio.io, telemetry.istio.io, policy.ferromesh.io], resources: [namespaces, nodes, services, endpointslices, pods, configmaps, customresourcedefinitions, workloadentries, serviceentries, virtualservices, destinationrules, gateways, sidecars, peerauthentications, authorizationpolicies, requestauthentications, telemetries, ratelimits], verbs: [get, list, watch]}]\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: modest}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: modest}\nsubjects: [{kind: ServiceAccount, name: modest, namespace: istio-system}]\n",
        )
        .unwrap();
    let token = cluster.kubectl(&["create", "token", "modest", "-n", "istio-system"]).unwrap();
    let mut config: Value =
        serde_json::from_str(&cluster.kubectl(&["config", "view", "--raw", "-o", "json"]).unwrap()).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({"token": token.trim()});
    }
    let path = directory.join("modest.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let flags = ["--kubeconfig", path.to_str().unwrap(), "--write-status", "false", "--https-addr", ""];
    let ports = ["--secure-grpc-addr", "", "--http-addr", "127.0.0.1:0", "--monitoring-addr", ""];
    let pilot = support::pilot_with(&[&flags[..], &ports].concat()).await;
    support::ready(&pilot).await;
    let world = pilot.hub.ask(Command::World).await.unwrap();
    assert!(world.objects.iter().any(|object| object.key.kind == Kind::Gateway), "all the rest is there");
    assert!(world.objects.iter().all(|object| object.key.kind != Kind::Secret));
}
