//! Tokens of Kubernetes service accounts, which the API server checks (PI-51).

use identity::review::{PATH, ReviewRules, Reviews};
use identity::spiffe::SpiffeId;
use kube::Client;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, Semaphore};
use tonic::Status;
use tonic::codegen::http;

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most questions at a time.
const MAX_QUESTIONS: usize = 32;

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
    /// `Unauthenticated` with what is wrong; `Unavailable` when the API server cannot be asked.
    pub async fn identify(&self, token: &str, now: SystemTime) -> Result<SpiffeId, Status> {
        let refused = |error| Status::unauthenticated(format!("token: {error}"));
        if let Some(verdict) = self.reviews.lock().await.known(token, now) {
            return verdict.map_err(refused);
        }
        let question = self.reviews.lock().await.question(token);
        let answer = tokio::time::timeout(TIMEOUT, self.ask(&question)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time"))).map_err(|error| {
            tracing::warn!("a token cannot be checked: {error:#}");
            Status::unavailable("tokens cannot be checked now: try again")
        })?;
        self.reviews.lock().await.handle_answer(token, &answer, now).map_err(refused)
    }

    async fn ask(&self, question: &Value) -> anyhow::Result<Value> {
        let _slot = self.slots.acquire().await?;
        let request = http::Request::post(PATH).header("content-type", "application/json");
        Ok(self.client.request(request.body(question.to_string().into_bytes())?).await?)
    }
}
