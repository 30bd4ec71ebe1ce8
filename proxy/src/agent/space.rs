//! Rules in the network of a pod: a thread goes there, and the tools that it starts with it.

use crate::redirect::{self, RedirectArgs};
use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Sets the rules in the network at a path, such as `/var/run/netns/cni-1`.
pub(super) fn redirect(network: &Path, args: &RedirectArgs) -> anyhow::Result<()> {
    let plan = redirect::plan(args)?;
    inside(network, || Ok(redirect::apply(&plan)?))
}

/// Whether rules of ours are there already.
pub(super) fn is_redirected(network: &Path) -> anyhow::Result<bool> {
    inside(network, || Ok(redirect::is_applied()?))
}

/// The network among those in a directory that has an address; none where there is none.
pub(super) fn of_address(networks: &Path, address: IpAddr) -> anyhow::Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(networks).with_context(|| format!("{}", networks.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        // One that goes meanwhile is not the one that is looked for.
        let own = inside(&path, || Ok(redirect::own_address(address.is_ipv4())?));
        if own.is_ok_and(|own| own == address) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Runs `work` on a thread in a network.
fn inside<T: Send>(network: &Path, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let space = File::open(network).with_context(|| format!("{}", network.display()))?;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("{} (CAP_SYS_ADMIN is needed)", network.display()))?;
            work()
        });
        thread.join().unwrap_or_else(|_| anyhow::bail!("the thread in {} panicked", network.display()))
    })
}
