//! Callers with a token of a Kubernetes service account, which its API server checks (spec CA-8).

use crate::authenticate::{Unauthenticated, token};
use identity::review::{PATH, ReviewRules, Reviews};
use identity::spiffe::SpiffeId;
use kube::Client;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, Semaphore};
use tonic::metadata::MetadataMap;

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

    /// The identity of the token in `authorization: Bearer …`.
    ///
    /// # Errors
    /// [`Unauthenticated`] says why, for the log only.
    pub async fn identify(&self, metadata: &MetadataMap, now: SystemTime) -> Result<SpiffeId, Unauthenticated> {
        let token = token::bearer(metadata)?;
        if let Some(verdict) = self.reviews.lock().await.known(token, now) {
            return Ok(verdict?);
        }
        let question = self.reviews.lock().await.question(token);
        let answer = tokio::time::timeout(TIMEOUT, self.ask(&question)).await;
        let answer = answer.map_err(|_| Unauthenticated::Unavailable("no answer in time".to_owned()))?;
        let answer = answer.map_err(|error| Unauthenticated::Unavailable(format!("{error:#}")))?;
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
