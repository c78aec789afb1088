//! The 49 messages of RFC 4475 through a whole sidecar: what is valid goes on intact, what is not is answered or
//! dropped, and nothing panics. The index and its checks have their own test with the same data.

mod common;
mod untouchable;

use std::fs;
use std::path::PathBuf;

use common::{app, peer, shard};
use sipwarden_session_timer::{Mode, Policy, Time};
use sipwarden_shard::{DropReason, Intake, Outbox, Outcome};
use sipwarden_sip::check::Fault;
use sipwarden_sip::{Message, Slots};
use untouchable::untouchable;

/// Answered, with this status.
const ANSWERED: [(&str, u16); 21] = [
    ("badaspec", 400),
    ("badinv01", 400),
    ("badvers", 505),
    ("bext01", 420),
    ("clerr", 400),
    ("escruri", 400),
    ("insuf", 400),
    ("ltgtruri", 400),
    ("lwsruri", 400),
    ("lwsstart", 400),
    ("mcl01", 400),
    ("mismatch01", 400),
    ("mismatch02", 400),
    ("multi01", 400),
    ("ncl", 400),
    ("novelsc", 416),
    ("quotbal", 400),
    ("scalar02", 400),
    ("trws", 400),
    ("unkscm", 416),
    ("zeromf", 483),
];

fn files() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sip/testdata/rfc4475");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the test data of the sip crate")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a message"))
        })
        .collect();
    files.sort();
    files
}

/// What becomes of one message, and what left.
fn pass(policy: Policy, bytes: &[u8]) -> (Option<Outcome>, Outbox) {
    let (mut intake, mut out) = (Intake::new(), Outbox::default());
    let outcome =
        intake.receive(bytes).ok().map(|message| shard(policy).handle_message(Time::ZERO, peer(), &message, &mut out));
    (outcome, out)
}

fn expected(name: &str) -> Option<Outcome> {
    let answered = ANSWERED.iter().find(|(answered, _)| *answered == name);
    match name {
        _ if answered.is_some() => answered.map(|(_, status)| Outcome::Answered(*status)),
        "bigcode" => None,
        "scalarlg" => Some(Outcome::Dropped(DropReason::Fault(Fault::BadRequest))),
        "bcast" | "noreason" | "unreason" => Some(Outcome::Dropped(DropReason::NotOurVia)),
        _ => Some(Outcome::Forwarded { edited: false }),
    }
}

#[test]
fn every_message_goes_on_or_is_answered_or_dropped_as_it_deserves() {
    let files = files();
    assert_eq!(files.len(), 49);
    for (name, bytes) in files {
        assert_eq!(pass(Policy::observe(), &bytes).0, expected(&name), "{name}");
    }
}

#[test]
fn valid_messages_go_to_the_application_intact() {
    let mut passed = 0;
    for (name, bytes) in files() {
        let (outcome, out) = pass(Policy::observe(), &bytes);
        if outcome != Some(Outcome::Forwarded { edited: false }) {
            continue;
        }
        let mut slots = Slots::new();
        let whole = Message::parse(&bytes, &mut slots).unwrap().bytes();
        let [packet] = &out.packets[..] else { panic!("{name}: {} packets", out.packets.len()) };
        assert_eq!(packet.flow, app(), "{name}");
        let (sent, mut came) = (untouchable(out.packet(packet), 1), untouchable(whole, 0));
        if name == "mpart01" {
            // Its Route is a strict router: that changes place with the Request-URI (RFC 3261 §16.6 item 6).
            let [uri, route] = [&b"sip:kumiko@example.org "[..], b"<sip:127.0.0.1:5080>"];
            came = replace(&came, route, b"<sip:kumiko@example.org>");
            came = replace(&came, uri, b"sip:127.0.0.1:5080 ");
            // Its top Via asks for rport.
            came = replace(&came, b";rport\r\n", b";rport=5062\r\n");
        }
        assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&came), "{name}");
        assert_eq!(sent, came, "{name}");
        passed += 1;
    }
    assert_eq!(passed, 49 - ANSWERED.len() - 5);
}

/// `text` with the first `from` replaced.
fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = text.windows(from.len()).position(|window| window == from).expect("it is there");
    [&text[..at], to, &text[at + from.len()..]].concat()
}

#[test]
fn no_cut_of_any_message_panics() {
    for (_, bytes) in files() {
        for end in (0..bytes.len()).step_by(7) {
            let enforce = Policy { mode: Mode::Enforce, ..Policy::observe() };
            let (outcome, out) = pass(enforce, &bytes[..end]);
            assert!(outcome.is_some() || out.packets.is_empty());
        }
    }
}
