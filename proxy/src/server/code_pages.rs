//! The resident pages of this program's own code.
//!
//! A sidecar's memory is mostly its code, and most of the code that is resident was needed once: to read configuration, to
//! answer an operator. The kernel brings pages in by the dozen and takes none away while there is memory. So what is
//! resident is dropped after such work: a page that is needed again comes back from the page cache, without a read from the
//! disk, at about a microsecond per 64 KiB.

use rustix::mm::{Advice, madvise};
use std::time::Duration;

/// How often the resident size is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Growth above what work needs after which pages are dropped, in KiB.
const SLACK_KIB: u64 = 1 << 10;
/// Growth within a tick that counts as none, in KiB.
const STILL_KIB: u64 = 128;
/// Ticks until what work needs has come back.
const SETTLE_TICKS: u32 = 8;

/// When to drop pages: once there are more than work needs, and no more come.
#[derive(Debug, Default)]
struct Watch {
    needed_kib: u64,
    before_kib: u64,
    /// Ticks for which the size is what work needs, whatever it is.
    settling: u32,
}

impl Watch {
    /// Takes the resident size of this tick; true where pages are to be dropped now.
    fn tick(&mut self, resident_kib: u64) -> bool {
        let still = resident_kib.abs_diff(std::mem::replace(&mut self.before_kib, resident_kib)) < STILL_KIB;
        if self.settling > 0 {
            self.settling -= 1;
            self.needed_kib = resident_kib;
            return false;
        }
        let due = still && resident_kib > self.needed_kib + SLACK_KIB;
        if due {
            self.settling = SETTLE_TICKS;
        }
        due
    }
}

/// Drops pages after the start, after changes of configuration and after operators' questions, for ever.
pub(super) async fn let_go_of_cold_ones() {
    let mut watch = Watch::default();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let Some(resident_kib) = resident_file_kib() else { return };
        if watch.tick(resident_kib) {
            drop_own_code();
        }
    }
}

/// Resident pages of files, of this process (`RssFile`), in KiB.
fn resident_file_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Drops the resident pages of this program's code.
fn drop_own_code() {
    let (Ok(maps), Ok(program)) = (std::fs::read_to_string("/proc/self/maps"), std::fs::read_link("/proc/self/exe"))
    else {
        return;
    };
    for (start, length) in maps.lines().filter_map(|line| code_of(line, program.to_str()?)) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: the range is one private mapping of this program's file that can be executed and not written, so its
        // pages are as they are in the file, and the kernel brings each back from there when it is touched again.
        #[expect(unsafe_code, reason = "no safe interface drops pages")]
        let dropped = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
        if let Err(error) = dropped {
            tracing::debug!(%error, "pages of code stay resident");
        }
    }
}

/// Start and length of a mapping, where it is code of `program`: private, executable, never written.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let (range, rest) = line.split_once(' ')?;
    if !rest.starts_with("r-xp ") || !rest.ends_with(program) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |hex: &str| usize::from_str_radix(hex, 16).ok();
    Some((number(start)?, number(end)?.checked_sub(number(start)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_code_that_nobody_writes_is_taken() {
        let map = |flags: &str, file: &str| format!("1000-3000 {flags} 00000000 08:01 1234    {file}");
        assert_eq!(code_of(&map("r-xp", "/usr/bin/proxy"), "/usr/bin/proxy"), Some((0x1000, 0x2000)));
        for (flags, file) in [("r--p", "/usr/bin/proxy"), ("rwxp", "/usr/bin/proxy"), ("r-xp", "/lib/libc.so.6")] {
            assert_eq!(code_of(&map(flags, file), "/usr/bin/proxy"), None, "{flags} {file}");
        }
        assert_eq!(code_of("1000-3000 r-xp", "/usr/bin/proxy"), None);
    }

    #[test]
    fn code_comes_back_and_takes_less() {
        // whatever the tests before have brought in
        let before = resident_file_kib().unwrap();
        drop_own_code();
        let after = resident_file_kib().unwrap();
        assert!(after < before, "{before} KiB, then {after} KiB");
        assert!(serde_json::json!({"a": [1, 2]}).to_string().len() > 5, "this program still runs");
    }

    #[test]
    fn pages_go_once_after_growth_and_stay_while_they_are_used() {
        let mut watch = Watch::default();
        let mut ticks = |sizes: &[u64]| sizes.iter().filter(|size| watch.tick(**size)).count();
        assert_eq!(ticks(&[5000, 9000, 12_000]), 0, "still growing");
        assert_eq!(ticks(&[12_000]), 1, "the start is over");
        assert_eq!(ticks(&[3000, 6000, 6000, 6000, 6000, 6000, 6000, 6000]), 0, "what work needs comes back");
        assert_eq!(ticks(&[6000; 100]), 0, "and stays");
        assert_eq!(ticks(&[6900, 6900, 6900]), 0, "a little more is no matter");
        assert_eq!(ticks(&[8000, 8000]), 1, "an operator asked for everything");
    }
}
