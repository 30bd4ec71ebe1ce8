//! A time limit that costs a call next to nothing: the timer is set once per limit, not once per call.

use std::io::{Error, ErrorKind, Result};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Ends work that takes too long.
#[derive(Debug)]
pub struct Watchdog {
    deadline: Instant,
    /// Fires at some deadline, perhaps an earlier one: then it is set anew.
    timer: Pin<Box<Sleep>>,
}

impl Default for Watchdog {
    /// One that has not been started: work under it ends at once.
    fn default() -> Self {
        let now = Instant::now();
        Self { deadline: now, timer: Box::pin(tokio::time::sleep_until(now)) }
    }
}

impl Watchdog {
    /// Work under it ends `limit` from now.
    pub fn start(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    /// Does work unless the time runs out.
    ///
    /// # Errors
    /// Those of the work, or [`ErrorKind::TimedOut`].
    pub async fn guard<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => self.poll_late(cx).map(|()| Err(Error::new(ErrorKind::TimedOut, "no answer in time"))),
        })
        .await
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FO-15
    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_for_each_call_anew() {
        let mut watchdog = Watchdog::default();
        let limit = Duration::from_secs(3);
        for _ in 0..4 {
            watchdog.start(limit);
            let work = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(())
            };
            watchdog.guard(work).await.unwrap();
        }
        watchdog.start(limit);
        let start = Instant::now();
        let error = watchdog.guard(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (ErrorKind::TimedOut, limit));
    }
}
