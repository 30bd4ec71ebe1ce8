//! Files as a compressed tar (POSIX.1-1988 ustar): few fields, all known here, so no crate is needed.

use super::redact;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};

/// Size of a block of a tar.
const BLOCK: usize = 512;
/// Longest name of a file.
const MAX_NAME: usize = 100;
/// Name of the directory in the archive.
const DIRECTORY: &str = "bug-report";

/// An archive that is being written.
pub struct Archive<W: Write> {
    out: GzEncoder<W>,
    now_s: u64,
    names: Vec<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one; files are as old as `now_s`, seconds since 1970.
    pub fn new(out: W, now_s: u64) -> Self {
        Self { out: GzEncoder::new(out, Compression::default()), now_s, names: Vec::new() }
    }

    /// Adds a text under a name such as `pilot/syncz.json`, with what is secret taken out.
    ///
    /// # Errors
    /// Where it cannot be written, or the name is too long.
    pub fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = redact::text(text);
        let path = format!("{DIRECTORY}/{name}");
        self.out.write_all(&header(&path, text.len(), self.now_s)?)?;
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(&vec![0; text.len().next_multiple_of(BLOCK) - text.len()])?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// The names of the files so far.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

/// The header of a file.
fn header(path: &str, size: usize, time: u64) -> io::Result<[u8; BLOCK]> {
    if path.len() > MAX_NAME {
        return Err(io::Error::other(format!("{path}: the name is longer than {MAX_NAME} bytes")));
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{time:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    // spec: CT-23
    #[test]
    fn a_real_tar_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar.gz");
        let mut archive = Archive::new(std::fs::File::create(&path).unwrap(), 1_700_000_000);
        archive.add("one.txt", "hello\n").unwrap();
        archive.add("deep/two.txt", &"x".repeat(1024)).unwrap();
        assert!(archive.add(&"x".repeat(100), "").is_err());
        archive.finish().unwrap();
        let unpacked = Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(directory.path()).status().unwrap();
        assert!(unpacked.success());
        let read = |name: &str| std::fs::read_to_string(directory.path().join("bug-report").join(name)).unwrap();
        assert_eq!((read("one.txt").as_str(), read("deep/two.txt").len()), ("hello\n", 1024));
    }
}
