//! What the system knows of this process, under the names that Prometheus' own clients use (`process_*`).

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge, Registry};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ticks of a second in `/proc`: Linux tells programs 100 on every machine (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Reads `/proc/self` at each scrape.
struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_files: IntGauge,
    threads: IntGauge,
    start: IntGauge,
}

/// Registers `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
/// `process_open_fds`, `process_threads` and `process_start_time_seconds`.
///
/// # Errors
/// When a name is taken.
pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let process = Process {
        cpu: Counter::new("process_cpu_seconds_total", "Seconds of processor time, user and system")?,
        resident: IntGauge::new("process_resident_memory_bytes", "Memory that is resident, in bytes")?,
        virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Size of the address space, in bytes")?,
        open_files: IntGauge::new("process_open_fds", "Open file descriptors")?,
        threads: IntGauge::new("process_threads", "Threads")?,
        start: IntGauge::new("process_start_time_seconds", "When the process began, in seconds since 1970")?,
    };
    process.start.set(i64::try_from(started).unwrap_or(i64::MAX));
    registry.register(Box::new(process))
}

impl Process {
    /// What cannot be read stays as it was.
    fn read(&self) {
        if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_seconds(&text)) {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, unit, gauge) in
            [("VmRSS:", 1024, &self.resident), ("VmSize:", 1024, &self.virtual_memory), ("Threads:", 1, &self.threads)]
        {
            if let Some(value) = field(&status, name) {
                gauge.set(value * unit);
            }
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
    }

    fn gauges(&self) -> [&IntGauge; 5] {
        [&self.resident, &self.virtual_memory, &self.open_files, &self.threads, &self.start]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().iter().flat_map(|gauge| gauge.desc()).chain(self.cpu.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.gauges().iter().flat_map(|gauge| gauge.collect()).chain(self.cpu.collect()).collect()
    }
}

/// Processor time by `/proc/self/stat` (proc(5), fields 14 and 15); the name of the program, before, may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

/// The number of a line of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: OB-5
    #[test]
    fn the_process_is_told_as_prometheus_clients_do() {
        assert_eq!(cpu_seconds("7 (a) b) S 1 1 1 0 -1 4 1 2 3 4 150 50 0 0"), Some(2.0));
        let registry = Registry::new();
        register(&registry).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") > 2.0 && value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
