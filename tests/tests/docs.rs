//! The documentation is true: every command of it runs, every policy passes the lint, every link leads somewhere.
//!
//! Here are the links, the files and the commands of a plain machine, which run in a network of their own with the example's
//! address. Those for Kubernetes run in `docs_cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sipwarden_cluster::workspace::{assert_written, repository};
use sipwarden_crds::file::lint;
use sipwarden_tests::docs::{Block, Mark, Page, Place, Runner, decisions, pages, pages_for_developers};
use sipwarden_tests::sidecar::binary;

/// What a block may be. `sh` is run; commands under another name would not be.
const LANGUAGES: &[&str] = &["sh", "yaml", "text", "ini", "xml", "cfg"];

/// How many blocks of commands may say that they cannot be run.
const MOST_NOT_RUN: usize = 6;

/// Programs that begin a command within a line.
const PROGRAMS: &[&str] = &["kubectl", "helm", "curl", "sipwarden-sidecar", "sipwarden-operator"];

/// The address that the pages give their machine.
const NETWORK: &str = "ip link set lo up && ip address add 192.0.2.10/32 dev lo && . \"$0\"";

const LIMIT: Duration = Duration::from_secs(300);

fn all() -> Vec<Page> {
    pages().into_iter().chain(pages_for_developers()).collect()
}

#[test]
fn every_command_is_run_or_says_why_not() {
    let (mut commands, mut not_run) = (0, 0);
    for page in pages() {
        let steps = |place| page.steps(place).into_iter().filter(|step| step.is_command()).count();
        let written = page.blocks.iter().filter(|block| block.language == "sh").count();
        let skipped = page.blocks.iter().filter(|block| matches!(block.mark, Mark::NotRun(_))).count();
        assert_eq!(steps(Place::Machine) + steps(Place::Cluster) + skipped, written, "{:?}", page.path);
        commands += written;
        not_run += skipped;
        for block in &page.blocks {
            check_block(&page, block);
        }
    }
    assert!(commands >= 50 && not_run <= MOST_NOT_RUN, "{commands} blocks of commands, {not_run} of them not run");
}

#[test]
fn the_words_for_decisions_are_as_written() {
    assert_written("docs/decisions.md", &decisions::render());
}

fn check_block(page: &Page, block: &Block) {
    let place = page.place(block.line);
    assert!(LANGUAGES.contains(&block.language.as_str()), "{place}: a block has a language: {LANGUAGES:?}");
    if let Mark::NotRun(why) = &block.mark {
        assert!(why.len() >= 30, "{place}: why is it not run? {why:?}");
    }
    if block.language == "sh" {
        assert!(!block.text.lines().any(|line| line.starts_with("$ ")), "{place}: nobody can paste a prompt");
    }
}

