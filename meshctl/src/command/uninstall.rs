//! `meshctl uninstall` (CT-10).

use super::install::agreed;
use crate::install::cluster::{self, Cluster, Name};
use crate::install::installed::{Installed, meshes};
use crate::output;
use crate::reach::Where;
use std::process::ExitCode;

/// `meshctl uninstall`.
#[derive(Debug, Clone, clap::Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    at: Where,
    /// Only the mesh whose control plane is in this namespace; needed where there are several.
    #[arg(long = "istioNamespace", short = 'i', alias = "istio-namespace", value_name = "NAME")]
    control_plane: Option<String>,
    /// Only the pilot of this revision.
    #[arg(long, short = 'r', value_name = "NAME", conflicts_with = "purge")]
    revision: Option<String>,
    /// Also what users made would go with: the definitions of the mesh's kinds, the namespace, the CA's key, the roots.
    #[arg(long)]
    purge: bool,
    /// Ask nothing.
    #[arg(long, short = 'y', alias = "yes")]
    skip_confirmation: bool,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Deletes what was installed.
///
/// # Errors
/// What the API server says.
pub async fn run(args: UninstallArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::connect(&args.at).await?;
    let installed = cluster.installed(args.revision.as_deref()).await?;
    let Going { names: going, mesh, keepers } = going(&installed, &args)?;
    if going.is_empty() {
        output::say(&match &args.revision {
            None => "nothing is installed".to_owned(),
            Some(revision) => format!("nothing is installed with the revision {revision}"),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if !keepers.is_empty() {
        output::say(&format!("the definitions stay: the mesh in {} needs them", keepers.join(", ")))?;
    }
    if args.dry_run {
        for name in going {
            output::say(&format!("would delete {name}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let proxies = cluster.proxies(args.revision.as_deref()).await?;
    let mut asked = format!("{} objects will be deleted", going.len());
    if args.purge && keepers.is_empty() {
        asked.push_str(", and with the definitions all objects of the mesh's kinds");
    }
    if args.purge {
        asked.push_str(", and the CA's key");
    }
    if let Some(first) = proxies.first() {
        asked.push_str(&format!(
            "; {} pods have a proxy that will hear of no change any more, such as {first}",
            proxies.len()
        ));
    }
    if !args.skip_confirmation && !agreed(&format!("{asked}. Proceed? (y/N)"))? {
        return Ok(ExitCode::FAILURE);
    }
    let made = match mesh.filter(|_| args.purge) {
        Some(namespace) => Some((namespace, cluster.own_roots(namespace).await?)),
        None => None,
    };
    for name in &going {
        cluster.delete(name).await?;
        output::say(&format!("  deleted {name}"))?;
    }
    if let Some((namespace, roots)) = &made {
        let count = cluster.delete_made(namespace, roots).await?;
        output::say(&format!("  deleted {count} objects that the components had made"))?;
    }
    output::say("✔ Uninstall complete")?;
    Ok(ExitCode::SUCCESS)
}

/// What is uninstalled.
struct Going<'a> {
    /// Objects, in the order of deletion.
    names: Vec<&'a Name>,
    /// Namespace of the control plane; none where nothing but remains are there.
    mesh: Option<&'a str>,
    /// Namespaces of the other control planes, where these keep the definitions.
    keepers: Vec<&'a str>,
}

/// What goes of all that is installed.
///
/// # Errors
/// Where it is of several meshes and nobody says which one.
fn going<'a>(installed: &'a [Installed], args: &'a UninstallArgs) -> anyhow::Result<Going<'a>> {
    let asked = args.control_plane.as_deref();
    let mut keepers: Vec<&str> = meshes(installed).into_iter().collect();
    anyhow::ensure!(
        asked.is_some() || keepers.len() < 2,
        "there are meshes in {}: say which one with -i",
        keepers.join(", ")
    );
    let mesh = asked.or_else(|| keepers.first().copied());
    keepers.retain(|other| args.purge && Some(*other) != mesh);
    let is_needed = |name: &Name| name.kind == "CustomResourceDefinition" && !keepers.is_empty();
    let stays = |name: &Name| cluster::is_kept(name) && (!args.purge || is_needed(name));
    let goes = |one: &&Installed| asked.is_none_or(|namespace| one.belongs(namespace)) && !stays(&one.name);
    let names = installed.iter().filter(goes).map(|one| &one.name).collect();
    Ok(Going { names, mesh, keepers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    // spec: CT-10, IN-7
    #[test]
    fn a_mesh_goes_alone_and_leaves_the_definitions_to_others() {
        #[derive(Parser)]
        struct Uninstall {
            #[command(flatten)]
            args: UninstallArgs,
        }
        let object = |kind: &str, namespace: &str, name: &str, owner: Option<&str>| {
            let [kind, namespace, name] = [kind, namespace, name].map(str::to_owned);
            Installed { name: Name { kind, namespace, name }, owner: owner.map(str::to_owned) }
        };
        let first = [object("Deployment", "a", "istiod", Some("a")), object("Namespace", "", "a", Some("a"))];
        // Without citadel, and of an earlier version.
        let second = [("Deployment", "b", "istiod"), ("ClusterRole", "", "istiod-b"), ("Namespace", "", "b")];
        let second = second.map(|(kind, namespace, name)| object(kind, namespace, name, None)).to_vec();
        let definition = vec![object("CustomResourceDefinition", "", "c", None)];
        let (one, two) = ([second.clone(), definition.clone()].concat(), [first.to_vec(), second, definition].concat());
        let of = |all: &[Installed], flags: &[&str]| -> anyhow::Result<String> {
            let args = Uninstall::parse_from(["x"].iter().chain(flags)).args;
            let Going { names, mesh, keepers } = going(all, &args)?;
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            Ok(format!("{} of {}, kept by {}", names.join(", "), mesh.unwrap_or("none"), keepers.join(", ")))
        };
        for flags in [&[][..], &["-r", "default"], &["--purge"]] {
            let refused = of(&two, flags).unwrap_err().to_string();
            assert_eq!(refused, "there are meshes in a, b: say which one with -i", "{flags:?}");
        }
        let (istiod, role, namespace) = ("Deployment b/istiod", "ClusterRole istiod-b", "Namespace b");
        for (all, flags, expected) in [
            (&one, &[][..], format!("{istiod}, {role} of b, kept by ")),
            (&one, &["-r", "default"], format!("{istiod}, {role} of b, kept by ")),
            (&one, &["--purge"], format!("{istiod}, {role}, {namespace}, CustomResourceDefinition c of b, kept by ")),
            (&two, &["-i", "b"], format!("{istiod}, {role} of b, kept by ")),
            (&two, &["-i", "b", "--purge"], format!("{istiod}, {role}, {namespace} of b, kept by a")),
            (&two, &["-i", "a", "--purge"], "Deployment a/istiod, Namespace a of a, kept by b".to_owned()),
            (&two, &["-i", "c", "--purge"], " of c, kept by a, b".to_owned()),
        ] {
            assert_eq!(of(all, flags).unwrap(), expected, "{flags:?}");
        }
    }
}
