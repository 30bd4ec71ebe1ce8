//! Who is behind an address: the workloads of the mesh, as pilot knows them (MX-106).
//!
//! pilot serves the table as JSON at `/debug/workloadz` and holds a request open until it changes
//! (`Prefer: wait=SECONDS`, RFC 7240; `If-None-Match`, RFC 9110). mixer joins reports and decisions by this table and
//! so needs no call per request.

use crate::pilot::Pilot;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Where pilot serves the table.
const PATH: &str = "/debug/workloadz";

/// A workload: a pod, or a machine that a WorkloadEntry names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Name of the pod or entry.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its service account.
    pub service_account: String,
    /// Its SPIFFE id, by the trust domain of the mesh.
    pub identity: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What owns it: the name of the Deployment, StatefulSet …
    pub workload: String,
    /// Its cluster.
    pub cluster: String,
    /// Host names of the services that it serves.
    pub services: Vec<String>,
}

/// All workloads, found by address or by name.
#[derive(Debug, Default)]
pub struct Table {
    workloads: Vec<Arc<Workload>>,
    by_address: HashMap<IpAddr, usize>,
    by_name: HashMap<(String, String), usize>,
}

impl Table {
    /// A table of these; of two with one address the later one counts.
    pub fn new(workloads: Vec<Workload>) -> Self {
        let mut table = Self::default();
        for workload in workloads {
            let index = table.workloads.len();
            table.by_address.extend(workload.addresses.iter().map(|address| (*address, index)));
            table.by_name.insert((workload.namespace.clone(), workload.name.clone()), index);
            table.workloads.push(Arc::new(workload));
        }
        table
    }

    /// The workload that has this address.
    pub fn by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.get(*self.by_address.get(&address)?)
    }

    /// The workload of this name.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(*self.by_name.get(&(namespace.to_owned(), name.to_owned()))?)
    }

    /// All, in pilot's order.
    pub fn all(&self) -> &[Arc<Workload>] {
        &self.workloads
    }
}

/// The table as it is now, kept up to date; when pilot is away, the last good one.
#[derive(Debug, Clone)]
pub struct Follower {
    table: watch::Receiver<Arc<Table>>,
    heard: watch::Receiver<Heard>,
}

/// How it stands with pilot.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// When it answered last.
    at: Option<Instant>,
    /// Whether it did not answer when it was asked last.
    failing: bool,
}

impl Follower {
    /// A table that never changes.
    pub fn fixed(table: Table) -> Self {
        Self { table: watch::channel(Arc::new(table)).1, heard: watch::channel(Heard::default()).1 }
    }

    /// Follows pilot's table; the second value does so for ever.
    pub fn new(pilot: Pilot) -> (Self, impl Future<Output = ()>) {
        let (tables, table) = watch::channel(Arc::default());
        let (hearing, heard) = watch::channel(Heard::default());
        (Self { table, heard }, follow(pilot, tables, hearing))
    }

    /// The table.
    pub fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// What is wrong with pilot, in words; nothing while it answers.
    pub fn complaint(&self) -> Option<String> {
        let heard = *self.heard.borrow();
        heard.failing.then(|| match heard.at {
            None => "pilot has not answered yet: names come from reports alone.".to_owned(),
            Some(at) => {
                let age = at.elapsed().as_secs();
                format!("pilot has not answered for {age} s: workloads and objects are as it said last.")
            }
        })
    }

    /// Waits until the table is another one.
    pub async fn changed(&mut self) {
        // The one who follows never ends: its sender stays.
        let _gone = self.table.changed().await.is_err();
    }
}

async fn follow(pilot: Pilot, tables: watch::Sender<Arc<Table>>, heard: watch::Sender<Heard>) {
    let told = |answer: Result<Option<Vec<Workload>>, ()>| match answer {
        Ok(changed) => {
            heard.send_replace(Heard { at: Some(Instant::now()), failing: false });
            if let Some(workloads) = changed {
                tables.send_replace(Arc::new(Table::new(workloads)));
            }
        }
        Err(()) => heard.send_modify(|heard| heard.failing = true),
    };
    pilot.follow_for_ever(PATH, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MX-106
    #[test]
    fn a_workload_is_found_by_address_and_by_name() {
        let text = r#"[{"name":"v1-0","namespace":"shop","addresses":["10.0.0.1","fd00::1"],"serviceAccount":"reviews",
            "labels":{"app":"reviews"},"workload":"v1","cluster":"c","services":["reviews.shop.svc.cluster.local"]}]"#;
        let table = Table::new(serde_json::from_str(text).unwrap());
        let found = table.by_address("fd00::1".parse().unwrap()).unwrap();
        assert_eq!((found.service_account.as_str(), found.labels["app"].as_str()), ("reviews", "reviews"));
        assert_eq!(table.by_name("shop", "v1-0"), Some(found));
        assert_eq!(table.by_name("other", "v1-0"), None);
        assert_eq!(table.by_address("10.0.0.2".parse().unwrap()), None);
    }
}
