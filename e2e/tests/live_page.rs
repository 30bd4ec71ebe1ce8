//! The live page on the demo's mesh, in a real browser: what it shows is what happens.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

#[path = "../../mixer/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::{Command as Checked, Stdio};
use std::time::{Duration, Instant};
use support::browser::Browser;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// A running demo.
struct Demo {
    process: Child,
    page: String,
    config: String,
    /// Requests per second by service and version, as the workloads themselves count them.
    counted: watch::Receiver<BTreeMap<String, f64>>,
}

impl Demo {
    async fn start() -> Self {
        let name = format!("page{}", std::process::id());
        let mut command = Command::new(e2e::program("meshctl").unwrap());
        command.args(["demo", "--name", &name, "--port", "0", "--page-port", "0", "--load", "100", "--seconds", "180"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut page, mut config) = (String::new(), String::new());
        while page.is_empty() || config.is_empty() {
            let line = lines.next_line().await.unwrap().expect("the demo ended");
            if let Some((_, url)) = line.split_once("What the mesh does:") {
                page = url.trim().trim_end_matches('/').to_owned();
            } else if let Some((_, rest)) = line.split_once("1. edit ") {
                config = rest.split(' ').next().unwrap().to_owned();
            }
        }
        let (counts, counted) = watch::channel(BTreeMap::new());
        tokio::spawn(async move {
            // SERVICE VERSION RPS …
            while let Ok(Some(line)) = lines.next_line().await {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let [service, version, rate, ..] = words[..] {
                    let key = format!("{service} {version}");
                    counts.send_modify(|counts| counts.extend(rate.parse().ok().map(|rate: f64| (key, rate))));
                }
            }
        });
        Self { process, page, config, counted }
    }

    /// What a version of a service counts itself, in requests per second.
    fn counts(&self, version: &str) -> f64 {
        self.counted.borrow().get(version).copied().unwrap_or(f64::NAN)
    }

    /// Splits the requests to reviews between its first two versions.
    fn split(&self, first: u32, second: u32) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let to = |subset: &str, weight: u32| {
            format!("    - destination:\n        host: reviews\n        subset: {subset}\n      weight: {weight}\n")
        };
        let (before, _) = text.split_once("  - route:\n").unwrap();
        std::fs::write(&self.config, format!("{before}  - route:\n{}{}", to("v1", first), to("v2", second))).unwrap();
    }

    /// Kills the application of a workload, which is a child of this demo.
    fn kill(&self, workload: &str) {
        let own = self.process.id().unwrap();
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let application = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains("bookshop") && line.contains(&format!("--instance {workload}")) && descends(*pid, own)
        };
        let found: Vec<u32> = pids.filter(application).collect();
        assert!(!found.is_empty(), "no application of {workload} runs");
        for pid in found {
            assert!(Checked::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        }
    }

    async fn end(mut self) {
        let pid = self.process.id().unwrap().to_string();
        assert!(Checked::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.process.wait().await.unwrap().success());
    }
}

/// Whether a process is a child, or a child's child, of another.
fn descends(mut pid: u32, from: u32) -> bool {
    while pid > 1 {
        if pid == from {
            return true;
        }
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        pid = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    }
    false
}

/// A figure of the row of the table with these ends.
async fn figure(browser: &Browser, from: &str, to: &str, what: &str) -> f64 {
    let script = format!(
        "const row = [...document.querySelectorAll('tbody tr[data-to]')].find(r => r.dataset.to.startsWith({to:?}) && r.dataset.from.startsWith({from:?}));
         return row ? Number(row.dataset.{what}) : null"
    );
    browser.run(&script).await.as_f64().unwrap_or(f64::NAN)
}

