//! Where resources come from: a session per server, files, and the secrets that this process reads itself.

use super::{Flavour, Kind, Origin, Request, Session, Store};
use proto::envoy::core::Node;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What is wanted of each source, by name.
pub(super) type Wanted = BTreeMap<(Origin, Kind), BTreeSet<Arc<str>>>;

/// Sources that are open.
#[derive(Debug)]
pub(super) struct Sources {
    node: Node,
    /// Clusters whose secret service is this process itself.
    pub(super) own_secret_services: BTreeSet<Arc<str>>,
    sessions: BTreeMap<Origin, Session>,
    files: BTreeSet<(Arc<str>, Kind)>,
    secret_files: BTreeSet<Arc<str>>,
    new: VecDeque<(Origin, Kind)>,
    new_secret_files: VecDeque<Arc<str>>,
}

impl Sources {
    pub(super) fn new(node: Node, own_secret_services: BTreeSet<Arc<str>>) -> Self {
        Self {
            node,
            own_secret_services,
            sessions: BTreeMap::new(),
            files: BTreeSet::new(),
            secret_files: BTreeSet::new(),
            new: VecDeque::new(),
            new_secret_files: VecDeque::new(),
        }
    }

    /// Opens the aggregated stream.
    pub(super) fn open_ads(&mut self, flavour: Flavour, also: &[Kind]) {
        let mut session = Session::new(flavour, self.node.clone());
        also.iter().for_each(|kind| session.want_all(*kind));
        self.sessions.insert(Origin::Ads, session);
        self.new.push_back((Origin::Ads, Kind::Cluster));
    }

    pub(super) fn session(&mut self, origin: &Origin) -> Option<&mut Session> {
        self.sessions.get_mut(origin)
    }

    /// The next message for one server.
    pub(super) fn poll_request(&mut self, origin: &Origin, store: &Store) -> Option<Request> {
        self.sessions.get_mut(origin)?.poll_request(store)
    }

    /// The next server to connect to or file to watch, with the kind that a file holds.
    pub(super) fn poll(&mut self) -> Option<(Origin, Kind)> {
        self.new.pop_front()
    }

    /// The next secret that is in files of this machine.
    pub(super) fn poll_secret_file(&mut self) -> Option<Arc<str>> {
        self.new_secret_files.pop_front()
    }

    /// Wants everything of a kind.
    pub(super) fn want_all(&mut self, kind: Kind, origin: &Origin) {
        match origin {
            Origin::File(_) => self.open(origin, kind, Flavour::Sotw),
            _ => {
                if let Some(session) = self.sessions.get_mut(&Origin::Ads) {
                    session.want_all(kind);
                }
            }
        }
    }

    /// Wants exactly this, beside what all is wanted of. `sotw`: sources that do not speak the delta protocol.
    pub(super) fn want(&mut self, mut wanted: Wanted, sotw: &BTreeSet<Origin>) {
        for ((origin, kind), names) in &wanted {
            match origin {
                Origin::Sds(cluster) if self.own_secret_services.contains(cluster) => self.read_secrets(names),
                _ => self.open(origin, *kind, if sotw.contains(origin) { Flavour::Sotw } else { Flavour::Delta }),
            }
        }
        for (origin, session) in &mut self.sessions {
            for kind in Kind::ALL {
                session.want(kind, wanted.remove(&(origin.clone(), kind)).unwrap_or_default());
            }
        }
    }

    /// Opens a source of its own, unless it is open.
    fn open(&mut self, origin: &Origin, kind: Kind, flavour: Flavour) {
        let is_new = match origin {
            Origin::File(path) => self.files.insert((path.clone(), kind)),
            Origin::Sds(_) => {
                let is_new = !self.sessions.contains_key(origin);
                if is_new {
                    self.sessions.insert(origin.clone(), Session::new(flavour, self.node.clone()));
                }
                is_new
            }
            Origin::Ads | Origin::Bootstrap | Origin::Local => false,
        };
        if is_new {
            self.new.push_back((origin.clone(), kind));
        }
    }

    /// Secrets whose names say in which files they are (CA-25); others this process makes unasked.
    fn read_secrets(&mut self, names: &BTreeSet<Arc<str>>) {
        for name in names.iter().filter(|name| name.starts_with("file-")) {
            if self.secret_files.insert(name.clone()) {
                self.new_secret_files.push_back(name.clone());
            }
        }
    }
}
