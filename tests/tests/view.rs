//! The session view in a real browser, before real sidecars with real calls: what the page shows is what `/sessions`
//! says, and people can find, read and end a session by keyboard and mouse, in light and dark.

mod view_browser;
mod view_phones;

use std::net::SocketAddr;

use serde_json::Value;
use sipwarden_tests::ports::LOOPBACK;
use sipwarden_tests::sidecar::{Setup, Sidecar};
use sipwarden_tests::sipp::{Sipp, callee, caller};

use crate::view_browser::{Browser, DOWN, END, ENTER, ESCAPE, PAGE_DOWN, PAGE_UP, UP, get};
use crate::view_phones::{App, Phone};

const ENFORCE: &str = "mode: Enforce\ntimers: {sessionExpires: 30m, minSE: 90s}";
const TOKEN: &str = "0a1b2c3d";

/// The row of a session as `/sessions` tells it: what must be seen in the table.
const ROWS: &str = "[...document.querySelectorAll('#rows tr')].map((row) => \
                    [row.dataset.id, ...[0, 1, 2, 3, 4, 6].map((cell) => row.cells[cell].textContent)])";

fn open(sidecar: &Sidecar) -> Browser {
    Browser::open(&format!("http://{}/", sidecar.admin_addr()))
}

fn sessions(admin: SocketAddr, query: &str) -> Vec<Value> {
    get(admin, &format!("/sessions?{query}"))["sessions"].as_array().expect("sessions").clone()
}

/// What the table must have for a session, in the order of `ROWS`.
fn row(session: &Value) -> Value {
    let rule = session["rule"].as_str().map(|rule| format!(" / {rule}")).unwrap_or_default();
    let policy = format!("{}{rule}", session["policy"].as_str().unwrap_or_default());
    let refresher = match session["refresher"].as_str() {
        Some("Local") => "the application",
        Some("Remote") => "the remote side",
        _ => "—",
    };
    let [id, state, call_id, direction] = ["id", "state", "call_id", "direction"].map(|field| &session[field]);
    serde_json::json!([id, state, call_id, direction, session["legs"]["remote"]["flow"], policy, refresher])
}

fn sipp_call(sidecar: &Sidecar, scenario: &'static str) -> Sipp {
    caller(scenario, sidecar.udp()).start()
}

/// A sidecar in real time with `calls` calls from each of `phones` phones at 127.0.0.2 and up. Call-IDs are
/// `HOST-NUMBER@phones`.
fn with_calls(phones: u8, calls: u32, setup: impl FnOnce(Setup) -> Setup) -> (Sidecar, App) {
    let app = App::start();
    let sidecar = setup(Setup::new(ENFORCE, app.addr()).real_time()).start();
    for host in 2..2 + phones {
        let phone = Phone::at(host, sidecar.udp());
        for number in 0..calls {
            phone.call("someone", &format!("{host}-{number}@phones"));
        }
    }
    (sidecar, app)
}

