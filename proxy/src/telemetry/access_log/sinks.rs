//! Where the entries of one worker go.

use super::file::LogBuffers;
use super::stats::LoggedStats;

/// Lines on their way to files, and statistics that a configuration makes up.
#[derive(Debug)]
pub struct LogSinks {
    /// Lines.
    pub lines: LogBuffers,
    /// Statistics.
    pub stats: LoggedStats,
}
