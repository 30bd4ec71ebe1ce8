//! Where requests go: weights, matches, delays, retries.

use super::{Finding, MARK, POLL, Tour, failures};
use crate::demo::client::{self, Ask};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

fn to(subset: &str, weight: u32) -> Value {
    json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight})
}

/// The page through the gateway: four services find each other by name.
pub(super) async fn page(tour: &Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let (fabric, gateway) = (tour.mesh.plan.fabric(), tour.mesh.gateway()?);
    let (mut with_stars, mut faults) = (0, Vec::new());
    for _ in 0..100 {
        let answer = client::ask(&fabric, gateway, &Ask::get("bookshop.example", "/productpage")).await?;
        let text = answer.text();
        let whole = answer.status.is_success() && text.contains("PublisherA") && text.contains("answered by reviews-v");
        if !whole || text.contains("unavailable") {
            faults.push(format!("status {}", answer.status.as_u16()));
        }
        with_stars += usize::from(text.contains('★'));
    }
    Ok(vec![Finding::new(
        "100 views whole, 4 to 40 of them with stars (20 % of reviews are v2 or v3)",
        format!(
            "{} whole, {with_stars} with stars {}",
            100 - faults.len(),
            faults.first().cloned().unwrap_or_default()
        ),
        faults.is_empty() && (4..=40).contains(&with_stars),
    )])
}

/// 99/1 between v1 and v2, counted at the workloads.
pub(super) async fn split(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let mark = tour.route("reviews", &[json!({"route": [to("v1", 99), to("v2", 1)]})])?;
    tour.live("reviews", "/reviews/0", &mark).await?;
    tour.reset_counts().await?;
    let report = tour.load("reviews", "/reviews/0", 20_000)?.run().await;
    let (one, two) = (tour.arrived("reviews-v1").await?, tour.arrived("reviews-v2").await?);
    let three = tour.arrived("reviews-v3").await?;
    // Four standard deviations of a binomial distribution around 200 are 144..256; three are 158..242.
    let good = (158..=242).contains(&two) && one + two == 20_000 && three == 0 && report.failed() == 0;
    Ok(vec![Finding::new(
        "of 20,000 requests 158 to 242 at v2, the others at v1, 0 failed",
        format!("{one} at v1, {two} at v2, {three} at v3, {}", failures(&report)),
        good,
    )])
}

/// An edit of the file changes traffic within a second.
pub(super) async fn edit(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let mark = tour.route("reviews", &[json!({"route": [to("v1", 50), to("v2", 50)]})])?;
    let live = tour.live("reviews", "/reviews/0", &mark).await?;
    tour.reset_counts().await?;
    let report = tour.load("reviews", "/reviews/0", 2000)?.run().await;
    let two = tour.arrived("reviews-v2").await?;
    Ok(vec![
        Finding::new("live within 1,000 ms", format!("{} ms", live.as_millis()), live <= Duration::from_secs(1)),
        Finding::new(
            "of 2,000 requests 911 to 1,089 at v2, 0 failed",
            format!("{two} at v2, {}", failures(&report)),
            (911..=1089).contains(&two) && report.failed() == 0,
        ),
    ])
}

/// The requests of one user go elsewhere.
pub(super) async fn header_match(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let jason = json!({"match": [{"headers": {"end-user": {"exact": "jason"}}}], "route": [to("v2", 100)]});
    let mark = tour.route("reviews", &[jason, json!({"route": [to("v1", 100)]})])?;
    tour.live("reviews", "/reviews/0", &mark).await?;
    tour.reset_counts().await?;
    let mut user = tour.load("reviews", "/reviews/0", 100)?;
    user.headers.push(("end-user".to_owned(), "jason".to_owned()));
    let (user, others) = (user.run().await, tour.load("reviews", "/reviews/0", 100)?.run().await);
    let (one, two) = (tour.arrived("reviews-v1").await?, tour.arrived("reviews-v2").await?);
    Ok(vec![Finding::new(
        "100 of jason at v2, 100 of others at v1",
        format!("{two} at v2, {one} at v1"),
        (one, two, user.failed() + others.failed()) == (100, 100, 0),
    )])
}

/// A fixed delay for a part of the requests.
pub(super) async fn delay(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let fault = json!({"delay": {"percentage": {"value": 10}, "fixedDelay": "2s"}});
    let mark = tour.route("reviews", &[json!({"fault": fault, "route": [to("v1", 100)]})])?;
    tour.live("reviews", "/reviews/0", &mark).await?;
    let mut load = tour.load("reviews", "/reviews/0", 1000)?;
    load.connections = 100;
    let report = load.run().await;
    let slow = report.slower_than(Duration::from_millis(1990));
    let middle = report.slower_than(Duration::from_millis(1000)) - slow;
    Ok(vec![Finding::new(
        "of 1,000 requests 62 to 138 take 2 s or more, none between 1 and 2 s, 0 failed",
        format!("{slow} slow, {middle} between, {}", failures(&report)),
        (62..=138).contains(&slow) && middle == 0 && report.failed() == 0,
    )])
}

