//! Log lines on their way to files: buffered per worker, written by one thread, never waited for.
//!
//! A worker hands over a chunk when it is full or when its timer says so. When the writer is behind, whole chunks are
//! dropped and their lines counted: a slow disk costs lines, not latency.

use foldhash::HashMap;
use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Bytes of one file that a worker collects before it hands them over.
const CHUNK_BYTES: usize = 256 << 10;
/// Room for the line that fills a chunk.
const LINE_BYTES: usize = 4 << 10;
/// Chunks that may wait for the writer.
const QUEUE_CHUNKS: usize = 256;

enum Job {
    /// Bytes for a file; the emptied buffer goes back to its worker.
    Write(Arc<str>, Vec<u8>, mpsc::Sender<Vec<u8>>),
    Reopen,
    Stop,
}

/// The thread that writes access logs; one per process.
pub struct LogWriter {
    jobs: mpsc::SyncSender<Job>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").finish_non_exhaustive()
    }
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE_CHUNKS);
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&queue))?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    /// The buffers of one worker.
    pub fn buffers(&self) -> LogBuffers {
        LogBuffers { jobs: Some(self.jobs.clone()), ..LogBuffers::detached() }
    }

    /// Opens all files anew, after they were moved away (`/reopen_logs`). Waits where the queue is full.
    pub fn reopen(&self) {
        if self.jobs.send(Job::Reopen).is_err() {
            tracing::warn!("the access-log writer has ended");
        }
    }
}

impl Drop for LogWriter {
    /// Writes what has been handed over, then ends the thread.
    fn drop(&mut self) {
        let stopped = self.jobs.send(Job::Stop);
        if let (Ok(()), Some(thread)) = (stopped, self.thread.take())
            && thread.join().is_err()
        {
            tracing::warn!("the access-log writer ended early");
        }
    }
}

/// Lines of one worker that have not been handed over yet.
pub struct LogBuffers {
    jobs: Option<mpsc::SyncSender<Job>>,
    /// Buffers that the writer has emptied: memory that is given to another thread for good costs both a lock.
    emptied: (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>),
    /// By path; there are few.
    chunks: RefCell<Vec<(Arc<str>, Chunk)>>,
    dropped: Cell<u64>,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    lines: u64,
}

impl std::fmt::Debug for LogBuffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogBuffers").field("waiting", &self.waiting_lines()).field("dropped", &self.dropped).finish()
    }
}

impl LogBuffers {
    /// Buffers without a writer: lines are collected, and dropped by [`Self::flush`].
    pub fn detached() -> Self {
        Self { jobs: None, emptied: mpsc::channel(), chunks: RefCell::default(), dropped: Cell::new(0) }
    }

    /// Adds a line for a file.
    pub fn line(&self, path: &Arc<str>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut chunks = self.chunks.borrow_mut();
        let at = chunks.iter().position(|(known, _)| Arc::ptr_eq(known, path) || known == path).unwrap_or(chunks.len());
        if at == chunks.len() {
            chunks.push((path.clone(), Chunk::default()));
        }
        let Some((_, chunk)) = chunks.get_mut(at) else { return };
        if chunk.bytes.capacity() == 0 {
            chunk.bytes = self.emptied.1.try_iter().last().unwrap_or_default();
            chunk.bytes.reserve(CHUNK_BYTES + LINE_BYTES);
        }
        write(&mut chunk.bytes);
        chunk.lines += 1;
        if chunk.bytes.len() >= CHUNK_BYTES {
            self.hand_over(path, chunk);
        }
    }

    /// Hands over all lines. To be called at the flush interval and before the worker ends.
    pub fn flush(&self) {
        for (path, chunk) in self.chunks.borrow_mut().iter_mut() {
            if chunk.lines > 0 {
                self.hand_over(path, chunk);
            }
        }
    }

