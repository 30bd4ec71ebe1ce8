//! PeerAuthentication as meant: which mode holds for a workload and for each of its ports (spec 1.11).

use super::check::Check;
use crate::registry::entry::selects;
use crate::source::{Key, Object, Problem};
use proto::istio::peer_authentication as written;
use proto::istio::peer_authentication::MutualTlsMode;
use std::collections::BTreeMap;

/// Which connections a port accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Mode {
    /// Plain only.
    Disable,
    /// Plain and mesh mTLS.
    Permissive,
    /// Mesh mTLS only.
    Strict,
}

fn mode(written: MutualTlsMode) -> Option<Mode> {
    match written {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(Mode::Disable),
        MutualTlsMode::Permissive => Some(Mode::Permissive),
        MutualTlsMode::Strict => Some(Mode::Strict),
    }
}

/// One PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// The object.
    pub key: Key,
    /// Workloads it is for; empty: its whole scope.
    pub selector: BTreeMap<String, String>,
    /// The mode; none: inherited.
    pub mode: Option<Mode>,
    /// Modes of ports of the workload; none: the workload's mode.
    pub ports: BTreeMap<u16, Option<Mode>>,
}

/// Parses, and so validates, a PeerAuthentication.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(object: &Object, spec: &written::PeerAuthentication) -> Result<PeerAuthentication, Vec<Problem>> {
    let mut check = Check::new(object);
    let selector = spec.selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default();
    let mut ports = BTreeMap::new();
    for (text, tls) in &spec.port_level_mtls {
        match text.parse::<u16>() {
            Ok(port) if port > 0 => {
                ports.insert(port, mode(tls.mode));
            }
            _ => check.semantic(format!("spec.portLevelMtls.{text}"), format!("{text:?} is no port")),
        }
    }
    check.require(ports.is_empty() || !selector.is_empty(), "spec.portLevelMtls", "it needs a selector");
    let mode = spec.mtls.as_ref().and_then(|tls| mode(tls.mode));
    check.finish(PeerAuthentication { key: object.key.clone(), selector, mode, ports })
}

/// All policies of the mesh, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    policies: Vec<PeerAuthentication>,
    root: String,
}

/// What holds for one workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Effective {
    /// The mode of ports that are not named.
    pub mode: Mode,
    /// The modes of the others.
    pub ports: BTreeMap<u16, Mode>,
}

impl Effective {
    /// The mode of a port of the workload.
    pub fn of_port(&self, port: u16) -> Mode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

impl Policies {
    /// Policies that come oldest first.
    pub fn new(policies: Vec<PeerAuthentication>, root: &str) -> Self {
        Self { policies, root: root.to_owned() }
    }

    /// What holds for a workload: mesh, then namespace, then workload; the oldest wins inside a scope (PA-1 to PA-3).
    pub fn effective(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Effective {
        let in_scope = |policy: &&PeerAuthentication| {
            (&*policy.key.namespace == namespace || *policy.key.namespace == self.root)
                && selects(&policy.selector, labels)
        };
        let mut relevant = self.policies.iter().filter(in_scope);
        let (mut mesh, mut own, mut workload) = (None, None, None);
        for policy in relevant.by_ref() {
            let slot = if !policy.selector.is_empty() {
                &mut workload
            } else if *policy.key.namespace == self.root {
                &mut mesh
            } else {
                &mut own
            };
            slot.get_or_insert(policy);
        }
        let mut mode = Mode::Permissive;
        for policy in [mesh, own, workload].into_iter().flatten() {
            mode = policy.mode.unwrap_or(mode);
        }
        let ports =
            workload.map(|policy| policy.ports.iter().map(|(port, own)| (*port, own.unwrap_or(mode))).collect());
        Effective { mode, ports: ports.unwrap_or_default() }
    }

    /// Whether any policy turns mesh mTLS off somewhere: else no endpoint need be looked at (PA-6).
    pub fn any_disables(&self) -> bool {
        let disables = |policy: &PeerAuthentication| {
            policy.mode == Some(Mode::Disable) || policy.ports.values().any(|mode| *mode == Some(Mode::Disable))
        };
        self.policies.iter().any(disables)
    }
}
