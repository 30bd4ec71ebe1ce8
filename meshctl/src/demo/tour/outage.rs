//! What breaks without anybody noticing: an instance, pilot, citadel, a sidecar, mixer.

use super::{Finding, POLL, Tour, failures};
use crate::demo::plan::Proxy;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How long the traffic runs, and when things break in it.
const TRAFFIC_S: u64 = 6;
const BREAK_AFTER: Duration = Duration::from_secs(2);
/// How often proxies report to mixer.
const REPORTS: Duration = Duration::from_secs(1);

/// One of three instances is killed under load.
pub(super) async fn instance(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let mark = tour.route("reviews", &[json!({"route": [{"destination": {"host": "reviews"}}]})])?;
    tour.live("reviews", "/reviews/0", &mark).await?;
    let mut load = tour.load("reviews", "/reviews/0", 200 * TRAFFIC_S)?;
    load.rate = Some(200.0);
    let traffic = tokio::spawn(load.run());
    tokio::time::sleep(BREAK_AFTER).await;
    for key in ["reviews-v3", "reviews-v3 proxy"] {
        tour.mesh.process(key)?.kill();
    }
    let report = traffic.await?;
    for key in ["reviews-v3", "reviews-v3 proxy"] {
        tour.mesh.process(key)?.restart()?;
    }
    let reviews = tour.workload("reviews-v3")?;
    tour.mesh.wait_proxy(&reviews).await?;
    Ok(vec![Finding::new("200 GETs per second for 6 s, 0 failed", failures(&report), report.failed() == 0)])
}

/// pilot and citadel are killed under load; the mesh goes on, and catches up when they return.
pub(super) async fn control_plane(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let route = json!({"route": [{"destination": {"host": "ratings"}}]});
    let mark = tour.route("ratings", std::slice::from_ref(&route))?;
    tour.live("ratings", "/ratings/0", &mark).await?;
    tour.reset_counts().await?;
    let mut load = tour.load("ratings", "/ratings/0", 500 * TRAFFIC_S)?;
    (load.rate, load.post_percent) = (Some(500.0), 30);
    let traffic = tokio::spawn(load.run());
    tokio::time::sleep(BREAK_AFTER).await;
    for key in ["pilot", "citadel"] {
        tour.mesh.process(key)?.kill();
    }
    let report = traffic.await?;
    let counts = tour.counts("ratings-v1").await?;
    let (arrived, posts) = (counts["requests"].as_u64().unwrap_or(0), counts["methods"]["POST"].as_u64().unwrap_or(0));
    let mut findings = vec![Finding::new(
        "3,000 requests (30 % POST) without pilot and citadel, 0 failed, as many at the workload",
        format!("{}, {arrived} arrived, {posts} of {} POSTs", failures(&report), report.posts),
        report.failed() == 0 && (arrived, posts) == (report.sent, report.posts),
    )];
    if !tour.mesh.plan.has_envoy(&tour.workload("details-v1")?) {
        findings.push(restarted_sidecar(tour).await?);
    }
    let mark = tour.route("ratings", &[route])?;
    for key in ["citadel", "pilot"] {
        tour.mesh.process(key)?.restart()?;
    }
    tour.mesh.wait_control_plane().await?;
    let live = tour.live("ratings", "/ratings/0", &mark).await?;
    findings.push(Finding::new(
        "an edit made meanwhile is live within 2,000 ms of their return",
        format!("{} ms", live.as_millis()),
        live <= Duration::from_secs(2),
    ));
    Ok(findings)
}

/// A sidecar that starts while nobody can tell it anything serves from what it kept.
async fn restarted_sidecar(tour: &mut Tour<'_>) -> anyhow::Result<Finding> {
    let expected = "a sidecar restarted meanwhile serves within 2,000 ms";
    tour.mesh.process("details-v1 proxy")?.restart()?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if tour.ask("shopper", "details", "/details/0", &[]).await.is_ok_and(|answer| answer.status.is_success()) {
            let took = begun.elapsed();
            return Ok(Finding::new(expected, format!("{} ms", took.as_millis()), took <= Duration::from_secs(2)));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(Finding::new(expected, "not after 10 s", false))
}

/// mixer is killed under load; nobody waits for it, and it knows all that happened when it returns.
pub(super) async fn mixer(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let mut known_before = told(tour).await?;
    loop {
        tokio::time::sleep(2 * REPORTS).await;
        let known = told(tour).await?;
        if std::mem::replace(&mut known_before, known) == known {
            break; // what was sent before has been reported
        }
    }
    let mut load = tour.load("ratings", "/ratings/0", 200 * TRAFFIC_S)?;
    load.rate = Some(200.0);
    let traffic = tokio::spawn(load.run());
    tokio::time::sleep(BREAK_AFTER).await;
    tour.mesh.process("mixer")?.kill();
    let report = traffic.await?;
    let mut findings = vec![Finding::new(
        "200 requests per second for 6 s without mixer, 0 failed",
        failures(&report),
        report.failed() == 0,
    )];
    tour.mesh.process("mixer")?.restart()?;
    if tour.mesh.plan.has_envoy(&tour.workload("ratings-v1")?) {
        return Ok(findings); // a stock Envoy has no counters of Istio
    }
    let (begun, mut known) = (Instant::now(), 0);
    while known < report.sent && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(POLL).await;
        known = told(tour).await.unwrap_or(0).saturating_sub(known_before);
    }
    findings.push(Finding::new(
        format!("it knows of all {} within 5,000 ms of its return", report.sent),
        format!("{known} after {} ms", begun.elapsed().as_millis()),
        known == report.sent,
    ));
    Ok(findings)
}

/// Requests that ratings has served, as mixer tells Prometheus.
async fn told(tour: &Tour<'_>) -> anyhow::Result<u64> {
    let metrics = tour.mesh.ask_mixer("/metrics").await?;
    let of_ratings = |line: &&str| {
        line.starts_with("istio_requests_total{")
            && line.contains("reporter=\"destination\"")
            && line.contains("destination_workload=\"ratings-v1\"")
    };
    let values = metrics.lines().filter(of_ratings).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(values.sum())
}

/// All proxies are connected, and none has refused anything that pilot sent it.
pub(super) async fn refusals(tour: &Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let wanted = tour.mesh.plan.workloads.iter().filter(|w| w.proxy != Proxy::None).count();
    let begun = Instant::now();
    let mut connected = 0;
    while connected < wanted && begun.elapsed() < Duration::from_secs(5) {
        connected = tour.mesh.ask_pilot("/debug/syncz").await?.as_array().map_or(0, Vec::len);
        tokio::time::sleep(POLL).await;
    }
    let refused = tour.mesh.ask_pilot("/debug/nacks").await?;
    let count = refused.as_array().map_or(1, Vec::len);
    Ok(vec![Finding::new(
        format!("{wanted} proxies connected, 0 refusals"),
        format!(
            "{connected} connected, {count} refusals{}",
            if count == 0 { String::new() } else { format!(": {refused}") }
        ),
        connected == wanted && count == 0,
    )])
}
