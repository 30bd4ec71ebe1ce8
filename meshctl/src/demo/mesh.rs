//! The running demo: everything started in order, and everything ended.

use crate::demo::bootstrap::{ADMIN_SOCKET, bootstrap};
use crate::demo::client::{self, Answer, Ask};
use crate::demo::load::Load;
use crate::demo::plan::{
    GATEWAY_PORT, MIXER_ACCOUNT, MIXER_HTTP, MIXER_MONITORING, PILOT_HTTP, Plan, Proxy, SHOP_PORT, Workload,
};
use crate::demo::process::{self, Launch, Process, Reaper};
use crate::demo::programs::Programs;
use crate::demo::rootless;
use crate::output;
use anyhow::Context;
use citadel::ca::keystore::write_atomically;
use citadel::token::TokenKey;
use identity::spiffe::{SpiffeId, TrustDomain};
use proto::wire::{PORT_CITADEL, PROXY_UID};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

mod launch;

/// How long the parts may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Life of the bootstrap tokens.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 86_400);

/// The mesh's own settings.
const MESH_CONFIG: &str = include_str!("yaml/mesh-config.yaml");
/// The objects that a user may edit.
const CONFIG: &[(&str, &str)] = &[
    ("mesh.yaml", include_str!("yaml/mesh.yaml")),
    ("gateway.yaml", include_str!("yaml/gateway.yaml")),
    ("reviews.yaml", include_str!("yaml/reviews.yaml")),
    ("telemetry.yaml", include_str!("yaml/telemetry.yaml")),
];

/// File with the roots, below the demo's directory.
pub const ROOTS: &str = "roots.pem";

/// The demo and all its processes.
#[derive(Debug)]
pub struct Mesh {
    /// Who runs where.
    pub plan: Plan,
    programs: Programs,
    processes: BTreeMap<String, Process>,
    forwarders: Vec<tokio::task::JoinHandle<()>>,
    reaper: Option<Reaper>,
    _lock: File,
}

impl Mesh {
    /// Takes the name, clears what a predecessor left, starts the reaper, and makes directories and namespaces.
    ///
    /// # Errors
    /// Where a demo of that name runs, or the machine refuses.
    pub fn prepare(plan: Plan, programs: Programs) -> anyhow::Result<Self> {
        let lock = process::take(&plan.directory)?;
        let lock = lock.with_context(|| {
            format!("a demo called {:?} runs already: end it, or give this one another --name", plan.name)
        })?;
        lock.set_len(0)?;
        write!(&lock, "{}", std::process::id())?;
        process::remove(&plan.name, &plan.directory)?;
        fs::create_dir_all(plan.path("log"))?;
        fs::create_dir_all(plan.path("config"))?;
        let reaper = Reaper::start(&plan.name, &plan.directory, &lock)?;
        let programs = if plan.one_user { programs } else { programs.reachable_from(&plan.path("bin"))? };
        let mesh = Self {
            plan,
            programs,
            processes: BTreeMap::new(),
            forwarders: Vec::new(),
            reaper: Some(reaper),
            _lock: lock,
        };
        match mesh.make_namespaces() {
            Ok(()) => Ok(mesh),
            Err(error) => {
                mesh.end()?;
                Err(error)
            }
        }
    }

    fn make_namespaces(&self) -> anyhow::Result<()> {
        let fabric = self.plan.fabric();
        fabric.create()?;
        for workload in &self.plan.workloads {
            self.plan.namespace(workload).create()?;
        }
        fabric.batch(&self.plan.fabric_links())?;
        for workload in &self.plan.workloads {
            let namespace = self.plan.namespace(workload);
            namespace.batch(&workload.links())?;
            let etc = process::resolver_directory(&namespace);
            fs::create_dir_all(&etc)?;
            let domain = format!("{}.svc.cluster.local svc.cluster.local cluster.local", workload.kube_namespace);
            let resolver = format!("search {domain}\nnameserver {}\noptions ndots:5\n", Plan::control_address());
            fs::write(etc.join("resolv.conf"), resolver)?;
            let hosts = match self.plan.has_envoy(workload) {
                true => Plan::hosts(),
                false => "127.0.0.1 localhost\n::1 localhost\n".to_owned(),
            };
            fs::write(etc.join("hosts"), hosts)?;
        }
        Ok(())
    }

