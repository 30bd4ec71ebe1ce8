//! Each line, well and not.

use super::super::cluster::PodFacts;
use super::*;
use serde_json::json;

fn well() -> Facts {
    Facts {
        demo: Some("demo".into()),
        nowhere: None,
        directory: true,
        proxy_program: Some("/x".into()),
        ready: Ok(()),
        version: env!("CARGO_PKG_VERSION").into(),
        status: json!({"problems": []}),
        proxies: vec![json!({
            "proxy": "a-0.n", "istio_version": "1", "resources": {"CDS": {"sent": "x", "acked": "x", "lastError": null}},
        })],
        nacks: Vec::new(),
        workloads: vec![json!({
            "name": "a-0", "namespace": "n", "serviceAccount": "s", "labels": {"security.istio.io/tlsMode": "istio"},
        })],
        citadel: Ok(()),
        mixer: Ok("mixer_senders 1\nmixer_config_rule_config_error_count 0\n".into()),
        roots: None,
        strangers: Vec::new(),
        certificates: Vec::new(),
        kubernetes: None,
        now: SystemTime::now(),
    }
}

/// The lines that are not well, as `result description`.
fn complaints(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    let lines = judge(&facts).groups.into_iter().flat_map(|group| group.lines);
    lines
        .filter(|line| line.result != Result::Success)
        .map(|line| {
            assert!(!line.hint.is_empty(), "{} says what to do", line.description);
            format!("{:?} {}", line.result, line.description)
        })
        .collect()
}

// spec: CT-40
#[test]
fn each_thing_that_is_wrong_has_its_line() {
    assert_eq!(complaints(|_| ()), Vec::<String>::new());
    let one = |change: fn(&mut Facts)| {
        let found = complaints(change);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    };
    assert_eq!(one(|facts| facts.ready = Err("x".into())), "Error pilot answers and is ready");
    assert_eq!(one(|facts| facts.version = "0".into()), "Warning pilot has meshctl's version");
    assert_eq!(one(|facts| facts.citadel = Err("x".into())), "Error citadel takes connections");
    assert_eq!(one(|facts| facts.mixer = Err("x".into())), "Error mixer answers");
    assert_eq!(one(|facts| facts.mixer = Ok("mixer_senders 0\n".into())), "Warning proxies report to mixer");
    let refused = "mixer_senders 1\nmixer_config_rule_config_error_count 2\n";
    assert!(complaints(|facts| facts.mixer = Ok(refused.into()))[0].starts_with("Error mixer takes all rules"));
    assert_eq!(
        one(|facts| facts.proxies[0]["resources"]["CDS"]["acked"] = json!("w")),
        "Warning every proxy has what pilot sent last"
    );
    assert_eq!(one(|facts| facts.nacks.push(json!({"proxy": "a-0.n"}))), "Error no proxy refuses what it was sent");
    let dangling = |class: &str| json!({"problems": [{"class": class, "file": "f", "line": 3, "message": "m"}]});
    let found = complaints(|facts| facts.status = dangling("danglingReference"));
    assert_eq!(found, ["Warning every reference leads somewhere"]);
    assert_eq!(complaints(|facts| facts.status = dangling("semantic")), ["Error pilot takes every object"]);
    assert_eq!(
        one(|facts| facts.proxies[0]["proxy"] = json!("b-0.n")),
        "Error every pod of the mesh has a connected proxy"
    );
    assert_eq!(one(|facts| facts.proxy_program = None), "Warning the program proxy is beside meshctl");
    assert_eq!(one(|facts| facts.directory = false), "Error the demo \"demo\" has its directory");
    let second = json!({"proxy": "c-0.n", "istio_version": "2"});
    let found = complaints(|facts| facts.proxies.push(second));
    assert_eq!(found, ["Warning all proxies have one version"]);
}

