//! Test calls of `call`, through a real sidecar, to applications of several manners.

use std::net::SocketAddr;

use clap::{Args, Command, FromArgMatches};
use sipwarden_sidecar::answer::Answerer;
use sipwarden_sidecar::call::{CallArgs, Report, Side, Timer, Verdict, place};

use crate::policy_file;
use crate::process_harness::{Options, Sidecar, header};

const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: carrier}
spec: {mode: Enforce, timers: {sessionExpires: 10m, minSE: 2m, actForApp: Never}}
";
const ALLOW_UPDATE: &str = "Allow: INVITE, ACK, BYE, UPDATE\r\n";

fn arguments(target: String, more: &[&str]) -> CallArgs {
    let words = [vec!["call", &target], more.to_vec()].concat();
    let matches = CallArgs::augment_args(Command::new("call")).try_get_matches_from(words).expect("valid arguments");
    CallArgs::from_arg_matches(&matches).expect("arguments")
}

/// The call, while the application answers each request as `manners` say: nothing, or a status with header lines.
async fn call(
    sidecar: &Sidecar,
    args: CallArgs,
    manners: impl Fn(&str, &str) -> Option<(&'static str, &'static str)>,
) -> Report {
    let contact = format!("Contact: <sip:bob@{}>\r\n", sidecar.app.local_addr().expect("an address"));
    let serve = async {
        loop {
            let request = sidecar.app_gets().await;
            let method = request.split(' ').next().unwrap_or_default();
            if let Some((status, lines)) = manners(method, &request) {
                sidecar.app_answers(&request, status, &format!("{contact}{lines}")).await;
            }
        }
    };
    tokio::select! {
        report = place(&args) => report,
        () = serve => unreachable!("serves for ever"),
    }
}

async fn enforcing() -> (tempfile::TempDir, Sidecar) {
    let (directory, path) = policy_file(POLICY);
    (directory, Sidecar::start(Options { policy: Some(path), ..Options::default() }).await)
}

fn obliging(method: &str, _: &str) -> Option<(&'static str, &'static str)> {
    (method != "ACK").then_some(("200 OK", ""))
}

fn steps(report: &Report) -> Vec<(&str, Option<u16>)> {
    report.steps.iter().map(|step| (step.request, step.status)).collect()
}

