//! Where a mesh is that a command looks at: a cluster, by way of its API server; a demo on this machine; or addresses.
//!
//! - [`target`]: which pods are meant by a name
//! - [`cluster`]: the way to the pods of a cluster
//! - here: where the parts of the control plane and the proxies answer
//!
//! It knows ports and names. It must never know what is asked.

pub mod cluster;
#[cfg(test)]
pub(crate) mod fake;
pub mod target;

pub use cluster::{Cluster, Where};
pub use target::{Pod, Wanted};

use crate::demo::plan::{MIXER_HTTP, MIXER_MONITORING, PILOT_HTTP};
use crate::{admin, demo};
use anyhow::Context;
use bytes::Bytes;
use proto::wire::{PORT_ADMIN, PORT_CITADEL, PORT_MONITORING};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The demo that is looked at where it runs and nothing is named.
const DEMO: &str = "demo";
/// Port of mixer's page in a pod.
const MIXER_PAGE: u16 = 8080;

/// Bytes both ways, whatever carries them.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a part of a mesh.
pub type Stream = Box<dyn Duplex>;

/// Where the mesh is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct At {
    /// Demo on this machine; without it the cluster of the kubeconfig, or the demo called demo where it runs and no cluster
    /// is named.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kubeconfig", "context"])]
    pub demo: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Which cluster, and where in it the control plane is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Place {
    /// The cluster.
    #[command(flatten)]
    pub at: Where,
    /// Namespace of the control plane.
    #[arg(
        short = 'i',
        long = "istioNamespace",
        alias = "istio-namespace",
        value_name = "NAME",
        default_value = "istio-system"
    )]
    pub control_plane: String,
}

impl Place {
    /// The way there.
    ///
    /// # Errors
    /// Where the kubeconfig cannot be read.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        Cluster::connect(&self.at, &self.control_plane).await
    }
}

/// The way to a mesh.
#[derive(Clone)]
pub enum Reach {
    /// A demo of that name.
    Demo(String),
    /// A cluster.
    Cluster(Cluster),
    /// Nothing was named and nothing runs; why, and what to do.
    Nowhere(String),
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Demo(name) => f.debug_tuple("Demo").field(name).finish(),
            Self::Cluster(_) => f.write_str("Cluster"),
            Self::Nowhere(why) => f.debug_tuple("Nowhere").field(why).finish(),
        }
    }
}

impl At {
    /// The demo of that name.
    pub fn demo(name: &str) -> Self {
        Self { demo: Some(name.to_owned()), ..Self::default() }
    }

    /// Finds the way; nothing is asked yet, so that a command whose addresses are all given needs none.
    pub async fn reach(&self) -> Reach {
        if let Some(demo) = &self.demo {
            return Reach::Demo(demo.clone());
        }
        if !self.place.at.is_named() && demo::directory(DEMO).is_dir() {
            return Reach::Demo(DEMO.to_owned());
        }
        match self.place.cluster().await {
            Ok(cluster) => Reach::Cluster(cluster),
            Err(error) if self.place.at.is_named() => Reach::Nowhere(format!("{error:#}")),
            Err(error) => Reach::Nowhere(format!(
                "no demo runs on this machine, and no cluster is known ({error:#}): start a demo with meshctl demo, name one \
                 with --demo, or name a cluster with --kubeconfig FILE or --context NAME"
            )),
        }
    }

    /// The cluster, for commands that need one.
    ///
    /// # Errors
    /// Where there is none, with the way out.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        anyhow::ensure!(self.demo.is_none(), "this needs a cluster: name one with --kubeconfig FILE or --context NAME");
        self.place.cluster().await
    }
}

/// A part of the control plane, by what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// pilot's debug pages.
    Pilot,
    /// pilot's metrics, and its log level.
    PilotMetrics,
    /// citadel's certificate service.
    Citadel,
    /// citadel's metrics, and its log level.
    CitadelMetrics,
    /// mixer's page.
    MixerPage,
    /// mixer's metrics, and Istio's families merged over all proxies.
    MixerMetrics,
}

