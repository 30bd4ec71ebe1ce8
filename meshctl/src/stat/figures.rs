//! Rates, success and latencies of a group of requests.

use super::resource::Resource;
use super::scrape::Labels;
use super::window::Window;
use serde::Serialize;
use std::collections::BTreeMap;

/// The figures of one group over a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Requests per second.
    pub rps: f64,
    /// Share that succeeded, 0 to 1: no status of 500 or above, no gRPC failure, an answer at all. None without requests.
    pub success: Option<f64>,
    /// Latency in milliseconds below which half of the requests stayed, straight between the bounds of the buckets.
    pub p50_ms: Option<f64>,
    /// The same for 95 %.
    pub p95_ms: Option<f64>,
    /// The same for 99 %.
    pub p99_ms: Option<f64>,
    /// Share of requests that came by mutual TLS, 0 to 1; none where the server's proxy does not say it.
    pub mtls: Option<f64>,
    /// TCP connections that are open; none where there have been none.
    pub tcp_connections: Option<f64>,
    /// Bytes per second from TCP clients.
    pub read_bytes: f64,
    /// Bytes per second to TCP clients.
    pub write_bytes: f64,
}

/// Sums that figures are made of.
#[derive(Debug, Default)]
struct Sums {
    requests: f64,
    good: f64,
    /// Requests whose security policy is known, and those with mutual TLS among them.
    told: f64,
    mutual: f64,
    /// Requests up to each bound, by the bits of the bound: positive numbers order as their bits do.
    buckets: BTreeMap<u64, f64>,
    opened: f64,
    closed: f64,
    any_tcp: bool,
    read: f64,
    written: f64,
}

impl Figures {
    /// The figures of each group; `belongs` says to which a series belongs, if any. What `kind` does not count says only
    /// whether mutual TLS was there: proxies of clients do not tell it.
    pub fn by<K: Ord>(window: &Window, kind: Resource, belongs: impl Fn(&Labels) -> Option<K>) -> BTreeMap<K, Self> {
        let mut sums: BTreeMap<K, Sums> = BTreeMap::new();
        let group = |labels: &Labels| if kind.counts(labels) { belongs(labels) } else { None };
        for (labels, value) in window.gained("istio_requests_total") {
            let Some(key) = belongs(labels) else { continue };
            let sum = sums.entry(key).or_default();
            sum.protection(labels, value);
            if kind.counts(labels) {
                sum.request(labels, value);
            }
        }
        for (labels, value) in window.gained("istio_request_duration_milliseconds_bucket") {
            let bound = match labels.get("le") {
                "+Inf" => Some(f64::INFINITY),
                text => text.parse().ok(),
            };
            if let (Some(key), Some(bound)) = (group(labels), bound) {
                *sums.entry(key).or_default().buckets.entry(bound.to_bits()).or_default() += value;
            }
        }
        for (labels, value) in window.total("istio_tcp_connections_opened_total") {
            let Some(key) = group(labels) else { continue };
            let sum = sums.entry(key).or_default();
            sum.opened += value;
            sum.any_tcp = true;
        }
        type Field = fn(&mut Sums) -> &mut f64;
        let mut add = |values: &mut dyn Iterator<Item = (&Labels, f64)>, field: Field| {
            for (labels, value) in values {
                if let Some(key) = group(labels) {
                    *field(sums.entry(key).or_default()) += value;
                }
            }
        };
        add(&mut window.total("istio_tcp_connections_closed_total"), |sum| &mut sum.closed);
        add(&mut window.gained("istio_tcp_received_bytes_total"), |sum| &mut sum.read);
        add(&mut window.gained("istio_tcp_sent_bytes_total"), |sum| &mut sum.written);
        sums.into_iter().map(|(key, sum)| (key, sum.figures(window.seconds()))).collect()
    }
}

impl Sums {
    fn request(&mut self, labels: &Labels, value: f64) {
        self.requests += value;
        if succeeded(labels) {
            self.good += value;
        }
    }

