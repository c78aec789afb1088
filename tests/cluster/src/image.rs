//! Images without Docker: a root filesystem of files of this machine as one layer, written as an OCI archive.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// Who runs what has no `runAsUser`: nobody in particular, so that `runAsNonRoot` is content.
const USER: &str = "65532:65532";
const PATH: &str = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image to be written.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    command: Vec<String>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    /// A file of this machine, under another name.
    File {
        from: PathBuf,
        to: String,
    },
    Text {
        to: String,
        text: String,
    },
    Link {
        to: String,
        target: String,
    },
    /// Anyone may write in it.
    OpenFolder {
        to: String,
    },
}

/// Content of an image, called by its digest.
struct Blob {
    media_type: &'static str,
    content: Vec<u8>,
    sha256: String,
}

impl Image {
    /// An empty image called `name`, which runs `command`.
    pub fn new(name: &str, command: &[&str]) -> Image {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Image { name: name.to_owned(), command, entries: Vec::new() }
    }

    /// Puts the file `from` at `to`.
    pub fn file(mut self, from: &Path, to: &str) -> Image {
        self.entries.push(Entry::File { from: from.to_owned(), to: to.to_owned() });
        self
    }

    /// Puts a file with this text at `to`.
    pub fn text(mut self, to: &str, text: &str) -> Image {
        self.entries.push(Entry::Text { to: to.to_owned(), text: text.to_owned() });
        self
    }

    /// Puts a symbolic link at `to`.
    pub fn link(mut self, to: &str, target: &str) -> Image {
        self.entries.push(Entry::Link { to: to.to_owned(), target: target.to_owned() });
        self
    }

    /// Puts a folder at `to` in which everyone may write, as `/tmp`.
    pub fn open_folder(mut self, to: &str) -> Image {
        self.entries.push(Entry::OpenFolder { to: to.to_owned() });
        self
    }

    /// Puts a program or shared object of this machine at its own path, and the libraries it loads at theirs.
    pub fn program(mut self, path: &Path) -> Result<Image> {
        ensure!(path.is_file(), "{} is missing; `cargo run -p sipwarden-cluster -- build` installs it", path.display());
        let text = path.to_str().context("a program's path is text")?;
        self = self.file(path, text);
        let output = Command::new("ldd").arg(path).output().context("cannot run ldd (Debian package libc-bin)")?;
        // Of a static program ldd says so and fails; it loads nothing.
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self = self.file(Path::new(&library), &library);
        }
        Ok(self)
    }

    /// Writes the archive into `folder` and gives its path.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("{}.tar", self.name.replace(['/', ':'], "_")));
        self.write_to(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer()?)?;
        let config = Blob::json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture(),
                "os": "linux",
                "config": {"User": USER, "Entrypoint": self.command, "Env": [PATH]},
                "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
            }),
        )?;
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }),
        )?;
        let mut described = manifest.descriptor();
        described["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [described]});

        let mut archive = Builder::new(File::create(path)?);
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", index.to_string().as_bytes())?;
        for blob in [&config, &manifest, &layer] {
            append(&mut archive, &format!("blobs/sha256/{}", blob.sha256), &blob.content)?;
        }
        Ok(archive.finish()?)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|entry| entry.to());
        // Libraries that two programs share are there once.
        entries.dedup_by_key(|entry| entry.to());
        let mut archive = Builder::new(Vec::new());
        for entry in entries {
            entry.append(&mut archive).with_context(|| format!("cannot put {} into {}", entry.to(), self.name))?;
        }
        archive.into_inner().context("cannot write a layer")
    }
}

impl Entry {
    fn to(&self) -> &str {
        match self {
            Entry::File { to, .. } | Entry::Text { to, .. } | Entry::Link { to, .. } | Entry::OpenFolder { to } => to,
        }
    }

    fn append(&self, archive: &mut Builder<Vec<u8>>) -> Result<()> {
        let path = self.to().trim_start_matches('/');
        let mut header = header(EntryType::Regular, 0o644);
        match self {
            Entry::File { from, .. } => {
                let mut content = Vec::new();
                File::open(from)?.read_to_end(&mut content)?;
                header.set_mode(mode(from)?);
                header.set_size(content.len() as u64);
                archive.append_data(&mut header, path, content.as_slice())?;
            }
            Entry::Text { text, .. } => {
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, path, text.as_bytes())?;
            }
            Entry::Link { target, .. } => {
                header.set_entry_type(EntryType::Symlink);
                archive.append_link(&mut header, path, target)?;
            }
            Entry::OpenFolder { .. } => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o1777);
                archive.append_data(&mut header, path, [].as_slice())?;
            }
        }
        Ok(())
    }
}

/// Absolute paths in what ldd prints, as in `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld.so (0x…)`.
fn libraries(printed: &str) -> Vec<String> {
    let words = printed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(str::to_owned).collect()
}

/// Readable for all, and executable for all what is so for its owner: the user of a container owns nothing.
fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    let executable = fs::metadata(path)?.permissions().mode() & 0o100 != 0;
    Ok(if executable { 0o755 } else { 0o644 })
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

fn append(archive: &mut Builder<File>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644);
    header.set_size(content.len() as u64);
    Ok(archive.append_data(&mut header, path, content)?)
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Result<Blob> {
        let sha256 = sha256(&content)?;
        Ok(Blob { media_type, content, sha256 })
    }

    fn json(media_type: &'static str, value: &Value) -> Result<Blob> {
        Blob::new(media_type, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.content.len()})
    }
}

/// In hexadecimal digits. By the program: an unoptimised build of this one takes seconds for a large image.
fn sha256(content: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run sha256sum (Debian package coreutils)")?;
    child.stdin.take().context("sha256sum has no input")?.write_all(content)?;
    let output = child.wait_with_output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let digits = printed.split_whitespace().next().context("sha256sum prints nothing")?;
    Ok(digits.to_owned())
}

/// This machine's, in the words of Go.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").unwrap(), abc);
    }

    #[test]
    fn libraries_are_read_from_both_forms_of_a_line() {
        let printed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";

        assert_eq!(libraries(printed), ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn a_file_named_twice_is_in_the_layer_once() {
        let image = Image::new("localhost/x:dev", &["/x"]).text("/etc/x", "1").text("/etc/x", "1").link("/x", "/etc/x");
        let layer = image.layer().expect("nothing of this machine is read");

        let mut archive = tar::Archive::new(layer.as_slice());
        let entries = archive.entries().expect("a layer is a tar file");
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert_eq!(paths, [Path::new("etc/x"), Path::new("x")]);
    }
}
