//! Names that a configuration makes up: kept for the life of the process, each once.
//!
//! Metrics are told apart by where their family is, so that a cell costs no look-up; names of the configuration get the
//! same standing here. Main thread: configuration is read there alone.

use super::counters::{Family, Metric};
use crate::refusal::Refusal;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Names and families that a process keeps at most: a configuration that makes up new ones with each change is refused.
const MAX_NAMES: usize = 10_000;

thread_local! {
    static NAMES: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    static FAMILIES: RefCell<Vec<&'static Family>> = const { RefCell::new(Vec::new()) };
}

/// The one copy of a name.
///
/// # Errors
/// An empty name, or one too many.
pub(super) fn name(text: &str) -> Result<&'static str, Refusal> {
    if text.is_empty() {
        return Err(Refusal::new("name", "is empty"));
    }
    NAMES.with_borrow_mut(|names| match names.get(text) {
        Some(known) => Ok(*known),
        None if names.len() >= MAX_NAMES => Err(too_many()),
        None => {
            let kept: &'static str = Box::leak(text.into());
            names.insert(kept);
            Ok(kept)
        }
    })
}

/// The one copy of a family.
///
/// # Errors
/// One too many.
pub(super) fn family(prefix: &str, metrics: Vec<Metric>) -> Result<&'static Family, Refusal> {
    let prefix = name(prefix)?;
    FAMILIES.with_borrow_mut(|families| {
        let same = |family: &&&'static Family| family.prefix == prefix && *family.metrics == *metrics;
        match families.iter().find(same) {
            Some(known) => Ok(*known),
            None if families.len() >= MAX_NAMES => Err(too_many()),
            None => {
                let kept: &'static Family =
                    Box::leak(Box::new(Family { prefix, label: None, metrics: Vec::leak(metrics) }));
                families.push(kept);
                Ok(kept)
            }
        }
    })
}

fn too_many() -> Refusal {
    Refusal::new(
        "name",
        format!("this process has seen {MAX_NAMES} names of statistics: restart it to forget old ones"),
    )
}
