//! The network plugin of the node agent, chained behind the cluster's own (CNI specification 1.0; IN-11).
//!
//! It runs on the node each time that a pod is set up, hands what it is told to the agent over a Unix socket, and answers
//! what the agent says. It knows neither pods nor rules: what changes with our versions is in the agent. While the agent is
//! away, pods of others must not wait for it: then the plugin lets the pod pass, and a pod of the mesh is held back by its
//! own proof (`istio-validation`) until the agent has repaired it.

use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

/// Where the agent listens, unless the configuration says otherwise.
const SOCKET: &str = "/var/run/istio-cni/plugin.sock";
/// How long the agent may take: the kubelet gives up after some minutes.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest configuration, and largest answer.
const MAX_BYTES: u64 = 1 << 20;
/// What the runtime tells in the environment.
const VARIABLES: [&str; 4] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS"];
/// Versions of the specification.
const VERSIONS: [&str; 6] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.2.0"];
/// CNI error code: the plugin's own, "try again later".
const TRY_AGAIN: u32 = 11;
/// CNI error code: the configuration cannot be read.
const BAD_CONFIG: u32 = 6;

/// Why a pod cannot be set up, as the runtime is told.
#[derive(Debug)]
struct Failure {
    code: u32,
    message: String,
}

impl Failure {
    fn json(&self) -> Value {
        json!({"cniVersion": "1.0.0", "code": self.code, "msg": self.message})
    }
}

fn main() -> ExitCode {
    let mut text = String::new();
    if let Err(error) = io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text) {
        return answer(&Failure { code: BAD_CONFIG, message: error.to_string() }.json(), false);
    }
    match run(&text, &variables()) {
        Ok(result) => answer(&result, true),
        Err(failure) => answer(&failure.json(), false),
    }
}

#[expect(clippy::disallowed_methods, reason = "the runtime tells by variables and by nothing else")]
fn variables() -> Vec<(&'static str, String)> {
    VARIABLES.iter().map(|name| (*name, std::env::var(name).unwrap_or_default())).collect()
}

/// The result of the plugin.
fn run(text: &str, variables: &[(&str, String)]) -> Result<Value, Failure> {
    let command = variables.first().map_or("", |(_, command)| command.as_str());
    let config: Value = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(_) if command == "VERSION" => Value::Null,
        Err(error) => {
            return Err(Failure { code: BAD_CONFIG, message: format!("the configuration is no JSON: {error}") });
        }
    };
    match command {
        "VERSION" => Ok(json!({"cniVersion": "1.0.0", "supportedVersions": VERSIONS})),
        "ADD" => add(&config, variables),
        // The rules go with the pod's network, and are proven by the pod itself.
        _ => Ok(Value::Null),
    }
}

fn add(config: &Value, variables: &[(&str, String)]) -> Result<Value, Failure> {
    let passed = match &config["prevResult"] {
        Value::Null => json!({"cniVersion": config["cniVersion"]}),
        previous => previous.clone(),
    };
    let event: Value = variables.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    match ask(config["socket"].as_str().unwrap_or(SOCKET), &event) {
        // Nobody listens: the pod proves its rules by itself.
        Err(_) => Ok(passed),
        Ok(answer) => match answer["error"].as_str() {
            Some(error) => Err(Failure { code: TRY_AGAIN, message: error.to_owned() }),
            None => Ok(passed),
        },
    }
}

/// One question to the agent: JSON there, JSON back.
fn ask(socket: &str, event: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(event.to_string().as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// The runtime reads results and errors on standard output.
fn answer(result: &Value, good: bool) -> ExitCode {
    let written = if result.is_null() { Ok(()) } else { writeln!(io::stdout(), "{result}") };
    if good && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn event(command: &str) -> Vec<(&'static str, String)> {
        vec![("CNI_COMMAND", command.to_owned()), ("CNI_NETNS", "/n".to_owned())]
    }

    fn config(socket: &str) -> String {
        json!({"cniVersion": "1.0.0", "type": "istio-cni", "socket": socket, "prevResult": {"cniVersion": "1.0.0", "ips": [1]}})
            .to_string()
    }

    /// What the plugin answers where the agent says this.
    fn with_agent(says: &'static str) -> Result<Value, Failure> {
        let path = std::env::temp_dir().join(format!("istio-cni-{}-{}", std::process::id(), says.len()));
        let listener = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            stream.write_all(says.as_bytes()).unwrap();
            asked
        });
        let result = run(&config(path.to_str().unwrap()), &event("ADD"));
        assert!(agent.join().unwrap().contains("\"CNI_NETNS\":\"/n\""));
        std::fs::remove_file(path).unwrap();
        result
    }

    // spec: IN-11
    #[test]
    fn the_result_of_the_plugin_before_is_passed_on() {
        assert_eq!(with_agent("{}").unwrap(), json!({"cniVersion": "1.0.0", "ips": [1]}));
        let refused = with_agent(r#"{"error": "no rules"}"#).unwrap_err();
        assert_eq!((&refused.json()["msg"], &refused.json()["code"]), (&json!("no rules"), &json!(11)));
    }

    // spec: IN-13
    #[test]
    fn without_an_agent_a_pod_passes() {
        let result = run(&config("/nowhere/x.sock"), &event("ADD")).unwrap();
        assert_eq!(result["ips"], json!([1]));
        assert_eq!(run("{}", &event("DEL")).unwrap(), Value::Null);
        assert!(run("", &event("VERSION")).unwrap()["supportedVersions"].to_string().contains("1.0.0"));
        assert_eq!(run("{", &event("ADD")).unwrap_err().code, 6);
    }
}
