use super::*;
use crate::message::{RequestHead, Version};
use crate::net::{CertFacts, PeerFacts, TlsFacts};
use prost::Message;
use serde_json::{Value, json};

fn try_rules(json: &Value) -> Result<Rules, crate::refusal::Refusal> {
    let bytes = proto::json::from_value("envoy.config.rbac.v3.RBAC", json).unwrap();
    parse_rules(&proto::envoy::rbac::Rbac::decode(bytes.as_slice()).unwrap())
}

fn rules(json: &Value) -> Rules {
    try_rules(json).unwrap()
}

/// A connection from 10.1.2.3 (the socket's other end: 10.9.9.9) to 10.0.0.1:8080.
fn peer() -> PeerFacts {
    let remote = "10.1.2.3:5000".parse().unwrap();
    let mut peer = PeerFacts::plain(1, remote, "10.0.0.1:8080".parse().unwrap());
    peer.direct_remote = "10.9.9.9:5000".parse().unwrap();
    peer.sni = "reviews.test".into();
    peer
}

fn with_certificate(uris: &[&str], dns: &[&str]) -> PeerFacts {
    let text = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    let cert =
        CertFacts { uri_sans: text(uris), dns_sans: text(dns), subject: "CN=sub".into(), ..CertFacts::default() };
    PeerFacts { tls: Some(TlsFacts { peer: Some(cert), ..TlsFacts::default() }), ..peer() }
}

fn request() -> RequestHead {
    let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"shop.test:80", b"/info/a.html?q=/secret");
    head.headers.append(b"X-Team", b"blue");
    head
}

/// Whether a policy of this permission (any principal) or principal (any permission) is met.
fn met(permission: Option<Value>, principal: Option<Value>, peer: &PeerFacts, head: Option<&RequestHead>) -> bool {
    let any = || json!({"any": true});
    let policy =
        json!({"permissions": [permission.unwrap_or_else(any)], "principals": [principal.unwrap_or_else(any)]});
    let rules = rules(&json!({"action": "ALLOW", "policies": {"p": policy}}));
    rules.judge(&Subject { peer, head, metadata: None }).is_ok()
}

