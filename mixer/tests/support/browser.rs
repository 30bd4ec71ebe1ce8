//! A headless Chromium, driven by the WebDriver protocol (W3C) in plain JSON.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "see mod.rs"
)]

use super::http;
use axum::http::Request;
use base64::Engine as _;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A browser with one window. Chromium ends with its driver, and the driver with this.
pub struct Browser {
    driver: Child,
    session: String,
    /// Keeps the driver's output open.
    _output: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Browser {
    /// Starts one with a window of this size.
    pub async fn start(width: u32, height: u32) -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).kill_on_drop(true);
        let mut driver =
            command.spawn().expect("chromedriver: run `make setup`, or apt-get install chromium chromium-driver");
        let mut output = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = output.next_line().await.unwrap().expect("chromedriver ended");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let url = format!("http://127.0.0.1:{port}/session");
        let size = format!("--window-size={width},{height}");
        // Tests run as root, where Chromium's own sandbox does not.
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars", &size];
        let options = json!({"args": arguments});
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}});
        let session = call("POST", &url, wanted).await["sessionId"].as_str().unwrap().to_owned();
        Self { driver, session: format!("{url}/{session}"), _output: output }
    }

    pub async fn open(&self, url: &str) {
        call("POST", &format!("{}/url", self.session), json!({"url": url})).await;
    }

    /// What a function body returns.
    pub async fn run(&self, script: &str) -> Value {
        call("POST", &format!("{}/execute/sync", self.session), json!({"script": script, "args": []})).await
    }

    /// Runs a function body until it returns something true; says how long that took.
    pub async fn until(&self, limit: Duration, script: &str) -> Duration {
        let start = Instant::now();
        loop {
            let found = self.run(script).await;
            if found.as_bool().unwrap_or_else(|| !found.is_null()) {
                return start.elapsed();
            }
            if start.elapsed() > limit {
                let page = self.run("return document.body.innerText").await;
                panic!("not within {limit:?}: {script}\n{}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses keys, as `\u{e004}` (Tab) or `\u{e007}` (Enter).
    pub async fn press(&self, key: &str) {
        let actions = json!({"actions": [{"type": "key", "id": "k", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]});
        call("POST", &format!("{}/actions", self.session), actions).await;
    }

    pub async fn resize(&self, width: u32, height: u32) {
        call("POST", &format!("{}/window/rect", self.session), json!({"width": width, "height": height})).await;
    }

    /// What the browser complained about: blocked scripts, errors.
    pub async fn complaints(&self) -> Vec<String> {
        let log = call("POST", &format!("{}/se/log", self.session), json!({"type": "browser"})).await;
        log.as_array().into_iter().flatten().filter_map(|l| l["message"].as_str().map(str::to_owned)).collect()
    }

    /// A picture into the directory that `FERROMESH_SCREENSHOTS` names, if any.
    pub async fn picture(&self, name: &str) {
        let picture = call("GET", &format!("{}/screenshot", self.session), Value::Null).await;
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test is told by the environment where pictures go")]
        let directory = std::env::var("FERROMESH_SCREENSHOTS");
        if let Ok(directory) = directory {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(format!("{directory}/{name}.png"), bytes).unwrap();
        }
    }

    pub async fn stop(mut self) {
        call("DELETE", &self.session, Value::Null).await;
        self.driver.kill().await.unwrap();
    }
}

async fn call(method: &str, url: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
    let (status, text) = http(request.body(body.into()).unwrap()).await;
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    assert!(status.is_success(), "{method} {url}: {}", answer["value"]["message"]);
    answer["value"].take()
}
