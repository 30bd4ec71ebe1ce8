//! The adapter `listchecker` (MX-73): white and black lists, written in the object or fetched.

use super::code::Code;
use super::decision::Answer;
use super::deny::use_count;
use crate::yaml::{Fault, Place};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ipnet::IpNet;
use regex::RegexSet;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How often a list is fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The most often that it may be fetched.
const LEAST_REFRESH: Duration = Duration::from_secs(1);
/// How long a list holds that cannot be fetched again.
const TTL: Duration = Duration::from_secs(300);
/// How long an answer holds.
const CACHING_INTERVAL: Duration = Duration::from_secs(300);
/// For how many requests it holds.
const CACHING_USE_COUNT: u32 = 10_000;
/// The largest list that is fetched, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most entries of a list.
const MAX_ENTRIES: usize = 100_000;
/// How long fetching may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A configured list.
#[derive(Debug)]
pub struct List {
    blacklist: bool,
    caching_interval: Duration,
    caching_use_count: u32,
    own: Entries,
    fetched: Option<Fetched>,
}

/// A list that is fetched again and again; that ends with it.
#[derive(Debug)]
struct Fetched {
    state: watch::Receiver<State>,
    task: AbortHandle,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What fetching gave.
#[derive(Debug, Clone, Default)]
struct State {
    entries: Option<Arc<Entries>>,
    error: Option<String>,
}

/// How entries are written and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryType {
    Strings,
    CaseInsensitiveStrings,
    IpAddresses,
    Regex,
}

/// Entries, made for looking up.
#[derive(Debug)]
enum Entries {
    Texts(HashSet<String>),
    SmallTexts(HashSet<String>),
    Networks(Vec<IpNet>),
    Patterns(RegexSet),
}

impl Entries {
    fn parse<'t>(kind: EntryType, entries: impl Iterator<Item = &'t str>) -> Result<Self, String> {
        let entries: Vec<&str> = entries.take(MAX_ENTRIES + 1).collect();
        if entries.len() > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} entries"));
        }
        Ok(match kind {
            EntryType::Strings => Self::Texts(entries.into_iter().map(str::to_owned).collect()),
            EntryType::CaseInsensitiveStrings => Self::SmallTexts(entries.into_iter().map(str::to_lowercase).collect()),
            EntryType::IpAddresses => Self::Networks(entries.into_iter().map(network).collect::<Result<_, _>>()?),
            EntryType::Regex => Self::Patterns(RegexSet::new(entries).map_err(|error| error.to_string())?),
        })
    }

    /// Whether a value is in the list.
    fn holds(&self, value: &str) -> Result<bool, String> {
        Ok(match self {
            Self::Texts(texts) => texts.contains(value),
            Self::SmallTexts(texts) => texts.contains(&value.to_lowercase()),
            Self::Patterns(patterns) => patterns.is_match(value),
            Self::Networks(networks) => {
                let address: IpAddr = value.parse().map_err(|_| format!("{value} is no IP address"))?;
                networks.iter().any(|network| network.contains(&address.to_canonical()))
            }
        })
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    text.parse().ok().or_else(address).ok_or_else(|| format!("{text} is no address and no range like 10.57.0.0/16"))
}

impl List {
    /// Reads `params`; a list that is fetched needs a runtime of tokio.
    ///
    /// # Errors
    /// An unknown field, a value out of range or a malformed entry.
    pub fn parse(params: &Place<'_>) -> Result<Self, Fault> {
        let mut fields = params.fields()?;
        let kind = match fields.text("entryType")?.as_str() {
            "" | "STRINGS" => EntryType::Strings,
            "CASE_INSENSITIVE_STRINGS" => EntryType::CaseInsensitiveStrings,
            "IP_ADDRESSES" => EntryType::IpAddresses,
            "REGEX" => EntryType::Regex,
            other => {
                let known = "STRINGS, CASE_INSENSITIVE_STRINGS, IP_ADDRESSES, REGEX";
                return Err(params.fault(format!("unknown entryType {other}; known are {known}")));
            }
        };
        let overrides = fields.get("overrides");
        let texts = overrides.as_ref().map_or_else(|| Ok(Vec::new()), Place::list)?;
        let texts = texts.iter().map(Place::text).collect::<Result<Vec<_>, _>>()?;
        let at = overrides.unwrap_or_else(|| params.clone());
        let own = Entries::parse(kind, texts.iter().map(String::as_str)).map_err(|reason| at.fault(reason))?;
        let blacklist = fields.bool("blacklist")?;
        let caching_interval = fields.duration("cachingInterval", CACHING_INTERVAL)?;
        let caching_use_count =
            fields.get("cachingUseCount").map_or(Ok(CACHING_USE_COUNT), |place| use_count(&place))?;
        let refresh = fields.duration("refreshInterval", REFRESH_INTERVAL)?;
        let ttl = fields.duration("ttl", TTL)?;
        if refresh < LEAST_REFRESH {
            return Err(params.fault("refreshInterval is 1s at least"));
        }
        if ttl < refresh {
            return Err(params.fault("ttl is refreshInterval at least"));
        }
        let fetched = match fields.get("providerUrl") {
            Some(place) if !place.text()?.is_empty() => {
                let url: hyper::Uri = place.text()?.parse().map_err(|_| place.fault("no URL"))?;
                if url.scheme_str() != Some("http") {
                    return Err(place.fault("only http:// is fetched; for https:// call it through a sidecar"));
                }
                Some(Fetched::start(Fetcher { url, kind, refresh, ttl }))
            }
            _ => None,
        };
        fields.done()?;
        Ok(Self { blacklist, caching_interval, caching_use_count, own, fetched })
    }

