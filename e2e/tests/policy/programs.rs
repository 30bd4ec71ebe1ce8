//! A policy that is simple as a whole is decided by our proxy alone, and just as mixer decides for a real Envoy.

use crate::mesh::{Mixer, Place, get, grpc_service, proxy};
use e2e::client::exchange;
use e2e::proxies::Flavour;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Two refusals that may meet, a white list without and a black list with regard to case, a look of its own.
const RULES: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: denier
metadata: {name: eve, namespace: istio-system}
spec: {status: {code: 7, message: not you}}
---
apiVersion: config.istio.io/v1alpha2
kind: denier
metadata: {name: tea, namespace: istio-system}
spec:
  status:
    code: 5
    message: no coffee
    details:
    - {"@type": type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse, code: 418, body: tea, headers: {X-Pot: small, Set-Cookie: a=b}}
---
apiVersion: config.istio.io/v1alpha2
kind: checknothing
metadata: {name: nothing, namespace: istio-system}
---
apiVersion: config.istio.io/v1alpha2
kind: listchecker
metadata: {name: versions, namespace: istio-system}
spec: {overrides: [V1, v2], entryType: CASE_INSENSITIVE_STRINGS}
---
apiVersion: config.istio.io/v1alpha2
kind: listentry
metadata: {name: version, namespace: istio-system}
spec:
  value: request.headers["x-version"] | "v1"
---
apiVersion: config.istio.io/v1alpha2
kind: listchecker
metadata: {name: methods, namespace: istio-system}
spec: {overrides: [DELETE, TRACE], blacklist: true}
---
apiVersion: config.istio.io/v1alpha2
kind: listentry
metadata: {name: method, namespace: istio-system}
spec:
  value: request.method | ""
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: a-eve, namespace: istio-system}
spec:
  match: request.headers["x-user"] == "eve" || match(request.path, "/private*") && request.host != "app"
  actions: [{handler: eve.denier, instances: [nothing.checknothing]}]
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: b-tea, namespace: istio-system}
spec:
  match: ("^/tea(/|$)".matches(request.url_path) && (request.headers["x-user"] | "nobody") != "queen") || request.headers["x-user"].endsWith("-pot")
  actions: [{handler: tea.denier, instances: [nothing.checknothing]}]
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: c-lists, namespace: istio-system}
spec:
  match: request.path.startsWith("/list")
  actions:
  - {handler: versions.listchecker, instances: [version.listentry]}
  - {handler: methods.listchecker, instances: [method.listentry]}
"#;

fn requests() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for path in ["/", "/tea", "/tea/x?y=1", "/teapot", "/private/x", "/list", "/list?x=/tea", "/tea/list"] {
        for headers in [
            "",
            "x-user: eve\r\n",
            "x-user: queen\r\n",
            "x-user: a-pot\r\n",
            "x-user: eve\r\nx-user: eve\r\n",
            "x-user:\r\n",
            "x-version: V2\r\n",
            "x-version: v3\r\n",
            "x-version: v3\r\nx-user: eve\r\n",
        ] {
            all.push((path.to_owned(), headers.to_owned()));
        }
    }
    all
}

fn filter() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": grpc_service(), "transport_api_version": "V3",
    })
}

