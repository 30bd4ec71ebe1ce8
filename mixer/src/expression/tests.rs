use super::*;
use crate::attribute::vocabulary as v;
use crate::attribute::{Bag, Map, Touched, Vocabulary};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;

fn compile(text: &str) -> Result<Expression, Fault> {
    Expression::compile(text, &Scope::of(&Vocabulary::built_in()))
}

/// The value as text, with a request of one header, labels and an address.
fn value(text: &str) -> Result<String, Failure> {
    let expression = compile(text).unwrap();
    let headers = BTreeMap::from([("cookie".to_owned(), "session=1".to_owned())]);
    let labels = BTreeMap::from([("app".to_owned(), "reviews".to_owned()), ("version".to_owned(), "v3".to_owned())]);
    let mut bag = Bag::new(128);
    bag.set(v::REQUEST_HEADERS, Value::Map(Map::Tree(&headers)));
    bag.set(v::SOURCE_LABELS, Value::Map(Map::Tree(&labels)));
    bag.set(v::SOURCE_IP, Value::Ip("10.1.2.3".parse::<IpAddr>().unwrap()));
    bag.set(v::REQUEST_HOST, Value::text("reviews:9080"));
    bag.set(v::REQUEST_SIZE, Value::Int(12));
    bag.set(v::RESPONSE_DURATION, Value::Duration(std::time::Duration::from_millis(20)));
    let mut touched = Touched::default();
    let found = expression.eval(&mut Reader::new(&bag, &mut touched))?;
    Ok(found.to_string())
}

// spec: MX-52, MX-53
#[test]
fn operators_bind_as_in_go_and_literals_have_types() {
    for (text, expected) in [
        (r#"source.labels["app"] == "reviews" && source.labels["version"]=="v3""#, "true"),
        (r#"false || true && false"#, "false"),
        (r#"source.labels["none"] | source.labels["app"] | "x""#, "reviews"),
        (r#"(source.labels["none"] | "x") + "y""#, "xy"),
        (r#"source.labels["none"] | "x" == "x""#, "true"),
        (r#"request.size < 13 && request.size >= 0xc && request.size != 3"#, "true"),
        (r#"response.duration > "10ms""#, "true"),
        (r#""0ms""#, "0s"),
        (r#"1.5 + 2e0"#, "3.5"),
        (r#"`raw\d` + "\"\u00e4""#, "raw\\d\"ä"),
        (r#"request.host + "/" + source.labels["app"]"#, "reviews:9080/reviews"),
        (r#""5s" == source.labels["none"] | "5s""#, "true"),
    ] {
        assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(compile(r#""0ms""#).unwrap().kind(), Type::Duration);
}

// spec: MX-54
#[test]
fn functions_do_what_istio_documents() {
    for (text, expected) in [
        (r#"match(request.host, "reviews*")"#, "true"),
        (r#"match(request.host, "*9080")"#, "true"),
        (r#"match(request.host, "re*9080")"#, "false"),
        (r#"match(request.headers["Cookie"], "session=*") == false"#, "false"),
        (r#""^rev.*\\d$".matches(request.host)"#, "true"),
        (r#"request.host.startsWith("rev")"#, "true"),
        (r#"request.host.endsWith("rev")"#, "false"),
        (r#"source.ip == ip("::ffff:10.1.2.3")"#, "true"),
        (r#"timestamp("2015-01-02T15:04:35Z") < timestamp("2015-01-02T15:04:36Z")"#, "true"),
        (r#"conditional(request.size > 1, "big", "small")"#, "big"),
        (r#"conditionalString(false, "a", "b")"#, "b"),
        (r#"toLower("ABC")"#, "abc"),
        (r#"size("abc")"#, "3"),
        (r#"emptyStringMap() == source.metadata | emptyStringMap()"#, "true"),
    ] {
        assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
    }
}

// spec: MX-55
#[test]
fn typed_texts_are_equal_by_meaning() {
    for text in [
        r#"dnsName("Example.COM.") == dnsName("example.com")"#,
        r#"email("a@Example.com") == email("a@example.com")"#,
        r#"uri("HTTPS://Example.com/A") == uri("https://example.com/A")"#,
        r#"uri("https://example.com/A") != uri("https://example.com/a")"#,
        r#"email("A@example.com") != email("a@example.com")"#,
    ] {
        assert_eq!(value(text).as_deref(), Ok("true"), "{text}");
    }
}

// spec: MX-56
#[test]
fn reading_what_is_absent_fails_and_names_it() {
    assert_eq!(value(r#"source.labels["none"] == "x""#), Err(Failure::Absent(r#"source.labels["none"]"#.into())));
    assert_eq!(value("source.user"), Err(Failure::Absent("source.user".into())));
    assert!(value("ip(request.host)").unwrap_err().to_string().contains("no IP address"));
    assert_eq!(value("false && source.user == \"a\"").as_deref(), Ok("false"), "what is not needed is not read");
}

// spec: MX-58
#[test]
fn types_are_checked_when_loaded_and_the_fault_says_where() {
    for (text, column, message) in [
        (r#"source.ip == "10.0.0.1""#, 11, "IP_ADDRESS and STRING do not go together"),
        ("source.nothing", 1, "unknown attribute source.nothing"),
        (r#"source.ip < source.ip"#, 11, "< is not for IP_ADDRESS"),
        (r#"!source.user"#, 1, "write == false"),
        (r#"ip("10.0.0.300")"#, 1, "no IP address"),
        (r#""(".matches("a")"#, 1, "unclosed group"),
        (r#"match("a")"#, 1, "takes 2 texts"),
        (r#"source.user["a"]"#, 1, "STRING_MAP"),
        (r#"request.size && true"#, 1, "BOOL is asked for"),
        (r#""a"#, 4, "no end"),
        ("a b", 3, "unexpected b"),
        ("", 1, "missing here"),
        ("nothing(1)", 1, "unknown function nothing"),
    ] {
        let fault = compile(text).unwrap_err();
        assert!(fault.message.contains(message), "{text}: {fault}");
        assert_eq!(fault.column, column, "{text}: {fault}");
    }
}

#[test]
fn length_depth_and_size_are_bounded() {
    let deep = format!("{}1{}", "(".repeat(1_000), ")".repeat(1_000));
    assert!(compile(&deep).unwrap_err().message.contains("deeper than"));
    let long = vec!["true"; 400].join("&&");
    assert!(compile(&long).unwrap_err().message.contains("parts"));
    assert!(compile(&"a".repeat(parse::MAX_LENGTH + 1)).unwrap_err().message.contains("longer than"));
    assert!(compile(&vec!["true"; 200].join("||")).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        drop(compile(&text));
    }

    #[test]
    fn no_sequence_of_tokens_makes_it_panic(tokens in prop::collection::vec(prop::sample::select(vec![
        "source.ip", "request.headers", "[", "]", "(", ")", "\"a\"", "|", "||", "==", "&&", ".", "matches", "match",
        ",", "-1", "1.5", "<", "+", "!", "\\", "`", "'", "é", "\"", "ip", "5s", "$out", " ", "0x", "conditional",
    ]), 0..60)) {
        drop(compile(&tokens.concat()));
    }
}
