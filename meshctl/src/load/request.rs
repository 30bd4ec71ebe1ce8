//! What is sent to where, as meant: made once of the flags.

use super::flags::RequestArgs;
use anyhow::Context;
use base64::Engine;
use bytes::Bytes;
use hyper::Uri;

/// Largest payload that is sent, in bytes.
const MAX_PAYLOAD: u64 = 64 << 20;
/// What stands for a number that is another one in each request.
pub const UUID: &str = "{uuid}";

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whether over TLS.
    pub https: bool,
    /// Name or address to connect to, without brackets.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Host header, or `:authority`.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Method.
    pub method: String,
    /// Further headers, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub payload: Bytes,
}

impl Request {
    /// Makes one of a URL (`http://` where the scheme is missing) and flags.
    ///
    /// # Errors
    /// Where the URL, a header or the payload is unusable; the text says which.
    pub fn new(url: &str, args: &RequestArgs) -> anyhow::Result<Self> {
        let url = with_scheme(url.trim_start());
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let https = uri.scheme_str() == Some("https");
        anyhow::ensure!(https || uri.scheme_str() == Some("http"), "{url:?}: the scheme must be http or https");
        let authority = uri.authority().with_context(|| format!("{url:?} names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        anyhow::ensure!(!host.is_empty(), "{url:?} names no host");
        let payload = payload(args)?;
        let mut request = Self {
            https,
            host,
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.as_str().rsplit('@').next().unwrap_or_default().to_owned(),
            path: match uri.path_and_query().map_or("/", |path| path.as_str()) {
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            },
            method: args.method.clone(),
            headers: vec![("User-Agent".to_owned(), user_agent())],
            payload,
        };
        let mut content_type = args.content_type.clone();
        for header in &args.headers {
            request.take_header(header, &mut content_type)?;
        }
        request.complete(content_type, args)?;
        Ok(request)
    }

    /// Takes a header as Fortio does: some names are special, and an empty user agent removes ours.
    fn take_header(&mut self, header: &str, content_type: &mut String) -> anyhow::Result<()> {
        let (name, value) =
            header.split_once(':').with_context(|| format!("header {header:?} has no colon: write Key:Value"))?;
        let (name, trimmed) = (name.trim(), value.trim());
        let valid = hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && hyper::header::HeaderValue::from_str(trimmed).is_ok();
        anyhow::ensure!(valid, "header {header:?} has characters that HTTP does not allow");
        match name.to_ascii_lowercase().as_str() {
            "host" => trimmed.clone_into(&mut self.authority),
            "content-type" => trimmed.clone_into(content_type),
            "user-agent" => {
                self.headers.retain(|(name, _)| name != "User-Agent");
                if !value.is_empty() {
                    self.headers.push(("User-Agent".to_owned(), trimmed.to_owned()));
                }
            }
            _ => self.headers.push((name.to_owned(), trimmed.to_owned())),
        }
        Ok(())
    }

    fn complete(&mut self, mut content_type: String, args: &RequestArgs) -> anyhow::Result<()> {
        let has = |headers: &[(String, String)], wanted: &str| {
            headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        if self.method.is_empty() {
            let post = !self.payload.is_empty() || !content_type.is_empty();
            self.method = if post { "POST" } else { "GET" }.to_owned();
        }
        anyhow::ensure!(hyper::Method::from_bytes(self.method.as_bytes()).is_ok(), "-X {:?} is no method", self.method);
        if !self.payload.is_empty() && content_type.is_empty() {
            "application/octet-stream".clone_into(&mut content_type);
        }
        if !content_type.is_empty() {
            self.headers.push(("Content-Type".to_owned(), content_type));
            if !has(&self.headers, "content-length") {
                self.headers.push(("Content-Length".to_owned(), self.sent_length().to_string()));
            }
        }
        if !args.user.is_empty() {
            anyhow::ensure!(args.user.contains(':'), "-user {:?} has no colon: write user:password", args.user);
            let encoded = base64::engine::general_purpose::STANDARD.encode(&args.user);
            self.headers.push(("Authorization".to_owned(), format!("Basic {encoded}")));
        }
        if args.compression {
            self.headers.push(("Accept-Encoding".to_owned(), "gzip".to_owned()));
        }
        Ok(())
    }

    /// Bytes of the payload once each `{uuid}` is a number of 36 letters.
    fn sent_length(&self) -> usize {
        let count = self.payload.windows(UUID.len()).filter(|part| *part == UUID.as_bytes()).count();
        self.payload.len() + count * (36 - UUID.len())
    }
}

/// What we call ourselves.
pub fn user_agent() -> String {
    format!("ferromesh-load/{}", env!("CARGO_PKG_VERSION"))
}

/// A URL with a scheme; `http://` where there is none, as curl and Fortio have it.
pub fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// The payload that the flags ask for.
///
/// # Errors
/// Where its file cannot be read or is too large.
pub fn payload(args: &RequestArgs) -> anyhow::Result<Bytes> {
    if let Some(path) = &args.payload_file {
        let size = std::fs::metadata(path).with_context(|| format!("-payload-file {}", path.display()))?.len();
        anyhow::ensure!(size <= MAX_PAYLOAD, "-payload-file {}: more than {MAX_PAYLOAD} bytes", path.display());
        return Ok(std::fs::read(path)?.into());
    }
    if args.payload_size > 0 {
        anyhow::ensure!(args.payload_size as u64 <= MAX_PAYLOAD, "-payload-size: more than {MAX_PAYLOAD} bytes");
        return Ok((0..args.payload_size).map(|_| fastrand::u8(..)).collect());
    }
    Ok(args.payload.clone().into_bytes().into())
}

/// A random UUID of version 4, as text.
pub fn uuid() -> String {
    let bits =
        fastrand::u128(..) & !(0xf000_u128 << 64) & !(0xc000_u128 << 48) | (0x4000_u128 << 64) | (0x8000_u128 << 48);
    let text = format!("{bits:032x}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RequestArgs,
    }

    fn request(url: &str, flags: &[&str]) -> anyhow::Result<Request> {
        Request::new(url, &Line::parse_from(["x"].iter().chain(flags)).args)
    }

    fn headers(request: &Request) -> Vec<String> {
        request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    // spec: FO-1
    #[test]
    fn urls_are_taken_apart() {
        let plain = request("localhost:8080/a?b=c", &[]).unwrap();
        assert_eq!((plain.https, plain.host.as_str(), plain.port), (false, "localhost", 8080));
        assert_eq!((plain.authority.as_str(), plain.path.as_str()), ("localhost:8080", "/a?b=c"));
        assert_eq!(request("http://x?a=b", &[]).unwrap().path, "/?a=b");
        let secure = request("https://[::1]", &[]).unwrap();
        assert_eq!((secure.https, secure.host.as_str(), secure.port), (true, "::1", 443));
        for wrong in ["ftp://a/", "http://", "http://a b/"] {
            assert!(request(wrong, &[]).is_err(), "{wrong}");
        }
    }

    // spec: FO-19
    #[test]
    fn flags_shape_the_request_as_fortio_does() {
        let agent = format!("User-Agent: {}", user_agent());
        let plain = request("http://a/", &["-H", "Host: b", "-H", "x-a:1", "-H", "x-a: 2"]).unwrap();
        assert_eq!((plain.method.as_str(), plain.authority.as_str()), ("GET", "b"));
        assert_eq!(headers(&plain), [agent.as_str(), "x-a: 1", "x-a: 2"]);
        let post = request("http://a/", &["--payload", "abc", "-H", "user-agent:", "--user", "u:p"]).unwrap();
        assert_eq!((post.method.as_str(), post.payload.as_ref()), ("POST", b"abc".as_slice()));
        let expected = ["Content-Type: application/octet-stream", "Content-Length: 3", "Authorization: Basic dTpw"];
        assert_eq!(headers(&post), expected);
        let put = request("http://a/", &["-X", "PUT", "--content-type", "text/plain"]).unwrap();
        assert_eq!(put.method, "PUT");
        assert!(headers(&put).contains(&"Content-Length: 0".to_owned()));
        assert_eq!(request("http://a/", &["--payload-size", "9"]).unwrap().payload.len(), 9);
        for wrong in [["-H", "x"], ["-H", "a b: c"], ["--user", "u"], ["-X", "A B"]] {
            assert!(request("http://a/", &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn uuids_are_of_version_4() {
        let text = uuid();
        let parts: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(text.as_bytes().get(14), Some(&b'4'));
        assert!(matches!(text.as_bytes().get(19), Some(b'8' | b'9' | b'a' | b'b')));
    }
}
