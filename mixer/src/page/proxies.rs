//! The proxies: what pilot has told them, what they refused, and when they last reported.

use super::{Frame, Pages, answer};
use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Template)]
#[template(path = "proxies.html", blocks = ["content"])]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
}

/// A proxy.
#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    name: String,
    state: &'static str,
    sign: &'static str,
    class: &'static str,
    refused: Vec<String>,
    types: String,
    version: String,
    series: String,
    reported: String,
}

/// A line of pilot's `/debug/syncz`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Synced {
    proxy: String,
    istio_version: String,
    resources: BTreeMap<String, Resources>,
}

/// How far a proxy is with one type.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    sent: Option<String>,
    acked: Option<String>,
    resources: Option<u64>,
    last_error: Option<String>,
}

/// `GET /proxies`.
pub async fn show(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let mut frame = pages.frame("/proxies", true).await;
    let mut synced = Arc::default();
    match &pages.synced {
        None => frame.warning = Some("mixer runs without --pilot: only reports are shown.".to_owned()),
        Some(glance) => {
            let seen = glance.look().await;
            frame.warning = match seen.age {
                None => Some("pilot has not answered yet.".to_owned()),
                Some(age) if seen.failing => {
                    let age = age.as_secs();
                    Some(format!("pilot has not answered for {age} s: states are as it said last."))
                }
                Some(_) => None,
            };
            synced = seen.content;
        }
    }
    let reporting = pages.hub.ask(|state, now| {
        let one = |(name, sender): (&str, &crate::report::sender::Sender)| {
            (name.to_owned(), (sender.series(), now.saturating_sub(sender.seen().1)))
        };
        state.senders().iter().map(one).collect::<BTreeMap<_, _>>()
    });
    let reporting = reporting.await.unwrap_or_default();
    let page = Page { frame, rows: rows(&synced, reporting) };
    answer(&headers, &page, &page.as_content())
}

/// Both views of each proxy; those that only report come last.
fn rows(synced: &[Synced], mut reporting: BTreeMap<String, (usize, Duration)>) -> Vec<Row> {
    let mut rows: Vec<Row> = synced
        .iter()
        .map(|synced| {
            // pilot names NAME.NAMESPACE, reports the node's id: sidecar~ADDRESS~NAME.NAMESPACE~DOMAIN
            let id = reporting.keys().find(|id| id.split('~').nth(2) == Some(&*synced.proxy)).cloned();
            let report = id.and_then(|id| reporting.remove(&id));
            reported(state(synced), report)
        })
        .collect();
    rows.extend(reporting.into_iter().map(|(name, report)| {
        let row = Row { name, state: "not connected to pilot", sign: "○", class: "idle", ..Row::default() };
        reported(row, Some(report))
    }));
    rows
}

fn state(synced: &Synced) -> Row {
    let types = synced.resources.iter().map(|(kind, of)| format!("{kind} {}", of.resources.unwrap_or_default()));
    let refused: Vec<String> = synced
        .resources
        .iter()
        .filter_map(|(kind, of)| Some(format!("{kind}: {}", of.last_error.as_ref().filter(|e| !e.is_empty())?)))
        .collect();
    let stale = synced.resources.values().any(|of| of.sent != of.acked);
    let (state, sign, class) = match () {
        () if !refused.is_empty() => ("refused", "✖", "failing"),
        () if stale => ("stale", "▲", "degraded"),
        () if synced.resources.is_empty() => ("not sent", "○", "idle"),
        () => ("synced", "●", "healthy"),
    };
    Row {
        name: synced.proxy.clone(),
        state,
        sign,
        class,
        refused,
        types: types.collect::<Vec<_>>().join(", "),
        version: synced.istio_version.clone(),
        ..Row::default()
    }
}

fn reported(row: Row, report: Option<(usize, Duration)>) -> Row {
    let (series, reported) = match report {
        Some((series, age)) => (series.to_string(), format!("{:.0} s ago", age.as_secs_f64())),
        None => (String::new(), "never".to_owned()),
    };
    Row { series, reported, ..row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_synced_stale_or_refuse() {
        let text = r#"[
            {"proxy": "a.shop", "istio_version": "1.0", "resources": {"CDS": {"sent": "1", "acked": "1", "resources": 4, "lastError": null}}},
            {"proxy": "b.shop", "resources": {"CDS": {"sent": "2", "acked": "1"}}},
            {"proxy": "c.shop", "resources": {"LDS": {"sent": "2", "acked": "2", "lastError": "field x: no"}}}]"#;
        let synced: Vec<Synced> = serde_json::from_str(text).unwrap();
        let reporting = [("sidecar~10.0.0.1~a.shop~shop.svc.cluster.local", 5), ("other", 6)]
            .map(|(name, series)| (name.to_owned(), (series, Duration::from_secs(2))));
        let rows = rows(&synced, reporting.into());
        let states: Vec<_> = rows.iter().map(|row| (&*row.name, row.state, &*row.reported)).collect();
        let wanted = [
            ("a.shop", "synced", "2 s ago"),
            ("b.shop", "stale", "never"),
            ("c.shop", "refused", "never"),
            ("other", "not connected to pilot", "2 s ago"),
        ];
        assert_eq!(states, wanted);
        assert_eq!((&*rows[0].types, &*rows[0].series, &*rows[2].refused[0]), ("CDS 4", "5", "LDS: field x: no"));
    }
}
