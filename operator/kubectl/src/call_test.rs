//! `call-test`: a real call through a workload's Service, with the verdict.
//!
//! The call is placed by `sipwarden-sidecar call` in a pod of its own, with the image of the sidecars behind the Service.
//! It is the one command that writes to the cluster: that pod, which is deleted whatever happens. The pod needs no
//! rights, and PodSecurity `restricted` admits it.

mod pod;

use std::{
    io::{IsTerminal, Write as _},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::CallTestArgs,
    connection::Connection,
    outcome::{Failure, Outcome, told},
    output::{Format, Screen, Tone},
};

/// Between two looks at the pod.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the caller says came of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    /// `Passed`, `NoTimer` or `Failed`.
    verdict: String,
    text: String,
    address: Option<String>,
    call_id: Option<String>,
    steps: Vec<Step>,
}

/// A request and its answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Step {
    request: String,
    answer: String,
    milliseconds: u64,
    session_expires: Option<String>,
    #[serde(rename = "minSE")]
    min_se: Option<u32>,
}

/// Calls through a Service.
///
/// # Errors
/// There is no such Service, the user does not agree, or the pod cannot be made or read.
pub async fn call_test(
    connection: &Connection,
    args: &CallTestArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    let namespace = connection.namespace.as_deref().ok_or_else(|| {
        Failure::Usage("a call goes through one Service: name its namespace by --namespace".to_owned())
    })?;
    let services: Api<Service> = Api::namespaced(connection.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let name = args.service.as_str();
    let service = services.get(name).await.map_err(Failure::cluster(format!("read Service {namespace}/{name}")))?;
    let target = pod::target(&service, args.port.as_deref()).map_err(Failure::Usage)?;
    let image = image(&pods, &service, args).await?;
    let caller = pod::caller(namespace, &target, &image, args);
    agree(&caller, namespace, &target, args.yes)?;
    let caller = pods
        .create(&PostParams::default(), &caller)
        .await
        .map_err(Failure::cluster(format!("create a pod in namespace {namespace}")))?;
    let caller = caller.name_any();
    let outcome = tokio::select! {
        outcome = outcome(&pods, &caller, args) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::Nothing("it was stopped".to_owned())),
    };
    if let Err(error) = pods.delete(&caller, &DeleteParams::default().grace_period(0)).await {
        eprintln!("warning: pod {namespace}/{caller} could not be deleted, delete it yourself: {}", told(&error));
    }
    let log = outcome?;
    let raw: Value = serde_json::from_str(&log)
        .map_err(|_| Failure::Nothing(format!("the caller said something else than a report: {}", log.trim())))?;
    let report = Report::deserialize(&raw).unwrap_or_default();
    match args.format.output {
        Format::Text => show(&report, &target, screen)?,
        format => screen.value(&raw, format)?,
    }
    Ok(if report.verdict == "Passed" { Outcome::Fine } else { Outcome::Findings })
}

/// The image of a sidecar behind the Service, and how it is pulled.
async fn image(pods: &Api<Pod>, service: &Service, args: &CallTestArgs) -> Result<pod::Image, Failure> {
    if let Some(image) = &args.image {
        return Ok(pod::Image::named(image));
    }
    let selector = service.spec.iter().flat_map(|spec| spec.selector.iter().flatten());
    let selector = selector.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let behind = pods.list(&ListParams::default().labels(&selector)).await;
    let behind = behind.map_err(Failure::cluster("list the pods behind the Service"))?;
    behind.items.iter().find_map(pod::Image::of_sidecar).ok_or_else(|| {
        let text = "no pod behind the Service has a sidecar (`kubectl sipwarden status` tells why), so calls have no session \
                    timer of sipwarden; to call all the same, name an image with the sidecar by --image";
        Failure::Nothing(text.to_owned())
    })
}

/// Writing is agreed to by a flag, or by a person who is asked.
fn agree(caller: &Pod, namespace: &str, target: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("this creates a pod for some seconds: agree by --yes".to_owned()));
    }
    eprint!("Create pod {namespace}/{}, which calls {target}, and delete it afterwards? [y/N] ", caller.name_any());
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::Nothing("nothing was done".to_owned()))
}

/// What the caller wrote, once it has ended.
async fn outcome(pods: &Api<Pod>, name: &str, args: &CallTestArgs) -> Result<String, Failure> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout_s);
    loop {
        let pod = pods.get(name).await.map_err(Failure::cluster("look at the calling pod"))?;
        if pod::has_ended(&pod) {
            return pods
                .logs(name, &LogParams::default())
                .await
                .map_err(Failure::cluster("read what the caller wrote"));
        }
        if Instant::now() >= deadline {
            let text = format!("the calling pod did not end within {} s: {}", args.timeout_s, pod::state(&pod));
            return Err(Failure::Nothing(text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn show(report: &Report, target: &str, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let address = report.address.as_ref().map(|address| format!(" ({address})")).unwrap_or_default();
    screen.line(&format!("call to {target}{address}"))?;
    for step in &report.steps {
        let timer =
            step.session_expires.as_ref().map(|value| format!(", Session-Expires: {value}")).unwrap_or_default();
        let least = step.min_se.map(|seconds| format!(", Min-SE: {seconds}")).unwrap_or_default();
        screen.line(&format!("  {:7} {} after {} ms{timer}{least}", step.request, step.answer, step.milliseconds))?;
    }
    let tone = if report.verdict == "Passed" { Tone::Good } else { Tone::Bad };
    screen.toned(&format!("{}: {}", report.verdict, report.text), tone)?;
    match &report.call_id {
        Some(call_id) => screen.toned(&format!("what the sidecar did: kubectl sipwarden explain {call_id}"), Tone::Dim),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_each_step_and_the_verdict() {
        let raw = r#"{"verdict":"Passed","text":"the call works, and its session timer is 120 s","target":"udp:10.0.0.1:5060",
            "address":"udp:10.0.0.1:5060","callId":"abc","timer":{"intervalS":120,"refresher":"Caller"},
            "steps":[{"request":"INVITE","cseq":1,"status":422,"answer":"422 Session Interval Too Small","milliseconds":3,"minSE":120},
                     {"request":"INVITE","cseq":2,"status":200,"answer":"200 OK","milliseconds":5,"sessionExpires":"120;refresher=uac"}]}"#;
        let mut out = Vec::new();
        show(&serde_json::from_str(raw).unwrap(), "udp:10.0.0.1:5060", &mut Screen::plain(&mut out)).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "INVITE  422 Session Interval Too Small after 3 ms, Min-SE: 120\n",
            "INVITE  200 OK after 5 ms, Session-Expires: 120;refresher=uac\n",
            "Passed: the call works, and its session timer is 120 s\n",
            "kubectl sipwarden explain abc",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
