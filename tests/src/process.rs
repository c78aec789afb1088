//! A child process of a test: its output goes to files, it ends with the test, and a failing test shows what it said.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::wait::{eventually, until};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running program with a directory of its own for everything it writes.
pub struct Process {
    name: String,
    child: Child,
    dir: TempDir,
}

impl Process {
    /// Starts `program` in a fresh directory, after `prepare` has added arguments (it is given that directory).
    ///
    /// Panics when the program is not installed: a real-process test without its process must not pass.
    pub fn start(name: &str, program: &Path, prepare: impl FnOnce(&mut Command, &Path)) -> Process {
        let dir = TempDir::with_prefix(format!("sipwarden-{name}-")).expect("a temporary directory can be made");
        let output = |stream| Stdio::from(File::create(dir.path().join(stream)).expect("the directory is ours"));
        let mut command = Command::new(program);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"));
        prepare(&mut command, dir.path());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {}: {error}. tests/run installs and builds what the tests need", program.display())
        });
        Process { name: name.to_owned(), child, dir }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.read(Path::new("stdout"))
    }

    /// A file of the process's directory as text; empty when there is none.
    pub fn read(&self, file: &Path) -> String {
        fs::read(self.dir.path().join(file))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        eventually(&what, limit, || self.ended())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(GRACE)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("process ids fit in i32");
        // Failing means that it is gone, which is what is wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// The files worth showing: not the statistics.
    fn traces(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file() && path.extension().is_none()).collect();
        files.sort();
        files
    }
}

impl Drop for Process {
    /// Asks first, so that a process with children (Kamailio) takes them along.
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
            if until(GRACE, || self.ended()).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            for file in self.traces() {
                let text = self.read(&file);
                if !text.trim().is_empty() {
                    let file_name = file.file_name().unwrap_or_default().to_string_lossy();
                    eprintln!("──── {} · {file_name}\n{}", self.name, text.trim_end());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_and_the_end_is_seen() {
        let mut process = Process::start("echo", Path::new("echo"), |command, _| {
            command.arg("ready");
        });

        assert!(process.wait(GRACE).success());
        assert_eq!(process.stdout(), "ready\n");
    }

    #[test]
    fn a_process_that_lives_on_is_ended_by_sigterm() {
        let mut process = Process::start("sleep", Path::new("sleep"), |command, _| {
            command.arg("60");
        });
        assert_eq!(process.ended(), None);

        assert!(!process.terminate().success());
    }

    #[test]
    #[should_panic(expected = "cannot start no-such-program")]
    fn a_missing_program_fails_loudly() {
        Process::start("missing", Path::new("no-such-program"), |_, _| {});
    }
}
