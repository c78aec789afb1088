//! Everything there is to read. What cannot be read is named and keeps nothing else out.

use hyper::Request;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sipwarden_operator::inject::sidecar_of;

use super::redact;
use crate::{
    check,
    cli::{CheckArgs, FormatArgs, ReportArgs},
    connection::Connection,
    outcome::told,
    output::{Format, Screen},
    scope::{self, PodRef},
    sidecar::{AskError, Sidecars},
};

const OURS: &str = "sipwarden.dev/v1alpha1";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const OF_CHART: &str = "?labelSelector=app.kubernetes.io/name%3Dsipwarden";
const OPERATOR: &str = "?labelSelector=app.kubernetes.io/name%3Dsipwarden,app.kubernetes.io/component%3Doperator";
const OPERATOR_HTTP: u16 = 8080;
/// Of each sidecar.
const SESSIONS: &str = "/sessions?limit=200";
const DECISIONS: &str = "/decisions?limit=1000";

/// What of an object is let through; None if nothing is.
type Redact = fn(&Value) -> Option<Value>;

/// Files by name, and what could not be had.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) files: Vec<(String, String)>,
    pub(super) missing: Vec<String>,
}

pub(super) async fn all(connection: &Connection, args: &ReportArgs) -> Gathered {
    let mut gathered = Gathered::default();
    let api = Reader { connection };
    let place = connection.namespace.as_ref().map(|name| format!("/namespaces/{name}")).unwrap_or_default();
    let ours = |kind: &str| format!("/apis/{OURS}{place}/{kind}");
    let only = connection.namespace.as_ref().map(|name| format!("?fieldSelector=metadata.name%3D{name}"));
    let namespaces = format!("/api/v1/namespaces{}", only.unwrap_or_default());
    let lists: [(&str, String, Redact); 9] = [
        ("sessionpolicies", ours("sessionpolicies"), |object| Some(redact::own(object))),
        ("sidecarconfigs", ours("sidecarconfigs"), |object| Some(redact::own(object))),
        ("clustersessionpolicies", format!("/apis/{OURS}/clustersessionpolicies"), |object| Some(redact::own(object))),
        ("pods", format!("/api/v1{place}/pods"), |object| Some(redact::pod(object))),
        ("events", format!("/apis/events.k8s.io/v1{place}/events"), redact::event),
        ("namespaces", namespaces, |object| Some(redact::namespace(object))),
        ("operator-pods", format!("/api/v1/pods{OPERATOR}"), |object| Some(redact::pod(object))),
        ("mutating-webhooks", format!("{ADMISSION}/mutatingwebhookconfigurations{OF_CHART}"), |object| {
            Some(redact::admission(object))
        }),
        ("validating-webhooks", format!("{ADMISSION}/validatingwebhookconfigurations{OF_CHART}"), |object| {
            Some(redact::admission(object))
        }),
    ];
    for (name, path, redact) in lists {
        match api.list(&path).await {
            Ok(items) => {
                let kept: Vec<Value> = items.iter().filter_map(redact).collect();
                gathered.json(&format!("objects/{name}.json"), &json!(kept));
                if name == "operator-pods" {
                    gathered.operators(connection, args, &items).await;
                }
            }
            Err(error) => gathered.missing.push(format!("{name}: {error}")),
        }
    }
    gathered.checks(connection, args).await;
    gathered.sidecars(connection, args).await;
    gathered
}

impl Gathered {
    async fn checks(&mut self, connection: &Connection, args: &ReportArgs) {
        let format = FormatArgs { output: Format::Json };
        let args = CheckArgs { pods: args.pods.clone(), pre: false, format };
        let mut out = Vec::new();
        match check::check(connection, &args, &mut Screen::plain(&mut out)).await {
            Ok(_) => self.files.push(("check.json".to_owned(), String::from_utf8_lossy(&out).into_owned())),
            Err(error) => self.missing.push(format!("check: {error}")),
        }
    }

    async fn operators(&mut self, connection: &Connection, args: &ReportArgs, pods: &[Value]) {
        let operators = Sidecars::new(connection.client.clone(), &args.pods).at_port(OPERATOR_HTTP);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |pod: &Value| PodRef {
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
        };
        let pods: Vec<PodRef> = pods.iter().map(name).collect();
        let answers = operators.each(&pods, |operator, pod| async move { operator.get_text(&pod, "/metrics").await });
        for (pod, answer) in answers.await {
            match answer {
                Ok(text) => self.files.push((format!("operator/{}/metrics.txt", pod.name), text)),
                Err(error) => self.missing.push(format!("metrics of {pod}: {error}")),
            }
        }
    }

    async fn sidecars(&mut self, connection: &Connection, args: &ReportArgs) {
        let pods = match scope::pods(connection, &args.pods).await {
            Ok(pods) => pods,
            Err(error) => return self.missing.push(format!("sidecars: {error}")),
        };
        let with_sidecar = |pod: &&Pod| sidecar_of(pod).is_some();
        let pods: Vec<PodRef> = pods.iter().filter(with_sidecar).map(|pod| PodRef::of(&pod.metadata)).collect();
        let sidecars = Sidecars::new(connection.client.clone(), &args.pods);
        for (pod, answers) in sidecars.each(&pods, |sidecars, pod| async move { Ok(ask(sidecars, pod).await) }).await {
            for (file, answer) in answers.unwrap_or_default() {
                match answer {
                    Ok(text) => self.files.push((format!("sidecars/{pod}/{file}"), text)),
                    Err(error) => self.missing.push(format!("{file} of {pod}: {error}")),
                }
            }
        }
    }
}

/// One after the other on one connection; the first that fails tells of all.
async fn ask(sidecars: Sidecars, pod: PodRef) -> Vec<(&'static str, Result<String, AskError>)> {
    let questions = [
        ("status.json", "/status"),
        ("config.json", "/config"),
        ("metrics.txt", "/metrics"),
        ("history.json", "/history"),
        ("sessions.json", SESSIONS),
        ("decisions.json", DECISIONS),
    ];
    let mut answers = Vec::new();
    for (file, path) in questions {
        let answer = sidecars.get_text(&pod, path).await;
        let is_gone = answer.as_ref().is_err_and(|error| !matches!(error, AskError::Status { .. }));
        answers.push((file, answer));
        if is_gone {
            break;
        }
    }
    answers
}

struct Reader<'a> {
    connection: &'a Connection,
}

impl Reader<'_> {
    async fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        let answer: Value = self.connection.client.request(request).await.map_err(|error| told(&error))?;
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }
}
