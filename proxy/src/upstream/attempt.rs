//! One try: pick, open, wait for the head.

use crate::balancer::Wish;
use crate::cluster::{Cluster, Failure, Pick, Upstream};
use crate::endpoint::Endpoint;
use crate::message::{Body, RequestHead, ResponseHead};
use crate::outcome::{Outcome, Reason};
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// How a try is made.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Endpoints of earlier tries.
    pub tried: SmallVec<[Arc<Endpoint>; 1]>,
    /// Picks that are made to avoid them.
    pub avoid_attempts: u32,
    /// After every so many tries their priorities are left.
    pub leave_priorities_every: Option<u32>,
    /// Original destination of the client.
    pub dialled: Option<SocketAddr>,
    /// ALPN to offer instead of the cluster's.
    pub alpn: Option<Arc<[Vec<u8>]>>,
    /// High-priority breakers.
    pub high_priority: bool,
    /// Only a connection that nobody used before.
    pub fresh: bool,
}

/// Picks an endpoint and opens the exchange; the endpoint is noted in `ask.tried`.
///
/// # Errors
/// What failed. Cancel-safe.
pub async fn attempt(
    cluster: &Rc<Cluster>,
    head: &RequestHead,
    body: Body,
    ask: &mut Ask,
) -> Result<Upstream, Failure> {
    let wish = Wish {
        tried: &ask.tried,
        avoid_attempts: ask.avoid_attempts,
        leave_priorities_every: ask.leave_priorities_every,
    };
    let endpoint = match cluster.pick(wish, ask.dialled) {
        Ok(endpoint) => endpoint,
        Err(outcome) => return Err(Failure::before_sending(outcome)),
    };
    ask.tried.push(endpoint);
    let ask = &*ask;
    let Some(endpoint) = ask.tried.last() else { return Err(Failure::before_sending(Reason::Internal.into())) };
    let (alpn, high_priority, fresh) = (ask.alpn.as_ref(), ask.high_priority, ask.fresh);
    cluster.open(head, body, Pick { endpoint, alpn, high_priority, fresh }).await
}

/// The final head of an exchange; interim heads go to `interim`.
///
/// # Errors
/// Why the exchange ended before its head.
pub(super) async fn final_head(upstream: &mut Upstream) -> Result<ResponseHead, Outcome> {
    loop {
        let head = std::future::poll_fn(|cx| upstream.poll_head(cx)).await?;
        if !head.is_interim() {
            return Ok(head);
        }
    }
}
