use super::*;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use std::net::SocketAddr;

/// The key of RFC 7515, appendix A.3.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

async fn serve(router: impl FnOnce(SocketAddr) -> Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(address);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn moved(to: &str) -> (StatusCode, [(header::HeaderName, String); 1]) {
    (StatusCode::FOUND, [(header::LOCATION, to.to_owned())])
}

async fn fetched(url: String) -> Result<String, String> {
    let fetcher = Fetcher::new(None, vec!["127.0.0.2/32".parse().unwrap()]).unwrap();
    let source = match url.strip_prefix("issuer ") {
        Some(issuer) => KeySource::Discovery(issuer.into()),
        None => KeySource::Uri(url.as_str().into()),
    };
    fetcher.key_set(&source, Duration::from_secs(2)).await.map_err(|why| format!("{why:#}"))
}

// spec: CA-30, RA-2
#[tokio::test]
async fn keys_come_from_a_url_or_from_where_the_issuer_says() {
    let address = serve(|address| {
        let configuration = format!(r#"{{"issuer":"x","jwks_uri":"http://{address}/moved"}}"#);
        Router::new()
            .route("/keys", get(|| async { KEYS }))
            .route("/moved", get(|| async { moved("/keys") }))
            .route("/.well-known/openid-configuration", get(|| async { configuration }))
    })
    .await;
    for url in
        [format!("http://{address}/keys"), format!("http://{address}/moved"), format!("issuer http://{address}/")]
    {
        assert_eq!(fetched(url.clone()).await.as_deref(), Ok(KEYS), "{url}");
    }
}

// spec: CA-30, CA-33
// bar: S4
#[tokio::test]
async fn what_is_no_key_set_is_told_and_what_must_not_be_asked_is_not() {
    let address = serve(|_| {
        Router::new()
            .route("/none", get(|| async { "<html>" }))
            .route("/large", get(|| async { " ".repeat((1 << 20) + 1) }))
            .route("/away", get(|| async { StatusCode::BAD_GATEWAY }))
            .route("/loop", get(|| async { moved("/loop") }))
            .route("/inside", get(|| async { moved("http://169.254.169.254/latest/meta-data/") }))
            .route("/blocked", get(|| async { moved("http://127.0.0.2:1/") }))
            .route("/late", get(|| async { tokio::time::sleep(Duration::from_secs(60)).await }))
    })
    .await;
    for (path, why) in [
        ("none", "no JSON Web Key Set"),
        ("large", "at most 1048576 bytes"),
        ("away", "answers 502"),
        ("loop", "more than 3 redirections"),
        ("inside", "169.254.169.254 must not be asked"),
        ("blocked", "127.0.0.2 must not be asked"),
        ("late", "no answer within 2s"),
    ] {
        let refused = fetched(format!("http://{address}/{path}")).await.unwrap_err();
        assert!(refused.contains(why), "{path}: {refused}");
    }
    for url in ["http://[fe80::1]/", "http://[::ffff:169.254.1.1]/", "http://0.0.0.0/"] {
        assert!(fetched(url.to_owned()).await.unwrap_err().contains("must not be asked"), "{url}");
    }
}

// spec: CA-30
#[test]
fn failures_are_tried_again_soon_and_then_ever_later() {
    let waits: Vec<u64> = [1, 7, 8, 9, 13, 14, u32::MAX].map(|failures| wait_after(failures).as_secs()).into();
    assert_eq!(waits, [1, 1, 60, 120, 1920, 3600, 3600]);
}
