//! `wait` and `request`: what hooks of a pod say to the proxy beside them, with the flags of Istio's agent (HL-3, HL-4).

use anyhow::{Context, bail};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `proxy wait`
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    /// Port of readiness.
    #[arg(long, value_name = "PORT", default_value_t = proto::wire::PORT_READY)]
    pub ready_port: u16,
    /// Seconds after which it is given up.
    #[arg(long = "timeoutSeconds", value_name = "S", default_value_t = 60)]
    pub timeout_s: u64,
    /// Milliseconds between two looks.
    #[arg(long = "periodMillis", value_name = "MS", default_value_t = 500)]
    pub period_ms: u64,
}

/// `proxy request`
#[derive(Debug, Clone, clap::Args)]
pub struct RequestArgs {
    /// Method, such as POST.
    pub method: String,
    /// Path, with or without the slash in front.
    pub path: String,
    /// Port: that of the admin interface, or 15020.
    #[arg(long, value_name = "PORT", default_value_t = proto::wire::PORT_ADMIN)]
    pub debug_port: u16,
}

/// Waits until the proxy on this machine is ready.
///
/// # Errors
/// Where it is not within the time.
pub fn wait(args: &WaitArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let ready = async {
            // The last refusal is what the user must read.
            loop {
                let asked = exchange(args.ready_port, "GET", "/healthz/ready").await;
                if matches!(asked, Ok((200, _))) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(args.period_ms)).await;
            }
        };
        let limit = Duration::from_secs(args.timeout_s);
        let late = || format!("the proxy is not ready after {limit:?}: its log says what it waits for");
        tokio::time::timeout(limit, ready).await.with_context(late)
    })
}

/// Sends one request to the proxy on this machine; returns the answer's body.
///
/// # Errors
/// Where nobody answers, or not with 200.
pub fn request(args: &RequestArgs) -> anyhow::Result<String> {
    let path = format!("/{}", args.path.trim_start_matches('/'));
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if !plain(&args.method) || !plain(&path) {
        bail!("method and path must not have spaces");
    }
    let (status, body) = runtime()?.block_on(exchange(args.debug_port, &args.method, &path))?;
    if status == 200 { Ok(body) } else { bail!("status {status}: {}", body.trim_end()) }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn exchange(port: u16, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        // The body of HTTP/1.0 ends with the connection.
        let request = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    let answer = answer.context("no answer")?.with_context(|| format!("127.0.0.1:{port}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP answer")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Serves these answers, one a connection; gives the request lines.
    fn serve(answers: &'static [&'static str]) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let one = |answer: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut read = [0; 1024];
                let length = stream.read(&mut read).unwrap();
                stream.write_all(format!("HTTP/1.0 {answer}").as_bytes()).unwrap();
                String::from_utf8_lossy(&read[..length]).lines().next().unwrap_or_default().to_owned()
            };
            answers.iter().map(one).collect()
        });
        (port, serving)
    }

    // spec: HL-3
    #[test]
    fn waiting_ends_when_the_proxy_is_ready() {
        let (ready_port, serving) = serve(&["503 Service Unavailable\r\n\r\n", "200 OK\r\n\r\nLIVE"]);
        wait(&WaitArgs { ready_port, timeout_s: 10, period_ms: 1 }).unwrap();
        assert_eq!(serving.join().unwrap(), ["GET /healthz/ready HTTP/1.0"; 2]);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = wait(&WaitArgs { ready_port: closed, timeout_s: 0, period_ms: 1 }).unwrap_err();
        assert!(error.to_string().starts_with("the proxy is not ready"), "{error}");
    }

    // spec: HL-4
    #[test]
    fn a_hook_asks_the_proxy_to_drain() {
        let (debug_port, serving) = serve(&["200 OK\r\n\r\nOK\n", "405 Method Not Allowed\r\n\r\nno"]);
        let args = |method: &str| RequestArgs { method: method.to_owned(), path: "drain".to_owned(), debug_port };
        assert_eq!(request(&args("POST")).unwrap(), "OK\n");
        assert_eq!(request(&args("GET")).unwrap_err().to_string(), "status 405: no");
        assert_eq!(serving.join().unwrap(), ["POST /drain HTTP/1.0", "GET /drain HTTP/1.0"]);
        assert!(request(&args("A B")).is_err());
    }
}
