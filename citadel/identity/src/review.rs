//! Tokens that a Kubernetes API server checks: what it is asked (TokenReview), what its answer proves, and for how long
//! the answer holds (spec CA-8, PI-51). The driver sends the question and keeps the time.
//!
//! The server alone knows whether the pod to which a token is bound still lives. So an answer is believed for
//! [`KEPT`] only, and never beyond the token's own end; a server keeps its own good answers for 10 s as well.

use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a TokenReview is posted.
pub const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// How long a good answer is believed: the certificate request and the stream of a proxy that starts cost one question.
pub const KEPT: Duration = Duration::from_secs(10);
/// How long a refusal is believed: who asks in a loop costs the API server one question in this time.
pub const REFUSED_KEPT: Duration = Duration::from_secs(2);
/// Most answers that are kept. Beyond it all are forgotten, which costs questions alone.
pub const MAX_KEPT: usize = 10_000;
/// Longest token that is asked about, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Where an answer names the pod to which a token is bound.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The API server does not accept it: forged, ended, or bound to what is gone.
    #[error("the API server does not accept it: {0}")]
    Refused(String),
    /// It is for somebody else.
    #[error("it is for audiences {0:?}")]
    Audience(Vec<String>),
    /// It is no service account's.
    #[error("{0:?} is no service account")]
    Account(String),
    /// It is bound to no pod, so that nothing would end it early.
    #[error("it is bound to no pod: use a projected token")]
    Unbound,
    /// Namespace or account is no identity.
    #[error(transparent)]
    Identity(#[from] SpiffeError),
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("it has {0} bytes: 16384 are allowed")]
    TooLong(usize),
}

/// What a token must satisfy beyond the API server's own checks.
#[derive(Debug, Clone)]
pub struct ReviewRules {
    /// Audiences of which it must have one.
    pub audiences: Vec<String>,
    /// Trust domain of service accounts.
    pub domain: TrustDomain,
    /// Also take tokens that are bound to no pod, as those of virtual machines are.
    pub unbound: bool,
}

/// The answers of a while.
#[derive(Debug)]
pub struct Reviews {
    rules: ReviewRules,
    kept: HashMap<[u8; 32], Kept>,
}

#[derive(Debug)]
struct Kept {
    verdict: Result<SpiffeId, ReviewError>,
    until: SystemTime,
}

impl Reviews {
    /// No answers yet.
    pub fn new(rules: ReviewRules) -> Self {
        Self { rules, kept: HashMap::new() }
    }

    /// The answer that is still believed, if there is one.
    pub fn known(&self, token: &str, now: SystemTime) -> Option<Result<SpiffeId, ReviewError>> {
        if token.len() > MAX_TOKEN_BYTES {
            return Some(Err(ReviewError::TooLong(token.len())));
        }
        self.kept.get(&hash(token)).filter(|kept| now < kept.until).map(|kept| kept.verdict.clone())
    }