/// Retries hide a workload that answers 503 to 30 %.
pub(super) async fn retries(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let retries = json!({"attempts": 12, "perTryTimeout": "2s", "retryOn": "5xx"});
    let route = json!([{"destination": {"host": "ratings"}}]);
    let mark = tour.route("ratings", &[json!({"retries": retries, "route": route})])?;
    tour.live("ratings", "/ratings/0", &mark).await?;
    let ratings = tour.workload("ratings-v1")?;
    tour.reset_counts().await?;
    tour.mesh.ask_shop(&ratings, "/__set?fail_percent=30").await?;
    let report = tour.load("ratings", "/ratings/0", 1000)?.run().await;
    tour.mesh.ask_shop(&ratings, "/__set?fail_percent=0").await?;
    let attempts = tour.arrived("ratings-v1").await?;
    // Each request needs 1 / 0.7 attempts on average; four standard deviations of the sum are 99.
    Ok(vec![Finding::new(
        "1,000 requests, 0 failed, 1,330 to 1,528 attempts at the workload",
        format!("{}, {attempts} attempts", failures(&report)),
        report.failed() == 0 && (1330..=1528).contains(&attempts),
    )])
}

/// A file for each class of mistake: class, file, content.
pub(super) const BROKEN: &[(&str, &str, &str)] = &[
    ("syntax", "broken-syntax.yaml", "kind: [VirtualService\n"),
    (
        "wrongType",
        "broken-type.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b1, namespace: default}\n\
         spec:\n  hosts: [nobody-1]\n  http:\n  - route:\n    - destination: {host: reviews}\n      weight: many\n",
    ),
    (
        "unknownField",
        "broken-field.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b2, namespace: default}\n\
         spec:\n  hosts: [nobody-2]\n  http:\n  - route:\n    - destinaton: {host: reviews}\n",
    ),
    (
        "semantic",
        "broken-regex.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b3, namespace: default}\n\
         spec:\n  hosts: [nobody-3]\n  http:\n  - match:\n    - uri: {regex: \"(\"}\n    route:\n    - destination: {host: reviews}\n",
    ),
    (
        "danglingReference",
        "broken-reference.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b4, namespace: default}\n\
         spec:\n  hosts: [nobody-4]\n  http:\n  - route:\n    - destination: {host: nowhere}\n",
    ),
];

/// Broken files are refused by file, line and field; the last good version of an object stays, everything else goes on.
pub(super) async fn broken(tour: &mut Tour<'_>) -> anyhow::Result<Vec<Finding>> {
    let mark = tour.route("reviews", &[json!({"route": [to("v1", 100)]})])?;
    tour.live("reviews", "/reviews/0", &mark).await?;
    for (_, file, text) in BROKEN {
        tour.mesh.write_config(file, text)?;
    }
    let good = include_str!("../yaml/reviews.yaml");
    tour.mesh
        .write_config("reviews.yaml", &good.replace("subset: v2\n      weight: 10", "subset: v2\n      wait: 10"))?;
    let told = |problems: &[Value], class: &str, file: &str| {
        problems.iter().any(|p| {
            let place = p["line"].as_u64().is_some_and(|line| line > 0) && (class == "syntax" || p["field"] != "");
            p["class"] == class && p["file"] == file && place
        })
    };
    let wanted: Vec<(&str, &str)> =
        BROKEN.iter().map(|(class, file, _)| (*class, *file)).chain([("unknownField", "reviews.yaml")]).collect();
    let begun = Instant::now();
    let mut missing = wanted.clone();
    while !missing.is_empty() && begun.elapsed() < Duration::from_secs(5) {
        let status = tour.mesh.ask_pilot("/debug/status").await?;
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        missing = wanted.iter().copied().filter(|(class, file)| !told(&problems, class, file)).collect();
        tokio::time::sleep(POLL).await;
    }
    let answer = tour.ask("shopper", "reviews", "/reviews/0", &[]).await?;
    let kept = answer.status.is_success() && answer.headers.get(MARK).is_some_and(|value| value == mark.as_str());
    Ok(vec![Finding::new(
        "six mistakes of five classes named by file, line and field; reviews keeps its last good version",
        format!("{} named, not named: {missing:?}; last good version in force: {kept}", wanted.len() - missing.len()),
        missing.is_empty() && kept,
    )])
}
