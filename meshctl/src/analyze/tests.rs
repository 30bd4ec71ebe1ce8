//! For each code YAML that raises it, and YAML that does not.

use super::*;
use pilot::model::MeshConfig;
use std::collections::BTreeSet;

/// A mesh in which nothing is found: a namespace with a service, its pod, a gateway.
const MESH: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews, version: v1}}
spec: {containers: [{name: app}, {name: istio-proxy}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: gateway, namespace: istio-system}
spec: {clusterIP: 10.0.0.2, selector: {istio: gateway}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gateway-1, namespace: istio-system, labels: {istio: gateway}}
spec: {containers: [{name: istio-proxy}]}
status: {podIP: 10.1.0.2}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec: {selector: {istio: gateway}, servers: [{port: {number: 80, protocol: HTTP, name: http}, hosts: [shop.example]}]}
"#;

/// The codes of the mesh with more objects, each with a head of kind, name and namespace `shop`.
fn codes(more: &[(&str, &str)]) -> Vec<Message> {
    let mut text = MESH.to_owned();
    for (index, (kind, rest)) in more.iter().enumerate() {
        let group = match *kind {
            "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
            "Telemetry" => "telemetry.istio.io/v1",
            "Service" | "Pod" | "Namespace" | "Secret" => "v1",
            _ => "networking.istio.io/v1",
        };
        let meta = if rest.contains("metadata:") {
            String::new()
        } else {
            format!("metadata: {{name: o{index}, namespace: shop}}\n")
        };
        text.push_str(&format!("---\napiVersion: {group}\nkind: {kind}\n{meta}{rest}\n"));
    }
    analyze(&Offline::of(&[("f.yaml".to_owned(), text)], MeshConfig::default()))
}

fn found(more: &[(&str, &str)]) -> BTreeSet<&'static str> {
    codes(more).into_iter().map(|message| message.code.text()).collect()
}

/// Both ways of each code: (code, objects that raise it, objects that do not).
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

const VS: &str = "VirtualService";
const DR: &str = "DestinationRule";

const REFERENCES: &[Case<'_>] = &[
    (
        "IST0101",
        &[(VS, "spec: {hosts: [x.example], http: [{route: [{destination: {host: nobody}}]}]}")],
        &[(VS, "spec: {hosts: [x.example], http: [{route: [{destination: {host: reviews}}]}]}")],
    ),
    (
        "IST0101",
        &[(VS, "spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}")],
        &[
            (VS, "spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}"),
            (DR, "spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}"),
        ],
    ),
    (
        "IST0101",
        &[(VS, "spec: {hosts: [shop.example], gateways: [back], http: [{route: [{destination: {host: reviews}}]}]}")],
        &[(VS, "spec: {hosts: [shop.example], gateways: [front], http: [{route: [{destination: {host: reviews}}]}]}")],
    ),
    (
        "IST0132",
        &[(VS, "spec: {hosts: [other.example], gateways: [front], http: [{route: [{destination: {host: reviews}}]}]}")],
        &[(
            VS,
            "spec: {hosts: ['*.example'], gateways: [shop/front], http: [{route: [{destination: {host: reviews}}]}]}",
        )],
    ),
    (
        "IST0112",
        &[
            ("Service", "spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}, {name: http-b, port: 81}]}"),
            (VS, "spec: {hosts: [x.example], http: [{route: [{destination: {host: o0}}]}]}"),
        ],
        &[
            ("Service", "spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}, {name: http-b, port: 81}]}"),
            (VS, "spec: {hosts: [x.example], http: [{route: [{destination: {host: o0, port: {number: 81}}}]}]}"),
        ],
    ),
    (
        "IST0174",
        &[(DR, "spec: {host: nobody}")],
        &[(DR, "spec: {host: reviews}"), (DR, "spec: {host: '*.shop.svc.cluster.local'}")],
    ),
    (
        "IST0173",
        &[(DR, "spec: {host: reviews, subsets: [{name: v9, labels: {version: v9}}]}")],
        &[(DR, "spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}")],
    ),
    (
        "IST0127",
        &[("AuthorizationPolicy", "spec: {selector: {matchLabels: {app: nobody}}}")],
        &[("AuthorizationPolicy", "spec: {selector: {matchLabels: {app: reviews}}}")],
    ),
    (
        "IST0133",
        &[("AuthorizationPolicy", "spec: {action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}")],
        &[(
            "AuthorizationPolicy",
            "spec: {action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['80']}}]}]}",
        )],
    ),
    (
        "IST0101",
        &[("AuthorizationPolicy", "spec: {rules: [{from: [{source: {namespaces: [nowhere]}}]}]}")],
        &[("AuthorizationPolicy", "spec: {rules: [{from: [{source: {namespaces: [shop, 'sh*']}}]}]}")],
    ),
    (
        "IST0101",
        &[("Sidecar", "spec: {workloadSelector: {labels: {app: nobody}}, egress: [{hosts: ['*/*']}]}")],
        &[("Sidecar", "spec: {workloadSelector: {labels: {app: reviews}}, egress: [{hosts: ['*/*']}]}")],
    ),
    (
        "IST0101",
        &[(
            "Gateway",
            "spec: {selector: {istio: nobody}, servers: [{port: {number: 80, protocol: HTTP, name: h}, hosts: [a.example]}]}",
        )],
        &[],
    ),
];

