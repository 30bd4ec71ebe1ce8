//! Who someone is on Kubernetes: the roots, tokens that the API server checks, and pilot's own certificate.

use crate::support;
use ::identity::pem;
use ::identity::spiffe::TrustDomain;
use ::identity::svid::LeafFacts;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use citadel::ca::contents::Contents;
use citadel::serve::{ServeArgs, Server};
use clap::Parser;
use e2e::cluster::{Bare, Cluster, PATIENCE};
use pilot::ads::relay::{self, Presents};
use pilot::ads::tls::Files;
use pilot::server::Running;
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::envoy::discovery::DeltaDiscoveryRequest;
use proto::envoy::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const NAMESPACES: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
const ISTIOD: &str = "spiffe://cluster.local/ns/istio-system/sa/istiod";
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// A citadel in process, on a port of its own.
pub(crate) struct Citadel {
    port: u16,
    task: JoinHandle<()>,
}

impl Citadel {
    async fn start(cluster: &Cluster) -> Self {
        Self::start_as(cluster.kubeconfig(), &[]).await
    }

    /// With the rights of a kubeconfig, and more flags.
    pub(crate) async fn start_as(kubeconfig: &Path, more: &[&str]) -> Self {
        let kubeconfig = kubeconfig.to_str().unwrap();
        let names = format!("{ISTIOD}=istiod.istio-system.svc,localhost");
        let flags = ["citadel", "--listen", "127.0.0.1:0", "--monitoring-addr", "", "--kubeconfig", kubeconfig];
        let trust = ["--relay", ISTIOD, "--host-names", &names];
        let args = Flags::parse_from(flags.iter().chain(&trust).chain(more)).serve;
        let server = Box::pin(Server::start(args, None)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let task = tokio::spawn(async move { Box::pin(server.serve(std::future::pending())).await.unwrap() });
        Self { port, task }
    }
}

impl Drop for Citadel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A service account with a pod of its own, as nothing runs pods here.
fn account(namespace: &str, name: &str) -> String {
    let pod = pod(namespace, name);
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\n{pod}")
}

fn pod(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-1, namespace: {namespace}}}\nspec: {{serviceAccountName: {name}, containers: [{{name: a, image: a}}]}}\n---\n"
    )
}

pub(crate) fn token(cluster: &Cluster, namespace: &str, account: &str, more: &[&str]) -> String {
    let base = ["create", "token", account, "-n", namespace];
    cluster.kubectl(&[&base, more].concat()).unwrap().trim().to_owned()
}

pub(crate) fn bound(cluster: &Cluster, namespace: &str, account: &str, audience: &str) -> String {
    let pod = format!("{account}-1");
    let binding = ["--audience", audience, "--bound-object-kind", "Pod", "--bound-object-name", &pod];
    token(cluster, namespace, account, &binding)
}

/// The claims of a token, changed, signed by a key.
fn forged(token: &str, key: &Path, change: impl FnOnce(&mut Value)) -> String {
    let part = |index| URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&part(1)).unwrap();
    change(&mut claims);
    let text = std::fs::read(key).unwrap();
    let secret = jsonwebtoken::EncodingKey::from_ec_pem(&pkcs8(&text)).unwrap();
    let mut header: jsonwebtoken::Header = serde_json::from_slice(&part(0)).unwrap();
    header.typ = None;
    jsonwebtoken::encode(&header, &claims, &secret).unwrap()
}

/// kubeadm writes SEC1 keys.
fn pkcs8(text: &[u8]) -> Vec<u8> {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["pkcs8", "-topk8", "-nocrypt"]).stdin(std::process::Stdio::piped());
    let mut child = openssl.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// The roots that a namespace holds, once they are what is waited for.
pub(crate) fn roots_in(cluster: &Cluster, namespace: &str, says: impl Fn(&str) -> bool) -> String {
    let path = ["get", "configmap", "istio-ca-root-cert", "-n", namespace, "-o", "jsonpath={.data.root-cert\\.pem}"];
    cluster.eventually(&path, says).unwrap()
}

pub(crate) fn count(roots: &str) -> usize {
    roots.matches("BEGIN CERTIFICATE").count()
}

