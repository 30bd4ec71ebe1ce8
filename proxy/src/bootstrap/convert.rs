//! JSON and YAML ↔ protobuf in a short-lived child of the same binary (design decision M): the descriptors cost 17 MB
//! and 0.1 s, so the process that serves never loads them.

use super::{BootstrapError, mask};
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Full name of the bootstrap message.
pub const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Arguments of the hidden subcommand `proxy json`: one message from standard input to standard output.
#[derive(Debug, Clone, Args)]
pub struct JsonArgs {
    /// Which way
    #[arg(value_enum)]
    pub direction: Direction,
    /// Full name of the message
    pub type_name: String,
    /// Fields of each configuration that are written, as a FieldMask; absent: all
    #[arg(long)]
    pub mask: Option<String>,
}

/// Which way a child converts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// YAML or JSON → protobuf.
    Encode,
    /// Protobuf → JSON, secrets redacted.
    Decode,
}

/// What the child does.
///
/// # Errors
/// What is wrong with the input, with its line (syntax) or its path (meaning).
pub fn convert(args: &JsonArgs, mut input: impl Read, mut output: impl Write) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).context("reading standard input")?;
    let converted = match args.direction {
        Direction::Encode => {
            let text = String::from_utf8(bytes).context("the text is not UTF-8")?;
            proto::json::from_value(&args.type_name, &parse_text(&text)?)?
        }
        Direction::Decode => {
            let mut value = proto::json::to_value(&args.type_name, &bytes)?;
            proto::json::redact(&args.type_name, &mut value)?;
            if let Some(mask) = &args.mask {
                mask::apply(mask, &mut value).map_err(anyhow::Error::msg)?;
            }
            let mut text = serde_json::to_vec_pretty(&value)?;
            text.push(b'\n');
            text
        }
    };
    output.write_all(&converted).context("writing standard output")
}

/// YAML, of which JSON is a part. Text that begins like a JSON object is tried as JSON first, for its speed.
fn parse_text(text: &str) -> anyhow::Result<Value> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    match serde_saphyr::from_str::<Value>(text) {
        Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        Ok(value) => Ok(value),
        Err(error) => match error.location() {
            Some(place) => anyhow::bail!("line {}, column {}: {error}", place.line(), place.column()),
            None => anyhow::bail!("{error}"),
        },
    }
}

/// Converts by children of `program`, which is this binary.
#[derive(Debug, Clone)]
pub struct Converter {
    program: PathBuf,
}

impl Converter {
    /// Converts by children of `program`.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Converts by children of this very process' binary.
    ///
    /// # Errors
    /// When the system does not say where the binary is.
    pub fn of_this_binary() -> std::io::Result<Self> {
        // the link and not its target: it still names this binary after the file was replaced
        let link = PathBuf::from("/proc/self/exe");
        Ok(Self::new(if link.exists() { link } else { std::env::current_exe()? }))
    }

    /// Text of a bootstrap as protobuf bytes; `source` names it in errors.
    ///
    /// # Errors
    /// [`BootstrapError::Source`] with what the child said.
    pub fn bootstrap(&self, source: &str, text: &str) -> Result<Vec<u8>, BootstrapError> {
        self.encode(BOOTSTRAP, source, text)
    }

    /// Text of any message as protobuf bytes; `source` names it in errors. Blocks until the child has ended.
    ///
    /// # Errors
    /// [`BootstrapError::Source`] with what the child said.
    pub fn encode(&self, type_name: &str, source: &str, text: &str) -> Result<Vec<u8>, BootstrapError> {
        let failed = |why: String| BootstrapError::Source { source_name: source.to_owned(), why };
        let mut child = self
            .command(Direction::Encode, type_name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("starting {} json: {error}", self.program.display())))?;
        // the child reads all of its input before it writes: no deadlock
        let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
        let output = child.wait_with_output().map_err(|error| failed(format!("waiting for the converter: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(said.trim().trim_start_matches("Error: ").to_owned()));
        }
        written.map_err(|error| failed(format!("writing to the converter: {error}")))?;
        Ok(output.stdout)
    }

    /// The command line of a child; the caller decides how to run it.
    pub fn command(&self, direction: Direction, type_name: &str) -> Command {
        let mut command = Command::new(&self.program);
        let word = match direction {
            Direction::Encode => "encode",
            Direction::Decode => "decode",
        };
        command.args(["json", word, type_name]);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn convert(direction: Direction, input: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut output = Vec::new();
        super::convert(&JsonArgs { direction, type_name: BOOTSTRAP.to_owned(), mask: None }, input, &mut output)?;
        Ok(output)
    }

    #[test]
    fn yaml_and_json_become_the_same_message() {
        let yaml = "node:\n  id: a\nadmin:\n  address:\n    socket_address: {address: 127.0.0.1, port_value: 15000}\n";
        let json = r#"{"node": {"id": "a"}, "admin": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 15000}}}}"#;
        let bytes = convert(Direction::Encode, yaml.as_bytes()).unwrap();
        assert_eq!(bytes, convert(Direction::Encode, json.as_bytes()).unwrap());
        assert_eq!(proto::envoy::bootstrap::Bootstrap::decode(bytes.as_slice()).unwrap().node.unwrap().id, "a");
        let shown: Value = serde_json::from_slice(&convert(Direction::Decode, &bytes).unwrap()).unwrap();
        assert_eq!(shown["admin"]["address"]["socket_address"]["port_value"], 15000);
    }

    #[test]
    fn errors_name_the_line_or_the_path() {
        let syntax = convert(Direction::Encode, b"node:\n  id: a\n bad: [\n").unwrap_err().to_string();
        assert!(syntax.starts_with("line "), "{syntax}");
        let field = convert(Direction::Encode, b"node: {idd: a}").unwrap_err().to_string();
        assert_eq!(field, "node.idd: unknown field of envoy.config.core.v3.Node; did you mean id?");
    }
}
