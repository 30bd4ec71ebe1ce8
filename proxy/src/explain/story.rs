//! What is said about the way of a request.

use serde::Serialize;
use std::fmt;

/// The way of one request.
#[derive(Debug, Default, Serialize)]
pub struct Story {
    /// The request, as it was understood.
    pub request: String,
    /// What decided, in order.
    pub steps: Vec<Step>,
    /// What comes of it.
    pub outcome: Outcome,
    /// Parts of the configuration that this proxy does not understand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_understood: Vec<String>,
}

/// One decision.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Step {
    /// Where it was made: `listener`, `filter chain`, `policy`, `route`, `cluster`, `endpoint`, `tls`.
    pub station: &'static str,
    /// What was chosen, or what decided.
    pub name: String,
    /// `matched`, `passed`, `denied`, `asks`, `may`, `failed`.
    pub verdict: &'static str,
    /// Why, in one sentence.
    pub because: String,
    /// The object that made it, as `VirtualService/ns/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

/// What comes of a request.
#[derive(Debug, Default, Serialize, PartialEq)]
pub struct Outcome {
    /// Status that the proxy itself answers with; none where the server answers.
    pub status: Option<u16>,
    /// Response flags, `-` for none.
    pub flags: String,
    /// Response code details.
    pub details: String,
    /// The cluster, or the clusters with their shares.
    pub clusters: Vec<Share>,
    /// Endpoints of the first cluster.
    pub endpoints: Vec<Endpoint>,
}

/// A cluster that a request may go to.
#[derive(Debug, Default, Serialize, PartialEq)]
pub struct Share {
    /// Its name.
    pub cluster: String,
    /// Its share, in percent.
    pub percent: f64,
}

/// An endpoint.
#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: String,
    /// Its health.
    pub health: String,
    /// How it is spoken to: `mTLS`, `TLS` or `plaintext`.
    pub transport: String,
}

impl Story {
    pub(super) fn step(
        &mut self,
        station: &'static str,
        name: impl Into<String>,
        verdict: &'static str,
        because: impl Into<String>,
    ) {
        self.steps.push(Step { station, name: name.into(), verdict, because: because.into(), object: None });
    }

    /// Names the object behind the last step.
    pub(super) fn made_by(&mut self, object: Option<String>) {
        if let Some(step) = self.steps.last_mut() {
            step.object = object;
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        for step in &self.steps {
            let object = step.object.as_ref().map(|object| format!("  [{object}]")).unwrap_or_default();
            writeln!(f, "  {:<13} {:<8} {}: {}{object}", step.station, step.verdict, step.name, step.because)?;
        }
        match self.outcome.status {
            Some(status) => writeln!(f, "  => {status} {} {}", self.outcome.flags, self.outcome.details)?,
            None => {
                for share in &self.outcome.clusters {
                    writeln!(f, "  => {:.1} % to {}", share.percent, share.cluster)?;
                }
            }
        }
        for endpoint in &self.outcome.endpoints {
            writeln!(f, "     {} {} {}", endpoint.address, endpoint.health, endpoint.transport)?;
        }
        for part in &self.not_understood {
            writeln!(f, "  not understood: {part}")?;
        }
        Ok(())
    }
}