// spec: AZ-5, AZ-11, AZ-12, AZ-13, AZ-14, AZ-15, AZ-16
#[test]
fn every_permission_says_what_may_be_done() {
    let path = |matcher: Value| json!({"url_path": {"path": matcher}});
    let header = |name: &str, matcher: Value| json!({"header": {"name": name, "string_match": matcher}});
    let template = |text: &str| {
        json!({"uri_template": {"name": "t", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": text}}})
    };
    let cidr = |prefix: &str, length: u32| json!({"destination_ip": {"address_prefix": prefix, "prefix_len": length}});
    let yes_and_no = [
        (json!({"any": true}), json!({"any": false})),
        (path(json!({"exact": "/info/a.html"})), path(json!({"exact": "/info/a.html?q=/secret"}))),
        (path(json!({"prefix": "/info"})), path(json!({"prefix": "/secret"}))),
        (path(json!({"suffix": ".html"})), path(json!({"suffix": "/secret"}))),
        (path(json!({"safe_regex": {"regex": "/info/.+"}})), path(json!({"safe_regex": {"regex": "/info"}}))),
        (template("/info/*"), template("/*")),
        (template("/**"), template("/*/x/**")),
        (header(":method", json!({"exact": "GET"})), header(":method", json!({"exact": "POST"}))),
        (header(":authority", json!({"exact": "shop.test:80"})), header(":authority", json!({"exact": "shop.test"}))),
        (header("x-team", json!({"exact": "blue"})), header("x-team", json!({"exact": "red"}))),
        (
            json!({"header": {"name": "x-team", "present_match": true}}),
            json!({"header": {"name": "x-none", "present_match": true}}),
        ),
        (json!({"destination_port": 8080}), json!({"destination_port": 8081})),
        (
            json!({"destination_port_range": {"start": 8080, "end": 8081}}),
            json!({"destination_port_range": {"start": 8079, "end": 8080}}),
        ),
        (cidr("10.0.0.0", 24), cidr("10.0.1.0", 24)),
        (
            json!({"requested_server_name": {"exact": "reviews.test"}}),
            json!({"requested_server_name": {"exact": "test"}}),
        ),
    ];
    let (peer, head) = (peer(), request());
    for (yes, no) in yes_and_no {
        for (rule, expected) in [(yes, true), (no, false)] {
            assert_eq!(met(Some(rule.clone()), None, &peer, Some(&head)), expected, "{rule}");
            let not = json!({"not_rule": rule});
            assert_eq!(met(Some(not.clone()), None, &peer, Some(&head)), !expected, "{not}");
        }
    }
    let (yes, no) = (json!({"destination_port": 8080}), json!({"destination_port": 1}));
    for (left, right, and, or) in [(&yes, &yes, true, true), (&yes, &no, false, true), (&no, &no, false, false)] {
        for (key, expected) in [("and_rules", and), ("or_rules", or)] {
            let rule = json!({key: {"rules": [left, right]}});
            assert_eq!(met(Some(rule.clone()), None, &peer, Some(&head)), expected, "{rule}");
        }
    }
}

// spec: AZ-5, AZ-6, AZ-7, AZ-8, AZ-15, AZ-16, MT-9
#[test]
fn every_principal_says_who_may_do_it() {
    let who = |matcher: Value| json!({"authenticated": {"principal_name": matcher}});
    let mesh = with_certificate(&["spiffe://td/ns/n/sa/a", "spiffe://td/ns/m/sa/b"], &["a.test"]);
    let named = with_certificate(&[], &["a.test"]);
    let subject = with_certificate(&[], &[]);
    let nobody = PeerFacts { tls: Some(TlsFacts::default()), ..peer() };
    let cases = [
        (who(json!({"exact": "spiffe://td/ns/n/sa/a"})), [true, false, false, false, false]),
        (who(json!({"exact": "spiffe://td/ns/m/sa/b"})), [true, false, false, false, false]),
        (who(json!({"exact": "td/ns/n/sa/a"})), [false; 5]),
        (who(json!({"prefix": "spiffe://td/ns/n/"})), [true, false, false, false, false]),
        (who(json!({"suffix": "/sa/a"})), [true, false, false, false, false]),
        (who(json!({"safe_regex": {"regex": ".*/ns/n/.*"}})), [true, false, false, false, false]),
        (who(json!({"safe_regex": {"regex": "/ns/n/"}})), [false; 5]),
        (who(json!({"exact": "a.test"})), [false, true, false, false, false]),
        (who(json!({"exact": "CN=sub"})), [false, false, true, false, false]),
        (json!({"authenticated": {}}), [true, true, true, false, false]),
        (json!({"not_id": {"authenticated": {}}}), [false, false, false, true, true]),
    ];
    let head = request();
    for (principal, expected) in cases {
        for (peer, expected) in [&mesh, &named, &subject, &nobody, &peer()].into_iter().zip(expected) {
            assert_eq!(met(None, Some(principal.clone()), peer, Some(&head)), expected, "{principal} {:?}", peer.tls);
        }
    }
    let cidr = |key: &str, prefix: &str| json!({key: {"address_prefix": prefix, "prefix_len": 16}});
    let yes_and_no = [
        (cidr("direct_remote_ip", "10.9.0.0"), cidr("direct_remote_ip", "10.1.0.0")),
        (cidr("source_ip", "10.9.0.0"), cidr("source_ip", "10.1.0.0")),
        (cidr("remote_ip", "10.1.0.0"), cidr("remote_ip", "10.9.0.0")),
        (
            json!({"header": {"name": "x-team", "string_match": {"exact": "blue"}}}),
            json!({"header": {"name": "x-team", "string_match": {"exact": "b"}}}),
        ),
        (json!({"url_path": {"path": {"prefix": "/info"}}}), json!({"url_path": {"path": {"prefix": "/x"}}})),
    ];
    for (yes, no) in yes_and_no {
        assert!(met(None, Some(yes.clone()), &mesh, Some(&head)), "{yes}");
        assert!(!met(None, Some(no.clone()), &mesh, Some(&head)), "{no}");
        let one = json!({"or_ids": {"ids": [yes, no]}});
        let all = json!({"and_ids": {"ids": [yes, no]}});
        assert!(met(None, Some(one), &mesh, Some(&head)) && !met(None, Some(all), &mesh, Some(&head)), "{yes}");
    }
}

// spec: AZ-8, AZ-15
#[test]
fn metadata_that_no_filter_wrote_is_never_met() {
    let token = json!({"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}], "value": {"present_match": true}}});
    let head = request();
    assert!(!met(None, Some(token.clone()), &peer(), Some(&head)), "no token is known");
    assert!(met(None, Some(json!({"not_id": token})), &peer(), Some(&head)));
}

// spec: AZ-17
#[test]
fn conditions_on_http_are_not_met_on_tcp() {
    let path = json!({"url_path": {"path": {"prefix": "/"}}});
    let header = json!({"header": {"name": ":method", "string_match": {"exact": "GET"}}});
    for rule in [path, header] {
        assert!(met(Some(rule.clone()), None, &peer(), Some(&request())), "{rule}");
        assert!(!met(Some(rule.clone()), None, &peer(), None), "{rule}");
        assert!(!met(None, Some(rule.clone()), &peer(), None), "{rule}");
    }
    assert!(met(Some(json!({"destination_port": 8080})), None, &peer(), None));
}

// spec: AZ-2, AZ-4, AZ-5, AZ-18
#[test]
fn a_policy_needs_both_halves_and_the_action_says_what_it_means() {
    let policy = |permission: bool, principal: bool| json!({"permissions": [{"any": false}, {"any": permission}], "principals": [{"any": false}, {"any": principal}]});
    let judged = |action: &str, policies: Value| {
        let (peer, head) = (peer(), request());
        rules(&json!({"action": action, "policies": policies})).judge(&Subject {
            peer: &peer,
            head: Some(&head),
            metadata: None,
        })
    };
    for (permission, principal, expected) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        let one = json!({"p": policy(permission, principal)});
        assert_eq!(judged("ALLOW", one.clone()).is_ok(), expected, "{permission} {principal}");
        assert_eq!(judged("DENY", one.clone()).is_err(), expected, "{permission} {principal}");
        assert_eq!(judged("LOG", one), Ok(()));
    }
    assert_eq!(judged("ALLOW", json!({})), Err("none".into()), "nothing is allowed");
    assert_eq!(judged("DENY", json!({})), Ok(()), "nothing is denied");
    assert_eq!(judged("ALLOW", json!({"p": policy(false, true)})), Err("none".into()));
    let several = json!({"b": policy(true, true), "a": policy(false, true), "c": policy(true, true)});
    assert_eq!(judged("DENY", several), Err("b".into()), "the first by name that matches");
    assert_eq!(judged("ALLOW", json!({"p": {"permissions": [], "principals": [{"any": true}]}})), Err("none".into()));
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_its_path() {
    let refused = |policy: Value| try_rules(&json!({"action": "DENY", "policies": {"p": policy}})).unwrap_err().field;
    let any = json!([{"any": true}]);
    assert_eq!(refused(json!({"permissions": [{}], "principals": any})), "policies[p].permissions.[0].rule");
    assert_eq!(refused(json!({"permissions": any, "principals": [{}]})), "policies[p].principals.[0].identifier");
    let state = json!([{"filter_state": {"key": "k", "string_match": {"exact": "v"}}}]);
    assert_eq!(refused(json!({"permissions": any, "principals": state})), "policies[p].principals.[0].identifier");
}
