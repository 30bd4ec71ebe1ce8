//! One connection: which HTTP it speaks.

use super::config::Codec;
use super::{Settings, serve_h1, serve_h2};
use crate::filter::Filter;
use crate::net::{Io, PeerFacts};
use std::rc::Rc;
use std::sync::Arc;

/// Serves a connection. `h2_seen`: inspection found the HTTP/2 preface.
pub async fn serve_http(io: Io, settings: &Rc<Settings>, filters: Arc<[Filter]>, peer: Rc<PeerFacts>, h2_seen: bool) {
    let h2 = match settings.config.codec {
        Codec::H2 => true,
        Codec::H1 => false,
        Codec::Auto => h2_seen || &*peer.alpn == b"h2",
    };
    if h2 {
        return serve_h2(io, Rc::clone(settings), filters, peer).await;
    }
    serve_h1(io, Rc::clone(settings), filters, peer).await;
}
