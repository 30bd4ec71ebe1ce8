//! Which sets of parts leases are given by.
//!
//! A proxy looks a lease up by every set of parts that it was ever given, and keeps few such sets. Rules that stop
//! reading early give many. So only the first few are given as they are; later decisions are given by all parts that
//! any rule can read, which is always true of them and is one set.

use super::load::Policy;
use crate::attribute::Touched;
use crate::attribute::vocabulary as v;
use arc_swap::ArcSwap;
use std::borrow::Cow;

/// Sets that are given as they are; a proxy of ours keeps 16.
const MAX_SHAPES: usize = 12;

/// The sets of one policy.
#[derive(Debug, Default)]
pub struct Shapes {
    all: Touched<'static>,
    given: ArcSwap<Vec<Vec<String>>>,
}

impl Shapes {
    /// No set given yet; any rule of this policy can read what its expressions name.
    pub fn of(policy: &Policy) -> Self {
        let mut all = Touched::default();
        if policy.is_scoped() {
            for (id, name) in [
                (v::CONTEXT_REPORTER_KIND, "context.reporter.kind"),
                (v::SOURCE_NAMESPACE, "source.namespace"),
                (v::DESTINATION_NAMESPACE, "destination.namespace"),
            ] {
                all.attribute(id, || Cow::Borrowed(name));
            }
        }
        policy.bindings.iter().for_each(|binding| binding.reads(&mut all));
        policy.all_rules().filter(|rule| rule.checks || rule.charges).for_each(|rule| rule.reads(&mut all));
        Self { all, given: ArcSwap::default() }
    }

    /// The set by which a decision is leased that read these parts; none where no other request may reuse it.
    pub fn fit(&self, touched: &Touched<'_>) -> Option<Vec<String>> {
        let by = touched.by()?;
        let given = self.given.load();
        if given.contains(&by) {
            return Some(by);
        }
        if given.len() < MAX_SHAPES {
            // Two at the same time: one is not remembered and comes again.
            let more = given.iter().cloned().chain(std::iter::once(by.clone())).collect();
            self.given.store(std::sync::Arc::new(more));
            return Some(by);
        }
        let mut all = Touched::default();
        all.include(&self.all);
        all.include(touched);
        // A rule that reads the time makes the whole set useless, not this decision.
        all.by().or(Some(by))
    }
}
