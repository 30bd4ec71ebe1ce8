//! What a run shall do: rate, length, connections; and when each call is due.
//!
//! It knows no socket and no clock: the time is handed in.

use super::format::{duration, general, shortest};
use std::time::Duration;

/// A run as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Calls per second over all connections; as many as possible where it is `None`.
    pub rate: Option<f64>,
    /// How long; until it is interrupted where it is `None`.
    pub length: Option<Duration>,
    /// How many calls exactly, instead of the length.
    pub exactly: Option<u64>,
    /// Connections, each with one call at a time.
    pub connections: usize,
    /// How the calls of the connections lie to each other.
    pub spread: Spread,
    /// What becomes of calls that are late.
    pub late: Late,
    /// Percentiles to report, above 0 and below 100.
    pub percentiles: Vec<f64>,
    /// Width of the smallest bucket of the histogram, in seconds.
    pub resolution: f64,
    /// Where the first bucket ends, in seconds.
    pub offset: f64,
}

impl Default for Plan {
    /// Fortio's defaults.
    fn default() -> Self {
        Self {
            rate: Some(8.0),
            length: Some(Duration::from_secs(5)),
            exactly: None,
            connections: 4,
            spread: Spread::default(),
            late: Late::default(),
            percentiles: vec![50.0, 75.0, 90.0, 99.0, 99.9],
            resolution: 0.001,
            offset: 0.0,
        }
    }
}

/// How the calls of several connections lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The first calls are spread evenly over one period (`-uniform`).
    pub uniform: bool,
    /// Each wait is up to a tenth longer or shorter (`-jitter`).
    pub jitter: bool,
}

/// What becomes of a call whose time has passed before the one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Late {
    /// It is made at once, so that the number of calls is kept.
    #[default]
    CatchUp,
    /// It is not made: the rate is a ceiling (`-nocatchup`).
    Skip,
}

/// A plan with its calls dealt out to the connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Connections, perhaps fewer than planned: each makes at least two calls.
    pub connections: usize,
    /// Calls of each connection; as many as the time allows where it is `None`.
    pub calls: Option<u64>,
    /// Further calls of the first connection.
    pub left_over: u64,
    /// What was changed, for people.
    pub warnings: Vec<String>,
    /// The line that announces the run.
    pub announcement: String,
    /// Rate as the report names it.
    pub requested_rate: String,
    /// Length as the report names it.
    pub requested_length: String,
}

impl Schedule {
    /// Deals out the calls of a plan. `processors` is only told.
    pub fn new(plan: &Plan, processors: usize) -> Self {
        match plan.rate {
            Some(rate) => Self::paced(plan, rate, processors),
            None => Self::unpaced(plan, processors),
        }
    }

    fn paced(plan: &Plan, rate: f64, processors: usize) -> Self {
        let mut schedule = Self {
            connections: plan.connections.max(1),
            calls: None,
            left_over: 0,
            warnings: Vec::new(),
            announcement: String::new(),
            requested_rate: general(rate, 9),
            requested_length: "until stop".to_owned(),
        };
        let start = |schedule: &Self| {
            format!("Starting at {} qps with {} thread(s) [gomax {processors}]", shortest(rate), schedule.connections)
        };
        let length = plan.length.unwrap_or_default();
        let Some(mut calls) = plan.exactly.or_else(|| plan.length.map(|length| (rate * length.as_secs_f64()) as u64))
        else {
            schedule.announcement = format!("{} until interrupted", start(&schedule));
            return schedule;
        };
        if calls < 2 {
            schedule.warnings.push(
                "Increasing the number of calls to the minimum of 2 with 1 thread. total duration will increase".into(),
            );
            (calls, schedule.connections) = (2, 1);
        }
        let most = usize::try_from(calls / 2).unwrap_or(usize::MAX);
        if schedule.connections > most {
            let from = schedule.connections;
            schedule.warnings.push(format!(
                "Lowering number of threads - total call {calls} -> lowering from {from} to {most} threads"
            ));
            schedule.connections = most;
        }
        let each = calls / schedule.connections as u64;
        let total = each * schedule.connections as u64;
        schedule.calls = Some(each);
        let start = start(&schedule);
        (schedule.requested_length, schedule.announcement) = match plan.exactly {
            Some(exactly) => {
                schedule.left_over = exactly.saturating_sub(total);
                let left_over = schedule.left_over;
                (
                    format!("exactly {exactly} calls"),
                    format!("{start} : exactly {exactly}, {each} calls each (total {total} + {left_over})"),
                )
            }
            None => (duration(length), format!("{start} for {} : {each} calls each (total {total})", duration(length))),
        };
        schedule
    }

