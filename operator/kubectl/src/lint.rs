//! `lint`: the operator's judgement of files, for people or for programs.

use crate::{
    cli::LintArgs,
    outcome::{Failure, Outcome},
    output::{Format, Screen},
};

/// Judges files.
///
/// # Errors
/// A file cannot be read.
pub fn lint(args: &LintArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let verdicts = sipwarden_operator::lint::judge(&args.files)
        .map_err(|error| Failure::File { path: error.path, error: error.error })?;
    match args.format.output {
        Format::Text => verdicts.iter().try_for_each(|verdict| screen.raw(verdict.to_string().as_bytes()))?,
        format => screen.value(&verdicts, format)?,
    }
    let good = verdicts.iter().all(|verdict| verdict.is_good());
    Ok(if good { Outcome::Fine } else { Outcome::Findings })
}
