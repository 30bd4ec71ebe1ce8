//! Buckets in virtual time, with a service that the test plays.

use super::client::Joined;
use super::config::{Settings, strategy};
use super::ledger::Ledger;
use super::share::{Share, Strategy};
use super::*;
use crate::env::Instant;
use proto::envoy::http_filters::rate_limit_quota::v3::RateLimitQuotaBucketSettings;
use proto::envoy::http_filters::rate_limit_quota::v3::rate_limit_quota_bucket_settings::{
    self as written, BucketIdBuilder, NoAssignmentBehavior, bucket_id_builder::ValueBuilder,
    bucket_id_builder::value_builder::ValueSpecifier, expired_assignment_behavior,
    expired_assignment_behavior::ExpiredAssignmentBehavior, no_assignment_behavior,
};
use proto::envoy::rate_limit_quota::rate_limit_quota_response::{BucketAction, bucket_action};
use proto::envoy::rate_limit_quota::{BucketId, RateLimitQuotaResponse};
use proto::envoy::types::{RateLimitStrategy, rate_limit_strategy};
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn id() -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), "shop".to_owned())])
}

/// Buckets that are refused until they are assigned something; `expired`: what counts for 5 s after that.
fn settings(expired: Option<ExpiredAssignmentBehavior>) -> Arc<Settings> {
    let blanket = |rule: i32| RateLimitStrategy { strategy: Some(rate_limit_strategy::Strategy::BlanketRule(rule)) };
    let value = ValueBuilder { value_specifier: Some(ValueSpecifier::StringValue("shop".to_owned())) };
    let seconds = |seconds| Some(proto::duration::to_proto(SECOND * seconds));
    let written = RateLimitQuotaBucketSettings {
        bucket_id_builder: Some(BucketIdBuilder { bucket_id_builder: [("name".to_owned(), value)].into() }),
        reporting_interval: seconds(2),
        no_assignment_behavior: Some(NoAssignmentBehavior {
            no_assignment_behavior: Some(no_assignment_behavior::NoAssignmentBehavior::FallbackRateLimit(blanket(1))),
        }),
        expired_assignment_behavior: expired.map(|behavior| written::ExpiredAssignmentBehavior {
            expired_assignment_behavior_timeout: seconds(5),
            expired_assignment_behavior: Some(behavior),
        }),
        ..RateLimitQuotaBucketSettings::default()
    };
    Arc::new(config::settings(&proto::any::pack(&written)).unwrap())
}

fn assign(strategy: rate_limit_strategy::Strategy, ttl: Duration) -> RateLimitQuotaResponse {
    answer(bucket_action::BucketAction::QuotaAssignmentAction(bucket_action::QuotaAssignmentAction {
        assignment_time_to_live: Some(proto::duration::to_proto(ttl)),
        rate_limit_strategy: Some(RateLimitStrategy { strategy: Some(strategy) }),
    }))
}

fn answer(action: bucket_action::BucketAction) -> RateLimitQuotaResponse {
    let bucket_id = Some(BucketId { bucket: id().into_iter().collect() });
    RateLimitQuotaResponse { bucket_action: vec![BucketAction { bucket_id, bucket_action: Some(action) }] }
}

fn two_per_minute() -> rate_limit_strategy::Strategy {
    rate_limit_strategy::Strategy::RequestsPerTimeUnit(rate_limit_strategy::RequestsPerTimeUnit {
        requests_per_time_unit: 2,
        time_unit: 2,
    })
}

/// A ledger with shares of two workers, which have each counted a request.
fn joined(settings: &Arc<Settings>, now: Instant) -> (Ledger, [Arc<Share>; 2]) {
    let mut ledger = Ledger::new("shop".into());
    let shares = [(); 2].map(|()| Arc::new(Share::new(settings.unassigned.fresh())));
    for share in &shares {
        share.take();
        ledger.join(Joined { id: id(), settings: Arc::clone(settings), share: Arc::clone(share) }, now);
    }
    (ledger, shares)
}

