//! External authorization over HTTP.

use crate::support::{http, start};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use std::net::SocketAddr;

/// Istio's sample as rules: allowed is who brings the header or is of the service account `a` (MX-117).
const SAMPLE: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: deny, namespace: istio-system}
spec: {compiledAdapter: denier, params: {status: {code: 7, message: not you}}}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: nothing, namespace: istio-system}
spec: {compiledTemplate: checknothing}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: allow, namespace: istio-system}
spec:
  match: (request.headers["x-ext-authz"] | "") != "allow" && (source.serviceAccount | "") != "a"
  actions: [{handler: deny, instances: [nothing]}]
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: headers, namespace: istio-system}
spec:
  match: request.url_path == "/headers"
  requestHeaderOperations:
  - {name: x-checked, values: ['"yes"']}
  - {name: x-secret, operation: REMOVE}
"#;

async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> hyper::Response<hyper::body::Incoming> {
    let mut request = Request::get(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

fn header<'a>(answer: &'a hyper::Response<hyper::body::Incoming>, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

// spec: MX-96, MX-117
#[tokio::test]
async fn any_path_below_the_prefix_is_checked_and_headers_come_back() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), SAMPLE).unwrap();
    let flags = [
        format!("--config-dir={}", directory.path().display()),
        "--ext-authz-http-addr=127.0.0.1:0".to_owned(),
        "--ext-authz-http-prefix=/check/".to_owned(),
    ];
    let running = start(&flags.each_ref().map(String::as_str)).await;
    let address = running.ext_authz_http.unwrap();
    let allowed = ask(address, "/check/a/b?c=d", &[("x-ext-authz", "allow"), ("x-ferromesh-lease", "1")]).await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(header(&allowed, "x-ext-authz-check-result"), "allowed");
    assert!(header(&allowed, "x-ext-authz-check-received").ends_with("/a/b?c=d"), "{allowed:?}");
    let lease: serde_json::Value = serde_json::from_str(header(&allowed, "x-ferromesh-lease")).unwrap();
    assert_eq!(lease["by"], serde_json::json!(["request.path", "request.headers/x-ext-authz"]), "{lease}");
    let denied =
        ask(address, "/check/", &[("x-ext-authz", "deny"), ("x-ext-authz-additional-header-override", "o")]).await;
    assert_eq!(denied.status(), 403);
    assert_eq!(header(&denied, "x-ext-authz-check-result"), "denied");
    assert_eq!(header(&denied, "x-ext-authz-additional-header-override"), "o");
    assert_eq!(header(&denied, "content-type"), "text/plain");
    let principal = [("x-ferromesh-source-principal", "spiffe://cluster.local/ns/foo/sa/a")];
    let known = ask(address, "/check/headers", &principal).await;
    assert_eq!(known.status(), 200);
    assert_eq!((header(&known, "x-checked"), header(&known, "x-envoy-auth-headers-to-remove")), ("yes", "x-secret"));
    let (status, _) = http(Request::get(format!("http://{address}/other")).body(Full::default()).unwrap()).await;
    assert_eq!(status, 404, "not below the prefix");
    running.stop(std::time::Duration::from_secs(1)).await;
}
