use super::super::Version;
use super::*;
use prost::Message;
use serde_json::{Value, json};

fn header(json: &Value) -> HeaderMatcher {
    let bytes = proto::json::from_value("envoy.config.route.v3.HeaderMatcher", json).unwrap();
    HeaderMatcher::parse(&proto::envoy::route::HeaderMatcher::decode(bytes.as_slice()).unwrap()).unwrap()
}

fn meets(json: &Value, value: Option<&str>) -> bool {
    header(json).matches(value.map(str::as_bytes))
}

// spec: VS-7, VS-10
#[test]
fn every_form_of_a_condition() {
    let yes_and_no = [
        (json!({"name": "a", "string_match": {"exact": "x"}}), "x", "xx"),
        (json!({"name": "a", "string_match": {"exact": "X", "ignore_case": true}}), "x", "y"),
        (json!({"name": "a", "string_match": {"prefix": "ab"}}), "abc", "a"),
        (json!({"name": "a", "string_match": {"suffix": "bc", "ignore_case": true}}), "aBC", "c"),
        (json!({"name": "a", "string_match": {"contains": "b"}}), "abc", "ac"),
        (json!({"name": "a", "string_match": {"contains": "B", "ignore_case": true}}), "abc", "ac"),
        (json!({"name": "a", "string_match": {"safe_regex": {"regex": "a|bc"}}}), "bc", "abc"),
        (json!({"name": "a", "exact_match": "x"}), "x", "y"),
        (json!({"name": "a", "prefix_match": "x"}), "xy", "yx"),
        (json!({"name": "a", "suffix_match": "x"}), "yx", "xy"),
        (json!({"name": "a", "contains_match": "x"}), "yxy", "y"),
        (json!({"name": "a", "safe_regex_match": {"regex": "\\d+"}}), "12", "1a"),
        (json!({"name": "a", "range_match": {"start": -1, "end": 5}}), "-1", "5"),
    ];
    for (matcher, yes, no) in yes_and_no {
        assert!(meets(&matcher, Some(yes)), "{matcher} {yes}");
        assert!(!meets(&matcher, Some(no)), "{matcher} {no}");
        assert!(!meets(&matcher, None), "{matcher} without the header");
        let mut inverted = matcher.clone();
        inverted["invert_match"] = true.into();
        assert!(!meets(&inverted, Some(yes)) && meets(&inverted, Some(no)) && !meets(&inverted, None), "{inverted}");
    }
}

// spec: VS-10, VS-11
#[test]
fn presence_and_absence() {
    let present = json!({"name": "a"});
    assert!(meets(&present, Some("")) && !meets(&present, None));
    let absent = json!({"name": "a", "present_match": false});
    assert!(!meets(&absent, Some("x")) && meets(&absent, None));
    let inverted = json!({"name": "a", "present_match": true, "invert_match": true});
    assert!(!meets(&inverted, Some("x")) && meets(&inverted, None));
    let without = json!({"name": "a", "string_match": {"exact": "x"}, "invert_match": true, "treat_missing_header_as_empty": true});
    assert!(meets(&without, None) && meets(&without, Some("y")) && !meets(&without, Some("x")));
}

// spec: VS-10, VS-11
#[test]
fn of_a_repeated_header_one_value_is_enough() {
    let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/");
    head.headers.append(b"x", b"v");
    head.headers.append(b"X", b"w");
    let matcher = |value: &str, invert: bool| {
        header(&json!({"name": "x", "string_match": {"exact": value}, "invert_match": invert}))
    };
    assert!(matcher("v", false).matches_request(&head) && matcher("w", false).matches_request(&head));
    assert!(!matcher("v,w", false).matches_request(&head));
    assert!(!matcher("w", true).matches_request(&head) && matcher("z", true).matches_request(&head));
}

// spec: VS-9
#[test]
fn a_request_is_seen_with_its_pseudo_headers() {
    let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a:80", b"/p?q");
    head.headers.append(b"X", b"1");
    for (name, value) in [
        (":method", "GET"),
        (":path", "/p?q"),
        (":authority", "a:80"),
        ("Host", "a:80"),
        (":scheme", "http"),
        ("X", "1"),
    ] {
        assert!(header(&json!({"name": name, "string_match": {"exact": value}})).matches_request(&head), "{name}");
    }
}

#[test]
fn a_wrong_regex_is_named() {
    let written = proto::envoy::route::HeaderMatcher::decode(
        proto::json::from_value(
            "envoy.config.route.v3.HeaderMatcher",
            &json!({"name": "a", "string_match": {"safe_regex": {"regex": "(a"}}}),
        )
        .unwrap()
        .as_slice(),
    )
    .unwrap();
    let refusal = HeaderMatcher::parse(&written).unwrap_err();
    assert_eq!(refusal.field, "string_match.safe_regex.regex");
    assert!(refusal.why.contains("(a"), "{}", refusal.why);
}