    fn unpaced(plan: &Plan, processors: usize) -> Self {
        // Fortio makes one call per connection even where fewer were asked for; exactly means exactly.
        let most = plan.exactly.and_then(|calls| usize::try_from(calls).ok()).unwrap_or(usize::MAX);
        let connections = plan.connections.clamp(1, most.max(1));
        let start = format!("Starting at max qps with {connections} thread(s) [gomax {processors}]");
        let each = plan.exactly.map(|calls| calls / connections as u64);
        let left_over = plan.exactly.map_or(0, |calls| calls % connections as u64);
        let (requested_length, announcement) = match (plan.exactly, each, plan.length) {
            (Some(calls), Some(each), _) => {
                let text = format!("exactly {calls} calls");
                (text.clone(), format!("{start} for {text} ({each} per thread + {left_over})"))
            }
            (_, _, Some(length)) => (duration(length), format!("{start} for {}", duration(length))),
            _ => (String::new(), format!("{start} until interrupted")),
        };
        Self {
            connections,
            calls: each,
            left_over,
            warnings: Vec::new(),
            announcement,
            requested_rate: "max".to_owned(),
            requested_length,
        }
    }

    /// When the calls of one connection are due.
    pub fn pacer(&self, plan: &Plan, connection: usize) -> Pacer {
        let extra = if connection == 0 { self.left_over } else { 0 };
        let period = plan.rate.map(|rate| self.connections as f64 / rate);
        Pacer {
            number: 0,
            calls: self.calls.map(|calls| calls + extra),
            period,
            lead: match period {
                Some(period) if plan.spread.uniform => period * connection as f64 / self.connections as f64,
                _ => 0.0,
            },
            stretched: plan.length.is_some(),
            ends: if plan.exactly.is_some() { None } else { plan.length },
            jitter: plan.spread.jitter,
            late: plan.late,
            skipped: 0,
        }
    }
}

/// When the calls of one connection are due. Ask it before each call.
#[derive(Debug, Clone, PartialEq)]
pub struct Pacer {
    number: u64,
    calls: Option<u64>,
    /// Seconds between two calls.
    period: Option<f64>,
    /// Seconds by which this connection starts later than the run.
    lead: f64,
    /// The last call starts when the time is over, so that n calls have n-1 waits between them.
    stretched: bool,
    ends: Option<Duration>,
    jitter: bool,
    late: Late,
    skipped: u64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Make a call.
    Call(Call),
    /// All calls are made.
    End,
    /// The time is over before all calls were made.
    OutOfTime {
        /// How many were made or skipped.
        made: u64,
        /// How many there should have been.
        planned: u64,
    },
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// When it is due, since the run began; `None` where calls have no rate.
    pub due: Option<Duration>,
    /// Seconds to wait until then, negative where it is late; `None` for the first call and without a rate.
    pub wait: Option<f64>,
}

impl Pacer {
    /// The next step, `elapsed` after the run began.
    pub fn next(&mut self, elapsed: Duration) -> Step {
        let now = elapsed.as_secs_f64();
        loop {
            if self.calls.is_some_and(|calls| self.number >= calls) {
                return Step::End;
            }
            let Some(period) = self.period else { return self.unpaced(elapsed) };
            let mut due = self.lead + self.due(period);
            let mut wait = due - now;
            if self.late == Late::Skip && wait < 0.0 && self.number > 0 {
                self.number += 1;
                self.skipped += 1;
                continue;
            }
            if let Some(step) = self.out_of_time(elapsed) {
                return step;
            }
            if self.jitter && wait > 0.0 && self.number > 0 {
                let change = wait * (fastrand::f64() - 0.5) / 5.0;
                due += change;
                wait += change;
            }
            let first = self.number == 0;
            self.number += 1;
            let due = Some(Duration::try_from_secs_f64(due).unwrap_or_default());
            return Step::Call(Call { due, wait: (!first || self.lead > 0.0).then_some(wait) });
        }
    }

