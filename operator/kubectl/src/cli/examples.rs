//! The examples of `--help` are those of the documentation, where they are run.

const PAGE: &str = include_str!("../../../../docs/kubectl.md");

/// What of the page's blocks `sh` uses this command.
pub(super) fn of(command: &str) -> String {
    let start = format!("kubectl sipwarden {command} ");
    let blocks = PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).filter(|line| line.starts_with(&start));
    lines.fold("Examples:".to_owned(), |all, line| format!("{all}\n  {}", itself(line)))
}

/// Without what a shell does with its end.
fn itself(line: &str) -> &str {
    [" || ", " | ", " > ", " &"].iter().fold(line, |line, sign| line.split(sign).next().unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_has_examples_that_it_understands() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().expect("every command has examples").to_string();
            let examples: Vec<&str> = help.lines().skip(1).map(str::trim).collect();
            assert!(!examples.is_empty(), "{help}");
            for example in examples.iter().filter_map(|line| line.strip_prefix("kubectl sipwarden ")) {
                let words = ["kubectl-sipwarden"].into_iter().chain(example.split_whitespace());
                assert!(Cli::try_parse_from(words).is_ok(), "{example}");
            }
        }
    }

    #[test]
    fn what_becomes_of_the_end_is_left_out() {
        for line in ["kubectl sipwarden x -A", "kubectl sipwarden x -A || echo no", "kubectl sipwarden x -A &"] {
            assert_eq!(itself(line), "kubectl sipwarden x -A");
        }
    }
}
