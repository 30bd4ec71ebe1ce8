//! The rate limit quota service: `envoy.service.rate_limit_quota.v3` (MX-98), the one leased limit that a real Envoy
//! supports.
//!
//! A client reports what its buckets were asked for; each report is answered with the bucket's share of the limit that
//! the same configuration has for descriptors: domain, and the bucket's id as the entries of a descriptor in any order.
//! One task owns all shares. Every mixer splits among its own clients: put one in front of a limit, or use the rate
//! limit service with Redis where the limit must hold over several mixers.

use crate::ratelimit::domain::{Entry, Limit};
use crate::ratelimit::limiter::Limiter;
use crate::ratelimit::share::{ClientId, Shares};
use futures_util::{Stream, StreamExt as _};
use proto::envoy::rate_limit_quota::rate_limit_quota_response::BucketAction;
use proto::envoy::rate_limit_quota::rate_limit_quota_response::bucket_action::{
    AbandonAction, BucketAction as Action, QuotaAssignmentAction,
};
use proto::envoy::rate_limit_quota::rate_limit_quota_service_server::{
    RateLimitQuotaService, RateLimitQuotaServiceServer,
};
use proto::envoy::rate_limit_quota::rate_limit_quota_usage_reports::BucketQuotaUsage;
use proto::envoy::rate_limit_quota::{BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports};
use proto::envoy::types::rate_limit_strategy::{BlanketRule, Strategy};
use proto::envoy::types::{RateLimitStrategy, TokenBucket};
use proto::envoy::wkt;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long an assignment holds; every report renews it.
const ASSIGNED_FOR: Duration = Duration::from_secs(60);
/// Reports without a request after which a client forgets a bucket.
const IDLE_REPORTS: u32 = 10;
/// A report of less time is the announcement of a bucket.
const ANNOUNCEMENT: Duration = Duration::from_millis(100);
/// The most buckets that are shared at a time.
const MAX_BUCKETS: usize = 100_000;
/// Reports that may wait, and answers that a client may leave unread.
const WAITING: usize = 256;

/// The service.
#[derive(Debug, Clone)]
pub struct RateLimitQuotas {
    events: mpsc::Sender<Event>,
}

/// A bucket: its domain, and its id in order.
type Bucket = (String, Vec<Entry>);
/// The answers to a client.
type Answers = mpsc::Sender<Result<RateLimitQuotaResponse, Status>>;

#[derive(Debug)]
enum Event {
    Joined(Answers, tokio::sync::oneshot::Sender<ClientId>),
    Reported(ClientId, String, Vec<BucketQuotaUsage>),
    Left(ClientId),
}

impl RateLimitQuotas {
    /// Starts the owner of all shares; needs a runtime of tokio.
    pub fn start(limiter: Arc<Limiter>) -> Self {
        let (events, mut happened) = mpsc::channel(WAITING);
        let mut owner = Owner { limiter, clients: HashMap::new(), buckets: HashMap::new(), next: 0 };
        tokio::spawn(async move {
            while let Some(event) = happened.recv().await {
                owner.handle(event);
            }
        });
        Self { events }
    }

    /// For the gRPC server.
    pub fn service(self) -> RateLimitQuotaServiceServer<Self> {
        RateLimitQuotaServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl RateLimitQuotaService for RateLimitQuotas {
    type StreamRateLimitQuotasStream =
        Pin<Box<dyn Stream<Item = Result<RateLimitQuotaResponse, Status>> + Send + 'static>>;

    async fn stream_rate_limit_quotas(
        &self,
        request: Request<Streaming<RateLimitQuotaUsageReports>>,
    ) -> Result<Response<Self::StreamRateLimitQuotasStream>, Status> {
        let ended = || Status::unavailable("mixer stops");
        let (answers, answered) = mpsc::channel(WAITING);
        let (told, client) = tokio::sync::oneshot::channel();
        self.events.send(Event::Joined(answers, told)).await.map_err(|_| ended())?;
        let client = client.await.map_err(|_| ended())?;
        let events = self.events.clone();
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            // Only the first report of a stream names the domain.
            let mut domain = String::new();
            while let Some(Ok(report)) = reports.next().await {
                if !report.domain.is_empty() {
                    domain = report.domain;
                }
                if events.send(Event::Reported(client, domain.clone(), report.bucket_quota_usages)).await.is_err() {
                    return;
                }
            }
            let _stopping = events.send(Event::Left(client)).await.is_err();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }
}

/// What the owner has.
struct Owner {
    limiter: Arc<Limiter>,
    clients: HashMap<ClientId, Answers>,
    buckets: HashMap<Bucket, Shared>,
    next: ClientId,
}

/// A bucket that clients share.
struct Shared {
    shares: Shares,
    interval: Duration,
    idle: HashMap<ClientId, u32>,
}

impl Owner {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Joined(answers, told) => {
                self.next += 1;
                self.clients.insert(self.next, answers);
                // Whoever joined may have gone meanwhile: then its stream ends, and it leaves.
                let _gone = told.send(self.next).is_err();
            }
            Event::Left(client) => self.leave(client),
            Event::Reported(client, domain, usages) => {
                for usage in usages {
                    self.report(client, &domain, &usage);
                }
            }
        }
    }

