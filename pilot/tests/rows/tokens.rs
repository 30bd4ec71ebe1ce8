//! Spec 1.12: RequestAuthentication.

use crate::told::{World, manager, object, object_in, refused};
use serde_json::{Value, json};

/// The key of RFC 7515, appendix A.3.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// The filters of requests to `reviews`, by name.
fn filters(yaml: &str) -> Vec<Value> {
    let chains = World::new(yaml).server().inbound();
    let manager = chains
        .iter()
        .flat_map(|chain| chain["filters"].as_array().cloned().unwrap_or_default())
        .find(|f| f["name"] == "envoy.filters.network.http_connection_manager");
    manager.unwrap()["typed_config"]["http_filters"].as_array().unwrap().clone()
}

fn jwt(yaml: &str) -> Option<Value> {
    filters(yaml).into_iter().find(|f| f["name"] == "envoy.filters.http.jwt_authn").map(|f| f["typed_config"].clone())
}

fn rule(issuer: &str, more: &str) -> String {
    format!("- {{issuer: '{issuer}', jwks: '{KEYS}'{more}}}\n")
}

fn policy(name: &str, rules: &str) -> String {
    object("RequestAuthentication", name, &format!("jwtRules:\n{rules}"))
}

// spec: RA-1, RA-3, RA-6, RA-7, RA-8, RA-9
#[test]
fn a_rule_is_a_provider() {
    let more = ", audiences: [a], fromHeaders: [{name: x, prefix: 'P '}], fromParams: [q], fromCookies: [c], \
        forwardOriginalToken: true, outputPayloadToHeader: x-p, outputClaimToHeaders: [{header: x-h, claim: a.b}], \
        spaceDelimitedClaims: [roles]";
    let filter = jwt(&policy("p", &rule("i", more))).unwrap();
    assert_eq!(
        filter["providers"]["origins-0"],
        json!({
            "issuer": "i", "audiences": ["a"], "forward": true, "forward_payload_header": "x-p",
            "from_headers": [{"name": "x", "value_prefix": "P "}], "from_params": ["q"], "from_cookies": ["c"],
            "claim_to_headers": [{"header_name": "x-h", "claim_name": "a.b"}], "payload_in_metadata": "payload",
            "normalize_payload_in_metadata": {"space_delimited_claims": ["roles"]},
            "local_jwks": {"inline_string": KEYS},
        })
    );
    assert_eq!(filter["bypass_cors_preflight"], true);
    let plain = jwt(&policy("p", &rule("i", ""))).unwrap();
    let plain = &plain["providers"]["origins-0"];
    assert_eq!(plain["normalize_payload_in_metadata"]["space_delimited_claims"], json!(["permission", "scope"]));
    assert!(plain["forward"].is_null(), "the token is not for the upstream");
}

// spec: RA-4, RA-10
#[test]
fn one_good_token_suffices_and_none_is_needed() {
    let named = |name: &str| json!({"provider_name": name});
    let or_missing = |name: &str| json!({"requires_any": {"requirements": [named(name), {"allow_missing": {}}]}});
    let requires = |yaml: &str| jwt(yaml).unwrap()["rules"].clone();
    let rules = |requires: Value| json!([{"match": {"prefix": "/"}, "requires": requires}]);
    assert_eq!(requires(&policy("p", &rule("i", ""))), rules(or_missing("origins-0")));
    // All policies of the workload count, in the order of their issuers.
    let root = object_in("istio-system", "RequestAuthentication", "r", &format!("jwtRules:\n{}", rule("b", "")));
    let two = format!("{root}{}", policy("p", &rule("a", "")));
    let several = json!({"requires_any": {"requirements": [named("origins-0"), named("origins-1"),
        {"requires_all": {"requirements": [or_missing("origins-0"), or_missing("origins-1")]}}]}});
    assert_eq!(requires(&two), rules(several));
    let issuers = |yaml: &str| jwt(yaml).unwrap()["providers"].clone();
    assert_eq!(
        (&issuers(&two)["origins-0"]["issuer"], &issuers(&two)["origins-1"]["issuer"]),
        (&json!("a"), &json!("b"))
    );
}

