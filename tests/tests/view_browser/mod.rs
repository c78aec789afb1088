//! A headless Chromium, driven through chromedriver as the W3C WebDriver protocol says. A handful of its commands is all
//! these tests need, over plain HTTP to loopback, which is less than a WebDriver crate brings with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sipwarden_tests::process::Process;
use sipwarden_tests::wait::{eventually, until};

/// How long the browser may take for one command; the first one starts it, on a machine that may be busy.
const COMMAND: Duration = Duration::from_secs(60);
/// How long the page may take to show something.
const SHOWN: Duration = Duration::from_secs(20);

/// Keys as WebDriver writes them.
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const PAGE_DOWN: &str = "\u{e00f}";
pub(crate) const PAGE_UP: &str = "\u{e00e}";
pub(crate) const END: &str = "\u{e010}";
pub(crate) const UP: &str = "\u{e013}";
pub(crate) const DOWN: &str = "\u{e015}";

/// One browser with one window.
pub(crate) struct Browser {
    _driver: Process,
    addr: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one that shows `url`, with the system set to light colours.
    pub(crate) fn open(url: &str) -> Browser {
        let mut driver = Process::start("chromedriver", Path::new("chromedriver"), |command, dir| {
            // What it and the browser keep goes with the test.
            command.args(["--port=0", "--allowed-ips=127.0.0.1"]).env("TMPDIR", dir).env("HOME", dir);
        });
        let port: u16 = eventually("chromedriver to listen", COMMAND, || {
            assert_eq!(driver.ended(), None, "chromedriver ended");
            let said = driver.stdout();
            said.split("on port ")
                .skip(1)
                .find_map(|rest| rest.split('.').next()?.parse().ok().filter(|port| *port > 0))
        });
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // As root, and in containers, Chromium's own sandbox cannot be set up; it loads nothing but our page.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"];
        let session = command(
            addr,
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
            }}}),
        );
        let session = session["sessionId"].as_str().expect("a session has an id").to_owned();
        let browser = Browser { _driver: driver, addr, session };
        browser.size(1440, 900);
        browser.prefer("light");
        browser.post("/url", &json!({ "url": url }));
        browser
    }

    /// Sets the size of the page.
    pub(crate) fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Makes it one of a system with `light` or `dark` colours.
    pub(crate) fn prefer(&self, colours: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": colours});
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": [feature]}));
    }

    /// Takes the network away, or gives it back.
    pub(crate) fn offline(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.devtools("Network.enable", &json!({}));
        self.devtools("Network.emulateNetworkConditions", &conditions);
    }

    /// What a script returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The value of an expression.
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression};"))
    }

    /// The text of an expression.
    pub(crate) fn text(&self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_default().to_owned()
    }

    /// The texts of all elements that fit.
    pub(crate) fn texts(&self, selector: &str) -> Vec<String> {
        let texts = self.value(&format!("[...document.querySelectorAll({selector:?})].map((e) => e.textContent)"));
        texts.as_array().into_iter().flatten().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until an expression is true.
    pub(crate) fn shows(&self, expression: &str) {
        let holds = || self.value(&format!("Boolean({expression})")).as_bool().unwrap_or_default().then_some(());
        if until(SHOWN, holds).is_none() {
            panic!("the page never had {expression}; its text: {}", self.text("document.body.innerText"));
        }
    }

    /// Presses keys where the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let strokes = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key.to_string()})));
        let strokes: Vec<_> = strokes.collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}));
    }

    /// Clicks on the element that fits, as a person does: it has to be visible.
    pub(crate) fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        self.post(&format!("/element/{}/click", id.expect("an element has an id")), &json!({}));
    }

    /// Role and name of each element with one of these roles, as screen readers are told.
    pub(crate) fn names(&self, roles: &[&str]) -> Vec<(String, String)> {
        let tree = self.devtools("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().into_iter().flatten().filter(|node| node["ignored"] == false);
        let text = |node: &Value, field: &str| node[field]["value"].as_str().unwrap_or_default().to_owned();
        let named = nodes.map(|node| (text(node, "role"), text(node, "name")));
        named.filter(|(role, _)| roles.contains(&role.as_str())).collect()
    }

    /// What the browser complained of since it was asked last: errors of scripts, of the content policy, of loading.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().into_iter().flatten();
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Writes what is to be seen to `NAME.png` among the files of the build, for people to look at.
    pub(crate) fn picture(&self, name: &str) {
        let shot = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let bytes = base64(shot["data"].as_str().expect("a picture has data"));
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("view");
        fs::create_dir_all(&folder).expect("the folder is ours");
        fs::write(folder.join(name).with_extension("png"), bytes).expect("the folder is ours");
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        command(self.addr, "POST", &format!("/session/{}{path}", self.session), body)
    }
}

impl Drop for Browser {
    /// chromedriver leaves its browser running otherwise.
    fn drop(&mut self) {
        if let Ok(stream) = TcpStream::connect_timeout(&self.addr, COMMAND) {
            let _ = exchange(stream, "DELETE", &format!("/session/{}", self.session), "");
        }
    }
}

/// GETs JSON, as `curl` would.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Value {
    let stream = TcpStream::connect_timeout(&addr, COMMAND).expect("it listens");
    let (head, body) = exchange(stream, "GET", path, "").unwrap_or_else(|error| panic!("GET {path}: {error}"));
    assert!(head.contains(" 200 "), "GET {path}: {head}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body}"))
}

fn command(addr: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect_timeout(&addr, COMMAND).expect("chromedriver listens");
    let (head, answer) = exchange(stream, method, path, &body.to_string())
        .unwrap_or_else(|error| panic!("chromedriver did not answer {method} {path}: {error}"));
    assert!(head.contains(" 200 "), "{method} {path} {body}: {answer}");
    serde_json::from_str::<Value>(&answer).expect("chromedriver answers with JSON")["value"].take()
}

/// Head and body of an answer. Its length says where it ends, since chromedriver keeps connections open.
fn exchange(mut stream: TcpStream, method: &str, path: &str, body: &str) -> std::io::Result<(String, String)> {
    stream.set_read_timeout(Some(COMMAND))?;
    let host = stream.peer_addr()?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body)?;
    Ok((head, String::from_utf8_lossy(&body).into_owned()))
}

/// What a picture comes as (RFC 4648 §4).
fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let sixes: Vec<u8> = text.bytes().map_while(value).collect();
    let bytes = sixes.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0_u32, |bits, six| bits << 6 | u32::from(*six)) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..].iter().copied().take(four.len() * 6 / 8).collect::<Vec<_>>()
    });
    bytes.collect()
}