#[test]
fn the_table_and_the_time_line_say_what_sessions_says() {
    let (mut app, addr) = callee("uas_answers", LOOPBACK);
    let sidecar = Setup::new(ENFORCE, addr).start();
    let browser = open(&sidecar);
    browser.shows("document.querySelector('#empty').textContent.startsWith('No sessions yet')");
    browser.picture("empty-light");

    let mut remote = sipp_call(&sidecar, "uac_refreshes_update");
    remote.passes();
    app.passes();

    browser.shows("document.querySelector('#rows .state')?.textContent === 'Ended'");
    browser.click("#rows tr");
    browser.shows("document.querySelector('.detail-head p')?.textContent.includes('Ended')");
    let all = sessions(sidecar.admin_addr(), "");
    assert_eq!(browser.value(ROWS), Value::Array(all.iter().map(row).collect()));
    let events = all[0]["events"].as_array().expect("events");
    let told = browser.texts(".line-list .text");
    assert_eq!(told.len(), events.len() + 1, "the INVITE, then each event: {told:#?}");
    assert_eq!(told[0], "INVITE of the remote side. RFC 3261 §13.2, RFC 4028 §7.1");
    for (event, text) in events.iter().zip(&told[1..]) {
        let expected = match event["kind"].as_str().expect("a kind") {
            "Established" => "The call was answered (2xx): session interval 90 s, refreshed by the remote side.",
            "Refreshed" => "Refreshed by the remote side with UPDATE: 90 s more, next by the remote side.",
            "Ended" => "The remote side hung up (BYE).",
            _ => continue,
        };
        assert!(text.starts_with(expected), "{event}: {text}");
    }
    assert_eq!(told.iter().filter(|text| text.starts_with("Refreshed by")).count(), 2, "{told:#?}");
    assert!(!browser.text("document.body.textContent").contains("sip:sipp@"), "users stay hidden");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_running_call_tells_what_comes_next() {
    let (sidecar, _app) = with_calls(0, 0, |setup| setup);
    let phone = Phone::at(2, sidecar.udp());
    phone.call("someone", "running@phones");
    let browser = open(&sidecar);
    browser.shows("document.querySelectorAll('#rows tr').length === 1");
    browser.click("#rows tr");
    browser.shows("document.querySelector('.line-list .coming')");
    let coming = browser.texts(".line-list .coming .text");
    assert_eq!(coming.len(), 2, "{coming:#?}");
    assert!(coming[0].contains("ends the call with BYE to both sides"), "{coming:#?}");
    assert!(coming[1].contains("The session interval of 1800 s ends. RFC 4028 §10"), "{coming:#?}");

    phone.refresh("someone", "running@phones");

    browser
        .shows("document.querySelector('.line-list').textContent.includes('Refreshed by the remote side with UPDATE')");
    browser.shows("document.querySelector('#chart-refreshes .value').textContent === '1'");
    let label = browser.text("document.querySelector('.interval svg').getAttribute('aria-label')");
    assert!(label.contains("of the session interval of 30 min have passed"), "{label}");
    browser.picture("running-light");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_call_that_nobody_refreshes_tells_its_end_and_is_counted() {
    let (mut app, addr) = callee("uas_vanishes", LOOPBACK);
    let sidecar = Setup::new(ENFORCE, addr).start();
    let browser = open(&sidecar);

    let mut remote = sipp_call(&sidecar, "uac_vanishes");
    remote.passes();
    app.passes();

    browser.shows("document.querySelector('#rows')?.textContent.includes('expired')");
    browser.click("#rows tr");
    browser.shows("document.querySelectorAll('.line-list .bad').length >= 3");
    let told = browser.texts(".line-list .text").join("\n");
    assert!(told.contains("No refresh came within the session interval of 90 s"), "{told}");
    assert!(told.contains("BYE sent to the application."), "{told}");
    browser.shows("document.querySelector('#chart-expiries .value')?.textContent === '1'");
    let history = get(sidecar.admin_addr(), "/history");
    let now = history["samples"].as_array().and_then(|samples| samples.last()).expect("a sample");
    assert_eq!((&now["expiries"], &now["active"]), (&1.into(), &0.into()));
    assert_eq!(browser.text("document.querySelector('#chart-active .value').textContent"), "0");
    let label = browser.text("document.querySelector('#chart-expiries svg').getAttribute('aria-label')");
    assert_eq!(label, "Expiries over the last hour: 1, at most 1 in a minute");
    browser.prefer("dark");
    browser.picture("expired-dark");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Each message of the ladder: start line, way, the headers changed with before and after, and the reasons.
const LADDER: &str = "[...document.querySelectorAll('.ladder ol > li')].map((item) => { \
                      const texts = (selector) => [...item.querySelectorAll(selector)].map((found) => found.textContent); \
                      return [item.querySelector('strong').title, item.querySelector('svg').getAttribute('aria-label'), \
                      texts('.changes dt'), texts('.changes dd'), texts('.why li')]; })";

/// What the ladder must have for a message.
fn rung(message: &Value) -> Value {
    let name = |party: &Value| match party.as_str() {
        Some("Local") => "the application",
        Some("Remote") => "the remote side",
        _ => "the sidecar",
    };
    let way = format!("From {} to {}", name(&message["from"]), name(&message["to"]));
    let list = |field: &str| message[field].as_array().expect("a list").clone();
    let value = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let headers: Vec<_> = list("changes").iter().map(|change| change["header"].clone()).collect();
    let changes = list("changes").into_iter();
    let changed: Vec<_> =
        changes.map(|change| format!("{} → {}", value(&change["before"]), value(&change["after"]))).collect();
    let why = list("decisions").into_iter().map(|told| {
        let places: Vec<_> = ["rfc", "field"].iter().filter_map(|field| told[field].as_str()).collect();
        format!("{} {}", told["text"].as_str().expect("a sentence"), places.join(" · "))
    });
    serde_json::json!([message["start"], way, headers, changed, why.collect::<Vec<_>>()])
}

#[test]
fn the_ladder_shows_each_message_with_what_was_changed_in_it_and_why() {
    let (sidecar, _app) = with_calls(0, 0, |setup| setup);
    let phone = Phone::at(2, sidecar.udp());
    phone.call("someone", "ladder@phones");
    phone.refresh("someone", "ladder@phones");
    let browser = open(&sidecar);
    browser.shows("document.querySelectorAll('#rows tr').length === 1");
    browser.press(&[DOWN, ENTER].concat());
    browser.shows("document.querySelectorAll('.ladder ol > li').length >= 4");

    let admin = sidecar.admin_addr();
    let id = sessions(admin, "")[0]["id"].as_str().expect("an id").to_owned();
    let told = get(admin, &format!("/sessions/{id}/messages"))["messages"].as_array().expect("messages").clone();
    assert_eq!(browser.value(LADDER), Value::Array(told.iter().map(rung).collect()));
    let invite = browser.text("document.querySelector('.ladder .changes').textContent");
    assert_eq!(invite, "Session-Expiresnone → 1800");
    let ladder = browser.text("document.querySelector('.ladder').textContent");
    assert!(ladder.contains("answered 200 here"), "the refresh is answered in the application's place: {ladder}");
    assert!(!browser.text("document.body.innerHTML").contains("someone"), "users stay hidden");
    browser.run("document.querySelector('.ladder').scrollIntoView()");
    browser.picture("ladder-light");
    browser.prefer("dark");
    browser.picture("ladder-dark");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn everything_can_be_reached_by_keyboard() {
    let (sidecar, _app) = with_calls(2, 40, |setup| setup);
    let admin = sidecar.admin_addr();
    let browser = open(&sidecar);
    let focused = || browser.text("document.activeElement.dataset.id ?? document.activeElement.id");
    browser.shows("document.querySelectorAll('#rows tr').length === 50");
    let first: Vec<_> = sessions(admin, "limit=50");
    assert_eq!(browser.value(ROWS), Value::Array(first.iter().map(row).collect()));

    browser.press(DOWN);
    assert_eq!(focused(), first[0]["id"]);
    browser.press(&[DOWN, DOWN, UP].concat());
    assert_eq!(focused(), first[1]["id"]);
    browser.press(ENTER);
    browser.shows("document.querySelector('#detail-title')?.textContent !== ''");
    assert_eq!(browser.text("document.querySelector('#detail-title').textContent"), first[1]["call_id"]);
    assert_eq!(focused(), "detail");
    browser.press(ESCAPE);
    assert_eq!(
        (focused(), browser.value("document.querySelector('#detail').hidden")),
        (first[1]["id"].as_str().expect("an id").to_owned(), true.into())
    );

    browser.press(END);
    assert_eq!(focused(), first[49]["id"]);
    browser.press(PAGE_DOWN);
    browser.shows("document.querySelector('#shown').textContent === '51–80 of 80 sessions'");
    assert!(browser.value("document.querySelector('#next').disabled") == true);
    browser.press(PAGE_UP);
    browser.shows("document.querySelector('#shown').textContent === '1–50 of 80 sessions'");

    browser.press("/");
    assert_eq!(focused(), "filter-call-id");
    browser.press("3-1");
    browser.shows("document.querySelector('#shown').textContent === '1–11 of 11 sessions that fit'");
    let fitting = sessions(admin, "call_id=3-1");
    assert_eq!(browser.value(ROWS), Value::Array(fitting.iter().map(row).collect()));
    browser.press(DOWN);
    assert_eq!(focused(), fitting[0]["id"]);
    browser.press("/");
    browser.press(ESCAPE);
    browser.shows("document.querySelector('#shown').textContent === '1–50 of 80 sessions'");
    browser.run("document.querySelector('#filter-peer').focus()");
    browser.press("no such peer");
    browser.shows("document.querySelector('#empty').textContent === 'No session fits these filters.'");
    browser.click("#clear");
    browser.shows("document.querySelectorAll('#rows tr').length === 50");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn only_the_admin_token_offers_to_act_and_an_end_is_asked_twice() {
    let (sidecar, _app) = with_calls(1, 1, |setup| setup.admin_token(TOKEN));
    let admin = sidecar.admin_addr();
    let browser = open(&sidecar);
    let use_token = |token: &str| {
        browser.run("document.querySelector('#token').focus()");
        browser.press(token);
        browser.press(ENTER);
    };
    browser.shows("document.querySelectorAll('#rows tr').length === 1");
    browser.click("#rows tr");
    browser.shows("document.querySelector('.verbs p')?.textContent.startsWith('Read-only')");
    assert_eq!(browser.texts(".verbs button"), [""; 0]);

    use_token("wrong");
    browser.click("#end");
    assert_eq!(browser.text("document.activeElement.id"), "confirm-no");
    browser.click("#confirm-yes");
    browser.shows("document.querySelector('#acted')?.textContent.startsWith('Refused: ')");

    use_token(TOKEN);
    browser.click("#end");
    browser.picture("confirm-light");
    browser.press(ENTER);
    browser.shows("!document.querySelector('#confirm').open");
    assert_eq!(sessions(admin, "state=Active").len(), 1, "kept");
    browser.click("#end");
    browser.click("#confirm-yes");
    browser.shows("document.querySelector('.line-list')?.textContent.includes('ended because somebody asked for it')");
    assert_eq!(sessions(admin, "state=Ended")[0]["ended"], "Requested");
    assert_eq!(browser.texts(".verbs button"), [""; 0], "nothing is left to do");
    let kept = browser.value("JSON.stringify([localStorage, sessionStorage, document.cookie])");
    assert!(!kept.to_string().contains(TOKEN), "{kept}");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("401")), "only the wrong token: {complaints:?}");
}

/// The contrast of two computed colours (WCAG 2.2, 1.4.3), least of all texts that can be seen.
const LEAST_CONTRAST: &str = "(() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (parts(colour)[3] !== 0) return colour;
        }
    };
    const texts = [...document.querySelectorAll('h1, p, td, th, label, kbd, button:enabled, dt, dd, small, span, strong')];
    return Math.min(...texts.filter((text) => text.checkVisibility() && text.textContent.trim()).map((text) => {
        const [one, other] = [light(getComputedStyle(text).color), light(ground(text))];
        return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    }));
})()";

