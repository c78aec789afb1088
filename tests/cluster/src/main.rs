//! `sipwarden-cluster`: a real one-node Kubernetes to play with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use sipwarden_cluster::tools::{self, Tool};
use sipwarden_cluster::{Cluster, images, product};

/// A one-node Kubernetes cluster without Docker: built once, up in seconds.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a node and leave it up.
    Up,
    /// End it and remove what it wrote.
    Down,
    /// What runs, and where.
    Status,
    /// Shell code that puts the node's kubectl and helm first on PATH: eval "$(… env)".
    Env,
    /// Hand an image archive to the node.
    Import {
        /// An OCI archive, or what `docker save` writes.
        archive: PathBuf,
    },
    /// Build and install what is missing, without starting anything.
    Build,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up => up(),
        Command::Down => down(),
        Command::Status => status(),
        Command::Env => env(),
        Command::Import { archive } => kept()?.import_image(&archive),
        Command::Build => tools::ensure_everything(),
    }
}

fn up() -> Result<()> {
    tools::ensure_node()?;
    let archive = product::ensure_image()?;
    let started = Instant::now();
    let cluster = Cluster::up()?;
    println!("Kubernetes {} is up after {:.1} s.", Tool::ApiServer.version(), started.elapsed().as_secs_f64());
    let folder = write_wrappers(&cluster)?;
    for image in [images::busybox()?, images::sipp()?, images::kamailio()?] {
        cluster.import(&image)?;
    }
    cluster.import_sipwarden(&archive)?;
    println!("It has a network of its own; these run in it:\n");
    println!("    export PATH={}:$PATH", folder.display());
    println!("    kubectl get pods -A\n");
    println!("sipwarden's image is there, under the name that its chart has for it; in this repository:\n");
    println!("    helm upgrade --install sipwarden-crds charts/sipwarden-crds");
    println!("    helm upgrade --install sipwarden charts/sipwarden \\");
    println!("        --namespace sipwarden-system --create-namespace --wait");
    println!(
        "    kubectl apply -f tests/cluster/voice.yaml      # a namespace with an application that answers calls\n"
    );
    println!("images    {} (imagePullPolicy: Never)", [images::BUSYBOX, images::SIPP, images::KAMAILIO].join(" "));
    println!("logs      {}", cluster.logs().display());
    println!("network   nsenter {} -- COMMAND", cluster.nsenter_argument());
    println!("end it    cargo run -p sipwarden-cluster -- down");
    Ok(())
}

fn down() -> Result<()> {
    kept()?.down();
    println!("The node is down.");
    Ok(())
}

fn status() -> Result<()> {
    let running = Cluster::all();
    if running.is_empty() {
        println!("No cluster is up.");
    }
    for (name, path) in running {
        println!("{name}  {}", path.display());
    }
    if let Some(cluster) = Cluster::kept() {
        print!("{}", cluster.kubectl(&["get", "nodes,pods", "--all-namespaces", "-o", "wide"])?);
    }
    Ok(())
}

fn env() -> Result<()> {
    let cluster = kept()?;
    println!("export PATH={}:$PATH", wrappers(&cluster).display());
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(())
}

fn kept() -> Result<Cluster> {
    match Cluster::kept() {
        Some(cluster) => Ok(cluster),
        None => bail!("no node is up; `cargo run -p sipwarden-cluster -- up` starts one"),
    }
}

fn wrappers(cluster: &Cluster) -> PathBuf {
    cluster.scratch().join("bin")
}

/// kubectl and helm that enter the cluster's network first.
fn write_wrappers(cluster: &Cluster) -> Result<PathBuf> {
    let folder = wrappers(cluster);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, tool) in [("kubectl", Tool::Kubectl), ("helm", Tool::Helm)] {
        write_wrapper(cluster, &folder.join(name), &tool.ensure()?)?;
    }
    Ok(folder)
}

fn write_wrapper(cluster: &Cluster, path: &Path, program: &Path) -> Result<()> {
    let text = format!(
        "#!/bin/sh\nexport KUBECONFIG={}\nexec nsenter {} -- {} \"$@\"\n",
        cluster.kubeconfig().display(),
        cluster.nsenter_argument(),
        program.display()
    );
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("cannot make a wrapper executable")
}
