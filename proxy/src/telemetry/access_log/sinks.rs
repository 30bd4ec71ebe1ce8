//! Where the entries of one worker go.

use super::file::LogBuffers;
use super::stats::LoggedStats;
use crate::telemetry::outbox::Outbox;
use crate::telemetry::series::Registrar;
use std::rc::Rc;

/// Lines on their way to files, and statistics that a configuration makes up.
#[derive(Debug)]
pub struct LogSinks {
    /// Lines.
    pub lines: LogBuffers,
    /// Statistics.
    pub stats: LoggedStats,
    /// Entries on their way to services.
    pub outbox: Rc<Outbox>,
}

impl LogSinks {
    /// The sinks of a worker whose statistics are registered by `registrar`.
    pub fn new(lines: LogBuffers, registrar: Rc<Registrar>) -> Self {
        let outbox = Rc::new(Outbox::new(Rc::clone(&registrar)));
        Self { lines, stats: LoggedStats::new(registrar), outbox }
    }
}
