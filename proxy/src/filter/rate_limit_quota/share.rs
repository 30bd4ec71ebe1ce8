//! A bucket as one worker has it.

use super::config::Part;
use crate::filter::local_ratelimit::Bucket;
use crate::message::RequestHead;
use arc_swap::ArcSwap;
use foldhash::HashMap;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Buckets that a worker knows; beyond, those that came first are forgotten, and join again with their next request.
const MAX_SHARES: usize = 10_000;

/// What is let through, as configured or assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    All,
    Nothing,
    /// Tokens at most, tokens per fill, time between two fills.
    Tokens(u32, u32, Duration),
}

impl Strategy {
    /// The strategy at work, with a bucket that is full.
    pub(super) fn rule(self) -> Rule {
        match self {
            Self::All => Rule::All,
            Self::Nothing => Rule::Nothing,
            Self::Tokens(max, per_fill, interval) => Rule::Tokens(Arc::new(Bucket::new(max, per_fill, interval))),
        }
    }
}

/// What is let through; a bucket is shared by all who have a clone.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    All,
    Nothing,
    Tokens(Arc<Bucket>),
}

impl Rule {
    pub(super) fn take(&self) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Tokens(bucket) => bucket.take(),
        }
    }
}

/// What one worker knows of a bucket. The worker alone writes the counters, the owner of the bucket alone the rest.
#[derive(Debug)]
pub(super) struct Share {
    rule: ArcSwap<Rule>,
    allowed: AtomicU64,
    denied: AtomicU64,
    /// The bucket is abandoned: the next request begins anew.
    gone: AtomicBool,
}

impl Share {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule: ArcSwap::from_pointee(rule),
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        }
    }

    /// Counts a request, and says whether it may pass.
    pub(super) fn take(&self) -> bool {
        let allowed = self.rule.load().take();
        let counter = if allowed { &self.allowed } else { &self.denied };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        allowed
    }

    /// Requests until now: let through, and refused.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.allowed.load(Ordering::Relaxed), self.denied.load(Ordering::Relaxed))
    }

    pub(super) fn rule(&self) -> Rule {
        self.rule.load().as_ref().clone()
    }

    pub(super) fn set(&self, rule: Rule) {
        self.rule.store(Arc::new(rule));
    }

    pub(super) fn abandon(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

/// The shares of one worker.
#[derive(Debug, Default)]
pub struct Quotas {
    shares: RefCell<HashMap<Rc<[u8]>, Arc<Share>>>,
    /// Keys, the oldest first.
    order: RefCell<VecDeque<Rc<[u8]>>>,
    /// Where keys are made: none is allocated for a bucket that is known.
    scratch: RefCell<Vec<u8>>,
}

impl Quotas {
    /// The key of a request's bucket; `None` where it lacks a header that it is named by.
    pub(super) fn key(&self, filter: u64, parts: &[Part], head: &RequestHead) -> Option<Key<'_>> {
        let mut out = self.scratch.take();
        out.clear();
        out.extend_from_slice(&filter.to_be_bytes());
        let named = parts.iter().all(|part| part.write(head, &mut out));
        let key = Key { bytes: out, of: self };
        named.then_some(key)
    }

    /// Counts a request of a bucket that is known, and says whether it may pass.
    pub(super) fn take(&self, key: &Key<'_>) -> Option<bool> {
        let shares = self.shares.borrow();
        shares.get(&*key.bytes).filter(|share| !share.gone.load(Ordering::Acquire)).map(|share| share.take())
    }

    pub(super) fn keep(&self, key: Key<'_>, share: Arc<Share>) {
        let key: Rc<[u8]> = key.bytes.as_slice().into();
        let (mut shares, mut order) = (self.shares.borrow_mut(), self.order.borrow_mut());
        if shares.insert(Rc::clone(&key), share).is_none() {
            order.push_back(key);
        }
        while order.len() > MAX_SHARES {
            if let Some(oldest) = order.pop_front() {
                shares.remove(&oldest);
            }
        }
    }
}

/// A key in the worker's buffer, which it gives back.
#[derive(Debug)]
pub(super) struct Key<'q> {
    bytes: Vec<u8>,
    of: &'q Quotas,
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        self.of.scratch.replace(std::mem::take(&mut self.bytes));
    }
}
