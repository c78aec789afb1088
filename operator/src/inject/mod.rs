//! What a pod becomes: a pure function from pod and settings to a patch of the pod, or to the reason why not.
//!
//! The sidecar is a restartable init container, the first in the list. It takes the names of the application's SIP ports,
//! so that Services with a named targetPort lead to it and need no change; the application's ports keep their numbers.
//! What is not named here stays as it was: the result is a JSON patch, never a pod that was read and written again.
//!
//! It must not know the webhook, the Kubernetes client, or where the config comes from. `policy/` holds the same
//! injection as a MutatingAdmissionPolicy; `tests/cluster` compares the two on a real API server.

mod annotations;
pub mod names;
mod patch;
mod ports;
mod selectors;
mod sidecar;
mod skip;

use json_patch::Patch;
use k8s_openapi::api::core::v1::{Container, Pod};

use self::{annotations::Wishes, patch::Edits, ports::Takeover};
pub use self::{
    selectors::{
        MAX_SELECTORS_TEXT, are_disjoint, block_selects, selector_block, selector_blocks, selectors_text, text_selects,
    },
    skip::{PortFault, Skip, SkipReason},
};

/// What the operator gives every sidecar, unless annotations of the pod say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The revision of this control plane.
    pub revision: String,
    /// Image of the sidecar.
    pub image: String,
    /// `imagePullPolicy` of the sidecar; None leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// CPU request, a quantity.
    pub cpu_request: String,
    /// Memory request, a quantity.
    pub memory_request: String,
    /// Memory limit, a quantity.
    pub memory_limit: String,
    /// Log filter; None is the sidecar's own.
    pub log: Option<String>,
    /// Where requests of the application without a Route go; None is where their URI says.
    pub next_hop: Option<String>,
    /// Where sessions are traced, the URL of a collector; None is nowhere.
    pub otlp: Option<String>,
    /// How many of the traces that begin at a sidecar, from 0 to 1.
    pub otlp_ratio: String,
}

impl Settings {
    /// The settings of an operator that was told an image and nothing else.
    pub fn new(revision: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            revision: revision.into(),
            image: image.into(),
            image_pull_policy: None,
            cpu_request: "10m".to_owned(),
            memory_request: "24Mi".to_owned(),
            memory_limit: "256Mi".to_owned(),
            log: None,
            next_hop: None,
            otlp: None,
            otlp_ratio: "1".to_owned(),
        }
    }
}

/// What a pod's namespace says about injection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Its label `sipwarden.dev/inject`.
    pub inject: Option<String>,
    /// Its label `sipwarden.dev/rev`.
    pub revision: Option<String>,
}

impl NamespaceFacts {
    /// Reads them from the namespace's labels.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut facts = Self::default();
        for (key, value) in labels {
            match key.as_str() {
                names::INJECT => facts.inject = Some(value.clone()),
                names::REVISION => facts.revision = Some(value.clone()),
                _ => {}
            }
        }
        facts
    }

    /// What must hold where the API server's selectors of a webhook of this revision matched.
    pub fn selected_for(revision: &str) -> Self {
        Self { inject: Some(names::ENABLED.to_owned()), revision: Some(revision.to_owned()) }
    }

    /// The control plane that the namespace belongs to.
    pub fn revision(&self) -> &str {
        revision_of(self.revision.as_deref())
    }
}

/// The control plane that an object with this label [`names::REVISION`] belongs to: a namespace, or what is in none.
pub fn revision_of(label: Option<&str>) -> &str {
    label.unwrap_or(names::DEFAULT_REVISION)
}

/// A pod that is to have a sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// What changes; never empty.
    pub patch: Patch,
    /// False where the sidecar was there already and only its config or credentials were brought up to date.
    pub fresh: bool,
}

/// Whether pod and namespace ask for a sidecar of this revision.
///
/// # Errors
/// [`Skip::Disabled`], [`Skip::NotOptedIn`] or [`Skip::OtherRevision`].
pub fn opted_in(pod: &Pod, namespace: &NamespaceFacts, revision: &str) -> Result<(), Skip> {
    let of_pod = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::INJECT)).map(String::as_str);
    match (of_pod, namespace.inject.as_deref()) {
        (Some(names::DISABLED), _) => return Err(Skip::Disabled),
        (Some(names::ENABLED), _) | (_, Some(names::ENABLED)) => {}
        (_, Some(names::DISABLED)) => return Err(Skip::Disabled),
        _ => return Err(Skip::NotOptedIn),
    }
    if namespace.revision() == revision { Ok(()) } else { Err(Skip::OtherRevision) }
}

