//! pilot's own metrics; names are istiod's (PI-43c). The page `reference/metrics.md` lists them.

use crate::source::{Event, Kind};
use crate::translate::cache::ResourceType;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, PullingGauge, Registry,
};
use std::time::Instant;
use vitals::metric::Register as _;

/// Bounds in seconds: istiod's from 10 ms on, and what a push of ours takes below.
const SECONDS: [f64; 11] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Bounds in bytes, istiod's: 4 MiB is gRPC's own limit.
const BYTES: [f64; 6] = [1.0, 10_000.0, 1_000_000.0, 4_000_000.0, 10_000_000.0, 40_000_000.0];
/// What events are counted as.
const UPDATES: [&str; 4] = ["config", "eds", "svc", "svcdelete"];
/// What a push comes from.
const TRIGGERS: [&str; 7] = ["config", "endpoint", "global", "namespace", "proxy", "secret", "service"];

/// Handles of the metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Connected proxies.
    pub connected: IntGauge,
    /// Responses sent, by type.
    pub pushes: IntCounterVec,
    /// Seconds from a new snapshot, or a question, to the response in the connection's hands, by type.
    pub push_time: HistogramVec,
    /// Seconds that a response waits for the connection.
    pub send_time: Histogram,
    /// Sizes of responses, by type.
    pub config_size: HistogramVec,
    /// Streams that ended by an error of pilot's own.
    pub internal_errors: IntCounter,
    /// Seconds from the first event to its push.
    pub debounce_time: Histogram,
    /// Seconds that a push takes to bring the mesh up to date.
    pub context_init: Histogram,
    /// What pushes come from.
    pub triggers: IntCounterVec,
    /// Services without endpoints.
    pub no_instances: IntGauge,
    /// Resources held.
    pub cached: IntGauge,
    /// Bytes sent, by type.
    pub sent_bytes: IntCounterVec,
    /// Refusals, by type.
    pub rejects: IntCounterVec,
    /// Responses acknowledged late: with a nonce that is not the last.
    pub expired_nonces: IntCounter,
    /// Events taken in, by what they are about.
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
        let time = |name: &str, help: &str| registry.histogram(name, help, &SECONDS);
        let by_type = |name: &str, help: &str, bounds: &[f64]| registry.histograms(name, help, (bounds, &["type"]));
        about(registry)?;
        let metrics = Self {
            push_time: by_type("pilot_xds_push_time", "Seconds from a new snapshot to a response sent", &SECONDS)?,
            send_time: time("pilot_xds_send_time", "Seconds that a response waits for the connection")?,
            config_size: by_type("pilot_xds_config_size_bytes", "Sizes of responses", &BYTES)?,
            internal_errors: registry
                .counter("pilot_total_xds_internal_errors", "Streams that ended by an error of pilot's own")?,
            debounce_time: time("pilot_debounce_time", "Seconds from the first event to its push")?,
            context_init: time("pilot_pushcontext_init_seconds", "Seconds to bring the mesh up to date")?,
            triggers: registry.counters("pilot_push_triggers", "What pushes come from", &["type"])?,
            no_instances: registry.gauge("pilot_eds_no_instances", "Services without endpoints")?,
            cached: registry.gauge("xds_cache_size", "Resources held")?,
            connected: registry.gauge("pilot_xds", "Connected proxies")?,
            pushes: registry.counters("pilot_xds_pushes", "Responses sent", &["type"])?,
            sent_bytes: registry.counters("pilot_xds_sent_bytes_total", "Bytes of responses sent", &["type"])?,
            rejects: registry.counters("pilot_total_xds_rejects", "Responses that proxies refused", &["type"])?,
            expired_nonces: registry.counter("pilot_xds_expired_nonce", "Requests with a stale nonce")?,
            updates: registry.counters("pilot_inbound_updates", "Events taken in", &["type"])?,
            rejected_configs: registry.gauge("pilot_total_rejected_configs", "Objects that are refused now")?,
            services: registry.gauge("pilot_services", "Services known")?,
            virtual_services: registry.gauge("pilot_virt_services", "VirtualServices known")?,
            resources_made: registry
                .counter("pilot_resources_made_total", "Resources made because an input of theirs changed")?,
            convergence: time("pilot_proxy_convergence_time", "Seconds from an event to its snapshots")?,
            duplicate_hosts: registry
                .gauge("pilot_vservice_dup_domain", "Hosts that more than one VirtualService of sidecars has")?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Series that begin at 0: a rate over the first event is not lost.
    fn begin(&self) {
        for kind in ResourceType::ALL.map(label) {
            for counter in [&self.pushes, &self.rejects, &self.sent_bytes] {
                counter.with_label_values(&[&kind]);
            }
            self.push_time.with_label_values(&[&kind]);
            self.config_size.with_label_values(&[&kind]);
        }
        for update in UPDATES {
            self.updates.with_label_values(&[update]);
        }
        for trigger in TRIGGERS {
            self.triggers.with_label_values(&[trigger]);
        }
    }

    /// Counts an event that came in.
    pub(super) fn count_event(&self, event: &Event) {
        let (update, trigger) = match event {
            Event::Synced | Event::Problems(_) => return,
            Event::Mesh(_) | Event::KeySets(_) => ("config", "global"),
            Event::Delete(key) if key.kind == Kind::Service => ("svcdelete", "service"),
            Event::Delete(key) => of_kind(key.kind),
            Event::Upsert(object) => of_kind(object.key.kind),
        };
        self.updates.with_label_values(&[update]).inc();
        self.triggers.with_label_values(&[trigger]).inc();
    }

    /// Counts a response of `bytes` bytes that the connection has taken; it was begun and offered at these times.
    pub fn count_response(&self, kind: ResourceType, bytes: usize, (begun, offered): (Instant, Instant)) {
        let kind = [label(kind)];
        self.pushes.with_label_values(&kind).inc();
        self.sent_bytes.with_label_values(&kind).inc_by(bytes as u64);
        self.config_size.with_label_values(&kind).observe(bytes as f64);
        self.send_time.observe(offered.elapsed().as_secs_f64());
        self.push_time.with_label_values(&kind).observe(begun.elapsed().as_secs_f64());
    }
}

/// What a change of an object is counted as: update, and trigger of a push.
fn of_kind(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::EndpointSlice | Kind::Pod | Kind::Node => ("eds", "endpoint"),
        Kind::Service => ("svc", "service"),
        Kind::ServiceEntry | Kind::WorkloadEntry => ("config", "service"),
        Kind::Secret => ("config", "secret"),
        Kind::Namespace => ("config", "namespace"),
        _ => ("config", "config"),
    }
}

/// A type as istiod's label has it: `cds`.
pub fn label(kind: ResourceType) -> String {
    proto::type_url::short_name(kind.type_url()).to_ascii_lowercase()
}

/// Which pilot this is, and since when.
fn about(registry: &Registry) -> Result<(), prometheus::Error> {
    let version = env!("CARGO_PKG_VERSION");
    let info = registry.keep(IntGaugeVec::new(Opts::new("pilot_info", "Version of this pilot"), &["version"])?)?;
    info.with_label_values(&[version]).set(1);
    let build = IntGaugeVec::new(Opts::new("istio_build", "Component and version"), &["component", "tag"])?;
    registry.keep(build)?.with_label_values(&["pilot", version]).set(1);
    let start = Instant::now();
    let age = Box::new(move || start.elapsed().as_secs_f64());
    registry.register(Box::new(PullingGauge::new("istiod_uptime_seconds", "Seconds since pilot began", age)?))
}
