//! The one owner of [`State`]: reports come in by a bounded queue, questions are answered from it.

use super::decided::Decided;
use super::entry::Entry;
use super::names::Meters;
use super::point::Report;
use super::span::Span;
use super::state::State;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Messages that wait for the owner; who sends more waits too, at most [`PATIENCE`].
const QUEUE: usize = 64;
/// How long a message may wait for its place in the queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was reported.
#[derive(Debug)]
pub enum Intake {
    /// Counts.
    Metrics(Vec<Report>),
    /// Logged requests.
    Entries(Vec<Entry>),
    /// Spans.
    Spans(Vec<Span>),
}

type Question = Box<dyn FnOnce(&State, Duration) + Send>;

enum Command {
    Take(Intake),
    Ask(Question),
}

/// The way to the owner.
#[derive(Clone)]
pub struct Hub {
    commands: mpsc::Sender<Command>,
    meters: Meters,
    started: Instant,
}

/// The queue was full: the sender is told to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("mixer takes reports more slowly than they come")]
pub struct Busy;

impl Hub {
    /// A hub, and the owner's loop, which ends when the last hub has gone. `decided` is told of decisions that proxies took
    /// by themselves.
    pub fn new(
        max_series: usize,
        meters: Meters,
        decided: impl Fn(&Decided) + Send + 'static,
    ) -> (Self, impl Future<Output = ()>) {
        let (commands, mut queue) = mpsc::channel(QUEUE);
        let started = Instant::now();
        let mut state = State::new(max_series, meters.clone());
        state.runs("mixer", env!("CARGO_PKG_VERSION"));
        let owner = async move {
            while let Some(command) = queue.recv().await {
                let now = started.elapsed();
                match command {
                    Command::Take(Intake::Metrics(reports)) => {
                        reports.iter().for_each(|report| state.metrics(report, now).iter().for_each(&decided));
                    }
                    Command::Take(Intake::Entries(entries)) => entries.into_iter().for_each(|e| state.entry(e)),
                    Command::Take(Intake::Spans(spans)) => spans.into_iter().for_each(|s| state.span(s)),
                    Command::Ask(question) => question(&state, now),
                }
            }
        };
        (Self { commands, meters, started }, owner)
    }

    /// Hands over what was reported.
    ///
    /// # Errors
    /// When the queue stays full.
    pub async fn take(&self, intake: Intake) -> Result<(), Busy> {
        self.commands.send_timeout(Command::Take(intake), PATIENCE).await.map_err(|_| Busy)
    }

    /// Asks; nothing when mixer is stopping. The second argument is the time since mixer's start.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State, Duration) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |state, now| {
            // Who asked may have gone.
            let _gone = answer.send(question(state, now)).is_err();
        });
        self.commands.send(Command::Ask(question)).await.ok()?;
        answered.await.ok()
    }

    /// mixer's own metrics about reports.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Time since mixer started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}