/// The sidecar of a pod that has one.
pub fn sidecar_of(pod: &Pod) -> Option<&Container> {
    let injected = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(names::INJECTED));
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    inits.filter(|_| injected).find(|container| container.name == names::CONTAINER)
}

/// Judges a pod that is about to be created.
///
/// `config` is the text for the annotation [`names::CONFIG`], empty where no policy is in force: the sidecar then runs its
/// built-in Observe. None where it is not known yet: what stands in the annotation already then stays.
///
/// # Errors
/// Why the pod stays as it is.
pub fn inject(
    pod: &Pod,
    namespace: &NamespaceFacts,
    settings: &Settings,
    config: Option<&str>,
) -> Result<Injection, Skip> {
    opted_in(pod, namespace, &settings.revision)?;
    let secrets = config.or(annotation(pod, names::CONFIG)).map(sidecar::secrets_of).unwrap_or_default();
    if sidecar_of(pod).is_some() {
        return update(pod, config, &secrets).ok_or(Skip::AlreadyInjected);
    }
    check_pod(pod)?;
    let wishes = Wishes::read(pod, settings)?;
    let takeover = Takeover::find(pod, &wishes.port_names)?;

    let mut edits = Edits::new(pod);
    takeover.edit(&mut edits);
    edits.first_init_container(sidecar::container(pod, &wishes, &takeover, &secrets));
    edits.volumes(sidecar::volumes(&secrets));
    edits.label(names::SIDECAR, names::SIDECAR_INJECTED);
    edits.annotation(names::INJECTED, &settings.revision);
    if annotation(pod, names::DEFAULT_CONTAINER).is_none() {
        edits.annotation(names::DEFAULT_CONTAINER, &takeover.app_container);
    }
    write_config(pod, config, &mut edits);
    Ok(Injection { patch: edits.into_patch(), fresh: true })
}

/// Why a pod that asks for a sidecar could not have one if it were made anew; None if it could.
pub fn refusal(pod: &Pod, settings: &Settings) -> Option<Skip> {
    let asked = inject(pod, &NamespaceFacts::selected_for(&settings.revision), settings, None);
    asked.err().filter(|skip| skip.reason().is_refusal())
}

/// A reinvocation, or a pod that the admission policy injected before the webhook saw it.
fn update(pod: &Pod, config: Option<&str>, secrets: &[String]) -> Option<Injection> {
    let mut edits = Edits::new(pod);
    write_config(pod, config, &mut edits);
    sidecar::add_missing_credentials(pod, secrets, &mut edits);
    let patch = edits.into_patch();
    (!patch.is_empty()).then_some(Injection { patch, fresh: false })
}

/// A text from elsewhere, copied with a template, must not stay in force where no policy is; otherwise nothing is written
/// for nothing.
fn write_config(pod: &Pod, config: Option<&str>, edits: &mut Edits) {
    let config = config.filter(|config| !config.is_empty() || annotation(pod, names::CONFIG).is_some());
    if let Some(config) = config {
        edits.annotation(names::CONFIG, config);
    }
}

/// What makes a sidecar impossible, whatever the pod wishes.
fn check_pod(pod: &Pod) -> Result<(), Skip> {
    if annotation(pod, names::MIRROR).is_some() {
        return Err(Skip::MirrorPod);
    }
    let Some(spec) = &pod.spec else { return Err(Skip::NoSuchPort { name: names::DEFAULT_PORT_NAME.to_owned() }) };
    if spec.host_network == Some(true) {
        return Err(Skip::HostNetwork);
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(Skip::OtherOs);
    }
    let inits = spec.init_containers.iter().flatten();
    if spec.containers.iter().chain(inits).any(|container| container.name == names::CONTAINER) {
        return Err(Skip::NameTaken { what: "container" });
    }
    if spec.volumes.iter().flatten().any(|volume| volume.name.starts_with(names::VOLUME_PREFIX)) {
        return Err(Skip::NameTaken { what: "volume" });
    }
    Ok(())
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str)
}
