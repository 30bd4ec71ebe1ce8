//! What the tests of this crate share: where the workspace is, and its sources.
//!
//! Tests that need other processes or other people's programs live here, and the two that keep the shape of the
//! repository (`tests/architecture.rs`, `tests/tidy.rs`).

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// All Rust files below a directory of the workspace, by path from the root, with their text.
///
/// # Errors
/// What the system says.
pub fn sources(directory: &str) -> std::io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(directory)];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let children = std::fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
            pending.extend(children.into_iter().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((relative(&path), std::fs::read_to_string(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).map(PathBuf::from).unwrap_or_default().display().to_string()
}

/// The text of a file without its unit tests at the foot.
pub fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]").map_or(text, |(code, _)| code)
}
