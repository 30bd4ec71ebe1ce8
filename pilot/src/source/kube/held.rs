//! What the watches of an API server have brought, and what a change of it means. No I/O.
//!
//! A list that is read anew (after `410 Gone`, after the server was away) is compared with what is held: only what the whole
//! list lacks is gone, and nothing is gone before the list has ended (F26).

use super::Watch;
use crate::source::{Event, Key, Object, Problem};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The objects by watch.
#[derive(Default)]
pub(super) struct Held {
    watches: HashMap<Watch, Watched>,
    problems: BTreeMap<Key, Problem>,
    /// The problems differ from those that were reported last.
    unreported: bool,
}

#[derive(Default)]
struct Watched {
    /// The last good version; none of an object that is there and was never good.
    objects: BTreeMap<Key, Option<Arc<Object>>>,
    /// What the list that is being read has named so far.
    listed: Option<BTreeSet<Key>>,
    /// A whole list has been read.
    complete: bool,
}

impl Held {
    /// A list begins.
    pub(super) fn restart(&mut self, watch: &Watch) {
        self.watches.entry(watch.clone()).or_default().listed = Some(BTreeSet::new());
    }

    /// An object is there; a broken one keeps its last good version.
    pub(super) fn object(&mut self, watch: &Watch, key: Key, object: Result<Arc<Object>, Problem>) -> Option<Event> {
        let watched = self.watches.entry(watch.clone()).or_default();
        if let Some(listed) = &mut watched.listed {
            listed.insert(key.clone());
        }
        match object {
            Ok(object) => {
                self.unreported |= self.problems.remove(&key).is_some();
                let held = watched.objects.entry(key).or_default();
                if held.as_ref().is_some_and(|held| held.same_content(&object)) {
                    return None;
                }
                *held = Some(object.clone());
                Some(Event::Upsert(object))
            }
            Err(problem) => {
                watched.objects.entry(key.clone()).or_default();
                if self.problems.get(&key) != Some(&problem) {
                    tracing::warn!(class = ?problem.class, "refused: {problem}");
                    self.problems.insert(key, problem);
                    self.unreported = true;
                }
                None
            }
        }
    }

    /// The list has ended: what it did not name is gone.
    pub(super) fn complete(&mut self, watch: &Watch) -> Vec<Event> {
        let watched = self.watches.entry(watch.clone()).or_default();
        watched.complete = true;
        let Some(listed) = watched.listed.take() else { return Vec::new() };
        let gone: Vec<Key> = watched.objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        gone.iter().filter_map(|key| self.gone(watch, key)).collect()
    }

    /// This list is not waited for.
    pub(super) fn waive(&mut self, watch: &Watch) {
        self.watches.entry(watch.clone()).or_default().complete = true;
    }

    /// An object was deleted.
    pub(super) fn gone(&mut self, watch: &Watch, key: &Key) -> Option<Event> {
        self.unreported |= self.problems.remove(key).is_some();
        let held = self.watches.get_mut(watch)?.objects.remove(key)?;
        held.map(|_| Event::Delete(key.clone()))
    }

    /// The kind itself is gone, and its objects with it.
    pub(super) fn end(&mut self, watch: &Watch) -> Vec<Event> {
        let keys: Vec<Key> =
            self.watches.get(watch).map(|watched| watched.objects.keys().cloned().collect()).unwrap_or_default();
        let events = keys.iter().filter_map(|key| self.gone(watch, key)).collect();
        self.watches.remove(watch);
        events
    }

    /// Whether a whole list of this watch has been read.
    pub(super) fn is_complete(&self, watch: &Watch) -> bool {
        self.watches.get(watch).is_some_and(|watched| watched.complete)
    }

    /// The problems, if they have changed since they were last asked for.
    pub(super) fn problems(&mut self) -> Option<Event> {
        std::mem::take(&mut self.unreported).then(|| Event::Problems(self.problems.values().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Class, Kind, memory};

    const WATCH: Watch = Watch::Objects(Kind::Service, None);

    fn service(name: &str, port: u16) -> Arc<Object> {
        let yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}, name: http}}]}}\n"
        );
        memory::parse(&yaml, None).objects.remove(0)
    }

    fn put(held: &mut Held, object: &Arc<Object>) -> Option<Event> {
        held.object(&WATCH, object.key.clone(), Ok(object.clone()))
    }

    fn list(held: &mut Held, objects: &[Arc<Object>]) -> Vec<Event> {
        held.restart(&WATCH);
        let mut events: Vec<Event> = objects.iter().filter_map(|object| put(held, object)).collect();
        events.extend(held.complete(&WATCH));
        events
    }

    // spec: PI-8
    #[test]
    fn a_list_that_is_read_anew_yields_what_differs() {
        let mut held = Held::default();
        assert_eq!(list(&mut held, &[service("a", 1), service("b", 1), service("c", 1)]).len(), 3);
        assert!(held.is_complete(&WATCH));
        assert!(
            list(&mut held, &[service("a", 1), service("b", 1), service("c", 1)]).is_empty(),
            "nothing has changed"
        );
        let events = list(&mut held, &[service("a", 1), service("b", 2)]);
        assert!(matches!(&events[..], [Event::Upsert(b), Event::Delete(c)] if &*b.key.name == "b" && &*c.name == "c"));
    }

    #[test]
    fn a_list_that_breaks_off_deletes_nothing() {
        let mut held = Held::default();
        list(&mut held, &[service("a", 1), service("b", 1)]);
        held.restart(&WATCH);
        assert!(put(&mut held, &service("a", 1)).is_none());
        // The server went away; the next list names b alone.
        let events = list(&mut held, &[service("b", 1)]);
        assert!(matches!(&events[..], [Event::Delete(a)] if &*a.name == "a"), "{events:?}");
    }

    #[test]
    fn a_broken_object_is_there_and_keeps_its_last_good_version() {
        let mut held = Held::default();
        let good = service("a", 1);
        list(&mut held, std::slice::from_ref(&good));
        let problem = good.problem(Class::WrongType, "spec.ports", "not a list");
        assert!(held.object(&WATCH, good.key.clone(), Err(problem.clone())).is_none());
        assert!(matches!(held.problems(), Some(Event::Problems(all)) if all.len() == 1));
        assert!(held.problems().is_none(), "reported once");
        held.restart(&WATCH);
        assert!(held.object(&WATCH, good.key.clone(), Err(problem)).is_none());
        assert!(held.complete(&WATCH).is_empty(), "a list that names it broken does not delete it");
        assert!(put(&mut held, &good).is_none(), "as before: nothing to push");
        assert!(matches!(held.problems(), Some(Event::Problems(all)) if all.is_empty()));
        assert!(matches!(held.gone(&WATCH, &good.key), Some(Event::Delete(_))));
    }

    #[test]
    fn the_objects_of_a_kind_that_is_gone_go_with_it() {
        let mut held = Held::default();
        list(&mut held, &[service("a", 1), service("b", 1)]);
        assert_eq!(held.end(&WATCH).len(), 2);
        assert!(!held.is_complete(&WATCH));
        assert_eq!(list(&mut held, &[service("a", 1)]).len(), 1, "it may come again");
    }
}
