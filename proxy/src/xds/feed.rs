//! Drives a [`Client`]: opens its streams, watches its files, keeps its state on disk, and hands out batches.

use super::cache::Cache;
use super::files::WatchedFile;
use super::secret_files::SecretFile;
use super::secure;
use super::stream::{Event, Link, TlsFor};
use super::{Batch, Client, ClientOptions, Flavour, Kind, Origin, Rejection, Request, Resource, Store, Target, fixed};
use crate::bootstrap::{Bootstrap, Converter};
use proto::envoy::core::{
    ApiConfigSource, ConfigSource, Node, api_config_source::ApiType, config_source::ConfigSourceSpecifier,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Responses that may wait while a batch is applied; more stay in the streams.
const EVENT_QUEUE: usize = 64;
/// How long changes are collected before they are written to disk.
const SAVE_DELAY: Duration = Duration::from_secs(1);

/// Why a feed cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct FeedError {
    /// Path of the field in the bootstrap.
    pub path: String,
    /// What is wrong and what would be right.
    pub why: String,
}

/// What a feed needs beside the bootstrap.
pub struct FeedOptions {
    /// Who the proxy is, extensions included.
    pub node: Node,
    /// Converts files that are not protobuf.
    pub converter: Converter,
    /// Speaks TLS to servers; none: with the secrets that the feed itself holds.
    pub tls: Option<TlsFor>,
    /// Kinds of which everything is wanted, beside clusters and listeners (the name table).
    pub also: Vec<Kind>,
    /// Clusters whose secret service is this process itself.
    pub own_secret_services: BTreeSet<Arc<str>>,
}

/// The configuration of the proxy as batches, from all sources. Main thread.
pub struct Feed {
    client: Client,
    bootstrap: Bootstrap,
    converter: Converter,
    tls: TlsFor,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    streams: BTreeMap<Origin, mpsc::Sender<Request>>,
    tasks: Vec<JoinHandle<()>>,
    snapshot: watch::Sender<Store>,
    cache: Option<Cache>,
    unsaved: BTreeSet<Kind>,
    save_at: Option<Instant>,
}

/// Tells a feed something from elsewhere in the process.
#[derive(Debug, Clone)]
pub struct FeedHandle {
    sender: mpsc::Sender<Event>,
}

impl FeedHandle {
    /// A request needs a resource that was not asked for. Cancel-safe.
    pub async fn demand(&self, kind: Kind, name: Arc<str>) {
        self.send(Event::Demand(kind, name)).await;
    }

    /// This process has made a resource, such as its own certificate. Cancel-safe.
    pub async fn provide(&self, kind: Kind, resource: Arc<Resource>) {
        self.send(Event::Local(kind, resource)).await;
    }

    async fn send(&self, event: Event) {
        if self.sender.send(event).await.is_err() {
            tracing::debug!("the configuration feed has ended");
        }
    }
}

impl Feed {
    /// A feed of what the bootstrap names: its static resources, then the last good ones of `--state-dir`, then the
    /// control plane. Nothing is opened before [`Self::next`].
    ///
    /// # Errors
    /// [`FeedError`] naming the field of the bootstrap that cannot be used.
    pub fn new(bootstrap: Bootstrap, options: FeedOptions) -> Result<Self, FeedError> {
        let client_options = client_options(&bootstrap, &options)?;
        let is_dynamic = client_options.clusters.is_some() || client_options.listeners.is_some();
        if let Some(api) = ads_config(&bootstrap) {
            ads_target(api, &bootstrap)?;
        }
        let mut client = Client::new(client_options, options.node);
        client.handle_bootstrap(fixed::resources(&bootstrap.written));
        let cache = bootstrap.flags.state_dir.as_ref().map(|directory| Cache::new(directory));
        if let Some(cache) = cache.as_ref().filter(|_| is_dynamic) {
            client.handle_restored(cache.load());
        }
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let snapshot = watch::Sender::new(Store::default());
        Ok(Self {
            client,
            converter: options.converter,
            tls: options.tls.unwrap_or_else(|| secure::of_store(snapshot.subscribe())),
            events,
            sender,
            streams: BTreeMap::new(),
            tasks: Vec::new(),
            snapshot,
            cache,
            unsaved: BTreeSet::new(),
            save_at: None,
            bootstrap,
        })
    }

