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
    /// Page of readiness, where it is another one: http://HOST:PORT/PATH.
    #[arg(long, value_name = "URL", value_parser = place, conflicts_with = "ready_port")]
    pub url: Option<Place>,
    /// Milliseconds for one look.
    #[arg(long = "requestTimeoutMillis", value_name = "MS", default_value_t = 500)]
    pub request_timeout_ms: u64,
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

/// A page: `HOST:PORT`, and the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    address: String,
    path: String,
}

impl Place {
    fn local(port: u16, path: &str) -> Self {
        Self { address: format!("127.0.0.1:{port}"), path: path.to_owned() }
    }
}

fn place(url: &str) -> Result<Place, String> {
    let rest = url.strip_prefix("http://").ok_or("http://HOST:PORT/PATH is needed")?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) { "" } else { ":80" };
    let place = Place { address: format!("{address}{port}"), path: format!("/{path}") };
    if address.is_empty() || !is_plain(url) { Err("http://HOST:PORT/PATH is needed".to_owned()) } else { Ok(place) }
}

/// Whether a text has nothing that would end a part of a request's first line.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

/// Waits until the proxy on this machine is ready.
///
/// # Errors
/// Where it is not within the time.
pub fn wait(args: &WaitArgs) -> anyhow::Result<()> {
    let place = args.url.clone().unwrap_or_else(|| Place::local(args.ready_port, "/healthz/ready"));
    let look = Duration::from_millis(args.request_timeout_ms);
    runtime()?.block_on(async {
        let ready = async {
            // The last refusal is what the user must read.
            loop {
                let asked = tokio::time::timeout(look, exchange(&place, "GET")).await;
                if matches!(asked, Ok(Ok((200, _)))) {
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
    let place = Place::local(args.debug_port, &format!("/{}", args.path.trim_start_matches('/')));
    if !is_plain(&args.method) || !is_plain(&place.path) {
        bail!("method and path must not have spaces");
    }
    let (status, body) = runtime()?.block_on(exchange(&place, &args.method))?;
    if status == 200 { Ok(body) } else { bail!("status {status}: {}", body.trim_end()) }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn exchange(place: &Place, method: &str) -> anyhow::Result<(u16, String)> {
    let Place { address, path } = place;
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        // The body of HTTP/1.0 ends with the connection.
        let request = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    let answer = answer.context("no answer")?.with_context(|| address.clone())?;
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
        let args =
            |port| WaitArgs { ready_port: port, url: None, timeout_s: 10, period_ms: 1, request_timeout_ms: 500 };
        wait(&args(ready_port)).unwrap();
        assert_eq!(serving.join().unwrap(), ["GET /healthz/ready HTTP/1.0"; 2]);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = wait(&WaitArgs { timeout_s: 0, ..args(closed) }).unwrap_err();
        assert!(error.to_string().starts_with("the proxy is not ready"), "{error}");
    }

    // spec: CT-33
    #[test]
    fn another_page_may_say_that_it_is_ready() {
        let (port, serving) = serve(&["200 OK\r\n\r\n"]);
        let url = Some(place(&format!("http://localhost:{port}/own/ready?x=1")).unwrap());
        wait(&WaitArgs { ready_port: 1, url, timeout_s: 10, period_ms: 1, request_timeout_ms: 500 }).unwrap();
        assert_eq!(serving.join().unwrap(), ["GET /own/ready?x=1 HTTP/1.0"]);
        assert_eq!(place("http://a").unwrap(), Place { address: "a:80".into(), path: "/".into() });
        for wrong in ["https://a", "a:1", "http:///x", "http://a/ b"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
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
