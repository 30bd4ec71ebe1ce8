//! External authorization: leases, scopes, what is refused at load.

use crate::request::{engine, ext_authz, get, texts};
use mixer::join::{Call, Facts};
use mixer::policy::Engine;
use mixer::policy::engine::Caller;
use mixer::policy::load::Loader;
use mixer::serve::ext_authz::{ExtAuthz, LEASE_FIELD};
use proptest::prelude::*;
use proto::envoy::auth::authorization_server::Authorization as _;
use proto::envoy::auth::{CheckRequest, CheckResponse};
use proto::envoy::wkt::value::Kind;
use std::collections::HashMap;
use std::sync::Arc;

/// A denier in a namespace with a match.
fn denier(namespace: &str, matches: &str) -> String {
    format!(
        "apiVersion: config.istio.io/v1alpha2\nkind: handler\nmetadata: {{name: deny, namespace: {namespace}}}\n\
         spec: {{compiledAdapter: denier}}\n---\n\
         apiVersion: config.istio.io/v1alpha2\nkind: instance\nmetadata: {{name: nothing, namespace: {namespace}}}\n\
         spec: {{compiledTemplate: checknothing}}\n---\n\
         apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {{name: rule, namespace: {namespace}}}\n\
         spec:\n  match: '{matches}'\n  actions: [{{handler: deny, instances: [nothing]}}]\n---\n"
    )
}

async fn check(engine: &Arc<Engine>, request: CheckRequest) -> CheckResponse {
    let service = ext_authz(engine);
    service.check(tonic::Request::new(request)).await.unwrap().into_inner()
}