/// What is known of a part: its name, the flag that gives its address, its port in a demo, and in a cluster the label `app`
/// of its pods and its port there.
struct Facts {
    name: &'static str,
    flag: &'static str,
    demo_port: u16,
    app: &'static str,
    port: u16,
}

impl Part {
    fn facts(self) -> Facts {
        let of = |name, flag, demo_port, app, port| Facts { name, flag, demo_port, app, port };
        match self {
            Self::Pilot => of("pilot", "--pilot", PILOT_HTTP, "istiod", PILOT_HTTP),
            Self::PilotMetrics => of("pilot", "--pilot", PORT_MONITORING, "istiod", PORT_MONITORING),
            Self::Citadel => of("citadel", "--citadel", PORT_CITADEL, "citadel", PORT_CITADEL),
            Self::CitadelMetrics => of("citadel", "--citadel", PORT_MONITORING, "citadel", PORT_MONITORING),
            Self::MixerPage => of("mixer's page", "--page", MIXER_HTTP, "mixer", MIXER_PAGE),
            Self::MixerMetrics => of("mixer", "--mixer", MIXER_MONITORING, "mixer", PORT_MONITORING),
        }
    }

    /// A stream to it: to this address (`HOST:PORT`, `http://` in front is allowed), or to that of the mesh.
    ///
    /// # Errors
    /// Where nobody answers there; the text says how another address is given.
    pub async fn connect(self, address: Option<&str>, reach: &Reach) -> anyhow::Result<Stream> {
        let Facts { name, flag, demo_port, app, port } = self.facts();
        if let Some(address) = address {
            let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
            let stream = TcpStream::connect(bare).await;
            let stream = stream.with_context(|| format!("no {name} answers at {bare}: {flag} takes HOST:PORT"))?;
            return Ok(Box::new(stream));
        }
        match reach {
            Reach::Demo(demo) => {
                let stream = demo::control_stream(demo, demo_port).await;
                let stream = stream.with_context(|| {
                    format!("{name}: start a demo with meshctl demo, name one with --demo, or give {flag} HOST:PORT")
                })?;
                Ok(Box::new(stream))
            }
            Reach::Cluster(cluster) => {
                let pods = cluster.component(app).await?;
                let pod = pods.first().with_context(|| {
                    format!("no pod of {name} runs in the namespace {}: meshctl install brings it, -i names another namespace", cluster.control_plane)
                })?;
                cluster.forward(pod, port).await
            }
            Reach::Nowhere(why) => anyhow::bail!("{name}: {why}, or give {flag} HOST:PORT"),
        }
    }

    /// One page of it.
    ///
    /// # Errors
    /// Where nobody answers, or with another status than 2xx.
    pub async fn get(self, address: Option<&str>, reach: &Reach, path: &str) -> anyhow::Result<Bytes> {
        admin::get(self.connect(address, reach).await?, path).await
    }

    /// The same, read as JSON.
    ///
    /// # Errors
    /// As for `get`, or where the page is no JSON.
    pub async fn json(self, address: Option<&str>, reach: &Reach, path: &str) -> anyhow::Result<Value> {
        self.read(&self.get(address, reach, path).await?, path)
    }

    fn read(self, bytes: &[u8], path: &str) -> anyhow::Result<Value> {
        serde_json::from_slice(bytes).with_context(|| format!("what {} gives for {path} is no JSON", self.facts().name))
    }