// spec: MX-98
#[tokio::test(start_paused = true)]
async fn a_new_bucket_is_announced_and_then_reported_at_its_interval() {
    let now = Instant::now();
    let (mut ledger, shares) = joined(&settings(None), now);
    let first = ledger.reports(now).unwrap();
    assert_eq!((first.domain.as_str(), first.bucket_quota_usages.len()), ("shop", 1));
    let usage = &first.bucket_quota_usages[0];
    assert_eq!((usage.num_requests_allowed, usage.num_requests_denied), (0, 2), "both workers, before an assignment");
    assert!(ledger.reports(now + SECOND).is_none());
    assert_eq!(ledger.next(), Some(now + 2 * SECOND));
    ledger.answer(assign(two_per_minute(), 60 * SECOND), now + SECOND);
    assert!(ledger.reports(now + SECOND).is_some(), "a new assignment is reported at once");
    assert!(shares[0].take() && shares[1].take() && !shares[0].take(), "the tokens are for both workers together");
    ledger.answer(assign(two_per_minute(), 60 * SECOND), now + 2 * SECOND);
    assert!(!shares[1].take(), "what is renewed is not filled again");
    let usage = ledger.reports(now + 3 * SECOND).unwrap().bucket_quota_usages.remove(0);
    assert_eq!((usage.num_requests_allowed, usage.num_requests_denied), (2, 2));
    assert_eq!(usage.time_elapsed.unwrap().seconds, 2);
}

// spec: MX-98
#[tokio::test(start_paused = true)]
async fn an_assignment_whose_time_is_over_is_made_do_with_and_then_abandoned() {
    let now = Instant::now();
    let reuse = ExpiredAssignmentBehavior::ReuseLastAssignment(expired_assignment_behavior::ReuseLastAssignment {});
    let other = ExpiredAssignmentBehavior::FallbackRateLimit(RateLimitStrategy {
        strategy: Some(rate_limit_strategy::Strategy::BlanketRule(0)),
    });
    for (expired, allowed) in [(reuse, 2), (other, 9)] {
        let (mut ledger, shares) = joined(&settings(Some(expired)), now);
        ledger.answer(assign(two_per_minute(), SECOND), now);
        ledger.sweep(now + SECOND);
        assert_eq!((0..9).filter(|_| shares[0].take()).count(), allowed);
        ledger.sweep(now + 6 * SECOND);
        assert!(ledger.next().is_none(), "abandoned");
    }
    let (mut ledger, shares) = joined(&settings(None), now);
    ledger.answer(assign(two_per_minute(), SECOND), now);
    let quotas = Quotas::default();
    let head = crate::message::RequestHead::new(crate::message::Version::H11, b"GET", b"http", b"a", b"/");
    let settings = settings(None);
    let key = || quotas.key(1, settings.id.as_ref().unwrap(), &head).unwrap();
    quotas.keep(key(), Arc::clone(&shares[0]));
    assert!(quotas.take(&key()).is_some());
    ledger.sweep(now + SECOND);
    assert!(quotas.take(&key()).is_none(), "the next request begins anew");
}

// spec: MX-98
#[tokio::test(start_paused = true)]
async fn a_service_can_abandon_a_bucket_and_cannot_assign_nonsense() {
    let now = Instant::now();
    let (mut ledger, shares) = joined(&settings(None), now);
    let nonsense = rate_limit_strategy::Strategy::TokenBucket(proto::envoy::types::TokenBucket::default());
    ledger.answer(assign(nonsense, SECOND), now);
    assert!(!shares[0].take(), "what counted before stays");
    ledger.answer(answer(bucket_action::BucketAction::AbandonAction(bucket_action::AbandonAction {})), now);
    assert!(ledger.next().is_none());
    drop(shares);
    let (mut ledger, shares) = joined(&settings(None), now);
    drop(shares);
    ledger.sweep(now);
    assert!(ledger.next().is_none(), "no worker has it any more");
}

#[test]
fn strategies_are_read() {
    let read = |strategy_written| strategy(&RateLimitStrategy { strategy: strategy_written });
    assert_eq!(read(None), Ok(Strategy::All));
    assert_eq!(read(Some(rate_limit_strategy::Strategy::BlanketRule(1))), Ok(Strategy::Nothing));
    assert_eq!(read(Some(two_per_minute())), Ok(Strategy::Tokens(2, 1, Duration::from_secs(30))));
}
