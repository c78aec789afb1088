//! What is checked, and where it is explained: each check is a section of `docs/checks.md`, which a test holds to it.

/// Where the documentation is read.
const DOCS: &str = "https://github.com/sipwarden/sipwarden/blob/main/docs/checks.md";

/// Something that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Its version.
    ApiServer,
    /// sipwarden's kinds.
    Crds,
    /// What the plugin's commands need.
    Rights,
    /// This machine's against the cluster's.
    Clock,
    /// Its pods.
    Operator,
    /// What puts sidecars into pods.
    Injection,
    /// What refuses wrong policies.
    Validation,
    /// What the API server trusts the operator by.
    Certificates,
    /// Namespaces of another control plane.
    Revisions,
    /// Whether they are accepted and in force.
    Policies,
    /// Pods that asked for a sidecar and have none.
    Coverage,
    /// Sidecars that obey something else.
    InStep,
    /// Sidecars of another image than the operator injects.
    Versions,
    /// What sidecars say is wrong.
    Sidecars,
    /// Bounds that calls ran into.
    Limits,
    /// Refreshes of the sidecars that fail.
    Refreshes,
}

impl Check {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 16] = [
        Self::ApiServer,
        Self::Crds,
        Self::Rights,
        Self::Clock,
        Self::Operator,
        Self::Injection,
        Self::Validation,
        Self::Certificates,
        Self::Revisions,
        Self::Policies,
        Self::Coverage,
        Self::InStep,
        Self::Versions,
        Self::Sidecars,
        Self::Limits,
        Self::Refreshes,
    ];

    /// Its name in JSON, and its heading in the documentation.
    pub fn id(self) -> &'static str {
        match self {
            Self::ApiServer => "api-server",
            Self::Crds => "crds",
            Self::Rights => "rights",
            Self::Clock => "clock",
            Self::Operator => "operator",
            Self::Injection => "injection",
            Self::Validation => "validation",
            Self::Certificates => "certificates",
            Self::Revisions => "revisions",
            Self::Policies => "policies",
            Self::Coverage => "coverage",
            Self::InStep => "in-step",
            Self::Versions => "versions",
            Self::Sidecars => "sidecars",
            Self::Limits => "limits",
            Self::Refreshes => "refreshes",
        }
    }

    /// Where it is explained.
    pub fn link(self) -> String {
        format!("{DOCS}#{}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_section_in_the_documentation_and_every_section_a_check() {
        let text = include_str!("../../../../docs/checks.md");
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let ids: Vec<&str> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(headings, ids);
        for section in text.split("\n## ").skip(1) {
            assert!(section.len() > 150, "too little to help: {section}");
        }
    }
}
