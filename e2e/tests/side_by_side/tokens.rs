//! Tokens of end users: `jwt_authn` and policies on what it leaves.

use super::{bootstrap, cluster, compare, extension};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::app::Echo;
use e2e::client::exchange_h2;
use e2e::tokens::Issuer;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

struct Issuers {
    first: Issuer,
    second: Issuer,
    stranger: Issuer,
}

impl Issuers {
    fn new() -> Self {
        let issuer = |name: &str, key: &str| Issuer::new(name, key).unwrap();
        Self {
            first: issuer("https://one.example", "k1"),
            second: issuer("two@example", "k2"),
            stranger: issuer("https://one.example", "k1"),
        }
    }

    /// Two providers as istiod writes them.
    fn filters(&self) -> Value {
        let providers = json!({
            "origins-0": {
                "issuer": self.first.name, "audiences": ["shop", "bank"], "payload_in_metadata": "payload",
                "local_jwks": {"inline_string": self.first.key_set()},
                "normalize_payload_in_metadata": {"space_delimited_claims": ["permission", "scope"]},
                "claim_to_headers": [
                    {"header_name": "x-sub", "claim_name": "sub"}, {"header_name": "x-level", "claim_name": "level"},
                    {"header_name": "x-vip", "claim_name": "vip"}, {"header_name": "x-nested", "claim_name": "a.b"},
                    {"header_name": "x-list", "claim_name": "groups"}, {"header_name": "x-none", "claim_name": "none"},
                ],
            },
            "origins-1": {
                "issuer": self.second.name, "payload_in_metadata": "payload", "forward": true,
                "local_jwks": {"inline_string": self.second.key_set()},
                "from_headers": [{"name": "x-jwt", "value_prefix": "Token "}, {"name": "x-raw"}],
                "from_params": ["t"], "from_cookies": ["session"], "forward_payload_header": "x-payload",
            },
        });
        let any = json!({"requires_any": {"requirements": [
            {"provider_name": "origins-0"}, {"provider_name": "origins-1"}, {"allow_missing": {}}]}});
        let or_missing =
            |name: &str| json!({"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}});
        let istio = json!({"requires_any": {"requirements": [
            {"provider_name": "origins-0"}, {"provider_name": "origins-1"},
            {"requires_all": {"requirements": [or_missing("origins-0"), or_missing("origins-1")]}}]}});
        let both = json!({"requires_all": {"requirements": [
            {"provider_name": "origins-0"}, {"provider_name": "origins-1"}]}});
        let bank = json!({"provider_and_audiences": {"provider_name": "origins-0", "audiences": ["bank"]}});
        let rule = |prefix: &str, requires: &Value| json!({"match": {"prefix": prefix}, "requires": requires});
        let rules = json!([
            rule("/both", &both), rule("/bank", &bank), rule("/failed", &json!({"allow_missing_or_failed": {}})),
            rule("/istio", &istio), {"match": {"path": "/free"}}, rule("/", &any),
        ]);
        let claim = |path: &[&str], value: Value| {
            let path: Vec<Value> = ["payload"].iter().chain(path).map(|key| json!({"key": key})).collect();
            json!({"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value}})
        };
        let text = |value: &str| json!({"string_match": {"exact": value}});
        let either = |value: &str| {
            json!({"or_match": {"value_matchers": [
            {"list_match": {"one_of": text(value)}}, text(value)]}})
        };
        let policy = |path: &str, who: Value| json!({"permissions": [{"url_path": {"path": {"prefix": path}}}], "principals": [who]});
        let denied = json!({"rules": {"action": "DENY", "policies": {
            "groups": policy("/group", json!({"not_id": claim(&["groups"], either("admins"))})),
            "scope": policy("/scope", json!({"not_id": claim(&["scope"], either("read"))})),
            "nested": policy("/nested", json!({"not_id": claim(&["a", "b"], json!({"string_match": {"prefix": "x"}}))})),
            "someone": policy("/someone", json!({"not_id": claim(&["sub"], json!({"string_match": {"safe_regex": {"regex": ".+"}}}))})),
            "level": policy("/level", json!({"not_id": claim(&["level"], json!({"double_match": {"range": {"start": 3, "end": 8}}}))})),
            "vip": policy("/vip", json!({"not_id": claim(&["vip"], json!({"bool_match": true}))})),
            "anyone": policy("/anyone", claim(&["sub"], json!({"present_match": false}))),
        }}});
        let http = |name: &str, message: &str, config: Value| {
            extension(
                &format!("envoy.filters.http.{name}"),
                &format!("envoy.extensions.filters.http.{message}"),
                config,
            )
        };
        let jwt = json!({"providers": providers, "rules": rules, "bypass_cors_preflight": true,
            "requirement_map": {"first": {"provider_name": "origins-0"}}});
        json!([http("jwt_authn", "jwt_authn.v3.JwtAuthentication", jwt), http("rbac", "rbac.v3.RBAC", denied)])
    }

    fn requests(&self) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = |more: &[(&str, Value)]| {
            let mut claims = json!({"sub": "user", "aud": "shop", "exp": now + 3600});
            more.iter().for_each(|(name, value)| claims[*name] = value.clone());
            claims
        };
        let first = |more: &[(&str, Value)]| self.first.token(claims(more)).unwrap();
        let second = self.second.token(json!({"sub": "other"})).unwrap();
        let good = first(&[]);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let tokens = [
            good.clone(),
            first(&[("aud", json!(["x", "bank"]))]),
            first(&[("aud", json!("other"))]),
            first(&[("aud", Value::Null)]),
            first(&[("exp", json!(now - 30))]),
            first(&[("exp", json!(now - 90))]),
            first(&[("nbf", json!(now + 30))]),
            first(&[("nbf", json!(now + 90))]),
            first(&[("iss", json!("https://three.example"))]),
            first(&[("iss", json!(self.second.name))]),
            first(&[("groups", json!(["users", "admins"])), ("scope", json!("read write")), ("level", json!(7))]),
            first(&[
                ("groups", json!("admins")),
                ("a", json!({"b": "xyz"})),
                ("vip", json!(true)),
                ("level", json!(9)),
            ]),
            first(&[
                ("groups", json!("users")),
                ("scope", json!("reader")),
                ("vip", json!(false)),
                ("level", json!("7")),
            ]),
            self.stranger.token(claims(&[])).unwrap(),
            second.clone(),
            format!("{signed}."),
            signed.to_owned(),
            format!("{signed}.{}", signature.to_lowercase()),
            format!("{}.{}.AAAA", encode(r#"{"alg":"none"}"#), encode("{}")),
            format!("{}.{}.AAAA", encode("no json"), encode("{}")),
            format!("{}.{}.AAAA", encode(r#"{"alg":"ES256","kid":"k1"}"#), encode("no json")),
            format!(
                "{}.{}.AAAA",
                encode(r#"{"alg":"ES256","kid":"k9"}"#),
                encode(r#"{"iss":"https://one.example","aud":"shop"}"#)
            ),
            "a.b".to_owned(),
            "€".to_owned(),
        ];
        let ask = |method: &str, path: &str, more: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nhost: a.example\r\nuser-agent: side\r\nconnection: close\r\n{more}\r\n"
            )
        };
        let paths = [
            "/", "/bank", "/group", "/scope", "/nested", "/someone", "/level", "/vip", "/anyone", "/failed", "/free",
            "/istio", "/named", "/off", "/x?y=1",
        ];
        let mut all: Vec<String> =
            paths.iter().map(|path| ask("GET", path, "x-sub: forged\r\nx-payload: forged\r\n")).collect();
        for token in &tokens {
            all.extend(paths.iter().map(|path| ask("GET", path, &format!("authorization: Bearer {token}\r\n"))));
        }
        for value in [
            format!("bearer {good}"),
            good.clone(),
            format!("Basic x, Bearer {good}"),
            format!("Bearer  {good} "),
            "Bearer ".to_owned(),
        ] {
            all.push(ask("GET", "/someone", &format!("authorization: {value}\r\n")));
        }
        for path in ["/someone?access_token=", "/someone?a=1&access_token=", "/x?access_token=", "/?access_token=%61"] {
            all.push(ask("GET", &format!("{path}{good}"), ""));
            all.push(ask("GET", &format!("{path}{good}&z=2"), ""));
        }
        for places in [
            format!("x-jwt: Token {second}\r\n"),
            format!("x-jwt: {second}\r\n"),
            format!("x-raw: {second}\r\n"),
            format!("cookie: a=b; session={second}\r\n"),
            format!("x-raw: {second}\r\nauthorization: Bearer {good}\r\n"),
            format!("x-raw: {good}\r\n"),
            format!("x-raw: {second}\r\nx-jwt: Token {good}\r\n"),
        ] {
            all.extend(["/someone", "/both", "/"].map(|path| ask("GET", path, &places)));
        }
        all.push(ask("GET", &format!("/someone?t={second}"), ""));
        for more in ["origin: http://x\r\naccess-control-request-method: GET\r\n", "origin: http://x\r\n", ""] {
            all.push(ask("OPTIONS", "/both", more));
        }
        all.push(ask("HEAD", "/both", ""));
        all.push(ask("POST", "/both", "content-type: application/grpc\r\ncontent-length: 0\r\n"));
        all.push(ask("GET", &format!("/both?{}", "x".repeat(300)), ""));
        all
    }
}

fn tokens(issuers: &Issuers, upstream: Echo, listener: SocketAddr, log: &Path) -> Value {
    let per = |config: Value| {
        let config = extension("", "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", config);
        json!({"envoy.filters.http.jwt_authn": config["typed_config"]})
    };
    let route = |prefix: &str| json!({"name": prefix, "match": {"prefix": prefix}, "route": {"cluster": "one"}});
    let (mut named, mut off) = (route("/named"), route("/off"));
    named["typed_per_filter_config"] = per(json!({"requirement_name": "first"}));
    off["typed_per_filter_config"] = per(json!({"disabled": true}));
    let routes = json!({"name": "side", "virtual_hosts": [{
        "name": "all", "domains": ["*"], "routes": [named, off, route("/")]}]});
    let filters: Vec<Value> = issuers.filters().as_array().unwrap().clone();
    bootstrap(listener, log, &routes, &filters, &json!([cluster("one", Some(upstream.address))]))
}

// spec: RA-1, RA-3, RA-4, RA-5, RA-6, RA-7, RA-8, RA-10, LR-16, AZ-8, AZ-15
#[test]
fn tokens_are_judged_as_envoy_does() {
    let (upstream, issuers) = (Echo::start("one").unwrap(), Issuers::new());
    let requests = issuers.requests();
    compare(|listener, log| tokens(&issuers, upstream, listener, log), &requests, super::h1);
    compare(|listener, log| tokens(&issuers, upstream, listener, log), &requests, exchange_h2);
}

/// Routes by claims as pilot writes them: those of two upstreams, which say their names.
fn by_claims(issuer: &Issuer, upstreams: [Echo; 2], listener: SocketAddr, log: &Path) -> Value {
    let claim = |path: &[&str], text: Value, invert: bool| {
        let path: Vec<Value> = ["payload"].iter().chain(path).map(|key| json!({"key": key})).collect();
        let text = json!({"string_match": text});
        let either = json!({"or_match": {"value_matchers": [{"list_match": {"one_of": text}}, text]}});
        json!({"filter": "envoy.filters.http.jwt_authn", "path": path, "value": either, "invert": invert})
    };
    let is = |path: &[&str], value: &str| claim(path, json!({"exact": value}), false);
    let is_not = |path: &[&str], value: &str| claim(path, json!({"exact": value}), true);
    let route = |name: &str, prefix: &str, claims: &[Value], cluster: &str| {
        let condition = json!({"prefix": prefix, "dynamic_metadata": claims});
        json!({"name": name, "match": condition, "route": {"cluster": cluster}})
    };
    let mut by_header = route("header", "/header", &[], "one");
    by_header["match"]["headers"] = json!([{"name": "x-group", "string_match": {"exact": "admins"}}]);
    let direct = |text: &str| json!({"status": 403, "body": {"inline_string": text}});
    let mut refused = route("refused", "/", &[is(&["sub"], "banned")], "one");
    refused.as_object_mut().unwrap().remove("route");
    refused["direct_response"] = direct("go away");
    let routes = json!([
        refused,
        route("list", "/list", &[is(&["groups"], "admins")], "one"),
        route("nested", "/nested", &[is(&["a", "b"], "x")], "one"),
        route("prefix", "/prefix", &[claim(&["sub"], json!({"prefix": "us"}), false)], "one"),
        route("any", "/any", &[claim(&["sub"], json!({"safe_regex": {"regex": ".*"}}), false)], "one"),
        route("without", "/without", &[is_not(&["sub"], "user")], "one"),
        route("both", "/both", &[is(&["sub"], "user"), is_not(&["groups"], "admins")], "one"),
        by_header,
        route("only", "/only", &[is(&["sub"], "user")], "two"),
        route("others", "/list", &[], "two"),
        route("others", "/nested", &[], "two"),
        route("others", "/prefix", &[], "two"),
        route("others", "/any", &[], "two"),
        route("others", "/without", &[], "two"),
        route("others", "/both", &[], "two"),
        route("others", "/header", &[], "two"),
    ]);
    let routes = json!({"name": "side", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]});
    let provider = json!({
        "issuer": issuer.name, "payload_in_metadata": "payload", "clear_route_cache": true,
        "local_jwks": {"inline_string": issuer.key_set()}, "claim_to_headers": [{"header_name": "x-group", "claim_name": "group"}],
    });
    let requires = json!({"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"allow_missing": {}}]}});
    let jwt =
        json!({"providers": {"origins-0": provider}, "rules": [{"match": {"prefix": "/"}, "requires": requires}]});
    let jwt =
        extension("envoy.filters.http.jwt_authn", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", jwt);
    let [one, two] = upstreams;
    let clusters = json!([cluster("one", Some(one.address)), cluster("two", Some(two.address))]);
    bootstrap(listener, log, &routes, &[jwt], &clusters)
}

// spec: VS-13, CA-34
#[test]
fn claims_choose_the_route_as_with_envoy() {
    let issuer = Issuer::new("https://one.example", "k1").unwrap();
    let upstreams = [Echo::start("one").unwrap(), Echo::start("two").unwrap()];
    let tokens = [
        json!({"sub": "user"}),
        json!({"sub": "user", "groups": ["users", "admins"]}),
        json!({"sub": "user", "groups": "admins"}),
        json!({"sub": "user", "groups": ["users"], "a": {"b": "x"}}),
        json!({"sub": "other", "a": {"b": ["y", "x"]}, "group": "admins"}),
        json!({"sub": "other", "a": "x", "a.b": "x", "groups": {"admins": true}}),
        json!({"sub": "banned", "groups": ["admins"]}),
        json!({"sub": 7, "groups": [7, "admins"]}),
        json!({"groups": []}),
    ];
    let mut tokens: Vec<String> = tokens.into_iter().map(|claims| issuer.token(claims).unwrap()).collect();
    tokens.push("a.b".to_owned());
    let paths = ["/list", "/nested", "/prefix", "/any", "/without", "/both", "/header", "/only", "/nothing"];
    let ask = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nuser-agent: side\r\nconnection: close\r\n{more}\r\n")
    };
    let without = paths.iter().map(|path| ask(path, "x-group: admins\r\n"));
    let with = |token: &String| paths.map(|path| ask(path, &format!("authorization: Bearer {token}\r\n")));
    let requests: Vec<String> = without.chain(tokens.iter().flat_map(with)).collect();
    compare(|listener, log| by_claims(&issuer, upstreams, listener, log), &requests, super::h1);
    compare(|listener, log| by_claims(&issuer, upstreams, listener, log), &requests, exchange_h2);
}
