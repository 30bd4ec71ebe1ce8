//! What operators ask of a running mesh: explain, stat, edges, top, tap, check, diff and analyze on the demo.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long the mesh may take to show what was changed or sent.
const PATIENCE: Duration = Duration::from_secs(20);

/// Denies the shopper, by name.
const DENY: &str = "# one rule\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-shopper, \
                    namespace: default}\nspec:\n  selector: {matchLabels: {app: ratings}}\n  action: DENY\n  rules:\n  - from: \
                    [{source: {principals: ['*/bookinfo-shopper']}}]\n";

/// The demo with traffic. Dropping it ends it as Ctrl-C does.
struct Demo {
    child: Child,
    name: String,
}

impl Demo {
    fn start() -> Self {
        let name = format!("operate{}", std::process::id());
        let mut command = Command::new(e2e::program("meshctl").unwrap());
        command.args(["demo", "--port", "0", "--page-port", "0", "--load", "20", "--name", &name]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.by_ref().any(|line| line.contains("are ready"));
        let demo = Self { child, name };
        assert!(ready, "the demo did not start");
        // The table is nobody's here, and a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        demo
    }

    fn config(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/run/ferromesh/{}/config/{file}", self.name))
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(e2e::program("meshctl").unwrap());
        command.args(args).args(["--demo", &self.name]).output().unwrap()
    }

    /// The JSON of a command, and its exit code.
    fn json(&self, args: &[&str]) -> (Value, i32) {
        let output = self.run(&[args, &["-o", "json"]].concat());
        let value = serde_json::from_slice(&output.stdout);
        let value = value.unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
        (value, output.status.code().unwrap())
    }

    /// The same, asked until it is what is wanted.
    fn until(&self, args: &[&str], wanted: impl Fn(&Value, i32) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let (value, code) = self.json(args);
            if wanted(&value, code) {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "{args:?} never became what was wanted ({code}): {value:#}");
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        drop(Command::new("kill").args(["-INT", &pid]).status()); // it cleans up after itself
        drop(self.child.wait());
        drop(std::fs::remove_file(format!("/run/ferromesh/{}.lock", self.name)));
    }
}

fn can_run() -> bool {
    let ready = "test \"$(id -u)\" = 0 && command -v ip iptables-restore setpriv";
    Command::new("sh").args(["-c", ready]).output().is_ok_and(|output| output.status.success())
}

/// The steps of the last proxy on the way.
fn last_steps(journey: &Value) -> &[Value] {
    journey["legs"].as_array().unwrap().last().unwrap()["story"]["steps"].as_array().unwrap()
}

// spec: CT-1, CT-40, CT-41, CT-42, CT-43, CT-44, CT-60, CT-61
#[test]
fn a_running_mesh_answers_its_operators() {
    if !can_run() {
        println!("SKIPPED: needs root, iproute2, iptables and setpriv");
        return;
    }
    let demo = Demo::start();
    explains(&demo);
    shows_figures(&demo);
    shows_requests(&demo);
    let report = demo.until(&["check"], |report, code| report["success"] == true && code == 0);
    let names: Vec<&str> =
        report["categories"].as_array().unwrap().iter().filter_map(|c| c["categoryName"].as_str()).collect();
    assert_eq!(names, ["environment", "pilot", "citadel", "mixer", "proxies", "identity", "configuration"]);
    looks_ahead(&demo);
    std::fs::write(demo.config("broken.yaml"), "apiVersion: v1\nkind: Service\n").unwrap();
    demo.until(&["check"], |report, code| report["success"] == false && code == 1);
}

fn explains(demo: &Demo) {
    let reviews = ["explain", "GET", "http://reviews:9080/reviews/1", "--from", "productpage-v1"];
    let (journey, code) = demo.json(&reviews);
    assert_eq!((code, &journey["verdict"]), (0, &"answered".into()), "{journey:#}");
    let outbound = journey["legs"][0]["story"]["steps"].as_array().unwrap();
    let route = outbound.iter().find(|step| step["station"] == "route").unwrap();
    assert_eq!((&route["object"], &route["file"]), (&"VirtualService/default/reviews".into(), &"reviews.yaml".into()));
    let text = std::fs::read_to_string(demo.config("reviews.yaml")).unwrap();
    let line = usize::try_from(route["line"].as_u64().unwrap()).unwrap();
    assert!(text.lines().skip(line - 1).take(2).any(|line| line.contains("VirtualService")), "line {line} of\n{text}");
    assert_eq!(journey["legs"][0]["story"]["outcome"]["clusters"].as_array().unwrap().len(), 3);
    assert_eq!(journey["legs"][1]["identity"], "spiffe://cluster.local/ns/default/sa/bookinfo-productpage");

    // Offline the same configuration says the same.
    let directory = demo.config("").display().to_string();
    let settings = format!("/run/ferromesh/{}/mesh-config.yaml", demo.name);
    let (offline, code) =
        demo.json(&[&reviews[..], &["--config-dir", &directory, "--mesh-config", &settings]].concat());
    assert_eq!((code, &offline["legs"]), (0, &journey["legs"]));

    std::fs::write(demo.config("deny.yaml"), DENY).unwrap();
    let ratings = ["explain", "GET", "http://ratings:9080/ratings/1", "--from", "shopper"];
    // The proxy may know of it a moment after pilot was asked for its objects.
    let denied = |journey: &Value| last_steps(journey).iter().find(|step| step["verdict"] == "denied").cloned();
    let told = |journey: &Value| denied(journey).is_some_and(|step| step["file"].is_string());
    let journey = demo.until(&ratings, |journey, code| journey["verdict"] == "denied" && code == 3 && told(journey));
    let step = denied(&journey).unwrap();
    assert_eq!(
        (&step["object"], &step["file"], &step["line"]),
        (&"AuthorizationPolicy/default/no-shopper".into(), &"deny.yaml".into(), &2.into())
    );
    assert_eq!(journey["status"], 403);
    std::fs::remove_file(demo.config("deny.yaml")).unwrap();
}

fn shows_figures(demo: &Demo) {
    let flowing = |rows: &Value, _| {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "productpage-v1");
        row.is_some_and(|row| row["rps"].as_f64().unwrap() > 15.0 && row["rps"].as_f64().unwrap() < 25.0)
    };
    let rows = demo.until(&["stat", "-t", "2s"], flowing);
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "productpage-v1").unwrap();
    assert_eq!((&row["success"], &row["mtls"], &row["meshed"]["proxies"]), (&1.0.into(), &1.0.into(), &1.into()));
    assert!(row["p50Ms"].as_f64().unwrap() > 0.0);
    let (edges, _) = demo.json(&["edges"]);
    let edge =
        edges.as_array().unwrap().iter().find(|edge| edge["src"] == "productpage-v1" && edge["dst"] == "details-v1");
    assert_eq!(edge.unwrap()["secured"], true, "{edges:#}");
    let (pairs, _) = demo.json(&["top", "--from", "gateway"]);
    assert_eq!(pairs[0]["destination"], "productpage.default", "{pairs:#}");
}

