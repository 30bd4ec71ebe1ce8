//! Starts what serves policy: the engine and the limiter with their watched directories, and the services that ask them.

use super::ext_authz::ExtAuthz;
use super::ratelimit::RateLimits;
use super::ratelimit_quota::RateLimitQuotas;
use super::{ext_authz_http, ratelimit_http};
use crate::args::PolicyArgs;
use crate::pilot::Pilot;
use crate::policy::Engine;
use crate::policy::load::Loader;
use crate::quota::memory::Memory;
use crate::quota::redis::Redis;
use crate::quota::{Counters, DEDUPLICATION};
use crate::ratelimit::config;
use crate::ratelimit::limiter::{Limiter, Stores};
use crate::ratelimit::meters::Meters;
use crate::ratelimit::object;
use crate::source::{Directory, Texts};
use crate::workload::Follower;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinSet;
use tonic::service::{Routes, RoutesBuilder};
use vitals::prometheus::{Registry, TEXT_FORMAT};

/// What serves policy.
#[derive(Debug)]
pub struct Policy {
    /// Decides by rules.
    pub engine: Arc<Engine>,
    /// Decides by descriptors.
    pub limiter: Arc<Limiter>,
    ext_authz: ExtAuthz,
    limits: RateLimits,
    quotas: RateLimitQuotas,
}

/// Parts of mixer that run until one fails.
type Tasks = JoinSet<anyhow::Result<()>>;

impl Policy {
    /// Reads the configuration for the first time, and follows it; shared limits of the mesh's own objects come from `pilot`.
    ///
    /// # Errors
    /// Where a directory cannot be read or watched, or Redis' address is malformed.
    pub async fn start(
        args: &PolicyArgs,
        (workloads, pilot): (Follower, Option<&Pilot>),
        metrics: &Registry,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Self> {
        let engine = Arc::new(Engine::new());
        let meters = engine.meters()?;
        let decisions = meters.decisions.clone();
        metrics.register(Box::new(meters))?;
        let stores = stores(args)?;
        let limiter = Arc::new(Limiter::new(stores, Meters::new(metrics)?, args.ratelimit_shadow_mode));
        if let Some(path) = &args.config_dir {
            let (engine, limiter) = (engine.clone(), limiter.clone());
            let mut loader = Loader::default();
            follow(path, tasks, move |texts| {
                engine.load(&mut loader, &texts);
                limiter.load_objects(engine.policy().domains.clone());
            })
            .await?;
        }
        if let Some(path) = &args.ratelimit_config {
            let limiter = limiter.clone();
            let mut loader = config::Loader::default();
            follow(path, tasks, move |texts| load_limits(&limiter, &mut loader, &texts)).await?;
        }
        if let Some(pilot) = pilot {
            let limiter = limiter.clone();
            tokio::spawn(pilot.clone().follow_for_ever(object::PATH, move |answer| {
                if let Ok(Some(shown)) = answer {
                    limiter.load_mesh(object::domains(shown));
                }
            }));
        }
        Ok(Self {
            ext_authz: ExtAuthz::new(engine.clone(), workloads, decisions),
            limits: RateLimits { limiter: limiter.clone(), headers: args.ratelimit_response_headers },
            quotas: RateLimitQuotas::start(limiter.clone()),
            engine,
            limiter,
        })
    }

    /// Adds all gRPC services.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(self.ext_authz.clone().service());
        self.add_limits(routes);
    }

    fn add_limits(&self, routes: &mut RoutesBuilder) {
        routes.add_service(self.limits.clone().service());
        routes.add_service(self.quotas.clone().service());
    }

    /// The gRPC services of rate limits alone.
    pub fn ratelimit_grpc(&self) -> Routes {
        let mut routes = Routes::builder();
        self.add_limits(&mut routes);
        routes.routes()
    }

    /// External authorization over HTTP.
    pub fn ext_authz_http(&self, prefix: &str) -> Router {
        ext_authz_http::router(self.ext_authz.clone(), prefix)
    }

    /// The series of the adapter prometheus.
    pub fn adapter_metrics(&self) -> Router {
        let engine = self.engine.clone();
        let show = async move || ([(header::CONTENT_TYPE, TEXT_FORMAT)], engine.exposition().await);
        Router::new().route("/metrics", get(show))
    }

    /// Rate limits over HTTP.
    pub fn ratelimit_http(&self) -> Router {
        ratelimit_http::router(self.limiter.clone())
    }
}

/// Where rate limits are counted.
fn stores(args: &PolicyArgs) -> anyhow::Result<Stores> {
    let redis = |address: &String| {
        Redis::new(address).map(Counters::Redis).map_err(|reason| anyhow::anyhow!("--redis: {reason}"))
    };
    let common = match &args.redis {
        Some(address) => redis(address)?,
        None => Counters::Memory(Memory::start(DEDUPLICATION)),
    };
    Ok(Stores { common, per_second: args.redis_per_second.as_ref().map(redis).transpose()? })
}

/// Gives a directory's texts, now and whenever they change.
async fn follow(path: &Path, tasks: &mut Tasks, mut load: impl FnMut(Texts) + Send + 'static) -> anyhow::Result<()> {
    let mut directory = Directory::watch(path)?;
    load(directory.next().await?);
    tasks.spawn(async move {
        loop {
            load(directory.next().await?);
        }
    });
    Ok(())
}

fn load_limits(limiter: &Limiter, loader: &mut config::Loader, texts: &Texts) {
    let (domains, problems) = loader.load(texts);
    for problem in problems {
        tracing::warn!("refused, its last good version stays: {problem}");
    }
    limiter.load_files(domains);
}