/// Seconds, uses and parts of the lease in an answer.
pub(crate) fn lease(answer: &CheckResponse) -> Option<(f64, Option<f64>, Vec<String>)> {
    let value = answer.dynamic_metadata.as_ref()?.fields.get(LEASE_FIELD)?;
    let Some(Kind::StructValue(lease)) = &value.kind else { panic!("{value:?}") };
    let number = |name: &str| match lease.fields.get(name).map(|value| value.kind.clone()) {
        Some(Some(Kind::NumberValue(number))) => Some(number),
        _ => None,
    };
    let Some(Kind::ListValue(by)) = lease.fields["by"].kind.clone() else { panic!("no parts") };
    let text = |value: proto::envoy::wkt::Value| match value.kind {
        Some(Kind::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    Some((number("valid_for_s").unwrap(), number("uses"), by.values.into_iter().map(text).collect()))
}

// spec: MX-96, MX-20
#[tokio::test]
async fn without_policy_everything_goes_on_by_a_lease_for_all() {
    let answer = check(&Arc::new(Engine::new()), get("reviews-v2", "ratings", &[])).await;
    assert_eq!(answer.status.clone().unwrap().code, 0);
    assert_eq!(lease(&answer), Some((5.0, Some(10_000.0), Vec::new())));
}

#[tokio::test]
async fn a_lease_names_the_parts_that_were_read_and_no_others() {
    let matches =
        r#"request.method == "GET" && request.headers["end-user"] == "jo" && source.labels["app"] == "reviews""#;
    let engine = engine(&denier("istio-system", matches));
    let by = |answer: &CheckResponse| lease(answer).unwrap().2;
    let whole = check(&engine, get("reviews-v2", "ratings", &[("end-user", "jo")])).await;
    assert_eq!(whole.status.clone().unwrap().code, 9, "the denier's own code");
    assert_eq!(by(&whole), ["source.address", "source.principal", "request.method", "request.headers/end-user"]);
    assert_eq!(lease(&whole).unwrap().1, Some(1000.0), "refusals are leased too");
    let short = check(&engine, get("reviews-v2", "ratings", &[("end-user", "al")])).await;
    assert_eq!(by(&short), ["request.method", "request.headers/end-user"], "what was not needed is not named");
}

#[tokio::test]
async fn what_depends_on_time_is_not_leased() {
    let engine = engine(&denier("istio-system", r#"request.time < timestamp("2001-01-01T00:00:00Z")"#));
    assert_eq!(lease(&check(&engine, get("reviews-v2", "ratings", &[])).await), None);
}

// spec: MX-21
#[tokio::test]
async fn rules_hold_in_their_namespace_and_those_of_the_root_everywhere() {
    let status = async |engine: &Arc<Engine>, request| check(engine, request).await.status.unwrap().code;
    let request = || get("reviews-v2", "ratings", &[]);
    let outbound = || {
        let mut request = get("nobody", "ratings", &[]);
        let context = &mut request.attributes.as_mut().unwrap().context_extensions;
        context.insert("context.reporter.kind".to_owned(), "outbound".to_owned());
        request
    };
    assert_eq!(status(&engine(&denier("istio-system", "")), request()).await, 9);
    assert_eq!(status(&engine(&denier("default", "")), request()).await, 9);
    assert_eq!(status(&engine(&denier("other", "")), request()).await, 0);
    assert_eq!(status(&engine(&denier("default", "")), outbound()).await, 0, "the source is in no namespace");
    let by = lease(&check(&engine(&denier("other", "")), request()).await).unwrap().2;
    assert!(by.contains(&"destination.address".to_owned()), "{by:?}");
}

// spec: MX-58, MX-22, MX-44
#[tokio::test]
async fn a_bad_rule_is_refused_alone_and_its_last_good_version_stays() {
    let engine = Arc::new(Engine::new());
    let mut loader = Loader::default();
    let good = denier("istio-system", r#"request.method == "GET""#);
    let manifest = "apiVersion: config.istio.io/v1alpha2\nkind: attributemanifest\nmetadata: {name: m}\n\
        spec: {attributes: {shop.tier: {valueType: STRING}}}\n---\n";
    let other = denier("other", r#"shop.tier == "gold""#);
    engine.load(&mut loader, &texts(&format!("{good}{manifest}{other}")));
    assert!(engine.view().problems.is_empty(), "{:?}", engine.view().problems);
    let bad = good.replace("request.method ==", "request.method >>");
    engine.load(&mut loader, &texts(&format!("{bad}{other}")));
    let problems = engine.view().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("a.yaml:15: rule istio-system/rule: spec.match: column 17: unexpected >"),
        "{}",
        problems[0]
    );
    assert!(problems[1].contains("unknown attribute shop.tier; an attributemanifest"), "{}", problems[1]);
    assert_eq!(check(&engine, get("reviews-v2", "ratings", &[])).await.status.unwrap().code, 9, "still in force");
    assert_eq!(engine.policy().counts["rule"].refused, 2);
    assert_eq!(engine.view().rules.len(), 2);
    engine.load(&mut loader, &texts(""));
    assert_eq!(engine.view().rules.len(), 0, "what is gone is gone");
}

/// Rules that read a bit of everything.
fn varied() -> String {
    [
        r#"request.method == "GET" && source.labels["version"] == "v3""#,
        r#"request.headers["end-user"] | "nobody" == "jo" && destination.service.name == "ratings""#,
        r#"request.path == "/a?b=1" || request.host.startsWith("x")"#,
        r#"request.query_params["b"] == "1" && destination.port == 9080"#,
        r#"match(request.headers[":authority"] | "", "rat*") && connection.mtls"#,
        r#"source.namespace == "default" && request.url_path == "/c""#,
        r#"source.user == "cluster.local/ns/default/sa/bookinfo-reviews" && request.scheme == "https""#,
        r#"context.reporter.kind == "outbound" && connection.requested_server_name == "a""#,
        r#"destination.labels["app"] == "details" && request.headers[request.headers["which"]] == "1""#,
    ]
    .iter()
    .zip(["istio-system", "default", "other"].iter().cycle())
    .enumerate()
    .map(|(index, (matches, namespace))| {
        let yaml = denier(namespace, matches);
        yaml.replace("name: rule", &format!("name: rule{index}"))
            .replace("name: deny", &format!("name: deny{index}"))
            .replace("handler: deny", &format!("handler: deny{index}"))
            .replace("name: nothing", &format!("name: nothing{index}"))
            .replace("[nothing]", &format!("[nothing{index}]"))
    })
    .collect()
}

/// One of a few requests in each part.
fn any_request() -> impl Strategy<Value = CheckRequest> {
    let source = prop::sample::select(vec!["reviews-v2", "reviews-v3", "nobody"]);
    let destination = prop::sample::select(vec!["ratings", "details", "nobody"]);
    let header = |name: &'static str, values: Vec<&'static str>| {
        prop::option::of(prop::sample::select(values).prop_map(move |value| (name, value)))
    };
    let headers =
        (header("end-user", vec!["jo", "al"]), header("which", vec!["x-a", "x-b"]), header("x-a", vec!["1", "2"]));
    let line = (
        prop::sample::select(vec!["GET", "POST"]),
        prop::sample::select(vec!["/a?b=1", "/c", "/?b=2"]),
        prop::sample::select(vec!["ratings:9080", "x", "details"]),
        prop::sample::select(vec!["http", "https"]),
    );
    let rest = (
        prop::sample::select(vec![
            "",
            "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
            "spiffe://cluster.local/ns/other/sa/b",
        ]),
        prop::sample::select(vec!["", "a"]),
        prop::sample::select(vec!["inbound", "outbound"]),
    );
    (source, destination, headers, line, rest).prop_map(|(source, destination, headers, line, rest)| {
        let headers: Vec<_> = [headers.0, headers.1, headers.2].into_iter().flatten().collect();
        let mut request = get(source, destination, &headers);
        let attributes = request.attributes.as_mut().unwrap();
        let http = attributes.request.as_mut().unwrap().http.as_mut().unwrap();
        (http.method, http.path) = (line.0.to_owned(), line.1.to_owned());
        (http.host, http.scheme) = (line.2.to_owned(), line.3.to_owned());
        attributes.source.as_mut().unwrap().principal = rest.0.to_owned();
        attributes.tls_session.as_mut().unwrap().sni = rest.1.to_owned();
        attributes.context_extensions = HashMap::from([("context.reporter.kind".to_owned(), rest.2.to_owned())]);
        request
    })
}

/// Makes a request equal to another one in these parts.
fn copy(by: &[String], from: &CheckRequest, to: &mut CheckRequest) {
    let from = from.attributes.as_ref().unwrap();
    let to = to.attributes.as_mut().unwrap();
    let source = from.request.as_ref().unwrap().http.as_ref().unwrap();
    let http = to.request.as_mut().unwrap().http.as_mut().unwrap();
    let split = |path: &str| {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        (path.to_owned(), query.map(str::to_owned))
    };
    for part in by {
        match part.as_str() {
            "source.address" => {
                to.source.as_mut().unwrap().address.clone_from(&from.source.as_ref().unwrap().address);
            }
            "source.principal" => {
                to.source.as_mut().unwrap().principal.clone_from(&from.source.as_ref().unwrap().principal);
            }
            "destination.address" => {
                to.destination.as_mut().unwrap().address.clone_from(&from.destination.as_ref().unwrap().address);
            }
            "request.method" => http.method.clone_from(&source.method),
            "request.host" => http.host.clone_from(&source.host),
            "request.scheme" => http.scheme.clone_from(&source.scheme),
            "request.path" | "request.query" => {
                let (mut path, mut query) = split(&http.path);
                let (from_path, from_query) = split(&source.path);
                if part == "request.path" {
                    path = from_path
                } else {
                    query = from_query
                }
                http.path = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
            }
            "connection.sni" => to.tls_session.clone_from(&from.tls_session),
            other => match other.split_once('/').unwrap() {
                ("request.headers", name) => match source.headers.get(name) {
                    Some(value) => drop(http.headers.insert(name.to_owned(), value.clone())),
                    None => drop(http.headers.remove(name)),
                },
                ("context", key) => match from.context_extensions.get(key) {
                    Some(value) => drop(to.context_extensions.insert(key.to_owned(), value.clone())),
                    None => drop(to.context_extensions.remove(key)),
                },
                _ => panic!("unknown part {other}"),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn requests_that_are_equal_in_the_parts_of_a_lease_get_the_same_decision(
        first in any_request(),
        second in any_request(),
    ) {
        thread_local! {
            static ENGINE: Arc<Engine> = engine(&varied());
            static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        }
        let decide = |request: &CheckRequest| {
            let engine = ENGINE.with(Arc::clone);
            RUNTIME.with(|runtime| runtime.block_on(check(&engine, request.clone())))
        };
        let answer = decide(&first);
        let mut second = second;
        copy(&lease(&answer).unwrap().2, &first, &mut second);
        prop_assert_eq!(answer.http_response, decide(&second).http_response);
    }
}

/// A quota of 1,000 a minute for each user.
const QUOTA: &str = "apiVersion: config.istio.io/v1alpha2\nkind: handler\nmetadata: {name: counts, namespace: istio-system}\n\
    spec: {compiledAdapter: memquota, params: {quotas: [{name: count, maxAmount: 1000, validDuration: 60s}]}}\n---\n\
    apiVersion: config.istio.io/v1alpha2\nkind: instance\nmetadata: {name: count, namespace: istio-system}\n\
    spec: {compiledTemplate: quota, params: {dimensions: {user: 'request.headers[\"user\"] | \"\"'}}}\n---\n\
    apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {name: count, namespace: istio-system}\n\
    spec: {actions: [{handler: counts, instances: [count]}]}\n---\n\
    apiVersion: config.istio.io/v1alpha2\nkind: QuotaSpec\nmetadata: {name: count, namespace: istio-system}\n\
    spec: {rules: [{quotas: [{quota: count}]}]}\n---\n\
    apiVersion: config.istio.io/v1alpha2\nkind: QuotaSpecBinding\nmetadata: {name: count, namespace: istio-system}\n\
    spec: {quotaSpecs: [{name: count}], services: [{service: '*'}]}\n---\n";

/// The request that was asked for, its parts, the end of the lease, uses that are left, and the code.
type Leased = (CheckRequest, Vec<String>, tokio::time::Instant, Option<f64>, i32);

/// A proxy that honours leases, as far as these tests need one.
struct Proxy {
    service: ExtAuthz,
    leased: Vec<Leased>,
    calls: usize,
    honours: bool,
}

impl Proxy {
    fn new(engine: &Arc<Engine>, honours: bool) -> Self {
        let service = ext_authz(engine);
        Self { service, leased: Vec::new(), calls: 0, honours }
    }

    /// The code of the decision about a request.
    async fn decide(&mut self, request: &CheckRequest) -> i32 {
        let now = tokio::time::Instant::now();
        self.leased.retain(|(_, _, until, uses, _)| *until > now && uses.is_none_or(|uses| uses >= 1.0));
        for (first, by, _, uses, code) in &mut self.leased {
            let mut equal = request.clone();
            copy(by, first, &mut equal);
            if equal == *request {
                *uses = uses.map(|uses| uses - 1.0);
                return *code;
            }
        }
        self.calls += 1;
        let mut asked = tonic::Request::new(request.clone());
        if self.honours {
            asked.metadata_mut().insert(mixer::serve::ext_authz::LEASE_HEADER, "1".parse().unwrap());
        }
        let answer = self.service.check(asked).await.unwrap().into_inner();
        let code = answer.status.clone().unwrap().code;
        if let Some((seconds, uses, by)) = lease(&answer).filter(|_| self.honours) {
            let until = now + std::time::Duration::from_secs_f64(seconds);
            self.leased.push((request.clone(), by, until, uses.map(|uses| uses - 1.0), code));
        }
        code
    }
}

// spec: MX-32, MX-35
#[tokio::test(start_paused = true)]
async fn leases_save_nearly_all_calls_and_never_exceed_a_quota() {
    let users = ["ann", "bob", "cy"];
    let mut lines = Vec::new();
    for (name, yaml) in
        [("deny rule", denier("istio-system", r#"source.labels["version"] == "v3""#)), ("quota", QUOTA.to_owned())]
    {
        for honours in [false, true] {
            let engine = engine(&yaml);
            let mut proxy = Proxy::new(&engine, honours);
            let mut passed = 0;
            for n in 0..1_000 {
                let source = if n % 2 == 0 { "reviews-v2" } else { "reviews-v3" };
                let request = get(source, "ratings", &[("user", users[n % 3])]);
                passed += usize::from(proxy.decide(&request).await == 0);
                tokio::time::advance(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(passed, if name == "quota" { 1_000 } else { 500 });
            lines.push(format!("{name}, leases {honours}: {} calls per 1,000 requests", proxy.calls));
            assert!(if honours { proxy.calls <= 40 } else { proxy.calls == 1_000 }, "{lines:?}");
        }
    }
    let engine = engine(QUOTA);
    let mut proxies = [Proxy::new(&engine, true), Proxy::new(&engine, true)];
    let mut passed = 0;
    for n in 0..4_000 {
        passed += usize::from(proxies[n % 2].decide(&get("reviews-v2", "ratings", &[("user", "ann")])).await == 0);
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(passed, 1_000, "exactly the limit, by two proxies");
    lines.push(format!(
        "two proxies, 4,000 requests against a limit of 1,000: {} calls",
        proxies[0].calls + proxies[1].calls
    ));
    eprintln!("{}", lines.join("\n"));
}

#[tokio::test]
async fn leases_are_given_by_few_sets_of_parts_however_many_rules_there_are() {
    let rules: String = (0..40)
        .map(|n| {
            let matches = format!(r#"request.headers["a{n}"] == "1" && request.headers["b{n}"] == "1""#);
            denier("istio-system", &matches).replace("name: rule", &format!("name: rule{n}"))
        })
        .collect::<String>()
        // One handler and one instance are enough.
        .split("---\n")
        .enumerate()
        .filter(|(at, text)| *at < 3 || text.contains("kind: rule"))
        .map(|(_, text)| format!("{text}---\n"))
        .collect();
    let engine = engine(&rules);
    let mut sets = std::collections::BTreeSet::new();
    for n in 0..40 {
        let name = format!("a{n}");
        let by = lease(&check(&engine, get("reviews-v2", "ratings", &[(&name, "1")])).await).unwrap().2;
        assert!(by.contains(&format!("request.headers/b{n}")), "it was read: {by:?}");
        sets.insert(by);
    }
    assert_eq!(sets.len(), 13, "twelve as they are, then one of all");
}

// spec: MX-30
#[tokio::test]
async fn what_was_read_refused_and_asked_is_measured() {
    let engine = Arc::new(Engine::new());
    let good = denier("istio-system", r#"source.labels["version"] == "v3""#);
    let bad = denier("other", "nothing == 1").replace("handler: deny,", "handler: gone,").replace("nothing == 1", "");
    engine.load(&mut Loader::default(), &texts(&format!("{good}{bad}")));
    check(&engine, get("reviews-v3", "ratings", &[])).await;
    let registry = vitals::prometheus::Registry::new();
    registry.register(Box::new(engine.meters().unwrap())).unwrap();
    let text = vitals::prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "mixer_config_rule_config_count 2",
        "mixer_config_rule_config_error_count 1",
        "mixer_config_handler_config_count 2",
        "mixer_config_unsatisfied_action_handler_count 1",
        r#"mixer_runtime_dispatches_total{adapter="denier",handler="deny.istio-system",refused="true"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

/// Prints how long a decision takes: the shop's nine rules, a request of common size, on one thread. Tests are not
/// optimized; what is asserted is only that nothing has gone wrong by orders of magnitude.
#[test]
fn a_decision_takes_microseconds() {
    const DECISIONS: u32 = 2_000;
    let engine = engine(&varied());
    let policy = engine.policy();
    let call = Call {
        source: Some("10.0.0.3".parse().unwrap()),
        destination: Some("10.0.0.4:9080".parse().unwrap()),
        http: true,
        method: "GET".to_owned(),
        host: "ratings:9080".to_owned(),
        path: "/ratings/0".to_owned(),
        headers: (0..12).map(|n| (format!("x-header-{n}"), "some value".to_owned())).collect(),
        ..Call::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let table = crate::request::table();
    let per = |what: &dyn Fn()| {
        let started = std::time::Instant::now();
        (0..DECISIONS).for_each(|_| what());
        started.elapsed() / DECISIONS
    };
    let facts = Facts::join(call.clone(), &table);
    let bag = facts.bag(&policy.vocabulary);
    let decide = per(&|| drop(runtime.block_on(policy.check(&bag, Caller::default()))));
    let whole = per(&|| {
        let facts = Facts::join(call.clone(), &table);
        drop(runtime.block_on(policy.check(&facts.bag(&policy.vocabulary), Caller::default())));
    });
    eprintln!("a decision by 9 rules: {decide:?}; with the join and the bag: {whole:?}");
    assert!(whole < std::time::Duration::from_millis(2), "{whole:?}");
}