    /// Starts everything and waits until all of it is ready.
    ///
    /// # Errors
    /// Names the part that does not become ready, with the end of its log.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.write_objects()?;
        let tokens = TokenKey::load_or_create(&self.plan.path("token-key.pem"))?;
        fs::write(self.plan.path("jwks.json"), tokens.jwks().to_string())?;
        self.launch("citadel", self.citadel())?;
        self.launch("pilot", self.pilot())?;
        self.wait_control_plane().await?;
        let domain = TrustDomain::parse("cluster.local")?;
        let mixer = SpiffeId::service_account(&domain, "istio-system", MIXER_ACCOUNT)?;
        fs::create_dir_all(self.plan.path("mixer"))?;
        let token = tokens.mint(&mixer, TOKEN_TTL, SystemTime::now())?;
        write_atomically(&self.plan.path("mixer").join("token"), token.as_bytes(), 0o400)?;
        self.launch("mixer", self.mixer(&mixer))?;
        let workloads = self.plan.workloads.clone();
        for workload in &workloads {
            if workload.proxy != Proxy::None {
                let token = tokens.mint(&workload.identity(&domain)?, TOKEN_TTL, SystemTime::now())?;
                self.start_proxy(workload, &token)?;
            }
            if workload.runs_shop {
                self.launch(workload.name, self.shop(workload))?;
            }
        }
        for workload in workloads.iter().filter(|w| w.proxy != Proxy::None) {
            self.wait_proxy(workload).await?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        output::say(&format!("{} workloads are ready after {seconds:.1} s", workloads.len()))
    }

    fn write_objects(&self) -> anyhow::Result<()> {
        let objects = serde_saphyr::to_string(&self.plan.objects()).map_err(|e| anyhow::anyhow!("{e}"))?;
        self.write_config("workloads.yaml", &objects)?;
        fs::write(self.plan.path("mesh-config.yaml"), MESH_CONFIG)?;
        CONFIG.iter().try_for_each(|(name, text)| self.write_config(name, text))
    }

