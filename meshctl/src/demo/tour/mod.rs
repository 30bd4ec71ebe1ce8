//! The tour: a script with a verdict. Each line shows what is expected beside what was measured at the workloads.

mod outage;
mod security;
mod traffic;

use crate::demo::client::{self, Answer, Ask};
use crate::demo::load::{Load, Report};
use crate::demo::mesh::Mesh;
use crate::demo::netns::Namespace;
use crate::demo::plan::{Plan, Workload};
use crate::output;
use anyhow::Context;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Header by which a route shows which edit of the configuration it comes from.
const MARK: &str = "x-tour";
/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What one step found.
#[derive(Debug, Clone)]
struct Finding {
    expected: String,
    measured: String,
    good: bool,
}

impl Finding {
    fn new(expected: impl Into<String>, measured: impl Into<String>, good: bool) -> Self {
        Self { expected: expected.into(), measured: measured.into(), good }
    }
}

type Step = for<'a> fn(&'a mut Tour<'_>) -> Pin<Box<dyn Future<Output = anyhow::Result<Vec<Finding>>> + 'a>>;

/// Names and steps in the order of the walk.
const STEPS: &[(&str, Step)] = &[
    ("the page", |t| Box::pin(traffic::page(t))),
    ("split 99/1", |t| Box::pin(traffic::split(t))),
    ("edit to 50/50", |t| Box::pin(traffic::edit(t))),
    ("one user to v2", |t| Box::pin(traffic::header_match(t))),
    ("broken files", |t| Box::pin(traffic::broken(t))),
    ("delay of 2 s on 10 %", |t| Box::pin(traffic::delay(t))),
    ("strict mutual TLS", |t| Box::pin(security::strict(t))),
    ("deny by path", |t| Box::pin(security::deny_path(t))),
    ("deny by identity", |t| Box::pin(security::deny_identity(t))),
    ("retries hide 503", |t| Box::pin(traffic::retries(t))),
    ("instance killed", |t| Box::pin(outage::instance(t))),
    ("control plane killed", |t| Box::pin(outage::control_plane(t))),
    ("mixer killed", |t| Box::pin(outage::mixer(t))),
    ("nothing refused", |t| Box::pin(outage::refusals(t))),
];

/// The mesh with what the steps share.
struct Tour<'a> {
    mesh: &'a mut Mesh,
    edits: u32,
}