// spec: MX-31, MX-72, MX-73, MX-96
#[test]
fn what_our_proxy_decides_alone_is_what_mixer_decides_for_an_envoy() {
    let mixer = Mixer::start(RULES, "domain: a\n", None);
    let calls = || mixer.metric("mixer_runtime_dispatch_duration_seconds_count");
    let answers = |flavour| {
        let filter = ("envoy.filters.http.ext_authz", filter());
        let (_proxy, address) = proxy(Place::here(flavour), &mixer, filter, &Value::Null);
        let (before, began) = (calls(), Instant::now());
        let ask = |(path, headers): (String, String)| {
            let answer = get(address, &path, &headers);
            let shown = ["content-type", "x-pot", "set-cookie"].map(|name| answer.head.header(name).map(str::to_owned));
            let body = if answer.status == 200 { String::new() } else { answer.body };
            (path, headers, answer.status, shown, body)
        };
        let answers: Vec<_> = requests().into_iter().map(ask).collect();
        (answers, calls() - before, began.elapsed().as_secs())
    };
    let (envoy, asked, _) = answers(Flavour::Envoy);
    assert_eq!(asked, envoy.len() as u64, "a real Envoy asks each time");
    let (ours, asked, seconds) = answers(Flavour::Ferromesh);
    // The policy is left for five seconds.
    assert!(asked <= 1 + seconds / 5 + 1, "{asked} calls in {seconds} s");
    eprintln!("a simple policy: {asked} calls for {} requests, an Envoy {}", ours.len(), envoy.len());
    let refused = envoy.iter().filter(|answer| answer.2 != 200).count();
    assert!(refused > 20 && refused < envoy.len() - 20, "{refused} of {}", envoy.len());
    for (one, other) in envoy.iter().zip(&ours) {
        assert_eq!(one, other);
    }
}

/// What the page says of rules and of handlers: the numbers of each row.
pub(crate) fn rows(mixer: &Mixer) -> BTreeMap<String, Vec<u64>> {
    let asked = "GET /policies HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let page = exchange(mixer.running().http.unwrap(), asked).unwrap().body;
    let row = |text: &str| {
        let (name, cells) = text.split_once('"')?;
        let numbers = cells.split("<td class=\"number").skip(1);
        let number = |cell: &str| cell.split_once('>')?.1.split_once('<')?.0.parse().ok();
        Some((name.to_owned(), numbers.map(|cell| number(cell).unwrap()).collect()))
    };
    page.split("<tr data-").skip(1).map(|text| row(text.split_once("=\"").unwrap().1).unwrap()).collect()
}

// spec: MX-30
#[test]
fn what_our_proxy_decides_alone_stands_on_mixers_page_and_in_its_figures() {
    let mixer = Mixer::start(RULES, "domain: a\n", None);
    let ask = |flavour| {
        let (proxy, address) =
            proxy(Place::here(flavour), &mixer, ("envoy.filters.http.ext_authz", filter()), &Value::Null);
        requests().iter().for_each(|(path, headers)| drop(get(address, path, headers)));
        proxy
    };
    let _envoy = ask(Flavour::Envoy);
    let asked = rows(&mixer);
    assert_eq!(asked.len(), 7, "all rules and handlers are in force: {asked:?}");
    assert!(asked["istio-system/a-eve"][1] > 10 && asked["istio-system/c-lists"][1] > 0, "{asked:?}");
    let calls = mixer.metric("mixer_runtime_dispatch_duration_seconds_count");
    let _ours = ask(Flavour::Ferromesh);
    let by_calls = mixer.metric("mixer_runtime_dispatch_duration_seconds_count") - calls;
    assert!(by_calls < requests().len() as u64 / 4, "{by_calls}");
    // The same requests once more: every hit, denial, question and refusal doubles.
    let twice: BTreeMap<_, Vec<u64>> =
        asked.iter().map(|(name, row)| (name.clone(), row.iter().map(|number| 2 * number).collect())).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while rows(&mixer) != twice {
        assert!(Instant::now() < deadline, "{:?}\nand not\n{twice:?}", rows(&mixer));
        std::thread::yield_now();
    }
    let figure = |name: &str| mixer.metric(name);
    let alone = figure("ferromesh_policy_hits_total{handler=\"eve.istio-system\",rule=\"istio-system/a-eve\"}");
    assert!(alone > 10 && alone <= asked["istio-system/a-eve"][0], "{alone}");
    let refused = "mixer_runtime_dispatches_total{adapter=\"denier\",handler=\"eve.istio-system\",refused=\"true\"}";
    assert_eq!(figure(refused), twice["eve.istio-system"][1]);
}
