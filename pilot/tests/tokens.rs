//! Keys of token issuers on their way from the issuer to the proxies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use support::{Client, PATIENCE, channel, node, pilot};
use tokio::sync::watch;

/// The key of RFC 7515, appendix A.3, under a name.
fn keys(name: &str) -> String {
    format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"{name}","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}]}}"#
    )
}

/// What the issuer answers; nothing: 503.
type Answer = watch::Receiver<Option<String>>;

async fn answer(State(answer): State<Answer>) -> Result<String, StatusCode> {
    answer.borrow().clone().ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.96.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a}}
spec: {serviceAccountName: a}
status: {podIP: 10.0.0.1}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a-1}}]
";

/// Everything that a response says, as far as it is text.
fn text(response: &proto::envoy::discovery::DeltaDiscoveryResponse) -> String {
    let bytes = response.resources.iter().filter_map(|resource| Some(&resource.resource.as_ref()?.value));
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
}

// spec: CA-30, RA-2
#[tokio::test]
async fn keys_follow_their_issuer_and_stay_when_it_is_away() {
    let (held, answers) = watch::channel(Some(keys("first")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = listener.local_addr().unwrap();
    let router = Router::new().route("/keys", get(answer)).with_state(answers);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let rule = |path: &str| {
        format!(
            "{SERVICE}---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: p}}\n\
             spec: {{jwtRules: [{{issuer: me, jwksUri: 'http://{issuer}/{path}'}}]}}\n"
        )
    };
    std::fs::write(directory.path().join("a.yaml"), rule("keys")).unwrap();
    let running = pilot(directory.path(), &["--jwks-refresh", "50ms"]).await;
    let mut client = Client::connect(
        channel(running.grpc.unwrap()).await,
        node("sidecar~10.0.0.1~a-1.default~default.svc.cluster.local", &[]),
    )
    .await;
    client.subscribe("type.googleapis.com/envoy.config.listener.v3.Listener", &[]);
    // pilot is ready only once it knows the keys: the very first answer has them.
    let told = |text: &str, name: &str| text.contains(&format!(r#""kid":"{name}""#));
    let mut listeners = text(&client.next().await);
    assert!(told(&listeners, "first"));
    held.send_replace(Some(keys("second")));
    let seen = async {
        while !told(&listeners, "second") {
            listeners = text(&client.next().await);
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    // The issuer goes away: what was known stays, and nothing is sent. A new rule without keys is told of.
    held.send_replace(None);
    std::fs::write(directory.path().join("a.yaml"), rule("nowhere")).unwrap();
    let seen = async {
        while !told(&listeners, "ferromesh-no-keys") {
            listeners = text(&client.next().await);
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    let status = async {
        loop {
            let status = running.hub.ask(pilot::delivery::hub::Command::Status).await.unwrap();
            if let Some(problem) = status.problems.first() {
                return problem.to_string();
            }
            tokio::task::yield_now().await;
        }
    };
    let problem = tokio::time::timeout(PATIENCE, status).await.unwrap();
    assert!(problem.contains("answers 404") && problem.contains("spec.jwtRules[0].jwksUri"), "{problem}");
    std::fs::write(directory.path().join("a.yaml"), rule("keys")).unwrap();
    let seen = async {
        while !told(&listeners, "second") {
            listeners = text(&client.next().await);
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}
