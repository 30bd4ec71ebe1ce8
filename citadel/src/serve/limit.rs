//! How many certificates one identity gets: a token bucket each, so that one broken workload cannot starve the others.

use identity::spiffe::SpiffeId;
use std::collections::HashMap;
use std::time::SystemTime;
use tokio::sync::Mutex;

/// Most identities that are remembered; beyond it those with a full bucket are forgotten.
const MAX_IDENTITIES: usize = 20_000;
/// Certificates at once, as a multiple of those per second: replicas of one account start together.
const BURST: f64 = 10.0;

/// Buckets by identity.
#[derive(Debug)]
pub struct IdentityLimits {
    per_second: f64,
    buckets: Mutex<HashMap<SpiffeId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    updated: SystemTime,
}

impl IdentityLimits {
    /// `per_second` certificates per identity in the long run.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one token of the caller; false when it has none left. The lock is held for a few instructions.
    pub async fn admit(&self, caller: &SpiffeId, now: SystemTime) -> bool {
        let mut buckets = self.buckets.lock().await;
        let full = self.per_second * BURST;
        if buckets.len() >= MAX_IDENTITIES {
            buckets.retain(|_, bucket| self.filled(*bucket, now) < full);
        }
        let bucket = buckets.entry(caller.clone()).or_insert(Bucket { tokens: full, updated: now });
        bucket.tokens = self.filled(*bucket, now);
        bucket.updated = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    fn filled(&self, bucket: Bucket, now: SystemTime) -> f64 {
        let passed = now.duration_since(bucket.updated).unwrap_or_default().as_secs_f64();
        (bucket.tokens + passed * self.per_second).min(self.per_second * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn admitted(limits: &IdentityLimits, caller: &SpiffeId, now: SystemTime) -> usize {
        let mut count = 0;
        for _ in 0..100 {
            count += usize::from(limits.admit(caller, now).await);
        }
        count
    }

    // bar: C5
    #[tokio::test]
    async fn one_identity_cannot_use_up_the_share_of_another() {
        let limits = IdentityLimits::new(2);
        let (greedy, quiet) = (SpiffeId::parse("spiffe://a/b").unwrap(), SpiffeId::parse("spiffe://a/c").unwrap());
        let now = SystemTime::now();
        assert_eq!(admitted(&limits, &greedy, now).await, 20);
        assert!(limits.admit(&quiet, now).await);
        let later = now + Duration::from_secs(1);
        assert_eq!(admitted(&limits, &greedy, later).await, 2);
    }
}