const CONFLICTS: &[Case<'_>] = &[
    (
        "IST0109",
        &[
            (VS, "spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}"),
            (VS, "spec: {hosts: [reviews.shop.svc.cluster.local], http: [{route: [{destination: {host: reviews}}]}]}"),
        ],
        &[
            (VS, "spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}"),
            (VS, "spec: {hosts: [shop.example], gateways: [front], http: [{route: [{destination: {host: reviews}}]}]}"),
        ],
    ),
    (
        "IST0110",
        &[
            ("Sidecar", "spec: {workloadSelector: {labels: {app: reviews}}, egress: [{hosts: ['*/*']}]}"),
            ("Sidecar", "spec: {workloadSelector: {labels: {version: v1}}, egress: [{hosts: ['*/*']}]}"),
        ],
        &[("Sidecar", "spec: {workloadSelector: {labels: {app: reviews}}, egress: [{hosts: ['*/*']}]}")],
    ),
    (
        "IST0111",
        &[("Sidecar", "spec: {egress: [{hosts: ['*/*']}]}"), ("Sidecar", "spec: {egress: [{hosts: ['./*']}]}")],
        &[("Sidecar", "spec: {egress: [{hosts: ['*/*']}]}")],
    ),
    (
        "IST0145",
        &[(
            "Gateway",
            "spec: {selector: {istio: gateway}, servers: [{port: {number: 80, protocol: HTTP, name: h}, hosts: ['*.example']}]}",
        )],
        &[(
            "Gateway",
            "spec: {selector: {istio: gateway}, servers: [{port: {number: 80, protocol: HTTP, name: h}, hosts: [b.test]}]}",
        )],
    ),
    (
        "IST0159",
        &[
            ("Telemetry", "spec: {selector: {matchLabels: {app: reviews}}}"),
            ("Telemetry", "spec: {selector: {matchLabels: {version: v1}}}"),
        ],
        &[("Telemetry", "spec: {selector: {matchLabels: {app: reviews}}}")],
    ),
    ("IST0160", &[("Telemetry", "spec: {}"), ("Telemetry", "spec: {}")], &[("Telemetry", "spec: {}")]),
    (
        "IST0130",
        &[(
            VS,
            "spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}, {match: [{uri: {exact: /a}}], route: [{destination: {host: reviews}}]}]}",
        )],
        &[(
            VS,
            "spec: {hosts: [reviews], http: [{match: [{uri: {exact: /a}}], route: [{destination: {host: reviews}}]}, {route: [{destination: {host: reviews}}]}]}",
        )],
    ),
    (
        "IST0131",
        &[(
            VS,
            "spec: {hosts: [reviews], http: [{match: [{uri: {exact: /a}}], route: [{destination: {host: reviews}}]}, {match: [{uri: {exact: /a}}, {uri: {exact: /b}}], route: [{destination: {host: reviews}}]}]}",
        )],
        &[(
            VS,
            "spec: {hosts: [reviews], http: [{match: [{uri: {exact: /a}}], route: [{destination: {host: reviews}}]}, {match: [{uri: {exact: /b}}], route: [{destination: {host: reviews}}]}]}",
        )],
    ),
];

