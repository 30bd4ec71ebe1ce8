//! The file with the mesh's own settings, watched (PI-7).

use super::Event;
use anyhow::Context as _;
use notify::Watcher as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the file must be quiet before it is read again.
const QUIET: Duration = Duration::from_millis(15);

/// How the text of the file is read.
pub type Parse = fn(&str) -> anyhow::Result<proto::istio::mesh_config::MeshConfig>;

/// Reports every change of the file for ever; a broken one is reported in the log, and the settings before it stay.
///
/// # Errors
/// When its directory cannot be watched.
pub async fn run(path: PathBuf, parse: Parse, events: mpsc::Sender<Vec<Event>>) -> anyhow::Result<()> {
    let (wake, mut woken) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let reading = matches!(&event, Ok(event) if event.kind.is_access());
        if !reading && wake.try_send(()).is_err() {
            tracing::trace!("a look at the file is already due");
        }
    })
    .context("inotify")?;
    // The directory: an editor, and Kubernetes too, puts a new file in the place of the old one.
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    watcher
        .watch(&directory, notify::RecursiveMode::NonRecursive)
        .with_context(|| format!("watch {}", directory.display()))?;
    let mut held = std::fs::read_to_string(&path).unwrap_or_default();
    while woken.recv().await.is_some() {
        while tokio::time::timeout(QUIET, woken.recv()).await.is_ok_and(|more| more.is_some()) {}
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if text == held {
            continue;
        }
        held = text;
        match parse(&held) {
            Ok(config) => {
                tracing::info!(file = %path.display(), "the mesh has new settings");
                if events.send(vec![Event::Mesh(Arc::new(config))]).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::warn!(file = %path.display(), "the settings before stay: {error:#}"),
        }
    }
    Ok(())
}