    /// Calls that were too late to be made.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn unpaced(&mut self, elapsed: Duration) -> Step {
        if self.ends.is_some_and(|end| elapsed > end) {
            return Step::End;
        }
        self.number += 1;
        Step::Call(Call { due: None, wait: None })
    }

    /// Seconds from the start of this connection to the call at hand.
    fn due(&self, period: f64) -> f64 {
        let number = self.number as f64;
        match self.calls {
            Some(calls) if self.stretched && calls > 1 => (number + number / (calls - 1) as f64) * period,
            _ => number * period,
        }
    }

    /// At least two calls are made, and the last one always.
    fn out_of_time(&self, elapsed: Duration) -> Option<Step> {
        let (end, calls) = (self.ends?, self.calls?);
        let over = elapsed > end && self.number >= 2 && self.number + 1 != calls;
        over.then_some(Step::OutOfTime { made: self.number, planned: calls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate: f64, seconds: u64, connections: usize) -> Plan {
        Plan { rate: Some(rate), length: Some(Duration::from_secs(seconds)), connections, ..Plan::default() }
    }

    /// When calls are due if each takes no time.
    fn dues(plan: &Plan, connection: usize) -> Vec<f64> {
        let mut pacer = Schedule::new(plan, 1).pacer(plan, connection);
        let (mut found, mut now) = (Vec::new(), Duration::ZERO);
        while let Step::Call(call) = pacer.next(now) {
            now = call.due.unwrap();
            found.push((now.as_secs_f64() * 1000.0).round() / 1000.0);
        }
        found
    }

    // spec: FO-27, FO-10, FO-11, FO-12
    #[test]
    fn the_last_call_is_due_when_the_time_is_over() {
        assert_eq!(dues(&plan(1.0, 2, 1), 0), [0.0, 2.0]);
        assert_eq!(dues(&plan(3.0, 1, 1), 0), [0.0, 0.5, 1.0]);
        assert_eq!(dues(&plan(8.0, 2, 4), 3), [0.0, 0.667, 1.333, 2.0]);
        let endless = Plan { length: None, ..plan(2.0, 1, 1) };
        let mut pacer = Schedule::new(&endless, 1).pacer(&endless, 0);
        let due = |pacer: &mut Pacer| match pacer.next(Duration::ZERO) {
            Step::Call(call) => call.due.unwrap().as_secs_f64(),
            step => panic!("{step:?}"),
        };
        assert_eq!((0..3).map(|_| due(&mut pacer)).collect::<Vec<_>>(), [0.0, 0.5, 1.0]);
    }

    // spec: FO-27, FO-12
    #[test]
    fn every_connection_makes_two_calls_or_is_left_out() {
        let schedule = Schedule::new(&plan(8.0, 1, 9), 2);
        assert_eq!((schedule.connections, schedule.calls), (4, Some(2)));
        assert_eq!(schedule.warnings, ["Lowering number of threads - total call 8 -> lowering from 9 to 4 threads"]);
        let few = Schedule::new(&plan(1.0, 1, 4), 2);
        assert_eq!((few.connections, few.calls, few.warnings.len()), (1, Some(2), 1));
        let exact = Plan { exactly: Some(10), ..plan(8.0, 5, 4) };
        let schedule = Schedule::new(&exact, 2);
        assert_eq!((schedule.calls, schedule.left_over), (Some(2), 2));
        assert_eq!(dues(&exact, 0).len() + 3 * dues(&exact, 1).len(), 10);
        assert_eq!(schedule.requested_length, "exactly 10 calls");
    }

    // spec: FO-30
    #[test]
    fn announcements_are_fortios() {
        let announced = |plan: &Plan| Schedule::new(plan, 2).announcement;
        let base = plan(8.0, 5, 4);
        assert_eq!(announced(&base), "Starting at 8 qps with 4 thread(s) [gomax 2] for 5s : 10 calls each (total 40)");
        assert_eq!(
            announced(&Plan { exactly: Some(11), ..base.clone() }),
            "Starting at 8 qps with 4 thread(s) [gomax 2] : exactly 11, 2 calls each (total 8 + 3)"
        );
        assert_eq!(
            announced(&Plan { length: None, ..base.clone() }),
            "Starting at 8 qps with 4 thread(s) [gomax 2] until interrupted"
        );
        let max = Plan { rate: None, ..base };
        assert_eq!(announced(&max), "Starting at max qps with 4 thread(s) [gomax 2] for 5s");
        assert_eq!(
            announced(&Plan { exactly: Some(10), ..max }),
            "Starting at max qps with 4 thread(s) [gomax 2] for exactly 10 calls (2 per thread + 2)"
        );
    }

    // spec: FO-14
    #[test]
    fn uniform_spreads_the_first_calls_over_one_period() {
        let uniform = Plan { spread: Spread { uniform: true, jitter: false }, ..plan(10.0, 10, 10) };
        let firsts: Vec<f64> = (0..10).map(|connection| dues(&uniform, connection)[0]).collect();
        assert_eq!(firsts, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]);
    }

    // spec: FO-14
    #[test]
    fn jitter_changes_waits_by_a_tenth_at_most() {
        let jittered = Plan { spread: Spread { uniform: false, jitter: true }, ..plan(10.0, 100, 1) };
        let mut pacer = Schedule::new(&jittered, 1).pacer(&jittered, 0);
        let mut now = Duration::ZERO;
        let mut changed = 0;
        for number in 0..1000_u32 {
            let due = f64::from(number) * (1.0 + 1.0 / 999.0) / 10.0;
            let planned = due - now.as_secs_f64();
            let Step::Call(call) = pacer.next(now) else { panic!("1000 calls are due") };
            let wait = call.wait.unwrap_or(0.0);
            assert!((wait - planned).abs() <= planned / 10.0 + 1e-9, "{wait} instead of {planned}");
            changed += u32::from((wait - planned).abs() > planned / 100.0);
            now = call.due.unwrap();
        }
        assert!(changed > 500, "{changed} of 1000 waits were changed");
    }

    // spec: FO-14, FO-27
    #[test]
    fn late_calls_are_caught_up_or_skipped() {
        let slow = |late: Late| {
            let plan = Plan { late, ..plan(10.0, 10, 1) };
            let mut pacer = Schedule::new(&plan, 1).pacer(&plan, 0);
            let (mut now, mut made) = (0, 0);
            loop {
                // the first call takes a second, the others nothing
                match pacer.next(Duration::from_millis(now)) {
                    Step::Call(call) => {
                        now = now.max(u64::try_from(call.due.unwrap().as_millis()).unwrap());
                        now += if made == 0 { 1000 } else { 0 };
                        made += 1;
                    }
                    Step::End => break (made, pacer.skipped()),
                    step => panic!("{step:?}"),
                }
            }
        };
        assert_eq!(slow(Late::CatchUp), (100, 0));
        assert_eq!(slow(Late::Skip), (91, 9));
    }

    // spec: FO-27
    #[test]
    fn a_run_that_cannot_keep_up_ends_in_time() {
        let plan = plan(10.0, 2, 1);
        let mut pacer = Schedule::new(&plan, 1).pacer(&plan, 0);
        for second in 0..2 {
            assert!(matches!(pacer.next(Duration::from_secs(second * 3)), Step::Call(_)));
        }
        assert_eq!(pacer.next(Duration::from_secs(6)), Step::OutOfTime { made: 2, planned: 20 });
        let max = Plan { rate: None, ..plan };
        let mut pacer = Schedule::new(&max, 1).pacer(&max, 0);
        assert!(matches!(pacer.next(Duration::from_millis(1999)), Step::Call(Call { due: None, wait: None })));
        assert_eq!(pacer.next(Duration::from_millis(2001)), Step::End);
    }
}