const TLS: &str = "tls: {mode: SIMPLE, serverCertificate: /c.pem, privateKey: /k.pem}";

const OTHERS: &[Case<'_>] = &[
    (
        "IST0102",
        &[("Namespace", "metadata: {name: bare}")],
        &[("Namespace", "metadata: {name: bare, labels: {istio-injection: disabled}}")],
    ),
    (
        "IST0123",
        &[("Namespace", "metadata: {name: two, labels: {istio-injection: enabled, istio.io/rev: a}}")],
        &[("Namespace", "metadata: {name: two, labels: {istio.io/rev: a}}")],
    ),
    (
        "IST0103",
        &[("Pod", "spec: {containers: [{name: app}]}")],
        &[(
            "Pod",
            "metadata: {name: p, namespace: shop, labels: {sidecar.istio.io/inject: 'false'}}\nspec: {containers: [{name: app}]}",
        )],
    ),
    (
        "IST0144",
        &[("Pod", "spec: {containers: [{name: app, securityContext: {runAsUser: 1337}}, {name: istio-proxy}]}")],
        &[("Pod", "spec: {containers: [{name: app}, {name: istio-proxy, securityContext: {runAsUser: 1337}}]}")],
    ),
    (
        "IST0107",
        &[(
            "Pod",
            "metadata: {name: p, namespace: shop, annotations: {networking.istio.io/exportTo: .}}\nspec: {containers: [{name: istio-proxy}]}",
        )],
        &[(
            "Service",
            "metadata: {name: s, namespace: shop, annotations: {networking.istio.io/exportTo: .}}\nspec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 90}]}",
        )],
    ),
    (
        "IST0108",
        &[(
            "Namespace",
            "metadata: {name: odd, labels: {istio-injection: enabled}, annotations: {sidecar.istio.io/odd: a}}",
        )],
        &[("Namespace", "metadata: {name: odd, labels: {istio-injection: enabled}, annotations: {example.io/odd: a}}")],
    ),
    (
        "IST0135",
        &[(
            "Pod",
            "metadata: {name: p, namespace: shop, annotations: {sidecar.istio.io/inject: 'true'}}\nspec: {containers: [{name: istio-proxy}]}",
        )],
        &[(
            "Pod",
            "metadata: {name: p, namespace: shop, annotations: {sidecar.istio.io/logLevel: debug}}\nspec: {containers: [{name: istio-proxy}]}",
        )],
    ),
    ("IST0106", &[(VS, "spec: {hosts: [reviews], htp: []}")], &[]),
    (
        "IST0118",
        &[("Service", "spec: {clusterIP: 10.0.0.3, ports: [{name: foo, port: 90}]}")],
        &[("Service", "spec: {clusterIP: 10.0.0.3, ports: [{name: foo, port: 90, appProtocol: tcp}]}")],
    ),
    (
        "IST0150",
        &[("Service", "spec: {type: ExternalName, externalName: a.example, ports: [{name: tcp, port: 90}]}")],
        &[("Service", "spec: {type: ExternalName, externalName: a.example, ports: [{name: http, port: 90}]}")],
    ),
    (
        "IST0134",
        &[(
            "ServiceEntry",
            "spec: {hosts: [db.example], resolution: DNS, ports: [{number: 3306, name: tcp, protocol: TCP}]}",
        )],
        &[(
            "ServiceEntry",
            "spec: {hosts: [db.example], addresses: [10.9.0.1], resolution: DNS, ports: [{number: 3306, name: tcp, protocol: TCP}]}",
        )],
    ),
    (
        "IST0128",
        &[(DR, "spec: {host: reviews, trafficPolicy: {tls: {mode: SIMPLE}}}")],
        &[(DR, "spec: {host: reviews, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /ca.pem}}}")],
    ),
    (
        "IST0129",
        &[(
            DR,
            "spec: {host: reviews, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}}",
        )],
        &[(
            DR,
            "spec: {host: reviews, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]}}",
        )],
    ),
    (
        "IST0157",
        &[("Telemetry", "spec: {accessLogging: [{}]}")],
        &[("Telemetry", "spec: {accessLogging: [{providers: [{name: envoy}]}]}")],
    ),
    (
        "IST0162",
        &[(
            "Gateway",
            "spec: {selector: {istio: gateway}, servers: [{port: {number: 9999, protocol: HTTP, name: h}, hosts: [b.test]}]}",
        )],
        &[(
            "Gateway",
            "spec: {selector: {istio: gateway}, servers: [{port: {number: 8080, protocol: HTTP, name: h}, hosts: [b.test]}]}",
        )],
    ),
];

