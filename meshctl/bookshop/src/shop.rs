//! The four services: what each answers at which path.

use crate::knobs::{Caller, Counter, Knobs};
use crate::page::Page;
use crate::upstream::Upstream;
use crate::{Arguments, Role};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

/// Largest body that is read.
const MAX_BODY: usize = 1 << 20;
/// Time to write the last answers in.
const FLUSH: Duration = Duration::from_millis(50);

type Answer = Response<Full<Bytes>>;

/// One instance.
#[derive(Debug)]
pub(crate) struct Shop {
    arguments: Arguments,
    knobs: Knobs,
    counter: Counter,
    upstream: Upstream,
    /// How many requests are being answered.
    active: watch::Sender<usize>,
}

impl Shop {
    pub(crate) fn new(arguments: Arguments) -> Self {
        let knobs = Knobs::new(arguments.fail_percent);
        let active = watch::Sender::new(0);
        Self { arguments, knobs, counter: Counter::default(), upstream: Upstream::new(), active }
    }

    /// Waits until no request is being answered.
    pub(crate) async fn is_idle(&self) {
        while self.active.subscribe().wait_for(|active| *active == 0).await.is_ok() {
            // What is answered is not yet written, and what comes meanwhile is answered as well.
            tokio::time::sleep(FLUSH).await;
            if *self.active.borrow() == 0 {
                return;
            }
        }
    }

    /// One line when the port is open.
    pub(crate) fn announce(&self, address: SocketAddr) -> std::io::Result<()> {
        let Arguments { role, version, .. } = &self.arguments;
        writeln!(std::io::stdout(), "{} {version} listens on {address}", role.name())
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        self.active.send_modify(|active| *active += 1);
        let answer = self.answer_one(request, peer).await;
        self.active.send_modify(|active| *active -= 1);
        answer
    }

    async fn answer_one(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let path = request.uri().path().to_owned();
        if path.starts_with("/__") || path == "/health" {
            return self.control(&request, peer).await;
        }
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let begun = std::time::Instant::now();
        self.counter.arrived(method.as_str(), header(&headers, "x-load-id"), caller(&headers)).await;
        let delay = self.knobs.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let answer = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Err(_) => reply(StatusCode::BAD_REQUEST, &json!({"error": "the body is broken or too long"})),
            Ok(_) if self.knobs.fails() => reply(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": "out of order"})),
            Ok(body) => self.route(&method, &path, &headers, &body.to_bytes()).await,
        };
        self.counter.answered(answer.status().as_u16(), begun.elapsed()).await;
        self.log(&method, &path, answer.status(), &headers);
        answer
    }

