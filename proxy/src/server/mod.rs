//! The process: order of start, owner of threads, order of stop. Main thread.
//!
//! Knows bootstrap, feed, publisher and workers. Must never know a request.

use crate::bootstrap::{Bootstrap, Converter, Environment, Flags, Mode};
use crate::env::ProcessClock;
use crate::publish::{Publisher, Workers};
use crate::worker;
use crate::xds::{Cause, Feed, FeedOptions, Kind};
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What keeps it from starting, with the file or field to mend.
pub fn run(flags: Flags) -> anyhow::Result<()> {
    let converter = Converter::of_this_binary()?;
    let bootstrap = Bootstrap::load(flags, Environment::of_process(), &converter)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(bootstrap, converter))
}

async fn serve(bootstrap: Bootstrap, converter: Converter) -> anyhow::Result<()> {
    let validate = bootstrap.flags.mode == Mode::Validate;
    let options = FeedOptions {
        node: bootstrap.node.clone(),
        converter,
        tls: None,
        also: vec![Kind::NameTable],
        own_secret_services: BTreeSet::new(),
    };
    let (workers, threads) = start_workers(bootstrap.concurrency.get())?;
    let mut publisher = Publisher::new(workers, bootstrap.environment.clone(), bootstrap.runtime.clone());
    let mut feed = Feed::new(bootstrap, options)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            batch = feed.next() => {
                let rejections = publisher.apply(&batch).await;
                if matches!(batch.cause, Cause::Bootstrap) {
                    if let Some(first) = rejections.first() {
                        bail!("error initializing configuration: {first}");
                    }
                    if validate {
                        tracing::info!("configuration OK");
                        break;
                    }
                }
                feed.settle(batch, rejections);
            }
            () = publisher.next_resolved() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    feed.save().await;
    drop((feed, publisher));
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker ended in a panic");
        }
    }
    Ok(())
}

/// Starts the worker threads.
fn start_workers(count: usize) -> anyhow::Result<(Workers, Vec<JoinHandle<()>>)> {
    let clock = ProcessClock::start();
    let (mut inboxes, mut threads) = (Vec::new(), Vec::new());
    for index in 0..count {
        let (inbox, messages) = mpsc::channel(worker::INBOX_MESSAGES);
        let clock = Arc::clone(&clock);
        let run = move || {
            if let Err(error) = worker::run(index, messages, clock) {
                tracing::error!(worker = index, %error, "worker cannot run");
            }
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(run);
        threads.push(thread.with_context(|| format!("cannot start worker {index}"))?);
        inboxes.push(inbox);
    }
    Ok((Workers::new(inboxes), threads))
}