/// Port 80 of the same pod, by UDP; from another port; and of no pod of the mesh.
const BESIDE: [&str; 3] = [
    "spec: {clusterIP: 10.0.0.9, selector: {app: reviews}, ports: [{name: http, port: 80, protocol: UDP}]}",
    "spec: {clusterIP: 10.0.0.9, selector: {app: reviews}, ports: [{name: http, port: 81, targetPort: 80}]}",
    "spec: {clusterIP: 10.0.0.9, selector: {app: nobody}, ports: [{name: http, port: 81, targetPort: 80}]}",
];
const BY_CLAIM: &str = "spec: {hosts: [shop.example], gateways: [front], http: [{match: [{headers: {'@request.auth.claims.sub': {exact: a}}}], route: [{destination: {host: reviews}}]}]}";
const ENTRY: [&str; 3] = [
    "spec: {hosts: [db.example], addresses: [10.9.0.1], resolution: DNS, ports: [{number: 3306, name: tcp, protocol: TCP}]}",
    "spec: {hosts: [db.example], addresses: [10.9.0.1], resolution: DNS, exportTo: ['.'], ports: [{number: 3306, name: h, protocol: http}]}",
    "spec: {hosts: [db.example], addresses: [10.9.0.1], resolution: DNS, exportTo: ['.'], ports: [{number: 3306, name: t, protocol: tcp}]}",
];

const WORKLOADS: &[Case<'_>] = &[
    ("IST0116", &[("Service", BESIDE[0])], &[("Service", BESIDE[1])]),
    ("IST0137", &[("Service", BESIDE[1])], &[("Service", BESIDE[2])]),
    (
        "IST0125",
        &[(
            "Pod",
            "metadata: {name: p, namespace: shop, annotations: {sidecar.istio.io/interceptionMode: some}}\nspec: {containers: [{name: istio-proxy}]}",
        )],
        &[(
            "Pod",
            "metadata: {name: p, namespace: shop, annotations: {sidecar.istio.io/interceptionMode: NONE}}\nspec: {containers: [{name: istio-proxy}]}",
        )],
    ),
    (
        "IST0149",
        &[
            (VS, BY_CLAIM),
            (
                "RequestAuthentication",
                "metadata: {name: r, namespace: istio-system}\nspec: {selector: {matchLabels: {istio: other}}}",
            ),
        ],
        &[
            (VS, BY_CLAIM),
            (
                "RequestAuthentication",
                "metadata: {name: r, namespace: istio-system}\nspec: {selector: {matchLabels: {istio: gateway}}}",
            ),
        ],
    ),
    (
        "IST0177",
        &[("ServiceEntry", ENTRY[0]), ("ServiceEntry", ENTRY[1])],
        &[("ServiceEntry", ENTRY[0]), ("ServiceEntry", ENTRY[2])],
    ),
];

