//! Dialogs stay on our way: what the endpoints make of our Record-Route comes back through us.

use super::super::fixture::REMOTE_TCP;
use super::*;

/// Route lines from the Record-Route of a request, as its UAS uses them; reversed for the UAC.
fn route_set(invite: &Message, reversed: bool) -> String {
    let mut routes = elements(invite, HeaderName::RecordRoute);
    if reversed {
        routes.reverse();
    }
    format!("Route: {}\n", routes.join(", "))
}

#[test]
fn requests_in_a_dialog_go_from_end_to_end_without_a_route_left() {
    let mut bench = Bench::new();
    let (_, invite) = bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", ""));
    let (to, bye) = bench.forward(phone(), &in_dialog("BYE", "sip:bob@127.0.0.1:5080", &route_set(&invite, true)));
    assert_eq!((to, bye.count(HeaderName::Route)), (app(), 0));
    let bye = in_dialog("BYE", "sip:alice@198.51.100.7:5062", &route_set(&invite, false));
    let (to, bye) = bench.forward(app(), &bye);
    assert_eq!((to, bye.count(HeaderName::Route)), (phone(), 0));
}

#[test]
fn the_route_set_of_a_proxy_beyond_us_is_followed() {
    let mut bench = Bench::new();
    let earlier = "Record-Route: <sip:203.0.113.9:5099;lr>\n";
    let (_, invite) = bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", earlier));
    let bye = in_dialog("BYE", "sip:alice@198.51.100.7:5062", &route_set(&invite, false));
    let (to, bye) = bench.forward(app(), &bye);
    assert_eq!(to, flow(REMOTE_UDP, "203.0.113.9:5099"));
    assert_eq!(elements(&bye, HeaderName::Route), ["<sip:203.0.113.9:5099;lr>"]);
}

/// Phone calls, the application answers.
fn call(bench: &mut Bench, from: Flow) -> Message<'static> {
    let contact = "Contact: <sip:alice@198.51.100.7:5062>\nSupported: timer\nSession-Expires: 1800\n";
    let (_, invite) = bench.forward(from, &request("INVITE", "sip:bob@192.0.2.1", contact));
    let ok = response_text(&invite, "200 OK")
        .replace("<sip:bob@example.com>\n", "<sip:bob@example.com>;tag=t1\n")
        .replace("Content", "Contact: <sip:bob@127.0.0.1:5080>\nSession-Expires: 1800;refresher=uas\nContent");
    bench.forward(app(), &message(&ok));
    invite
}

/// A request of the application in that call, back to the phone.
fn back(invite: &Message, uri: &str) -> Message<'static> {
    let text = request_text("BYE", uri, &route_set(invite, false))
        .replace("From: \"A\" <sip:alice@example.com>;tag=f1", "From: <sip:bob@example.com>;tag=t1")
        .replace("To: <sip:bob@example.com>\n", "To: \"A\" <sip:alice@example.com>;tag=f1\n");
    message(&text)
}

#[test]
fn a_request_back_uses_the_connection_the_other_side_was_heard_on() {
    let mut bench = Bench::new();
    let stream = Flow { connection: 5, ..flow(REMOTE_TCP, "198.51.100.7:40001") };
    let invite = call(&mut bench, stream);
    let (to, _) = bench.forward(app(), &back(&invite, "sip:alice@198.51.100.7:5062;transport=tcp"));
    let made_to = flow(REMOTE_TCP, "198.51.100.7:5062").peer;
    assert_eq!(to, Flow { peer: made_to, ..stream }, "should it be gone, nobody listens where it came from");
}

#[test]
fn a_connection_is_not_used_for_another_address_or_transport() {
    for (uri, to) in [
        ("sip:alice@198.51.100.8;transport=tcp", flow(REMOTE_TCP, "198.51.100.8:5060")),
        ("sip:alice@198.51.100.7", flow(REMOTE_UDP, "198.51.100.7:5060")),
    ] {
        let mut bench = Bench::new();
        let invite = call(&mut bench, Flow { connection: 5, ..flow(REMOTE_TCP, "198.51.100.7:40001") });
        assert_eq!(bench.forward(app(), &back(&invite, uri)).0, to, "{uri}");
    }
}

#[test]
fn datagrams_go_to_the_port_of_the_contact_not_to_the_one_they_come_from() {
    let mut bench = Bench::new();
    let invite = call(&mut bench, flow(REMOTE_UDP, "198.51.100.7:31000"));
    let (to, _) = bench.forward(app(), &back(&invite, "sip:alice@198.51.100.7:5062"));
    assert_eq!(to, phone());
}