    /// What the API server is asked: the body for [`PATH`].
    pub fn question(&self, token: &str) -> Value {
        json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": self.rules.audiences},
        })
    }

    /// Takes in its answer, and says what it proves.
    ///
    /// # Errors
    /// [`ReviewError`] says why it proves nothing.
    pub fn handle_answer(&mut self, token: &str, answer: &Value, now: SystemTime) -> Result<SpiffeId, ReviewError> {
        let verdict = self.judge(answer);
        let until = match &verdict {
            Ok(_) => ends(token).map_or(now + KEPT, |end| end.min(now + KEPT)),
            Err(_) => now + REFUSED_KEPT,
        };
        if self.kept.len() >= MAX_KEPT {
            self.kept.retain(|_, kept| now < kept.until);
        }
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        self.kept.insert(hash(token), Kept { verdict: verdict.clone(), until });
        verdict
    }

    fn judge(&self, answer: &Value) -> Result<SpiffeId, ReviewError> {
        let status = &answer["status"];
        if status["authenticated"] != true {
            let error = status["error"].as_str().unwrap_or("no reason given");
            return Err(ReviewError::Refused(error.chars().take(256).collect()));
        }
        // A server that knows nothing of audiences names none: then the token is its own.
        let audiences = texts(&status["audiences"]);
        if !audiences.iter().any(|audience| self.rules.audiences.contains(audience)) {
            return Err(ReviewError::Audience(audiences));
        }
        let user = status["user"]["username"].as_str().unwrap_or_default();
        let parts = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let (namespace, account) = parts.ok_or_else(|| ReviewError::Account(user.to_owned()))?;
        let extra = &status["user"]["extra"];
        let bound = [POD_NAME, POD_UID].iter().all(|name| !texts(&extra[*name]).is_empty());
        if !bound && !self.rules.unbound {
            return Err(ReviewError::Unbound);
        }
        Ok(SpiffeId::service_account(&self.rules.domain, namespace, account)?)
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Tokens themselves are not kept.
fn hash(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// When a token says that it ends. Only asked of tokens that the API server has accepted.
fn ends(token: &str) -> Option<SystemTime> {
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims["exp"].as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews(unbound: bool) -> Reviews {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        Reviews::new(ReviewRules { audiences: vec!["istio-ca".to_owned()], domain, unbound })
    }

    fn accepted() -> Value {
        json!({"status": {
            "authenticated": true, "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:reviews",
                "extra": {POD_NAME: ["reviews-1"], POD_UID: ["f0e1"]},
            },
        }})
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    // spec: CA-8, PI-51
    #[test]
    fn an_answer_names_the_service_account() {
        let id = reviews(false).handle_answer("t", &accepted(), now()).unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        let asked = reviews(false).question("t");
        assert_eq!((&asked["spec"]["token"], &asked["spec"]["audiences"][0]), (&json!("t"), &json!("istio-ca")));
    }

    // spec: CA-8, PI-51
    #[test]
    fn what_is_not_for_us_or_bound_to_no_pod_proves_nothing() {
        let judge = |change: &dyn Fn(&mut Value), unbound| {
            let mut answer = accepted();
            change(&mut answer["status"]);
            reviews(unbound).handle_answer("t", &answer, now())
        };
        let refused = judge(&|s| *s = json!({"authenticated": false, "error": "token has expired"}), false);
        assert_eq!(refused, Err(ReviewError::Refused("token has expired".into())));
        for audiences in [json!([]), json!(["api"]), Value::Null] {
            let verdict = judge(&|s| s["audiences"] = audiences.clone(), false);
            assert!(matches!(verdict, Err(ReviewError::Audience(_))), "{audiences}");
        }
        for user in ["admin", "system:serviceaccount:shop", "system:node:a"] {
            let verdict = judge(&|s| s["user"]["username"] = user.into(), false);
            assert!(matches!(verdict, Err(ReviewError::Account(_))), "{user}");
        }
        let smuggled = judge(&|s| s["user"]["username"] = "system:serviceaccount:a/sa/b:c".into(), false);
        assert!(matches!(smuggled, Err(ReviewError::Identity(_))));
        let unbound = |s: &mut Value| s["user"]["extra"] = json!({});
        assert_eq!(judge(&unbound, false), Err(ReviewError::Unbound));
        judge(&unbound, true).unwrap();
    }

    #[test]
    fn an_answer_is_believed_for_a_while_and_never_beyond_the_tokens_end() {
        let mut all = reviews(false);
        let second = Duration::from_secs(1);
        assert_eq!(all.known("t", now()), None);
        all.handle_answer("t", &accepted(), now()).unwrap();
        assert!(all.known("t", now() + KEPT - second).unwrap().is_ok());
        assert_eq!(all.known("t", now() + KEPT), None);
        assert_eq!(all.known("other", now()), None);
        let ending = format!("h.{}.s", URL_SAFE_NO_PAD.encode(json!({"exp": 1_000_003}).to_string()));
        all.handle_answer(&ending, &accepted(), now()).unwrap();
        assert!(all.known(&ending, now() + second * 2).is_some());
        assert_eq!(all.known(&ending, now() + second * 3), None);
        all.handle_answer("bad", &json!({}), now()).unwrap_err();
        assert!(all.known("bad", now() + second).unwrap().is_err());
        assert_eq!(all.known("bad", now() + REFUSED_KEPT), None);
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert!(matches!(all.known(&long, now()), Some(Err(ReviewError::TooLong(_)))), "nobody is asked");
    }

    #[test]
    fn the_answers_are_bounded() {
        let mut all = reviews(false);
        for number in 0..=MAX_KEPT {
            all.handle_answer(&number.to_string(), &json!({}), now()).unwrap_err();
        }
        assert!(all.kept.len() <= MAX_KEPT, "{}", all.kept.len());
    }
}
