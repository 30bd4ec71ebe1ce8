//! Istio's documented policy tasks, with their YAML as written.

use crate::request::{engine, get, table};
use mixer::policy::Engine;
use mixer::serve::ext_authz::ExtAuthz;
use mixer::workload::Follower;
use proto::envoy::auth::CheckRequest;
use proto::envoy::auth::authorization_server::Authorization as _;
use proto::envoy::auth::check_response::HttpResponse;
use std::sync::Arc;

/// HTTP status and body that a client would get; 200 and nothing where the request may go on.
pub(crate) async fn ask(engine: &Arc<Engine>, request: CheckRequest) -> (i32, String) {
    let service = ExtAuthz::new(engine.clone(), Follower::fixed(table()));
    let answer = service.check(tonic::Request::new(request)).await.unwrap().into_inner();
    match answer.http_response.unwrap() {
        HttpResponse::DeniedResponse(denied) => (denied.status.unwrap().code, denied.body),
        HttpResponse::OkResponse(_) => (200, String::new()),
        HttpResponse::ErrorResponse(other) => panic!("{other:?}"),
    }
}

/// Simple denial, 1.1's form.
const DENY_LABEL: &str = r#"
apiVersion: "config.istio.io/v1alpha2"
kind: handler
metadata:
  name: denyreviewsv3handler
spec:
  compiledAdapter: denier
  params:
    status:
      code: 7
      message: Not allowed
---
apiVersion: "config.istio.io/v1alpha2"
kind: instance
metadata:
  name: denyreviewsv3request
spec:
  compiledTemplate: checknothing
---
apiVersion: "config.istio.io/v1alpha2"
kind: rule
metadata:
  name: denyreviewsv3
spec:
  match: destination.labels["app"] == "ratings" && source.labels["app"]=="reviews" && source.labels["version"] == "v3"
  actions:
  - handler: denyreviewsv3handler
    instances: [ denyreviewsv3request ]
"#;

/// The same in 1.0's form: a kind per adapter and per template.
const DENY_LABEL_OLD: &str = r#"
apiVersion: "config.istio.io/v1alpha2"
kind: denier
metadata:
  name: denyreviewsv3handler
spec:
  status:
    code: 7
    message: Not allowed
---
apiVersion: "config.istio.io/v1alpha2"
kind: checknothing
metadata:
  name: denyreviewsv3request
spec:
---
apiVersion: "config.istio.io/v1alpha2"
kind: rule
metadata:
  name: denyreviewsv3
spec:
  match: destination.labels["app"] == "ratings" && source.labels["app"]=="reviews" && source.labels["version"] == "v3"
  actions:
  - handler: denyreviewsv3handler.denier
    instances: [ denyreviewsv3request.checknothing ]
"#;

// spec: MX-72, MX-44, MX-45, MX-46, MX-47, MX-51, MX-104
#[tokio::test]
async fn denials_by_label() {
    for yaml in [DENY_LABEL, DENY_LABEL_OLD] {
        let engine = engine(yaml);
        let (status, body) = ask(&engine, get("reviews-v3", "ratings", &[])).await;
        assert_eq!((status, body.as_str()), (403, "PERMISSION_DENIED:denyreviewsv3handler.default:Not allowed"));
        assert_eq!(ask(&engine, get("reviews-v2", "ratings", &[])).await.0, 200);
        assert_eq!(ask(&engine, get("reviews-v3", "details", &[])).await.0, 200);
        assert_eq!(ask(&engine, get("nobody", "ratings", &[])).await.0, 200, "an absent label is no match");
        let view = engine.view();
        assert_eq!((view.rules[0].hits, view.rules[0].denials, view.rules[0].failures), (1, 1, 1));
        assert_eq!((view.handlers[0].asked, view.handlers[0].refused), (1, 1));
    }
}

/// Control of headers: the demo adapter `keyval`, which is built in here.
const KEYVAL: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata:
  name: keyval
  namespace: istio-system
spec:
  adapter: keyval
  connection:
    address: keyval:9070
  params:
    table:
      jason: admin
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata:
  name: keyval
  namespace: istio-system
spec:
  template: keyval
  params:
    key: request.headers["user"] | ""
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata:
  name: keyval
  namespace: istio-system
spec:
  actions:
  - handler: keyval.istio-system
    instances: [ keyval ]
    name: x
  requestHeaderOperations:
  - name: user-group
    values: [ x.output.value ]
"#;

// spec: MX-24, MX-25, MX-45, MX-69
#[tokio::test]
async fn control_of_headers() {
    let engine = engine(KEYVAL);
    let service = ExtAuthz::new(engine.clone(), Follower::fixed(table()));
    let asked = tonic::Request::new(get("ingress", "productpage", &[("user", "jason")]));
    let answer = service.check(asked).await.unwrap().into_inner();
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("refused") };
    let header = ok.headers[0].header.clone().unwrap();
    assert_eq!((header.key.as_str(), header.value.as_str()), ("user-group", "admin"));
    let (status, body) = ask(&engine, get("ingress", "productpage", &[("user", "bill")])).await;
    assert_eq!((status, body.as_str()), (404, r#"<error_detail>key "bill" not found</error_detail>"#));

    let path = KEYVAL.replace("user-group", "\":path\"").replace("[ x.output.value ]", r#"[ '"/status/418"' ]"#);
    let engine = crate::request::engine(&path);
    let service = ExtAuthz::new(engine, Follower::fixed(table()));
    let asked = tonic::Request::new(get("ingress", "productpage", &[("user", "jason")]));
    let answer = service.check(asked).await.unwrap().into_inner();
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("refused") };
    let header = ok.headers[0].header.clone().unwrap();
    assert_eq!((header.key.as_str(), header.value.as_str()), (":path", "/status/418"));
}