#[test]
fn colours_follow_the_system_and_the_switch_and_can_be_read() {
    let (sidecar, _app) = with_calls(1, 3, |setup| setup);
    let browser = open(&sidecar);
    browser.shows("document.querySelectorAll('#rows tr').length === 3");
    browser.click("#rows tr");
    browser.shows("document.querySelector('.line-list')");
    let ground = || browser.text("getComputedStyle(document.body).backgroundColor");
    let readable = || {
        let least = browser.value(LEAST_CONTRAST).as_f64().expect("a number");
        assert!(least >= 4.5, "a contrast of {least} on {}", ground());
    };
    let light = ground();
    readable();

    browser.prefer("dark");
    let dark = ground();
    assert_ne!(dark, light);
    readable();
    browser.picture("few-dark");

    let switch = |name: &str, colour: &str| {
        browser.click("#theme");
        assert_eq!(browser.text("document.querySelector('#theme').textContent"), format!("Colours: {name}"));
        assert_eq!(ground(), colour, "{name}");
    };
    switch("light", &light);
    switch("dark", &dark);
    switch("system", &dark);
    browser.prefer("light");
    assert_eq!(ground(), light);
    browser.size(420, 900);
    let [wide, seen] =
        ["scrollWidth", "clientWidth"].map(|width| browser.value(&format!("document.documentElement.{width}")));
    assert_eq!(wide, seen, "nothing sticks out of a narrow window");
    browser.picture("narrow-light");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// An hour with a slow wave of sessions, a refresh every ten seconds, rejections in one minute, and an expiry now and then.
const AN_HOUR: &str = "const samples = [...Array(361).keys()].map((index) => ({
    ago_s: (360 - index) * 10,
    active: Math.round(4000 + 2500 * Math.sin(index / 40)),
    refreshes: index * (7 + index % 60),
    rejections: index < 200 ? 0 : Math.min(40, (index - 199) * 8),
    expiries: Math.floor(index / 45),
}));
return import('./charts.js').then((charts) => charts.drawCharts(document.querySelector('#charts'), { samples }));";