    /// Snapshots of what is accepted.
    pub fn store(&self) -> watch::Receiver<Store> {
        self.snapshot.subscribe()
    }

    /// For the rest of the process.
    pub fn handle(&self) -> FeedHandle {
        FeedHandle { sender: self.sender.clone() }
    }

    /// Whether clusters and listeners were taken over at least once (spec HL-2).
    pub fn is_ready(&self) -> bool {
        self.client.is_ready()
    }

    /// The next changes to apply. Each batch must be given to [`Self::settle`] before the next one comes. Cancel-safe.
    pub async fn next(&mut self) -> Batch {
        loop {
            self.open_sources();
            self.send_requests();
            let now = Instant::now();
            if self.save_at.is_some_and(|at| now >= at) {
                self.save().await;
            }
            if let Some(batch) = self.client.poll_batch(now.into_std()) {
                return batch;
            }
            let deadline = self.client.deadline().map(Instant::from_std).into_iter().chain(self.save_at).min();
            tokio::select! {
                event = self.events.recv() => if let Some(event) = event { self.handle_event(event) },
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// What came of a batch: all of it is in use but for what is listed.
    pub fn settle(&mut self, batch: Batch, rejections: Vec<Rejection>) {
        if self.cache.is_some() && !batch.updates.is_empty() {
            self.unsaved.extend(batch.updates.iter().map(|update| update.kind));
            self.save_at.get_or_insert_with(|| Instant::now() + SAVE_DELAY);
        }
        self.client.settle(batch, rejections, SystemTime::now());
        self.publish();
        self.send_requests();
    }

    /// Writes what has not been saved yet; at the latest when the process stops.
    pub async fn save(&mut self) {
        self.save_at = None;
        let kinds = std::mem::take(&mut self.unsaved);
        let Some(cache) = self.cache.clone().filter(|_| !kinds.is_empty()) else { return };
        let store = self.client.store().clone();
        let saved =
            tokio::task::spawn_blocking(move || kinds.into_iter().try_for_each(|kind| cache.save(kind, &store)));
        match saved.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "last good configuration was not saved"),
            Err(error) => tracing::warn!(%error, "saving the last good configuration ended early"),
        }
    }

    fn handle_event(&mut self, event: Event) {
        let now = Instant::now().into_std();
        match event {
            Event::Up(origin, requests) => {
                self.client.handle_connected(&origin);
                self.streams.insert(origin, requests);
                self.publish();
            }
            Event::Down(origin) => {
                self.client.handle_disconnected(&origin);
                self.streams.remove(&origin);
                self.publish();
            }
            Event::Delta(origin, response) => self.client.handle_delta(&origin, *response, now),
            Event::Sotw(origin, response) => self.client.handle_sotw(&origin, *response, now),
            Event::File(path, kind, response) => self.client.handle_file(&path, kind, *response, now),
            Event::Demand(kind, name) => self.client.handle_demand(kind, name),
            Event::Local(kind, resource) => self.client.handle_local(kind, resource, now),
        }
    }

    fn publish(&self) {
        self.snapshot.send_replace(self.client.store().clone());
    }

    fn open_sources(&mut self) {
        while let Some(name) = self.client.poll_secret_file() {
            self.tasks.push(tokio::spawn(SecretFile { name, events: self.sender.clone() }.run()));
        }
        while let Some((origin, kind)) = self.client.poll_source() {
            if let Origin::File(path) = &origin {
                let (converter, events) = (self.converter.clone(), self.sender.clone());
                let file = WatchedFile { path: path.clone(), kind, converter, events };
                self.tasks.push(tokio::spawn(file.run()));
                continue;
            }
            match self.target(&origin) {
                Ok(target) => {
                    let flavour = self.client.flavour(&origin);
                    let (tls, events) = (self.tls.clone(), self.sender.clone());
                    self.tasks.push(tokio::spawn(Link { origin, flavour, target, tls, events }.run()));
                }
                Err(why) => tracing::warn!(?origin, why, "a source of configuration cannot be reached"),
            }
        }
    }

    fn target(&self, origin: &Origin) -> Result<Target, String> {
        match origin {
            Origin::Sds(cluster) => Target::of_cluster(cluster, clusters(&self.bootstrap)),
            _ => {
                let api = ads_config(&self.bootstrap).ok_or("there is no dynamic_resources.ads_config")?;
                ads_target(api, &self.bootstrap).map_err(|error| error.to_string())
            }
        }
    }

    fn send_requests(&mut self) {
        let mut stuck = Vec::new();
        for (origin, requests) in &self.streams {
            while let Ok(permit) = requests.try_reserve() {
                match self.client.poll_request(origin) {
                    Some(request) => permit.send(request),
                    None => break,
                }
            }
            if requests.capacity() == 0 {
                stuck.push(origin.clone());
            }
        }
        for origin in stuck {
            tracing::warn!(?origin, "the control plane does not read: connecting anew");
            self.streams.remove(&origin); // the stream ends with its queue
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn clusters(bootstrap: &Bootstrap) -> &[proto::envoy::cluster::Cluster] {
    bootstrap.written.static_resources.as_ref().map_or(&[], |fixed| &fixed.clusters)
}

fn ads_config(bootstrap: &Bootstrap) -> Option<&ApiConfigSource> {
    bootstrap.written.dynamic_resources.as_ref()?.ads_config.as_ref()
}

fn ads_target(api: &ApiConfigSource, bootstrap: &Bootstrap) -> Result<Target, FeedError> {
    let refused = |why: String| FeedError { path: "dynamic_resources.ads_config".to_owned(), why };
    let service = api.grpc_services.first().ok_or_else(|| refused("grpc_services is empty".to_owned()))?;
    Target::of(service, clusters(bootstrap)).map_err(refused)
}

fn client_options(bootstrap: &Bootstrap, options: &FeedOptions) -> Result<ClientOptions, FeedError> {
    let ads = match ads_config(bootstrap).map(|api| ApiType::try_from(api.api_type)) {
        None => None,
        Some(Ok(ApiType::DeltaGrpc)) => Some(Flavour::Delta),
        Some(Ok(ApiType::Grpc)) => Some(Flavour::Sotw),
        Some(_) => {
            let path = "dynamic_resources.ads_config.api_type".to_owned();
            return Err(FeedError { path, why: "use DELTA_GRPC or GRPC: others are not supported yet".to_owned() });
        }
    };
    Ok(ClientOptions {
        ads,
        clusters: source(bootstrap.cds_config(), ads, "dynamic_resources.cds_config")?,
        listeners: source(bootstrap.lds_config(), ads, "dynamic_resources.lds_config")?,
        also: options.also.clone(),
        own_secret_services: options.own_secret_services.clone(),
        ..ClientOptions::default()
    })
}

fn source(config: Option<&ConfigSource>, ads: Option<Flavour>, path: &str) -> Result<Option<Origin>, FeedError> {
    let refused = |why: &str| Err(FeedError { path: path.to_owned(), why: why.to_owned() });
    let Some(config) = config else { return Ok(None) };
    match &config.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) if ads.is_none() => refused("ads needs dynamic_resources.ads_config"),
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(Some(Origin::Ads)),
        Some(ConfigSourceSpecifier::PathConfigSource(file)) => Ok(Some(Origin::File(file.path.as_str().into()))),
        Some(_) => refused("not supported yet: use ads or path_config_source"),
        None => refused("use ads or path_config_source"),
    }
}