    /// Lines that wait to be handed over.
    pub fn waiting_lines(&self) -> u64 {
        self.chunks.borrow().iter().map(|(_, chunk)| chunk.lines).sum()
    }

    /// Takes the number of lines dropped since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.take()
    }

    fn hand_over(&self, path: &Arc<str>, chunk: &mut Chunk) {
        let bytes = std::mem::take(&mut chunk.bytes);
        let lines = std::mem::take(&mut chunk.lines);
        let job = Job::Write(path.clone(), bytes, self.emptied.0.clone());
        let taken = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        if !taken {
            self.dropped.set(self.dropped.get() + lines);
        }
    }
}

fn write_all(queue: &mpsc::Receiver<Job>) {
    let mut files: HashMap<Arc<str>, Sink> = HashMap::default();
    while let Ok(job) = queue.recv() {
        match job {
            Job::Write(path, mut bytes, back) => {
                let sink = files.entry(path.clone()).or_insert_with(|| Sink::open(&path));
                sink.write(&path, &bytes);
                bytes.clear();
                if back.send(bytes).is_err() {
                    tracing::trace!("the worker has ended");
                }
            }
            Job::Reopen => files.clear(),
            Job::Stop => return,
        }
    }
}

enum Sink {
    Stdout,
    Stderr,
    File(File),
    /// Could not be opened: lines are lost until the files are opened anew.
    Closed,
}

impl Sink {
    fn open(path: &str) -> Self {
        match path {
            "/dev/stdout" => return Self::Stdout,
            "/dev/stderr" => return Self::Stderr,
            _ => {}
        }
        match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Self::File(file),
            Err(error) => {
                tracing::error!(path, %error, "access log cannot be opened");
                Self::Closed
            }
        }
    }

    fn write(&mut self, path: &str, bytes: &[u8]) {
        let written = match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File(file) => file.write_all(bytes),
            Self::Closed => return,
        };
        if let Err(error) = written {
            tracing::error!(path, %error, "access log cannot be written: it is closed until logs are reopened");
            *self = Self::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: AL-6
    #[test]
    fn lines_reach_their_file_in_order_and_a_moved_file_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<str> = directory.path().join("access.log").to_str().unwrap().into();
        let writer = LogWriter::start().unwrap();
        let buffers = writer.buffers();
        for number in 0..10_000 {
            buffers.line(&path, |out| out.extend_from_slice(format!("{number}\n").as_bytes()));
        }
        buffers.flush();
        assert_eq!((buffers.waiting_lines(), buffers.take_dropped()), (0, 0));
        writer.reopen();
        buffers.line(&path, |out| out.extend_from_slice(b"last\n"));
        buffers.flush();
        drop(writer);
        let text = std::fs::read_to_string(&*path).unwrap();
        let expected: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, expected + "last\n");
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_and_they_are_counted() {
        let (jobs, queue) = mpsc::sync_channel(2);
        let buffers = LogBuffers { jobs: Some(jobs), ..LogBuffers::detached() };
        let path: Arc<str> = "x".into();
        for _ in 0..5 {
            buffers.line(&path, |out| out.push(b'\n'));
            buffers.line(&path, |out| out.push(b'\n'));
            buffers.flush();
        }
        assert_eq!(queue.try_iter().count(), 2);
        assert_eq!(buffers.take_dropped(), 6);
        assert_eq!(buffers.take_dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_loses_its_lines_only() {
        let directory = tempfile::tempdir().unwrap();
        let good: Arc<str> = directory.path().join("good").to_str().unwrap().into();
        let bad: Arc<str> = directory.path().join("missing/bad").to_str().unwrap().into();
        let writer = LogWriter::start().unwrap();
        let buffers = writer.buffers();
        for path in [&bad, &good] {
            buffers.line(path, |out| out.extend_from_slice(b"line\n"));
        }
        buffers.flush();
        drop(writer);
        assert_eq!(std::fs::read(&*good).unwrap(), b"line\n");
    }
}