#[test]
fn an_hour_is_drawn_to_scale() {
    let (sidecar, _app) = with_calls(1, 3, |setup| setup);
    let browser = open(&sidecar);
    browser.shows("document.querySelector('#chart-active .value')?.textContent === '3'");

    // The page's own asking would draw over it.
    browser.run("window.fetch = () => new Promise(() => {})");
    browser.run(AN_HOUR);

    let labels: Vec<_> = browser
        .value("[...document.querySelectorAll('.plot svg')].map((e) => e.ariaLabel)")
        .as_array()
        .expect("labels")
        .clone();
    assert_eq!(labels[0], "Active sessions over the last hour: 5030 now, at most 6500");
    assert_eq!(labels[2], "Rejections (422) over the last hour: 40, at most 40 in a minute");
    assert_eq!(labels[3], "Expiries over the last hour: 8, at most 1 in a minute");
    let bars = |chart: &str| browser.value(&format!("document.querySelectorAll('#chart-{chart} .bar').length"));
    assert_eq!((bars("refreshes"), bars("rejections"), bars("expiries")), (60.into(), 1.into(), 8.into()));
    assert_eq!(browser.texts("#chart-rejections .bar title"), ["40 26 min ago"]);
    let inside = "[...document.querySelectorAll('.plot svg')].every((drawing) => [...drawing.children].every((shape) => {
        const [box, all] = [shape.getBoundingClientRect(), drawing.getBoundingClientRect()];
        return box.left >= all.left - 1 && box.right <= all.right + 1 && box.top >= all.top - 1 && box.bottom <= all.bottom + 1;
    }))";
    assert_eq!(browser.value(inside), true, "nothing is drawn outside of its chart");
    browser.picture("hour-light");
    browser.prefer("dark");
    browser.picture("hour-dark");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn every_control_and_picture_has_a_name_to_be_read_aloud() {
    let (sidecar, _app) = with_calls(1, 3, |setup| setup.admin_token(TOKEN));
    let browser = open(&sidecar);
    browser.run("document.querySelector('#token').value = 'x'; document.querySelector('#token-form').requestSubmit()");
    browser.shows("document.querySelectorAll('#rows tr').length === 3");
    browser.click("#rows tr");
    browser.shows("document.querySelector('#end')");
    browser.click("#end");

    let named =
        browser.names(&["button", "textbox", "searchbox", "combobox", "grid", "image", "region", "dialog", "alert"]);

    assert_eq!(named.iter().filter(|(_, name)| name.is_empty()).count(), 0, "{named:#?}");
    for expected in [("button", "Keep it"), ("button", "End the call"), ("dialog", "End this call?")] {
        assert!(
            named.iter().any(|(role, name)| (role.as_str(), name.as_str()) == expected),
            "{expected:?}: {named:#?}"
        );
    }
    browser.press(ESCAPE);
    let named = browser.names(&["searchbox", "textbox", "image", "grid"]);
    for expected in [
        ("searchbox", "Call-ID"),
        ("textbox", "Admin token"),
        ("grid", "Sessions"),
        ("image", "Active sessions over the last hour: 3 now, at most 3"),
    ] {
        assert!(
            named.iter().any(|(role, name)| (role.as_str(), name.as_str()) == expected),
            "{expected:?}: {named:#?}"
        );
    }
}

