//! User names and passwords that a policy names, read from the directory of a mounted Secret or from a file.
//!
//! What is read here is shown nowhere: errors name the place and what to check, never what stands there.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sipwarden_crds::SidecarConfig;
use sipwarden_session_timer::Credentials;

/// A file larger than this holds no password.
const MAX_LEN: u64 = 16 * 1024;

/// Why credentials are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No such Secret in the namespace, or not mounted, or without this key.
    #[error("{} does not exist: is there a Secret with username and password, and is it mounted here?", .0.display())]
    NoSecret(PathBuf),
    /// No such file.
    #[error("{} does not exist", .0.display())]
    NoFile(PathBuf),
    /// It is there and cannot be read.
    #[error("{path} cannot be read: {reason}", path = .0.display(), reason = .1)]
    Unreadable(PathBuf, ErrorKind),
    /// Larger than any password.
    #[error("{} is larger than {MAX_LEN} bytes", .0.display())]
    TooLarge(PathBuf),
    /// No YAML, or fields are missing, unknown, or no text.
    #[error("{}: expected the fields username, password and perhaps realm, each a text in quotes", .0.display())]
    NotCredentials(PathBuf),
    /// A user name or password of no characters.
    #[error("{}: empty user name or password", .0.display())]
    Empty(PathBuf),
    /// What stands there would break a header line.
    #[error("{}: a line break or another control character in user name, password or realm", .0.display())]
    ControlCharacter(PathBuf),
    /// The Secret's name would lead out of the directory of Secrets.
    #[error("a Secret has no such name")]
    SecretName,
}

/// All credentials that a config names, read once each.
#[derive(Default)]
pub struct CredentialSet {
    read: Vec<(sipwarden_crds::Credentials, Option<Arc<Credentials>>)>,
    /// What is wrong with those that are missing.
    pub problems: Vec<CredentialsError>,
}

impl CredentialSet {
    /// Reads what `config` names. `secrets` holds a directory for each Secret.
    pub fn read(config: &SidecarConfig, secrets: &Path) -> CredentialSet {
        let mut set = CredentialSet::default();
        for place in places(config) {
            if set.find(place).is_none() {
                let read = read(place, secrets).map_err(|error| set.problems.push(error)).ok();
                set.read.push((place.clone(), read.map(Arc::new)));
            }
        }
        set
    }

    /// Those of `place`, if they could be read.
    pub fn get(&self, place: &sipwarden_crds::Credentials) -> Option<Arc<Credentials>> {
        self.find(place)?.clone()
    }

    fn find(&self, place: &sipwarden_crds::Credentials) -> Option<&Option<Arc<Credentials>>> {
        self.read.iter().find(|(known, _)| known == place).map(|(_, credentials)| credentials)
    }
}

/// Does it name credentials at all?
pub fn named_in(config: &SidecarConfig) -> bool {
    places(config).next().is_some()
}

fn places(config: &SidecarConfig) -> impl Iterator<Item = &sipwarden_crds::Credentials> {
    let timers = config.rules.iter().map(|rule| &rule.timers).chain([&config.timers]);
    timers.filter_map(|timers| timers.credentials.as_ref())
}

fn read(place: &sipwarden_crds::Credentials, secrets: &Path) -> Result<Credentials, CredentialsError> {
    match place {
        sipwarden_crds::Credentials::SecretName(name) => from_secret(secrets, name),
        sipwarden_crds::Credentials::File(path) => from_file(Path::new(path)),
    }
}

/// A mounted Secret: a directory with a file for each of its keys.
fn from_secret(secrets: &Path, name: &str) -> Result<Credentials, CredentialsError> {
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        return Err(CredentialsError::SecretName);
    }
    let directory = secrets.join(name);
    // Whoever makes a Secret from a file has the line end of its last line in it.
    let key = |key: &str| {
        let text = text_of(&directory.join(key))?;
        Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    let required = |name: &str| key(name)?.ok_or_else(|| CredentialsError::NoSecret(directory.join(name)));
    let (username, password) = (required("username")?, required("password")?);
    sound(Credentials { username, password, realm: key("realm")? }, &directory)
}

fn from_file(path: &Path) -> Result<Credentials, CredentialsError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        username: String,
        password: String,
        realm: Option<String>,
    }

    let text = text_of(path)?.ok_or_else(|| CredentialsError::NoFile(path.to_owned()))?;
    // The parser's own words quote what it stumbled over, which may be the password.
    let written: Written =
        serde_saphyr::from_str(&text).map_err(|_| CredentialsError::NotCredentials(path.to_owned()))?;
    let Written { username, password, realm } = written;
    sound(Credentials { username, password, realm }, path)
}

