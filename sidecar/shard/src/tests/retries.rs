//! A 422 to an application without timers is answered by us: on the wire two transactions, to the application one.

use sipwarden_session_timer::Mode;

use super::*;

fn enforcing() -> Bench {
    let policy = Policy { mode: Mode::Enforce, ..Policy::observe() };
    Bench { shard: Shard::new(Arc::new(config()), Arc::new(policy), 0), now: Time::ZERO, out: Outbox::default() }
}

fn callee() -> Flow {
    flow(REMOTE_UDP, "198.51.100.9:5062")
}

/// The INVITE of the application to the callee.
fn invite() -> Message<'static> {
    let text = request_text("INVITE", "sip:bob@198.51.100.9:5062", "Contact: <sip:pbx@127.0.0.1:5080>\n");
    message(&text.replace(PHONE, APP))
}

fn of_invite(method: &str) -> Message<'static> {
    let text = String::from_utf8(invite().bytes().to_vec()).unwrap().replace("\r\n", "\n");
    let tagged = if method == "ACK" { "<sip:bob@example.com>;tag=t1\n" } else { "<sip:bob@example.com>\n" };
    message(&text.replace("INVITE", method).replace("<sip:bob@example.com>\n", tagged))
}

impl Bench {
    /// All that was sent last: where it went and as what.
    fn packets(&self) -> Vec<(Flow, Message<'static>)> {
        self.out.packets.iter().map(|packet| (packet.flow, parse(self.out.packet(packet)))).collect()
    }

    fn sent(&mut self, from: Flow, message: &Message) -> Vec<(Flow, Message<'static>)> {
        self.send(from, message);
        self.packets()
    }
}

fn branch(message: &Message) -> Vec<u8> {
    message.top_via().unwrap().branch.unwrap().to_vec()
}

fn rejection(request: &Message) -> Message<'static> {
    let text = response_text(request, "422 Session Interval Too Small");
    let tagged = text.replace("<sip:bob@example.com>\n", "<sip:bob@example.com>;tag=t1\n");
    message(&tagged.replace("Content-Length", "Min-SE: 2400\nContent-Length"))
}

#[test]
fn the_ack_belongs_to_the_refused_try_and_the_next_is_another_transaction() {
    let mut bench = enforcing();
    let (to, first) = bench.sent(app(), &invite()).remove(0);
    assert_eq!(to, callee());
    let sent = bench.sent(callee(), &rejection(&first));
    let [(ack_to, ack), (again_to, again)] = sent.as_slice() else { panic!("{} packets", sent.len()) };
    assert_eq!((*ack_to, *again_to), (callee(), callee()));
    assert_eq!((ack.cseq().unwrap().number, again.cseq().unwrap().number), (1, 2));
    assert_eq!(branch(ack), branch(&first));
    assert_ne!(branch(again), branch(&first));
    assert_eq!(elements(again, HeaderName::RecordRoute), elements(&first, HeaderName::RecordRoute));
    assert_eq!(elements(again, HeaderName::Via).len(), 2);
}

#[test]
fn what_the_app_sends_of_its_invite_afterwards_belongs_to_the_newest_try() {
    let mut bench = enforcing();
    let (_, first) = bench.sent(app(), &invite()).remove(0);
    let (_, again) = bench.sent(callee(), &rejection(&first)).remove(1);
    for method in ["INVITE", "CANCEL", "ACK"] {
        let (to, left) = bench.sent(app(), &of_invite(method)).remove(0);
        assert_eq!((to, branch(&left), left.cseq().unwrap().number), (callee(), branch(&again), 2), "{method}");
    }
    let (to, ringing) = bench.sent(callee(), &response(&again, "180 Ringing")).remove(0);
    assert_eq!((to, ringing.cseq().unwrap().number, branch(&ringing)), (app(), 1, b"z9hG4bKa1".to_vec()));
}
