//! Counters with limits: what rate limits and quotas are kept by.
//!
//! - [`exhausted`]: those of Redis that are known to be used up
//! - [`window`]: one counter, sans-IO: fixed, aligned and rolling windows, grants ahead
//! - [`memory`]: counters of this process, one owner
//! - [`redis`]: counters in Redis, one atomic script per question
//!
//! **Grants ahead.** A caller that honours leases is granted several requests at once, so that most requests cost no
//! call. How many: what it used in about the last second, growing at most tenfold from one grant to the next, and never
//! more than half of what is left. A slow caller gets one at a time, so that grants it does not use cannot eat its own
//! limit. Unused grants are lost only until the window ends.

pub mod exhausted;
pub mod memory;
pub mod redis;
pub mod window;

use std::time::Duration;

/// The longest name of a counter, in bytes: names are made of what clients send.
pub const MAX_KEY: usize = 1024;
/// The most buckets of a rolling window.
pub const MAX_BUCKETS: u32 = 64;
/// How long a question's identity is remembered, at least.
pub const DEDUPLICATION: Duration = Duration::from_secs(1);
/// How long the answer of a store may take.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(500);

/// Over what a limit is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// For ever, until freed.
    Forever,
    /// From the first use on, for so long.
    Fixed(Duration),
    /// The same, but beginning at multiples of its length since 1970.
    Aligned(Duration),
    /// Always the last so long, in buckets of such a length.
    Rolling(Duration, Duration),
}

/// A question to a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which counter.
    pub key: String,
    /// Its limit.
    pub limit: u64,
    /// Over what it is counted.
    pub window: Window,
    /// How much is needed; a negative amount frees.
    pub amount: i64,
    /// Whether less than the amount is welcome too (MX-7).
    pub best_effort: bool,
    /// How much in all is welcome, for a lease; nothing is the amount alone.
    pub ahead: Option<u64>,
    /// Identity of the question: asked again within a second it gets the same answer and counts once.
    pub dedup: Option<String>,
}

/// What a counter gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How much. 0 is a refusal.
    pub granted: u64,
    /// What is left of the limit.
    pub remaining: u64,
    /// How long the grant may be used; after a refusal, the earliest time at which something is free again.
    pub until_reset: Duration,
}

/// Why a counter does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// The counter's name is too long.
    #[error("the name of the counter is longer than {MAX_KEY} bytes")]
    LongKey,
    /// There are too many counters.
    #[error("there are more than {} counters", memory::MAX_COUNTERS)]
    Full,
    /// The store cannot be reached, or is too slow.
    #[error("the store of counters does not answer: {0}")]
    Store(String),
}

/// Where counters are kept.
#[derive(Debug, Clone)]
pub enum Counters {
    /// In this process.
    Memory(memory::Memory),
    /// In Redis.
    Redis(redis::Redis),
}

impl Counters {
    /// Asks a counter.
    ///
    /// # Errors
    /// Where it cannot answer: whoever asks then decides what that means.
    pub async fn take(&self, ask: Ask) -> Result<Grant, CounterError> {
        if ask.key.len() > MAX_KEY {
            return Err(CounterError::LongKey);
        }
        match self {
            Self::Memory(memory) => memory.take(ask).await,
            Self::Redis(redis) => redis.take(&ask).await,
        }
    }
}
