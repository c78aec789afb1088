//! `top` in a terminal, which is tmux's.

use std::process::Command;

use sipwarden_cluster::{tools, wait::eventually};
use tempfile::TempDir;

use crate::{
    PATIENCE,
    plugin::{plugin, with_plugin},
    stage::{HELD_S, Voice, node, voice},
};

/// Seconds after which its shell ends, whatever became of the test.
const LIFE_S: &str = "300";

/// A shell in a terminal of its own, in the cluster's network.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    fn open(width: u16, height: u16) -> Terminal {
        let terminal = Terminal { folder: tempfile::tempdir().expect("a folder") };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = ["timeout", "--foreground", LIFE_S, "sh"];
        terminal.tmux(&[&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height], &shell[..]].concat());
        terminal
    }

    fn tmux_command(&self, arguments: &[&str]) -> Command {
        let program = tools::program("tmux").expect("tests/run installs it");
        let mut tmux = with_plugin(node().command(&program));
        tmux.arg("-u").arg("-S").arg(self.folder.path().join("socket")).args(arguments).current_dir(self.folder.path());
        tmux
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.tmux_command(arguments).output().expect("tmux runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Types a line, as it is.
    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits for something on the screen.
    fn until<T>(&self, what: &str, ask: impl Fn(&[&str]) -> Option<T>) -> T {
        let found = eventually(what, PATIENCE, || ask(&self.tmux(&["capture-pane", "-p"]).lines().collect::<Vec<_>>()));
        found.unwrap_or_else(|error| panic!("{error}:\n{}", self.tmux(&["capture-pane", "-p"])))
    }

    /// Waits for a whole line that a command writes into a file.
    fn line_of(&self, file: &str) -> String {
        let path = self.folder.path().join(file);
        let whole = || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        let screen = || self.tmux(&["capture-pane", "-p"]);
        eventually(file, PATIENCE, whole).unwrap_or_else(|error| panic!("{error}:\n{}", screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where the shell has ended, its server has too.
        let _ = self.tmux_command(&["kill-server"]).output();
    }
}

#[test]
fn top_shows_calls_obeys_keys_and_sizes_and_leaves_the_terminal_as_it_was() {
    let Voice { held, .. } = voice();
    let mut by_interval: Vec<(u32, &str)> = HELD_S.into_iter().zip(held.iter().map(|call| call.id())).collect();
    by_interval.sort_unstable();
    let mut order: Vec<&str> = by_interval.into_iter().map(|(_, id)| id).collect();
    let shown = |screen: &[&str]| -> Vec<String> {
        let of_line = |line: &&str| held.iter().map(|call| call.id()).find(|id| line.contains(id)).map(str::to_owned);
        screen.iter().filter_map(of_line).collect()
    };
    let terminal = Terminal::open(200, 30);
    terminal.enter("stty -g > before");
    let before = terminal.line_of("before");

    terminal.enter("kubectl sipwarden top -n voice --state active; echo $? > code");
    terminal.until("all calls", |screen| {
        let totals = screen.first()?.starts_with("3 active, 0 ended, 3 listed of 3");
        (totals && shown(screen).len() == 3 && screen[1].contains("ordered by pod")).then_some(())
    });
    // Age, deadline, next, interval.
    terminal.press(&["Right", "Right", "Right", "Right"]);
    terminal.until("another order", |screen| {
        (screen[1].ends_with("ordered by interval") && shown(screen) == order).then_some(())
    });
    terminal.press(&["r"]);
    order.reverse();
    terminal.until("the other way round", |screen| {
        (screen[1].ends_with("ordered by interval, reversed") && shown(screen) == order).then_some(())
    });
    terminal.tmux(&["resize-window", "-x", "110", "-y", "12"]);
    terminal.until("a smaller screen", |screen| {
        let fits = screen.len() == 12 && screen.iter().all(|line| line.chars().count() <= 110);
        (fits && screen[0].starts_with("3 active") && screen[11].starts_with("q quit")).then_some(())
    });

    terminal.press(&["q"]);
    assert_eq!(terminal.line_of("code"), "0\n");
    terminal.enter("stty -g > after");
    assert_eq!(terminal.line_of("after"), before);
    assert_eq!(terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]), "0 1\n");
    terminal.until("what was there before", |screen| screen[0].contains("stty -g > before").then_some(()));
}

#[test]
fn top_in_a_pipe_is_tables_without_colours() {
    voice();
    let told = plugin("top -n voice --state active --sort interval --interval 1 --count 2");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(!told.out.contains('\x1b'), "{told:?}");
    let tables: Vec<&str> = told.out.split("\n\n").collect();
    assert_eq!(tables.len(), 2, "{told:?}");
    for table in tables {
        let intervals: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
        assert_eq!(intervals, ["INTERVAL", "10m", "20m", "30m"], "{told:?}");
        assert!(table.trim_end().ends_with("3 of 3 sessions, 3 active"), "{told:?}");
    }
}
