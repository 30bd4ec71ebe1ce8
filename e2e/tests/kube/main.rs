//! On real Kubernetes. `make e2e-kube` runs them; they need root, and cold the programs of the cluster are built first.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

mod agent;
mod arms;
mod charts;
mod faults;
mod identity;
mod images;
mod injection;
mod install;
mod nodes;
mod openshift;
mod operate;
mod policies;
mod revisions;
mod scenarios;
mod secrets;
mod status;
mod support;
