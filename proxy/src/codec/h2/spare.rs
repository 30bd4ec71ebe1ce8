//! Output buffers that no connection of this thread uses now.

use std::cell::RefCell;

/// Output buffers that a thread keeps for its connections.
const STOCK: usize = 8;
/// Capacity above which an output buffer is not kept, in bytes.
const STOCK_BYTES: usize = 128 << 10;

thread_local! {
    /// Emptied output buffers: an idle connection holds none, and a busy one finds one that is warm.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer, warm where there is one.
pub(super) fn take() -> Vec<u8> {
    SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Keeps an emptied buffer, unless it is too large or there are enough.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() > STOCK_BYTES {
        return;
    }
    buffer.clear();
    // At thread exit the stock may be gone already: then the memory is simply freed.
    if let Ok(()) = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < STOCK {
            spare.push(buffer);
        }
    }) {}
}
