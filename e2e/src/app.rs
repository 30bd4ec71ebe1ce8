//! An upstream that answers each HTTP/1.1 request with what it received, as JSON.

use crate::client::{Head, read_body, read_head};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A running upstream; its threads end with the process.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Echo {
    /// Starts one; `name` is part of its answers. Requests with `x-NAME-status` and `x-NAME-headers: a=b,c=d` say themselves
    /// how they are answered.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn start(name: &'static str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || drop(serve(stream, name))); // the peer went away: nobody to tell
            }
        });
        Ok(Self { address })
    }
}

fn serve(stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(head) = read_head(&mut reader)? {
        let body = if has_body(&head) { read_body(&head, &mut reader)? } else { Vec::new() };
        let text = seen(name, &head, &body).to_string();
        let status = head.header(&format!("x-{name}-status")).unwrap_or("200");
        let more = head.header(&format!("x-{name}-headers")).unwrap_or_default();
        let more: String =
            more.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| format!("{k}: {v}\r\n")).collect();
        write!(
            writer,
            "HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\nx-upstream: {name}\r\n{more}content-length: {}\r\n\r\n{text}",
            text.len()
        )?;
    }
    Ok(())
}

/// A request without a length has no body; an answer without one would end with the connection.
fn has_body(head: &Head) -> bool {
    head.header("content-length").is_some() || head.header("transfer-encoding").is_some()
}

fn seen(name: &str, head: &Head, body: &[u8]) -> Value {
    json!({"upstream": name, "line": head.first, "headers": head.headers, "body": String::from_utf8_lossy(body)})
}
