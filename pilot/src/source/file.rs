//! A directory of YAML, as `kubectl apply -f DIR` would take it, watched (PI-9).
//!
//! A broken object keeps its last good version; everything else goes on. A file whose identity of objects cannot
//! be read keeps all of its objects.

use super::Event;
use super::memory::{self, Parsed};
use super::object::{Key, Object};
use super::problem::{Class, Problem};
use anyhow::Context as _;
use notify::Watcher as _;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long the directory must be quiet before it is read again, while a file is being written.
const QUIET: Duration = Duration::from_millis(15);
/// The same once files are whole: closed by who wrote them, moved here, or gone.
const WHOLE: Duration = Duration::from_millis(1);
/// The longest time that changes may wait for quiet.
const LONGEST: Duration = Duration::from_millis(150);
/// A full look at the directory, should the kernel have lost an event.
const RESCAN: Duration = Duration::from_secs(10);

/// The state of one directory.
pub struct Directory {
    path: PathBuf,
    texts: BTreeMap<Arc<str>, String>,
    parsed: BTreeMap<Arc<str>, Parsed>,
    held: HashMap<Key, (Arc<str>, Arc<Object>)>,
    problems: Vec<Problem>,
}

impl Directory {
    /// A directory that has not been read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            texts: BTreeMap::new(),
            parsed: BTreeMap::new(),
            held: HashMap::new(),
            problems: Vec::new(),
        }
    }

    /// Reads what has changed and says what that means.
    ///
    /// # Errors
    /// When the directory itself cannot be read. A single file that cannot be read is a problem, not an error.
    pub fn rescan(&mut self) -> anyhow::Result<Vec<Event>> {
        let mut problems = Vec::new();
        let texts = self.read(&mut problems)?;
        for (file, text) in &texts {
            if self.texts.get(file) != Some(text) {
                let parsed = memory::parse(text, Some(file));
                if !parsed.unused.is_empty() {
                    tracing::info!(%file, kinds = %parsed.unused.join(","), "passed over kinds that the mesh has no use for");
                }
                self.parsed.insert(file.clone(), parsed);
            }
        }
        self.parsed.retain(|file, _| texts.contains_key(file));
        self.texts = texts;
        let events = self.compare(&mut problems);
        Ok(self.report(events, problems))
    }

    fn read(&self, problems: &mut Vec<Problem>) -> anyhow::Result<BTreeMap<Arc<str>, String>> {
        let mut texts = BTreeMap::new();
        let entries = std::fs::read_dir(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", self.path.display()))?.path();
            let Some(file) = yaml_name(&path) else { continue };
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    texts.insert(file, text);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    if let Some(text) = self.texts.get(&file) {
                        texts.insert(file.clone(), text.clone());
                    }
                    problems.push(Problem {
                        class: Class::Syntax,
                        object: None,
                        file: Some(file),
                        line: None,
                        field: String::new(),
                        message: format!("cannot be read: {error}"),
                    });
                }
            }
        }
        Ok(texts)
    }

    /// Compares what the files say with what was reported.
    fn compare(&mut self, problems: &mut Vec<Problem>) -> Vec<Event> {
        let mut events = Vec::new();
        let mut present: HashSet<Key> = HashSet::new();
        for (file, parsed) in &self.parsed {
            problems.extend(parsed.problems.iter().cloned());
            present.extend(parsed.broken.iter().cloned());
            for object in &parsed.objects {
                if !present.insert(object.key.clone()) {
                    problems.push(object.problem(Class::Semantic, "metadata.name", "the same object is defined twice"));
                    continue;
                }
                let held = self.held.get(&object.key).map(|(_, held)| held);
                // A file that has not changed was not parsed again.
                if held.is_some_and(|held| Arc::ptr_eq(held, object)) {
                    continue;
                }
                let same = held.is_some_and(|held| held.same_content(object));
                self.held.insert(object.key.clone(), (file.clone(), object.clone()));
                if !same {
                    events.push(Event::Upsert(object.clone()));
                }
            }
        }
        let unreadable = |file: &Arc<str>| self.parsed.get(file).is_some_and(|parsed| parsed.unreadable);
        let gone: Vec<Key> = self
            .held
            .iter()
            .filter(|(key, (file, _))| !present.contains(*key) && !unreadable(file))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.held.remove(&key);
            events.push(Event::Delete(key));
        }
        events
    }

    fn report(&mut self, mut events: Vec<Event>, problems: Vec<Problem>) -> Vec<Event> {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::warn!(class = ?problem.class, "refused: {problem}");
        }
        if problems != self.problems {
            self.problems = problems;
            events.push(Event::Problems(self.problems.as_slice().into()));
        }
        events
    }
}

/// The name under which a file is reported, if it is one that holds objects.
fn yaml_name(path: &Path) -> Option<Arc<str>> {
    let extension = path.extension()?.to_str()?;
    let name = path.file_name()?.to_str()?;
    let hidden = name.starts_with('.') || name.starts_with('#') || name.ends_with('~');
    (matches!(extension, "yaml" | "yml" | "json") && !hidden).then(|| name.into())
}

