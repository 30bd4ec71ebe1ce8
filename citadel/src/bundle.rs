//! Hands out the roots: a file that follows the authority, for those who must trust it before they can ask it anything.

use crate::ca::keystore::write_atomically;
use crate::ca::root::Authority;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Writes the roots to `path`.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, authority: &Authority) -> std::io::Result<()> {
    write_atomically(path, authority.roots().to_pem().as_bytes(), 0o644)
}

/// Writes the roots again whenever they change. Ends when the authority is gone.
pub async fn follow(path: &Path, mut authority: watch::Receiver<Arc<Authority>>) {
    while authority.changed().await.is_ok() {
        let current = Arc::clone(&authority.borrow_and_update());
        if let Err(error) = write(path, &current) {
            tracing::error!(%error, path = %path.display(), "cannot write the roots");
        }
    }
}
