//! `proxy explain` says beforehand what the proxy then does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proxy::explain::{ExplainArgs, Form, Question, Side, explain};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use support::{Proxy, cluster, connect, free_port, http, listener, read_head, upstream};

/// An application that says which one it is.
fn app(name: &'static str) -> u16 {
    upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        let answer = format!("HTTP/1.1 200 OK\r\nx-app: {name}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        drop(stream.write_all(answer.as_bytes()));
    })
}

fn explained(dump: &Path, method: &str, url: &str, headers: &[String], more: &[&str]) -> Value {
    let headers = headers.iter().flat_map(|header| ["-H", header]);
    let output = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["explain", "--config-dump", dump.to_str().unwrap(), "-o", "json", method, url])
        .args(headers)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same in this process: two hundred start-ups would take long.
fn foreseen(dump: &str, method: &str, url: &str, headers: &[String]) -> Value {
    let args = ExplainArgs {
        config_dump: "-".into(),
        method: method.to_owned(),
        url: url.to_owned(),
        headers: headers.to_vec(),
        side: Side::Outbound,
        from_identity: None,
        from_address: [192, 0, 2, 1].into(),
        namespace: None,
        to_address: None,
        output: Form::Json,
    };
    serde_json::to_value(explain(dump, &Question::of(&args).unwrap()).unwrap()).unwrap()
}

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// Routes of every kind, a policy of paths and one of headers.
fn configuration(port: u16, apps: [u16; 2], down: u16) -> String {
    let origin = "metadata: {filter_metadata: {istio: {config: /apis/networking.istio.io/v1/namespaces/shop/virtual-service/front}}}";
    let routes = format!(
        "{{name: jason, match: {{prefix: /reviews, headers: [{{name: end-user, string_match: {{exact: jason}}}}]}}, {origin}, route: {{cluster: b}}}}, \
         {{name: reviews, match: {{prefix: /reviews}}, route: {{cluster: a, timeout: 3s}}}}, \
         {{name: exact, match: {{path: /exact}}, route: {{cluster: b}}}}, \
         {{name: regex, match: {{safe_regex: {{regex: '/r/[0-9]+'}}}}, route: {{cluster: a}}}}, \
         {{name: empty, match: {{prefix: /empty}}, route: {{cluster: empty}}}}, \
         {{name: gone, match: {{prefix: /gone}}, route: {{cluster: nowhere}}}}, \
         {{name: moved, match: {{prefix: /moved}}, redirect: {{path_redirect: /new}}}}, \
         {{name: fixed, match: {{prefix: /fixed}}, direct_response: {{status: 418}}}}, \
         {{name: post, match: {{prefix: /only-post, headers: [{{name: ':method', string_match: {{exact: POST}}}}]}}, route: {{cluster: b}}}}"
    );
    let deny = format!(
        "{{name: envoy.filters.http.rbac, typed_config: {{'@type': {RBAC}, rules: {{action: DENY, policies: {{'ns[shop]-policy[no-admin]-rule[0]': \
         {{permissions: [{{or_rules: {{rules: [{{url_path: {{path: {{prefix: /reviews/admin}}}}}}, {{header: {{name: x-bad, present_match: true}}}}]}}}}], \
         principals: [{{any: true}}]}}}}}}}}}}"
    );
    let manager = http(&routes, "").replace("http_filters: [", &format!("http_filters: [{deny}, "));
    let clusters = [
        cluster("a", &[apps[0]]),
        cluster("b", &[apps[1]]),
        "  - {name: empty, type: STATIC, load_assignment: {cluster_name: empty}}\n".to_owned(),
        cluster("down", &[down]),
    ];
    let front = listener("front", port, "traffic_direction: OUTBOUND,", &format!("{{filters: [{manager}]}}"));
    format!("  - {front}\n  clusters:\n{}", clusters.concat())
}

/// What the proxy does: its status, and the application or the flags.
fn done(port: u16, method: &str, path: &str, headers: &[String]) -> (u16, Option<String>) {
    let mut stream = connect(port);
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let app = answer.lines().find_map(|line| line.strip_prefix("x-app: "));
    (status, app.map(str::to_owned))
}