    fn protection(&mut self, labels: &Labels, value: f64) {
        let policy = labels.get("connection_security_policy");
        if !policy.is_empty() {
            self.told += value;
            self.mutual += if policy == "mutual_tls" { value } else { 0.0 };
        }
    }

    fn figures(&self, seconds: f64) -> Figures {
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        Figures {
            rps: self.requests / seconds,
            success: share(self.good, self.requests),
            p50_ms: quantile(&self.buckets, 0.5),
            p95_ms: quantile(&self.buckets, 0.95),
            p99_ms: quantile(&self.buckets, 0.99),
            mtls: share(self.mutual, self.told),
            tcp_connections: self.any_tcp.then(|| (self.opened - self.closed).max(0.0)),
            read_bytes: self.read / seconds,
            write_bytes: self.written / seconds,
        }
    }
}

/// Whether a request succeeded: as linkerd counts it, a status of 400 to 499 is the client's fault.
fn succeeded(labels: &Labels) -> bool {
    let code: u16 = labels.get("response_code").parse().unwrap_or(0);
    let grpc = labels.get("grpc_response_status");
    (100..500).contains(&code) && matches!(grpc, "" | "0" | "OK")
}

/// As Prometheus' `histogram_quantile`: straight within a bucket; of the last one its lower bound.
fn quantile(buckets: &BTreeMap<u64, f64>, quantile: f64) -> Option<f64> {
    let total = buckets.values().next_back().copied().filter(|total| *total > 0.0)?;
    let rank = quantile * total;
    let (mut from, mut below) = (0.0, 0.0);
    for (bits, upto) in buckets {
        let bound = f64::from_bits(*bits);
        if *upto >= rank && *upto > below {
            let inside = (rank - below) / (upto - below);
            return Some(if bound.is_finite() { from + (bound - from) * inside } else { from });
        }
        (from, below) = (bound, *upto);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Scrape;
    use std::time::Duration;

    fn text(ok: u32, failed: u32) -> String {
        let labels = "reporter=\"destination\",destination_workload=\"a\",connection_security_policy";
        let bucket = |le: &str, value: u32| {
            format!("istio_request_duration_milliseconds_bucket{{{labels}=\"none\",le=\"{le}\"}} {value}\n")
        };
        format!(
            "istio_requests_total{{{labels}=\"mutual_tls\",response_code=\"200\"}} {ok}\n\
             istio_requests_total{{{labels}=\"none\",response_code=\"503\"}} {failed}\n\
             istio_tcp_connections_opened_total{{{labels}=\"none\"}} {ok}\n\
             istio_tcp_connections_closed_total{{{labels}=\"none\"}} 1\n{}{}{}",
            bucket("5", ok / 2),
            bucket("10", ok),
            bucket("+Inf", ok + failed),
        )
    }

    // spec: CT-41
    #[test]
    fn rates_success_and_latencies_are_of_the_window_alone() {
        let (before, now) = (Scrape::parse(&text(100, 10)), Scrape::parse(&text(180, 30)));
        let window = Window::between(&before, now, Duration::from_secs(10));
        let all = Figures::by(&window, Resource::Deploy, |labels| Some(labels.get("destination_workload").to_owned()));
        let figures = &all["a"];
        assert_eq!((figures.rps, figures.success, figures.mtls), (10.0, Some(0.8), Some(0.8)));
        // 40 up to 5 ms, 40 more up to 10 ms, 20 above: half of 100 is a quarter of the way from 5 to 10.
        assert_eq!((figures.p50_ms, figures.p95_ms), (Some(6.25), Some(10.0)));
        assert_eq!(figures.tcp_connections, Some(179.0));
    }

    #[test]
    fn a_failure_is_the_servers_or_no_answer() {
        let of = |code: &str, grpc: &str| {
            let text = format!("istio_requests_total{{response_code=\"{code}\",grpc_response_status=\"{grpc}\"}} 1");
            succeeded(&Scrape::parse(&text).values.keys().next().unwrap().1)
        };
        assert!(of("200", "") && of("404", "") && of("200", "0"));
        assert!(!of("500", "") && !of("0", "") && !of("200", "14"));
    }
}
