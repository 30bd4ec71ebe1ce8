//! Where configurations come from: a running pilot, or a directory before it is applied.

use crate::offline::Offline;
use crate::reach::{Part, Reach};
use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A workload of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Workload {
    /// Name of its pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// As pilot names its proxy: `NAME.NAMESPACE`.
    pub fn id(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// Its SPIFFE id.
    pub fn identity(&self, trust_domain: &str) -> String {
        let account = if self.service_account.is_empty() { "default" } else { &self.service_account };
        format!("spiffe://{trust_domain}/ns/{}/sa/{account}", self.namespace)
    }

    /// How well a name fits: its pod's name, what its pod's name begins with, its label `app`; `.NAMESPACE` may follow, and
    /// `deploy/` or `pod/` stand in front of it.
    fn fits(&self, name: &str) -> Option<u8> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let own = |name: &str| {
            let begins = self.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
            let app = self.labels.get("app").is_some_and(|app| app == name);
            if self.name == name { Some(0) } else { begins.then_some(1).or_else(|| app.then_some(2)) }
        };
        let short = name.strip_suffix(&self.namespace).and_then(|rest| rest.strip_suffix('.'));
        own(name).or_else(|| own(short?))
    }
}

/// What a pilot that runs says.
#[derive(Debug)]
pub struct Running {
    /// Its address; that of the mesh where none is given.
    pub address: Option<String>,
    /// The mesh.
    pub reach: Reach,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    workloads: Vec<Workload>,
    objects: Vec<Value>,
}

impl Running {
    /// Asks for workloads and objects.
    ///
    /// # Errors
    /// Where pilot does not answer.
    pub async fn open(address: Option<String>, reach: Reach, trust_domain: String) -> anyhow::Result<Self> {
        let workloads = Part::Pilot.json(address.as_deref(), &reach, "/debug/workloadz").await?;
        let workloads = serde_json::from_value(workloads).context("what pilot gives for /debug/workloadz")?;
        let objects = match Part::Pilot.json(address.as_deref(), &reach, "/debug/configz").await? {
            Value::Array(objects) => objects,
            _ => Vec::new(),
        };
        Ok(Self { address, reach, trust_domain, workloads, objects })
    }
}

/// Where configurations come from.
#[derive(Debug)]
pub enum Source {
    /// A running pilot.
    Running(Box<Running>),
    /// A directory.
    Offline(Box<Offline>),
}

impl Source {
    /// All workloads.
    pub fn workloads(&self) -> &[Workload] {
        match self {
            Self::Running(running) => &running.workloads,
            Self::Offline(offline) => offline.workloads(),
        }
    }

    /// The workload that a name fits best.
    ///
    /// # Errors
    /// Where there is none; the text lists those that exist.
    pub fn workload(&self, name: &str) -> anyhow::Result<&Workload> {
        let fitting = self.workloads().iter().filter_map(|workload| Some((workload.fits(name)?, workload)));
        let best = fitting.min_by(|(a, x), (b, y)| (a, &x.name, &x.namespace).cmp(&(b, &y.name, &y.namespace)));
        best.map(|(_, workload)| workload).with_context(|| {
            let mut known: Vec<String> = self.workloads().iter().map(Workload::id).collect();
            known.sort();
            known.dedup();
            match known.is_empty() {
                true => format!("no workload {name:?}: there is none at all; --from names a Pod or a WorkloadEntry"),
                false => format!("no workload {name:?}: --from takes one of {}", known.join(", ")),
            }
        })
    }

    /// The workload at an address.
    pub fn at(&self, address: IpAddr) -> Option<&Workload> {
        let same = |own: &String| own.parse::<IpAddr>().is_ok_and(|own| own == address);
        self.workloads().iter().find(|workload| workload.addresses.iter().any(same))
    }

    /// What the workload's proxy is told, as pilot's `/debug/config_dump` shows it; none where it has no proxy.
    ///
    /// # Errors
    /// Where pilot does not answer.
    pub async fn configuration(&self, workload: &Workload) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Offline(offline) if !offline.has_proxy(workload) => Ok(None),
            Self::Offline(offline) => Ok(Some(serde_json::to_vec(&offline.dump(workload))?)),
            Self::Running(running) => {
                let path = format!("/debug/config_dump?proxyID={}", encoded(&workload.id()));
                match Part::Pilot.of_all(running.address.as_deref(), &running.reach, &path).await {
                    Ok(mut pages) => Ok(pages.pop().map(|(_, page)| page.to_vec())),
                    Err(error) if format!("{error:#}").contains("is not connected") => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// File and line of an object, `Kind/namespace/name`.
    pub fn written(&self, object: &str) -> Option<(String, Option<u64>)> {
        let mut parts = object.splitn(3, '/');
        let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        match self {
            Self::Offline(offline) => offline.written(kind, namespace, name),
            Self::Running(running) => {
                let same =
                    |value: &&Value| value["kind"] == kind && value["namespace"] == namespace && value["name"] == name;
                let found = running.objects.iter().find(same)?;
                Some((found["file"].as_str()?.to_owned(), found["line"].as_u64()))
            }
        }
    }

    /// Trust domain of the mesh.
    pub fn trust_domain(&self) -> &str {
        match self {
            Self::Running(running) => &running.trust_domain,
            Self::Offline(offline) => offline.trust_domain(),
        }
    }
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_named_by_pod_deployment_or_app() {
        let labels = BTreeMap::from([("app".to_owned(), "reviews".to_owned())]);
        let workload =
            Workload { name: "reviews-v1-0".into(), namespace: "shop".into(), labels, ..Workload::default() };
        assert_eq!(workload.fits("reviews-v1-0.shop"), Some(0));
        assert_eq!(workload.fits("reviews-v1"), Some(1));
        assert_eq!(workload.fits("reviews.shop"), Some(1));
        assert_eq!(workload.fits("deploy/reviews-v1.shop"), Some(1));
        assert_eq!(workload.fits("review"), None);
        assert_eq!(workload.fits("reviews.other"), None);
        assert_eq!(workload.identity("td"), "spiffe://td/ns/shop/sa/default");
    }
}
