//! How sipwarden scales: the operator with a thousand policies and ten thousand pods on a real API server, and a node with
//! fifty pods. It prints tables; README.md of this package has those of one run. `-- api` and `-- node` run one of the two.
//!
//! Figures are of this machine and what else it does; what counts is how they grow, and the bounds.

mod api;
#[path = "../../support/client.rs"]
mod client;
mod fleet;
mod node;
mod process;

use anyhow::{Result, bail};

/// Lines of a table: what was measured, and what came out.
pub(crate) struct Table(Vec<(String, String)>);

impl Table {
    pub(crate) fn new() -> Table {
        Table(Vec::new())
    }

    /// Adds a line, which is also shown at once: the whole takes minutes.
    pub(crate) fn add(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        let (what, figure) = (what.into(), figure.into());
        eprintln!("{what}: {figure}");
        self.0.push((what, figure));
    }

    fn print(&self, title: &str) {
        println!("\n| {title} | |\n|---|---|");
        for (what, figure) in &self.0 {
            println!("| {what} | {figure} |");
        }
    }
}

fn main() -> Result<()> {
    // cargo itself says `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = wanted.iter().find(|name| !["api", "node"].contains(&name.as_str())) {
        bail!("there is no bench {unknown}: api and node are");
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut tables = Vec::new();
    if is_wanted("api") {
        tables.push(("operator and API server, no nodes", api::run()?));
    }
    if is_wanted("node") {
        tables.push(("a whole node", node::run()?));
    }
    tables.iter().for_each(|(title, table)| table.print(title));
    Ok(())
}
