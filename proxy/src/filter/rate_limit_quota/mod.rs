//! `envoy.filters.http.rate_limit_quota`: requests are told apart into buckets, and a service assigns to each bucket what
//! this proxy may let through (MX-98). No request waits for the service.
//!
//! What a worker knows of a bucket is its [`Share`]: a rule that it reads and two counters that it alone writes, all of
//! them atomics. The owner of a filter's buckets ([`client`]) runs on one worker: it reports what all shares have
//! counted, and puts what the service assigns into all of them. A token bucket is one for all workers.
//!
//! - `config.rs`: the filter's configuration
//! - `share.rs`: a bucket as a worker has it
//! - `ledger.rs`: what is to be reported when, and what an answer means; no I/O
//! - `client.rs`: the stream to the service

mod client;
mod config;
mod ledger;
mod share;

pub use config::{Override, parse, parse_override};
pub use share::Quotas;

use super::{Decision, Step, StreamCx, grpc_reply, is_grpc, plain};
use crate::message::Request;
use crate::message::matcher::Tree;
use crate::net::Service;
use crate::outcome::{Outcome, Reason};
use arc_swap::ArcSwapOption;
use client::{Joined, Mailbox};
use config::Settings;
use share::Share;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The filter's name, under which routes have their own buckets.
pub const NAME: &str = "envoy.filters.http.rate_limit_quota";

/// Share of requests: so many of so many.
type Fraction = (u64, u64);

/// The filter.
#[derive(Debug)]
pub struct RateLimitQuota {
    /// Its own among all filters: shares are kept under it.
    id: u64,
    service: Service,
    domain: Box<str>,
    tree: Tree<Arc<Settings>>,
    enabled: Fraction,
    enforced: Fraction,
    joining: mpsc::Sender<Joined>,
    /// What the owner reads, until the first worker with a new bucket starts it.
    mailbox: ArcSwapOption<Mailbox>,
}

impl RateLimitQuota {
    /// Cluster of the service.
    pub fn cluster(&self) -> &str {
        &self.service.cluster
    }

    pub(super) fn on_request<'a>(&'a self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Override>(&rq.head, NAME);
        let tree = own.as_ref().map_or(&self.tree, |own| &own.tree);
        let hit = |(numerator, denominator)| cx.facts.env.chance(numerator, denominator);
        let Some(settings) = tree.find(&rq.head).filter(|_| hit(self.enabled)) else { return Step::CONTINUE };
        if self.take(settings, rq, cx) || !hit(self.enforced) {
            return Step::CONTINUE;
        }
        cx.note(Outcome::with_detail(Reason::QuotaUsedUp, &*self.domain));
        let deny = &settings.deny;
        let mut response = if is_grpc(&rq.head) {
            grpc_reply(deny.grpc_status, &deny.grpc_message)
        } else {
            plain(deny.status, deny.body.clone(), &rq.head)
        };
        for (name, value) in &deny.headers {
            response.head.headers.append(name, value);
        }
        Step::Done(Decision::Reply(Box::new(response)))
    }

    /// Counts a request, and says whether it may pass.
    fn take(&self, settings: &Arc<Settings>, rq: &Request, cx: &StreamCx) -> bool {
        // What cannot be told apart is not reported: it has the rule of what has no assignment.
        let Some(parts) = &settings.id else { return settings.unassigned.take() };
        let quotas = &cx.facts.leases.quotas;
        // Without the header that a bucket is named by there is no bucket (Envoy lets such a request pass).
        let Some(key) = quotas.key(self.id, parts, &rq.head) else { return true };
        if let Some(allowed) = quotas.take(&key) {
            return allowed;
        }
        let share = Arc::new(Share::new(settings.unassigned.fresh()));
        let allowed = share.take();
        let id = parts.iter().filter_map(|part| part.pair(&rq.head)).collect();
        let joined = Joined { id, settings: Arc::clone(settings), share: Arc::clone(&share) };
        self.start(cx);
        // Where too many buckets are new at once, the next request of this one tries again.
        if self.joining.try_send(joined).is_ok() {
            quotas.keep(key, share);
        }
        allowed
    }

    /// Starts the owner of the buckets, where no worker has done so.
    fn start(&self, cx: &StreamCx) {
        let Some(mailbox) = self.mailbox.swap(None).and_then(Arc::into_inner) else { return };
        let owner = client::own(std::rc::Rc::clone(&cx.facts), self.service.clone(), self.domain.clone(), mailbox);
        tokio::task::spawn_local(owner);
    }
}

#[cfg(test)]
mod tests;
