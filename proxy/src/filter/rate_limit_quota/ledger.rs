//! What is to be reported when, and what an answer means: the states of buckets, driven by events and `now`.
//!
//! A bucket has no assignment, then one, then one whose time is over; then it is abandoned, and the next request into it
//! begins anew. Reports go out at once when a bucket is new and when its rule changes, else at its interval.

use super::client::Joined;
use super::config::{Settings, strategy};
use super::share::{Rule, Share, Strategy};
use crate::env::Instant;
use foldhash::HashMap;
use proto::envoy::rate_limit_quota::rate_limit_quota_response::bucket_action::{
    BucketAction as Action, QuotaAssignmentAction,
};
use proto::envoy::rate_limit_quota::rate_limit_quota_usage_reports::BucketQuotaUsage;
use proto::envoy::rate_limit_quota::{BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Buckets of one filter that are reported; what is beyond has the rule of what has no assignment.
const MAX_BUCKETS: usize = 10_000;

/// A bucket's id, in order.
pub(super) type Id = BTreeMap<String, String>;

/// All buckets of a filter.
#[derive(Debug)]
pub(super) struct Ledger {
    domain: Box<str>,
    buckets: HashMap<Id, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    settings: Arc<Settings>,
    shares: Vec<Arc<Share>>,
    /// What shares counted that are gone.
    before: (u64, u64),
    reported: (u64, u64),
    reported_at: Instant,
    due: Instant,
    rule: Rule,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Unassigned,
    /// What is assigned, and until when; none: for ever.
    Assigned(Strategy, Option<Instant>),
    Expired(Instant),
}

impl Ledger {
    pub(super) fn new(domain: Box<str>) -> Self {
        Self { domain, buckets: HashMap::default() }
    }

    /// A worker has met a bucket.
    pub(super) fn join(&mut self, joined: Joined, now: Instant) {
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&joined.id) {
            tracing::debug!(domain = &*self.domain, "more than {MAX_BUCKETS} buckets: this one is not reported");
            return;
        }
        let settings = joined.settings;
        let bucket = self.buckets.entry(joined.id).or_insert_with(|| Bucket {
            rule: settings.unassigned.fresh(),
            settings,
            shares: Vec::new(),
            before: (0, 0),
            reported: (0, 0),
            reported_at: now,
            due: now,
            phase: Phase::Unassigned,
        });
        match bucket.shares.first() {
            // The worker that was first made the rule: what it took stays taken.
            None => bucket.rule = joined.share.rule(),
            Some(_) => joined.share.set(bucket.rule.clone()),
        }
        bucket.shares.push(joined.share);
    }

    /// The service has answered.
    pub(super) fn answer(&mut self, answer: RateLimitQuotaResponse, now: Instant) {
        for action in answer.bucket_action {
            let id: Id = action.bucket_id.into_iter().flat_map(|id| id.bucket).collect();
            match action.bucket_action {
                Some(Action::AbandonAction(_)) => self.abandon(&id),
                Some(Action::QuotaAssignmentAction(assigned)) => {
                    if let Some(bucket) = self.buckets.get_mut(&id) {
                        bucket.assign(&assigned, now);
                    }
                }
                None => {}
            }
        }
    }

    fn abandon(&mut self, id: &Id) {
        let gone = self.buckets.remove(id);
        gone.iter().flat_map(|bucket| &bucket.shares).for_each(|share| share.abandon());
    }

    /// Ends what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        let over: Vec<Id> =
            self.buckets.iter_mut().filter_map(|(id, bucket)| bucket.ends(now).then(|| id.clone())).collect();
        over.iter().for_each(|id| self.abandon(id));
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.buckets.values().map(|bucket| bucket.ends_at().map_or(bucket.due, |end| end.min(bucket.due))).min()
    }

    /// The reports that are due; `None` where none is.
    pub(super) fn reports(&mut self, now: Instant) -> Option<RateLimitQuotaUsageReports> {
        let due = self.buckets.iter_mut().filter(|(_, bucket)| bucket.due <= now);
        let usages: Vec<BucketQuotaUsage> = due.map(|(id, bucket)| bucket.report(id, now)).collect();
        let domain = self.domain.to_string();
        (!usages.is_empty()).then_some(RateLimitQuotaUsageReports { domain, bucket_quota_usages: usages })
    }

    /// A new stream: the service is told of all buckets at once.
    pub(super) fn announce(&mut self, now: Instant) {
        self.buckets.values_mut().for_each(|bucket| bucket.due = now);
    }
}

impl Bucket {
    fn assign(&mut self, assigned: &QuotaAssignmentAction, now: Instant) {
        let written = assigned.rate_limit_strategy.as_ref();
        let strategy = match written.map(strategy).transpose() {
            Ok(strategy) => strategy.unwrap_or(Strategy::All),
            Err(refusal) => {
                tracing::warn!(%refusal, "the rate limit quota service assigns what cannot be: what counted before stays");
                return;
            }
        };
        let until = assigned.assignment_time_to_live.as_ref().map(|time| now + proto::duration::from_proto(time));
        let same = matches!(self.phase, Phase::Assigned(before, _) if before == strategy);
        self.phase = Phase::Assigned(strategy, until);
        if !same {
            self.set(strategy.rule());
            self.due = now;
        }
    }

    fn set(&mut self, rule: Rule) {
        self.shares.iter().for_each(|share| share.set(rule.clone()));
        self.rule = rule;
    }

    fn ends_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Unassigned => None,
            Phase::Assigned(_, until) => until,
            Phase::Expired(until) => Some(until),
        }
    }

    /// Whether the bucket is to be abandoned.
    fn ends(&mut self, now: Instant) -> bool {
        // A worker that has forgotten its share has no more of it.
        self.shares.retain(|share| {
            let used = Arc::strong_count(share) > 1;
            if !used {
                let (allowed, denied) = share.counted();
                self.before = (self.before.0 + allowed, self.before.1 + denied);
            }
            used
        });
        if self.shares.is_empty() {
            return true;
        }
        if self.ends_at().is_none_or(|end| now < end) {
            return false;
        }
        match (self.phase, self.settings.expired) {
            (Phase::Assigned(..), Some((time, rule))) if !time.is_zero() => {
                self.phase = Phase::Expired(now + time);
                if let Some(strategy) = rule {
                    self.set(strategy.rule());
                }
                false
            }
            _ => true,
        }
    }

    fn report(&mut self, id: &Id, now: Instant) -> BucketQuotaUsage {
        let total = self.shares.iter().fold(self.before, |sum, share| {
            let (allowed, denied) = share.counted();
            (sum.0 + allowed, sum.1 + denied)
        });
        let usage = BucketQuotaUsage {
            bucket_id: Some(BucketId { bucket: id.clone().into_iter().collect() }),
            time_elapsed: Some(proto::duration::to_proto(
                now.saturating_duration_since(self.reported_at).max(Duration::from_nanos(1)),
            )),
            num_requests_allowed: total.0.saturating_sub(self.reported.0),
            num_requests_denied: total.1.saturating_sub(self.reported.1),
        };
        self.reported = total;
        self.reported_at = now;
        self.due = now + self.settings.interval;
        usage
    }
}
