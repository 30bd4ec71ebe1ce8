//! How connections leave what drains: a filter chain that was replaced or removed, a listener, a process (D2, LC-1, LC-3).
//!
//! Knows connections as something that can be woken. Must never know a protocol: each one asks in which stage it is and
//! leaves in its own way.

use crate::env::{Env, Instant};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Time for which a connection that is asked to leave may do so with its next answer, before it is closed where it does nothing.
/// Its client may be about to send: closing earlier would be an error to it and not the end of an idle connection.
const NEXT_REQUEST: Duration = Duration::from_secs(1);
/// Shortest time between two looks at the connections.
const LOOK: Duration = Duration::from_millis(10);

/// How a drain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time over which connections are asked to leave, each at a random moment of it; zero: all at once.
    pub spread: Duration,
    /// Time after which those that stayed are cut; none: never.
    pub end: Option<Duration>,
}

/// How far a connection is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody asks it to leave.
    Stays,
    /// It leaves after what it is doing, and tells its client so.
    Asked,
    /// The same, and it ends at once where it does nothing.
    Released,
    /// It ends now.
    Over,
}

/// The connections of one filter chain or listener on this worker, and whether they are to leave.
#[derive(Debug, Default)]
pub struct Drain {
    begun: Cell<Option<(Instant, Terms)>>,
    stays: RefCell<HashMap<u64, Rc<State>>>,
    next_key: Cell<u64>,
    task: RefCell<Option<AbortHandle>>,
}

/// What a connection and its drain share.
#[derive(Debug)]
struct State {
    joined: Instant,
    /// The moment at which it is asked to leave, as a part of the spread.
    moment: f64,
    stage: Cell<Stage>,
    /// When it was asked to leave.
    asked: Cell<Option<Instant>>,
    task: RefCell<Option<Waker>>,
}

impl Drain {
    /// Begins a drain, in place of one that may be under way; what was asked to leave goes on leaving.
    pub fn begin(self: &Rc<Self>, terms: Terms) {
        self.begun.set(Some((Instant::now(), terms)));
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.watch();
    }

    /// Calls a drain off; what was asked to leave goes on leaving.
    pub fn call_off(self: &Rc<Self>) {
        self.begun.set(None);
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.watch();
    }

    /// A connection comes; it belongs here until the [`Stay`] is dropped.
    pub fn join(self: &Rc<Self>, env: &Env) -> Stay {
        let key = self.next_key.replace(self.next_key.get() + 1);
        let state = Rc::new(State {
            joined: env.now(),
            moment: env.below(1 << 32) as f64 / f64::from(u32::MAX),
            stage: Cell::new(Stage::Stays),
            asked: Cell::new(None),
            task: RefCell::default(),
        });
        self.stays.borrow_mut().insert(key, Rc::clone(&state));
        if self.begun.get().is_some() {
            self.watch();
        }
        Stay { drain: Rc::clone(self), key, state }
    }

    /// Moves everybody to the stage of this moment, and has a task do so at the next one.
    fn watch(self: &Rc<Self>) {
        let Some(mut wait) = self.advance() else { return };
        if self.task.borrow().as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let drain: Weak<Self> = Rc::downgrade(self);
        let watching = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(wait).await;
                let Some(next) = drain.upgrade().and_then(|drain| drain.advance()) else { return };
                wait = next;
            }
        });
        *self.task.borrow_mut() = Some(watching.abort_handle());
    }

    /// Raises stages; the time until the next rise, `None` where there will be none.
    fn advance(&self) -> Option<Duration> {
        let begun = self.begun.get();
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for state in self.stays.borrow().values() {
            for (stage, at) in state.rises(begun).into_iter().filter_map(|(stage, at)| Some((stage, at?))) {
                if at <= now {
                    state.raise(stage, at);
                } else {
                    next = Some(next.map_or(at, |other| other.min(at)));
                }
            }
        }
        let spread = begun.map(|(_, terms)| terms.spread).unwrap_or_default();
        let least = (spread / 100).clamp(LOOK, Duration::from_secs(1));
        next.map(|at| at.saturating_duration_since(now).max(least))
    }
}

impl State {
    /// When it reaches which stage.
    fn rises(&self, begun: Option<(Instant, Terms)>) -> [(Stage, Option<Instant>); 3] {
        let ask = || begun.map(|(since, terms)| (since + terms.spread.mul_f64(self.moment)).max(self.joined));
        let asked = self.asked.get().or_else(ask);
        let over = begun.and_then(|(since, terms)| Some(since + terms.end?));
        [(Stage::Asked, asked), (Stage::Released, asked.map(|at| at + NEXT_REQUEST)), (Stage::Over, over)]
    }

