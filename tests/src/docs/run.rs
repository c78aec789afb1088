//! The commands of pages, run as they stand: by bash, one after the other, in a folder that has what the pages name.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sipwarden_cluster::workspace::repository;
use tempfile::TempDir;

use super::page::{Block, Mark, Page};
use crate::process::Process;

/// What makes a command one for a cluster, or for a machine; with neither it goes with the command before it.
const CLUSTER: &[&str] = &["kubectl", "helm"];
const MACHINE: &[&str] = &["sipwarden-sidecar", "cargo"];

/// What the rest of the script may rely on: what the last commands printed is shown and background jobs end with it, and a
/// command that fails is named.
const PROLOGUE: &str = "set -Eeuo pipefail\n\
                        printed=/dev/null\n\
                        trap 'cat $printed; kill $(jobs -p) 2> /dev/null || true' EXIT\n\
                        trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR\n";

/// Where a command belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Machine,
    Cluster,
}

/// A command, or commands that stand together.
#[derive(Clone, Debug)]
pub struct Step {
    /// `PATH:LINE`
    pub place: String,
    pub text: String,
    /// What it is said to print.
    pub expected: Option<String>,
    pub is_last: bool,
    kind: StepKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum StepKind {
    Run(Place),
    /// The file of this name.
    Write(String),
}

impl Page {
    /// What is run for this page in one of the places, with the files it needs, in order.
    pub fn steps(&self, place: Place) -> Vec<Step> {
        let mut current = Place::Machine;
        let mut steps: Vec<Step> = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            let kind = match (&block.mark, block.language.as_str()) {
                (Mark::File(name), _) => StepKind::Write(name.clone()),
                (Mark::NotRun(_), _) => continue,
                (_, "sh") => {
                    current = place_of(&block.text).unwrap_or(current);
                    StepKind::Run(current)
                }
                _ => continue,
            };
            if kind == StepKind::Run(place) || matches!(kind, StepKind::Write(_)) {
                let expected = self.blocks.get(number + 1).filter(|next| is_output_of(block, next));
                steps.push(Step {
                    place: self.place(block.line),
                    text: block.text.clone(),
                    expected: expected.map(|block| block.text.clone()),
                    is_last: block.mark == Mark::Last,
                    kind,
                });
            }
        }
        let runs = |step: &Step| step.kind == StepKind::Run(place);
        if steps.iter().any(runs) { steps } else { Vec::new() }
    }
}

impl Step {
    /// Whether it is a command, not a file for one.
    pub fn is_command(&self) -> bool {
        matches!(self.kind, StepKind::Run(_))
    }
}

/// A block of text right behind commands is what they print.
fn is_output_of(command: &Block, next: &Block) -> bool {
    // Two fences and an empty line lie between.
    let behind = command.line + command.text.lines().count() + 3;
    command.language == "sh" && next.language == "text" && next.line <= behind
}

fn place_of(text: &str) -> Option<Place> {
    let has = |programs: &[&str]| text.split_whitespace().any(|word| programs.contains(&word));
    if has(CLUSTER) {
        return Some(Place::Cluster);
    }
    has(MACHINE).then_some(Place::Machine)
}

/// A folder to run in, with the repository's folders and programs of ours.
pub struct Runner {
    folder: TempDir,
    /// Words of pages, and the names that they stand for.
    names: Vec<(&'static str, String)>,
}

impl Runner {
    /// With these programs on the PATH, by their file names, besides those of the machine.
    pub fn new(programs: &[PathBuf]) -> Runner {
        let folder = TempDir::with_prefix("sipwarden-docs-").expect("a temporary directory can be made");
        let runner = Runner { folder, names: Vec::new() };
        for entry in fs::read_dir(repository()).expect("the repository").flatten() {
            let name = entry.file_name();
            if entry.path().is_dir() && !name.to_string_lossy().starts_with('.') && name != "target" {
                symlink(entry.path(), runner.path().join(name)).expect("the directory is ours");
            }
        }
        fs::create_dir(runner.path().join("bin")).expect("the directory is ours");
        for program in programs {
            let name = program.file_name().expect("a program has a name");
            symlink(program, runner.path().join("bin").join(name)).expect("the directory is ours");
        }
        // cargo takes the folder it is called in for the workspace.
        let cargo = format!("#!/bin/sh\ncd '{}' && exec '{}' \"$@\"\n", repository().display(), env!("CARGO"));
        let script = runner.path().join("bin/cargo");
        fs::write(&script, cargo).expect("the directory is ours");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        runner
    }