// spec: PI-50
#[test]
fn what_contradicts_itself_is_said_in_istios_words() {
    let text = |more: &[(&str, &str)], code: &str| {
        codes(more).into_iter().find(|message| message.code.text() == code).unwrap().text
    };
    assert_eq!(
        text(&[("Service", BESIDE[0])], "IST0116"),
        "This deployment reviews-1 is associated with multiple services using port 80 but different protocols: [shop/o0 \
         shop/reviews]"
    );
    assert_eq!(
        text(&[("Service", BESIDE[1])], "IST0137"),
        "This deployment reviews-1 is associated with multiple services [shop/o0 shop/reviews] using targetPort \"80\" but \
         different ports: [80 81]."
    );
    assert_eq!(
        text(&[("ServiceEntry", ENTRY[0]), ("ServiceEntry", ENTRY[1])], "IST0177"),
        "Multiple ServiceEntries (shop/o0, shop/o1) define the same host \"db.example\" and port 3306 with conflicting \
         protocols (HTTP, TCP)."
    );
    assert_eq!(
        text(&[(VS, BY_CLAIM)], "IST0149"),
        "The virtual service uses the JWT claim based routing (key: @request.auth.claims.sub) but found no request \
         authentication for the gateway (shop/front) pod (gateway-1). The request authentication must first be applied for \
         the gateway pods to validate the JWT token and make the claims available for routing."
    );
}

// spec: PI-50
#[test]
fn each_code_is_raised_and_not_raised() {
    assert!(codes(&[]).is_empty(), "{:?}", codes(&[]));
    let mut raised = BTreeSet::new();
    for (code, bad, good) in REFERENCES.iter().chain(CONFLICTS).chain(OTHERS).chain(WORKLOADS) {
        assert!(found(bad).contains(code), "{code} by {bad:?}: {:?}", codes(bad));
        assert!(!found(good).contains(code), "{code} by {good:?}: {:?}", codes(good));
        raised.insert(*code);
    }
    let server = |host: &str| {
        format!(
            "spec: {{selector: {{istio: gateway}}, servers: [{{port: {{number: 443, protocol: HTTPS, name: h}}, hosts: [{host}], {TLS}}}]}}"
        )
    };
    let (a, b) = (server("a.test"), server("b.test"));
    assert!(found(&[("Gateway", &a), ("Gateway", &b)]).contains("IST0138"));
    assert!(!found(&[("Gateway", &a)]).contains("IST0138"));
    raised.insert("IST0138");
    let secure = server("a.test").replace(TLS, "tls: {mode: SIMPLE, credentialName: c}");
    let secret = |namespace: &str, fields: &str| {
        format!("metadata: {{name: c, namespace: {namespace}}}\nstringData: {{{fields}}}")
    };
    let of = |secret: &str| found(&[("Gateway", &secure), ("Secret", secret)]);
    assert!(of(&secret("shop", "tls.crt: a, tls.key: b")).contains("IST0101"), "it belongs where the proxy is");
    let broken = of(&secret("istio-system", "tls.crt: a, tls.key: b"));
    assert!(broken.contains("IST0161") && !broken.contains("IST0101"), "{broken:?}");
    raised.insert("IST0161");
    let all: BTreeSet<&str> = Code::ALL.iter().map(|code| code.text()).collect();
    assert_eq!(raised, all, "every code has its case");
}

// spec: CT-1
#[test]
fn a_message_names_object_file_and_line() {
    let messages = codes(&[(DR, "spec:\n  host: nobody")]);
    assert_eq!(
        messages[0].to_string(),
        "Warning [IST0174] (DestinationRule o0.shop f.yaml:37) The host nobody defined in the DestinationRule does not match \
         any services in the mesh."
    );
    assert_eq!(messages[0].json()["reference"], "f.yaml:37");
    let silent = "metadata: {name: d, namespace: shop, annotations: {galley.istio.io/analyze-suppress: IST0174}}\nspec: {host: nobody}";
    assert!(codes(&[(DR, silent)]).is_empty());
}
