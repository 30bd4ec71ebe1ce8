//! Resources from files (`path_config_source`): a `DiscoveryResponse` in YAML, JSON or protobuf, read again when its
//! directory changes.

use super::Kind;
use super::stream::Event;
use crate::bootstrap::Converter;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use prost::Message;
use proto::envoy::discovery::DiscoveryResponse;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;

const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

/// One file that holds resources of one kind.
pub(super) struct WatchedFile {
    pub(super) path: Arc<str>,
    pub(super) kind: Kind,
    pub(super) converter: Converter,
    pub(super) events: mpsc::Sender<Event>,
}

impl WatchedFile {
    /// Reads the file, and again after each change, until nobody listens to the events. A file that is missing or wrong
    /// is reported; what was read before stays in use.
    pub(super) async fn run(self) {
        let (wake, mut woken) = mpsc::channel(1);
        // held for as long as the file is watched
        let watcher = watch(&self.path, wake);
        if let Err(error) = &watcher {
            tracing::warn!(path = &*self.path, %error, "the file is read once: its directory cannot be watched");
        }
        let mut last: Option<Vec<u8>> = None;
        loop {
            match tokio::fs::read(&*self.path).await {
                Ok(bytes) if last.as_deref() != Some(&bytes) => {
                    last = Some(bytes.clone());
                    if !self.publish(bytes).await {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(path = &*self.path, %error, "configuration file is not readable"),
            }
            if woken.recv().await.is_none() {
                // no watcher: keep what was read until the process ends
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says whether anybody still listens.
    async fn publish(&self, bytes: Vec<u8>) -> bool {
        let (converter, path) = (self.converter.clone(), self.path.clone());
        let parsed = tokio::task::spawn_blocking(move || parse(&converter, &path, bytes)).await;
        match parsed {
            Ok(Ok(response)) => {
                self.events.send(Event::File(self.path.clone(), self.kind, Box::new(response))).await.is_ok()
            }
            Ok(Err(why)) => {
                tracing::warn!(why, "configuration file is refused");
                true
            }
            Err(_) => true, // the process is ending
        }
    }
}

fn parse(converter: &Converter, path: &str, bytes: Vec<u8>) -> Result<DiscoveryResponse, String> {
    let encoded = if path.ends_with(".pb") {
        bytes
    } else {
        let text = String::from_utf8(bytes).map_err(|error| format!("{path}: not UTF-8: {error}"))?;
        converter.encode(RESPONSE, path, &text).map_err(|error| error.to_string())?
    };
    let mut response =
        DiscoveryResponse::decode(encoded.as_slice()).map_err(|error| format!("{path}: no {RESPONSE}: {error}"))?;
    if response.version_info.is_empty() {
        let modified =
            std::fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        response.version_info = format!("{}.{:09}", age.as_secs(), age.subsec_nanos());
    }
    Ok(response)
}

/// Wakes on any change in the directory of the file: a mounted volume swaps a symbolic link beside it.
pub(super) fn watch(path: &str, wake: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // full means that a wake-up is waiting already
            if let Ok(permit) = wake.try_reserve() {
                permit.send(());
            }
        }
    })?;
    let directory =
        Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::envoy::wkt::Any;
    use std::time::Duration;

    fn response(version: &str) -> Vec<u8> {
        let any = Any { type_url: Kind::Endpoint.type_url().to_owned(), value: vec![10, 1, b'a'] };
        DiscoveryResponse { version_info: version.into(), resources: vec![any], ..Default::default() }.encode_to_vec()
    }

    #[tokio::test]
    async fn a_change_by_rename_is_seen_and_a_broken_file_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eds.pb");
        std::fs::write(&path, response("1")).unwrap();
        let (events, mut seen) = mpsc::channel(8);
        let file = WatchedFile {
            path: path.to_str().unwrap().into(),
            kind: Kind::Endpoint,
            converter: Converter::new("/nonexistent".into()),
            events,
        };
        let task = tokio::spawn(file.run());
        let mut next = async || {
            let event = tokio::time::timeout(Duration::from_secs(10), seen.recv()).await.unwrap().unwrap();
            let Event::File(_, Kind::Endpoint, response) = event else { panic!("{event:?}") };
            response.version_info
        };
        assert_eq!(next().await, "1");
        let replace = |bytes: &[u8]| {
            let fresh = directory.path().join("fresh");
            std::fs::write(&fresh, bytes).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
        };
        replace(b"\xff\xff");
        replace(&response("2"));
        assert_eq!(next().await, "2");
        task.abort();
    }
}