    /// A page of every pod of it in a cluster, for each knows its own proxies; elsewhere of the one that there is.
    ///
    /// # Errors
    /// As for `get`; of several pods those that answer count, where one does.
    pub async fn of_all(
        self,
        address: Option<&str>,
        reach: &Reach,
        path: &str,
    ) -> anyhow::Result<Vec<(String, Bytes)>> {
        let Facts { name, app, port, .. } = self.facts();
        let (None, Reach::Cluster(cluster)) = (address, reach) else {
            return Ok(vec![(name.to_owned(), self.get(address, reach, path).await?)]);
        };
        let pods = cluster.component(app).await?;
        if pods.len() < 2 {
            let pod = pods.first().map_or_else(|| name.to_owned(), |pod| pod.name.clone());
            return Ok(vec![(pod, self.get(None, reach, path).await?)]);
        }
        let (mut pages, mut refused) = (Vec::new(), None);
        for pod in pods {
            let page = async { admin::get(cluster.forward(&pod, port).await?, path).await };
            match page.await {
                Ok(page) => pages.push((pod.name, page)),
                Err(error) => refused = Some(error.context(pod.name)),
            }
        }
        match refused {
            Some(error) if pages.is_empty() => Err(error),
            _ => Ok(pages),
        }
    }

    /// A list that every pod of it has a part of, each entry with `pilot`, who said it.
    ///
    /// # Errors
    /// As for `of_all`, or where it is no list.
    pub async fn list(self, address: Option<&str>, reach: &Reach, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        for (pod, page) in self.of_all(address, reach, path).await? {
            let Value::Array(items) = self.read(&page, path)? else {
                anyhow::bail!("what {} gives for {path} is no list", self.facts().name);
            };
            all.extend(items.into_iter().map(|mut item| {
                if item.is_object() && matches!(reach, Reach::Cluster(_)) {
                    item["pilot"] = pod.clone().into();
                }
                item
            }));
        }
        Ok(all)
    }
}

impl Reach {
    /// A stream to the admin interface of the proxy beside a pod.
    ///
    /// # Errors
    /// Where there is none, or it cannot be reached.
    pub async fn proxy(&self, pod: &Pod) -> anyhow::Result<Stream> {
        match self {
            Self::Demo(demo) => {
                let socket = demo::admin_socket(demo, &pod.name)?;
                let stream = UnixStream::connect(&socket).await.with_context(|| {
                    format!("no proxy answers at {}: is the demo running, and are you root?", socket.display())
                })?;
                Ok(Box::new(stream))
            }
            Self::Cluster(cluster) => cluster.forward(pod, PORT_ADMIN).await,
            Self::Nowhere(why) => anyhow::bail!("{}: {why}", pod.id()),
        }
    }

    /// The pods that are meant: of a demo all of the mesh are looked at, of a cluster those of the name's namespace, or of
    /// `namespace`.
    ///
    /// # Errors
    /// Where there is none, or who knows does not answer.
    pub async fn pods(&self, wanted: &Wanted, namespace: Option<&str>) -> anyhow::Result<Vec<Pod>> {
        let pods = match self {
            Self::Cluster(cluster) => return cluster.pods(wanted, namespace).await,
            _ => Part::Pilot.json(None, self, "/debug/workloadz").await?,
        };
        let pods: Vec<Pod> = serde_json::from_value(pods).context("what pilot gives for /debug/workloadz")?;
        Ok(wanted.of(&pods)?.into_iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        at: At,
    }

    #[tokio::test]
    async fn what_is_named_is_where_it_is_and_nothing_teaches() {
        let reach = async |flags: &[&str]| Flags::parse_from(std::iter::once(&"x").chain(flags)).at.reach().await;
        assert!(matches!(reach(&["--demo", "other"]).await, Reach::Demo(name) if name == "other"));
        let lost = reach(&["--kubeconfig", "/nowhere"]).await;
        assert!(matches!(&lost, Reach::Nowhere(why) if why.contains("--kubeconfig /nowhere")), "{lost:?}");
        let error = Part::Pilot.get(None, &lost, "/ready").await.unwrap_err().to_string();
        assert!(
            error.starts_with("pilot: --kubeconfig /nowhere") && error.ends_with("or give --pilot HOST:PORT"),
            "{error}"
        );
        assert!(Flags::try_parse_from(["x", "--demo", "a", "--context", "b"]).is_err(), "one place");
    }
}