// spec: CT-40
#[test]
fn roots_that_end_and_certificates_that_they_do_not_vouch_for_are_named() {
    let day = Duration::from_secs(86_400);
    let root = |from: i64, to: i64| {
        let at = |days: i64| match u32::try_from(days) {
            Ok(days) => SystemTime::now() + day * days,
            Err(_) => SystemTime::now() - day * u32::try_from(-days).unwrap(),
        };
        LeafFacts {
            id: None,
            uris: Vec::new(),
            dns: Vec::new(),
            subject: "O=mesh".into(),
            lifetime: identity::svid::Lifetime { not_before: at(from), not_after: at(to) },
            serial: "1".into(),
            fingerprint: String::new(),
        }
    };
    assert_eq!(complaints(|facts| facts.roots = Some(Ok(vec![root(-9, 61)]))), Vec::<String>::new());
    let late = complaints(|facts| facts.roots = Some(Ok(vec![root(-9, 900), root(-9, 59)])));
    assert_eq!(late, Vec::<String>::new(), "the newest counts: a rotation leaves the old one");
    let late = complaints(|facts| facts.roots = Some(Ok(vec![root(-9, -1), root(-9, 59)])));
    assert_eq!(late, ["Warning the roots are valid for 60 days at least"]);
    for bad in [Ok(Vec::new()), Ok(vec![root(-9, -1)]), Ok(vec![root(1, 99)]), Err("roots.pem: not there".to_owned())] {
        assert_eq!(complaints(|facts| facts.roots = Some(bad)), ["Error the roots of the mesh are valid"]);
    }
    let found = complaints(|facts| {
        facts.roots = Some(Ok(vec![root(-9, 900)]));
        facts.strangers = vec![("a-0.n".into(), "unknown issuer".into())];
    });
    assert_eq!(found, ["Error the roots vouch for every proxy's certificate"]);
}

#[test]
fn a_proxy_without_a_certificate_is_named() {
    let found = complaints(|facts| facts.certificates = vec![("a-0.n".into(), Ok(Vec::new()))]);
    assert_eq!(found, ["Error every proxy has a certificate that is valid now"]);
    let found = complaints(|facts| facts.certificates = vec![("a-0.n".into(), Err("no socket".into()))]);
    assert_eq!(found, ["Warning proxies show their certificates"]);
}

// spec: CT-40
#[test]
fn a_pod_that_speaks_mutual_tls_itself_needs_no_proxy() {
    let pod = |injected: bool| {
        let own = PodFacts { id: "b-0.n".into(), injected, ..PodFacts::default() };
        let nothing = || Err("not asked".to_owned());
        Kubernetes {
            control_plane: "istio-system".into(),
            version: Ok("v1.34.4".into()),
            rights: Vec::new(),
            platform: nothing().map(|()| crate::install::Platform::default()),
            definitions: nothing().map(|()| Vec::new()),
            webhooks: nothing().map(|()| Vec::new()),
            deployments: nothing().map(|()| std::collections::BTreeMap::new()),
            agent: None,
            namespaces: std::collections::BTreeMap::new(),
            pods: Ok(vec![own]),
            roots_map: "istio-ca-root-cert".to_owned(),
            roots: nothing().map(|()| Vec::new()),
            heartbeats: nothing().map(|()| Vec::new()),
        }
    };
    let missing = |injected: bool| {
        let mut facts = well();
        facts
            .workloads
            .push(json!({"name": "b-0", "namespace": "n", "labels": {"security.istio.io/tlsMode": "istio"}}));
        facts.kubernetes = Some(pod(injected));
        proxies(&facts).lines[0].result
    };
    assert_eq!((missing(true), missing(false)), (Result::Error, Result::Success));
    let beside = |app: &str| {
        let mut facts = well();
        let labels = json!({"security.istio.io/tlsMode": "istio", "app": app});
        facts.workloads.push(json!({"name": "b-0", "namespace": "n", "labels": labels}));
        proxies(&facts).lines[0].result
    };
    assert_eq!((beside("b"), beside("mixer")), (Result::Error, Result::Success));
}