fn shows_requests(demo: &Demo) {
    let lines = |args: &[&str]| -> Vec<Value> {
        let output = demo.run(&[&["tap", "--seconds", "2", "-o", "json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // 20 requests a second through the gateway, each of which asks reviews once: the service is three workloads.
    let all = lines(&["svc/reviews", "--direction", "in"]);
    assert!((15..=50).contains(&all.len()), "{} requests in 2 s", all.len());
    let of = |line: &Value, path: &str| line.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    for line in &all {
        assert_eq!(
            (of(line, "/source/workload"), &line["mTLS"]),
            ("productpage-v1".to_owned(), &true.into()),
            "{line:#}"
        );
        assert!(
            of(line, "/destination/workload").starts_with("reviews-v") && of(line, "/path").starts_with("/reviews/")
        );
        assert_eq!((&line["status"], of(line, "/cluster")), (&200.into(), "inbound|9080||".to_owned()), "{line:#}");
    }
    let out = lines(&["productpage-v1", "--to", "details", "--method", "GET"]);
    let details = |line: &Value| of(line, "/destination/workload") == "details-v1" && line["direction"] == "outbound";
    assert!(!out.is_empty() && out.iter().all(details), "{out:?}");
    assert_eq!(lines(&["productpage-v1", "--method", "DELETE"]), Vec::<Value>::new());

    let output = demo.run(&["tap", "productpage-v1", "--seconds", "2", "--max-rps", "3"]);
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.lines().count() <= 9 && text.contains("mtls gateway → productpage-v1"), "{text}");
    assert!(said.contains("beyond 3 per second (--max-rps)"), "{said}");

    let (rows, _) = demo.json(&["top", "productpage-v1", "--to", "reviews"]);
    let row = &rows[0];
    assert!(of(row, "/destination").starts_with("reviews-v") && of(row, "/path").starts_with("/reviews/"), "{rows:#}");
    assert!(row["count"].as_u64().unwrap() > 0 && row["worstMs"].as_f64() >= row["bestMs"].as_f64(), "{rows:#}");
    assert_eq!((&row["method"], &row["success"]), (&"GET".into(), &1.0.into()));
    let nothing = demo.run(&["tap", "stranger"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("none of them has a proxy"), "{nothing:?}");
}

fn looks_ahead(demo: &Demo) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deny.yaml");
    std::fs::write(&file, DENY).unwrap();
    let (changes, _) = demo.json(&["diff", file.to_str().unwrap()]);
    assert_eq!(changes.as_array().unwrap().len(), 1, "{changes:#}");
    assert_eq!((&changes[0]["type"], &changes[0]["proxies"][0]), (&"LDS".into(), &"ratings-v1-0.default".into()));
    let settings = format!("/run/ferromesh/{}/mesh-config.yaml", demo.name);
    let config = demo.config("").display().to_string();
    let analyze = Command::new(e2e::program("meshctl").unwrap())
        .args(["analyze", &config, "--mesh-config-file", &settings, "--failure-threshold", "Warning"])
        .output()
        .unwrap();
    assert!(analyze.status.success(), "{}", String::from_utf8_lossy(&analyze.stdout));
}
