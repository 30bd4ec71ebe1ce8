//! Counters of this process. One task owns them; questions come by message.

use super::window::Counter;
use super::{Ask, CounterError, Grant, Window};
use foldhash::HashMap;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The most counters that are kept at a time.
pub const MAX_COUNTERS: usize = 100_000;
/// Questions that may wait.
const WAITING: usize = 1_024;
/// How many questions lie between two looks for counters that are over.
const SWEEP_EVERY: usize = 4_096;

/// The counters' door. They are forgotten with the last clone of it.
#[derive(Debug, Clone)]
pub struct Memory {
    asks: mpsc::Sender<(Ask, oneshot::Sender<Result<Grant, CounterError>>)>,
}

impl Memory {
    /// Starts the owner, which remembers questions for so long at least; needs a runtime of tokio.
    pub fn start(deduplication: Duration) -> Self {
        let (asks, mut questions) = mpsc::channel::<(Ask, oneshot::Sender<_>)>(WAITING);
        tokio::spawn(async move {
            let clock = Clock::new();
            let mut owned = Owned { deduplication, ..Owned::default() };
            while let Some((ask, answer)) = questions.recv().await {
                // Whoever asked may have gone away meanwhile.
                let _gone = answer.send(owned.take(ask, clock.now_ms())).is_err();
            }
        });
        Self { asks }
    }

    /// Asks a counter.
    ///
    /// # Errors
    /// Where there are too many.
    pub async fn take(&self, ask: Ask) -> Result<Grant, CounterError> {
        let (answer, answered) = oneshot::channel();
        let gone = || CounterError::Store("it has ended".to_owned());
        self.asks.send((ask, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Milliseconds since 1970 by a clock that never goes back.
struct Clock {
    started: Instant,
    epoch_ms: u64,
}

impl Clock {
    fn new() -> Self {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_ms: u64::try_from(epoch.as_millis()).unwrap_or_default() }
    }

    fn now_ms(&self) -> u64 {
        self.epoch_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or_default()
    }
}

/// What the owner has.
#[derive(Default)]
struct Owned {
    counters: HashMap<String, (Counter, Window)>,
    /// Answers to questions of the last one to two seconds.
    answers: [HashMap<String, Grant>; 2],
    turned_ms: u64,
    deduplication: Duration,
    until_sweep: usize,
}

impl Owned {
    fn take(&mut self, ask: Ask, now_ms: u64) -> Result<Grant, CounterError> {
        self.turn(now_ms);
        let dedup = ask.dedup.as_ref().map(|id| format!("{id}\n{}", ask.key));
        if let Some(known) = dedup.as_ref().and_then(|id| self.answers.iter().find_map(|half| half.get(id))) {
            return Ok(*known);
        }
        self.sweep(now_ms);
        if self.counters.len() >= MAX_COUNTERS && !self.counters.contains_key(&ask.key) {
            return Err(CounterError::Full);
        }
        let (counter, window) =
            self.counters.entry(ask.key.clone()).or_insert_with(|| (Counter::default(), ask.window));
        *window = ask.window;
        let grant = counter.take(&ask, now_ms);
        let [young, _] = &mut self.answers;
        if let Some(id) = dedup.filter(|_| young.len() < MAX_COUNTERS) {
            young.insert(id, grant);
        }
        Ok(grant)
    }

    /// Answers of the second before last are forgotten.
    fn turn(&mut self, now_ms: u64) {
        let length = u64::try_from(self.deduplication.as_millis()).unwrap_or_default();
        let passed = now_ms.saturating_sub(self.turned_ms);
        if passed < length {
            return;
        }
        let [young, old] = &mut self.answers;
        std::mem::swap(young, old);
        if passed >= length * 2 {
            old.clear();
        }
        young.clear();
        self.turned_ms = now_ms;
    }

    fn sweep(&mut self, now_ms: u64) {
        if self.until_sweep > 0 {
            self.until_sweep -= 1;
            return;
        }
        self.until_sweep = SWEEP_EVERY;
        self.counters.retain(|_, (counter, window)| counter.expires_ms(*window).is_none_or(|end| end > now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEDUPLICATION;
    use super::super::window::tests::ask;
    use super::*;

    // spec: MX-74, MX-19
    #[tokio::test(start_paused = true)]
    async fn the_same_question_again_gets_the_same_answer_and_counts_once() {
        let memory = Memory::start(DEDUPLICATION);
        let once =
            Ask { dedup: Some("a".into()), ..ask(2, Window::Rolling(Duration::from_secs(60), Duration::from_secs(1))) };
        let first = memory.take(once.clone()).await.unwrap();
        assert_eq!(first.remaining, 1);
        assert_eq!(memory.take(once.clone()).await.unwrap(), first);
        let other = Ask { dedup: Some("b".into()), ..once.clone() };
        assert_eq!(memory.take(other).await.unwrap().remaining, 0);
        tokio::time::advance(DEDUPLICATION * 3).await;
        assert_eq!(memory.take(once).await.unwrap().granted, 0, "later it is another question");
    }

    #[test]
    fn counters_are_bounded_and_those_that_are_over_make_room() {
        let mut owned = Owned::default();
        let numbered = |n: usize| Ask { key: n.to_string(), ..ask(1, Window::Aligned(Duration::from_secs(1))) };
        for n in 0..MAX_COUNTERS {
            owned.take(numbered(n), 500).unwrap();
        }
        assert_eq!(owned.take(numbered(MAX_COUNTERS), 600), Err(CounterError::Full));
        assert_eq!(owned.take(numbered(7), 600).unwrap().granted, 0, "those that are there still answer");
        owned.until_sweep = 0;
        assert_eq!(owned.take(numbered(MAX_COUNTERS), 2_000).unwrap().granted, 1);
    }
}
