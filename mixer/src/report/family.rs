//! The families of metrics that proxies report: Istio's names, types and buckets (OB-1, TM-1 to TM-7), and what proxies
//! decided without asking, by rules and by rate limits.

/// What a value of a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows.
    Counter,
    /// Has buckets.
    Histogram,
    /// Is set.
    Gauge,
}

macro_rules! families {
    ($($variant:ident $name:literal $kind:ident $help:literal,)*) => {
        /// A family of metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Family { $(#[doc = $help] $variant,)* }

        impl Family {
            /// All, in the order of exposition.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name for Prometheus.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What its values are.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// One sentence for Prometheus.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }

            fn exact(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

families! {
    Requests "istio_requests_total" Counter "Requests that ended.",
    Duration "istio_request_duration_milliseconds" Histogram "Time from the first byte of a request to the last byte of its answer.",
    RequestBytes "istio_request_bytes" Histogram "Bytes of requests on the wire, headers included.",
    ResponseBytes "istio_response_bytes" Histogram "Bytes of answers on the wire, headers included.",
    RequestMessages "istio_request_messages_total" Counter "gRPC messages from clients.",
    ResponseMessages "istio_response_messages_total" Counter "gRPC messages to clients.",
    TcpOpened "istio_tcp_connections_opened_total" Counter "TCP connections opened.",
    TcpClosed "istio_tcp_connections_closed_total" Counter "TCP connections closed.",
    TcpSent "istio_tcp_sent_bytes_total" Counter "Bytes sent to TCP clients.",
    TcpReceived "istio_tcp_received_bytes_total" Counter "Bytes received from TCP clients.",
    Build "istio_build" Gauge "Versions that run.",
    PolicyHits "ferromesh_policy_hits_total" Counter "Requests that a rule applied to, decided by proxies.",
    PolicyDenials "ferromesh_policy_denials_total" Counter "Requests that a rule refused, decided by proxies.",
    PolicyFailures "ferromesh_policy_failures_total" Counter "Requests for which the match of a rule had no value, decided by proxies.",
    PolicyDispatches "ferromesh_policy_dispatches_total" Counter "How often proxies decided in place of a handler.",
    PolicyRefusals "ferromesh_policy_refusals_total" Counter "How often they refused in its place.",
    LimitWithin "ferromesh_limit_within_total" Counter "Hits within a rate limit, counted by proxies.",
    LimitOver "ferromesh_limit_over_total" Counter "Hits beyond a rate limit, counted by proxies.",
}

impl Family {
    /// Whether it is of a source and a destination.
    pub fn has_sides(self) -> bool {
        self != Self::Build && !self.is_policy()
    }

    /// Whether it counts decisions, not traffic.
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::PolicyHits
                | Self::PolicyDenials
                | Self::PolicyFailures
                | Self::PolicyDispatches
                | Self::PolicyRefusals
                | Self::LimitWithin
                | Self::LimitOver
        )
    }

    /// The family of a reported name. Envoy puts `istiocustom.` before Istio's names, and dots where Prometheus has
    /// underscores.
    pub fn of(name: &str) -> Option<Self> {
        if let Some(found) = Self::exact(name) {
            return Some(found);
        }
        let short = name.strip_prefix("istiocustom").unwrap_or(name).trim_start_matches(['.', '_']);
        Self::exact(&short.replace('.', "_"))
    }

    /// The family of Envoy's statistics of a local limit, and which limit, unless a label says so ([`ENVOY_LIMIT`]):
    /// `PREFIX.http_local_rate_limit.ok`.
    pub fn of_local_limit(name: &str) -> Option<(Self, Option<&str>)> {
        let (before, metric) = name.rsplit_once('.')?;
        let family = match metric {
            "ok" => Self::LimitWithin,
            "rate_limited" => Self::LimitOver,
            _ => return None,
        };
        let prefix = before.strip_suffix("http_local_rate_limit")?;
        Some((family, prefix.strip_suffix('.')))
    }
}

/// The label in which Envoy names a local limit whose name has no dot.
pub const ENVOY_LIMIT: &str = "envoy.local_http_ratelimit_prefix";

/// Upper bounds of the buckets of all of Istio's histograms (TM-2); the last bucket has none.
pub const BOUNDS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 30000., 60000., 300000., 600000.,
    1800000., 3600000.,
];
/// Number of buckets.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The bucket of [`BOUNDS`] that holds values up to `bound`.
pub fn bucket_of(bound: f64) -> usize {
    BOUNDS.partition_point(|known| *known < bound)
}

/// The value below which the share `quantile` (0 to 1) of all values lies, straight between a bucket's bounds as
/// Prometheus' `histogram_quantile` does it; nothing when there are no values.
pub fn quantile(counts: &[u64; BUCKETS], quantile: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = quantile * total as f64;
    let mut below = 0_u64;
    for (index, count) in counts.iter().enumerate() {
        let upto = below + count;
        if *count > 0 && upto as f64 >= rank {
            let from = index.checked_sub(1).and_then(|i| BOUNDS.get(i)).copied().unwrap_or(0.);
            let Some(to) = BOUNDS.get(index) else { return Some(from) };
            return Some(from + (to - from) * (rank - below as f64) / *count as f64);
        }
        below = upto;
    }
    BOUNDS.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: OB-1
    #[test]
    fn names_are_known_in_envoys_form_too() {
        assert_eq!(Family::of("istio_requests_total"), Some(Family::Requests));
        assert_eq!(Family::of("istiocustom.istio_requests_total"), Some(Family::Requests));
        assert_eq!(Family::of("istiocustom.istio.tcp.sent.bytes.total"), Some(Family::TcpSent));
        assert_eq!(Family::of("istiocustom_istio_request_bytes"), Some(Family::RequestBytes));
        assert_eq!(Family::of("cluster.upstream_rq_total"), None);
    }

    #[test]
    fn envoys_statistics_of_a_local_limit_are_known() {
        let of = Family::of_local_limit;
        assert_eq!(of("shop/a.r.http_local_rate_limit.ok"), Some((Family::LimitWithin, Some("shop/a.r"))));
        assert_eq!(of("http_local_rate_limit.rate_limited"), Some((Family::LimitOver, None)));
        assert_eq!(of("shop/a.http_local_rate_limit.enabled"), None);
        assert_eq!(of("cluster.ok"), None);
    }

    #[test]
    fn quantiles_lie_straight_between_the_bounds() {
        let mut counts = [0; BUCKETS];
        assert_eq!(quantile(&counts, 0.5), None);
        counts[3] = 100;
        assert_eq!(quantile(&counts, 0.5), Some(7.5));
        counts[BUCKETS - 1] = 100;
        assert_eq!(quantile(&counts, 0.99), Some(3_600_000.));
        assert_eq!((bucket_of(10.), bucket_of(0.1), bucket_of(f64::INFINITY)), (3, 0, 19));
    }
}
