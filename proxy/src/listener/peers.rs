//! The peers of a chain that have proven themselves and are connected now, so that one whose certificate is revoked later
//! does not stay.

use crate::net::PeerFacts;
use identity::crl::Revocations;
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// A connection: whose it is, and what it hears when it is to end.
type Open = (Rc<PeerFacts>, Rc<Notify>);

/// Connections of a chain by number.
#[derive(Debug, Default)]
pub struct Peers {
    open: RefCell<HashMap<u64, Open>>,
    /// The lists that were looked at last.
    seen: RefCell<Option<Arc<Revocations>>>,
}

/// A connection's place among the peers; it leaves when this is dropped.
#[derive(Debug)]
pub struct Place {
    peers: Rc<Peers>,
    id: u64,
    ended: Rc<Notify>,
}

impl Peers {
    /// Takes a connection in.
    pub fn join(self: &Rc<Self>, peer: &Rc<PeerFacts>) -> Place {
        let ended = Rc::new(Notify::new());
        self.open.borrow_mut().insert(peer.id, (Rc::clone(peer), Rc::clone(&ended)));
        Place { peers: Rc::clone(self), id: peer.id, ended }
    }

    /// Ends the connections of peers that these lists name, where they are others than at the last look; returns how many.
    pub fn sweep(&self, lists: Option<&Arc<Revocations>>) -> usize {
        let same = match (lists, &*self.seen.borrow()) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (None, None) => true,
            _ => false,
        };
        if same {
            return 0;
        }
        *self.seen.borrow_mut() = lists.cloned();
        let Some(lists) = lists else { return 0 };
        let revoked = |peer: &PeerFacts| {
            let certificate = peer.tls.as_ref().and_then(|tls| tls.peer.as_ref());
            certificate.is_some_and(|certificate| lists.names(&CertificateDer::from(&*certificate.der)))
        };
        let open = self.open.borrow();
        let named = open.values().filter(|(peer, _)| revoked(peer));
        named.map(|(_, ended)| ended.notify_one()).count()
    }
}

impl Place {
    /// Waits until the peer's certificate is revoked.
    pub async fn revoked(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peers.open.borrow_mut().remove(&self.id);
    }
}
