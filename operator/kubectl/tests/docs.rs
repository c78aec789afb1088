//! `docs/kubectl.md` says what the command line and the table of rights say.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory, Parser};
use kubectl_sipwarden::{cli::Cli, rights::RIGHTS};
use sipwarden_cluster::workspace::{assert_written, repository};

const PAGE: &str = "docs/kubectl.md";
const BEGIN: &str = "written by SIPWARDEN_WRITE=1 cargo test -p kubectl-sipwarden --test plugin_docs -->\n";
const END: &str = "<!-- commands: end -->";

#[test]
fn the_documented_commands_are_those_of_the_command_line() {
    let text = std::fs::read_to_string(repository().join(PAGE)).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where the commands begin");
    let (_, after) = rest.split_once(END).expect("where they end");
    assert_written(PAGE, &format!("{before}{BEGIN}{}{END}{after}", commands()));
}

/// What stands within a sentence as a command is one that the command line takes; those in blocks are run on a real node.
#[test]
fn every_command_within_a_sentence_is_understood() {
    let read = |page: &str| std::fs::read_to_string(repository().join(page)).unwrap();
    let text = [PAGE, "docs/checks.md"].map(read).concat();
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    // One that is only a command's name speaks of it.
    let commands = spans.filter_map(|span| span.strip_prefix("kubectl sipwarden ")).filter(|rest| rest.contains(' '));
    let mut understood = 0;
    for command in commands {
        let words = ["kubectl-sipwarden"].into_iter().chain(command.split_whitespace());
        if let Err(error) = Cli::try_parse_from(words) {
            assert!(!error.use_stderr(), "{command}: {error}");
        }
        understood += 1;
    }
    assert!(understood >= 7, "{understood} commands");
}

#[test]
fn every_command_that_asks_a_cluster_has_its_rights_in_the_table() {
    let mut commands: Vec<String> = names().into_iter().filter(|name| name != "completion").collect();
    let mut documented: Vec<&str> = RIGHTS.iter().map(|(command, _)| *command).collect();
    commands.sort();
    documented.sort_unstable();
    assert_eq!(commands, documented);
}

fn names() -> Vec<String> {
    let cli = Cli::command();
    cli.get_subcommands().filter(|it| !it.is_hide_set()).map(|it| it.get_name().to_owned()).collect()
}

fn commands() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::new();
    for name in names() {
        let command = root.find_subcommand(&name).expect("it is one of them");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let synopsis = command.clone().render_usage().to_string();
        let synopsis = synopsis.trim_start_matches("Usage: ");
        let _ = write!(text, "\n### {name}\n\n{about}\n\n```text\n{synopsis}\n```\n\n");
        let _ = write!(text, "| | |\n|---|---|\n");
        let own = |argument: &&Arg| !argument.is_global_set() && argument.get_id() != "help";
        for argument in command.get_arguments().filter(own) {
            let _ = writeln!(text, "| {} | {} |", usage(argument), help(argument));
        }
        if let Some((_, rights)) = RIGHTS.iter().find(|(command, _)| *command == name) {
            let _ = write!(text, "\nRights: {}\n", self::rights(rights));
        }
    }
    text.push('\n');
    text
}

fn rights(rights: &[kubectl_sipwarden::rights::Right]) -> String {
    let one = |right: &kubectl_sipwarden::rights::Right| {
        let place = if right.is_cluster_wide { " (cluster-wide)" } else { "" };
        if right.is_optional { format!("[`{right}`{place}]") } else { format!("`{right}`{place}") }
    };
    if rights.is_empty() {
        "none, and no cluster".to_owned()
    } else {
        rights.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

fn usage(argument: &Arg) -> String {
    let names = argument.get_value_names().into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let value = if argument.get_action().takes_values() { names } else { String::new() };
    match (argument.get_short(), argument.get_long()) {
        (_, None) => format!("`{value}`").replace('|', "\\|"),
        (Some(short), Some(long)) => format!("`-{short}`, `--{long} {value}`").replace(" `", "`").replace(",`", ", `"),
        (None, Some(long)) => format!("`{}`", format!("--{long} {value}").trim_end()),
    }
}

fn help(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if argument.get_action().takes_values() && !values.is_empty() {
        let _ = write!(text, ": {}", values.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " (default `{}`)", defaults.join(", "));
    }
    text
}