/// What a file says; `None` if there is none.
fn text_of(path: &Path) -> Result<Option<String>, CredentialsError> {
    let unreadable = |error: std::io::Error| CredentialsError::Unreadable(path.to_owned(), error.kind());
    match std::fs::metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if metadata.len() > MAX_LEN => return Err(CredentialsError::TooLarge(path.to_owned())),
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(unreadable)
}

/// An empty realm is none.
fn sound(credentials: Credentials, place: &Path) -> Result<Credentials, CredentialsError> {
    let Credentials { username, password, realm } = credentials;
    let realm = realm.filter(|realm| !realm.is_empty());
    if username.is_empty() || password.is_empty() {
        return Err(CredentialsError::Empty(place.to_owned()));
    }
    if [Some(&username), Some(&password), realm.as_ref()]
        .into_iter()
        .flatten()
        .any(|text| text.contains(char::is_control))
    {
        return Err(CredentialsError::ControlCharacter(place.to_owned()));
    }
    Ok(Credentials { username, password, realm })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> sipwarden_crds::Credentials {
        sipwarden_crds::Credentials::SecretName(name.to_owned())
    }

    fn secret(keys: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("trunk-a")).expect("made");
        for (key, value) in keys {
            std::fs::write(directory.path().join("trunk-a").join(key), value).expect("written");
        }
        directory
    }

    fn file(text: &str) -> Result<Credentials, CredentialsError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("trunk.yaml");
        std::fs::write(&path, text).expect("written");
        from_file(&path)
    }

    #[test]
    fn a_mounted_secret_is_read_without_the_line_ends_of_its_files() {
        let directory = secret(&[("username", "alice\n"), ("password", " s3cret \r\n"), ("realm", "")]);
        let read = read(&place("trunk-a"), directory.path()).expect("credentials");
        let expected = Credentials { username: "alice".into(), password: " s3cret ".into(), realm: None };
        assert!(read == expected);
    }

    #[test]
    fn a_file_is_read_with_its_realm() {
        let read = file("username: alice\npassword: \"0042\"\nrealm: sip.example.net\n").expect("credentials");
        assert_eq!((read.username.as_str(), read.password.as_str()), ("alice", "0042"));
        assert_eq!(read.realm.as_deref(), Some("sip.example.net"));
    }

    #[test]
    fn a_password_of_digits_keeps_its_zeros() {
        assert_eq!(file("username: alice\npassword: 0042\n").expect("credentials").password, "0042");
    }

    #[test]
    fn what_is_wrong_is_told_without_what_stands_there() {
        for text in [
            "username: alice\npassword: [hunter2]\n",
            "username: alice\npassword: hunter2\npasswort: hunter2\n",
            "username: alice\npassword: \"hunter2\n",
            "hunter2",
            "username: alice\npassword: \"hunter2\\r\\nVia: x\"\n",
            "username: hunter2\npassword: \"\"\n",
        ] {
            let error = file(text).expect_err(text);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_check() {
        let directory = secret(&[("username", "alice")]);
        let told = |name: &str| read(&place(name), directory.path()).expect_err(name).to_string();
        assert!(told("trunk-a").contains("trunk-a/password does not exist: is there a Secret"));
        assert!(told("trunk-b").contains("trunk-b/username does not exist"));
        for name in ["../trunk-a", "a/b", ".."] {
            assert_eq!(read(&place(name), directory.path()).err(), Some(CredentialsError::SecretName), "{name}");
        }
    }

    #[test]
    fn each_place_is_read_once_and_its_problem_told_once() {
        let text = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: carrier}\nspec:\n  \
                    timers: {credentials: {secretName: trunk-b}}\n  \
                    rules: [{name: in, match: {direction: Inbound}}]\n";
        let config = sipwarden_crds::file::load(text).expect("a policy").into_config();
        let directory = secret(&[("username", "alice"), ("password", "s3cret")]);
        let set = CredentialSet::read(&config, directory.path());
        assert_eq!(set.problems.len(), 1, "{:?}", set.problems);
        assert_eq!(set.get(&place("trunk-b")), None);
    }

    #[test]
    fn a_password_is_never_in_debug_output() {
        let directory = secret(&[("username", "alice"), ("password", "hunter2")]);
        let read = read(&place("trunk-a"), directory.path()).expect("credentials");
        assert!(!format!("{read:?}").contains("hunter2"));
    }
}
