//! Istio's own control plane drives our proxies: a real istiod, installed by Istio's charts in a cluster, injects our proxy
//! into pods, and the scenarios of our own mesh are run on it as they stand. `make e2e-istiod` runs them; they need root
//! and Go, and cold istiod is built first.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

mod certificates;
#[path = "../kube/images.rs"]
#[expect(dead_code, reason = "here is neither a stock Envoy nor an upgrade")]
mod images;
#[path = "../kube/scenarios/jobs.rs"]
mod jobs;
#[path = "../kube/scenarios/load.rs"]
mod load;
mod mesh;
mod metrics;
#[path = "../kube/scenarios/ports.rs"]
mod ports;
#[path = "../kube/scenarios/security.rs"]
mod security;
#[path = "../kube/scenarios/space.rs"]
mod space;
#[path = "../kube/scenarios/traffic.rs"]
mod traffic;
mod verdict;
