//! `report`: what somebody who helps needs to see, in one archive: objects, statuses, events, configs, metrics, sessions
//! and recent decisions. It is made to be sent away, so nothing secret may be in it ([`redact`]).

mod gather;
mod redact;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    cli::ReportArgs,
    connection::Connection,
    outcome::{Failure, Outcome},
    output::{Format, Screen, Tone},
};
use gather::Gathered;

/// Writes the archive, and says what is in it.
///
/// # Errors
/// The archive cannot be written.
pub async fn report(connection: &Connection, args: &ReportArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let now = Timestamp::now();
    let name = format!("sipwarden-report-{}", now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ"));
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let mut gathered = gather::all(connection, args).await;
    gathered.json(
        "report.json",
        &json!({
            "made": now.to_string(), "plugin": env!("CARGO_PKG_VERSION"), "namespace": connection.namespace,
            "missing": gathered.missing,
        }),
    );
    let files: Vec<(String, String)> =
        gathered.files.iter().map(|(file, text)| (file.clone(), redact::text(text))).collect();
    write(&path, &name, now, &files).map_err(Failure::file(&path))?;
    tell(&path, &files, &gathered, args.format.output, screen)?;
    Ok(if gathered.missing.is_empty() { Outcome::Fine } else { Outcome::Incomplete })
}

fn tell(
    path: &Path,
    files: &[(String, String)],
    gathered: &Gathered,
    format: Format,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let names: Vec<&String> = files.iter().map(|(file, _)| file).collect();
    if format != Format::Text {
        return screen.value(&json!({ "file": path, "contents": names, "missing": gathered.missing }), format);
    }
    for missing in &gathered.missing {
        screen.toned(&format!("missing: {missing}"), Tone::Warn)?;
    }
    screen.line(&format!(
        "{}: {} files, without Secrets, variables, commands or users; read it before you send it",
        path.display(),
        files.len()
    ))
}

/// Only the user may read it: it tells who calls whom.
fn write(path: &Path, folder: &str, now: Timestamp, files: &[(String, String)]) -> std::io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut archive = tar::Builder::new(GzEncoder::new(options.open(path)?, Compression::default()));
    for (file, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.as_second().try_into().unwrap_or_default());
        archive.append_data(&mut header, format!("{folder}/{file}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

impl Gathered {
    fn json(&mut self, file: &str, value: &Value) {
        let text = serde_json::to_string_pretty(value).expect("a value has string keys");
        self.files.push((file.to_owned(), text));
    }
}
