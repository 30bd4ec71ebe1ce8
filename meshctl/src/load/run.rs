//! Runs calls over connections on threads, each with an event loop of its own, so that no lock and no wake-up between
//! threads is part of a call.

use super::client::{Client, Facts};
use super::plan::{Pacer, Plan, Schedule, Step};
use super::record::{Answer, Code, Record};
use super::target::Target;
use super::timer::Timer;
use crate::output;
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// Failures that are said one by one; the others are only counted.
const COMPLAINTS: u64 = 10;

/// How the calls are made, besides their pace.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads to use.
    pub threads: usize,
    /// One call per connection before the run; `None` where there is none.
    pub warm_up: Option<WarmUp>,
    /// Stop at the first such code.
    pub abort_on: Option<Code>,
    /// Say which calls fail.
    pub log_errors: bool,
}

/// Calls before a run, so that connecting is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmUp {
    /// One after the other instead of all at once.
    pub sequential: bool,
    /// A failure is no reason to give up.
    pub allow_errors: bool,
}

/// Ends a run early. Clones stand for the same.
#[derive(Debug, Clone)]
pub struct Stop {
    is_set: Arc<AtomicBool>,
    changed: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { is_set: Arc::default(), changed: watch::Sender::new(false) }
    }
}

impl Stop {
    /// Calls under way end, no other begins.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed); // only a hint: the watch below wakes who sleeps
        self.changed.send_replace(true);
    }

    /// Whether the run shall end.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Waits until it shall. Cancel-safe.
    pub async fn wait(&self) {
        let mut changed = self.changed.subscribe();
        drop(changed.wait_for(|set| *set).await); // we hold a sender, so it cannot be gone
    }
}

/// How far a run is; read while it goes on.
#[derive(Debug, Default)]
#[repr(align(128))] // each thread writes to a cache line of its own
pub struct Meter {
    calls: AtomicU64,
    failures: AtomicU64,
}

impl Meter {
    fn count(&self, good: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !good {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls and failures of several threads together.
    pub fn sum(meters: &[Arc<Self>]) -> (u64, u64) {
        let sum = |of: fn(&Self) -> &AtomicU64| meters.iter().map(|meter| of(meter).load(Ordering::Relaxed)).sum();
        (sum(|meter| &meter.calls), sum(|meter| &meter.failures))
    }
}

/// A piece of a run for all threads.
#[derive(Debug, Clone)]
struct Order {
    target: usize,
    plan: Arc<Plan>,
    schedule: Arc<Schedule>,
    start: Instant,
}

/// What a thread says.
enum Word {
    Ready,
    Failed(anyhow::Error),
    Done(Box<Record>),
    Ended(Vec<Vec<(usize, Facts)>>),
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    targets: Vec<Target>,
    settings: Settings,
    stop: Stop,
    turn: Semaphore,
    complaints: AtomicU64,
}

/// The connections of a run on their threads.
#[derive(Debug)]
pub struct Crew {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    words: mpsc::UnboundedReceiver<Word>,
    /// How far the run is.
    pub meters: Vec<Arc<Meter>>,
    shared: Arc<Shared>,
}

/// What a piece of a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The calls.
    pub record: Record,
    /// How long it took.
    pub elapsed: Duration,
}

impl Crew {
    /// Opens the connections to all targets and warms them up.
    ///
    /// # Errors
    /// Where a warm-up call fails and that is not allowed.
    pub async fn assemble(
        plan: &Plan,
        schedule: &Schedule,
        targets: Vec<Target>,
        settings: Settings,
        stop: Stop,
    ) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let streams = targets.iter().map(Target::streams).max().unwrap_or(1);
        let connections = schedule.connections.div_ceil(streams);
        let threads = settings.threads.clamp(1, connections);
        let shared = Arc::new(Shared {
            plan: plan.clone(),
            targets,
            settings,
            stop,
            turn: Semaphore::new(1),
            complaints: AtomicU64::new(0),
        });
        let (out, words) = mpsc::unbounded_channel();
        let mut crew = Self { orders: Vec::new(), words, meters: Vec::new(), shared: Arc::clone(&shared) };
        for thread in 0..threads {
            let (order, orders) = mpsc::unbounded_channel();
            let numbers = (thread..connections).step_by(threads).map(|number| number * streams).collect();
            let meter = Arc::new(Meter::default());
            let hand = Hand { shared: Arc::clone(&shared), meter: Arc::clone(&meter), orders, out: out.clone() };
            let total = schedule.connections;
            std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || hand.run(numbers, total))?;
            crew.orders.push(order);
            crew.meters.push(meter);
        }
        for _ in 0..threads {
            match crew.words.recv().await.context("a thread ended by itself")? {
                Word::Failed(error) => return Err(error),
                Word::Ready | Word::Done(_) | Word::Ended(_) => {}
            }
        }
        Ok(crew)
    }

    /// Makes the calls of a schedule to one target.
    ///
    /// # Errors
    /// Where a thread died.
    pub async fn work(&mut self, target: usize, plan: &Plan, schedule: &Schedule) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let order = Order { target, plan: Arc::new(plan.clone()), schedule: Arc::new(schedule.clone()), start };
        for orders in &self.orders {
            orders.send(order.clone()).ok().context("a thread ended by itself")?;
        }
        let mut record = Record::new(plan);
        for _ in 0..self.orders.len() {
            match self.words.recv().await.context("a thread ended by itself")? {
                Word::Done(part) => record.add(&part),
                Word::Failed(error) => return Err(error),
                Word::Ready | Word::Ended(_) => {}
            }
        }
        Ok(Outcome { record, elapsed: start.elapsed() })
    }

    /// Closes the connections. Gives back what is known of them, by target.
    ///
    /// # Errors
    /// Where a thread died.
    pub async fn dismiss(mut self) -> anyhow::Result<Vec<Vec<Facts>>> {
        self.orders.clear();
        let mut facts = vec![Vec::new(); self.shared.targets.len()];
        for _ in 0..self.meters.len() {
            if let Word::Ended(part) = self.words.recv().await.context("a thread ended by itself")? {
                facts.iter_mut().zip(part).for_each(|(all, part): (&mut Vec<_>, _)| all.extend(part));
            }
        }
        let silent = self.shared.complaints.load(Ordering::Relaxed).saturating_sub(COMPLAINTS);
        if silent > 0 && self.shared.settings.log_errors {
            output::note(&format!("{silent} further failures were not shown one by one"));
        }
        let in_order = |mut all: Vec<(usize, Facts)>| {
            all.sort_by_key(|(number, _)| *number);
            all.into_iter().map(|(_, facts)| facts).collect()
        };
        Ok(facts.into_iter().map(in_order).collect())
    }
}

