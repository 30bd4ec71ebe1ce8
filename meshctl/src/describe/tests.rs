//! What is said of the bookshop's reviews.

use super::{pod, service};
use crate::analyze::View;
use crate::offline::Offline;
use pilot::model::MeshConfig;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1-0, namespace: shop, labels: {app: reviews, version: v1}}
spec:
  initContainers: [{name: istio-proxy, ports: [{containerPort: 15090}]}]
  containers: [{name: reviews, ports: [{containerPort: 8080}]}]
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop}
spec: {containers: [{name: a}]}
status: {phase: Pending, conditions: [{type: Ready, status: "False"}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - {match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]}
  - {route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: outside, namespace: shop}
spec: {hosts: [shop.example], gateways: [door], http: [{match: [{uri: {prefix: /reviews}}], route: [{destination: {host: reviews}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-get, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
"#;

fn offline() -> Offline {
    Offline::of(&[(String::new(), OBJECTS.to_owned())], MeshConfig::default())
}

// spec: CT-15
#[test]
fn of_a_pod_it_is_said_what_applies_and_what_does_not_match() {
    let offline = offline();
    let view = View::new(&offline);
    let lines = pod::lines(&view, pod::find(&view, "shop", "reviews-v1-0").unwrap(), false);
    let expected = [
        "Pod: reviews-v1-0.shop",
        "   Pod Revision: default",
        "   Pod Ports: 15090 (istio-proxy), 8080 (reviews)",
        "--------------------",
        "Service: reviews.shop",
        "   Port: http 9080/HTTP targets pod port 8080",
        "DestinationRule: reviews.shop for \"reviews.shop.svc.cluster.local\"",
        "   Matching subsets: v1",
        "      (Non-matching subsets v2)",
        "   Traffic Policy: TLS mode: ISTIO_MUTUAL",
        "VirtualService: outside.shop (for shop.example)",
        "   HTTP route 1: when uri prefix \"/reviews\", to reviews.shop.svc.cluster.local",
        "   Exposed on gateway shop/door (80/HTTP)",
        "VirtualService: reviews.shop",
        "   HTTP route 2: 90 % to reviews.shop.svc.cluster.local subset v1, 10 % to reviews.shop.svc.cluster.local subset v2",
        "   Routes that do not lead to this pod:",
        "      HTTP route 1: when end-user \"jason\", to reviews.shop.svc.cluster.local subset v2",
        "--------------------",
        "Effective PeerAuthentication:",
        "   Workload mTLS mode: STRICT",
        "Applied PeerAuthentication:",
        "   default.istio-system",
        "AuthorizationPolicy:",
        "   ALLOW only-get.shop (1 rules)",
    ];
    assert_eq!(lines, expected);
}

// spec: CT-15
#[test]
fn what_should_be_looked_at_is_a_warning() {
    let offline = offline();
    let view = View::new(&offline);
    let bare = pod::find(&view, "shop", "bare").unwrap();
    let text = pod::lines(&view, bare, false).join("\n");
    for said in ["not running: Pending", "the pod is not ready", "the pod has no proxy", "No Service selects it"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!pod::lines(&view, bare, true).join("\n").contains("has no proxy"));
}

// spec: CT-15
#[test]
fn of_a_service_pods_and_rules_are_told() {
    let offline = offline();
    let view = View::new(&offline);
    let text = service::lines(&view, service::find(&view, "shop", "reviews").unwrap()).join("\n");
    for said in [
        "Pods: 1, 1 of them with a proxy",
        "Matching subsets: v1,v2",
        "HTTP route 1: when",
        "mTLS mode of its pods: STRICT",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
