//! `meshctl load` against the real Fortio: same servers, same seconds.
//!
//! Short by default. `FORTIO_RUNS=10 FORTIO_SECONDS=5 FORTIO_MESHCTL=target/release/meshctl` makes the full comparison;
//! `--nocapture` shows its table.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::allow_attributes, reason = "a test panics to fail")]

use e2e::fortio::{fetch_fortio, fetch_reader};
use e2e::proxies::free_address;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A program that serves. Dropping it ends it.
struct Server(Child);

impl Server {
    /// Starts it and waits until `ready` takes connections.
    fn start(command: &mut Command, ready: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self(child);
        let start = Instant::now();
        while std::net::TcpStream::connect(ready).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "{command:?} does not start");
            std::thread::yield_now();
        }
        server
    }

    /// All servers of Fortio, or of `meshctl server`.
    fn all(program: &Path) -> (Self, Addresses) {
        let at = || free_address().unwrap();
        let addresses = Addresses { http: at(), grpc: at(), echo: at() };
        let mut command = Command::new(program);
        command.arg("server");
        for (flag, address) in [
            ("-http-port", addresses.http),
            ("-grpc-port", addresses.grpc),
            ("-tcp-port", addresses.echo),
            ("-udp-port", addresses.echo),
        ] {
            command.args([flag, &address.to_string()]);
        }
        (Self::start(command.args(["-redirect-port", "disabled"]), addresses.http), addresses)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Addresses {
    http: SocketAddr,
    grpc: SocketAddr,
    echo: SocketAddr,
}

impl Addresses {
    /// Flags and target of each kind of load, with the code of success.
    fn loads(&self) -> Vec<(&'static [&'static str], String, &'static str)> {
        let (http, grpc, echo) = (self.http, self.grpc, self.echo);
        vec![
            (&[], format!("http://{http}/"), "200"),
            (&["-payload-size", "300"], format!("http://{http}/?size=2000"), "200"),
            (&["-h2"], format!("http://{http}/"), "200"),
            (&["-grpc"], grpc.to_string(), "SERVING"),
            (&["-grpc", "-ping", "-s", "2", "-payload", "abc"], grpc.to_string(), "SERVING"),
            (&[], format!("tcp://{echo}"), "OK"),
            (&[], format!("udp://{echo}"), "OK"),
        ]
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

fn meshctl() -> PathBuf {
    variable("FORTIO_MESHCTL").map_or_else(|| e2e::program("meshctl").unwrap(), |path| e2e::root().join(path))
}

fn load(program: &Path, flags: &[&str], target: &str) -> Output {
    let output = Command::new(program).args(["load", "-quiet"]).args(flags).arg(target).output().unwrap();
    assert!(output.status.success(), "{program:?} {flags:?} {target}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn result(program: &Path, flags: &[&str], target: &str) -> Value {
    serde_json::from_slice(&load(program, &[flags, &["-json", "-"]].concat(), target).stdout).unwrap()
}

/// What one run came to.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
}

impl Figures {
    fn of(result: &Value) -> Self {
        let percentile = |wanted: f64| {
            let all = result["DurationHistogram"]["Percentiles"].as_array().unwrap();
            all.iter().find(|p| p["Percentile"].as_f64() == Some(wanted)).unwrap()["Value"].as_f64().unwrap() * 1e3
        };
        Self { rate: result["ActualQPS"].as_f64().unwrap(), p50: percentile(50.0), p99: percentile(99.0) }
    }
}

fn median_and_range(runs: &[Figures], value: fn(&Figures) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1] - values[0])
}

/// Whether two medians, in milliseconds, differ by no more than the runs of Fortio among themselves, a quarter, or a
/// tenth of a millisecond; an unoptimized program may be a millisecond off, for other tests run beside it.
fn within_noise(theirs: &[Figures], ours: &[Figures], value: fn(&Figures) -> f64) -> bool {
    let ((their, range), (our, _)) = (median_and_range(theirs, value), median_and_range(ours, value));
    let least = if is_optimized() { 0.1 } else { 1.0 };
    (their - our).abs() <= range.max(their / 4.0).max(least)
}

/// Whether the full comparison was asked for, by naming a program that is fit for it.
fn is_optimized() -> bool {
    variable("FORTIO_MESHCTL").is_some()
}

/// Alternating runs of both against one server.
fn compare(flags: &[&str], target: &str) -> (Vec<Figures>, Vec<Figures>) {
    let runs = variable("FORTIO_RUNS").map_or(3, |runs| runs.parse().unwrap());
    let length = variable("FORTIO_SECONDS").map_or_else(|| "2s".to_owned(), |seconds| format!("{seconds}s"));
    let (fortio, meshctl) = (fetch_fortio().unwrap(), meshctl());
    let flags = [flags, &["-t", &length, "-c", "8", "-r", "0.00001"]].concat();
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        theirs.push(Figures::of(&result(&fortio, &flags, target)));
        ours.push(Figures::of(&result(&meshctl, &flags, target)));
    }
    let row = |name: &str, value: fn(&Figures) -> f64| {
        let ((a, ar), (b, br)) = (median_and_range(&theirs, value), median_and_range(&ours, value));
        format!("{name:>8} {a:>13.3} ({ar:.3}) {b:>13.3} ({br:.3})")
    };
    let rows = [row("qps", |f| f.rate), row("p50 ms", |f| f.p50), row("p99 ms", |f| f.p99)].join("\n");
    eprintln!("{flags:?}\n{:>8} {:>22} {:>22}\n{rows}", "", "Fortio (range)", "meshctl (range)");
    (theirs, ours)
}

