//! How each process of the demo is launched.

use super::{Mesh, ROOTS};
use crate::demo::bootstrap::SDS_SOCKET;
use crate::demo::plan::{MIXER_GRPC, MIXER_HTTP, MIXER_MONITORING, PILOT_HTTP, Plan, Workload};
use crate::demo::process::Launch;
use identity::spiffe::{SpiffeId, TrustDomain};
use proto::wire::{PORT_CITADEL, PORT_MONITORING, PORT_XDS_PLAIN, PROXY_UID};
use std::path::Path;

/// User of the bookshop processes: anybody but the proxy's.
const SHOP_UID: u32 = 65534;
/// How connections leave what has changed: as Istio's agent starts its proxy.
const DRAIN: [&str; 4] = ["--drain-time-s", "45", "--drain-strategy", "immediate"];

impl Mesh {
    fn in_fabric(&self, name: &str, program: &Path, args: Vec<String>) -> Launch {
        Launch {
            name: name.to_owned(),
            namespace: self.plan.fabric(),
            uid: None,
            program: program.to_owned(),
            args,
            env: Vec::new(),
            log: self.plan.log(name),
        }
    }

    pub(super) fn citadel(&self) -> Launch {
        let path = |name: &str| self.plan.path(name).display().to_string();
        let address = format!("{}:{PORT_CITADEL}", Plan::control_address());
        let args = [
            "serve",
            "--listen",
            &address,
            "--root-dir",
            &path("ca"),
            "--token-jwks",
            &path("jwks.json"),
            "--monitoring-addr=",
        ];
        let roots = ["--roots-out".to_owned(), path(ROOTS)];
        self.in_fabric("citadel", &self.programs.citadel, args.map(str::to_owned).into_iter().chain(roots).collect())
    }

    pub(super) fn pilot(&self) -> Launch {
        let at = |port: u16| format!("{}:{port}", Plan::control_address());
        let args = [
            ("--config-dir", self.plan.path("config").display().to_string()),
            ("--mesh-config", self.plan.path("mesh-config.yaml").display().to_string()),
            ("--grpc-addr", at(PORT_XDS_PLAIN)),
            ("--http-addr", at(PILOT_HTTP)),
            ("--monitoring-addr", at(PORT_MONITORING)),
            ("--secure-grpc-addr", String::new()),
        ];
        let args = std::iter::once("discovery".to_owned()).chain(args.into_iter().map(|(k, v)| format!("{k}={v}")));
        self.in_fabric("pilot", &self.programs.pilot, args.collect())
    }

    pub(super) fn mixer(&self, identity: &SpiffeId) -> Launch {
        let at = |port: u16| format!("{}:{port}", Plan::control_address());
        let path = |name: &str| self.plan.path(name).display().to_string();
        let args = [
            ("--ca-addr", at(PORT_CITADEL)),
            ("--ca-root", path(ROOTS)),
            ("--token-file", path("mixer/token")),
            ("--identity", identity.to_string()),
            ("--state-dir", path("mixer")),
            ("--grpc-addr", at(MIXER_GRPC)),
            ("--http-addr", at(MIXER_HTTP)),
            ("--monitoring-addr", at(MIXER_MONITORING)),
            ("--pilot", format!("http://{}", at(PILOT_HTTP))),
            ("--config-dir", path("config")),
            ("--otlp-grpc-addr", String::new()),
            ("--otlp-http-addr", String::new()),
            ("--zipkin-addr", String::new()),
        ];
        let args = std::iter::once("serve".to_owned()).chain(args.into_iter().map(|(k, v)| format!("{k}={v}")));
        self.in_fabric("mixer", &self.programs.mixer, args.collect())
    }

    pub(super) fn shop(&self, workload: &Workload) -> Launch {
        let args = ["--role", workload.app, "--version", workload.version, "--instance", workload.name];
        Launch {
            name: workload.name.to_owned(),
            namespace: self.plan.namespace(workload),
            uid: self.as_user(SHOP_UID),
            program: self.programs.bookshop.clone(),
            args: args.map(str::to_owned).to_vec(),
            env: Vec::new(),
            log: self.plan.log(workload.name),
        }
    }

    /// As whom a process runs; as whoever this is where there is one user only.
    pub(super) fn as_user(&self, user: u32) -> Option<u32> {
        (!self.plan.one_user).then_some(user)
    }

    pub(super) fn beside(&self, workload: &Workload, what: &str, program: std::path::PathBuf) -> Launch {
        Launch {
            name: format!("{} {what}", workload.name),
            namespace: self.plan.namespace(workload),
            uid: self.as_user(PROXY_UID),
            program,
            args: Vec::new(),
            env: Vec::new(),
            log: self.plan.log(&format!("{}.{what}", workload.name)),
        }
    }

    pub(super) fn envoy(&self, workload: &Workload, program: std::path::PathBuf) -> Launch {
        let bootstrap = self.plan.proxy_directory(workload).join("bootstrap.json").display().to_string();
        let args = ["-c", &bootstrap, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"];
        let args = args.into_iter().chain(DRAIN).map(str::to_owned).collect();
        Launch { args, ..self.beside(workload, "proxy", program) }
    }

    pub(super) fn agent(&self, workload: &Workload) -> anyhow::Result<Launch> {
        let directory = self.plan.proxy_directory(workload);
        let identity = workload.identity(&TrustDomain::parse("cluster.local")?)?;
        let args = [
            ("--ca-addr", format!("{}:{PORT_CITADEL}", Plan::control_address())),
            ("--ca-root", self.plan.path(ROOTS).display().to_string()),
            ("--token-file", directory.join("token").display().to_string()),
            ("--identity", identity.to_string()),
            ("--socket", directory.join(SDS_SOCKET).display().to_string()),
        ];
        let args = std::iter::once("agent".to_owned()).chain(args.into_iter().map(|(k, v)| format!("{k}={v}")));
        Ok(Launch { args: args.collect(), ..self.beside(workload, "agent", self.programs.citadel.clone()) })
    }

    /// Our proxy enrols by itself: the variables are those of Istio's agent.
    pub(super) fn proxy(&self, workload: &Workload) -> anyhow::Result<Launch> {
        let directory = self.plan.proxy_directory(workload);
        let path = |name: &str| directory.join(name).display().to_string();
        let (bootstrap, state) = (path("bootstrap.json"), path("state"));
        let args = ["-c", &bootstrap, "--concurrency", "1", "--state-dir", &state, "-l", "info"];
        let env = [
            ("CA_ADDR", format!("{}:{PORT_CITADEL}", Plan::control_address())),
            ("CA_ROOT_CA", self.plan.path(ROOTS).display().to_string()),
            ("CA_TOKEN_FILE", path("token")),
            ("TRUST_DOMAIN", "cluster.local".to_owned()),
            ("POD_NAMESPACE", workload.kube_namespace.to_owned()),
            ("SERVICE_ACCOUNT", workload.account.to_owned()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let args = args.into_iter().chain(DRAIN).map(str::to_owned).collect();
        Ok(Launch { args, env, ..self.beside(workload, "proxy", self.programs.proxy.clone()) })
    }
}
