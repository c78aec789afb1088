//! What of a message no proxy may touch.

use sipwarden_sip::{HeaderName, Message, Slots};

/// A message without its first `vias` Via lines, the Record-Routes and Routes that name us, its Max-Forwards, and what
/// was written into its top Via: what no proxy may touch.
pub(crate) fn untouchable(bytes: &[u8], vias: usize) -> Vec<u8> {
    let mut slots = Slots::new();
    let message = Message::parse(bytes, &mut slots).expect("a message");
    let names_us = |value: &[u8]| [&b"<sip:192.0.2.1:5060;lr>"[..], b"<sip:127.0.0.1:5070;lr>"].contains(&value);
    let mut vias = vias;
    let mut rest = message.bytes().to_vec();
    let owned = message.headers().filter(|line| match line.name {
        HeaderName::Via if vias > 0 => {
            vias -= 1;
            true
        }
        HeaderName::RecordRoute | HeaderName::Route => names_us(line.value),
        name => name == HeaderName::MaxForwards,
    });
    let lines: Vec<_> = owned.map(|line| line.line_start..line.line_end).collect();
    for line in lines.into_iter().rev() {
        rest.drain(line);
    }
    let stamp = b";received=198.51.100.7";
    if let Some(at) = rest.windows(stamp.len()).position(|window| window == stamp) {
        rest.drain(at..at + stamp.len());
    }
    rest
}