// spec: RA-10, GEN-5
#[test]
fn policies_are_for_their_workloads() {
    let with = |selector: &str| {
        let spec = format!("selector: {{matchLabels: {selector}}}\njwtRules:\n{}", rule("i", ""));
        jwt(&object("RequestAuthentication", "p", &spec)).is_some()
    };
    assert!(with("{app: reviews}") && !with("{app: ratings}"));
    assert!(jwt(&object_in("other", "RequestAuthentication", "p", &format!("jwtRules:\n{}", rule("i", "")))).is_none());
    assert!(jwt(&object("RequestAuthentication", "p", "jwtRules: []")).is_none(), "nobody's tokens are looked at");
}

// spec: FC-1
#[test]
fn tokens_are_looked_at_before_policies() {
    let deny =
        object("AuthorizationPolicy", "d", "action: DENY\nrules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]");
    let names: Vec<String> = filters(&format!("{deny}{}", policy("p", &rule("i", ""))))
        .iter()
        .map(|f| f["name"].as_str().unwrap().to_owned())
        .collect();
    let at = |name: &str| names.iter().position(|n| n == name).unwrap();
    assert!(at("envoy.filters.http.jwt_authn") < at("envoy.filters.http.rbac"), "{names:?}");
}

// spec: RA-2, CA-30
#[test]
fn without_keys_every_token_is_refused() {
    let unfetched = jwt(&policy("p", "- {issuer: 'https://i', jwksUri: 'https://i/keys'}\n")).unwrap();
    let keys = unfetched["providers"]["origins-0"]["local_jwks"]["inline_string"].as_str().unwrap();
    let keys: Value = serde_json::from_str(keys).unwrap();
    assert_eq!(keys["keys"][0]["kid"], "ferromesh-no-keys", "a key that nobody has");
}

// spec: RA-1, RA-2, RA-3, RA-6, RA-7
#[test]
fn what_makes_no_sense_is_refused_by_its_field() {
    let field = |rule: &str| refused("RequestAuthentication", &format!("jwtRules: [{rule}]"));
    assert_eq!(field("{jwksUri: 'https://i'}"), "spec.jwtRules[0].issuer");
    assert_eq!(field("{issuer: me}"), "spec.jwtRules[0].issuer", "its keys cannot be asked for");
    assert_eq!(field("{issuer: i, jwksUri: 'ftp://i'}"), "spec.jwtRules[0].jwksUri");
    assert_eq!(field("{issuer: i, jwks: '{}'}"), "spec.jwtRules[0].jwks");
    assert_eq!(field(&format!("{{issuer: i, jwks: '{KEYS}', jwksUri: 'https://i'}}")), "spec.jwtRules[0].jwks");
    let with = |more: &str| field(&format!("{{issuer: i, jwks: '{KEYS}', {more}}}"));
    assert_eq!(with("audiences: ['']"), "spec.jwtRules[0].audiences[0]");
    assert_eq!(with("fromHeaders: [{name: 'a b'}]"), "spec.jwtRules[0].fromHeaders[0].name");
    assert_eq!(with("fromParams: ['']"), "spec.jwtRules[0].fromParams[0]");
    assert_eq!(with("fromCookies: ['']"), "spec.jwtRules[0].fromCookies[0]");
    assert_eq!(with("outputPayloadToHeader: 'a:'"), "spec.jwtRules[0].outputPayloadToHeader");
    assert_eq!(with("outputClaimToHeaders: [{header: x}]"), "spec.jwtRules[0].outputClaimToHeaders[0].claim");
}

/// A gateway with a rule of these conditions, and tokens that it verifies.
fn by_claims(conditions: &str) -> World {
    let gateway = object(
        "Gateway",
        "g",
        "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com]}]",
    );
    let to = |version: &str| format!("route: [{{destination: {{host: reviews, subset: {version}}}}}]");
    let routed = format!(
        "hosts: [a.com]\ngateways: [g]\nhttp:\n- {{match: [{{{conditions}}}], {}}}\n- {{{}}}",
        to("v1"),
        to("v2")
    );
    let policy = object_in("istio-system", "RequestAuthentication", "p", &format!("jwtRules:\n{}", rule("i", "")));
    World::new(&format!("{gateway}{}{policy}", object("VirtualService", "v", &routed)))
}