    async fn route(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        match (self.arguments.role, segments.as_slice()) {
            (Role::Productpage, []) => see_other("/productpage", None),
            (Role::Productpage, ["productpage"]) => self.productpage(headers).await,
            (Role::Productpage, ["login"]) => login(method, body),
            (Role::Productpage, ["logout"]) => see_other("/productpage", Some("user=; Max-Age=0; Path=/; HttpOnly")),
            (Role::Productpage, ["api", "v1", "products"]) => {
                reply(StatusCode::OK, &json!([{"id": 0, "title": TITLE}]))
            }
            (Role::Productpage, ["api", "v1", "products", id]) => {
                self.relay(&self.arguments.details, "details", id, headers).await
            }
            (Role::Productpage, ["api", "v1", "products", id, "reviews"]) => {
                self.relay(&self.arguments.reviews, "reviews", id, headers).await
            }
            (Role::Details, ["details", id]) => numbered(id, details),
            (Role::Reviews, ["reviews", id]) => match id.parse() {
                Ok(number) => reply(StatusCode::OK, &self.reviews(number, headers).await),
                Err(_) => no_number(),
            },
            (Role::Ratings, ["ratings", id]) => {
                numbered(id, |id| json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}))
            }
            _ => {
                reply(StatusCode::NOT_FOUND, &json!({"error": format!("{} has no {path}", self.arguments.role.name())}))
            }
        }
    }

    async fn productpage(&self, headers: &HeaderMap) -> Answer {
        let user = user_of(headers);
        let mut passed = headers.clone();
        if let Some(value) = user.as_deref().and_then(|user| HeaderValue::from_str(user).ok()) {
            passed.insert("end-user", value);
        }
        let (details, reviews) =
            (format!("{}/details/0", self.arguments.details), format!("{}/reviews/0", self.arguments.reviews));
        let (details, reviews) =
            tokio::join!(self.upstream.json(&details, &passed), self.upstream.json(&reviews, &passed));
        let page = Page {
            user: user.as_deref(),
            instance: &self.arguments.instance,
            details: shown(&details),
            reviews: shown(&reviews),
        };
        let mut answer = Response::new(Full::new(page.html().into()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        answer
    }

    /// A neighbour's answer under the page's own API.
    async fn relay(&self, base: &str, service: &str, id: &str, headers: &HeaderMap) -> Answer {
        if id.parse::<u32>().is_err() {
            return no_number();
        }
        let (status, body) = self.upstream.json(&format!("{base}/{service}/{id}"), headers).await;
        let unavailable =
            || json!({"error": format!("Sorry, product {service} are currently unavailable for this book.")});
        reply(status, &body.unwrap_or_else(unavailable))
    }

    async fn reviews(&self, id: u32, headers: &HeaderMap) -> Value {
        let color = match self.arguments.version.as_str() {
            "v1" => None,
            "v3" => Some("red"),
            _ => Some("black"),
        };
        let mut reviews = json!([
            {"reviewer": "Reviewer1", "text": "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"},
            {"reviewer": "Reviewer2", "text": "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare."}
        ]);
        if let Some(color) = color {
            let (_, found) = self.upstream.json(&format!("{}/ratings/{id}", self.arguments.ratings), headers).await;
            for review in reviews.as_array_mut().into_iter().flatten() {
                let stars = found.as_ref().map(|f| &f["ratings"][review["reviewer"].as_str().unwrap_or_default()]);
                review["rating"] = match stars {
                    Some(Value::Number(stars)) => json!({"stars": stars, "color": color}),
                    _ => json!({"error": "Ratings service is currently unavailable"}),
                };
            }
        }
        let Arguments { instance, version, .. } = &self.arguments;
        json!({"id": id.to_string(), "podname": instance, "clustername": "null", "version": version, "reviews": reviews})
    }

    /// Health, counts, knobs; these are neither counted nor made to fail.
    async fn control(&self, request: &Request<Incoming>, peer: SocketAddr) -> Answer {
        let Arguments { role, version, instance, .. } = &self.arguments;
        let query = request.uri().query().unwrap_or_default();
        match request.uri().path() {
            "/health" => reply(StatusCode::OK, &json!({"status": format!("{} is healthy", role.name())})),
            "/__count" => {
                let mut counts = self.counter.read().await;
                counts["role"] = json!(role.name());
                counts["version"] = json!(version);
                counts["instance"] = json!(instance);
                reply(StatusCode::OK, &counts)
            }
            "/__reset" => {
                self.counter.reset().await;
                reply(StatusCode::OK, &json!({}))
            }
            "/__set" if self.knobs.set(query) => reply(StatusCode::OK, &json!({})),
            "/__set" => reply(StatusCode::BAD_REQUEST, &json!({"error": "known: fail_percent=0..100, delay_ms=N"})),
            "/__kill" => std::process::exit(137),
            "/__headers" => {
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers: Vec<Value> =
                    request.headers().iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect();
                let (method, uri) = (request.method().as_str(), request.uri().to_string());
                let seen = json!({"instance": instance, "method": method, "uri": uri, "peer": peer.to_string(), "headers": headers});
                reply(StatusCode::OK, &seen)
            }
            _ => reply(StatusCode::NOT_FOUND, &json!({"error": "known: __count __reset __set __kill __headers"})),
        }
    }

    /// One line per request, with what the sidecar proved about the caller.
    fn log(&self, method: &Method, path: &str, status: StatusCode, headers: &HeaderMap) {
        if self.arguments.quiet {
            return;
        }
        let peer = header(headers, "x-forwarded-client-cert").unwrap_or("-");
        let id = header(headers, "x-request-id").unwrap_or("-");
        // A closed pipe must not stop the service.
        drop(writeln!(std::io::stdout(), "{method} {path} {} request_id={id} peer={peer}", status.as_u16()));
    }
}

const TITLE: &str = "The Comedy of Errors";

fn details(id: u32) -> Value {
    json!({"id": id, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
           "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890"})
}

fn numbered(id: &str, answer: impl FnOnce(u32) -> Value) -> Answer {
    id.parse().map_or_else(|_| no_number(), |id| reply(StatusCode::OK, &answer(id)))
}

fn no_number() -> Answer {
    reply(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product ID"}))
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn see_other(path: &'static str, cookie: Option<&str>) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static(path));
    if let Some(value) = cookie.and_then(|text| HeaderValue::from_str(text).ok()) {
        answer.headers_mut().insert(SET_COOKIE, value);
    }
    answer
}

fn login(method: &Method, body: &[u8]) -> Answer {
    let form = String::from_utf8_lossy(body);
    let user = form.split('&').find_map(|pair| pair.strip_prefix("username="));
    let plain = |name: &&str| !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    match user.filter(plain) {
        Some(user) if method == Method::POST => {
            see_other("/productpage", Some(&format!("user={user}; Path=/; HttpOnly; SameSite=Lax")))
        }
        _ => reply(StatusCode::BAD_REQUEST, &json!({"error": "post username=<letters and digits>"})),
    }
}

/// The user of the session, or of a request that names one itself.
fn user_of(headers: &HeaderMap) -> Option<String> {
    if let Some(user) = header(headers, "end-user") {
        return Some(user.to_owned());
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let found = cookies.flat_map(|text| text.split("; ")).find_map(|pair| pair.strip_prefix("user="));
    found.filter(|user| !user.is_empty()).map(str::to_owned)
}

/// Sidecars write what they proved into x-forwarded-client-cert.
fn caller(headers: &HeaderMap) -> Caller {
    let proof = header(headers, "x-forwarded-client-cert").unwrap_or_default();
    if proof.contains("URI=spiffe://") { Caller::Proven } else { Caller::Unknown }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn shown((status, body): &(StatusCode, Option<Value>)) -> Result<&Value, u16> {
    match body {
        Some(body) if status.is_success() => Ok(body),
        _ => Err(status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_comes_from_header_or_cookie() {
        let mut headers = HeaderMap::new();
        assert_eq!(user_of(&headers), None);
        headers.insert(COOKIE, HeaderValue::from_static("a=b; user=jason"));
        assert_eq!(user_of(&headers).as_deref(), Some("jason"));
        headers.insert("end-user", HeaderValue::from_static("kim"));
        assert_eq!(user_of(&headers).as_deref(), Some("kim"));
    }

    #[test]
    fn a_login_takes_plain_names_only() {
        assert_eq!(login(&Method::POST, b"username=jason&x=y").status(), StatusCode::SEE_OTHER);
        for bad in [&b"username="[..], b"username=a;b", b"username=a%0d%0a", b""] {
            assert_eq!(login(&Method::POST, bad).status(), StatusCode::BAD_REQUEST);
        }
        assert_eq!(login(&Method::GET, b"username=jason").status(), StatusCode::BAD_REQUEST);
    }
}
