//! Where our defaults differ from Istio's, in one place (docs/src/reference/deviations.md).
//!
//! Each is sent as an explicit value, so that a real Envoy gets it too; what a user states wins; `--istio-defaults`
//! switches all of them back.

use crate::model::MeshConfig;
use std::time::Duration;

/// D7: how long the first bytes of a client are waited for before the server may speak (Istio: for ever).
pub const PROTOCOL_DETECTION: Duration = Duration::from_millis(100);

/// The detection timeout of listeners whose protocol is found out; zero means for ever.
pub fn detection_timeout(mesh: &MeshConfig) -> Duration {
    if mesh.protocol_detection_timeout.is_zero() && !mesh.istio_defaults {
        PROTOCOL_DETECTION
    } else {
        mesh.protocol_detection_timeout
    }
}
