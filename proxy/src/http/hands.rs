//! The futures of a crew: each is polled when it was woken, and not otherwise.
//!
//! `FuturesUnordered` does the same for wakes that may come from any thread, with some ten atomic read-modify-writes for
//! each. Here nearly all wakes come from the thread that polls, and those are plain loads and stores; a wake from elsewhere
//! goes through a channel.

use futures_util::task::AtomicWaker;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};

/// How often the woken are looked for in one turn of the task, then others of the thread have theirs.
const ROUNDS: usize = 8;
/// No place.
const NOBODY: usize = usize::MAX;

/// Futures of one task.
pub(super) struct Hands<F> {
    places: Vec<Place<F>>,
    /// Places without a future.
    vacant: usize,
    shared: Arc<Shared>,
    /// Whom other threads have woken.
    afar: Receiver<usize>,
    /// Those of one round, the last one first.
    round: Vec<usize>,
}

struct Place<F> {
    future: Option<Pin<Box<F>>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// What the wakers of one place share with the task.
struct Bell {
    shared: Arc<Shared>,
    place: usize,
    /// It is in the list of the woken, before `next`. The thread that polls alone writes both.
    listed: AtomicBool,
    next: AtomicUsize,
    /// It is among those that other threads have woken.
    afar: AtomicBool,
}

struct Shared {
    /// The thread that polls.
    home: usize,
    /// The task is in its turn: nobody needs to wake it. Written by the thread that polls, as `woken` is.
    in_turn: AtomicBool,
    /// Who was woken last, or `NOBODY`.
    woken: AtomicUsize,
    /// Whom other threads have woken, and whether there is anybody.
    afar: Sender<usize>,
    any_afar: AtomicBool,
    /// Wakes the task, once in each turn.
    task: AtomicWaker,
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// A number for the thread that runs.
fn here() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Bell {
    /// Puts it among the woken; by the thread that polls alone.
    fn list(&self) {
        if self.listed.load(Ordering::Relaxed) {
            return;
        }
        let last = self.shared.woken.load(Ordering::Relaxed);
        self.listed.store(true, Ordering::Relaxed);
        self.next.store(last, Ordering::Relaxed);
        self.shared.woken.store(self.place, Ordering::Relaxed);
        // Where somebody is listed already the task was woken for that one.
        if last == NOBODY && !self.shared.in_turn.load(Ordering::Relaxed) {
            self.shared.task.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.shared.home == here() {
            return self.list();
        }
        // Where the task is gone there is nobody to receive it.
        if !self.afar.swap(true, Ordering::AcqRel) && self.shared.afar.send(self.place).is_ok() {
            self.shared.any_afar.store(true, Ordering::Release);
        }
        self.shared.task.wake();
    }
}

impl<F: Future<Output = ()>> Hands<F> {
    /// None yet. All of them are polled by this thread.
    pub(super) fn new() -> Self {
        let (sender, afar) = channel();
        let shared = Shared {
            home: here(),
            in_turn: AtomicBool::new(false),
            woken: AtomicUsize::new(NOBODY),
            afar: sender,
            any_afar: AtomicBool::new(false),
            task: AtomicWaker::new(),
        };
        Self { places: Vec::new(), vacant: 0, shared: Arc::new(shared), afar, round: Vec::new() }
    }

    /// Adds one; it is polled in this turn or the next.
    pub(super) fn push(&mut self, future: Pin<Box<F>>) {
        let vacant = if self.vacant > 0 { self.places.iter().position(|place| place.future.is_none()) } else { None };
        let place = vacant.unwrap_or_else(|| {
            let (listed, next, afar) = (AtomicBool::new(false), AtomicUsize::new(NOBODY), AtomicBool::new(false));
            let bell = Bell { shared: Arc::clone(&self.shared), place: self.places.len(), listed, next, afar };
            let bell = Arc::new(bell);
            let waker = Waker::from(Arc::clone(&bell));
            self.places.push(Place { future: None, bell, waker });
            self.vacant += 1;
            self.places.len() - 1
        });
        if let Some(place) = self.places.get_mut(place) {
            place.future = Some(future);
            self.vacant -= 1;
            place.bell.list();
        }
    }

    /// One turn of the task, which ends with [`Self::poll`]: what wakes a future in it does not wake the task.
    pub(super) fn turn<T>(&mut self, cx: &mut Context<'_>, turn: impl FnOnce(&mut Self, &mut Context<'_>) -> T) -> T {
        self.shared.task.register(cx.waker());
        self.shared.in_turn.store(true, Ordering::Relaxed);
        let result = turn(self, cx);
        self.shared.in_turn.store(false, Ordering::Relaxed);
        if self.shared.woken.load(Ordering::Relaxed) != NOBODY {
            cx.waker().wake_by_ref();
        }
        result
    }

    /// Polls those that were woken, and lets go of those that are done.
    pub(super) fn poll(&mut self) {
        for _ in 0..ROUNDS {
            self.fetch_afar();
            if !self.gather() {
                return self.trim();
            }
            while let Some(place) = self.round.pop() {
                let Some(place) = self.places.get_mut(place) else { continue };
                place.bell.listed.store(false, Ordering::Relaxed);
                let Some(future) = &mut place.future else { continue };
                if let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(&place.waker)) {
                    place.future = None;
                    self.vacant += 1;
                }
            }
        }
    }

    /// Drops the last places while they are vacant and nobody else has their waker. Nobody is listed now.
    fn trim(&mut self) {
        let idle = |place: &Place<F>| place.future.is_none() && Arc::strong_count(&place.bell) == 2;
        while self.vacant > 0 && self.places.last().is_some_and(idle) {
            self.places.pop();
            self.vacant -= 1;
        }
    }

