//! Sleeps to the microsecond. tokio's own timers fire on whole milliseconds: latencies counted from the time at which a
//! call was due would all be half a millisecond too long.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io::Result;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel's (timerfd), read as a pipe: that is how tokio waits for a descriptor without `unsafe`.
#[derive(Debug)]
pub struct Timer(Receiver);

impl Timer {
    /// A timer for the event loop of this thread.
    ///
    /// # Errors
    /// Where the process has no file descriptor left.
    pub fn new() -> Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// Sleeps. Cancel-safe: the next sleep sets the timer anew. Where the kernel refuses, it does not sleep.
    pub async fn sleep(&mut self, wait: Duration) {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos().max(u32::from(wait.as_secs() == 0))), // 0 would switch it off
        };
        let set = Itimerspec { it_interval: none, it_value: value };
        // a count of 8 bytes comes; room for more tells tokio that nothing is left
        let mut count = [0_u8; 16];
        if timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &set).is_ok() {
            drop(self.0.read(&mut count).await); // its error would be that there is nothing to wait for
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    // spec: FO-27
    #[tokio::test]
    async fn short_sleeps_do_not_last_a_millisecond() {
        let mut timer = Timer::new().unwrap();
        let shortest = {
            let mut shortest = Duration::MAX;
            for _ in 0..50 {
                let start = Instant::now();
                timer.sleep(Duration::from_micros(200)).await;
                assert!(start.elapsed() >= Duration::from_micros(200));
                shortest = shortest.min(start.elapsed());
            }
            shortest
        };
        assert!(shortest < Duration::from_micros(900), "{shortest:?}");
        let cut = tokio::time::timeout(Duration::from_millis(1), timer.sleep(Duration::from_secs(9))).await;
        assert!(cut.is_err());
        let start = Instant::now();
        timer.sleep(Duration::from_millis(2)).await;
        assert!(start.elapsed() >= Duration::from_millis(2), "a sleep that was cut leaves nothing behind");
    }
}
