//! Which names of one kind are wanted, and what of that the server has been told.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The name that stands for all resources of a kind.
pub(super) const WILDCARD: &str = "*";

/// Names wanted of one kind.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    all: bool,
    names: BTreeSet<Arc<str>>,
    told: Option<Told>,
}

#[derive(Debug, Default)]
struct Told {
    all: bool,
    /// "All" was said by an empty first request; it ends as soon as names are sent without `*` beside them.
    by_silence: bool,
    names: BTreeSet<Arc<str>>,
}

/// What is to be said to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether this is the first word about the kind on this stream.
    pub(super) first: bool,
    /// Names to add; `*` for all.
    pub(super) subscribe: Vec<String>,
    /// Names to take back.
    pub(super) unsubscribe: Vec<String>,
}

impl Subscription {
    /// Wants all resources of the kind.
    pub(super) fn want_all(&mut self) {
        self.all = true;
    }

    /// Wants exactly these names, beside all if all are wanted.
    pub(super) fn want(&mut self, names: BTreeSet<Arc<str>>) {
        self.names = names;
    }

    /// Whether anything is wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.all || !self.names.is_empty()
    }

    /// Whether all are wanted.
    pub(super) fn wants_all(&self) -> bool {
        self.all
    }

    /// Whether this name is wanted.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    /// The names wanted by name.
    pub(super) fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    /// The stream is gone, and with it what the server was told.
    pub(super) fn forget(&mut self) {
        self.told = None;
    }

    /// What the server has not been told yet; telling it is then taken as done.
    pub(super) fn take_change(&mut self) -> Option<Change> {
        let Some(told) = &mut self.told else {
            if !self.is_wanted() {
                return None;
            }
            // all and nothing else: said by an empty list, as Envoy does (spec XD-5, XM-1)
            let by_silence = self.all && self.names.is_empty();
            let mut subscribe: Vec<String> = self.names.iter().map(|name| name.to_string()).collect();
            if self.all && !by_silence {
                subscribe.insert(0, WILDCARD.to_owned());
            }
            self.told = Some(Told { all: self.all, by_silence, names: self.names.clone() });
            return Some(Change { first: true, subscribe, unsubscribe: Vec::new() });
        };
        let mut subscribe: Vec<String> = self.names.difference(&told.names).map(|name| name.to_string()).collect();
        let unsubscribe: Vec<String> = told.names.difference(&self.names).map(|name| name.to_string()).collect();
        if self.all && (!told.all || (told.by_silence && !subscribe.is_empty())) {
            subscribe.insert(0, WILDCARD.to_owned());
            told.by_silence = false;
        }
        told.all = self.all;
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        told.names = self.names.clone();
        Some(Change { first: false, subscribe, unsubscribe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    fn change(subscription: &mut Subscription) -> Option<(bool, String, String)> {
        let change = subscription.take_change()?;
        Some((change.first, change.subscribe.join(","), change.unsubscribe.join(",")))
    }

    // spec: XD-5, XD-6
    #[test]
    fn all_is_said_by_an_empty_list_until_names_come_beside_it() {
        let mut cds = Subscription::default();
        assert_eq!(change(&mut cds), None);
        cds.want_all();
        assert_eq!(change(&mut cds), Some((true, String::new(), String::new())));
        assert_eq!(change(&mut cds), None);
        cds.want(names(&["on-demand"]));
        assert_eq!(change(&mut cds), Some((false, "*,on-demand".into(), String::new())));
        cds.want(names(&["on-demand", "b"]));
        assert_eq!(change(&mut cds), Some((false, "b".into(), String::new())));
        cds.forget();
        assert_eq!(change(&mut cds), Some((true, "*,b,on-demand".into(), String::new())));
    }

    // spec: XM-3, XD-8
    #[test]
    fn names_are_added_and_taken_back_one_by_one() {
        let mut eds = Subscription::default();
        eds.want(names(&["a", "b"]));
        assert_eq!(change(&mut eds), Some((true, "a,b".into(), String::new())));
        eds.want(names(&["b", "c"]));
        assert_eq!(change(&mut eds), Some((false, "c".into(), "a".into())));
        eds.want(names(&[]));
        assert_eq!(change(&mut eds), Some((false, String::new(), "b,c".into())));
        eds.forget();
        assert_eq!(change(&mut eds), None);
    }
}