/// What the kernel says of the directory.
#[derive(Debug, Default, Clone, Copy)]
struct Touched {
    /// The last event left a whole file, or none.
    whole: bool,
}

impl Touched {
    /// Takes an event in; none is one that was lost. Returns whether it means that something may have changed.
    fn note(&mut self, kind: Option<EventKind>) -> bool {
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        self.whole = match kind {
            Some(kind) if kind == closed => true,
            Some(EventKind::Access(_)) => return false,
            Some(EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) => true,
            _ => false,
        };
        true
    }
}

/// Reports a directory for ever: what is there, then `Synced`, then every change within a fraction of a second.
///
/// # Errors
/// When the directory cannot be read at the start or cannot be watched.
pub async fn run(path: PathBuf, events: mpsc::Sender<Vec<Event>>) -> anyhow::Result<()> {
    let (wake, mut woken) = watch::channel(Touched::default());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        wake.send_if_modified(|touched| touched.note(event.ok().map(|event| event.kind)));
    })
    .context("inotify")?;
    watcher.watch(&path, notify::RecursiveMode::NonRecursive).with_context(|| format!("watch {}", path.display()))?;
    let mut directory = Directory::new(path);
    let mut first = directory.rescan()?;
    first.push(Event::Synced);
    if events.send(first).await.is_err() {
        return Ok(());
    }
    loop {
        if let Ok(Err(_gone)) = tokio::time::timeout(RESCAN, woken.changed()).await {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + LONGEST;
        while tokio::time::Instant::now() < deadline {
            let quiet = if woken.borrow_and_update().whole { WHOLE } else { QUIET };
            match tokio::time::timeout(quiet, woken.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_gone)) => return Ok(()),
                Err(_quiet) => break,
            }
        }
        match directory.rescan() {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                if events.send(changes).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::warn!("the directory keeps its last good content: {error:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n";

    fn upserts(events: &[Event]) -> usize {
        events.iter().filter(|event| matches!(event, Event::Upsert(_))).count()
    }

    fn deletes(events: &[Event]) -> usize {
        events.iter().filter(|event| matches!(event, Event::Delete(_))).count()
    }

    // spec: PI-9
    #[test]
    fn a_broken_object_keeps_its_last_good_version_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(dir.path());
        std::fs::write(dir.path().join("a.yaml"), GOOD).unwrap();
        assert_eq!(upserts(&directory.rescan().unwrap()), 1);

        let other = GOOD.replace("name: v", "name: w");
        std::fs::write(dir.path().join("a.yaml"), format!("{}---\n{other}", GOOD.replace("route", "rout"))).unwrap();
        let events = directory.rescan().unwrap();
        assert_eq!((upserts(&events), deletes(&events)), (1, 0), "the new one comes, the broken one stays");
        let problem = directory.problems.first().unwrap();
        assert_eq!((problem.class, problem.line, &*problem.field), (Class::UnknownField, Some(4), "spec.http[0].rout"));

        std::fs::write(dir.path().join("a.yaml"), "kind: [\n").unwrap();
        assert_eq!(deletes(&directory.rescan().unwrap()), 0, "an unreadable file loses nothing");
        std::fs::write(dir.path().join("a.yaml"), other).unwrap();
        assert_eq!(deletes(&directory.rescan().unwrap()), 1, "a readable file without it does");
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(deletes(&directory.rescan().unwrap()), 1);
    }

    #[test]
    fn the_same_object_twice_is_a_problem_and_the_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), GOOD).unwrap();
        std::fs::write(dir.path().join("b.yaml"), GOOD.replace("hosts: [a]", "hosts: [b]")).unwrap();
        let mut directory = Directory::new(dir.path());
        assert_eq!(upserts(&directory.rescan().unwrap()), 1);
        assert_eq!(directory.problems[0].file.as_deref(), Some("b.yaml"));
    }

    #[test]
    fn a_file_is_read_once_it_is_whole() {
        let mut touched = Touched::default();
        let mut note = |kind| (touched.note(Some(kind)), touched.whole);
        let modified = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        assert_eq!(note(modified), (true, false), "more may follow");
        assert_eq!(note(EventKind::Access(AccessKind::Close(AccessMode::Write))), (true, true));
        assert_eq!(note(EventKind::Access(AccessKind::Close(AccessMode::Read))), (false, true), "reading is nothing");
        assert_eq!(note(EventKind::Create(notify::event::CreateKind::File)), (true, false));
        assert_eq!(note(EventKind::Modify(ModifyKind::Name(notify::event::RenameMode::To))), (true, true));
    }

    #[tokio::test]
    async fn a_saved_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, mut rx) = mpsc::channel(8);
        let task = tokio::spawn(run(dir.path().to_owned(), tx));
        assert!(rx.recv().await.unwrap().iter().any(|event| matches!(event, Event::Synced)));
        std::fs::write(dir.path().join("a.yaml"), GOOD).unwrap();
        let events = tokio::time::timeout(Duration::from_secs(5), rx.recv()).await.unwrap().unwrap();
        assert_eq!(upserts(&events), 1);
        task.abort();
    }
}
