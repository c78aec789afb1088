//! Users who may do exactly what the documentation of a command asks for, and one who may do nothing.

use std::{net::SocketAddr, path::PathBuf};

use kubectl_sipwarden::rights::RIGHTS;
use serde_json::{Value, json};
use sipwarden_cluster::product::least;

use crate::{
    PATIENCE,
    plugin::{plugin_as, start},
    stage::{LEAST_S, Voice, calls, node, voice},
};

/// Somebody with the rights in a namespace that this command cannot do without, as docs/kubectl.md has them.
fn user_of(command: &str, namespace: &str) -> PathBuf {
    let (_, rights) = RIGHTS.iter().find(|(name, _)| *name == command).expect("a command");
    let needed = rights.iter().filter(|right| !right.is_optional);
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    let rules: Vec<Value> = needed.map(|right| rule(right.group, right.resource, right.verbs)).collect();
    node().account(namespace, command, "Role", &rules.into()).expect("an account")
}

fn nobody() -> PathBuf {
    node().account("voice", "nobody", "Role", &json!([])).expect("an account")
}

#[test]
fn every_command_works_with_its_documented_rights_and_says_which_are_missing_without() {
    let Voice { site, held, .. } = voice();
    let folder = tempfile::tempdir().unwrap();
    let same = folder.path().join("same.yaml");
    std::fs::write(&same, site.policy_text("carrier", &least(LEAST_S))).unwrap();
    let nobody = nobody();
    for (command, _) in RIGHTS {
        let namespace = if command == "call-test" { calls().namespace } else { site.namespace };
        let (arguments, with, without) = match command {
            // No cluster is asked, or it goes on until it is stopped.
            "lint" | "dashboard" => continue,
            "explain" => (held[0].id().to_owned(), 0, 3),
            "tap" => ("--last 1 --count 1".to_owned(), 0, 3),
            "top" => ("--count 1".to_owned(), 0, 3),
            "diff" => (same.display().to_string(), 0, 3),
            "call-test" => ("app --yes".to_owned(), 0, 3),
            // What may not be seen is not known, which is no failure.
            "check" => (String::new(), 0, 0),
            "report" => (format!("--file {}", folder.path().join("some.tar.gz").display()), 4, 4),
            _ => (String::new(), 0, 3),
        };
        let told = plugin_as(&user_of(command, namespace), &format!("{command} {arguments} -n {namespace}"));
        assert_eq!(told.code, with, "{command}: {told:?}");
        let arguments = arguments.replace("some.tar.gz", "none.tar.gz");
        let told = plugin_as(&nobody, &format!("{command} {arguments} -n {namespace}"));
        assert_eq!(told.code, without, "{command}: {told:?}");
        let who = r#"is forbidden: User "system:serviceaccount:voice:nobody" cannot "#;
        assert!(told.out.contains(who) || told.err.contains(who), "{command}: {told:?}");
    }
}

/// Where the page is, and the path that only its user knows.
fn address(text: &str) -> Option<(SocketAddr, String)> {
    let (_, rest) = text.split_once("http://")?;
    let (url, _) = rest.split_once('\n')?;
    let (address, secret) = url.split_once('/')?;
    Some((address.parse().ok()?, format!("/{secret}")))
}

#[test]
fn the_dashboard_serves_the_page_and_its_data_with_the_documented_rights() {
    let Voice { held, .. } = voice();
    let dashboard = start("dashboard -n voice", Some(&user_of("dashboard", "voice")));
    let (address, secret) = dashboard.until("its address", PATIENCE, address);
    let get = |path: &str| node().get_text(address, &format!("{secret}{path}")).unwrap();
    let ask = |path: &str| node().get_json(address, &format!("{secret}{path}")).unwrap();

    assert!(dashboard.out().starts_with("2 sidecars in namespace voice: "), "{}", dashboard.out());
    assert!(get("").contains("page.js") && get("page.js").contains("sessions"));
    let page = ask("sessions?state=Active");
    assert_eq!((&page["total"], &page["active"]), (&json!(3), &json!(3)), "{page}");
    let sessions = page["sessions"].as_array().unwrap();
    let shown = |id: &str| sessions.iter().find(|session| session["call_id"] == id).expect("each call is shown");
    for call in held {
        let session = shown(call.id());
        let name = session["id"].as_str().unwrap().replace('/', "%2F");
        assert_eq!(ask(&format!("sessions/{name}"))["call_id"], call.id());
        let messages = ask(&format!("sessions/{name}/messages"));
        assert!(messages["messages"][0]["start"].as_str().unwrap().starts_with("INVITE sip:"), "{messages}");
    }
    let status = ask("status");
    assert_eq!(status["policy"], "carrier (2 sidecars)", "{status}");
    assert_eq!((&status["sessions"], &status["error"]), (&json!(3), &Value::Null), "{status}");
    assert!(!ask("history")["samples"].as_array().unwrap().is_empty());
    assert!(node().get_text(address, "/sessions").is_err(), "without the secret there is nothing");

    let refused = plugin_as(&nobody(), "dashboard -n voice");
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.starts_with("error: cannot list pods in namespace voice: pods is forbidden"), "{refused:?}");
}