/// A channel to a port of this machine under the mesh's roots.
fn channel(port: u16, roots: &str) -> Channel {
    let directory = tempfile::tempdir().unwrap().keep();
    let path = directory.join("roots.pem");
    std::fs::write(&path, roots).unwrap();
    let files = Files { certificate: path.clone(), key: path.clone(), roots: path };
    relay::channel(&format!("localhost:{port}"), files, Presents::Nothing).unwrap()
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Asks for a certificate; its SPIFFE id, and the whole chain.
async fn certificate(channel: Channel, token: &str) -> Result<(String, Vec<String>), Status> {
    let id = ::identity::spiffe::SpiffeId::parse("spiffe://evil/ns/kube-system/sa/admin").unwrap();
    let csr = ::identity::csr::Csr::generate(&id).unwrap().pem;
    let asked = IstioCertificateRequest { csr, validity_duration: 0, metadata: None };
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(with_token(asked, token)).await?;
    let chain = answer.into_inner().cert_chain;
    let leaf = pem::certificates(chain[0].as_bytes()).unwrap().swap_remove(0);
    Ok((LeafFacts::read(&leaf).unwrap().id.unwrap().to_string(), chain))
}

/// Opens a stream as a node; how it is answered first.
async fn stream(channel: Channel, token: &str, namespace: &str, account: &str) -> Result<(), Status> {
    let id = format!("sidecar~10.0.0.9~{account}-1.{namespace}~{namespace}.svc.cluster.local");
    let metadata = support::structure(&json!({"SERVICE_ACCOUNT": account}));
    let node = proto::envoy::core::Node { id, metadata: Some(metadata), ..Default::default() };
    let type_url = proto::type_url::CLUSTER.to_owned();
    let first = DeltaDiscoveryRequest { node: Some(node), type_url, ..Default::default() };
    let request = with_token(tokio_stream::iter([first]), token);
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    Box::pin(async move { client.delta_aggregated_resources(request).await?.into_inner().message().await.map(drop) })
        .await
}

/// A pilot with a certificate of citadel's, and a channel to its port 15012.
async fn certified_pilot(cluster: &Cluster, citadel: &Citadel, directory: &Path) -> Running {
    let token = bound(cluster, "istio-system", "istiod", "istio-ca");
    pilot_as(cluster.kubeconfig(), &token, citadel, directory).await
}

/// A pilot with the rights of a kubeconfig, and a token for citadel.
pub(crate) async fn pilot_as(kubeconfig: &Path, token: &str, citadel: &Citadel, directory: &Path) -> Running {
    let file = directory.join("token");
    std::fs::write(&file, token).unwrap();
    let (kubeconfig, address) = (kubeconfig.to_str().unwrap(), format!("localhost:{}", citadel.port));
    let (file, tls) = (file.to_str().unwrap(), directory.join("tls"));
    let own = ["--token-file", file, "--tls-dir", tls.to_str().unwrap(), "--ca-addr", &address];
    let ports = ["--secure-grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--monitoring-addr", "127.0.0.1:0"];
    let webhooks = ["--https-addr", "127.0.0.1:0", "--secret-namespaces", "istio-system"];
    support::pilot_with(&[&["--kubeconfig", kubeconfig], &own[..], &ports, &webhooks].concat()).await
}

pub(crate) async fn ready_page(pilot: &Running) {
    let deadline = Instant::now() + PATIENCE;
    while support::page(pilot.http.unwrap(), "/ready").await.0 != 200 {
        assert!(Instant::now() < deadline, "never ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// spec: CA-13, CA-14
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn one_root_is_made_and_stands_in_every_namespace() {
    let cluster = Cluster::bare("roots", Bare::Api).unwrap();
    cluster.apply(NAMESPACES).unwrap();
    let all = futures_util::future::join_all((0..4).map(|_| Citadel::start(&cluster))).await;
    let roots = roots_in(&cluster, "istio-system", |text| count(text) == 1);
    let secret = cluster.kubectl(&["get", "secret", "istio-ca-secret", "-n", "istio-system", "-o", "json"]).unwrap();
    let secret: Value = serde_json::from_str(&secret).unwrap();
    assert_eq!(secret["type"], "istio.io/ca-root");
    let kept = STANDARD.decode(secret["data"]["ca-cert.pem"].as_str().unwrap()).unwrap();
    let parsed = |text: &[u8]| pem::certificates(text).unwrap();
    assert_eq!(parsed(&kept), parsed(roots.as_bytes()));
    // All four sign with it: each proves itself by it.
    cluster.apply(&account("shop", "reviews")).unwrap();
    let token = bound(&cluster, "shop", "reviews", "istio-ca");
    for citadel in &all {
        certificate(channel(citadel.port, &roots), &token).await.unwrap();
    }

    let pilot = support::pilot_of(&cluster, &["--pod-name", "first"]).await;
    let _second = support::pilot_of(&cluster, &["--pod-name", "second"]).await;
    support::ready(&pilot).await;
    let same = |text: &str| text == roots;
    roots_in(&cluster, "shop", same);
    let began = Instant::now();
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n").unwrap();
    roots_in(&cluster, "later", same);
    println!("a new namespace has the roots after {:.2} s", began.elapsed().as_secs_f64());
    for namespace in ["later", "istio-system"] {
        let edit = ["patch", "configmap", "istio-ca-root-cert", "-n", namespace, "--type=merge", "-p"];
        cluster.kubectl(&[&edit[..], &["{\"data\":{\"root-cert.pem\":\"nothing\"}}"]].concat()).unwrap();
        roots_in(&cluster, namespace, same);
        cluster.kubectl(&["delete", "configmap", "istio-ca-root-cert", "-n", namespace]).unwrap();
        roots_in(&cluster, namespace, same);
    }
    let list = ["get", "configmap", "-A", "--field-selector=metadata.name=istio-ca-root-cert", "-o", "name"];
    assert_eq!(cluster.kubectl(&list).unwrap().lines().count(), 4, "default, istio-system, shop, later");

    // Another mesh beside it, whose roots have a name of their own.
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: second}\n").unwrap();
    let own = ["--namespace", "second", "--roots-config-map", "second-roots"];
    let _citadel = Citadel::start_as(cluster.kubeconfig(), &own).await;
    let _pilot = support::pilot_of(&cluster, &[&own[..], &["--pod-name", "third"]].concat()).await;
    let path = ["get", "configmap", "second-roots", "-n", "shop", "-o", "jsonpath={.data.root-cert\\.pem}"];
    let others = cluster.eventually(&path, |text| count(text) == 1).unwrap();
    assert_ne!(others, roots);
    roots_in(&cluster, "second", same);
    roots_in(&cluster, "shop", same);
}

// spec: CA-11, CA-12, CA-13, CA-14
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn an_old_root_is_renewed_once_and_a_plugged_one_is_followed() {
    let cluster = Cluster::bare("rotate", Bare::Api).unwrap();
    cluster.apply(&(NAMESPACES.to_owned() + &account("shop", "reviews"))).unwrap();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let generated = |age: Duration| Contents::generate(&domain, SystemTime::now() - age).unwrap();
    let secret = |name: &str, contents: &Contents, roots: &[u8]| {
        let data = |name: &str, bytes: &[u8]| (name.to_owned(), Value::from(STANDARD.encode(bytes)));
        let own = ["ca-cert.pem", "ca-key.pem"].map(|name| data(name, contents.get(name).unwrap()));
        let data: serde_json::Map<_, _> = own.into_iter().chain([data("root-cert.pem", roots)]).collect();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "istio-system"}, "data": data})
            .to_string()
    };
    // Istio's own secret: no roots in it, and in the last fifth of its life.
    cluster.apply(&secret("istio-ca-secret", &generated(DAY * 3000), b"")).unwrap();
    let pair = futures_util::future::join_all((0..2).map(|_| Citadel::start(&cluster))).await;
    let renewed = roots_in(&cluster, "istio-system", |text| count(text) > 1);
    assert_eq!(count(&renewed), 2, "one new root beside the old one, though two citadels saw that it was due");
    let token = bound(&cluster, "shop", "reviews", "istio-ca");
    for citadel in &pair {
        certificate(channel(citadel.port, &renewed), &token).await.unwrap();
    }
    drop(pair);

    // Plugged in: it comes before the other.
    let root = |contents: &Contents| contents.get("root-cert.pem").unwrap().to_vec();
    let (first, second) = (generated(DAY), generated(DAY));
    cluster.apply(&secret("cacerts", &first, &root(&first))).unwrap();
    let citadel = Citadel::start(&cluster).await;
    let text = |bytes: &[u8]| ::identity::bundle::TrustBundle::from_pem(bytes).unwrap().to_pem();
    let one = roots_in(&cluster, "istio-system", |roots| roots == text(&root(&first)));
    let (_, chain) = certificate(channel(citadel.port, &one), &token).await.unwrap();
    assert_eq!(chain.last().unwrap(), &one);

    // A broken one changes nothing; then both roots are trusted, then the other signs. At no time is a peer refused that
    // knows both.
    cluster.apply(&secret("cacerts", &first, &root(&second))).unwrap();
    let both = [root(&first), root(&second)].concat();
    cluster.apply(&secret("cacerts", &first, &both)).unwrap();
    let two = roots_in(&cluster, "istio-system", |roots| roots == text(&both));
    cluster.apply(&secret("cacerts", &second, &both)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let reversed = channel(citadel.port, &text(&root(&second)));
    let mut by_the_second = false;
    while !by_the_second {
        assert!(Instant::now() < deadline, "the other never signs");
        certificate(channel(citadel.port, &two), &token).await.unwrap();
        by_the_second = certificate(reversed.clone(), &token).await.is_ok();
    }
    // Gone: the authority in use stays.
    cluster.kubectl(&["delete", "secret", "cacerts", "-n", "istio-system"]).unwrap();
    certificate(channel(citadel.port, &two), &token).await.unwrap();
}

/// A citadel, a pilot with a certificate of it, and the way to both.
struct Mesh {
    cluster: Cluster,
    directory: tempfile::TempDir,
    direct: Channel,
    secure: Channel,
    /// The token of a pod of shop/reviews.
    good: String,
    _citadel: Citadel,
    _pilot: Running,
}

impl Mesh {
    async fn start() -> Self {
        let cluster = Cluster::bare("tokens", Bare::Api).unwrap();
        let accounts = [("istio-system", "istiod"), ("shop", "reviews"), ("shop", "ratings"), ("shop", "gone")];
        let objects: String = accounts.iter().map(|(namespace, name)| account(namespace, name)).collect();
        cluster.apply(NAMESPACES).unwrap();
        cluster.apply(&objects).unwrap();
        let citadel = Citadel::start(&cluster).await;
        let roots = roots_in(&cluster, "istio-system", |text| count(text) == 1);
        let directory = tempfile::tempdir().unwrap();
        let pilot = certified_pilot(&cluster, &citadel, directory.path()).await;
        ready_page(&pilot).await;
        let (direct, secure) = (channel(citadel.port, &roots), channel(pilot.secure_grpc.unwrap().port(), &roots));
        let good = bound(&cluster, "shop", "reviews", "istio-ca");
        Self { cluster, directory, direct, secure, good, _citadel: citadel, _pilot: pilot }
    }

    /// Tokens that prove nothing, with what is wrong with them.
    fn worthless(&self) -> Vec<(&'static str, String)> {
        let (cluster, good) = (&self.cluster, self.good.as_str());
        let key = self.signing_key();
        let another = self.directory.path().join("another.key");
        let other = Contents::generate(&TrustDomain::parse("a").unwrap(), SystemTime::now()).unwrap();
        std::fs::write(&another, other.get("ca-key.pem").unwrap()).unwrap();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let ended = forged(good, &key, |claims| {
            claims["exp"] = (seconds - 90).into(); // the API server allows clocks to differ by a minute
            claims["iat"] = (seconds - 700).into();
            claims["nbf"] = (seconds - 700).into();
        });
        let of_another_pod = forged(good, &key, |claims| {
            claims["kubernetes.io"]["pod"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
        });
        let of_another_account =
            forged(good, &key, |claims| claims["kubernetes.io"]["serviceaccount"]["name"] = "ratings".into());
        let api = "https://kubernetes.default.svc.cluster.local";
        vec![
            ("another audience", bound(cluster, "shop", "reviews", "vault")),
            ("the API server's audience", bound(cluster, "shop", "reviews", api)),
            ("bound to no pod", token(cluster, "shop", "reviews", &["--audience", "istio-ca"])),
            ("ended", ended),
            ("of a pod with another uid", of_another_pod),
            ("of another account than its uid's", of_another_account),
            ("of another cluster", forged(good, &another, |_| ())),
            ("without its signature", good.rsplit_once('.').unwrap().0.to_owned() + "."),
            ("nonsense", "x".to_owned()),
        ]
    }

    /// The key with which the cluster signs tokens.
    fn signing_key(&self) -> std::path::PathBuf {
        self.cluster.kubeconfig().parent().unwrap().parent().unwrap().join("pki/sa.key")
    }
}

// spec: CA-3, CA-8, CA-17, PI-51, PI-53, XI-2
// bar: C2
/// robustness C2: who is refused, by citadel, by pilot's relay and by pilot's streams.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn the_token_of_a_live_pod_proves_its_account_and_nothing_else_does() {
    let mesh = Box::pin(Mesh::start()).await;
    let own = "spiffe://cluster.local/ns/shop/sa/reviews";
    assert_eq!(certificate(mesh.direct.clone(), &mesh.good).await.unwrap().0, own);
    assert_eq!(certificate(mesh.secure.clone(), &mesh.good).await.unwrap().0, own, "relayed");
    stream(mesh.secure.clone(), &mesh.good, "shop", "reviews").await.unwrap();
    for (namespace, account) in [("shop", "ratings"), ("other", "reviews")] {
        let refused = stream(mesh.secure.clone(), &mesh.good, namespace, account).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{namespace}/{account}");
    }
    let same = forged(&mesh.good, &mesh.signing_key(), |_| ());
    certificate(mesh.direct.clone(), &same).await.expect("the key is the cluster's");
    let worthless = mesh.worthless();
    for (why, token) in &worthless {
        for (who, channel) in [("citadel", &mesh.direct), ("the relay", &mesh.secure)] {
            let code = certificate(channel.clone(), token).await.expect_err(why).code();
            assert_eq!(code, Code::Unauthenticated, "{who}: {why}");
        }
        let code = stream(mesh.secure.clone(), token, "shop", "reviews").await.expect_err(why).code();
        assert_eq!(code, Code::Unauthenticated, "a stream: {why}");
    }
    println!("{} kinds of token refused by citadel, relay and streams", worthless.len());
    a_deleted_pod_takes_its_token_along(&mesh).await;
    nobody_is_let_in_unchecked(&mesh).await;
}

/// Another pod of the same name changes nothing. The API server believes its own answers for 10 s, and so do we.
async fn a_deleted_pod_takes_its_token_along(mesh: &Mesh) {
    let token = bound(&mesh.cluster, "shop", "gone", "istio-ca");
    let asked = async || certificate(mesh.direct.clone(), &token).await;
    let opened = async || stream(mesh.secure.clone(), &token, "shop", "gone").await;
    asked().await.unwrap();
    opened().await.unwrap();
    mesh.cluster.kubectl(&["delete", "pod", "gone-1", "-n", "shop"]).unwrap();
    mesh.cluster.apply(&pod("shop", "gone")).unwrap();
    let deleted = Instant::now();
    while asked().await.is_ok() || opened().await.is_ok() {
        assert!(deleted.elapsed() < Duration::from_secs(25), "still believed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("the token of a deleted pod is refused after {:.1} s", deleted.elapsed().as_secs_f64());
    let new = bound(&mesh.cluster, "shop", "gone", "istio-ca");
    certificate(mesh.direct.clone(), &new).await.expect("the new pod has its own");
}

/// The API server is away: who asks is told to come again.
async fn nobody_is_let_in_unchecked(mesh: &Mesh) {
    let unseen = bound(&mesh.cluster, "shop", "ratings", "istio-ca");
    mesh.cluster.kill("kube-apiserver").unwrap();
    assert_eq!(certificate(mesh.direct.clone(), &unseen).await.unwrap_err().code(), Code::Unavailable);
    let refused = stream(mesh.secure.clone(), &unseen, "shop", "ratings").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    mesh.cluster.revive("kube-apiserver").unwrap();
    certificate(mesh.secure.clone(), &unseen).await.unwrap();
}