/// Allows as many connections as the system does: shells give 1024 descriptors, and a connection with its timer takes two.
pub fn raise_descriptor_limit() {
    let limits = getrlimit(Resource::Nofile);
    // where that is refused, connections beyond the limit fail and say so
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum }).unwrap_or(());
}

/// One client with its number and its timer, for each target.
struct Seat {
    number: usize,
    clients: Vec<Client>,
    timer: Timer,
}

/// One thread.
struct Hand {
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    orders: mpsc::UnboundedReceiver<Order>,
    out: mpsc::UnboundedSender<Word>,
}

impl Hand {
    /// Runs the connections that begin with these numbers, of `total` clients in all.
    fn run(mut self, numbers: Vec<usize>, total: usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let word = match runtime {
            Ok(runtime) => runtime.block_on(LocalSet::new().run_until(self.live(numbers, total))),
            Err(error) => Word::Failed(error.into()),
        };
        self.out.send(word).unwrap_or(()); // whoever waited for it is gone
    }

    async fn live(&mut self, numbers: Vec<usize>, total: usize) -> Word {
        let mut seats = match self.seats(&numbers, total) {
            Ok(seats) => seats,
            Err(error) => return Word::Failed(error),
        };
        if let Some(warm_up) = self.shared.settings.warm_up {
            match self.warm_up(seats, warm_up).await {
                Ok(warm) => seats = warm,
                Err(error) => return Word::Failed(error),
            }
        }
        self.out.send(Word::Ready).unwrap_or(()); // as above
        while let Some(order) = self.orders.recv().await {
            let record = Rc::new(RefCell::new(Record::new(&order.plan)));
            let mut tasks = Vec::new();
            for seat in seats.drain(..) {
                let work = Work {
                    shared: Arc::clone(&self.shared),
                    meter: Arc::clone(&self.meter),
                    record: Rc::clone(&record),
                    order: order.clone(),
                };
                tasks.push(tokio::task::spawn_local(work.run(seat)));
            }
            for task in tasks {
                match task.await {
                    Ok(seat) => seats.push(seat),
                    Err(error) => return Word::Failed(error.into()),
                }
            }
            let record = Rc::try_unwrap(record).map_or_else(|shared| shared.borrow().clone(), RefCell::into_inner);
            self.out.send(Word::Done(Box::new(record))).unwrap_or(()); // as above
        }
        let of = |target: usize| {
            let facts = seats
                .iter()
                .filter_map(|seat| Some((seat.number, seat.clients.get(target)?.facts(&self.shared.plan)?)));
            facts.collect()
        };
        Word::Ended((0..self.shared.targets.len()).map(of).collect())
    }