    /// Whether a value may pass.
    pub fn check(&self, value: &str) -> Answer {
        let listed = match self.own.holds(value) {
            Err(reason) => return self.answer(Code::INVALID_ARGUMENT, reason),
            Ok(true) => true,
            Ok(false) => match &self.fetched {
                None => false,
                Some(fetched) => match &fetched.state.borrow().entries {
                    // A list of which nothing is known lets nobody pass.
                    None => return Answer::failed(Code::UNAVAILABLE, "the list could not be fetched"),
                    Some(entries) => entries.holds(value).unwrap_or(self.blacklist),
                },
            },
        };
        match (listed, self.blacklist) {
            (true, true) => self.answer(Code::PERMISSION_DENIED, format!("{value} is blacklisted")),
            (false, false) => self.answer(Code::PERMISSION_DENIED, format!("{value} is not whitelisted")),
            _ => self.answer(Code::OK, String::new()),
        }
    }

    /// A list of texts that is written in the object alone: its entries, whether case does not count, whether it is a
    /// blacklist.
    pub fn texts(&self) -> Option<(Vec<String>, bool, bool)> {
        let (texts, ignore_case) = match (&self.own, &self.fetched) {
            (Entries::Texts(texts), None) => (texts, false),
            (Entries::SmallTexts(texts), None) => (texts, true),
            _ => return None,
        };
        let mut texts: Vec<String> = texts.iter().cloned().collect();
        texts.sort_unstable();
        Some((texts, ignore_case, self.blacklist))
    }

    /// What went wrong when the list was last fetched.
    pub fn last_error(&self) -> Option<String> {
        self.fetched.as_ref()?.state.borrow().error.clone()
    }

    /// Waits until the list was fetched again, or failed to be.
    pub async fn fetched(&self) {
        if let Some(fetched) = &self.fetched {
            let mut state = fetched.state.clone();
            state.mark_unchanged();
            // The one who fetches lives as long as this list.
            let _ended = state.changed().await.is_err();
        }
    }

    fn answer(&self, code: Code, message: String) -> Answer {
        Answer::of(code, message, self.caching_interval, Some(self.caching_use_count))
    }
}

/// Fetches a list.
struct Fetcher {
    url: hyper::Uri,
    kind: EntryType,
    refresh: Duration,
    ttl: Duration,
}

impl Fetched {
    fn start(fetcher: Fetcher) -> Self {
        let (sender, state) = watch::channel(State::default());
        let task = tokio::spawn(fetcher.run(sender)).abort_handle();
        Self { state, task }
    }
}

impl Fetcher {
    async fn run(self, state: watch::Sender<State>) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let mut last = String::new();
        let mut fresh_until = Instant::now();
        loop {
            let got = tokio::time::timeout(FETCH_TIMEOUT, self.fetch(&client)).await;
            let got = got.unwrap_or_else(|_late| Err(format!("no answer within {FETCH_TIMEOUT:?}")));
            let parsed = match got {
                // An unchanged list is not parsed again.
                Ok(text) if text == last && state.borrow().entries.is_some() => Ok(None),
                Ok(text) => {
                    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                    let parsed = Entries::parse(self.kind, lines);
                    last = text;
                    parsed.map(Some)
                }
                Err(reason) => Err(reason),
            };
            match parsed {
                Ok(entries) => {
                    fresh_until = Instant::now() + self.ttl;
                    state.send_modify(|state| {
                        state.error = None;
                        state.entries = entries.map(Arc::new).or_else(|| state.entries.clone());
                    });
                }
                Err(reason) => {
                    tracing::warn!(url = %self.url, "the list stays as it was: {reason}");
                    state.send_modify(|state| {
                        state.error = Some(format!("{}: {reason}", self.url));
                        if Instant::now() >= fresh_until {
                            state.entries = None;
                        }
                    });
                }
            }
            tokio::time::sleep(self.refresh).await;
        }
    }

    async fn fetch(&self, client: &HttpClient) -> Result<String, String> {
        let answer = client.get(self.url.clone()).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("status {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "no UTF-8".to_owned())
    }
}

