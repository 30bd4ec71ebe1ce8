//! What would become of a request: `proxy explain` on the configuration that pilot gives, first at the proxy of who
//! asks, then at that of the endpoint.
//!
//! The program runs for a moment, without a shell, with bounded input, output and time; it opens no socket.

use super::text::{encoded, short};
use super::{Frame, Pages, answer};
use crate::pilot::Pilot;
use crate::workload::{Table, Workload};
use anyhow::Context as _;
use askama::Template;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// How long the program may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many may run at once.
const AT_ONCE: usize = 2;
/// Longest output that is read.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// Longest field of the form.
const MAX_FIELD_BYTES: usize = 2048;
/// Headers of the form.
const MAX_HEADERS: usize = 20;
/// The methods that the form offers.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What explains.
#[derive(Debug, Clone)]
pub struct Explainer {
    pilot: Pilot,
    program: PathBuf,
    running: Arc<Semaphore>,
}

#[derive(Template)]
#[template(path = "whatif.html", blocks = ["content"])]
struct Page {
    frame: Frame,
    question: Question,
    workloads: Vec<String>,
    methods: &'static [&'static str],
    stories: Vec<(String, Story)>,
    error: String,
    missing: &'static str,
}

/// The form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Question {
    /// Who asks, as `NAME.NAMESPACE`.
    workload: String,
    method: String,
    url: String,
    /// One per line.
    headers: String,
}

/// What `proxy explain` says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Story {
    request: String,
    steps: Vec<Step>,
    outcome: Outcome,
    not_understood: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    station: String,
    name: String,
    verdict: String,
    because: String,
    object: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    status: Option<u16>,
    flags: String,
    details: String,
    clusters: Vec<Share>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Share {
    cluster: String,
    percent: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    address: String,
    health: String,
    transport: String,
}

impl Outcome {
    /// The endpoint that is asked next, and whether over mutual TLS; none where the proxy itself answers.
    fn next(&self) -> Option<(SocketAddr, bool)> {
        let able = |endpoint: &&Endpoint| endpoint.health.is_empty() || endpoint.health == "healthy";
        let endpoint = self.endpoints.iter().find(able).or_else(|| self.endpoints.first())?;
        let address = endpoint.address.parse().ok()?;
        self.status.is_none().then_some((address, endpoint.transport == "mTLS"))
    }
}

impl Step {
    /// Colour and sign of the verdict.
    fn health(&self) -> super::graph::Health {
        use super::graph::Health;
        match self.verdict.as_str() {
            "matched" | "passed" => Health::Healthy,
            "denied" | "failed" => Health::Failing,
            _ => Health::Degraded,
        }
    }
}

/// `GET /whatif`.
pub async fn show(State(pages): State<Pages>, Query(question): Query<Question>, headers: HeaderMap) -> Response {
    let frame = pages.frame("/whatif", false).await;
    let table = pages.workloads.table();
    let mut workloads: Vec<String> = table.all().iter().map(|workload| id(workload)).collect();
    workloads.sort();
    let missing = match &pages.explainer {
        None => "mixer runs without --pilot: there is no configuration to ask.",
        Some(explainer) if !explainer.program.exists() => {
            "the program proxy is not beside mixer: name it with --proxy-program."
        }
        Some(_) => "",
    };
    let (stories, error) = match &pages.explainer {
        Some(explainer) if missing.is_empty() && !question.url.is_empty() => {
            match Box::pin(explainer.explain(&question, &table)).await {
                Ok(stories) => (stories, String::new()),
                Err(error) => (Vec::new(), format!("{error:#}")),
            }
        }
        _ => (Vec::new(), String::new()),
    };
    let page = Page { frame, question, workloads, methods: METHODS, stories, error, missing };
    answer(&headers, &page, &page.as_content())
}

/// A workload as pilot names its proxy.
fn id(workload: &Workload) -> String {
    format!("{}.{}", workload.name, workload.namespace)
}

