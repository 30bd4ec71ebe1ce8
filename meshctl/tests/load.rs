//! `meshctl load`, `curl` and `grpcping` against `meshctl server` and against servers that misbehave.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MESHCTL: &str = env!("CARGO_BIN_EXE_meshctl");

/// `meshctl server` on free ports. Dropping it ends it.
struct Server {
    child: Child,
    http: String,
    grpc: String,
    tcp: String,
    udp: String,
    redirect: String,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(MESHCTL);
        command.arg("server");
        for port in ["http", "grpc", "tcp", "udp", "redirect"] {
            command.args([format!("-{port}-port"), "127.0.0.1:0".to_owned()]);
        }
        let mut child = command.args(flags).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines: Vec<String> = lines.map(Result::unwrap).take_while(|line| line != "All servers started").collect();
        let address = |name: &str| {
            let line = lines.iter().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} in {lines:?}"));
            line.rsplit(' ').next().unwrap().to_owned()
        };
        Self {
            child,
            http: address(if flags.contains(&"-cert") { "https-echo" } else { "http-echo" }),
            grpc: address("grpc"),
            tcp: address("tcp-echo"),
            udp: address("udp-echo"),
            redirect: address("redirector"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn meshctl(arguments: &[&str]) -> Output {
    Command::new(MESHCTL).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A short run; gives back its JSON.
fn load(flags: &[&str], target: &str) -> Value {
    let output = meshctl(&[&["load", "-json", "-", "-quiet"], flags, &[target]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)))
}

/// A server of the test: each connection is handed to `serve` on a thread of its own.
fn serve(serve: fn(std::net::TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(std::thread::spawn(move || serve(stream.unwrap()))))
    });
    address
}

// spec: FO-1, FO-10, FO-11, FO-12, FO-27, FO-31, FO-42
#[test]
fn every_kind_of_target_is_loaded_at_the_rate() {
    let server = Server::start(&[]);
    let paced: &[&str] = &["-qps", "200", "-c", "2", "-t", "500ms"];
    for (flags, target, code) in [
        (&[][..], server.url("/"), "200"),
        (&["-h2"], server.url("/"), "200"),
        (&["-stdclient"], server.url("/"), "200"),
        (&["-http1.0"], server.url("/"), "200"),
        (&[], format!("tcp://{}", server.tcp), "OK"),
        (&[], format!("udp://{}", server.udp), "OK"),
        (&["-grpc"], server.grpc.clone(), "SERVING"),
        (&["-grpc", "-ping", "-s", "2"], server.grpc.clone(), "SERVING"),
        (&["-grpc", "-ping", "-grpc-compression", "-payload", "abc"], server.grpc.clone(), "SERVING"),
    ] {
        let result = load(&[paced, flags].concat(), &target);
        assert_eq!(result["DurationHistogram"]["Count"], 100, "{target} {flags:?}");
        assert_eq!(result["RetCodes"][code], 100, "{target} {flags:?}: {}", result["RetCodes"]);
        let seconds = result["ActualDuration"].as_f64().unwrap() / 1e9;
        assert!((0.49..1.0).contains(&seconds), "{target} {flags:?} took {seconds} s");
    }
    let exact = load(&["-n", "101", "-qps", "0", "-c", "4"], &server.url("/"));
    assert_eq!((&exact["DurationHistogram"]["Count"], &exact["RequestedQPS"]), (&101.into(), &"max".into()));
    let calculated = load(&["-n", "40", "-t", "200ms", "-calc-qps"], &server.url("/"));
    assert_eq!((&calculated["RequestedQPS"], &calculated["Exactly"]), (&"200".into(), &40.into()));
}