    /// From now on this word of a page, in capitals as in a synopsis, stands for this name.
    pub fn fill(&mut self, word: &'static str, name: &str) {
        self.names.push((word, name.to_owned()));
    }

    /// Runs steps of a page in one shell, started by `shell` (whose last argument is to be the script), and holds what they
    /// print to what the page says. Panics with the page's line at the first that fails.
    pub fn run(&self, page: &Page, shell: &Command, steps: &[Step], limit: Duration) {
        if steps.is_empty() {
            return;
        }
        let script = self.write(steps);
        let name = page.path.display().to_string().replace('/', "-");
        let mut process = Process::start(&name, Path::new(shell.get_program()), |command, _| {
            command.args(shell.get_args()).arg(script).current_dir(self.path());
            for (key, value) in shell.get_envs() {
                if let Some(value) = value {
                    command.env(key, value);
                }
            }
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", self.path().join("bin").display()));
        });
        let status = process.wait(limit);
        let mut begun =
            steps.iter().enumerate().filter(|(number, _)| self.path().join(format!("{number}.out")).exists());
        let (last, step) = begun.next_back().unwrap_or_else(|| panic!("{name}: nothing was run"));
        assert!(status.success() && last + 1 == steps.len(), "{} fails ({status}):\n{}", step.place, step.text);
        for (number, step) in steps.iter().enumerate() {
            let printed = fs::read_to_string(self.path().join(format!("{number}.out"))).unwrap_or_default();
            if let Some(expected) = &step.expected
                && let Err(line) = tells(&printed, expected)
            {
                panic!("{} prints no such line: {line}\n{printed}", step.place);
            }
            let _ = fs::remove_file(self.path().join(format!("{number}.out")));
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, steps: &[Step]) -> PathBuf {
        let mut script = PROLOGUE.to_owned();
        for (number, step) in steps.iter().enumerate() {
            let file = match &step.kind {
                StepKind::Write(name) => {
                    let kept = format!("{number}.file");
                    fs::write(self.path().join(&kept), &step.text).expect("the directory is ours");
                    let _ = writeln!(script, "cp {kept} '{name}'; : > {number}.out");
                    continue;
                }
                StepKind::Run(_) => format!("{number}.sh"),
            };
            fs::write(self.path().join(&file), self.filled(&step.text)).expect("the directory is ours");
            // Each on a line of its own: within `&&` a shell does not stop where a command fails.
            let _ =
                writeln!(script, "cat $printed\necho '== {}'\nprinted={number}.out\n. ./{file} > $printed", step.place);
        }
        let path = self.path().join("script");
        fs::write(&path, script).expect("the directory is ours");
        path
    }

    fn filled(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (word, name)| text.replace(word, name))
    }
}

/// Whether each line of `expected` is in a line of `printed`, in this order; `…` stands for anything, white space for any
/// other. The error is the line that is not.
///
/// # Errors
/// The first line that is nowhere.
pub fn tells<'e>(printed: &str, expected: &'e str) -> Result<(), &'e str> {
    let normal = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = printed.lines().map(normal);
    for line in expected.lines().filter(|line| !line.trim().is_empty()) {
        let wanted = normal(line);
        let fits = |found: String| {
            let mut rest = found.as_str();
            wanted.split('…').all(|part| match rest.find(part.trim()) {
                Some(at) => {
                    rest = &rest[at + part.trim().len()..];
                    true
                }
                None => false,
            })
        };
        if !lines.by_ref().any(fits) {
            return Err(line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_held_to_what_a_page_says() {
        let printed = "NAME    READY  STATUS\npbx-7d  2/2    Running   0  3s\n";
        assert_eq!(tells(printed, "NAME  READY\npbx-…  2/2  Running\n"), Ok(()));
        assert_eq!(tells(printed, "pbx-… 1/2\n"), Err("pbx-… 1/2"));
        assert_eq!(tells(printed, "pbx-…\nNAME\n"), Err("NAME"), "the order counts");
    }

    #[test]
    fn a_command_goes_with_the_one_before_it_unless_it_says_where() {
        let block = |text: &str| Block { language: "sh".to_owned(), text: text.to_owned(), line: 1, mark: Mark::None };
        let texts = ["sipwarden-sidecar demo", "curl -s a", "kubectl get pods", "curl -s b"];
        let page = Page { blocks: texts.map(block).to_vec(), ..Page::read(Path::new("README.md")) };
        let steps = |place| page.steps(place).into_iter().map(|step| step.text).collect::<Vec<_>>();
        assert_eq!(steps(Place::Machine), texts[..2]);
        assert_eq!(steps(Place::Cluster), texts[2..]);
    }
}
