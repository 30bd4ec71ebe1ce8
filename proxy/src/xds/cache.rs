//! The last good resources of the control plane on disk, so that a proxy starts with everything else down (decision I).
//!
//! One file per kind, a delta response in protobuf, replaced by rename and readable by its owner only: secrets of
//! gateways are among them, which is why the directory is meant to be in memory.

use super::{Kind, Origin, Resource, Store};
use prost::Message;
use proto::envoy::discovery::{DeltaDiscoveryResponse, Resource as Wrapped};
use proto::envoy::wkt::Any;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

/// A directory of last good resources.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// A cache below the state directory.
    pub(super) fn new(state_dir: &std::path::Path) -> Self {
        Self { directory: state_dir.join("xds") }
    }

    /// Everything that was saved. A file that cannot be read is reported and passed over: the control plane will fill it.
    pub(super) fn load(&self) -> Vec<(Kind, Arc<Resource>)> {
        let mut resources = Vec::new();
        for kind in Kind::ALL {
            let path = self.path(kind);
            let decoded = match fs::read(&path) {
                Ok(bytes) => DeltaDiscoveryResponse::decode(bytes.as_slice()).map_err(io::Error::other),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error),
            };
            match decoded {
                Ok(response) => resources.extend(response.resources.into_iter().filter_map(|wrapped| {
                    let body = wrapped.resource.filter(|any| any.type_url == kind.type_url())?.value.into();
                    Some((
                        kind,
                        Arc::new(Resource { name: wrapped.name.into(), version: wrapped.version.into(), body }),
                    ))
                })),
                Err(error) => tracing::warn!(path = %path.display(), %error, "last good configuration is not readable"),
            }
        }
        resources
    }

    /// Saves all resources of a kind that came from the control plane.
    ///
    /// # Errors
    /// Of the file system; the old file is then still whole.
    pub(super) fn save(&self, kind: Kind, store: &Store) -> io::Result<()> {
        let resources = store.of(kind).filter(|held| held.origin == Origin::Ads).map(|held| Wrapped {
            name: held.resource.name.to_string(),
            version: held.resource.version.to_string(),
            resource: Some(Any { type_url: kind.type_url().to_owned(), value: held.resource.body.to_vec() }),
            ..Wrapped::default()
        });
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            resources: resources.collect(),
            ..DeltaDiscoveryResponse::default()
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let (path, fresh) = (self.path(kind), self.directory.join(format!(".{}.new", kind.short_name())));
        if let Err(error) = fs::remove_file(&fresh)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&response.encode_to_vec())?;
        file.sync_all()?;
        fs::rename(fresh, path)
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.directory.join(format!("{}.pb", kind.short_name()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Update, store::Origins};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_saved_is_loaded_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path());
        assert_eq!(cache.load(), []);
        let mut store = Store::default();
        let resource =
            |name: &str| Arc::new(Resource { name: name.into(), version: "v".into(), body: vec![10, 1, 97].into() });
        let update = Update { kind: Kind::Cluster, added: vec![resource("a"), resource("fixed")], removed: Vec::new() };
        let origins = Origins::from([((Kind::Cluster, "fixed".into()), Origin::Bootstrap)]);
        store.apply(&update, &origins, &[], std::time::SystemTime::UNIX_EPOCH);
        cache.save(Kind::Cluster, &store).unwrap();
        cache.save(Kind::Cluster, &store).unwrap();
        assert_eq!(cache.load(), [(Kind::Cluster, resource("a"))]);
        let mode = fs::metadata(directory.path().join("xds/CDS.pb")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(directory.path().join("xds/CDS.pb"), b"\xff\xff").unwrap();
        assert_eq!(cache.load(), [], "a broken file does not stop the start");
    }
}