// spec: FO-30, FO-13, FO-25
#[test]
fn the_text_has_fortios_lines_in_fortios_order() {
    let server = Server::start(&[]);
    let output = meshctl(&["load", "-qps", "100", "-t", "200ms", "-p", "50,99.9", &server.url("/")]);
    let text = stderr(&output);
    let mut rest = text.as_str();
    for part in [
        "running at 100 queries per second, ",
        "Starting at 100 qps with 4 thread(s) [gomax ",
        "] for 200ms : 5 calls each (total 20)\n",
        "Ended after 2",
        " : 20 calls. qps=",
        "Sleep times : count 16 avg ",
        "Aggregated Function Time : count 20 avg ",
        "# range, mid point, percentile, count\n>= ",
        "# target 50% ",
        "# target 99.9% ",
        "Error cases : no data\n",
        "Corrected Function Time (from when due) : count 20 avg ",
        "# exact 50% ",
        "# Socket and IP used for each connection:\n[0]   1 socket used, resolved to 127.0.0.1:",
        ", connection timing : count 1 avg ",
        "Connection time histogram (s) : count 4 avg ",
        "Sockets used: 4 (for perfect keepalive, would be 4)\nUniform: false, Jitter: false, Catchup allowed: true\n",
        "IP addresses distribution:\n127.0.0.1:",
        ": 4\nCode 200 : 20 (100.0 %)\nResponse Header Sizes : count 20 avg ",
        "Response Body/Total Sizes : count 20 avg ",
        "All done 20 calls (plus 4 warmup) ",
    ] {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{part:?} is missing in\n{text}"));
        rest = after;
    }
    assert!(output.stdout.is_empty(), "Fortio's text goes to standard error");
    let warning = stderr(&meshctl(&["load", "-loglevel", "Warning", "-n", "20", "-qps", "0", &server.url("/")]));
    assert!(warning.contains("Connection time (s) : count 4 ") && !warning.contains("Connection time histogram"));
    let quiet = stderr(&meshctl(&["load", "-quiet", "-qps", "100", "-t", "200ms", &server.url("/")]));
    assert!(quiet.contains("# target 99% ") && !quiet.contains("# range"), "{quiet}");
}

// spec: FO-32, FO-16, FO-17, FO-33
#[test]
fn failures_are_counted_and_may_end_the_run() {
    let server = Server::start(&[]);
    let some = load(&["-qps", "0", "-n", "400", "-allow-initial-errors"], &server.url("/?status=503:50"));
    let failed = some["RetCodes"]["503"].as_u64().unwrap();
    assert!((100..300).contains(&failed), "{failed} of 400");
    assert_eq!(some["ErrorsDurationHistogram"]["Count"], failed);
    assert_eq!((&some["DurationHistogram"]["Count"], &some["SocketCount"]), (&400.into(), &4.into()));
    // the first call fails: the run does not begin
    let aborted = meshctl(&["load", &server.url("/?status=404")]);
    assert_eq!(aborted.status.code(), Some(1));
    assert!(stderr(&aborted).contains("Aborting because of error 404 for http://127.0.0.1:"), "{}", stderr(&aborted));
    let start = Instant::now();
    let flags = ["-allow-initial-errors", "-t", "30s", "-qps", "100", "-abort-on", "404"];
    assert_eq!(load(&flags, &server.url("/?status=404"))["AbortOn"], 404);
    assert!(start.elapsed() < Duration::from_secs(10), "-abort-on ends the run");
    // nobody listens
    let gone = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let refused = load(&["-n", "4"], &format!("http://{gone}/"));
    assert_eq!(refused["RetCodes"]["-1"], 4);
    // Ctrl-C
    let endless = ["load", "-t", "0", "-qps", "100", "-json", "-", &server.url("/")];
    let mut child = Command::new(MESHCTL).args(endless).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("until interrupted") && line.starts_with("Starting")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(said.any(|line| line.starts_with("All done ")), "the result is shown");
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["RequestedDuration"], "until stop");
}

// spec: FO-15
#[test]
fn a_silent_server_costs_the_timeout() {
    let address = serve(|stream| {
        std::thread::park_timeout(Duration::from_secs(20));
        drop(stream);
    });
    let start = Instant::now();
    let silent = load(&["-n", "2", "-c", "1", "-qps", "0", "-timeout", "200ms"], &format!("http://{address}/"));
    assert_eq!(silent["RetCodes"]["-1"], 2);
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&start.elapsed()));
    let min = silent["DurationHistogram"]["Min"].as_f64().unwrap();
    assert!((0.199..0.5).contains(&min), "{min}");
}

// spec: FO-11
#[test]
fn more_connections_than_a_shell_allows_descriptors_for() {
    let server = Server::start(&[]);
    let line =
        format!("ulimit -S -n 256; exec {MESHCTL} load -quiet -json - -qps 0 -c 600 -n 1200 {}", server.url("/"));
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!((&result["RetCodes"]["200"], &result["SocketCount"]), (&1200.into(), &600.into()));
}

