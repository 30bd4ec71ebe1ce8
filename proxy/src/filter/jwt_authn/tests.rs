use super::*;
use crate::message::Version;
use serde_json::{Value, json};

/// The key of RFC 7515, appendix A.3.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fn any(json: &Value) -> proto::envoy::wkt::Any {
    let name = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    let value = proto::json::from_value(name, json).unwrap();
    proto::envoy::wkt::Any { type_url: format!("type.googleapis.com/{name}"), value }
}

fn config(provider: Value, requires: &Value) -> Value {
    json!({"providers": {"p": provider}, "rules": [{"match": {"prefix": "/"}, "requires": requires}]})
}

// spec: RA-1, RA-2
#[test]
fn what_cannot_be_obeyed_is_refused_by_its_path() {
    let refused = |config: Value| parse(&any(&config)).unwrap_err().field;
    let provider = || json!({"local_jwks": {"inline_string": KEYS}});
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

// spec: RA-4
#[test]
fn bytes_that_are_no_text_are_a_bad_token_and_not_a_missing_one() {
    let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/?t=%FF");
    head.headers.append(b"x-raw", b"\xff\xfe");
    let places = [Place::Header((*b"x-raw").into(), (*b"").into()), Place::Query((*b"t").into())];
    let found = find::tokens(&places, &head);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|token| Unverified::parse(&token.text).is_err()));
}

// spec: RA-1, XT-3
#[test]
fn keys_that_cannot_be_used_refuse_tokens_and_not_the_listener() {
    for keys in ["{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}", "no json"] {
        let provider = json!({"issuer": "i", "local_jwks": {"inline_string": keys}});
        let filter = parse(&any(&config(provider, &json!({"provider_name": "p"})))).unwrap();
        assert!(filter.providers[0].keys.is_empty(), "{keys}");
        assert_eq!(filter.rules.len(), 1, "the rule stands");
    }
}