/// Waits until the page's rate is within 20 % of what the workloads count: both look back over some seconds, not the
/// same ones.
async fn agree(browser: &Browser, demo: &Demo, from: &str, to: &str) -> f64 {
    let start = Instant::now();
    loop {
        let (shown, counted) = (figure(browser, from, to, "rate").await, demo.counts(to));
        if (shown - counted).abs() <= counted * 0.2 {
            return shown;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{shown} requests per second to {to}, of {counted}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What would become of a request, and what the proxies hold.
async fn what_would_become(browser: &Browser, demo: &Demo) {
    let question =
        "workload=productpage-v1-0.default&method=GET&url=http%3A%2F%2Freviews%3A9080%2Freviews%2F1&headers=";
    browser.open(&format!("{}/whatif?{question}", demo.page)).await;
    let said = browser.run("return document.querySelector('main').innerText").await;
    for part in ["VirtualService/default/reviews", "50 % to outbound|9080|v2|reviews", "mTLS", "which is asked"] {
        assert!(said.as_str().unwrap().contains(part), "{part} is missing in {said}");
    }
    browser.picture("what-if").await;
    browser.open(&format!("{}/proxies", demo.page)).await;
    browser
        .until(Duration::from_secs(5), "return document.querySelectorAll('tr[data-state=synced]').length >= 7")
        .await;
    browser.picture("proxies").await;
}

// D13, D14: figures within 20 %, a change within 3 s, what failed and why, what would become of a request.
#[tokio::test]
async fn the_page_shows_what_the_mesh_does() {
    let ready =
        Checked::new("sh").args(["-c", "test \"$(id -u)\" = 0 && command -v ip iptables-restore setpriv"]).output();
    if !ready.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: needs root, iproute2, iptables and setpriv");
        return;
    }
    let turn = std::fs::File::create(std::env::temp_dir().join("ferromesh-e2e-tour.lock")).unwrap();
    turn.lock().unwrap();
    let demo = Demo::start().await;
    let browser = Browser::start(1600, 900).await;
    browser.open(&format!("{}/", demo.page)).await;
    let seconds = Duration::from_secs;
    browser.until(seconds(30), "return document.querySelectorAll('tr[data-to]').length >= 7").await;

    // Figures.
    agree(&browser, &demo, "istio-ingressgateway", "productpage v1").await;
    agree(&browser, &demo, "productpage", "reviews v1").await;
    let share = |version: &str, test: &str| {
        format!(
            "const row = [...document.querySelectorAll('tbody tr[data-to]')].find(r => r.dataset.to.startsWith('reviews {version}'));
             if (!row) return false;
             const share = Number(row.dataset.share);
             return {test}"
        )
    };
    browser.until(seconds(20), &share("v1", "share > 72 && share < 88")).await;
    assert!(figure(&browser, "istio-ingressgateway", "productpage", "failed").await < 1.);
    let locks = browser.run("return document.querySelectorAll('svg .lock').length").await;
    assert!(locks.as_u64().unwrap() >= 7, "all of it is mutual TLS: {locks}");
    browser.picture("graph").await;

    // From 99/1 to 50/50.
    demo.split(99, 1);
    browser.until(seconds(15), &share("v2", "share < 4")).await;
    let edited = Instant::now();
    demo.split(50, 50);
    browser.until(seconds(10), &share("v2", "share > 10")).await;
    let changed = edited.elapsed();
    assert!(changed < seconds(3), "seen after {changed:?}");
    for version in ["reviews v1", "reviews v2"] {
        agree(&browser, &demo, "productpage", version).await;
    }
    browser.until(seconds(15), &share("v2", "share > 40")).await;

    what_would_become(&browser, &demo).await;

    // A killed workload.
    browser.open(&format!("{}/", demo.page)).await;
    let killed = Instant::now();
    demo.kill("details-v1");
    browser
        .until(seconds(10), "return document.querySelector('g[data-service=details]').dataset.health === 'failing'")
        .await;
    let seen = killed.elapsed();
    browser.picture("failing").await;
    browser.open(&format!("{}/service/default/details", demo.page)).await;
    browser.until(seconds(10), "return document.querySelector('details.failure')").await;
    browser.run("document.querySelector('details.failure').open = true").await;
    let facts = browser.run("return document.querySelector('details.failure').innerText").await;
    for fact in ["503", "Guilty side", "details"] {
        assert!(facts.as_str().unwrap().contains(fact), "{fact} is missing in {facts}");
    }
    browser.run("document.querySelector('details.failure').scrollIntoView({block: 'center'})").await;
    browser.picture("failed-request").await;
    assert!(browser.complaints().await.is_empty());
    println!("an edit was seen after {changed:?}, a killed workload after {seen:?}\n{}", facts.as_str().unwrap());
    browser.stop().await;
    demo.end().await;
}
