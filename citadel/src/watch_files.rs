//! Files that change under a running process: certificates, keys and key sets that an operator replaces.
//!
//! Directories are watched, not files: editors and Kubernetes replace files by renaming.

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Quiet time after the last event before a change is reported (CA-23).
pub const DEBOUNCE: Duration = Duration::from_millis(100);

/// Changes of a set of files; dropping it ends the watch.
#[derive(Debug)]
pub struct Changes {
    changed: watch::Receiver<u64>,
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// When the watch ended, which only happens at shutdown.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.changed.changed().await
    }
}

/// Watches files or directories; a burst of events is reported once.
///
/// # Errors
/// What the system says, such as a missing directory or too many watches.
pub fn watch(paths: &[PathBuf]) -> notify::Result<Changes> {
    let (events, mut queue) = mpsc::channel::<()>(1);
    let handler = move |event: notify::Result<notify::Event>| {
        if !matches!(&event, Ok(e) if e.kind.is_access()) {
            events.try_send(()).unwrap_or(()); // full: a report is pending already
        }
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    let mut directories: Vec<&Path> = paths.iter().map(|p| directory_of(p)).collect();
    directories.sort_unstable();
    directories.dedup();
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    let (report, changed) = watch::channel(0u64);
    tokio::spawn(async move {
        while queue.recv().await.is_some() {
            while let Ok(Some(())) = tokio::time::timeout(DEBOUNCE, queue.recv()).await {}
            report.send_modify(|count| *count += 1);
            if report.is_closed() {
                return;
            }
        }
    });
    Ok(Changes { changed, _watcher: watcher })
}

fn directory_of(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_file_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cert.pem");
        std::fs::write(&file, "one").unwrap();
        let mut changes = watch(std::slice::from_ref(&file)).unwrap();
        std::fs::write(directory.path().join("new"), "two").unwrap();
        std::fs::rename(directory.path().join("new"), &file).unwrap();
        tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    }
}
