//! The stream to the rate limit quota service: one per filter, on the worker that met the first bucket.
//!
//! While the service is away reports wait: what is counted is not lost, and assignments hold for as long as they were
//! given.

use super::config::Settings;
use super::ledger::{Id, Ledger};
use super::share::Share;
use crate::env::Instant;
use crate::filter::Facts;
use crate::net::Service;
use crate::upstream::{Method, Pipe, framed};
use bytes::Bytes;
use prost::Message as _;
use proto::envoy::rate_limit_quota::RateLimitQuotaResponse;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const PATH: &str = "/envoy.service.rate_limit_quota.v3.RateLimitQuotaService/StreamRateLimitQuotas";
/// Buckets that may wait to be known.
pub(super) const WAITING: usize = 1024;
/// Answers that may wait to be read.
const ANSWERS: usize = 64;
/// Time between two streams to a service that ends them.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What the owner of a filter's buckets reads.
#[derive(Debug)]
pub(super) struct Mailbox(pub(super) mpsc::Receiver<Joined>);

/// A worker has met a bucket.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) id: Id,
    pub(super) settings: Arc<Settings>,
    pub(super) share: Arc<Share>,
}

/// An open stream.
struct Stream {
    pipe: Rc<Pipe>,
    answers: mpsc::Receiver<Bytes>,
}

/// Owns the buckets of a filter until the filter is gone.
pub(super) async fn own(facts: Rc<Facts>, service: Service, domain: Box<str>, mut mailbox: Mailbox) {
    let mut ledger = Ledger::new(domain);
    let mut stream: Option<Stream> = None;
    let mut reopen = Instant::now();
    loop {
        let now = Instant::now();
        ledger.sweep(now);
        if stream.is_none() && reopen <= now && ledger.next().is_some() {
            reopen = now + REOPEN_AFTER;
            stream = open(&facts, &service);
            ledger.announce(now);
        }
        if let Some(open) = &stream
            && let Some(reports) = ledger.reports(now)
            && !framed(&reports.encode_to_vec()).is_ok_and(|message| open.pipe.push(message))
        {
            stream = None;
            continue;
        }
        let due = ledger.next().map(|next| if stream.is_some() { next } else { next.max(reopen) });
        tokio::select! {
            joined = mailbox.0.recv() => match joined {
                Some(joined) => ledger.join(joined, Instant::now()),
                None => break,
            },
            answer = next_answer(stream.as_mut()) => match answer.map(RateLimitQuotaResponse::decode) {
                Some(Ok(answer)) => ledger.answer(answer, Instant::now()),
                Some(Err(error)) => tracing::warn!(cluster = &*service.cluster, %error, "quota service: unreadable"),
                None => stream = None,
            },
            () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some() => {}
        }
    }
    if let Some(stream) = stream {
        stream.pipe.end();
    }
}

fn open(facts: &Rc<Facts>, service: &Service) -> Option<Stream> {
    let cluster = facts.clusters.get(&service.cluster)?;
    let (sender, answers) = mpsc::channel(ANSWERS);
    let method = Method { cluster: &cluster, authority: &service.authority, path: PATH, metadata: &[] };
    Some(Stream { pipe: Pipe::open(method, Some(sender)), answers })
}

/// The next answer; `None` when the stream is over.
async fn next_answer(stream: Option<&mut Stream>) -> Option<Bytes> {
    match stream {
        Some(stream) => stream.answers.recv().await,
        None => std::future::pending().await,
    }
}
