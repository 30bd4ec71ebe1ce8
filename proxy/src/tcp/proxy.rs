//! The TCP proxy: cluster → connection → bytes both ways (TC-1, TC-2, LR-32).

use super::config::TcpConfig;
use super::copy::{self, Moved};
use super::report::{Report, Told};
use super::splice;
use crate::balancer::Wish;
use crate::cluster::Pick;
use crate::drain::{Stage, Stay};
use crate::endpoint::Verdict;
use crate::env::Instant;
use crate::filter::Facts;
use crate::filter::stats::PERIOD;
use crate::net::{Io, PeerFacts};
use crate::outcome::{Outcome, Reason, Side};
use crate::telemetry::access_log::Entry;
use std::rc::Rc;
use std::time::Duration;

/// Serves one connection until it ends, or until `stay` is over. `reporter`: the side that `istio.stats` reports, where
/// it is in the chain.
pub async fn serve_tcp(
    (io, stay): (Io, Stay),
    config: &TcpConfig,
    facts: &Rc<Facts>,
    peer: &Rc<PeerFacts>,
    reporter: Option<Told<'_>>,
) {
    let moved = Moved::default();
    let report = Report::new(config, facts, peer, reporter);
    // Envoy's own figures are told as often where nobody asks for Istio's.
    let period = reporter.map_or(PERIOD, |(_, stats)| stats.period);
    let ended = {
        let mut proxied = Box::pin(stay.until(Stage::Over, proxy(io, config, facts, peer, (&moved, &report))));
        let (mut tell, mut log) = (Instant::now() + period, config.log_interval.map(|time| Instant::now() + time));
        loop {
            let next = log.map_or(tell, |log| log.min(tell));
            if let Ok(ended) = tokio::time::timeout_at(next, proxied.as_mut()).await {
                break ended.unwrap_or(Ok(()));
            }
            let now = Instant::now();
            if tell <= now {
                report.moved(&moved);
                tell = now + period;
            }
            if log.is_some_and(|log| log <= now) {
                report.log(&moved, Entry::TcpPeriodic, None);
                log = config.log_interval.map(|time| now + time);
            }
        }
    };
    if let Err(outcome) = &ended {
        tracing::debug!(%outcome, peer = %peer.remote, "connection ended");
    }
    report.ended(&moved, ended.as_ref().err());
}

async fn proxy(
    mut io: Io,
    config: &TcpConfig,
    facts: &Rc<Facts>,
    peer: &Rc<PeerFacts>,
    (moved, report): (&Moved, &Report<'_>),
) -> Result<(), Outcome> {
    let mut up = match connect(config, facts, peer, report).await {
        Ok(up) => up,
        Err(outcome) => {
            io.reset_on_close();
            return Err(outcome);
        }
    };
    report.connected(up.local);
    if config.log_connected {
        report.log(moved, Entry::TcpUpstreamConnected, None);
    }
    let started = Instant::now();
    moved.at.set(Some(started));
    let copying = async {
        // Bytes that an inspector holds go first; then the sockets are plain.
        if let (Io::Tcp(_, prefix), Io::Tcp(socket, _)) = (&mut io, &mut up.io)
            && !prefix.is_empty()
        {
            let held = std::mem::take(prefix);
            moved.up.set(held.len() as u64);
            splice::lead(socket, &held).await?;
        }
        match (&mut io, &mut up.io) {
            (Io::Tcp(down, _), Io::Tcp(up, _)) => splice::both_ways(down, up, moved).await,
            (down, up) => copy::both_ways(down, up, moved).await,
        }
    };
    let ended = limited(copying, config, started, moved).await;
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            io.reset_on_close();
            Err(Outcome::with_detail(Reason::UpstreamClosed, error.to_string()))
        }
        Err(reached) => Err(reached.into()),
    }
}

/// Runs `copying` within the connection's limits.
///
/// # Errors
/// The limit that was reached.
async fn limited(
    copying: impl Future<Output = std::io::Result<()>>,
    config: &TcpConfig,
    started: Instant,
    moved: &Moved,
) -> Result<std::io::Result<()>, Reason> {
    let mut copying = std::pin::pin!(copying);
    loop {
        let idle = config.idle_timeout.map(|limit| moved.at.get().unwrap_or(started) + limit);
        let life = config.max_duration.map(|limit| started + limit);
        let Some(until) = idle.into_iter().chain(life).min() else { return Ok(copying.await) };
        if let Ok(ended) = tokio::time::timeout_at(until, copying.as_mut()).await {
            return Ok(ended);
        }
        let now = Instant::now();
        let quiet = config.idle_timeout.is_some_and(|limit| moved.at.get().unwrap_or(started) + limit <= now);
        if quiet {
            return Err(Reason::IdleTimeout);
        }
        if life.is_some_and(|life| life <= now) {
            return Err(Reason::MaxDuration);
        }
    }
}

/// Back-off between connects.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(25);

async fn connect(
    config: &TcpConfig,
    facts: &Rc<Facts>,
    peer: &Rc<PeerFacts>,
    report: &Report<'_>,
) -> Result<crate::cluster::TcpUpstream, Outcome> {
    let total: u64 = config.clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut left = facts.env.below(total);
    let chosen = config.clusters.iter().find(|(_, weight)| {
        let here = left < u64::from(*weight);
        left = left.saturating_sub(u64::from(*weight));
        here
    });
    let (name, _) = chosen.ok_or(Reason::UnknownCluster)?;
    let cluster = facts.clusters.get(name).ok_or(Reason::UnknownCluster)?;
    report.chose(name);
    let (mut tried, mut last) = (Vec::new(), Outcome::from(Reason::NoHealthyUpstream));
    for attempt in 0..config.max_connect_attempts {
        if attempt > 0 {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        let wish = Wish { tried: &tried, avoid_attempts: 5, ..Wish::default() };
        let endpoint = cluster.pick(wish, Some(peer.local))?;
        report.tries(&endpoint);
        tried.push(endpoint.clone());
        let opened = cluster.open_tcp(Pick::new(&endpoint)).await;
        let verdict = if opened.is_ok() { Verdict::Good } else { Verdict::LocalError };
        if let Some(outlier) = &cluster.config.outlier
            && opened.as_ref().err().is_none_or(|outcome| outcome.reason.side() == Side::Upstream)
            && outlier.note(&endpoint, &cluster.hosts(), verdict, facts.clock.now_ms())
        {
            tracing::info!(cluster = &*cluster.config.name, endpoint = %endpoint.address, "endpoint ejected");
            cluster.refresh(facts.clock.now_ms());
        }
        match opened {
            Ok(up) => return Ok(up),
            Err(outcome) => last = outcome,
        }
    }
    Err(last)
}
