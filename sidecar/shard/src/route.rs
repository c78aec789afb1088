//! The way of a request: what its Route and Request-URI say once our own part is taken out (RFC 3261 §16.4, §16.6).

use sipwarden_session_timer::Leg;
use sipwarden_sip::value::{NameAddr, Uri};
use sipwarden_sip::{Edits, HeaderName, Message, Method, StartLine};

use super::sockets::Sockets;

/// Where a request wants to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'b> {
    /// The Request-URI, after a strict router's change to it is taken back.
    pub(super) request_uri: &'b [u8],
    /// The URI of the first Route behind our own.
    pub(super) route: Option<Uri<'b>>,
    /// Inside a dialog, on the way our Record-Route made, as far as one message tells.
    pub(super) in_dialog: bool,
    route_text: &'b [u8],
    /// A strict router put the Request-URI at the end of Route (§16.4).
    from_strict_router: bool,
    /// How many Routes at the front are ours.
    own: usize,
}

impl<'b> Way<'b> {
    /// Of a request that came from `leg`, `tagged` with a To tag or not. `None`: its first foreign Route is no URI.
    pub(super) fn of(message: &Message<'b>, tagged: bool, leg: Leg, sockets: &Sockets) -> Option<Way<'b>> {
        let received_uri = message.request_uri()?;
        if message.first(HeaderName::Route).is_none() {
            return Some(Way::without_route(message, tagged, received_uri));
        }
        let is_record_route = |uri: &Uri| uri.param("lr").is_some() && sockets.are_named(uri);
        let last = Uri::parse(received_uri).ok().filter(is_record_route).and_then(|_| {
            let (_, last) = message.elements(HeaderName::Route).last()?;
            NameAddr::parse(last).ok()
        });
        let from_strict_router = last.is_some();
        let request_uri = last.map_or(received_uri, |last| last.uri);

        let mut routes = routes(message, from_strict_router).peekable();
        // Ours stand in pairs, the side the request comes from first; more of ours behind them are for a later visit.
        let mut seen = usize::from(from_strict_router);
        while let Some(Some(uri)) = routes.peek().map(|(_, uri)| *uri)
            && (seen == 0 && sockets.are_named(&uri) || seen == 1 && sockets.are_named_on(leg.other(), &uri))
        {
            seen += 1;
            routes.next();
        }
        let next = routes.next();
        if next.is_some_and(|(_, uri)| uri.is_none()) {
            return None;
        }
        // The ACK to a failure has a To tag although its INVITE, whose way it must go, may have had none; it does not
        // have both our Routes then.
        let on_record_route = seen == 2;
        let in_dialog = tagged && (message.method() != Some(Method::Ack) || on_record_route);
        Some(Way {
            request_uri,
            route: next.and_then(|(_, uri)| uri),
            in_dialog,
            route_text: next.map_or(b"", |(text, _)| text),
            from_strict_router,
            own: seen - usize::from(from_strict_router),
        })
    }

    /// Most requests outside dialogs.
    fn without_route(message: &Message, tagged: bool, request_uri: &'b [u8]) -> Way<'b> {
        let in_dialog = tagged && message.method() != Some(Method::Ack);
        Way { request_uri, route: None, in_dialog, route_text: b"", from_strict_router: false, own: 0 }
    }

    /// Where it goes next: the first Route, or else the Request-URI.
    pub(super) fn next(&self) -> Option<Uri<'b>> {
        self.route.or_else(|| Uri::parse(self.request_uri).ok())
    }

    /// Take our Routes out, and speak to strict routers as they expect.
    pub(super) fn edit(&self, message: &Message, edits: &mut Edits) {
        let to_strict_router = self.route.is_some_and(|uri| uri.param("lr").is_none());
        if self.from_strict_router || to_strict_router {
            self.rewrite(message, to_strict_router, edits);
        } else if self.own > 0 {
            edits.remove_first_elements(message, HeaderName::Route, self.own);
        }
    }

    /// A strict router ahead wants itself in the Request-URI and that at the end of Route (§16.6 item 6).
    fn rewrite(&self, message: &Message, to_strict_router: bool, edits: &mut Edits) {
        let StartLine::Request { uri, .. } = message.start_line() else { return };
        let request_uri = if to_strict_router { self.route_text } else { self.request_uri };
        edits.replace(uri.clone(), &[request_uri]);

        let lines = message.all(HeaderName::Route);
        lines.for_each(|line| edits.remove(line.line_start..line.line_end));
        let Some(at) = message.first(HeaderName::Route).map(|line| line.line_start) else { return };
        let count = message.elements(HeaderName::Route).count() - usize::from(self.from_strict_router);
        let kept = message.elements(HeaderName::Route).take(count).skip(self.own + usize::from(to_strict_router));
        kept.for_each(|(_, route)| edits.insert(at, &[b"Route: ", route, b"\r\n"]));
        if to_strict_router {
            edits.insert(at, &[b"Route: <", self.request_uri, b">\r\n"]);
        }
    }
}

/// The Routes with their URIs, `None` where that is malformed.
fn routes<'m, 'b: 'm>(
    message: &'m Message<'b>,
    without_last: bool,
) -> impl Iterator<Item = (&'b [u8], Option<Uri<'b>>)> + 'm {
    let count = if without_last { message.elements(HeaderName::Route).count() - 1 } else { usize::MAX };
    message.elements(HeaderName::Route).take(count).map(|(_, element)| match NameAddr::parse(element) {
        Ok(address) => (address.uri, address.parse_uri().ok()),
        Err(_) => (element, None),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{config, message};
    use super::*;

    const OURS: &str = "<sip:192.0.2.1:5060;lr>";
    const OURS_LOCAL: &str = "<sip:127.0.0.1:5070;lr>";

    fn request(method: &str, uri: &str, routes: &str) -> Message<'static> {
        message(&format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\n{routes}From: <sip:a@b>;tag=f\n\
             To: <sip:b@b>;tag=t\nCall-ID: c\nCSeq: 1 {method}\n\n"
        ))
    }

    /// How a request leaves that came from the remote side: Request-URI, Route lines, next hop.
    fn passes(uri: &str, routes: &str) -> (String, String, String) {
        let message = request("BYE", uri, routes);
        let sockets = Sockets::new(&config());
        let way = Way::of(&message, true, Leg::Remote, &sockets).unwrap();
        let mut edits = Edits::new();
        way.edit(&message, &mut edits);
        let mut out = Vec::new();
        edits.render(&message, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (start_line, rest) = text.split_once(" SIP/2.0\r\n").unwrap();
        let routes = rest.split("\r\n").filter(|line| line.starts_with("Route") || line.starts_with("route"));
        let hop = String::from_utf8(way.next().unwrap().host.to_vec()).unwrap();
        (start_line.replace("BYE ", ""), routes.collect::<Vec<_>>().join("|"), hop)
    }

    fn expect(uri: &str, routes: &str, left_uri: &str, left_routes: &str, hop: &str) {
        assert_eq!(passes(uri, routes), (left_uri.into(), left_routes.into(), hop.into()), "{routes}");
    }

    const TARGET: &str = "sip:bob@203.0.113.5";

    #[test]
    fn our_routes_are_taken_out_alone_or_in_pairs() {
        expect(TARGET, "", TARGET, "", "203.0.113.5");
        expect(TARGET, &format!("Route: {OURS}\n"), TARGET, "", "203.0.113.5");
        expect(TARGET, &format!("Route: {OURS}\nRoute: {OURS_LOCAL}\n"), TARGET, "", "203.0.113.5");
        expect(TARGET, &format!("Route: {OURS} , {OURS_LOCAL}\n"), TARGET, "", "203.0.113.5");
        expect(TARGET, "Route: <sip:192.0.2.1;lr>\n", TARGET, "", "203.0.113.5");
    }

    #[test]
    fn the_routes_of_others_stay_as_they_are_written() {
        let routes = format!("Route: {OURS}, {OURS_LOCAL}, <sip:p1.example.com;lr>;x=1 ,\n  <sip:p2.example.com;lr>\n");
        let left = passes(TARGET, &routes);
        assert_eq!(left.1, "Route: <sip:p1.example.com;lr>;x=1 ,");
        assert_eq!(left.2, "p1.example.com");
        let two_lines = format!("route: {OURS}\nRoute: <sip:p1.example.com;lr>\n");
        expect(TARGET, &two_lines, TARGET, "Route: <sip:p1.example.com;lr>", "p1.example.com");
    }

    #[test]
    fn a_third_route_of_ours_is_for_a_later_visit() {
        let routes = format!("Route: {OURS}, {OURS_LOCAL}, {OURS_LOCAL}, {OURS}, <sip:p.example.com;lr>\n");
        let left = format!("Route: {OURS_LOCAL}, {OURS}, <sip:p.example.com;lr>");
        expect(TARGET, &routes, TARGET, &left, "127.0.0.1");
        let routes = format!("Route: {OURS}, {OURS}\n");
        expect(TARGET, &routes, TARGET, &format!("Route: {OURS}"), "192.0.2.1");
    }

    #[test]
    fn a_user_at_our_address_is_not_us() {
        let routes = "Route: <sip:bob@192.0.2.1;lr>\n";
        expect(TARGET, routes, TARGET, "Route: <sip:bob@192.0.2.1;lr>", "192.0.2.1");
    }

    #[test]
    fn what_a_strict_router_did_is_taken_back() {
        let routes = format!("Route: {OURS_LOCAL}, <sip:p.example.com;lr>\nRoute: <sip:bob@pc.example.com>\n");
        expect(
            "sip:192.0.2.1:5060;lr",
            &routes,
            "sip:bob@pc.example.com",
            "Route: <sip:p.example.com;lr>",
            "p.example.com",
        );
    }

    #[test]
    fn a_request_to_ourselves_without_route_is_no_strict_routers_work() {
        expect("sip:192.0.2.1;lr", "", "sip:192.0.2.1;lr", "", "192.0.2.1");
        let routes = "Route: <sip:p.example.com;lr>\n";
        expect("sip:192.0.2.1", routes, "sip:192.0.2.1", routes.trim(), "p.example.com");
    }

    #[test]
    fn a_strict_router_ahead_gets_itself_as_request_uri() {
        let routes = format!("Route: {OURS}, <sip:strict.example.com;x>\nRoute: <sip:p.example.com;lr>\n");
        let left = format!("Route: <sip:p.example.com;lr>|Route: <{TARGET}>");
        expect(TARGET, &routes, "sip:strict.example.com;x", &left, "strict.example.com");
    }

    #[test]
    fn a_malformed_next_route_is_nowhere() {
        let sockets = Sockets::new(&config());
        for routes in ["Route: <sip:a b;lr>\n".to_owned(), format!("Route: {OURS}, <sip:\n")] {
            assert!(Way::of(&request("BYE", TARGET, &routes), true, Leg::Remote, &sockets).is_none(), "{routes}");
        }
    }

    #[test]
    fn the_ack_to_a_failure_is_not_taken_for_one_in_a_dialog() {
        let sockets = Sockets::new(&config());
        let in_dialog = |method: &str, routes: &str| {
            Way::of(&request(method, TARGET, routes), true, Leg::Remote, &sockets).unwrap().in_dialog
        };
        assert!(in_dialog("BYE", ""));
        assert!(!in_dialog("ACK", ""));
        assert!(!in_dialog("ACK", &format!("Route: {OURS}\n")), "a pre-loaded Route");
        assert!(in_dialog("ACK", &format!("Route: {OURS}, {OURS_LOCAL}\n")));
    }
}
