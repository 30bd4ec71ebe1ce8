//! The live page: as text, and in a real browser.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use proto::envoy::accesslog_service::StreamAccessLogsMessage;
use proto::envoy::accesslog_service::access_log_service_client::AccessLogServiceClient;
use proto::envoy::accesslog_service::stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries};
use proto::envoy::core::Node;
use proto::envoy::log_entry::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties, ResponseFlags,
};
use proto::envoy::wkt;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use support::browser::Browser;
use support::{Call, attribute, counter, get, histogram, labels, report, start, until};
use tokio::sync::watch;

/// What a HTML parser must never see as markup.
const HOSTILE: &str = "<script>window.pwned=1</script>\"'><img src=x onerror=window.pwned=1>&amp;</title>";

/// Requests per second: to reviews v1, to v2, and those that find no endpoint.
type Rates = (u64, u64, u64);

/// Reports as proxies do: running totals every second, from both ends.
async fn traffic(address: SocketAddr, rates: watch::Receiver<Rates>) {
    let mut client = MetricsServiceClient::connect(format!("http://{address}")).await.unwrap();
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let (old, new, lost) = *rates.borrow();
        let mut metrics = vec![Vec::new(), Vec::new()];
        for (name, destination, code, rate, ms) in [
            ("old", ("reviews", "v1"), "200", old, 8.),
            ("new", ("reviews", "v2"), "200", new, 40.),
            ("lost", ("reviews", ""), "503", lost, 1.),
            ("ratings", ("ratings", "v1"), "200", new, 3.),
        ] {
            let total = totals.entry(name).or_default();
            *total += rate;
            let source = if name == "ratings" { ("reviews", "v2") } else { ("productpage", "v1") };
            let ends = if destination.1.is_empty() { &["source"][..] } else { &["source", "destination"][..] };
            for (index, reporter) in ends.iter().enumerate() {
                let labels = labels(Call { reporter, source, destination, code });
                metrics[index].push(counter("istio_requests_total", labels.clone(), *total));
                metrics[index].push(histogram("istio_request_duration_milliseconds", labels, *total, ms));
            }
        }
        for (proxy, metrics) in ["client", "server"].iter().zip(metrics) {
            if client.export(report(&format!("sidecar~10.0.0.1~{proxy}.shop~x"), metrics)).await.is_err() {
                return;
            }
        }
    }
}

/// A failed request as our proxies report it.
async fn fail(address: SocketAddr) {
    let tags = [
        ("side", "server"),
        ("peer", "reviews.shop.svc.cluster.local, 2 endpoints"),
        ("limit", "outlierDetection.consecutive5xxErrors 5"),
        ("policy", "outlier detection"),
        ("object", "DestinationRule/shop/reviews"),
        ("why", "both endpoints of reviews are ejected: each answered 5 times in a row with 5xx"),
    ];
    let common = AccessLogCommon {
        upstream_cluster: "outbound|9080||reviews.shop.svc.cluster.local".into(),
        response_flags: Some(ResponseFlags { no_healthy_upstream: true, ..ResponseFlags::default() }),
        route_name: "default".into(),
        custom_tags: tags.map(|(name, value)| (format!("ferromesh.{name}"), value.to_owned())).into(),
        start_time: Some(wkt::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        duration: Some(wkt::Duration { seconds: 0, nanos: 1_000_000 }),
        ..AccessLogCommon::default()
    };
    let request = HttpRequestProperties {
        request_method: 1,
        path: "/reviews/1".into(),
        authority: "reviews:9080".into(),
        user_agent: "productpage".into(),
        request_id: "5f6c1d2e-0000-4000-8000-000000000001".into(),
        ..HttpRequestProperties::default()
    };
    let response = HttpResponseProperties {
        response_code: Some(wkt::UInt32Value { value: 503 }),
        response_code_details: "no_healthy_upstream".into(),
        ..HttpResponseProperties::default()
    };
    Box::pin(send(address, "productpage-v1", common, request, response)).await;
}

/// A failed request with every field set to what a HTML parser must not see.
async fn fail_hostile(address: SocketAddr) {
    let text = HOSTILE;
    let tags =
        ["side", "peer", "limit", "policy", "object", "why"].map(|name| (format!("ferromesh.{name}"), text.to_owned()));
    let common = AccessLogCommon {
        upstream_cluster: format!("outbound|9080|{text}|reviews.shop.svc.cluster.local"),
        response_flags: Some(ResponseFlags { no_healthy_upstream: true, ..ResponseFlags::default() }),
        route_name: text.into(),
        upstream_transport_failure_reason: text.into(),
        connection_termination_details: text.into(),
        custom_tags: tags.into(),
        start_time: Some(wkt::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..AccessLogCommon::default()
    };
    let request = HttpRequestProperties {
        request_method: 1,
        path: format!("/reviews/1?{text}"),
        authority: text.into(),
        user_agent: text.into(),
        request_id: text.into(),
        ..HttpRequestProperties::default()
    };
    let response = HttpResponseProperties {
        response_code: Some(wkt::UInt32Value { value: 503 }),
        response_code_details: text.into(),
        ..HttpResponseProperties::default()
    };
    Box::pin(send(address, text, common, request, response)).await;
}

async fn send(
    address: SocketAddr,
    workload: &str,
    common: AccessLogCommon,
    request: HttpRequestProperties,
    response: HttpResponseProperties,
) {
    let logged = HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(request),
        response: Some(response),
        protocol_version: 2,
    };
    let pair = |name: &str, value: &str| {
        (name.to_owned(), wkt::Value { kind: Some(wkt::value::Kind::StringValue(value.to_owned())) })
    };
    let metadata = wkt::Struct {
        fields: [pair("NAME", workload), pair("NAMESPACE", "shop"), pair("WORKLOAD_NAME", workload)].into(),
    };
    let node = Node { id: format!("sidecar~10.0.0.1~{workload}.shop~x"), metadata: Some(metadata), ..Node::default() };
    let message = StreamAccessLogsMessage {
        identifier: Some(Identifier { node: Some(node), log_name: "ferromesh".into() }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![logged] })),
    };
    let mut client = AccessLogServiceClient::connect(format!("http://{address}")).await.unwrap();
    client.stream_access_logs(tokio_stream::iter([message])).await.unwrap();
}

