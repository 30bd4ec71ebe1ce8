//! `/tap`: requests as they pass, a line of JSON each (CT-43).
//!
//! Workers put lines into a queue of the tap; here they become the body of an answer. A reader who does not keep up
//! loses lines, which are counted; no worker waits for it.

use crate::server::answer::{Answer, streamed, text};
use crate::telemetry::tap::{Allowance, Ask, MAX_TAPS, Tap, TapReader};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

/// How often it is said what was left out, where it became more.
const WORD_EVERY: Duration = Duration::from_secs(1);

/// Where taps come in.
#[derive(Debug)]
pub struct TapDoor {
    workers: mpsc::Sender<Tap>,
    places: Arc<Semaphore>,
}

impl TapDoor {
    /// A door behind which taps are taken to all workers.
    pub fn new(workers: mpsc::Sender<Tap>) -> Self {
        Self { workers, places: Arc::new(Semaphore::new(MAX_TAPS)) }
    }

    /// Opens a tap: its lines until the client leaves or its time is over.
    pub(super) async fn respond(&self, parameters: &[(String, String)]) -> Answer {
        let ask = match Ask::parse(parameters) {
            Ok(ask) => ask,
            Err(why) => return text(400, format!("{why}\n")),
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return text(503, format!("{MAX_TAPS} taps are open already: end one first\n"));
        };
        let until = Instant::now() + Duration::from_secs(ask.seconds.into());
        let allowance = Allowance::new(ask.per_second);
        let (tap, reader) = Tap::new(ask, until);
        let gone = tap.clone();
        // A reader that neither reads nor leaves keeps its place no longer than its time.
        tokio::spawn(async move {
            tokio::select! {
                () = gone.reader_gone() => {}
                () = sleep_until(until) => {}
            }
            drop(place);
        });
        if self.workers.send(tap).await.is_err() {
            return text(503, "the process is ending\n");
        }
        let reading =
            Reading { reader, allowance, until, word_at: Instant::now() + WORD_EVERY, said: (0, 0), over: false };
        let pieces = stream::unfold(reading, |mut reading| async move {
            let piece = reading.next().await?;
            Some((Ok::<_, io::Error>(Frame::data(piece)), reading))
        });
        streamed(200, "application/x-ndjson", StreamBody::new(pieces).boxed_unsync())
    }
}

/// The answer of one tap.
struct Reading {
    reader: TapReader,
    /// Each worker keeps to the cap; here they keep to it together.
    allowance: Allowance,
    until: Instant,
    word_at: Instant,
    /// What was said to be left out.
    said: (u64, u64),
    over: bool,
}

impl Reading {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.over {
            tokio::select! {
                biased;
                () = sleep_until(self.until) => self.over = true,
                () = sleep_until(self.word_at) => {
                    self.word_at = Instant::now() + WORD_EVERY;
                    if let Some(word) = self.word() {
                        return Some(word);
                    }
                }
                line = self.reader.lines.recv() => match line {
                    Some(line) if self.allowance.take(Instant::now()) => return Some(line),
                    Some(_) => self.reader.left_out.over_cap(),
                    None => self.over = true,
                },
            }
        }
        self.word()
    }

    /// What was left out so far, where that is news.
    fn word(&mut self) -> Option<Bytes> {
        let so_far = self.reader.left_out.so_far();
        if so_far == self.said {
            return None;
        }
        self.said = so_far;
        let word = json!({"event": "leftOut", "overCap": so_far.0, "slowReader": so_far.1});
        Some(format!("{word}\n").into())
    }
}