/// A command within a line is hard to copy, and not run. Those of the plugin are held to its command line by its own tests.
#[test]
fn commands_stand_in_blocks() {
    for page in pages() {
        for (line, code) in &page.spans {
            let mut words = code.split_whitespace().filter(|_| !code.starts_with("kubectl sipwarden "));
            let program = words.next().is_some_and(|word| PROGRAMS.contains(&word));
            let is_command = program && words.any(|word| word.starts_with("--") || word.contains("://"));
            assert!(!is_command, "{}: `{code}` belongs into a block, so that it is run", page.place(*line));
        }
    }
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut anchors: BTreeMap<PathBuf, BTreeSet<String>> =
        all().into_iter().map(|page| (page.path, page.anchors)).collect();
    let mut followed = 0;
    for page in all() {
        for link in &page.links {
            let place = page.place(link.line);
            if link.to.contains("://") {
                let is_plain = link.to.bytes().all(|b| b.is_ascii_graphic()) && !link.to.contains("localhost");
                let scheme = link.to.split("://").next();
                assert!(is_plain && matches!(scheme, Some("http" | "https")), "{place}: {}", link.to);
                continue;
            }
            let (file, anchor) = link.to.split_once('#').unwrap_or((&link.to, ""));
            let target = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
            assert!(repository().join(&target).exists(), "{place}: there is no {}", target.display());
            if !anchor.is_empty() {
                let known = anchors.entry(target.clone()).or_insert_with(|| Page::read(&target).anchors);
                assert!(known.contains(anchor), "{place}: {} has no #{anchor}", target.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 60, "{followed} links");
}

/// A path of the repository, from a page of it.
fn resolve(page: &Path, file: &str) -> PathBuf {
    let joined = page.parent().unwrap_or(Path::new("")).join(file);
    joined.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
        path
    })
}

#[test]
fn every_page_can_be_found_from_the_index() {
    let index = Page::read(Path::new("docs/README.md"));
    let linked: BTreeSet<_> = index.links.iter().map(|link| resolve(&index.path, &link.to)).collect();
    for page in pages().iter().filter(|page| page.path.starts_with("docs") && page.path != index.path) {
        assert!(linked.contains(&page.path), "docs/README.md does not name {:?}", page.path);
    }
}

#[test]
fn pictures_are_read_in_light_and_dark_and_told_to_those_who_do_not_see() {
    let mut seen = BTreeSet::new();
    for page in pages() {
        for picture in &page.pictures {
            let place = page.place(picture.line);
            assert!(picture.alternative.len() > 10, "{place}: what does it show?");
            let path = resolve(&page.path, &picture.file);
            let svg = fs::read_to_string(repository().join(&path)).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(svg.contains("prefers-color-scheme: dark") && svg.contains("<title"), "{place}: {path:?}");
            let is_alone = !svg.contains("href=") && !svg.contains("url(") && !svg.contains("<script");
            assert!(is_alone, "{place}: {path:?} needs something from elsewhere");
            seen.insert(path);
        }
    }
    let there = fs::read_dir(repository().join("docs/pictures")).unwrap().count();
    assert_eq!(seen.len(), there, "a picture that no page shows");
}

#[test]
fn policies_pass_the_lint_and_other_yaml_can_be_read() {
    let mut judged = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "yaml") {
            let place = page.place(block.line);
            let documents: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&block.text);
            let documents = documents.unwrap_or_else(|error| panic!("{place}: {error}"));
            if documents.iter().all(|document| document["kind"].is_null()) {
                continue;
            }
            let linted = lint(&block.text);
            assert!(linted.problems.is_empty(), "{place}: {:?}", linted.problems);
            judged += linted.judged;
        }
    }
    assert!(judged >= 10, "{judged} policies");
}

#[test]
fn the_commands_of_a_plain_machine_run() {
    // What a command leaves running ends with the process namespace, whatever becomes of the test.
    let mut shell = Command::new("unshare");
    shell.args(["--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", NETWORK]);
    let runner = Runner::new(&[binary()]);
    for page in pages() {
        runner.run(&page, &shell, &page.steps(Place::Machine), LIMIT);
    }
}

/// What CONTRIBUTING.md tells people to run names packages, tests, features and scripts that there are.
#[test]
fn commands_for_developers_name_what_exists() {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let mut checked = 0;
    for page in pages_for_developers() {
        for (line, code) in &page.spans {
            let words: Vec<_> = code.split_whitespace().collect();
            let after = |flag: &str| words.iter().skip_while(|word| **word != flag).nth(1).copied();
            if words.contains(&"cargo") {
                let package = after("-p").map(|name| packages.iter().find(|package| package["name"] == name));
                let package = package.map(|found| found.unwrap_or_else(|| panic!("{}: {code}", page.place(*line))));
                for (flag, kind) in [("--test", "test"), ("--bin", "bin"), ("--features", "")] {
                    let Some(name) = after(flag) else { continue };
                    let of = |package: &Value| match kind {
                        "" => !package["features"][name].is_null(),
                        kind => targets(package).any(|(of, target)| of == kind && target == name),
                    };
                    let there = package.map_or_else(|| packages.iter().any(of), of);
                    assert!(there, "{}: there is no {flag} {name}: {code}", page.place(*line));
                }
                checked += 1;
            } else if let Some(script) =
                words.first().filter(|word| word.starts_with("charts/") || **word == "tests/run")
            {
                assert!(repository().join(script).exists(), "{}: {code}", page.place(*line));
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "{checked} commands");
}

fn targets(package: &Value) -> impl Iterator<Item = (&str, &str)> {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets.filter_map(|target| Some((target["kind"][0].as_str()?, target["name"].as_str()?)))
}