// spec: FO-16, FO-18
#[test]
fn connections_are_reused_as_asked() {
    let server = Server::start(&[]);
    let sockets = |flags: &[&str], path: &str| {
        let result = load(&[&["-qps", "0", "-n", "40", "-c", "1"], flags].concat(), &server.url(path));
        assert_eq!(result["RetCodes"]["200"], 40, "{flags:?}");
        result["SocketCount"].as_u64().unwrap()
    };
    assert_eq!(sockets(&[], "/"), 1);
    assert_eq!(sockets(&["-keepalive=false"], "/"), 40);
    assert_eq!(sockets(&["-keepalive=false", "-halfclose"], "/"), 40);
    assert_eq!(sockets(&["-http1.0"], "/"), 40);
    assert_eq!(sockets(&["-connection-reuse", "10:10"], "/"), 4);
    assert_eq!(sockets(&[], "/?close=true"), 40);
    assert_eq!(sockets(&["-payload-size", "100000"], "/"), 1, "an answer larger than the buffer is counted, not kept");
    // a server that closes idle connections: the call is made again over a new one
    let address = serve(|mut stream| {
        let mut bytes = [0; 4096];
        if stream.read(&mut bytes).unwrap_or(0) > 0 {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let idle = load(&["-n", "5", "-c", "1", "-qps", "0"], &format!("http://{address}/"));
    assert_eq!((&idle["RetCodes"]["200"], &idle["SocketCount"]), (&5.into(), &5.into()));
}

// spec: FO-14, FO-43
#[test]
fn slow_answers_are_seen_by_the_corrected_latency_only() {
    // one answer in fifty takes 300 ms
    let address = serve(|mut stream| {
        let mut bytes = [0; 4096];
        for number in 1_u32.. {
            if stream.read(&mut bytes).unwrap_or(0) == 0 {
                return;
            }
            if number.is_multiple_of(50) {
                std::thread::park_timeout(Duration::from_millis(300));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let result = load(&["-qps", "200", "-c", "1", "-t", "1s"], &format!("http://{address}/"));
    let value = |percentiles: &Value| percentiles[2]["Value"].as_f64().unwrap(); // of 90 %
    let (raw, corrected) =
        (value(&result["ExactPercentiles"]), value(&result["CorrectedDurationHistogram"]["Percentiles"]));
    assert!(raw < 0.05, "p90 as sent is {raw}");
    assert!(corrected > 0.1, "p90 as due is {corrected}");
    let skipped = load(&["-qps", "200", "-c", "1", "-t", "1s", "-nocatchup"], &format!("http://{address}/"));
    assert!(skipped["DurationHistogram"]["Count"].as_u64().unwrap() < 150, "late calls are left out");
}

// spec: FO-43
#[test]
fn a_broken_bound_is_another_exit_code() {
    let server = Server::start(&[]);
    let run = |bound: &str| {
        meshctl(&[
            "load",
            "-n",
            "20",
            "-qps",
            "0",
            "-quiet",
            "-fail-if",
            bound,
            "-fail-if",
            "errors>0",
            &server.url("/?delay=20ms"),
        ])
    };
    assert_eq!(run("p50<5ms").status.code(), Some(0));
    let broken = run("p50>5ms");
    assert_eq!(broken.status.code(), Some(2));
    assert!(stderr(&broken).contains("FAILED p50>5ms: it is 2"), "{}", stderr(&broken));
    assert_eq!(run("p50 above 5").status.code(), Some(2), "clap refuses it with the same code");
}

// spec: FO-43
#[test]
fn two_targets_are_compared_in_one_run() {
    let server = Server::start(&[]);
    let (fast, slow) = (server.url("/?delay=5ms"), server.url("/?delay=15ms"));
    let result = load(&["-qps", "100", "-c", "2", "-t", "2s", "-compare", &slow], &fast);
    let rows = result["Comparison"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["Name"] == name).unwrap();
    assert_eq!(row("p50")["BeyondNoise"], true, "{rows:?}");
    assert!(row("p50")["Ratio"].as_f64().unwrap() > 1.4, "{rows:?}");
    assert_eq!((&row("errors")["A"], &row("errors")["Ratio"]), (&0.0.into(), &1.0.into()));
    for (result, url) in [(&result, &fast), (&result["ComparedWith"], &slow)] {
        assert_eq!(&result["URL"], url);
        let count = result["DurationHistogram"]["Count"].as_u64().unwrap();
        assert!((190..=215).contains(&count), "each gets the whole length at the whole rate, not {count} calls");
    }
    let shown = stderr(&meshctl(&["load", "-quiet", "-qps", "100", "-t", "1s", "--compare", &slow, &fast]));
    assert!(shown.contains("B/A  verdict\n") && shown.contains("p50 "), "{shown}");
    assert!(!meshctl(&["load", "-n", "5", "--compare", &slow, &fast]).status.success());
}

// spec: FO-23
#[test]
fn results_are_saved_where_asked() {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let saved = meshctl(&[
        "load",
        "-n",
        "4",
        "-qps",
        "0",
        "-a",
        "-data-dir",
        data,
        "-labels",
        "a b!",
        "-runid",
        "7",
        &server.url("/"),
    ]);
    assert!(saved.status.success());
    let name = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    assert!(name.ends_with("_7_a_b.json"), "{name}");
    let file = directory.path().join("x.json");
    meshctl(&["load", "-n", "4", "-qps", "0", "-json", file.to_str().unwrap(), &server.url("/")]);
    let result: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((&result["RunType"], &result["URL"]), (&"HTTP".into(), &server.url("/").into()));
}

// spec: FO-3, FO-19, FO-34, FO-35, FO-2
#[test]
fn curl_shows_what_the_server_answers() {
    let server = Server::start(&[
        "-max-echo-delay",
        "300ms",
        "-maxpayloadsizekb",
        "1",
        "-echo-server-default-params",
        "header=x-d:1",
    ]);
    let curl = |flags: &[&str], url: &str| meshctl(&[&["curl"], flags, &[url]].concat());
    let echoed = curl(&["-payload", "hello", "-H", "x: y"], &server.url("/a?header=x-a:b&header=x-c:d"));
    assert_eq!((stdout(&echoed).as_str(), echoed.status.code()), ("hello", Some(0)));
    let head = stderr(&echoed);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("x-a: b") && head.contains("x-c: d"), "{head}");
    assert!(stderr(&curl(&[], &server.url("/"))).contains("x-d: 1"), "requests without a query get the default one");
    let refused = curl(&["-curl-stdout-headers"], &server.url("/?status=418"));
    assert!(stdout(&refused).starts_with("HTTP/1.1 418"));
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(stdout(&curl(&[], &server.url("/?size=5000"))).len(), 1024, "-maxpayloadsizekb caps size=");
    let start = Instant::now();
    curl(&[], &server.url("/?delay=10s"));
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&start.elapsed()), "-max-echo-delay");
    let zipped = curl(&["-compression"], &server.url("/?size=600&gzip=true"));
    assert!(stderr(&zipped).contains("content-encoding: gzip") && zipped.stdout.starts_with(&[0x1f, 0x8b]));
    for flags in [&[][..], &["-h2"]] {
        let page = stdout(&curl(
            &[flags, &["-X", "PUT", "-payload", "abc", "-H", "x-a: b"]].concat(),
            &server.url("/debug?env=dump"),
        ));
        for part in [
            "echo debug server up for",
            "\n\nPUT /debug?env=dump HTTP/",
            "X-A: b\n",
            "\nbody:\n\nabc\n",
            "\nenvironment:\n\n",
            "PATH=",
        ] {
            assert!(page.contains(part), "{part:?} in {page}");
        }
    }
    let redirected = curl(&[], &format!("http://{}/x?y=z", server.redirect));
    assert!(stderr(&redirected).contains(&format!("location: https://{}/x?y=z", server.redirect)));
    let missing = meshctl(&["curl", "http://127.0.0.1:1/"]);
    assert!(stderr(&missing).contains("refused") && !missing.status.success());
}

// spec: FO-2, FO-21
#[test]
fn ports_may_be_paths_or_disabled_and_names_may_be_overridden() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    let path = path.to_str().unwrap();
    let off = ["-grpc-port=disabled", "-tcp-port=disabled", "-udp-port=disabled", "-redirect-port=disabled"];
    let mut command = Command::new(MESHCTL);
    command.args(["server", "-http-port", &format!("unix:{path}")]).args(off);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    assert_eq!(lines[1], "All servers started", "one server only: {lines:?}");
    let result = load(&["-n", "20", "-qps", "0", "-unix-socket", path], "http://no.such.name/");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((&result["RetCodes"]["200"], &result["UnixDomainSocket"]), (&20.into(), &path.into()));
    let server = Server::start(&[]);
    let port = server.http.rsplit(':').next().unwrap();
    let result = load(&["-n", "8", "-qps", "0", "-resolve", "127.0.0.1"], &format!("http://no.such.name:{port}/"));
    assert_eq!(result["IPCountMap"][&server.http], 4, "{}", result["IPCountMap"]);
    for method in ["cached-rr", "rr", "first", "rnd"] {
        let flags = ["-n", "8", "-qps", "0", "-dns-method", method, "-resolve-ip-type", "ip4", "-no-reresolve"];
        assert_eq!(load(&flags, &format!("http://localhost:{port}/"))["RetCodes"]["200"], 8, "{method}");
    }
}

// spec: FO-5, FO-41, FO-22
#[test]
fn grpcping_measures_round_trips_and_health() {
    let server = Server::start(&[]);
    let pinged = meshctl(&["grpcping", "-n", "3", "-payload", "x", &server.grpc]);
    let text = stdout(&pinged);
    assert!(
        text.contains("Clock skew histogram usec : count 3 ") && text.contains("RTT histogram usec : count 9 "),
        "{text}"
    );
    let healthy = meshctl(&["grpcping", "-health", "-n", "2", &server.grpc]);
    assert!(stdout(&healthy).contains("Health SERVING : 2"));
    let down = meshctl(&["grpcping", "-health", "-healthservice", "ping_down", &server.grpc]);
    assert!(stdout(&down).contains("Health NOT_SERVING : 1") && !down.status.success());
    let unknown = meshctl(&["grpcping", "-health", "-healthservice", "nobody", &server.grpc]);
    assert!(stderr(&unknown).contains("gRPC status 5") && !unknown.status.success(), "{}", stderr(&unknown));
    let method = ["-grpc", "-grpc-method", "fgrpc.PingServer/Ping", "-n", "8", "-qps", "0"];
    let pinged = load(&[&method[..], &["-payload", r#"{"payload": "x", "seq": "5"}"#]].concat(), &server.grpc);
    assert_eq!(pinged["RetCodes"]["SERVING"], 8, "the method is asked of the server by reflection");
    for (method, payload, why) in [
        ("fgrpc.PingServer/Pong", "", "there is no such method"),
        ("nobody.Service/Ping", "", "no such file or symbol"),
        ("fgrpc.PingServer/Ping", r#"{"sequence": 1}"#, "sequence"),
    ] {
        let refused = meshctl(&["load", "-grpc", "-grpc-method", method, "-payload", payload, &server.grpc]);
        assert!(!refused.status.success() && stderr(&refused).contains(why), "{}", stderr(&refused));
    }
    let delayed = load(&["-grpc", "-ping", "-grpc-ping-delay", "30ms", "-n", "4", "-qps", "0"], &server.grpc);
    assert!(delayed["DurationHistogram"]["Min"].as_f64().unwrap() >= 0.03);
    assert_eq!(delayed["RunType"], "GRPC Ping Delay=30ms");
}

// spec: FO-20
#[test]
fn tls_is_verified_unless_told_otherwise_and_servers_may_ask_for_certificates() {
    let pki = Pki::new();
    let server = Server::start(&["-cert", &pki.cert, "-key", &pki.key, "-cacert", &pki.authority, "-mtls"]);
    let port = server.http.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}/");
    let own = ["-cert", &pki.cert, "-key", &pki.key, "-n", "8", "-qps", "0"];
    for flags in [&["-cacert", &pki.authority][..], &["-k"], &["-h2", "-cacert", &pki.authority]] {
        assert_eq!(load(&[&own, flags].concat(), &url)["RetCodes"]["200"], 8, "{flags:?}");
    }
    let untrusted = meshctl(&["load", "-cert", &pki.cert, "-key", &pki.key, &url]);
    assert!(stderr(&untrusted).contains("UnknownIssuer"), "{}", stderr(&untrusted));
    let nameless = load(&["-k", "-n", "2", "-c", "1", "-qps", "0"], &url);
    assert_eq!(nameless["RetCodes"]["-1"], 2, "the server asks for a certificate");
    let port = server.grpc.rsplit(':').next().unwrap();
    let flags = [&own[..], &["-grpc", "-ping", "-cacert", &pki.authority]].concat();
    assert_eq!(load(&flags, &format!("localhost:{port}"))["RetCodes"]["SERVING"], 8);
}

/// A certificate of localhost and who signed it, as files.
struct Pki {
    _directory: tempfile::TempDir,
    authority: String,
    cert: String,
    key: String,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (authority, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
        };
        let (ca_key, request, extensions) = (path("ca.key"), path("request.pem"), path("extensions"));
        std::fs::write(&extensions, "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl(
            &[&new[..], &["-x509", "-keyout", &ca_key, "-out", &authority, "-subj", "/CN=ca", "-days", "2"]].concat(),
        );
        openssl(&[&new[..], &["-keyout", &key, "-out", &request, "-subj", "/CN=localhost"]].concat());
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &authority,
            "-CAkey",
            &ca_key,
            "-days",
            "2",
            "-extfile",
            &extensions,
            "-out",
            &cert,
        ]);
        Self { _directory: directory, authority, cert, key }
    }
}
