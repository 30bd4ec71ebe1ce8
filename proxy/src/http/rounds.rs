//! Rounds: now and then all open gRPC streams of a connection manager tell what they have carried (TL-3). One timer for all
//! of them on a worker, which runs while there are any: a call that is over soon sets none.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The open streams, and how often they were told to tell.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    round: Cell<u64>,
    open: RefCell<Vec<Option<Waker>>>,
    /// Places of `open` that nobody has.
    free: RefCell<Vec<usize>>,
    timed: Cell<bool>,
}

/// The place of an open stream.
struct Place<'r> {
    rounds: &'r Rounds,
    at: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.rounds.open.borrow_mut().get_mut(self.at) {
            *place = None;
        }
        self.rounds.free.borrow_mut().push(self.at);
    }
}

impl Place<'_> {
    fn wait(&self, waker: &Waker) {
        if let Some(place) = self.rounds.open.borrow_mut().get_mut(self.at)
            && !place.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            *place = Some(waker.clone());
        }
    }
}

impl Rounds {
    /// Runs a stream, and lets it `tell` once per round that it sees.
    pub(super) async fn attend<T>(
        self: &Rc<Self>,
        period: Duration,
        tell: impl Fn(),
        mut running: Pin<&mut impl Future<Output = T>>,
    ) -> T {
        let mut place = None;
        let mut seen = self.round.get();
        poll_fn(|task| {
            if let Poll::Ready(ended) = running.as_mut().poll(task) {
                return Poll::Ready(ended);
            }
            if std::mem::replace(&mut seen, self.round.get()) != seen {
                tell();
            }
            place.get_or_insert_with(|| self.join(period)).wait(task.waker());
            Poll::Pending
        })
        .await
    }

    fn join(self: &Rc<Self>, period: Duration) -> Place<'_> {
        let at = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut open = self.open.borrow_mut();
            open.push(None);
            open.len() - 1
        });
        if !self.timed.replace(true) {
            let rounds = Rc::downgrade(self);
            // Ends with the streams: nobody needs to join it.
            drop(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(period).await;
                    let Some(rounds) = rounds.upgrade().filter(|rounds| rounds.begin()) else { return };
                    drop(rounds);
                }
            }));
        }
        Place { rounds: self, at }
    }

    /// Begins a round; false where no stream is open, which ends the timer.
    fn begin(&self) -> bool {
        self.round.set(self.round.get().wrapping_add(1));
        let open = self.open.borrow();
        open.iter().flatten().for_each(Waker::wake_by_ref);
        let any = open.iter().any(Option::is_some);
        self.timed.set(any);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::task::LocalSet;

    const PERIOD: Duration = Duration::from_secs(5);

    /// How often a stream tells that is open for so long.
    async fn told(rounds: &Rc<Rounds>, open: Duration) -> u32 {
        let told = Cell::new(0);
        rounds.attend(PERIOD, || told.set(told.get() + 1), pin!(tokio::time::sleep(open))).await;
        told.get()
    }

    // spec: TL-3
    #[tokio::test(start_paused = true)]
    async fn open_streams_tell_once_a_round_by_one_timer_that_ends_with_them() {
        let rounds = Rc::new(Rounds::default());
        let streams = async {
            let of = |seconds| told(&rounds, Duration::from_secs(seconds));
            assert_eq!(tokio::join!(of(4), of(11), of(16)), (0, 2, 3));
            assert_eq!(rounds.open.borrow().len(), 3, "places are used again");
            assert!(rounds.timed.get());
            tokio::time::sleep(PERIOD).await;
            assert!(!rounds.timed.get() && Rc::weak_count(&rounds) == 0, "the timer has ended");
            assert_eq!(of(6).await, 1, "and comes again");
            assert_eq!(rounds.open.borrow().len(), 3);
        };
        LocalSet::new().run_until(streams).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_at_once_takes_no_place() {
        let rounds = Rc::new(Rounds::default());
        rounds.attend(PERIOD, || unreachable!("no round"), pin!(async {})).await;
        assert!(rounds.open.borrow().is_empty() && !rounds.timed.get());
    }
}
