//! Starts what serves policy: the engine with its watched directory, and the services that ask it.

use super::ext_authz::ExtAuthz;
use crate::args::PolicyArgs;
use crate::policy::Engine;
use crate::policy::load::Loader;
use crate::source::Directory;
use crate::workload::Follower;
use std::sync::Arc;
use tokio::task::JoinSet;
use tonic::service::RoutesBuilder;

/// What serves policy.
#[derive(Debug)]
pub struct Policy {
    /// Decides.
    pub engine: Arc<Engine>,
    ext_authz: ExtAuthz,
}

impl Policy {
    /// Reads the configuration for the first time, and follows it.
    ///
    /// # Errors
    /// Where a directory cannot be read or watched.
    pub async fn start(
        args: &PolicyArgs,
        workloads: Follower,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let engine = Arc::new(Engine::new());
        if let Some(path) = &args.config_dir {
            let mut directory = Directory::watch(path)?;
            let mut loader = Loader::default();
            engine.load(&mut loader, &directory.next().await?);
            let engine = engine.clone();
            tasks.spawn(async move {
                loop {
                    engine.load(&mut loader, &directory.next().await?);
                }
            });
        }
        Ok(Self { ext_authz: ExtAuthz::new(engine.clone(), workloads), engine })
    }

    /// Adds the gRPC services.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(self.ext_authz.clone().service());
    }
}