// S8: nothing from data is markup, whatever it says.
#[tokio::test]
async fn hostile_names_stay_text() {
    let mixer = start(&[]).await;
    let (grpc, page) = (mixer.grpc.unwrap(), mixer.http.unwrap());
    let mut client = MetricsServiceClient::connect(format!("http://{grpc}")).await.unwrap();
    let names = labels(Call { reporter: "source", source: ("a", "v1"), destination: ("b", "v1"), code: "503" });
    let hostile = |total| {
        let labels = names.iter().map(|label| {
            let kept = ["reporter", "request_protocol", "response_code"].contains(&&*label.key);
            if kept { label.clone() } else { attribute(&label.key, HOSTILE) }
        });
        let mut labels: Vec<_> = labels.collect();
        labels.push(attribute(HOSTILE, HOSTILE));
        report(HOSTILE, vec![counter("istio_requests_total", labels, total)])
    };
    client.export(hostile(5)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    client.export(hostile(50)).await.unwrap();
    Box::pin(fail_hostile(grpc)).await;
    let encoded = percent_encoding::utf8_percent_encode(HOSTILE, percent_encoding::NON_ALPHANUMERIC).to_string();
    let ends = ["from", "to"].map(|s| format!("{s}_namespace={encoded}&{s}={encoded}&{s}_version={encoded}")).join("&");
    let paths = [
        "/".to_owned(),
        format!("/service/{encoded}/{encoded}"),
        "/service/shop/reviews".to_owned(),
        format!("/edge?{ends}"),
        "/failures".to_owned(),
        "/proxies".to_owned(),
        "/traces".to_owned(),
        format!("/trace/{encoded}"),
    ];
    until(page, "/failures", |text| text.contains("window.pwned")).await;
    for path in &paths {
        let (status, text) = get(page, path).await;
        assert!(status.is_success(), "{path}: {status}");
        assert!(!text.contains("<script>") && !text.contains("<img") && !text.contains("'>"), "{path}: {text}");
        assert!(
            path == "/traces" || path == "/service/shop/reviews" || text.contains("window.pwned"),
            "{path} says it as text"
        );
    }
    let (_, metrics) = get(mixer.monitoring.unwrap(), "/metrics").await;
    assert!(!metrics.lines().any(|line| line.starts_with('<')));

    // And a browser agrees.
    let browser = Browser::start(1200, 800).await;
    for path in &paths {
        browser.open(&format!("http://{page}{path}")).await;
        // The script has swapped the content in at least once.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(browser.run("return window.pwned === undefined").await, true, "{path}");
    }
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.stop().await;
}

#[tokio::test]
async fn the_page_cannot_be_reached_by_another_name() {
    use axum::http::{Request, StatusCode};
    let mixer = start(&[]).await;
    let page = mixer.http.unwrap();
    let named = |host: &str| {
        let request = Request::get(format!("http://{page}/")).header("host", host);
        support::http(request.body(Default::default()).unwrap())
    };
    assert_eq!(named("evil.example:8080").await.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(named("localhost:8080").await.0, StatusCode::OK);
    assert_eq!(named("[::1]:8080").await.0, StatusCode::OK);
    let request = Request::post(format!("http://{page}/")).body(Default::default()).unwrap();
    assert_eq!(support::http(request).await.0, StatusCode::METHOD_NOT_ALLOWED, "it is read-only");
}

/// Figures of a row of the table, by the words of its ends.
async fn figure(browser: &Browser, to: &str, what: &str) -> f64 {
    let script = format!(
        "const row = [...document.querySelectorAll('tbody tr[data-to]')].find(r => r.dataset.to.startsWith({to:?}) && r.dataset.from.startsWith('productpage'));
         return row ? Number(row.dataset.{what}) : null"
    );
    browser.run(&script).await.as_f64().unwrap_or(f64::NAN)
}

fn near(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() <= wanted * 0.2
}

#[tokio::test]
async fn a_browser_sees_what_happens_while_it_happens() {
    let mixer = start(&[]).await;
    let (grpc, page) = (mixer.grpc.unwrap(), mixer.http.unwrap());
    let (rates, given) = watch::channel((198, 2, 0));
    let feeding = tokio::spawn(traffic(grpc, given));
    let browser = Browser::start(1360, 900).await;
    browser.open(&format!("http://{page}/")).await;

    // Figures are right, and appear without a reload.
    browser.run("window.same = true").await;
    browser.until(Duration::from_secs(8), "return document.querySelectorAll('tr[data-to]').length >= 3").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (old, share) = (figure(&browser, "reviews v1", "rate").await, figure(&browser, "reviews v1", "share").await);
    assert!(near(old, 198.), "{old} requests per second");
    assert!((98. ..=100.).contains(&share), "share {share}");
    let (p50, failed) = (figure(&browser, "reviews v1", "p50").await, figure(&browser, "reviews v1", "failed").await);
    assert!((5. ..=10.).contains(&p50) && failed == 0., "{p50} ms, {failed} %");
    let locks = browser.run("return document.querySelectorAll('svg .lock').length").await;
    assert!(locks.as_u64().unwrap() >= 2, "mutual TLS is seen");
    browser.picture("fed-graph").await;

    // From 99/1 to 50/50: visible within 3 seconds, right soon after.
    rates.send_replace((100, 100, 0));
    let changed = browser
        .until(
            Duration::from_secs(3),
            "const row = [...document.querySelectorAll('tbody tr[data-to]')].find(r => r.dataset.to.startsWith('reviews v2'));
             return Number(row.dataset.share) > 10",
        )
        .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (one, two) = (figure(&browser, "reviews v1", "rate").await, figure(&browser, "reviews v2", "rate").await);
    assert!(near(one, 100.) && near(two, 100.), "{one} and {two} requests per second, change seen after {changed:?}");

    // What is killed is seen.
    assert_eq!(health(&browser, "reviews").await, "healthy");
    rates.send_replace((0, 0, 200));
    let seen = browser
        .until(
            Duration::from_secs(5),
            "return document.querySelector('g[data-service=reviews]').dataset.health === 'failing'",
        )
        .await;
    let text =
        browser.run("return document.querySelector('a[aria-label*=\"reviews (shop), failing\"]') !== null").await;
    assert_eq!(text, true, "it is said in words too");
    assert_eq!(browser.run("return window.same").await, true, "the page was never reloaded");
    browser.picture("fed-failing").await;
    println!("a change of weights was seen after {changed:?}, a killed workload after {seen:?}");

    // Why: the failed request with its reason.
    Box::pin(fail(grpc)).await;
    browser.open(&format!("http://{page}/service/shop/reviews")).await;
    browser.until(Duration::from_secs(3), "return document.querySelector('details.failure')").await;
    browser.run("document.querySelector('details.failure').open = true").await;
    let facts = browser.run("return document.querySelector('details.failure').innerText").await;
    for fact in ["503 UH", "Guilty side", "Limit", "Policy", "Object"] {
        assert!(facts.as_str().unwrap().contains(fact), "{fact} is missing in {facts}");
    }
    browser.picture("fed-failed-request").await;
    feeding.abort();
    browser.stop().await;
}

async fn health(browser: &Browser, service: &str) -> String {
    let script = format!("return document.querySelector('g[data-service={service}]').dataset.health");
    browser.run(&script).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn keys_suffice_focus_stays_and_380_pixels_are_enough() {
    let mixer = start(&[]).await;
    let (grpc, page) = (mixer.grpc.unwrap(), mixer.http.unwrap());
    let (_rates, given) = watch::channel((50, 50, 0));
    let feeding = tokio::spawn(traffic(grpc, given));
    let browser = Browser::start(380, 800).await;
    browser.resize(380, 800).await;
    browser.open(&format!("http://{page}/")).await;
    browser.until(Duration::from_secs(8), "return document.querySelectorAll('tr[data-to]').length >= 3").await;
    let wide = browser.run("return document.documentElement.scrollWidth <= innerWidth").await;
    assert_eq!(wide, true, "the page itself does not scroll sideways");
    browser.picture("narrow").await;

    // Tab to an arrow of the graph; the refresh does not take the focus away; Enter opens it.
    let mut label = String::new();
    for _ in 0..20 {
        browser.press("\u{e004}").await;
        let active = browser
            .run("return document.activeElement.closest('svg') && document.activeElement.getAttribute('aria-label')")
            .await;
        label = active.as_str().unwrap_or_default().to_owned();
        if label.contains(" calls ") {
            break;
        }
    }
    assert!(label.contains(" calls "), "an arrow can be reached by keys");
    browser.run("document.activeElement.dataset.old = 'yes'").await;
    browser
        .until(
            Duration::from_secs(5),
            "return document.activeElement.dataset.old === undefined && document.activeElement !== document.body",
        )
        .await;
    let still = browser.run("return document.activeElement.getAttribute('aria-label')").await;
    assert_eq!(still.as_str().unwrap().split(':').next(), label.split(':').next(), "focus survives the refresh");
    browser.press("\u{e007}").await;
    browser.until(Duration::from_secs(3), "return location.pathname === '/edge'").await;

    // Every node and edge has a name, and there is a table that says the same.
    browser.open(&format!("http://{page}/")).await;
    let unnamed = browser
        .run("return [...document.querySelectorAll('svg a')].filter(a => !a.getAttribute('aria-label')).length")
        .await;
    assert_eq!(unnamed, Value::from(0));
    let twins = browser.run("return document.querySelectorAll('svg g[data-from]').length === document.querySelectorAll('tbody tr[data-from]').length").await;
    assert_eq!(twins, true);
    // Dark and light by the switch.
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let before = browser.run(ground).await;
    browser.run("document.getElementById('theme').click()").await;
    assert_ne!(browser.run(ground).await, before);
    browser.resize(1360, 900).await;
    browser.picture("graph-dark").await;
    feeding.abort();
    browser.stop().await;
}

#[tokio::test]
async fn the_page_survives_a_restart_of_mixer() {
    let mixer = start(&[]).await;
    let page = mixer.http.unwrap();
    let browser = Browser::start(1000, 700).await;
    browser.open(&format!("http://{page}/")).await;
    browser.run("window.same = true").await;
    mixer.stop(Duration::from_secs(1)).await;
    browser.until(Duration::from_secs(8), "return !document.getElementById('lost').hidden").await;
    let said = browser.run("return document.getElementById('lost').textContent").await;
    assert!(said.as_str().unwrap().contains("has not answered for"), "{said}");
    let again = start(&[&format!("--http-addr={page}")]).await;
    let (_rates, given) = watch::channel((50, 50, 0));
    let feeding = tokio::spawn(traffic(again.grpc.unwrap(), given));
    browser
        .until(
            Duration::from_secs(10),
            "return document.getElementById('lost').hidden && document.querySelector('tr[data-to]')",
        )
        .await;
    assert_eq!(browser.run("return window.same").await, true);
    feeding.abort();
    browser.stop().await;
}
