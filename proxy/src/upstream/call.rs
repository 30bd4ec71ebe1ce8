//! The proxy's own requests: the same clusters, pools, mTLS and limits as traffic.

use super::attempt::{Ask, attempt, final_head};
use crate::cluster::Cluster;
use crate::env::Instant;
use crate::message::{Request, Response};
use crate::outcome::{Outcome, Reason};
use std::rc::Rc;

/// Sends `rq` to `cluster` and waits for the head of the answer; the body is pulled afterwards. Cancel-safe.
///
/// # Errors
/// Why there is no answer; [`Reason::RouteTimeout`] at the deadline.
pub async fn call(cluster: &Rc<Cluster>, rq: Request, deadline: Instant) -> Result<Response, Outcome> {
    let exchange = async {
        let mut upstream =
            attempt(cluster, &rq.head, rq.body, &mut Ask::default()).await.map_err(|failure| failure.outcome)?;
        let head = final_head(&mut upstream).await?;
        Ok(Response { head, body: upstream.into_body(Instant::now()) })
    };
    match tokio::time::timeout_at(deadline, exchange).await {
        Ok(done) => done,
        Err(_) => Err(Reason::RouteTimeout.into()),
    }
}