    fn leave(&mut self, client: ClientId) {
        self.clients.remove(&client);
        let mut told = Vec::new();
        for (bucket, shared) in &mut self.buckets {
            if shared.idle.remove(&client).is_some() {
                shared.shares.leave(client);
                told.extend(shared.shares.split().into_iter().map(|share| (bucket.1.clone(), share, shared.interval)));
            }
        }
        self.buckets.retain(|_, shared| !shared.shares.is_empty());
        for (id, (other, share), interval) in told {
            self.tell(other, &id, strategy(share, interval));
        }
    }

    fn report(&mut self, client: ClientId, domain: &str, usage: &BucketQuotaUsage) {
        let id: BTreeMap<_, _> = usage.bucket_id.iter().flat_map(|id| id.bucket.clone()).collect();
        let id: Vec<Entry> = id.into_iter().collect();
        let Some((limit, per_unit)) = self.limit(domain, &id) else {
            return self.tell(client, &id, None);
        };
        let key = (domain.to_owned(), id.clone());
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            tracing::warn!(domain, "more than {MAX_BUCKETS} buckets: the client's own default counts");
            return;
        }
        let interval = limit.unit.length();
        let shared = self.buckets.entry(key).or_insert_with(|| Shared {
            shares: Shares::new(per_unit),
            interval,
            idle: HashMap::new(),
        });
        shared.interval = interval;
        shared.shares.set_limit(per_unit);
        let requests = usage.num_requests_allowed.saturating_add(usage.num_requests_denied);
        let idle = shared.idle.entry(client).or_default();
        *idle = if requests == 0 { *idle + 1 } else { 0 };
        let abandoned = *idle > IDLE_REPORTS;
        if abandoned {
            shared.idle.remove(&client);
            shared.shares.leave(client);
        } else {
            let elapsed = usage.time_elapsed.as_ref().map(proto::duration::from_proto).unwrap_or_default();
            let elapsed = if elapsed < ANNOUNCEMENT { Duration::from_secs(1) } else { elapsed };
            shared.shares.report(client, requests, elapsed);
        }
        let mut told = shared.shares.split();
        // Whoever reports is told in any case: that renews its assignment.
        told.extend(shared.shares.told(client).map(|share| (client, share)).filter(|own| !told.contains(own)));
        for (other, share) in told {
            self.tell(other, &id, strategy(share, interval));
        }
        if abandoned {
            self.send(client, &id, Action::AbandonAction(AbandonAction {}));
        }
    }

    fn limit(&self, domain: &str, id: &[Entry]) -> Option<(Arc<Limit>, u64)> {
        let domain = self.limiter.domain(domain)?;
        let limit = domain.limit_of_set(&mut id.to_vec())?.clone();
        let per_unit = limit.per_unit.filter(|_| !limit.shadow)?;
        Some((limit, per_unit.into()))
    }

    /// Assigns a strategy; none lets everything through.
    fn tell(&self, client: ClientId, id: &[Entry], strategy: Option<RateLimitStrategy>) {
        let action = QuotaAssignmentAction {
            assignment_time_to_live: Some(proto::duration::to_proto(ASSIGNED_FOR)),
            rate_limit_strategy: strategy,
        };
        self.send(client, id, Action::QuotaAssignmentAction(action));
    }

    fn send(&self, client: ClientId, id: &[Entry], action: Action) {
        let bucket_id = Some(BucketId { bucket: id.iter().cloned().collect() });
        let action = BucketAction { bucket_id, bucket_action: Some(action) };
        if let Some(answers) = self.clients.get(&client) {
            // One that reads nothing keeps its last assignment until that runs out.
            let _slow = answers.try_send(Ok(RateLimitQuotaResponse { bucket_action: vec![action] })).is_err();
        }
    }
}

/// A share as a strategy that Envoy knows.
fn strategy(share: u64, interval: Duration) -> Option<RateLimitStrategy> {
    let strategy = match u32::try_from(share).unwrap_or(u32::MAX) {
        0 => Strategy::BlanketRule(BlanketRule::DenyAll.into()),
        tokens => Strategy::TokenBucket(TokenBucket {
            max_tokens: tokens,
            tokens_per_fill: Some(wkt::UInt32Value { value: tokens }),
            fill_interval: Some(proto::duration::to_proto(interval)),
        }),
    };
    Some(RateLimitStrategy { strategy: Some(strategy) })
}
