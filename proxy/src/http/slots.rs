//! Memory of stream futures, handed from one stream of a connection to the next: a future of some kilobytes per request
//! is what a general allocator is worst at.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Slots of one connection that no stream uses now.
pub(super) struct Slots<F> {
    free: RefCell<Vec<Pin<Box<Option<F>>>>>,
}

/// Free slots that are kept at most.
const KEPT: usize = 128;

impl<F: Future> Slots<F> {
    pub(super) const fn new() -> Self {
        Self { free: RefCell::new(Vec::new()) }
    }

    /// Puts a future into a slot.
    pub(super) fn fill(&self, future: F) -> Slot<'_, F> {
        let mut slot = self.free.borrow_mut().pop().unwrap_or_else(|| Box::pin(None));
        slot.set(Some(future));
        Slot { slot: Some(slot), slots: self }
    }

    /// Frees all but one: the connection is idle.
    pub(super) fn shrink(&self) {
        self.free.borrow_mut().truncate(1);
    }
}

/// A future in its slot; the slot is free again when this is dropped or has come to its end.
pub(super) struct Slot<'a, F: Future> {
    slot: Option<Pin<Box<Option<F>>>>,
    slots: &'a Slots<F>,
}

impl<F: Future> Future for Slot<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = self.slot.as_mut().and_then(|slot| slot.as_mut().as_pin_mut()) else {
            return Poll::Pending; // it has ended
        };
        let output = ready!(future.poll(cx));
        self.free();
        Poll::Ready(output)
    }
}

impl<F: Future> Slot<'_, F> {
    fn free(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        slot.set(None);
        let mut free = self.slots.free.borrow_mut();
        if free.len() < KEPT {
            free.push(slot);
        }
    }
}

impl<F: Future> Drop for Slot<'_, F> {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_slot_is_used_again_and_what_it_held_is_dropped() {
        let slots = Slots::new();
        let held = Rc::new(());
        let work = |held: Rc<()>, ends: bool| async move {
            if !ends {
                std::future::pending::<()>().await;
            }
            drop(held);
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut first = slots.fill(work(Rc::clone(&held), true));
        let second = slots.fill(work(Rc::clone(&held), false));
        assert!(Pin::new(&mut first).poll(&mut cx).is_ready());
        assert_eq!((Rc::strong_count(&held), slots.free.borrow().len()), (2, 1), "ended");
        drop(second);
        assert_eq!((Rc::strong_count(&held), slots.free.borrow().len()), (1, 2), "cut short");
        let third = slots.fill(work(Rc::clone(&held), true));
        assert_eq!(slots.free.borrow().len(), 1);
        drop(third);
        slots.shrink();
        assert_eq!(slots.free.borrow().len(), 1);
    }
}