    /// Takes over whom other threads have woken.
    fn fetch_afar(&self) {
        if !self.shared.any_afar.load(Ordering::Relaxed) || !self.shared.any_afar.swap(false, Ordering::AcqRel) {
            return;
        }
        for place in self.afar.try_iter().filter_map(|place| self.places.get(place)) {
            place.bell.afar.swap(false, Ordering::AcqRel);
            place.bell.list();
        }
    }

    /// Empties the list of the woken into `round`; whether there was anybody.
    fn gather(&mut self) -> bool {
        let mut next = self.shared.woken.load(Ordering::Relaxed);
        self.shared.woken.store(NOBODY, Ordering::Relaxed);
        while let Some(place) = self.places.get(next) {
            self.round.push(next);
            next = place.bell.next.load(Ordering::Relaxed);
        }
        !self.round.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    /// A task's waker that counts.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    /// Who was polled, in order; each leaves its waker, and ends when it is asked to.
    #[derive(Default)]
    struct Seen {
        polled: RefCell<Vec<usize>>,
        wakers: RefCell<Vec<Option<Waker>>>,
        ends: RefCell<Option<usize>>,
    }

    impl Seen {
        async fn hand(self: Rc<Self>, number: usize) {
            poll_fn(|cx| {
                self.polled.borrow_mut().push(number);
                let mut wakers = self.wakers.borrow_mut();
                let len = wakers.len().max(number + 1);
                wakers.resize(len, None);
                wakers[number] = Some(cx.waker().clone());
                if *self.ends.borrow() == Some(number) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }

        fn wake(&self, number: usize) {
            let waker = self.wakers.borrow()[number].clone();
            waker.unwrap().wake();
        }

        fn polled(&self) -> Vec<usize> {
            self.polled.take()
        }
    }

    fn turn<F: Future<Output = ()>>(hands: &mut Hands<F>, count: &Arc<Count>) {
        let waker = Waker::from(Arc::clone(count));
        hands.turn(&mut Context::from_waker(&waker), |hands, _| hands.poll());
    }

    #[test]
    fn who_is_woken_is_polled_in_order_and_the_task_is_woken_once() {
        let (seen, count) = (Rc::new(Seen::default()), Arc::new(Count::default()));
        let mut hands = Hands::new();
        (0..4).for_each(|number| hands.push(Box::pin(Rc::clone(&seen).hand(number))));
        turn(&mut hands, &count);
        assert_eq!((seen.polled(), count.take()), (vec![0, 1, 2, 3], 0));
        turn(&mut hands, &count);
        assert!(seen.polled().is_empty(), "nobody was woken");
        [2, 0, 2].into_iter().for_each(|number| seen.wake(number));
        assert_eq!(count.take(), 1);
        turn(&mut hands, &count);
        assert_eq!((seen.polled(), count.take()), (vec![2, 0], 0));
    }

    #[test]
    fn a_place_is_used_again_and_its_old_waker_does_no_harm() {
        let (seen, count) = (Rc::new(Seen::default()), Arc::new(Count::default()));
        let mut hands = Hands::new();
        (0..2).for_each(|number| hands.push(Box::pin(Rc::clone(&seen).hand(number))));
        turn(&mut hands, &count);
        *seen.ends.borrow_mut() = Some(1);
        seen.wake(1);
        turn(&mut hands, &count);
        assert_eq!((hands.places.len(), hands.vacant), (2, 1), "somebody has the waker of the one that is done");
        seen.wake(1);
        hands.push(Box::pin(Rc::clone(&seen).hand(2)));
        turn(&mut hands, &count);
        assert_eq!((seen.polled(), hands.vacant), (vec![0, 1, 1, 2], 0));
        *seen.ends.borrow_mut() = Some(2);
        seen.wake(2);
        turn(&mut hands, &count);
        seen.wakers.borrow_mut().truncate(1);
        turn(&mut hands, &count);
        assert_eq!((hands.places.len(), hands.vacant), (1, 0), "nobody has a waker: the place is gone");
    }

    #[test]
    fn who_wakes_itself_leaves_others_their_turn() {
        let count = Arc::new(Count::default());
        let mut hands = Hands::new();
        let polls = Rc::new(RefCell::new(0));
        let mine = Rc::clone(&polls);
        hands.push(Box::pin(poll_fn(move |cx| {
            *mine.borrow_mut() += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })));
        turn(&mut hands, &count);
        assert_eq!((*polls.borrow(), count.take()), (ROUNDS, 1));
    }

    #[test]
    fn wakes_of_other_threads_are_not_lost() {
        let (seen, count) = (Rc::new(Seen::default()), Arc::new(Count::default()));
        let mut hands = Hands::new();
        (0..3).for_each(|number| hands.push(Box::pin(Rc::clone(&seen).hand(number))));
        turn(&mut hands, &count);
        seen.polled();
        for _ in 0..1_000 {
            let wakers: Vec<Waker> = seen.wakers.borrow().iter().flatten().cloned().collect();
            let threads = wakers.into_iter().map(|waker| std::thread::spawn(move || waker.wake()));
            let threads: Vec<_> = threads.collect();
            let mut polled = Vec::new();
            while polled.len() < 3 {
                if count.take() > 0 {
                    turn(&mut hands, &count);
                }
                polled.extend(seen.polled());
                std::hint::spin_loop();
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            if count.take() > 0 {
                turn(&mut hands, &count);
            }
            polled.extend(seen.polled());
            polled.sort_unstable();
            assert_eq!(polled, [0, 1, 2]);
        }
    }
}
