//! Where the parts of a mesh answer: those of a demo, or at an address that was given.

use crate::demo::plan::{MIXER_HTTP, MIXER_MONITORING, PILOT_HTTP};
use crate::{admin, demo};
use anyhow::Context;
use bytes::Bytes;
use proto::wire::{PORT_CITADEL, PORT_MONITORING};
use tokio::net::TcpStream;

/// A part of the control plane, by what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// pilot's debug pages.
    Pilot,
    /// pilot's metrics.
    PilotMetrics,
    /// citadel's certificate service.
    Citadel,
    /// mixer's page.
    MixerPage,
    /// mixer's metrics, and Istio's families merged over all proxies.
    MixerMetrics,
}

impl Part {
    /// Its port in a demo, its name, and the flag that gives its address.
    fn facts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Pilot => (PILOT_HTTP, "pilot", "--pilot"),
            Self::PilotMetrics => (PORT_MONITORING, "pilot", "--pilot"),
            Self::Citadel => (PORT_CITADEL, "citadel", "--citadel"),
            Self::MixerPage => (MIXER_HTTP, "mixer's page", "--page"),
            Self::MixerMetrics => (MIXER_MONITORING, "mixer", "--mixer"),
        }
    }

    /// A stream to it: to this address (`HOST:PORT`, `http://` in front is allowed), or to the demo's.
    ///
    /// # Errors
    /// Where nobody answers there; the text says how another address is given.
    pub async fn connect(self, address: Option<&str>, demo: &str) -> anyhow::Result<TcpStream> {
        let (port, name, flag) = self.facts();
        match address {
            Some(address) => {
                let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
                let stream = TcpStream::connect(bare).await;
                stream.with_context(|| format!("no {name} answers at {bare}: {flag} takes HOST:PORT"))
            }
            None => {
                let stream = demo::control_stream(demo, port).await;
                stream.with_context(|| {
                    format!("{name}: start a demo with meshctl demo, name one with --demo, or give {flag} HOST:PORT")
                })
            }
        }
    }

    /// One page of it.
    ///
    /// # Errors
    /// Where nobody answers, or with another status than 2xx.
    pub async fn get(self, address: Option<&str>, demo: &str, path: &str) -> anyhow::Result<Bytes> {
        admin::get(self.connect(address, demo).await?, path).await
    }

    /// The same, read as JSON.
    ///
    /// # Errors
    /// As for `get`, or where the page is no JSON.
    pub async fn json(self, address: Option<&str>, demo: &str, path: &str) -> anyhow::Result<serde_json::Value> {
        let bytes = self.get(address, demo, path).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("what {} gives for {path} is no JSON", self.facts().1))
    }
}
