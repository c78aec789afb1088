//! Completion of commands and flags, by shells and by kubectl.
//!
//! kubectl completes the words behind `kubectl sipwarden` by running `kubectl_complete-sipwarden` with them, and reads a
//! line for each candidate, with its description behind a tab, and a last line `:N` that says what the shell may add.

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell as Generator;

use crate::{
    cli::{Cli, Shell},
    outcome::{Failure, Outcome},
    output::Screen,
};

/// What kubectl runs; on PATH as `kubectl_complete-sipwarden`.
const FOR_KUBECTL: &str =
    "#!/bin/sh\n# kubectl completes `kubectl sipwarden` with it.\nexec kubectl-sipwarden __complete -- \"$@\"\n";
/// Candidates are all there is: no files.
const NO_FILES: u8 = 4;
/// Files may be meant.
const FILES: u8 = 0;

/// Prints the script for a shell, or for kubectl.
///
/// # Errors
/// Nobody reads it.
pub fn script(shell: Shell, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
        Shell::Kubectl => return screen.raw(FOR_KUBECTL.as_bytes()).map(|()| Outcome::Fine),
    };
    let mut text = Vec::new();
    // Shells complete the program that is typed.
    let mut command = Cli::command().bin_name("kubectl-sipwarden");
    clap_complete::generate(generator, &mut command, "kubectl-sipwarden", &mut text);
    screen.raw(&text)?;
    Ok(Outcome::Fine)
}

/// Prints what the last of `words` may become.
///
/// # Errors
/// Nobody reads it.
pub fn complete(words: &[String], screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let (candidates, directive) = candidates(words);
    for (word, about) in candidates {
        screen.raw(format!("{word}\t{about}\n").as_bytes())?;
    }
    screen.raw(format!(":{directive}\n").as_bytes())?;
    Ok(Outcome::Fine)
}

/// Words and what they mean, and kubectl's number for the rest.
fn candidates(words: &[String]) -> (Vec<(String, String)>, u8) {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut root = Cli::command();
    root.build();
    let command = before.iter().find_map(|word| root.find_subcommand(word)).unwrap_or(&root);
    if let Some(argument) = before.last().and_then(|word| flag(command, word)) {
        return match values(argument) {
            Some(values) => (starting_with(values, last), NO_FILES),
            None => (Vec::new(), FILES),
        };
    }
    if last.starts_with('-') {
        return (starting_with(flags(command), last), NO_FILES);
    }
    if std::ptr::eq(command, &raw const root) {
        let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
        let named = commands.map(|command| (command.get_name().to_owned(), about(command.get_about()))).collect();
        return (starting_with(named, last), NO_FILES);
    }
    match command.get_positionals().find_map(values) {
        Some(values) => (starting_with(values, last), NO_FILES),
        None => (Vec::new(), FILES),
    }
}

/// The flag that takes the next word as its value, if `word` is one.
fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let takes_word = |argument: &&Arg| argument.get_action().takes_values();
    command.get_arguments().filter(takes_word).find(|argument| {
        word.strip_prefix("--").is_some_and(|long| argument.get_long() == Some(long))
            || word.strip_prefix('-').is_some_and(|short| argument.get_short().is_some_and(|c| short == c.to_string()))
    })
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown.filter_map(|argument| Some((format!("--{}", argument.get_long()?), about(argument.get_help())))).collect()
}

/// What an argument can be, where that is a closed set.
fn values(argument: &Arg) -> Option<Vec<(String, String)>> {
    let values = argument.get_possible_values();
    let takes_value = argument.get_action().takes_values();
    (takes_value && !values.is_empty())
        .then(|| values.iter().map(|value| (value.get_name().to_owned(), about(value.get_help()))).collect())
}

fn starting_with(candidates: Vec<(String, String)>, start: &str) -> Vec<(String, String)> {
    candidates.into_iter().filter(|(word, _)| word.starts_with(start)).collect()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(words: &[&str]) -> (Vec<String>, u8) {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let (candidates, directive) = candidates(&words);
        (candidates.into_iter().map(|(word, _)| word).collect(), directive)
    }

    #[test]
    fn commands_flags_and_values_are_completed() {
        assert_eq!(completed(&["stat"]), (vec!["status".to_owned()], NO_FILES));
        assert!(completed(&[""]).0.contains(&"sessions".to_owned()));
        assert!(!completed(&[""]).0.contains(&"__complete".to_owned()));
        assert_eq!(completed(&["sessions", "--sel"]), (vec!["--selector".to_owned()], NO_FILES));
        assert!(completed(&["sessions", "--names"]).0.contains(&"--namespace".to_owned()), "flags of all commands too");
        assert_eq!(completed(&["sessions", "--state", "e"]), (vec!["ended".to_owned()], NO_FILES));
        assert_eq!(completed(&["status", "-o", "y"]), (vec!["yaml".to_owned()], NO_FILES));
        assert_eq!(completed(&["completion", "z"]), (vec!["zsh".to_owned()], NO_FILES));
    }

    #[test]
    fn where_a_file_is_meant_the_shell_completes() {
        assert_eq!(completed(&["lint", ""]), (vec![], FILES));
        assert_eq!(completed(&["status", "--kubeconfig", ""]), (vec![], FILES));
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            script(shell, &mut Screen::plain(&mut text)).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("sessions") && text.contains("kubectl-sipwarden"), "{shell:?}");
        }
    }
}
