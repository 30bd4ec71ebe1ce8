//! A Kubernetes API server: the way to it, and the tokens of service accounts that it checks (CA-8, PI-51).

use crate::tokens::Unproven;
use anyhow::Context as _;
use identity::review::{PATH, ReviewRules, Reviews};
use identity::spiffe::SpiffeId;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, Semaphore};
use tonic::codegen::http;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a question about a token may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most questions at a time.
const MAX_QUESTIONS: usize = 32;

/// A client by a kubeconfig, else as the pod's own service account. Nothing is asked of the server yet.
///
/// # Errors
/// When the kubeconfig cannot be read, or none is given and this is no pod: `otherwise` says how to do without a cluster.
pub async fn connect(kubeconfig: Option<&Path>, otherwise: &str) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            config.with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None => Config::incluster().with_context(|| {
            format!("this is no pod of a cluster: name the API server with --kubeconfig FILE, or {otherwise}")
        })?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("client of the API server")
}

/// Tokens as proof, by TokenReview.
pub struct ReviewedTokens {
    client: Client,
    /// Held for a few instructions, never while the server is asked.
    reviews: Mutex<Reviews>,
    slots: Semaphore,
}

impl ReviewedTokens {
    /// Tokens that the API server behind `client` accepts and that satisfy the rules.
    pub fn new(client: Client, rules: ReviewRules) -> Self {
        Self { client, reviews: Mutex::new(Reviews::new(rules)), slots: Semaphore::new(MAX_QUESTIONS) }
    }

    /// The identity that a token proves.
    ///
    /// # Errors
    /// [`Unproven`] says why it proves none.
    pub async fn identify(&self, token: &str, now: SystemTime) -> Result<SpiffeId, Unproven> {
        if let Some(verdict) = self.reviews.lock().await.known(token, now) {
            return Ok(verdict?);
        }
        let question = self.reviews.lock().await.question(token);
        let answer = tokio::time::timeout(TIMEOUT, self.ask(&question)).await;
        let answer = answer.map_err(|_| Unproven::Unavailable("no answer in time".to_owned()))?;
        let answer = answer.map_err(|error| Unproven::Unavailable(format!("{error:#}")))?;
        Ok(self.reviews.lock().await.handle_answer(token, &answer, now)?)
    }

    async fn ask(&self, question: &Value) -> anyhow::Result<Value> {
        let _slot = self.slots.acquire().await?;
        let request = http::Request::post(PATH).header("content-type", "application/json");
        Ok(self.client.request(request.body(question.to_string().into_bytes())?).await?)
    }
}

impl std::fmt::Debug for ReviewedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReviewedTokens").finish_non_exhaustive()
    }
}