impl Explainer {
    /// Explains by this program, on configurations of this pilot.
    pub fn new(pilot: Pilot, program: PathBuf) -> Self {
        Self { pilot, program, running: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The story at the client's proxy and, where it leads to an endpoint of the mesh, that at the server's.
    async fn explain(&self, question: &Question, table: &Table) -> anyhow::Result<Vec<(String, Story)>> {
        let fields = [&question.workload, &question.method, &question.url, &question.headers];
        anyhow::ensure!(fields.iter().all(|field| field.len() <= MAX_FIELD_BYTES), "a field is too long");
        let asking = table.all().iter().find(|workload| id(workload) == question.workload);
        let asking =
            asking.with_context(|| format!("choose a workload: {} is not known", short(&question.workload, 80)))?;
        let mut arguments = vec![format!("--namespace={}", asking.namespace)];
        let lines: Vec<&str> = question.headers.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        anyhow::ensure!(lines.len() <= MAX_HEADERS, "at most {MAX_HEADERS} headers");
        arguments.extend(lines.iter().map(|line| format!("--header={line}")));
        let client = self.ask(asking, &arguments, (&question.method, &question.url)).await?;
        let next = client.outcome.next();
        let mut stories = vec![(format!("At the proxy of {}, which asks", id(asking)), client)];
        let Some((address, mutual_tls)) = next else { return Ok(stories) };
        if let Some(asked) = table.by_address(address.ip()) {
            arguments.extend(at_the_server(asking, address, mutual_tls));
            let server = self.ask(asked, &arguments, (&question.method, &question.url)).await?;
            stories.push((format!("At the proxy of {}, which is asked", id(asked)), server));
        }
        Ok(stories)
    }

    async fn ask(&self, workload: &Workload, more: &[String], request: (&str, &str)) -> anyhow::Result<Story> {
        let path = format!("/debug/config_dump?proxyID={}", encoded(&id(workload)));
        let dump = self.pilot.get(&path).await.with_context(|| format!("the configuration of {}", id(workload)))?;
        let _turn = self.running.acquire().await.context("mixer is stopping")?;
        tokio::time::timeout(TIMEOUT, self.run(dump, more, request)).await.context("proxy explain took too long")?
    }

    async fn run(&self, dump: Bytes, more: &[String], (method, url): (&str, &str)) -> anyhow::Result<Story> {
        let mut command = Command::new(&self.program);
        command.args(["explain", "--config-dump=-", "--output=json"]).args(more).args(["--", method, url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{}", self.program.display()))?;
        let (input, output, complaint) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut input, output) = (input.context("no input")?, output.context("no output")?);
        let (mut text, mut said) = (Vec::new(), Vec::new());
        let mut output = output.take(MAX_OUTPUT_BYTES);
        let mut complaint = complaint.context("no output")?.take(MAX_OUTPUT_BYTES);
        let write = async move {
            // A program that ends early has said why.
            let _ended = input.write_all(&dump).await.is_err();
        };
        let ((), read, heard) = tokio::join!(write, output.read_to_end(&mut text), complaint.read_to_end(&mut said));
        read.and(heard).context("proxy explain")?;
        let status = child.wait().await.context("proxy explain")?;
        let complaint = String::from_utf8_lossy(&said);
        anyhow::ensure!(status.success(), "{}", short(complaint.trim(), 500));
        serde_json::from_slice(&text).context("what proxy explain says")
    }
}

/// What is asked of the server's proxy beyond what its client's was asked.
fn at_the_server(asking: &Workload, address: SocketAddr, mutual_tls: bool) -> Vec<String> {
    let mut arguments = vec!["--side=inbound".to_owned(), format!("--to-address={address}")];
    if mutual_tls && !asking.identity.is_empty() {
        arguments.push(format!("--from-identity={}", asking.identity));
    }
    arguments.extend(asking.addresses.first().map(|from| format!("--from-address={from}")));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_who_pilot_says_it_is_in_any_trust_domain() {
        let identity = "spiffe://example.org/ns/shop/sa/web";
        let asking =
            Workload { identity: identity.into(), addresses: vec!["10.0.0.1".parse().unwrap()], ..Workload::default() };
        let to = SocketAddr::from(([10, 0, 0, 2], 9080));
        let expected =
            ["--side=inbound", "--to-address=10.0.0.2:9080", "--from-identity=spiffe://example.org/ns/shop/sa/web"];
        assert_eq!(at_the_server(&asking, to, true), [&expected[..], &["--from-address=10.0.0.1"]].concat());
        assert!(!at_the_server(&asking, to, false).iter().any(|argument| argument.contains(identity)));
    }
}
