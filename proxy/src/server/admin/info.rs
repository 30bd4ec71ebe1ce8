//! `/server_info`, `/ready`, `/memory` and what else the process says about itself.

use super::AdminParts;
use crate::bootstrap::{DrainStrategy, Mode, node_json};
use crate::server::answer::{Answer, json, text};
use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// In which stage of its life a process is (spec AD-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Ready.
    Live,
    /// About to end.
    Draining,
    /// Waits for its first clusters.
    PreInitializing,
    /// Waits for its first listeners.
    Initializing,
}

impl Stage {
    /// The name that Envoy gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }

    /// The number that `server.state` shows.
    pub fn number(self) -> u64 {
        match self {
            Self::Live => 0,
            Self::Draining => 1,
            Self::PreInitializing => 2,
            Self::Initializing => 3,
        }
    }
}

/// When the process started, and when it was live.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    started: Instant,
    live_after: Arc<OnceLock<Duration>>,
}

impl Lifecycle {
    /// A process that started then; `stage` says when it is live. Needs a runtime.
    pub fn starting_at(started: Instant, mut stage: watch::Receiver<Stage>) -> Self {
        let live_after = Arc::new(OnceLock::new());
        let known = Arc::clone(&live_after);
        tokio::spawn(async move {
            if stage.wait_for(|stage| *stage == Stage::Live).await.is_ok() {
                // Nobody else writes it.
                let _first = known.set(started.elapsed()).is_ok();
            }
        });
        Self { started, live_after }
    }

    /// How long it took until the process was live; none before.
    pub fn live_after(&self) -> Option<Duration> {
        self.live_after.get().copied()
    }

    /// Whole seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

pub(super) fn server_info(parts: &AdminParts) -> Answer {
    let flags = &parts.bootstrap.flags;
    let uptime = format!("{}s", parts.lifecycle.uptime_s());
    json(&json!({
        "version": version(),
        "state": parts.stage.borrow().name(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "base_id": flags.base_id.unwrap_or(0).to_string(),
            "concurrency": parts.bootstrap.concurrency.get(),
            "config_path": flags.config_path.as_ref().map(|path| path.display().to_string()),
            "config_yaml": flags.config_yaml,
            "admin_address_path": flags.admin_address_path.as_ref().map(|path| path.display().to_string()),
            "log_level": flags.log_level.name(),
            "component_log_level": flags.component_log_level,
            "service_cluster": flags.service_cluster,
            "service_node": flags.service_node,
            "service_zone": flags.service_zone,
            "drain_time": format!("{}s", flags.drain_time_s),
            "drain_strategy": match flags.drain_strategy { DrainStrategy::Gradual => "Gradual", DrainStrategy::Immediate => "Immediate" },
            "parent_shutdown_time": format!("{}s", flags.parent_shutdown_time_s),
            "mode": match flags.mode { Mode::Serve => "Serve", Mode::Validate => "Validate" },
            "disable_hot_restart": flags.disable_hot_restart,
            "restart_epoch": flags.restart_epoch.unwrap_or(0),
        },
        "node": node_json(&parts.bootstrap.node),
    }))
}

/// `ferromesh/0.1.0/…`, in the shape that tools split at slashes: revision, version, status, build type, TLS library.
fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("ferromesh/{}/Clean/{build}/rustls", env!("CARGO_PKG_VERSION"))
}

pub(super) fn ready(parts: &AdminParts) -> Answer {
    let stage = *parts.stage.borrow();
    text(if stage == Stage::Live { 200 } else { 503 }, format!("{}\n", stage.name()))
}

pub(super) fn memory() -> Answer {
    let (resident, data) = memory_bytes();
    json(&json!({"allocated": resident.to_string(), "heap_size": data.to_string()}))
}

/// Resident and data memory of this process, in bytes; zeros where the system does not say.
pub(super) fn memory_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    };
    (bytes("VmRSS"), bytes("VmData"))
}

pub(super) fn init_dump(parts: &AdminParts) -> Answer {
    let waits: &[&str] = match *parts.stage.borrow() {
        Stage::PreInitializing => &["clusters"],
        Stage::Initializing => &["listeners"],
        Stage::Live | Stage::Draining => &[],
    };
    json(&json!({"unready_targets_dumps": waits.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}))
}

pub(super) fn runtime(parts: &AdminParts) -> Answer {
    let values = &parts.bootstrap.runtime;
    let entries: serde_json::Map<_, _> = values
        .iter()
        .map(|(key, value)| {
            (key.clone(), json!({"final_value": value.to_string(), "layer_values": [value.to_string()]}))
        })
        .collect();
    json(&json!({"layers": ["static"], "entries": entries}))
}