// spec: FO-10, FO-27, FO-29
#[test]
fn rates_and_latencies_are_fortios() {
    let (server, addresses) = Server::all(&fetch_fortio().unwrap());
    let target = format!("http://{}/", addresses.http);
    let (theirs, ours) = compare(&["-qps", "500"], &target);
    for runs in [&theirs, &ours] {
        let (rate, _) = median_and_range(runs, |f| f.rate);
        assert!((rate - 500.0).abs() < 5.0, "{rate} qps are more than 1 % from 500");
    }
    assert!(within_noise(&theirs, &ours, |f| f.p50), "p50: {theirs:?} {ours:?}");
    assert!(within_noise(&theirs, &ours, |f| f.p99) || !is_optimized(), "p99: {theirs:?} {ours:?}");
    let (theirs, ours) = compare(&["-qps", "0"], &target);
    let (their, our) = (median_and_range(&theirs, |f| f.rate).0, median_and_range(&ours, |f| f.rate).0);
    let least = if is_optimized() { 0.9 } else { 0.4 };
    assert!(our > least * their, "{our} qps, Fortio {their}");
    drop(server);
}

// spec: FO-31, FO-28, FO-29, FO-32
#[test]
fn fortios_own_code_reads_our_results() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, addresses) = Server::all(&fetch_fortio().unwrap());
    let mut reader = Command::new(fetch_reader().unwrap());
    for (number, (flags, target, _)) in addresses.loads().iter().enumerate() {
        let path = directory.path().join(format!("{number}.json"));
        load(&meshctl(), &[flags, &["-qps", "0", "-n", "500", "-json", path.to_str().unwrap()][..]].concat(), target);
        reader.arg(path);
    }
    // what the method takes is asked of Fortio's server by reflection
    let method: &[&str] = &["-grpc", "-grpc-method", "fgrpc.PingServer/Ping", "-payload", r#"{"seq": "7"}"#];
    let path = directory.path().join("method.json");
    let flags = [method, &["-qps", "0", "-n", "500", "-json", path.to_str().unwrap()]].concat();
    load(&meshctl(), &flags, &addresses.grpc.to_string());
    reader.arg(path);
    let output = reader.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        read,
        "HTTP 500\nHTTP 500\nHTTP 500\nGRPC Health for '' 500\nGRPC Ping PayloadLength=3 500\nTCP 500\nUDP 500\nCustom GRPC Method /fgrpc.PingServer/Ping PayloadLength=2 500\n"
    );
}

// spec: FO-23, FO-31
#[test]
fn fortios_report_lists_our_results() {
    let directory = tempfile::tempdir().unwrap();
    let fortio = fetch_fortio().unwrap();
    let (_server, addresses) = Server::all(&fortio);
    let data = directory.path().to_str().unwrap();
    let flags = ["-a", "-data-dir", data, "-labels", "of meshctl", "-qps", "0", "-n", "200"];
    load(&meshctl(), &flags, &format!("http://{}/", addresses.http));
    let saved = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap();
    let name = saved.file_name().into_string().unwrap();
    assert!(name.ends_with("_of_meshctl.json"), "{name}");
    let at = free_address().unwrap();
    let mut report = Command::new(&fortio);
    report.args(["report", "-data-dir", data, "-redirect-port", "disabled", "-http-port", &at.to_string()]);
    let _report = Server::start(&mut report, at);
    let fetch = |path: &str| {
        let output = Command::new(&fortio).args(["curl", "-quiet", &format!("http://{at}{path}")]).output().unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = fetch("/");
    assert!(page.contains(name.trim_end_matches(".json")), "the list names it: {page}");
    assert_eq!(fetch(&format!("/data/{name}")), std::fs::read_to_string(saved.path()).unwrap());
    assert!(fetch("/data/index.tsv").contains(&name));
}

// spec: FO-2, FO-34, FO-41
#[test]
fn fortio_loads_our_servers() {
    let fortio = fetch_fortio().unwrap();
    let (_server, addresses) = Server::all(&meshctl());
    for (flags, target, code) in addresses.loads() {
        let result = result(&fortio, &[flags, &["-qps", "0", "-n", "400", "-c", "4"]].concat(), &target);
        assert_eq!(result["RetCodes"][code], 400, "{flags:?} {target}: {}", result["RetCodes"]);
    }
    let flags = ["-qps", "0", "-n", "1000", "-allow-initial-errors"];
    let result = result(&fortio, &flags, &format!("http://{}/?status=503:30", addresses.http));
    let failed = result["RetCodes"]["503"].as_u64().unwrap();
    assert!((200..400).contains(&failed), "{failed} of 1000 calls failed instead of 30 %");
    let ping = Command::new(&fortio).args(["grpcping", "-quiet", "-n", "3", &addresses.grpc.to_string()]).output();
    assert!(String::from_utf8(ping.unwrap().stdout).unwrap().contains("RTT histogram usec : count 9 "));
}