// spec: VS-13, CA-34, VS-6
#[test]
fn claims_of_a_token_choose_the_route_at_a_gateway() {
    let conditions = "headers: {'@request.auth.claims.a.b': {exact: x}, end-user: {exact: ann}}, withoutHeaders: {'@request.auth.claims[Group]': {prefix: y}}";
    let told = by_claims(conditions).gateway();
    let routes = told.host("http.8080", "a.com:80")["routes"].clone();
    let claim = |path: &[&str], text: Value| {
        let path: Vec<Value> = ["payload"].iter().chain(path).map(|key| json!({"key": key})).collect();
        let text = json!({"string_match": text});
        let either = json!({"or_match": {"value_matchers": [{"list_match": {"one_of": text}}, text]}});
        json!({"filter": "envoy.filters.http.jwt_authn", "path": path, "value": either})
    };
    let mut unwanted = claim(&["Group"], json!({"prefix": "y"}));
    unwanted["invert"] = json!(true);
    assert_eq!(routes[0]["match"]["dynamic_metadata"], json!([claim(&["a", "b"], json!({"exact": "x"})), unwanted]));
    assert_eq!(routes[0]["match"]["headers"].as_array().unwrap().len(), 1, "a claim is no header");
    let one = by_claims("headers: {'@request.auth.claims.a': {exact: x}}").gateway();
    let routes = one.host("http.8080", "a.com:80")["routes"].clone();
    assert_eq!(routes.as_array().unwrap().len(), 2, "a condition on a claim lets others past");
    let any = by_claims("headers: {'@request.auth.claims.a': {}}").gateway();
    let matcher = any.host("http.8080", "a.com:80")["routes"][0]["match"]["dynamic_metadata"][0].clone();
    assert_eq!(matcher, claim(&["a"], json!({"safe_regex": {"regex": ".*"}})), "any value");

    let clears = |listener: &Value| {
        let manager = manager(&listener["filter_chains"][0]);
        let filters = manager["http_filters"].as_array().unwrap();
        let jwt = filters.iter().find(|filter| filter["name"] == "envoy.filters.http.jwt_authn").unwrap();
        jwt["typed_config"]["providers"]["origins-0"]["clear_route_cache"].clone()
    };
    assert_eq!(clears(&told.listener("0.0.0.0_8080")), true, "the route is chosen again once the token is known");
    assert_eq!(jwt(&policy("p", &rule("i", ""))).unwrap()["providers"]["origins-0"]["clear_route_cache"], Value::Null);
}

// spec: VS-13
#[test]
fn claims_decide_at_gateways_alone() {
    let spec = |gateways: &str, of_block: &str, key: &str| {
        format!(
            "hosts: [a.com]\n{gateways}http: [{{match: [{{headers: {{'{key}': {{exact: a}}}}{of_block}}}], route: [{{destination: {{host: reviews}}}}]}}]"
        )
    };
    let key = "@request.auth.claims[Sub]";
    for bad in [
        spec("", "", key),
        spec("gateways: [g, mesh]\n", "", key),
        spec("gateways: [g, mesh]\n", ", gateways: [mesh]", key),
    ] {
        assert_eq!(refused("VirtualService", &bad), "spec.http[0].match[0]");
    }
    for good in [spec("gateways: [g]\n", "", key), spec("gateways: [g, mesh]\n", ", gateways: [g]", key)] {
        assert!(crate::told::problems(&object("VirtualService", "v", &good)).is_empty());
    }
    let malformed = spec("gateways: [g]\n", "", "@request.auth.claims[]");
    assert_eq!(refused("VirtualService", &malformed), "spec.http[0].match[0].headers.@request.auth.claims[]");
}
