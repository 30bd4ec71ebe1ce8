//! What leaves mixer: Prometheus' text, access-log lines, and OTLP to another collector. Queues are bounded; what does
//! not fit is dropped and counted.

pub mod file;
pub mod otlp;
pub mod prometheus;