#[tokio::test]
async fn an_enforcing_sidecar_gives_the_call_a_timer_over_udp_and_tcp() {
    let (_directory, sidecar) = enforcing().await;
    for (transport, peer) in [("udp", sidecar.udp), ("tcp", sidecar.tcp)] {
        let report = call(&sidecar, arguments(format!("{transport}:{peer}"), &["--hold", "0s"]), obliging).await;
        let sequence = [("INVITE", Some(422)), ("INVITE", Some(200)), ("INVITE", Some(200)), ("BYE", Some(200))];
        assert_eq!(steps(&report), sequence, "{report}");
        assert_eq!(report.steps[0].min_se, Some(120));
        assert_eq!(report.verdict, Verdict::Passed, "{report}");
        assert_eq!(report.timer, Some(Timer { interval_s: 120, refresher: Side::Caller }));
        assert_eq!(report.address, Some(format!("{transport}:{peer}")));
    }
    let sessions = sidecar.get("/sessions").await.1;
    assert!(sessions.contains(r#""total":2,"active":0"#), "no call is left behind: {sessions}");
    sidecar.stop().await;
}

#[tokio::test]
async fn an_application_that_allows_update_is_refreshed_by_it() {
    let (_directory, sidecar) = enforcing().await;
    let target = || format!("udp:{}", sidecar.udp);
    let manners = |method: &str, _: &str| (method != "ACK").then_some(("200 OK", ALLOW_UPDATE));
    let report = call(&sidecar, arguments(target(), &["--session-expires", "5m", "--hold", "0s"]), manners).await;
    assert_eq!(steps(&report), [("INVITE", Some(200)), ("UPDATE", Some(200)), ("BYE", Some(200))], "{report}");
    assert_eq!(report.steps[1].session_expires.as_deref(), Some("300;refresher=uac"));
    // What it allows, it may still refuse.
    let refusing = |method: &str, _: &str| match method {
        "UPDATE" => Some(("501 Not Implemented", "")),
        _ => manners(method, ""),
    };
    let report = call(&sidecar, arguments(target(), &["--session-expires", "5m", "--hold", "0s"]), refusing).await;
    let by_invite = [("INVITE", Some(200)), ("UPDATE", Some(501)), ("INVITE", Some(200)), ("BYE", Some(200))];
    assert_eq!((steps(&report), report.verdict), (by_invite.to_vec(), Verdict::Passed), "{report}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_call_that_nobody_keeps_a_timer_for_is_told() {
    let sidecar = Sidecar::start(Options::default()).await;
    let report = call(&sidecar, arguments(format!("udp:{}", sidecar.udp), &["--hold", "0s"]), obliging).await;
    assert_eq!((report.verdict, report.timer), (Verdict::NoTimer, None), "{report}");
    assert!(report.text.contains("Enforce"), "{}", report.text);
    assert_eq!(steps(&report).last(), Some(&("BYE", Some(200))));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_refusal_is_told_and_acknowledged() {
    let (_directory, sidecar) = enforcing().await;
    let args = arguments(format!("udp:{}", sidecar.udp), &["--session-expires", "5m", "--hold", "0s"]);
    let acknowledged = std::cell::Cell::new(false);
    let refusing = |method: &str, request: &str| match method {
        "INVITE" => Some(("404 Not Found", "")),
        _ => {
            acknowledged.set(method == "ACK" && header(request, "To").is_some_and(|to| to.contains(";tag=b")));
            None
        }
    };
    let report = call(&sidecar, args, refusing).await;
    assert_eq!(report.verdict, Verdict::Failed);
    assert!(report.text.contains("404 Not Found") && report.text.contains("--uri"), "{}", report.text);
    if !acknowledged.get() {
        assert!(sidecar.app_gets().await.starts_with("ACK "));
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_call_that_only_rings_is_taken_back() {
    let (_directory, sidecar) = enforcing().await;
    let args = arguments(format!("udp:{}", sidecar.udp), &["--session-expires", "5m", "--timeout", "1s"]);
    let cancelled = std::cell::Cell::new(false);
    let ringing = |method: &str, _: &str| match method {
        "INVITE" if cancelled.get() => None,
        "INVITE" => Some(("180 Ringing", "")),
        "CANCEL" => {
            cancelled.set(true);
            Some(("200 OK", ""))
        }
        _ => None,
    };
    let report = call(&sidecar, args, ringing).await;
    assert!(cancelled.get(), "{report}");
    assert!(report.text.contains("did not answer within 1 s"), "{}", report.text);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_callee_that_hangs_up_meanwhile_is_answered_and_told() {
    let (_directory, sidecar) = enforcing().await;
    let args = arguments(format!("udp:{}", sidecar.udp), &["--session-expires", "5m", "--hold", "1m"]);
    let serve = async {
        let invite = sidecar.app_gets().await;
        let app = sidecar.app.local_addr().expect("an address");
        sidecar.app_answers(&invite, "200 OK", &format!("Contact: <sip:bob@{app}>\r\n")).await;
        let ack = sidecar.app_gets().await;
        assert!(ack.starts_with("ACK "), "{ack}");
        let copied = |name: &str| header(&invite, name).expect("in every INVITE").to_owned();
        let target = copied("Contact");
        let bye = format!(
            "BYE {} SIP/2.0\r\nVia: SIP/2.0/UDP {app};branch=z9hG4bKbye\r\nMax-Forwards: 70\r\nRoute: {}\r\n\
             From: {};tag=b\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nReason: Q.850;cause=16\r\nContent-Length: 0\r\n\r\n",
            target.trim_start_matches('<').trim_end_matches('>'),
            copied("Record-Route"),
            copied("To"),
            copied("From"),
            copied("Call-ID"),
        );
        sidecar.app.send_to(bye.as_bytes(), sidecar.app_side).await.expect("sent");
        let answer = sidecar.app_gets().await;
        assert!(answer.starts_with("SIP/2.0 200 OK"), "{answer}");
    };
    let (report, ()) = tokio::join!(place(&args), serve);
    assert_eq!(report.verdict, Verdict::Failed);
    assert!(report.text.contains("BYE (Q.850;cause=16)"), "{}", report.text);
    sidecar.stop().await;
}

#[tokio::test]
async fn who_is_not_there_is_waited_for() {
    let (_directory, sidecar) = enforcing().await;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let report = place(&arguments(format!("tcp:{nowhere}"), &[])).await;
    assert!(report.text.contains("cannot connect to tcp:127.0.0.1:9"), "{}", report.text);
    let args =
        arguments(format!("udp:{}", sidecar.udp), &["--session-expires", "5m", "--timeout", "1s", "--wait", "1m"]);
    let first = std::sync::OnceLock::new();
    let deaf_at_first = |method: &str, request: &str| {
        let call = header(request, "Call-ID").expect("a Call-ID");
        let is_first = first.get_or_init(|| call.to_owned()) == call;
        if is_first { None } else { obliging(method, request) }
    };
    let report = call(&sidecar, args, deaf_at_first).await;
    assert_eq!(report.verdict, Verdict::Passed, "{report}");
    sidecar.stop().await;
}

#[tokio::test]
async fn who_answers_test_calls_needs_a_sidecar_for_a_timer() {
    let answerer = Answerer::bind("udp:127.0.0.1:0".parse().expect("an address")).await.expect("bound");
    let alone = arguments(format!("udp:{}", answerer.local().expect("an address")), &["--hold", "0s"]);
    let calls = async {
        let report = place(&alone).await;
        assert_eq!(report.verdict, Verdict::NoTimer, "{report}");
        assert_eq!(steps(&report), [("INVITE", Some(200)), ("INVITE", Some(200)), ("BYE", Some(200))], "{report}");
    };
    tokio::select! {
        served = answerer.serve() => panic!("ended: {served:?}"),
        () = calls => {}
    }
}