    fn seats(&self, numbers: &[usize], total: usize) -> anyhow::Result<Vec<Seat>> {
        let mut seats: Vec<Seat> = Vec::new();
        for number in numbers {
            let mut by_target: Vec<_> = self
                .shared
                .targets
                .iter()
                .map(|target| target.clients(*number, &self.shared.plan).into_iter())
                .collect();
            let streams = self.shared.targets.iter().map(Target::streams).max().unwrap_or(1);
            for stream in (0..streams).take_while(|stream| number + stream < total) {
                let clients = by_target.iter_mut().filter_map(Iterator::next).collect();
                seats.push(Seat { number: number + stream, clients, timer: Timer::new()? });
            }
        }
        Ok(seats)
    }

    async fn warm_up(&self, seats: Vec<Seat>, how: WarmUp) -> anyhow::Result<Vec<Seat>> {
        let mut tasks = Vec::new();
        for mut seat in seats {
            let shared = Arc::clone(&self.shared);
            tasks.push(tokio::task::spawn_local(async move {
                for (client, target) in seat.clients.iter_mut().zip(&shared.targets) {
                    let _turn = if how.sequential { shared.turn.acquire().await.ok() } else { None };
                    let (answer, problem) = client.call().await;
                    if !answer.good && !how.allow_errors {
                        let problem = problem.map(|text| format!(": {text}")).unwrap_or_default();
                        anyhow::bail!("error {} for {} ({} bytes){problem}", answer.code, target.url, answer.size);
                    }
                }
                Ok(seat)
            }));
        }
        let mut warm = Vec::new();
        for task in tasks {
            warm.push(task.await??);
        }
        Ok(warm)
    }
}

/// The calls of one connection.
struct Work {
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    record: Rc<RefCell<Record>>,
    order: Order,
}

impl Work {
    async fn run(self, mut seat: Seat) -> Seat {
        if seat.number >= self.order.schedule.connections {
            return seat;
        }
        let mut pacer = self.order.schedule.pacer(&self.order.plan, seat.number);
        if let Some(client) = seat.clients.get_mut(self.order.target) {
            self.calls(client, &mut pacer, &mut seat.timer, seat.number).await;
        }
        self.record.borrow_mut().skipped += pacer.skipped();
        seat
    }

    async fn calls(&self, client: &mut Client, pacer: &mut Pacer, timer: &mut Timer, number: usize) {
        let start = self.order.start;
        loop {
            let call = match pacer.next(start.elapsed()) {
                Step::Call(call) => call,
                Step::End => return,
                Step::OutOfTime { made, planned } => {
                    let length = self.order.plan.length.unwrap_or_default();
                    let length = super::format::duration(length);
                    output::note(&format!(
                        "T{number:03} warning only did {made} out of {planned} calls before reaching {length}"
                    ));
                    return;
                }
            };
            if let Some(wait) = call.wait {
                self.record.borrow_mut().waits.record(wait);
                if wait > 0.0 {
                    tokio::select! {
                        () = timer.sleep(Duration::from_secs_f64(wait)) => {}
                        () = self.shared.stop.wait() => return,
                    }
                }
            }
            if self.shared.stop.is_set() {
                return;
            }
            let begun = Instant::now();
            let (answer, problem) = client.call().await;
            let end = Instant::now();
            let since_due = call.due.map(|due| end.saturating_duration_since(start + due));
            self.record.borrow_mut().take(&answer, end - begun, since_due);
            self.meter.count(answer.good);
            if !answer.good {
                self.complain(&answer, problem, number);
            }
            if self.shared.settings.abort_on.as_ref() == Some(&answer.code) {
                self.shared.stop.set();
            }
        }
    }

    #[cold]
    fn complain(&self, answer: &Answer, problem: Option<String>, number: usize) {
        let said = self.shared.complaints.fetch_add(1, Ordering::Relaxed);
        if said < COMPLAINTS && self.shared.settings.log_errors {
            let problem = problem.unwrap_or_else(|| format!("the server answered {}", answer.code));
            output::note(&format!("T{number:03} call failed: {problem}"));
        }
    }
}
