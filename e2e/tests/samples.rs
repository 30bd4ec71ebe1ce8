//! Every sample of `e2e/samples` under pilot in a whole mesh: what real Envoys are told they take, all of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a sample may take to reach all proxies.
const PATIENCE: Duration = Duration::from_secs(30);
/// The proxies of the demo.
const PROXIES: [&str; 8] =
    ["productpage-v1", "details-v1", "reviews-v1", "reviews-v2", "reviews-v3", "ratings-v1", "shopper", "gateway"];
/// What our own proxy refuses by name so far; it only ever gets shorter.
const NOT_YET: [&str; 1] = ["not supported yet: lb_policy: RING_HASH, MAGLEV"];

/// The demo, running. Dropping it ends it as Ctrl-C does.
struct Demo {
    child: Child,
    name: String,
}

impl Demo {
    fn start(data_plane: &str) -> Self {
        let name = format!("samples{}", std::process::id());
        let mut command = Command::new(e2e::program("meshctl").unwrap());
        command.args(["demo", "--port", "0", "--name", &name, "--data-plane", data_plane]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        let ready = lines.by_ref().any(|line| line.contains("are ready"));
        let demo = Self { child, name };
        assert!(ready, "the demo did not start");
        // The table is nobody's here, and a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        demo
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from("/run/ferromesh").join(&self.name)
    }

    /// What a command of meshctl says about this demo, as JSON; none while it cannot say.
    fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = Command::new(e2e::program("meshctl").unwrap());
        let output = command.args(arguments).args(["--demo", &self.name, "-o", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Everything that pilot refused of the files.
    fn refused_by_pilot(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory().join("log/pilot.log")).unwrap();
        let refused = |line: &&str| line.contains("refused: ") || line.contains("leads nowhere");
        log.lines().filter(refused).map(str::to_owned).collect()
    }

    /// Puts a sample in force with a mark behind it, waits until every proxy has the mark in its routes, which come
    /// last, and has answered all; returns what they refused.
    fn try_out(&self, sample: &str, text: &str) -> Vec<String> {
        let mark = format!("{sample}.mark.example.com");
        let marked = format!(
            "{text}\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: mark}}\nspec: {{hosts: [{mark}], resolution: STATIC, ports: [{{number: 9080, name: http, protocol: HTTP}}], endpoints: [{{address: 10.99.0.1}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: mark}}\nspec: {{hosts: [{mark}], gateways: [bookinfo-gateway], http: [{{route: [{{destination: {{host: productpage}}}}]}}]}}\n"
        );
        std::fs::write(self.directory().join("config/sample.yaml"), marked).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let missing = || PROXIES.into_iter().find(|name| !self.has(name, &mark));
        while let Some(name) = missing() {
            assert!(Instant::now() < deadline, "{sample}: {name} has no mark: {:#?}", self.ask(&["proxy-status"]));
        }
        loop {
            let proxies = self.ask(&["proxy-status"]).and_then(|all| all.as_array().cloned()).unwrap_or_default();
            let states = proxies.iter().flat_map(|proxy| proxy["resources"].as_object().into_iter().flatten());
            let open = states.clone().filter(|(_, one)| one["lastError"].is_null() && one["sent"] != one["acked"]);
            if proxies.len() == PROXIES.len() && open.count() == 0 {
                return states
                    .filter_map(|(kind, one)| Some(format!("{kind} {}", one["lastError"].as_str()?)))
                    .collect();
            }
            assert!(Instant::now() < deadline, "{sample}: not all is answered: {proxies:#?}");
        }
    }

    fn has(&self, workload: &str, mark: &str) -> bool {
        self.ask(&["proxy-config", "route", workload]).is_some_and(|routes| routes.to_string().contains(mark))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let ended = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        drop(ended.and_then(|_| self.child.wait()));
    }
}

/// Tries all samples out; returns what was refused, by sample.
fn refused(data_plane: &str) -> Vec<String> {
    let ready =
        Command::new("sh").args(["-c", "test \"$(id -u)\" = 0 && command -v ip iptables-restore setpriv"]).output();
    if !ready.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: needs root, iproute2, iptables and setpriv");
        return Vec::new();
    }
    // One mesh at a time, as with the tours.
    let turn = std::fs::File::create(std::env::temp_dir().join("ferromesh-e2e-tour.lock")).unwrap();
    turn.lock().unwrap();
    let demo = Demo::start(data_plane);
    let mut samples: Vec<PathBuf> =
        std::fs::read_dir(e2e::root().join("e2e/samples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    samples.sort();
    let mut out = Vec::new();
    for path in &samples {
        let sample = path.file_stem().unwrap().to_str().unwrap();
        let found = demo.try_out(sample, &std::fs::read_to_string(path).unwrap());
        println!("{data_plane} {sample}: {} refusals", found.len());
        out.extend(found.into_iter().map(|text| format!("{sample}: {text}")));
    }
    assert_eq!(demo.refused_by_pilot(), Vec::<String>::new(), "pilot takes the samples as they are");
    assert!(samples.len() >= 6, "the samples are there");
    out
}

// spec: XM-4, XM-5, XT-1, XT-2, XT-3, XT-4, XT-10, XT-12
#[test]
fn real_envoys_refuse_nothing_of_any_sample() {
    assert_eq!(refused("envoy"), Vec::<String>::new());
}

#[test]
fn our_proxies_refuse_what_is_listed_and_no_more() {
    let known = |text: &&String| {
        let reasons = text.split("; ").filter(|reason| reason.contains(": ")).map(|reason| reason.trim_end());
        reasons.clone().count() > 0 && reasons.into_iter().all(|reason| NOT_YET.iter().any(|own| reason.ends_with(own)))
    };
    let others: Vec<String> = refused("ferromesh").iter().filter(|text| !known(text)).cloned().collect();
    assert_eq!(others, Vec::<String>::new());
}