#[test]
fn what_strangers_name_their_calls_is_text_and_never_markup() {
    let (sidecar, _app) = with_calls(0, 0, |setup| setup);
    let hostile = "<img/src=x><script>document.title=1</script>@phones";
    Phone::at(2, sidecar.udp()).call("someone", hostile);
    let browser = open(&sidecar);
    browser.shows("document.querySelectorAll('#rows tr').length === 1");
    browser.click("#rows tr");
    browser.shows("document.querySelector('.line-list')");
    assert_eq!(browser.texts("#rows td:nth-child(2), #detail-title"), [hostile, hostile]);
    assert_eq!(browser.texts("main img, main script"), [""; 0]);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_link_to_a_session_opens_it() {
    let (sidecar, _app) = with_calls(1, 2, |setup| setup);
    let admin = sidecar.admin_addr();
    let second = &sessions(admin, "")[1];
    let id = second["id"].as_str().expect("an id");
    let browser = Browser::open(&format!("http://{admin}/#{id}"));
    browser.shows("document.querySelector('.line-list')");
    assert_eq!(browser.text("document.querySelector('#detail-title').textContent"), second["call_id"]);
    assert_eq!(
        browser.texts("#rows tr[aria-selected=true] td:nth-child(2)"),
        [second["call_id"].as_str().expect("text")]
    );

    let browser = Browser::open(&format!("http://{admin}/#0-999"));
    browser.shows("document.querySelector('#detail')?.textContent.includes('The sidecar does not know this session.')");
    browser.shows("document.querySelectorAll('#rows tr').length === 2");
    browser.press(ESCAPE);
    assert_eq!(browser.value("document.querySelector('#detail').hidden"), true);
}

#[test]
fn what_observe_would_have_done_is_told_as_not_done() {
    let app = App::start();
    let sidecar = Setup::new("mode: Observe", app.addr()).real_time().start();
    Phone::at(2, sidecar.udp()).call("someone", "observed@phones");
    let browser = open(&sidecar);
    browser.shows("document.querySelectorAll('#rows tr').length === 1");
    browser.click("#rows tr");
    browser.shows("document.querySelector('.line-list')");
    let told = browser.texts(".line-list .text");
    let inserted = "Observed only, not done: Session-Expires: 1800 was put into a request of the remote side";
    assert!(told.iter().any(|text| text.starts_with(inserted)), "{told:#?}");
    assert!(!told.iter().any(|text| text.contains("The sidecar ends the call")), "{told:#?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn when_the_sidecar_is_gone_the_page_says_so_and_keeps_what_it_showed() {
    let (sidecar, _app) = with_calls(1, 3, |setup| setup);
    let browser = open(&sidecar);
    browser.shows("document.querySelectorAll('#rows tr').length === 3");
    let shown = browser.value(ROWS);

    browser.offline(true);
    browser.shows("!document.querySelector('#lost').hidden");
    browser.offline(false);
    browser.shows("document.querySelector('#lost').hidden");

    sidecar.stop();

    browser.shows("!document.querySelector('#lost').hidden");
    let said = browser.text("document.querySelector('#lost').textContent");
    assert!(
        said.starts_with("The sidecar has not answered since ") && said.contains("What is shown is from before"),
        "{said}"
    );
    assert_eq!(browser.value(ROWS), shown);
    browser.picture("lost-light");
}

#[test]
fn thousands_of_sessions_are_paged_and_filtered_by_the_sidecar() {
    let (sidecar, _app) = with_calls(4, 300, |setup| setup);
    let admin = sidecar.admin_addr();
    let browser = open(&sidecar);
    browser.shows("document.querySelector('#shown').textContent === '1–50 of 1\\u202f200 sessions'");
    assert_eq!(get(admin, "/sessions")["total"], 1200);
    browser.picture("many-light");

    browser.run("document.querySelector('#filter-peer').focus()");
    browser.press("127.0.0.4");
    browser.shows("document.querySelector('#shown').textContent === '1–50 of 300 sessions that fit'");
    let fitting = sessions(admin, "peer=127.0.0.4&limit=50");
    assert_eq!(browser.value(ROWS), Value::Array(fitting.iter().map(row).collect()));
    for page in 2..=6 {
        browser.click("#next");
        let last = page * 50;
        browser.shows(&format!(
            "document.querySelector('#shown').textContent === '{}–{last} of 300 sessions that fit'",
            last - 49
        ));
    }
    let last = sessions(admin, "peer=127.0.0.4&limit=50&offset=250");
    assert_eq!(browser.value(ROWS), Value::Array(last.iter().map(row).collect()));
    browser.click("#rows tr:nth-child(4)");
    browser.shows("document.querySelector('.line-list')");
    browser.prefer("dark");
    browser.picture("many-dark");
    browser.run(
        "const s = document.querySelector('#filter-state'); s.value = 'Ended'; s.dispatchEvent(new Event('input'))",
    );
    browser.shows("document.querySelector('#shown').textContent === 'No sessions'");
    assert_eq!(browser.complaints(), [""; 0]);
}
