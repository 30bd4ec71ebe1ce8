//! pilot's own metrics; names are istiod's (PI-43c).

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Handles of the metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connected proxies.
    pub connected: IntGauge,
    /// Responses sent, by type.
    pub pushes: IntCounterVec,
    /// Bytes sent, by type.
    pub sent_bytes: IntCounterVec,
    /// Refusals, by type.
    pub rejects: IntCounterVec,
    /// Responses acknowledged late: with a nonce that is not the last.
    pub expired_nonces: IntCounter,
    /// Events taken in, by kind of object.
    pub updates: IntCounterVec,
    /// Objects that are refused now.
    pub rejected_configs: IntGauge,
    /// Services.
    pub services: IntGauge,
    /// VirtualServices.
    pub virtual_services: IntGauge,
    /// Resources made.
    pub resources_made: IntCounter,
    /// Time from an event to the snapshots that hold it.
    pub convergence: Histogram,
    /// VirtualServices whose host an older one has already.
    pub duplicate_hosts: IntGauge,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        fn keep<C: prometheus::core::Collector + Clone + 'static>(
            registry: &Registry,
            metric: C,
        ) -> Result<C, prometheus::Error> {
            registry.register(Box::new(metric.clone())).map(|()| metric)
        }
        let buckets = vec![0.001, 0.003, 0.005, 0.01, 0.03, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0];
        let info = IntGaugeVec::new(Opts::new("pilot_info", "Version of this pilot"), &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        keep(registry, info)?;
        Ok(Self {
            connected: keep(registry, IntGauge::new("pilot_xds", "Connected proxies")?)?,
            pushes: keep(registry, IntCounterVec::new(Opts::new("pilot_xds_pushes", "Responses sent"), &["type"])?)?,
            sent_bytes: keep(
                registry,
                IntCounterVec::new(Opts::new("pilot_xds_sent_bytes_total", "Bytes of responses sent"), &["type"])?,
            )?,
            rejects: keep(
                registry,
                IntCounterVec::new(Opts::new("pilot_total_xds_rejects", "Responses that proxies refused"), &["type"])?,
            )?,
            expired_nonces: keep(registry, IntCounter::new("pilot_xds_expired_nonce", "Requests with a stale nonce")?)?,
            updates: keep(
                registry,
                IntCounterVec::new(Opts::new("pilot_inbound_updates", "Events taken in"), &["type"])?,
            )?,
            rejected_configs: keep(
                registry,
                IntGauge::new("pilot_total_rejected_configs", "Objects that are refused now")?,
            )?,
            services: keep(registry, IntGauge::new("pilot_services", "Services known")?)?,
            virtual_services: keep(registry, IntGauge::new("pilot_virt_services", "VirtualServices known")?)?,
            resources_made: keep(
                registry,
                IntCounter::new("pilot_resources_made_total", "Resources made because an input of theirs changed")?,
            )?,
            convergence: keep(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new("pilot_proxy_convergence_time", "Seconds from an event to its snapshots")
                        .buckets(buckets),
                )?,
            )?,
            duplicate_hosts: keep(
                registry,
                IntGauge::new("pilot_vservice_dup_domain", "Hosts that more than one VirtualService of sidecars has")?,
            )?,
        })
    }
}
