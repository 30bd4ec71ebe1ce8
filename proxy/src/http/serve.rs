//! One connection: which HTTP it speaks.

use super::config::Codec;
use super::{Settings, serve_h1, serve_h2};
use crate::codec::h2::PREFACE;
use crate::drain::Stage;
use crate::filter::Filter;
use crate::net::{Io, PeerFacts};
use crate::telemetry::names::HttpMetric;
use bytes::BytesMut;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

/// Serves a connection. `h2_seen`: inspection found the HTTP/2 preface.
pub async fn serve_http(
    mut io: Io,
    settings: &Rc<Settings>,
    filters: Arc<[Filter]>,
    peer: Rc<PeerFacts>,
    h2_seen: bool,
) {
    let stats = &settings.stats;
    stats.increment(HttpMetric::DownstreamCxTotal);
    let _active = stats.hold(HttpMetric::DownstreamCxActive);
    let mut first = BytesMut::new();
    let h2 = match (settings.config.codec, &*peer.alpn) {
        (Codec::H2, _) | (Codec::Auto, b"h2") => true,
        (Codec::H1, _) => false,
        (Codec::Auto, b"") if !h2_seen => {
            let stay = settings.drain.join(&settings.facts.env);
            let speaks = async { Ok(stay.until(Stage::Released, speaks_h2(&mut io, &mut first)).await) };
            let speaks = settings.await_head(speaks).await;
            match speaks {
                Ok(Some(h2)) => h2,
                _ => return,
            }
        }
        (Codec::Auto, _) => h2_seen,
    };
    if h2 {
        serve_h2((io, first), Rc::clone(settings), filters, peer).await;
    } else {
        Box::pin(serve_h1((io, first), Rc::clone(settings), filters, peer)).await;
    }
    stats.increment(HttpMetric::DownstreamCxDestroy);
}

/// Reads until it is clear whether the client begins with the HTTP/2 preface.
async fn speaks_h2(io: &mut Io, first: &mut BytesMut) -> bool {
    loop {
        let known = first.len().min(PREFACE.len());
        if first.get(..known) != PREFACE.get(..known) {
            return false;
        }
        if known == PREFACE.len() {
            return true;
        }
        match poll_fn(|cx| io.poll_read(cx, first)).await {
            Ok(n) if n > 0 => {}
            _ => return false,
        }
    }
}
