//! Asking pilot: its debug pages, as JSON, over HTTP; where pilot is on another machine, with mixer's certificate.

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::{Request, StatusCode, Uri, header};
use credentials::Credentials;
use credentials::dial::Dialer;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long pilot may hold a question open for a change.
const WAIT_SECONDS: u64 = 30;
/// How long any other answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A page that somebody looks at is asked for again after this time.
const GLANCE_PERIOD: Duration = Duration::from_millis(500);
/// First pause after pilot did not answer what is followed; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What is older than this is worth waiting for, but not longer than this.
const GLANCE_OLD: Duration = Duration::from_secs(3);
const GLANCE_PATIENCE: Duration = Duration::from_millis(300);
/// Characters of a refusal that are told.
const MAX_REFUSAL: usize = 400;
/// Largest answer.
const MAX_BYTES: usize = 64 << 20;

/// A client of pilot.
#[derive(Debug, Clone)]
pub struct Pilot {
    client: Client<Dialer, Empty<Bytes>>,
    url: String,
}

/// What pilot says of a thing that one follows.
#[derive(Debug)]
pub enum Followed {
    /// It is as it was.
    Same,
    /// It is this now, and this is its tag.
    Changed(Bytes, Option<String>),
}

impl Pilot {
    /// A client of pilot's debug address: `http://127.0.0.1:8080` on pilot's own machine, `https://istiod.NAMESPACE.svc:15012`
    /// from elsewhere, which needs a certificate of the mesh.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(url: &str, held: Option<watch::Receiver<Option<Arc<Credentials>>>>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--pilot {url}"))?;
        let sound = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        anyhow::ensure!(sound, "--pilot {url}: write it as http://HOST:PORT or https://HOST:PORT");
        let proven = uri.scheme_str() == Some("http") || held.is_some();
        anyhow::ensure!(proven, "--pilot {url}: https needs a certificate of the mesh: --ca-addr and --identity");
        let client = Client::builder(TokioExecutor::new()).build(Dialer { held });
        Ok(Self { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// The answer at a path.
    ///
    /// # Errors
    /// When pilot does not answer in time, or not with 200.
    pub async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(format!("{}{path}", self.url)).body(Empty::new())?;
        let (status, bytes, _) = tokio::time::timeout(TIMEOUT, self.send(request)).await.context("pilot is slow")??;
        anyhow::ensure!(status == StatusCode::OK, refusal(status, path, &bytes));
        Ok(bytes)
    }

    /// Waits until what is at a path is no longer what `tag` names (RFC 7240 `wait`, RFC 9110 `If-None-Match`).
    ///
    /// # Errors
    /// When pilot does not answer.
    pub async fn follow(&self, path: &str, tag: Option<&str>) -> anyhow::Result<Followed> {
        let mut request = Request::get(format!("{}{path}", self.url)).header("prefer", format!("wait={WAIT_SECONDS}"));
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let limit = Duration::from_secs(WAIT_SECONDS) + TIMEOUT;
        let sent = self.send(request.body(Empty::new())?);
        match tokio::time::timeout(limit, sent).await.context("pilot is slow")?? {
            (StatusCode::NOT_MODIFIED, ..) => Ok(Followed::Same),
            (StatusCode::OK, bytes, tag) => Ok(Followed::Changed(bytes, tag)),
            (status, bytes, _) => anyhow::bail!(refusal(status, path, &bytes)),
        }
    }

    /// Follows what is at a path, for ever. `told` hears of each answer: `Ok(None)` is that nothing has changed.
    pub async fn follow_for_ever<T: DeserializeOwned>(
        self,
        path: &'static str,
        mut told: impl FnMut(Result<Option<T>, ()>),
    ) {
        let mut tag: Option<String> = None;
        let mut pause = PAUSE;
        loop {
            let answer = self.follow(path, tag.as_deref()).await.and_then(|followed| match followed {
                Followed::Same => Ok(None),
                Followed::Changed(bytes, tag) => {
                    let content: T = serde_json::from_slice(&bytes).with_context(|| format!("pilot's {path}"))?;
                    Ok(Some((content, tag)))
                }
            });
            match answer {
                Ok(changed) => {
                    pause = PAUSE;
                    let tagged = changed.as_ref().is_none_or(|(_, tag)| tag.is_some());
                    told(Ok(changed.map(|(content, changed)| {
                        tag = changed;
                        content
                    })));
                    if !tagged {
                        // A pilot that does not wait is asked from time to time.
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(error) => {
                    told(Err(()));
                    tracing::warn!(error = format!("{error:#}"), path, "what pilot said last stays");
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> anyhow::Result<(StatusCode, Bytes, Option<String>)> {
        let answer = self.client.request(request).await.with_context(|| format!("no pilot at {}", self.url))?;
        let status = answer.status();
        let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("pilot's answer: {error}"))?;
        Ok((status, body.to_bytes(), tag))
    }
}

/// What pilot says instead of an answer, in one line.
fn refusal(status: StatusCode, path: &str, bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ");
    format!("pilot answers {status} at {path}: {}", text.chars().take(MAX_REFUSAL).collect::<String>())
}

/// A page of pilot's that is asked for again, twice a second, while somebody looks at it.
pub struct Glance<T> {
    looked: mpsc::Sender<()>,
    seen: watch::Receiver<Known<T>>,
}

/// What is known of a page.
struct Known<T> {
    content: Arc<T>,
    at: Option<Instant>,
    failing: bool,
}

/// What pilot said last.
#[derive(Debug, Clone)]
pub struct Seen<T> {
    /// What it said; nothing if it never did.
    pub content: Arc<T>,
    /// How long ago.
    pub age: Option<Duration>,
    /// Whether it did not answer when it was asked last.
    pub failing: bool,
}

impl<T> Clone for Glance<T> {
    fn clone(&self) -> Self {
        Self { looked: self.looked.clone(), seen: self.seen.clone() }
    }
}

impl<T: Default + Send + Sync + 'static> Glance<T> {
    /// Starts to look when [`Self::look`] is called first.
    pub fn new(pilot: Pilot, path: &'static str, parse: fn(&[u8]) -> serde_json::Result<T>) -> Self {
        let (looked, mut looks) = mpsc::channel(1);
        let (sender, seen) = watch::channel(Known { content: Arc::default(), at: None, failing: false });
        tokio::spawn(async move {
            while looks.recv().await.is_some() {
                match pilot.get(path).await.and_then(|bytes| Ok(parse(&bytes)?)) {
                    Ok(now) => {
                        sender.send_replace(Known { content: Arc::new(now), at: Some(Instant::now()), failing: false });
                    }
                    Err(error) => {
                        tracing::debug!(error = format!("{error:#}"), path, "what pilot said last stays");
                        sender.send_modify(|known| known.failing = true);
                    }
                }
                tokio::time::sleep(GLANCE_PERIOD).await;
            }
        });
        Self { looked, seen }
    }

    /// What pilot said last. Waits a moment where nobody has looked for a while, never longer.
    pub async fn look(&self) -> Seen<T> {
        // Somebody has looked already and the question is on its way.
        let _known = self.looked.try_send(()).is_err();
        let mut seen = self.seen.clone();
        let fresh = |known: &Known<T>| known.failing || known.at.is_some_and(|at| at.elapsed() < GLANCE_OLD);
        // What comes too late is for the next look.
        let _late = tokio::time::timeout(GLANCE_PATIENCE, seen.wait_for(fresh)).await.is_err();
        let known = self.seen.borrow();
        Seen { content: known.content.clone(), age: known.at.map(|at| at.elapsed()), failing: known.failing }
    }
}
