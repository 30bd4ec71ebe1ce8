//! `/config_dump`: protobuf from here, JSON from a child, streamed to the client (spec AD-12, design decision M).

use super::AdminParts;
use crate::bootstrap::Direction;
use crate::server::answer::{Answer, streamed, text};
use crate::xds::{DumpSelection, config_dump, encode_dump};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use regex::Regex;
use std::io;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};

const CONFIG_DUMP: &str = "envoy.admin.v3.ConfigDump";
/// Bytes that are read from the child at a time.
const PIECE_BYTES: usize = 32 << 10;

pub(super) async fn respond(parts: &AdminParts, ask: &[(String, String)]) -> Answer {
    let (wanted, mask) = match selection(ask) {
        Ok(found) => found,
        Err(why) => return text(400, format!("{why}\n")),
    };
    let mut bootstrap = parts.bootstrap.written.clone();
    bootstrap.node = Some(parts.bootstrap.node.clone());
    // the snapshot is cheap, and the lock of the channel must not be held while a child works
    let store = parts.store.borrow().clone();
    let dump = match config_dump(&store, &bootstrap, &wanted) {
        Ok(configs) => encode_dump(configs),
        Err(why) => return text(404, format!("{why}\n")),
    };
    drop(store);
    let mut command = parts.converter.command(Direction::Decode, CONFIG_DUMP);
    if let Some(mask) = &mask {
        command.args(["--mask", mask]);
    }
    match convert(Command::from(command), dump).await {
        Ok(answer) => answer,
        Err(why) if why.contains("the field mask") => text(400, format!("{}\n", why.trim_start_matches("Error: "))),
        Err(why) => {
            tracing::warn!(why, "config dump cannot be written");
            text(500, format!("config dump cannot be written: {why}\n"))
        }
    }
}

/// What is asked for, and which fields of it.
fn selection(ask: &[(String, String)]) -> Result<(DumpSelection, Option<String>), String> {
    let (mut wanted, mut mask) = (DumpSelection::default(), None);
    for (name, value) in ask {
        match name.as_str() {
            "mask" => mask = Some(value.clone()),
            "resource" => wanted.resource = Some(value.clone()),
            "name_regex" => wanted.name = Some(Regex::new(value).map_err(|error| format!("name_regex: {error}"))?),
            "include_eds" => wanted.include_eds = value != "off",
            "format" if value == "json" => {}
            other => return Err(format!("not supported yet: {other}")),
        }
    }
    // a question for endpoints is a question that includes them
    wanted.include_eds |= wanted.resource.as_deref().is_some_and(|resource| resource.ends_with("endpoint_configs"));
    Ok((wanted, mask))
}

/// Gives `input` to the child, waits for its first output and streams the rest.
async fn convert(mut command: Command, input: Vec<u8>) -> Result<Answer, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else { return Err("no pipes".to_owned()) };
    // the child reads all of it before it writes: nothing can block for ever
    if let Err(error) = stdin.write_all(&input).await {
        return Err(said(child).await.unwrap_or_else(|| error.to_string()));
    }
    drop((stdin, input));
    let first = read(&mut stdout).await.map_err(|error| error.to_string())?;
    let Some(first) = first else {
        return Err(said(child).await.unwrap_or_else(|| "the converter wrote nothing".to_owned()));
    };
    let rest = Rest { first: Some(first), stdout, _child: child };
    let pieces = stream::try_unfold(rest, |mut rest| async move {
        let piece = match rest.first.take() {
            Some(piece) => Some(piece),
            None => read(&mut rest.stdout).await?,
        };
        Ok::<_, io::Error>(piece.map(|piece| (Frame::data(piece), rest)))
    });
    Ok(streamed(200, "application/json", StreamBody::new(pieces).boxed_unsync()))
}

/// What the child still has to say; it is killed with this.
struct Rest {
    first: Option<Bytes>,
    stdout: ChildStdout,
    _child: Child,
}

async fn read(stdout: &mut ChildStdout) -> io::Result<Option<Bytes>> {
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    let count = stdout.read_buf(&mut piece).await?;
    Ok((count > 0).then(|| piece.freeze()))
}

async fn said(child: Child) -> Option<String> {
    let output = child.wait_with_output().await.ok()?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
