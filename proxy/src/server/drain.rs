//! The stages of a stopping process (D2): connections end as their requests end, then the process does.

use crate::publish::Workers;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks at the open connections.
const LOOK: Duration = Duration::from_millis(100);
/// Time for which connections are accepted on, while others learn that this endpoint is going.
const STILL_ACCEPTING: Duration = Duration::from_secs(1);

/// A drain in progress.
#[derive(Debug)]
pub(super) struct Drain {
    earliest: Instant,
    latest: Instant,
    workers: Workers,
}

impl Drain {
    /// A drain that takes `limit` at most.
    pub(super) fn start(limit: Duration, workers: Workers) -> Self {
        let now = Instant::now();
        Self { earliest: now + STILL_ACCEPTING.min(limit), latest: now + limit, workers }
    }

    /// Ready when the last connection has ended, or the time is over; never without a drain. Cancel-safe.
    pub(super) async fn over(drain: Option<&Self>) {
        let Some(drain) = drain else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            if now >= drain.latest || (now >= drain.earliest && drain.workers.connections().await == 0) {
                return;
            }
        }
    }
}