    fn raise(&self, stage: Stage, at: Instant) {
        if self.stage.get() < stage {
            self.stage.set(stage);
            if stage == Stage::Asked {
                self.asked.set(Some(at));
            }
            if let Some(task) = &*self.task.borrow() {
                task.wake_by_ref();
            }
        }
    }
}

/// One connection's place in a [`Drain`].
#[derive(Debug)]
pub struct Stay {
    drain: Rc<Drain>,
    key: u64,
    state: Rc<State>,
}

impl Stay {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.state.stage.get()
    }

    /// Ready from `stage` on. The task is woken at each later stage too, also if it does not ask again.
    pub fn poll(&self, cx: &mut Context<'_>, stage: Stage) -> Poll<()> {
        if self.stage() >= stage {
            return Poll::Ready(());
        }
        let mut task = self.state.task.borrow_mut();
        if !task.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Runs `work` until `stage` comes; `None` where it came first. Cancel-safe as `work` is.
    pub async fn until<T>(&self, stage: Stage, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll(cx, stage).map(|()| None),
        })
        .await
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.drain.stays.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs a test with its own clock.
    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    fn count(stays: &[Stay], stage: Stage) -> usize {
        stays.iter().filter(|stay| stay.stage() == stage).count()
    }

    // spec: LC-3
    #[test]
    fn a_gradual_drain_asks_as_many_as_its_time_has_passed() {
        run(async {
            let (drain, env) = (Rc::new(Drain::default()), Env::seeded(7));
            let stays: Vec<Stay> = (0..1000).map(|_| drain.join(&env)).collect();
            assert_eq!(count(&stays, Stage::Stays), 1000);
            drain.begin(Terms { spread: SECOND * 100, end: Some(SECOND * 100) });
            for percent in [10, 50, 90] {
                let due = Instant::now() + SECOND * percent;
                tokio::time::sleep_until(due).await;
                let passed = drain.begun.get().map(|(since, _)| since.elapsed().as_secs_f64()).unwrap();
                let asked = 1.0 - count(&stays, Stage::Stays) as f64 / 1000.0;
                assert!((asked - passed / 100.0).abs() < 0.06, "{asked} after {passed} s of 100");
                drain.begin(Terms { spread: SECOND * 100, end: Some(SECOND * 100) });
            }
            tokio::time::sleep(SECOND * 101).await;
            assert_eq!(count(&stays, Stage::Over), 1000, "its time is up for those that stayed");
        });
    }

    // spec: LC-3
    #[test]
    fn an_immediate_drain_asks_all_but_waits_for_next_requests() {
        run(async {
            let (drain, env) = (Rc::new(Drain::default()), Env::seeded(7));
            let early = drain.join(&env);
            drain.begin(Terms { spread: Duration::ZERO, end: None });
            assert_eq!(early.stage(), Stage::Asked, "its client may be about to send");
            tokio::time::sleep(SECOND / 2).await;
            let late = drain.join(&env);
            assert_eq!((late.stage(), early.stage()), (Stage::Asked, Stage::Asked), "it comes to a drain under way");
            assert_eq!(early.until(Stage::Released, std::future::pending::<()>()).await, None);
            assert_eq!(late.stage(), Stage::Asked);
            late.until(Stage::Released, std::future::pending::<()>()).await;
            tokio::time::sleep(SECOND * 3600).await;
            assert_eq!(late.stage(), Stage::Released, "without an end nobody is cut");
            drop((early, late));
            assert!(drain.stays.borrow().is_empty());
        });
    }

    // spec: AD-9
    #[test]
    fn a_drain_that_is_called_off_asks_nobody_who_comes_later() {
        run(async {
            let (drain, env) = (Rc::new(Drain::default()), Env::seeded(7));
            let early = drain.join(&env);
            drain.begin(Terms { spread: Duration::ZERO, end: Some(SECOND) });
            drain.call_off();
            tokio::time::sleep(SECOND * 2).await;
            assert_eq!((early.stage(), drain.join(&env).stage()), (Stage::Released, Stage::Stays));
        });
    }

    #[test]
    fn a_drain_that_begins_anew_lets_those_go_that_were_asked() {
        run(async {
            let (drain, env) = (Rc::new(Drain::default()), Env::seeded(7));
            let early = drain.join(&env);
            drain.begin(Terms { spread: Duration::ZERO, end: None });
            tokio::time::sleep(SECOND * 7 / 10).await;
            drain.begin(Terms { spread: SECOND * 100, end: None });
            tokio::time::sleep(SECOND * 4 / 10).await;
            assert_eq!(early.stage(), Stage::Asked, "the new drain looks once in a while");
            tokio::time::sleep(SECOND).await;
            assert_eq!(early.stage(), Stage::Released);
        });
    }
}
