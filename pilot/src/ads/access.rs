//! Which secrets a caller may have (CA-27): only who has proven an identity gets any, only Secrets of its own namespace,
//! and in a cluster only where its service account may list Secrets there itself.

use super::authenticate::Caller;
use super::session::Grant;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long an answer of the API server holds; open streams ask again after it.
pub const REVIEW_AGE: Duration = Duration::from_secs(60);
/// Longest time that an answer may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that are kept; beyond, those that have aged are forgotten, and then all.
const MAX_REVIEWS: usize = 10_000;

/// Says which secrets a caller may have.
#[derive(Clone)]
pub enum Access {
    /// Objects come from files: the identity's namespace decides.
    Namespace,
    /// The API server decides.
    Cluster(Arc<Reviews>),
}

/// What the API server said.
pub struct Reviews {
    client: Client,
    known: Mutex<HashMap<(String, String), (bool, Instant)>>,
}

impl Access {
    /// Asks the API server behind `client`.
    pub fn of_cluster(client: Client) -> Self {
        Self::Cluster(Arc::new(Reviews { client, known: Mutex::default() }))
    }

    /// What a caller, already admitted as its node, may have. Cancel-safe.
    pub async fn grant(&self, caller: &Caller) -> Grant {
        let Caller::Proven(id) = caller else { return Grant::Nothing };
        let Some((namespace, account)) = id.namespace_and_account() else { return Grant::Nothing };
        let allowed = match self {
            Self::Namespace => true,
            Self::Cluster(reviews) => reviews.may_list_secrets(namespace, account).await,
        };
        if allowed { Grant::All } else { Grant::Authorities }
    }
}

impl Reviews {
    /// An API server that does not answer in time leaves its last answer in force, and denies where it gave none.
    async fn may_list_secrets(&self, namespace: &str, account: &str) -> bool {
        let key = (namespace.to_owned(), account.to_owned());
        let before = self.known.lock().await.get(&key).copied();
        if let Some((allowed, at)) = before.filter(|(_, at)| at.elapsed() < REVIEW_AGE) {
            tracing::trace!(namespace, account, allowed, age = ?at.elapsed(), "known");
            return allowed;
        }
        match tokio::time::timeout(REVIEW_TIMEOUT, self.ask(namespace, account)).await {
            Ok(Ok(allowed)) => {
                if !allowed {
                    tracing::warn!(
                        namespace,
                        account,
                        "may not list secrets in its namespace, and so gets none: give it a Role"
                    );
                }
                let mut known = self.known.lock().await;
                if known.len() >= MAX_REVIEWS {
                    known.retain(|_, (_, at)| at.elapsed() < REVIEW_AGE);
                }
                if known.len() >= MAX_REVIEWS {
                    known.clear();
                }
                known.insert(key, (allowed, Instant::now()));
                allowed
            }
            Ok(Err(error)) => {
                tracing::warn!(namespace, account, %error, "whether it may list secrets is not known");
                before.is_some_and(|(allowed, _)| allowed)
            }
            Err(_) => {
                tracing::warn!(namespace, account, "whether it may list secrets is not known: no answer in time");
                before.is_some_and(|(allowed, _)| allowed)
            }
        }
    }

    async fn ask(&self, namespace: &str, account: &str) -> kube::Result<bool> {
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some("list".to_owned()),
            resource: Some("secrets".to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
