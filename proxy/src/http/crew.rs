//! Futures that take one job after the other: a stream's future has some kilobytes, and is neither made nor moved anew for
//! each stream of a connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Those of one connection that have nothing to do now.
pub(super) struct Crew<J> {
    free: RefCell<Vec<Rc<Seat<J>>>>,
    busy: Cell<usize>,
}

/// Where one of them gets its jobs.
pub(super) struct Seat<J> {
    next: Cell<Next<J>>,
    /// Stays for the next job.
    waker: RefCell<Option<Waker>>,
}

enum Next<J> {
    Nothing,
    Job(J),
    Leave,
}

/// How many may be without a job before some leave.
const FREE_AT_MOST: usize = 128;

impl<J> Crew<J> {
    pub(super) const fn new() -> Self {
        Self { free: RefCell::new(Vec::new()), busy: Cell::new(0) }
    }

    /// Jobs that are being worked on.
    pub(super) fn busy(&self) -> usize {
        self.busy.get()
    }

    /// Gives a job to one that is free; where none is, gives back the seat of a new one, with the job.
    pub(super) fn give(&self, job: J) -> Option<Rc<Seat<J>>> {
        self.busy.set(self.busy.get() + 1);
        if let Some(seat) = self.free.borrow_mut().pop() {
            seat.tell(Next::Job(job));
            return None;
        }
        Some(Rc::new(Seat { next: Cell::new(Next::Job(job)), waker: RefCell::new(None) }))
    }

    /// Whether some are free that may leave.
    pub(super) fn can_shrink(&self) -> bool {
        self.free.borrow().len() > 1
    }

    /// All but one of those that are free leave: the connection is idle.
    pub(super) fn shrink(&self) {
        let mut free = self.free.borrow_mut();
        let leaving = free.len().min(1)..;
        free.drain(leaving).for_each(|seat| seat.tell(Next::Leave));
    }

    /// Works on the jobs that come to a seat, until it is told to leave.
    pub(super) async fn work(&self, seat: Rc<Seat<J>>, work: impl AsyncFn(J)) {
        while let Some(job) = seat.job().await {
            // Pinned where it is made: an `.await` alone would move it there, some kilobytes for each job.
            pin!(work(job)).await;
            self.busy.set(self.busy.get() - 1);
            let mut free = self.free.borrow_mut();
            if free.len() >= FREE_AT_MOST {
                return;
            }
            free.push(Rc::clone(&seat));
        }
    }
}

impl<J> Seat<J> {
    fn tell(&self, next: Next<J>) {
        self.next.set(next);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The next job; none where it is time to leave.
    async fn job(&self) -> Option<J> {
        poll_fn(|cx| match self.next.replace(Next::Nothing) {
            Next::Job(job) => Poll::Ready(Some(job)),
            Next::Leave => Poll::Ready(None),
            Next::Nothing => {
                let mut waker = self.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Context;

    #[test]
    fn a_future_takes_the_next_job_and_all_but_one_leave_when_there_are_none() {
        let crew = Crew::new();
        let done = RefCell::new(Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        let work = async |job: u32| done.borrow_mut().push(job);
        let mut hands: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        for job in [1, 2] {
            let seat = crew.give(job).expect("none is free");
            hands.push(Box::pin(crew.work(seat, work)));
        }
        assert_eq!(crew.busy(), 2);
        hands.iter_mut().for_each(|hand| assert!(hand.as_mut().poll(&mut cx).is_pending()));
        assert_eq!((crew.busy(), crew.free.borrow().len()), (0, 2));
        assert!(crew.give(3).is_none(), "one that is free takes it");
        hands.iter_mut().for_each(|hand| assert!(hand.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(*done.borrow(), [1, 2, 3]);
        crew.shrink();
        let left = hands.iter_mut().filter_map(|hand| hand.as_mut().poll(&mut cx).is_ready().then_some(())).count();
        assert_eq!((left, crew.free.borrow().len()), (1, 1));
    }
}
