use super::*;
use crate::env::Env;
use crate::filter::{Facts, Step};
use crate::message::{Body, Version};
use crate::net::PeerFacts;
use serde_json::{Value, json};
use std::rc::Rc;
use std::sync::Arc;

fn any(json: &Value) -> proto::envoy::wkt::Any {
    let name = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    let value = proto::json::from_value(name, json).unwrap();
    proto::envoy::wkt::Any { type_url: format!("type.googleapis.com/{name}"), value }
}

fn config(provider: Value, requires: &Value) -> Value {
    json!({"providers": {"p": provider}, "rules": [{"match": {"prefix": "/"}, "requires": requires}]})
}

/// The status that a filter answers with; 0 where it lets pass.
fn status(filter: &JwtAuthn, headers: &[(&str, &str)]) -> u16 {
    let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"shop.test", b"/");
    headers.iter().for_each(|(name, value)| head.headers.append(name.as_bytes(), value.as_bytes()));
    let address = "10.0.0.1:80".parse().unwrap();
    let facts = Rc::new(Facts::alone(Env::seeded(1)));
    let cx = StreamCx::new(&facts, &Rc::new(PeerFacts::plain(1, address, address)), Arc::default(), facts.env.now());
    let mut request = Request { head, body: Body::Empty };
    match filter.on_request(&mut request, &cx) {
        Step::Done(Decision::Reply(response)) => response.head.status,
        _ => 0,
    }
}

// spec: RA-2, RA-4
#[test]
fn a_set_that_is_none_verifies_nothing_and_asks_for_nothing() {
    let provider = json!({"issuer": "i", "local_jwks": {"inline_string": "none"}});
    let missing = json!({"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}});
    let filter = parse(&any(&config(provider, &missing))).unwrap();
    let token = format!("Bearer {}", ["{\"alg\":\"RS256\"}", "{\"iss\":\"i\"}"].map(base64).join(".") + ".AAAA");
    assert_eq!(status(&filter, &[]), 0);
    assert_eq!(status(&filter, &[("authorization", &token)]), 401);
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

// spec: RA-1, RA-2
#[test]
fn what_cannot_be_obeyed_is_refused_by_its_path() {
    let refused = |config: Value| parse(&any(&config)).unwrap_err().field;
    let provider = || json!({"local_jwks": {"inline_string": "{}"}});
    let with = |field: &str, value: Value| {
        let mut provider = provider();
        provider[field] = value;
        config(provider, &json!({"provider_name": "p"}))
    };
    let remote = json!({"http_uri": {"uri": "https://a", "cluster": "c", "timeout": "1s"}});
    let mut of_remote = provider();
    of_remote.as_object_mut().unwrap().clear();
    of_remote["remote_jwks"] = remote;
    assert_eq!(refused(config(of_remote, &json!({}))), "providers[p].remote_jwks");
    assert_eq!(refused(config(json!({}), &json!({}))), "providers[p].jwks_source_specifier");
    assert_eq!(refused(with("subjects", json!({"exact": "a"}))), "providers[p].subjects");
    assert_eq!(refused(with("clock_skew_seconds", json!(5))), "providers[p].clock_skew_seconds");
    assert_eq!(
        refused(config(provider(), &json!({"requires_all": {"requirements": [{"provider_name": "q"}]}}))),
        "rules[0].requires.requires_all.provider_name"
    );
    let named = json!({"providers": {"p": provider()}, "rules": [{"match": {"prefix": "/"}, "requirement_name": "x"}]});
    assert_eq!(refused(named), "rules[0].requirement_name");
    assert_eq!(refused(json!({"providers": {"p": provider()}, "rules": [{}]})), "rules[0].match");
}
