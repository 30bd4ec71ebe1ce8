//! Steady traffic from inside a namespace: at a rate or as fast as answers come, over connections that are kept.

use crate::demo::client::{Ask, Connection};
use crate::demo::netns::Namespace;
use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::Method;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// From where.
    pub namespace: Namespace,
    /// To where.
    pub address: SocketAddr,
    /// Host header.
    pub host: String,
    /// Path.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Requests per second; without it each connection sends when its last answer came.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: u32,
    /// How many requests in all.
    pub requests: u64,
    /// How many of a hundred are POSTs.
    pub post_percent: u8,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// POSTs among them.
    pub posts: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub broken: u64,
    /// The first such failure.
    pub first_error: Option<String>,
    /// Microseconds from the time at which a request was due to its answer.
    pub latency: Histogram<u64>,
}

impl Report {
    fn new() -> Self {
        let latency = Histogram::new(3).expect("three digits are within the library's range");
        Self { sent: 0, posts: 0, statuses: BTreeMap::new(), broken: 0, first_error: None, latency }
    }

    /// Requests whose answer was no 2xx, or that got none.
    pub fn failed(&self) -> u64 {
        let bad = self.statuses.iter().filter(|(status, _)| !(200..300).contains(*status));
        self.broken + bad.map(|(_, count)| count).sum::<u64>()
    }

    /// A quantile of the latency.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(quantile))
    }

    /// Answers that took at least this long.
    pub fn slower_than(&self, bound: Duration) -> u64 {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        self.latency.len() - self.latency.count_between(0, micros.saturating_sub(1))
    }

    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.posts += other.posts;
        self.broken += other.broken;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.latency.add(&other.latency).unwrap_or(()); // both have the same range
    }
}

impl Load {
    /// `requests` GETs of `path` as fast as answers come.
    pub fn of(namespace: Namespace, address: SocketAddr, host: &str, path: &str, requests: u64) -> Self {
        Self {
            namespace,
            address,
            host: host.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            rate: None,
            connections: 16,
            requests,
            post_percent: 0,
        }
    }

    /// Sends everything. Cancel-safe: dropping it ends the traffic.
    pub async fn run(self) -> Report {
        let load = Arc::new(self);
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for index in 0..load.connections {
            tasks.spawn(one_connection(Arc::clone(&load), index, start));
        }
        let mut report = Report::new();
        while let Some(part) = tasks.join_next().await {
            match part {
                Ok(part) => report.merge(&part),
                Err(error) => report.first_error = Some(error.to_string()),
            }
        }
        report
    }

    /// When request `number` is due.
    fn due(&self, number: u64, start: Instant) -> Option<Instant> {
        self.rate.map(|rate| start + Duration::from_secs_f64(number as f64 / rate))
    }

    fn is_post(&self, number: u64) -> bool {
        number % 100 * 37 % 100 < u64::from(self.post_percent) // spread over each hundred
    }

    async fn send(&self, connection: &mut Option<Connection>, number: u64) -> anyhow::Result<u16> {
        let id = format!("{number:x}-{:x}", fastrand::u64(..));
        let mut headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        headers.push(("x-load-id", &id));
        let post = self.is_post(number);
        let ask = Ask {
            method: if post { Method::POST } else { Method::GET },
            host: &self.host,
            path: &self.path,
            headers: &headers,
            body: if post { Bytes::from_static(b"{\"stars\":5}") } else { Bytes::new() },
        };
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(&self.namespace, self.address).await?,
        };
        let answer = open.ask(&ask).await?;
        *connection = Some(open);
        Ok(answer.status.as_u16())
    }
}

/// Sends every n-th request over one connection; a broken one is replaced.
async fn one_connection(load: Arc<Load>, index: u32, start: Instant) -> Report {
    let mut report = Report::new();
    let mut connection = None;
    let mut number = u64::from(index);
    while number < load.requests {
        let mut begun = Instant::now();
        if let Some(due) = load.due(number, start) {
            tokio::time::sleep_until(due).await;
            begun = due; // a late start counts: the user waited
        }
        report.sent += 1;
        report.posts += u64::from(load.is_post(number));
        match load.send(&mut connection, number).await {
            Ok(status) => {
                *report.statuses.entry(status).or_default() += 1;
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                report.latency.record(micros).unwrap_or(()); // the histogram grows by itself
            }
            Err(error) => {
                report.broken += 1;
                report.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
        number += u64::from(load.connections);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_are_spread_and_counted() {
        let address = "127.0.0.1:1".parse().unwrap();
        let load = Load { post_percent: 30, ..Load::of(Namespace::named("x"), address, "h", "/", 100) };
        assert_eq!((0..100).filter(|n| load.is_post(*n)).count(), 30);
        assert!((0..10).any(|n| load.is_post(n)));
    }

    #[test]
    fn slow_answers_are_counted_from_the_bound_on() {
        let mut report = Report::new();
        for ms in [1, 999, 2000, 2100, 9000] {
            report.latency.record(ms * 1000).unwrap();
        }
        assert_eq!(report.slower_than(Duration::from_millis(1990)), 3);
        assert_eq!(report.slower_than(Duration::from_millis(500)), 4);
    }

    #[test]
    fn failures_are_answers_that_are_no_2xx_and_missing_ones() {
        let mut report = Report::new();
        report.statuses = [(200, 5), (503, 2), (404, 1)].into();
        report.broken = 3;
        assert_eq!(report.failed(), 6);
    }
}
