//! One response as the parts of its encoding; the parts that hold resources are shared by all who are sent them.

use crate::translate::Encoded;
use crate::translate::cache::{ResourceType, field_head};
use prost::bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// A response, encoded but for being put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub kind: ResourceType,
    /// Its nonce.
    pub nonce: String,
    /// Names of the resources in it.
    pub sent: Vec<Arc<str>>,
    /// Names that are gone.
    pub removed: Vec<Arc<str>>,
    parts: Vec<Bytes>,
    tail: Bytes,
}

fn text(out: &mut BytesMut, field: u32, text: &str) {
    out.put_slice(&field_head(field, text.len()));
    out.put_slice(text.as_bytes());
}

impl Frame {
    /// A `DeltaDiscoveryResponse`: system_version_info = 1, resources = 2, type_url = 4, nonce = 5,
    /// removed_resources = 6, control_plane = 7.
    pub fn delta(kind: ResourceType, nonce: String, resources: &[Arc<Encoded>], removed: Vec<Arc<str>>) -> Self {
        let mut tail = BytesMut::new();
        text(&mut tail, 4, kind.type_url());
        text(&mut tail, 5, &nonce);
        for name in &removed {
            text(&mut tail, 6, name);
        }
        control_plane(&mut tail, 7);
        Self {
            kind,
            nonce,
            sent: resources.iter().map(|resource| resource.name.clone()).collect(),
            removed,
            parts: resources.iter().map(|resource| resource.delta.clone()).collect(),
            tail: tail.freeze(),
        }
    }

    /// A `DiscoveryResponse`: version_info = 1, resources = 2, type_url = 4, nonce = 5, control_plane = 6.
    pub fn state_of_the_world(kind: ResourceType, nonce: String, version: &str, resources: &[Arc<Encoded>]) -> Self {
        let mut tail = BytesMut::new();
        text(&mut tail, 1, version);
        text(&mut tail, 4, kind.type_url());
        text(&mut tail, 5, &nonce);
        control_plane(&mut tail, 6);
        let any = |resource: &Arc<Encoded>| {
            let url = kind.type_url();
            let mut head = field_head(1, url.len());
            head.extend_from_slice(url.as_bytes());
            head.extend(field_head(2, resource.bytes.len()));
            let mut whole = field_head(2, head.len() + resource.bytes.len());
            whole.extend(head);
            [Bytes::from(whole), resource.bytes.clone()]
        };
        Self {
            kind,
            nonce,
            sent: resources.iter().map(|resource| resource.name.clone()).collect(),
            removed: Vec::new(),
            parts: resources.iter().flat_map(any).collect(),
            tail: tail.freeze(),
        }
    }

    /// Size of the encoding in bytes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Whether it says nothing; a response always has a tail.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the encoding.
    pub fn write(&self, out: &mut impl BufMut) {
        for part in &self.parts {
            out.put_slice(part);
        }
        out.put_slice(&self.tail);
    }
}

/// Who answers, as JSON in `control_plane.identifier` (XI-6).
fn control_plane(out: &mut BytesMut, field: u32) {
    let identifier = concat!("{\"Component\":\"pilot\",\"Info\":{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}}");
    let head = field_head(1, identifier.len());
    out.put_slice(&field_head(field, head.len() + identifier.len()));
    out.put_slice(&head);
    out.put_slice(identifier.as_bytes());
}