/// Walks through all steps, or those whose name contains one of `only`.
///
/// # Errors
/// Where the output is closed; a step that cannot be walked is a miss, not an error.
pub(super) async fn walk(mesh: &mut Mesh, only: &[String]) -> anyhow::Result<ExitCode> {
    let mut tour = Tour { mesh, edits: 0 };
    let mut misses = 0;
    for (name, step) in STEPS {
        if !only.is_empty() && !only.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let findings = step(&mut tour)
            .await
            .unwrap_or_else(|error| vec![Finding::new("the step can be walked", format!("{error:#}"), false)]);
        for finding in &findings {
            misses += usize::from(!finding.good);
            output::say(&format!(
                "{} {name:<22} expected: {}\n{:28}measured: {}",
                output::verdict(finding.good),
                finding.expected,
                "",
                finding.measured
            ))?;
        }
        output::say(&format!("{:28}({:.1} s)", "", begun.elapsed().as_secs_f64()))?;
        tour.restore()?;
    }
    for process in tour.mesh.ended() {
        output::say(&format!("ended by itself: {process}"))?;
    }
    output::say(&if misses == 0 { "tour: all as expected".to_owned() } else { format!("tour: {misses} missed") })?;
    Ok(if misses == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Tour<'_> {
    fn workload(&self, name: &str) -> anyhow::Result<Workload> {
        self.mesh.plan.workload(name).cloned()
    }

    fn namespace(&self, workload: &str) -> anyhow::Result<Namespace> {
        Ok(self.mesh.plan.namespace(self.mesh.plan.workload(workload)?))
    }

    fn service(name: &str) -> anyhow::Result<SocketAddr> {
        Plan::service(name).with_context(|| format!("no service {name}"))
    }

    /// Writes the VirtualService of `service` with these HTTP routes, each marked as the newest edit.
    fn route(&mut self, service: &str, http: &[Value]) -> anyhow::Result<String> {
        self.edits += 1;
        let mark = self.edits.to_string();
        let marked: Vec<Value> = http
            .iter()
            .map(|route| {
                let mut route = route.clone();
                route["headers"]["response"]["set"][MARK] = mark.clone().into();
                route
            })
            .collect();
        let object = serde_json::json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": service, "namespace": "default"},
            "spec": {"hosts": [service], "http": marked},
        });
        let rules = if service == "reviews" { include_str!("../yaml/reviews.yaml") } else { "" };
        let subsets = rules.split_once("\n---\n").map_or("", |(rules, _)| rules);
        let text = serde_saphyr::to_string(&object).map_err(|e| anyhow::anyhow!("{e}"))?;
        self.mesh.write_config(&format!("{service}.yaml"), &format!("{subsets}\n---\n{text}"))?;
        Ok(mark)
    }

    /// Puts the configuration back to what it was before the step.
    fn restore(&self) -> anyhow::Result<()> {
        self.mesh.write_config("reviews.yaml", include_str!("../yaml/reviews.yaml"))?;
        for file in ["ratings.yaml", "policy.yaml"].into_iter().chain(traffic::BROKEN.iter().map(|(_, file, _)| *file))
        {
            drop(self.mesh.remove_config(file)); // the step may not have written it
        }
        Ok(())
    }

    /// A question of the shopper to a service, on a new connection.
    async fn ask(&self, from: &str, service: &str, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let ask = Ask { headers, ..Ask::get(service, path) };
        client::ask(&self.namespace(from)?, Self::service(service)?, &ask).await
    }

    /// How long it takes until answers carry the mark of an edit.
    async fn live(&self, service: &str, path: &str, mark: &str) -> anyhow::Result<Duration> {
        let marked = |answer: &Answer| answer.headers.get(MARK).is_some_and(|value| value == mark);
        self.until("shopper", service, path, marked).await
    }

    /// How long it takes until an answer is as wanted; ten seconds at most.
    async fn until(
        &self,
        from: &str,
        service: &str,
        path: &str,
        wanted: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut last = "no answer".to_owned();
        while begun.elapsed() < Duration::from_secs(10) {
            match self.ask(from, service, path, &[]).await {
                Ok(answer) if wanted(&answer) => return Ok(begun.elapsed()),
                Ok(answer) => last = format!("status {} {}", answer.status.as_u16(), answer.text().trim()),
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(POLL).await;
        }
        anyhow::bail!("{service}{path} is not as wanted after 10 s; last seen from {from}: {last}")
    }

    /// Load of the shopper on a service.
    fn load(&self, service: &str, path: &str, requests: u64) -> anyhow::Result<Load> {
        Ok(Load::of(self.namespace("shopper")?, Self::service(service)?, service, path, requests))
    }

    async fn reset_counts(&self) -> anyhow::Result<()> {
        for workload in self.mesh.plan.workloads.iter().filter(|w| w.runs_shop) {
            self.mesh.ask_shop(workload, "/__reset").await?;
        }
        Ok(())
    }

    /// What a workload counted.
    async fn counts(&self, workload: &str) -> anyhow::Result<Value> {
        let workload = self.workload(workload)?;
        Ok(serde_json::from_slice(&self.mesh.ask_shop(&workload, "/__count").await?.body)?)
    }

    async fn arrived(&self, workload: &str) -> anyhow::Result<u64> {
        Ok(self.counts(workload).await?["requests"].as_u64().unwrap_or(0))
    }
}

/// How a report reads when all is not well.
fn failures(report: &Report) -> String {
    let first = report.first_error.as_ref().map(|error| format!(", first: {error}")).unwrap_or_default();
    format!("{} of {} failed {:?}{first}", report.failed(), report.sent, report.statuses)
}
