//! A directory of YAML files, watched: every change gives all texts anew.

use crate::yaml::MAX_FILE;
use anyhow::Context as _;
use notify::Watcher as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the directory must be quiet before it is read again.
const QUIET: Duration = Duration::from_millis(20);
/// A full look at the directory, should the kernel have lost an event.
const RESCAN: Duration = Duration::from_secs(10);
/// The most files that are read.
const MAX_FILES: usize = 10_000;

/// Text of every file, by its name.
pub type Texts = BTreeMap<Arc<str>, String>;

/// A watched directory.
pub struct Directory {
    path: PathBuf,
    last: Option<Texts>,
    woken: watch::Receiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl Directory {
    /// Watches a directory.
    ///
    /// # Errors
    /// Where it does not exist or cannot be watched.
    pub fn watch(path: &Path) -> anyhow::Result<Self> {
        let (wake, woken) = watch::channel(());
        let mut watcher =
            notify::recommended_watcher(move |_: notify::Result<notify::Event>| wake.send_modify(|()| {}))
                .context("inotify")?;
        watcher
            .watch(path, notify::RecursiveMode::NonRecursive)
            .with_context(|| format!("watch {}", path.display()))?;
        Ok(Self { path: path.to_owned(), last: None, woken, _watcher: watcher })
    }

    /// The texts, the first time at once, later when one has changed. Cancel-safe.
    ///
    /// # Errors
    /// Where the directory cannot be read the first time; later the last content stays.
    pub async fn next(&mut self) -> anyhow::Result<Texts> {
        loop {
            self.woken.borrow_and_update();
            match read(&self.path, self.last.as_ref()) {
                Ok(texts) if self.last.as_ref() != Some(&texts) => {
                    self.last = Some(texts.clone());
                    return Ok(texts);
                }
                Ok(_) => {}
                Err(error) if self.last.is_none() => return Err(error),
                Err(error) => tracing::warn!("the directory keeps its last good content: {error:#}"),
            }
            // A watcher that is gone leaves the regular look.
            let _woken = tokio::time::timeout(RESCAN, self.woken.changed()).await;
            while let Ok(Ok(())) = tokio::time::timeout(QUIET, self.woken.changed()).await {}
        }
    }
}

/// All YAML files of a directory. A file that cannot be read keeps its last text.
fn read(path: &Path, last: Option<&Texts>) -> anyhow::Result<Texts> {
    let mut texts = Texts::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("read {}", path.display()))?.take(MAX_FILES) {
        let path = entry.with_context(|| format!("read {}", path.display()))?.path();
        let Some(name) = yaml_name(&path) else { continue };
        let small = std::fs::metadata(&path).is_ok_and(|facts| facts.len() <= MAX_FILE as u64);
        let text = if small { std::fs::read_to_string(&path).ok() } else { None };
        if text.is_none() && path.exists() {
            tracing::warn!(file = %name, "cannot be read, or is larger than {MAX_FILE} bytes");
        }
        if let Some(text) = text.or_else(|| last.and_then(|last| last.get(&name).cloned()).filter(|_| path.exists())) {
            texts.insert(name, text);
        }
    }
    Ok(texts)
}

/// The name under which a file is reported, if it is one that holds objects.
fn yaml_name(path: &Path) -> Option<Arc<str>> {
    let extension = path.extension()?.to_str()?;
    let name = path.file_name()?.to_str()?;
    let hidden = name.starts_with(['.', '#']) || name.ends_with('~');
    (matches!(extension, "yaml" | "yml" | "json") && !hidden).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_saved_file_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.yaml"), "a: 1\n").unwrap();
        std::fs::write(directory.path().join(".b.yaml"), "b: 1\n").unwrap();
        let mut watched = Directory::watch(directory.path()).unwrap();
        assert_eq!(watched.next().await.unwrap().keys().map(|name| &**name).collect::<Vec<_>>(), ["a.yaml"]);
        std::fs::write(directory.path().join("c.yml"), "c: 1\n").unwrap();
        let texts = tokio::time::timeout(Duration::from_secs(5), watched.next()).await.unwrap().unwrap();
        assert_eq!(texts.len(), 2);
        std::fs::remove_file(directory.path().join("a.yaml")).unwrap();
        let texts = tokio::time::timeout(Duration::from_secs(5), watched.next()).await.unwrap().unwrap();
        assert_eq!(texts.len(), 1);
    }
}