    /// Writes a file of the configuration, as an editor would.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_config(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.plan.path("config").join(name);
        write_atomically(&path, text.as_bytes(), 0o644).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes a file of the configuration.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_config(&self, name: &str) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.plan.path("config").join(name))?)
    }

    /// Starts a process under a key.
    fn launch(&mut self, key: &str, launch: Launch) -> anyhow::Result<()> {
        self.processes.insert(key.to_owned(), launch.start()?);
        Ok(())
    }

    /// A process by key: `pilot`, `citadel`, `<workload>`, `<workload> proxy`, `<workload> agent`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn process(&mut self, key: &str) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(key).with_context(|| format!("no process {key:?}"))
    }

    /// Directory, token, bootstrap, rules, then the proxy itself.
    fn start_proxy(&mut self, workload: &Workload, token: &str) -> anyhow::Result<()> {
        let directory = self.plan.proxy_directory(workload);
        fs::create_dir_all(directory.join("state"))?;
        write_atomically(&directory.join("token"), token.as_bytes(), 0o400)?;
        let text = serde_json::to_string_pretty(&bootstrap(&self.plan, workload))?;
        fs::write(directory.join("bootstrap.json"), text)?;
        for path in [&directory, &directory.join("state"), &directory.join("token")] {
            if let Some(user) = self.as_user(PROXY_UID) {
                chown(path, Some(user), Some(user))?;
            }
        }
        if workload.proxy == Proxy::Sidecar {
            let mut redirect = self.beside(workload, "redirect", self.programs.proxy.clone());
            redirect.uid = None;
            redirect.args = vec!["redirect".to_owned()];
            if self.plan.one_user {
                let (mark, control) = (rootless::MARK, Plan::control_address());
                redirect
                    .args
                    .extend([format!("--proxy-mark={mark}"), format!("--istio-service-exclude-cidr={control}/32")]);
            }
            if !self.plan.has_envoy(workload) {
                redirect.args.push("--redirect-dns".to_owned());
            }
            redirect.run()?;
        }
        match self.programs.envoy.clone().filter(|_| self.plan.has_envoy(workload)) {
            Some(envoy) => {
                self.launch(&format!("{} agent", workload.name), self.agent(workload)?)?;
                self.launch(&format!("{} proxy", workload.name), self.envoy(workload, envoy))
            }
            None => self.launch(&format!("{} proxy", workload.name), self.proxy(workload)?),
        }
    }

    /// Waits until pilot and citadel answer.
    ///
    /// # Errors
    /// Where one does not within the time.
    pub async fn wait_control_plane(&mut self) -> anyhow::Result<()> {
        let fabric = self.plan.fabric();
        let citadel: SocketAddr = (Plan::control_address(), PORT_CITADEL).into();
        self.wait("citadel", || async { fabric.connect(citadel).await.is_ok() }).await?;
        let pilot: SocketAddr = (Plan::control_address(), PILOT_HTTP).into();
        let ready = Ask::get("pilot", "/ready");
        self.wait("pilot", || async {
            client::ask(&fabric, pilot, &ready).await.is_ok_and(|answer| answer.status.is_success())
        })
        .await
    }

    /// Waits until a workload's proxy has its configuration.
    ///
    /// # Errors
    /// Where it does not within the time.
    pub async fn wait_proxy(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let socket = self.plan.proxy_directory(workload).join(ADMIN_SOCKET);
        let ready = Ask::get("admin", "/ready");
        self.wait(&format!("{} proxy", workload.name), || async {
            client::ask_socket(&socket, &ready).await.is_ok_and(|answer| answer.text().trim() == "LIVE")
        })
        .await
    }

    /// Asks until `ready` says yes; fails when the process ends or the time is over.
    async fn wait<F: Future<Output = bool>>(&mut self, key: &str, ready: impl Fn() -> F) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if ready().await {
                return Ok(());
            }
            let process = self.process(key)?;
            if let Some(status) = process.ended() {
                anyhow::bail!("{key} ended ({status}):\n{}", process.tail());
            }
            anyhow::ensure!(Instant::now() < deadline, "{key} is not ready after 30 s:\n{}", process.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Opens a port on 127.0.0.1 that leads to the gateway.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn open_port(&mut self, port: u16) -> anyhow::Result<u16> {
        let gateway = self.gateway()?;
        self.forward(port, gateway, "--port").await
    }

    /// Opens a port on 127.0.0.1 that leads to mixer's page.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn open_page(&mut self, port: u16) -> anyhow::Result<u16> {
        self.forward(port, (Plan::control_address(), MIXER_HTTP).into(), "--page-port").await
    }

    async fn forward(&mut self, port: u16, to: SocketAddr, flag: &str) -> anyhow::Result<u16> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.with_context(|| format!("port {port} is taken: choose another with {flag}"))?;
        let port = listener.local_addr()?.port();
        let fabric = self.plan.fabric();
        self.forwarders.push(tokio::spawn(async move {
            while let Ok((mut browser, _)) = listener.accept().await {
                let fabric = fabric.clone();
                tokio::spawn(async move {
                    if let Ok(mut inside) = fabric.connect(to).await {
                        drop(tokio::io::copy_bidirectional(&mut browser, &mut inside).await); // either side left
                    }
                });
            }
        }));
        Ok(port)
    }

    /// Where the ingress gateway listens.
    ///
    /// # Errors
    /// Never for this plan.
    pub fn gateway(&self) -> anyhow::Result<SocketAddr> {
        Ok((self.plan.workload("gateway")?.v4, GATEWAY_PORT).into())
    }

    /// Page views through the gateway for ever.
    pub fn steady_traffic(&self, rate: f64) -> Load {
        let gateway = self.gateway().unwrap_or_else(|_| (Plan::control_address(), GATEWAY_PORT).into());
        let load = Load::of(self.plan.fabric(), gateway, "bookshop.example", "/productpage", u64::MAX);
        Load { rate: Some(rate), ..load }
    }

    /// Asks a shop process itself, past its sidecar (loopback is not captured).
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn ask_shop(&self, workload: &Workload, path: &str) -> anyhow::Result<Answer> {
        let address = SocketAddr::from(([127, 0, 0, 1], SHOP_PORT));
        client::ask(&self.plan.namespace(workload), address, &Ask::get("localhost", path)).await
    }

    /// What pilot's debug pages say.
    ///
    /// # Errors
    /// Where pilot does not answer.
    pub async fn ask_pilot(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let address = (Plan::control_address(), PILOT_HTTP).into();
        let answer = client::ask(&self.plan.fabric(), address, &Ask::get("pilot", path)).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// What mixer tells Prometheus.
    ///
    /// # Errors
    /// Where mixer does not answer.
    pub async fn ask_mixer(&self, path: &str) -> anyhow::Result<String> {
        let address = (Plan::control_address(), MIXER_MONITORING).into();
        Ok(client::ask(&self.plan.fabric(), address, &Ask::get("mixer", path)).await?.text())
    }

    /// What pilot refuses of the configuration, by file, line and field.
    pub async fn problems(&self) -> Vec<String> {
        let status = self.ask_pilot("/debug/status").await.unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let one = |problem: &serde_json::Value| {
            let (file, field, message) = (text(&problem["file"]), text(&problem["field"]), text(&problem["message"]));
            format!("{file}:{}: {field}{}{message}", problem["line"], if field.is_empty() { "" } else { ": " })
        };
        status["problems"].as_array().into_iter().flatten().map(one).collect()
    }

    /// Processes that ended by themselves.
    pub fn ended(&mut self) -> Vec<String> {
        let ended =
            self.processes.values_mut().filter_map(|p| p.ended().map(|status| format!("{} ({status})", p.name())));
        ended.collect()
    }

    /// Ends everything and waits until nothing is left.
    ///
    /// # Errors
    /// Where something cannot be removed.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.forwarders.iter().for_each(tokio::task::JoinHandle::abort);
        self.processes.clear();
        match self.reaper.take() {
            Some(reaper) => reaper.finish(),
            None => Ok(()),
        }
    }
}