// spec: CT-60
#[test]
fn for_two_hundred_requests_the_explanation_is_what_the_proxy_then_does() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let apps = [app("a"), app("b")];
    let proxy = Proxy::start(directory.path(), &configuration(port, apps, free_port()));
    let answer = proxy.admin("GET", "/config_dump?include_eds").unwrap();
    let text = answer.split_once("\r\n\r\n").unwrap().1;
    let methods = ["GET", "POST", "DELETE"];
    let paths = [
        "/reviews/1",
        "/reviews",
        "/reviews/admin/x",
        "/Reviews",
        "/exact",
        "/exact/",
        "/exact?q=1",
        "/r/12",
        "/r/x",
        "/r/12/3",
        "/empty",
        "/gone/1",
        "/moved",
        "/fixed",
        "/only-post",
        "/",
        "/nowhere",
        "/reviews/../exact",
        "/reviews%2Fadmin",
        "//exact",
    ];
    let headers = ["end-user: jason", "end-user: Jason", "x-bad: 1", "x-other: y"];
    let mut checked = std::collections::BTreeMap::<String, u32>::new();
    for number in 0..200_usize {
        let (method, path) = (methods[number % 3], paths[(number * 7) % paths.len()]);
        let given: Vec<String> =
            headers.iter().enumerate().filter(|(i, _)| (number >> i) & 5 == 1).map(|(_, h)| (*h).to_owned()).collect();
        let url = format!("http://shop.test:{port}{path}");
        let story = foreseen(text, method, &url, &given);
        let (status, app) = done(port, method, path, &given);
        let foreseen = &story["outcome"];
        match app {
            Some(app) => {
                assert_eq!(
                    (foreseen["status"].as_u64(), foreseen["clusters"][0]["cluster"].as_str()),
                    (None, Some(app.as_str())),
                    "{method} {path} {given:?}: {story}"
                );
                *checked.entry(app).or_default() += 1;
            }
            None => {
                assert_eq!(foreseen["status"].as_u64(), Some(u64::from(status)), "{method} {path} {given:?}: {story}");
                *checked.entry(status.to_string()).or_default() += 1;
            }
        }
    }
    for kind in ["a", "b", "403", "404", "503", "301", "418"] {
        assert!(checked.get(kind).is_some_and(|count| *count >= 3), "{kind} came up too seldom: {checked:?}");
    }
    proxy.quit();
}

// spec: CT-60
#[test]
fn the_story_names_the_object_the_rule_and_the_endpoints() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let proxy = Proxy::start(directory.path(), &configuration(port, [1, 2], 3));
    let answer = proxy.admin("GET", "/config_dump?include_eds").unwrap();
    let dump = directory.path().join("dump.json");
    std::fs::write(&dump, answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let url = |path: &str| format!("http://shop.test:{port}{path}");
    let story = explained(&dump, "get", &url("/reviews/1"), &["end-user: jason".to_owned()], &[]);
    let route = story["steps"].as_array().unwrap().iter().find(|step| step["station"] == "route").unwrap();
    assert_eq!((&route["name"], &route["object"]), (&"jason".into(), &"VirtualService/shop/front".into()));
    assert_eq!(
        story["outcome"]["endpoints"][0],
        serde_json::json!({"address": "127.0.0.1:2", "health": "healthy", "transport": "plaintext"})
    );
    let denied = explained(&dump, "GET", &url("/reviews/admin"), &[], &[]);
    let policy = denied["steps"].as_array().unwrap().iter().find(|step| step["verdict"] == "denied").unwrap();
    assert_eq!(policy["name"], "ns[shop]-policy[no-admin]-rule[0]");
    let inbound = explained(&dump, "GET", &url("/"), &[], &["--side", "inbound"]);
    assert_eq!(inbound["steps"][0]["because"], "no listener takes the connection");
    let (elsewhere, dialled) = ("http://shop.test:1/fixed", format!("127.0.0.1:{port}"));
    let by_flag = explained(&dump, "GET", elsewhere, &[], &["--to-address", &dialled]);
    assert_eq!((&by_flag["outcome"]["status"], &by_flag["request"]), (&418.into(), &"GET shop.test:1/fixed".into()));
    let by_url = explained(&dump, "GET", elsewhere, &[], &["--to-address", "127.0.0.1"]);
    assert_eq!(by_url["steps"][0]["because"], "no listener takes the connection");
    let text = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["explain", "--config-dump", dump.to_str().unwrap(), "GET", &url("/fixed")])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("=> 418") && text.contains("the route answers by itself"), "{text}");
    let bad = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["explain", "--config-dump", "/dev/null", "GET", "x"])
        .output()
        .unwrap();
    assert!(String::from_utf8(bad.stderr).unwrap().contains("the configuration is no JSON"));
    proxy.quit();
}