type HttpClient = Client<hyper_util::client::legacy::connect::HttpConnector, Empty<Bytes>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Node;
    use axum::routing::get;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn parse(text: &str) -> Result<List, Fault> {
        List::parse(&Place::new(&Node::parse(text, 1).unwrap(), "spec.params"))
    }

    fn code(list: &List, value: &str) -> Code {
        list.check(value).code
    }

    // spec: MX-73
    #[test]
    fn entries_of_every_type_are_compared_by_their_meaning() {
        let white = parse("overrides: [v1, v2]").unwrap();
        assert_eq!((code(&white, "v1"), code(&white, "V1")), (Code::OK, Code::PERMISSION_DENIED));
        assert_eq!(white.check("v3").message, "v3 is not whitelisted");
        let answer = white.check("v1");
        assert_eq!((answer.valid_for, answer.uses), (Duration::from_secs(300), Some(10_000)));
        let small = parse("overrides: [Ab]\nentryType: CASE_INSENSITIVE_STRINGS\nblacklist: true").unwrap();
        assert_eq!((code(&small, "aB"), code(&small, "x")), (Code::PERMISSION_DENIED, Code::OK));
        let ranges = parse("overrides: ['10.57.0.0/16', 'fd00::1']\nentry_type: IP_ADDRESSES").unwrap();
        assert_eq!((code(&ranges, "10.57.9.1"), code(&ranges, "10.58.0.1")), (Code::OK, Code::PERMISSION_DENIED));
        assert_eq!((code(&ranges, "::ffff:10.57.0.1"), code(&ranges, "fd00::1")), (Code::OK, Code::OK));
        assert_eq!(code(&ranges, "nobody"), Code::INVALID_ARGUMENT);
        let patterns = parse("overrides: ['^a.*z$']\nentryType: REGEX").unwrap();
        assert_eq!((code(&patterns, "abcz"), code(&patterns, "abc")), (Code::OK, Code::PERMISSION_DENIED));
    }

    // spec: MX-73
    #[test]
    fn what_is_out_of_range_is_refused() {
        for (text, message) in [
            ("refreshInterval: 10ms", "1s at least"),
            ("refreshInterval: 60s\nttl: 1s", "refreshInterval at least"),
            ("overrides: ['10.0.0.0/99']\nentryType: IP_ADDRESSES", "no range"),
            ("overrides: ['(']\nentryType: REGEX", "unclosed group"),
            ("entryType: NUMBERS", "unknown entryType"),
            ("providerUrl: https://example.com/list", "only http"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(message), "{text}: {fault}");
        }
    }

    // spec: MX-73
    #[tokio::test]
    async fn a_list_is_fetched_kept_while_its_provider_is_away_and_then_purged() {
        let fetches = Arc::new(AtomicUsize::new(0));
        let counted = fetches.clone();
        let answer = async move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => (axum::http::StatusCode::OK, "# people\nann\n bob \n"),
            1 => (axum::http::StatusCode::OK, "ann\n"),
            _ => (axum::http::StatusCode::SERVICE_UNAVAILABLE, ""),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            axum::serve(listener, axum::Router::new().route("/list", get(answer))).await.unwrap();
        });
        let list = parse(&format!("providerUrl: http://{address}/list\nrefreshInterval: 1s\nttl: 2s\noverrides: [cy]"))
            .unwrap();
        assert_eq!((code(&list, "ann"), code(&list, "cy")), (Code::UNAVAILABLE, Code::OK), "nothing is fetched yet");
        assert_eq!(list.check("ann").uses, Some(0), "that is no answer to keep");
        list.fetched().await;
        assert_eq!((code(&list, "bob"), code(&list, "eve")), (Code::OK, Code::PERMISSION_DENIED));
        list.fetched().await;
        assert_eq!((code(&list, "ann"), code(&list, "bob")), (Code::OK, Code::PERMISSION_DENIED));
        list.fetched().await;
        assert_eq!(code(&list, "ann"), Code::OK, "the last good list holds");
        assert!(list.last_error().unwrap().contains("503"));
        while fetches.load(Ordering::Relaxed) < 5 {
            list.fetched().await;
        }
        assert_eq!(code(&list, "ann"), Code::UNAVAILABLE, "for two seconds");
        server.abort();
    }
}
