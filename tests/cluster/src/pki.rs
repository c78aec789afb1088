//! The cluster's certificate authority and what it signs, written as PEM files. Valid for the run only in the sense that
//! nobody keeps the key.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};

/// Signs for one cluster.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// As a kubeconfig has it.
    pub(crate) fn user(&self) -> Value {
        json!({ "client-certificate": self.certificate, "client-key": self.key })
    }
}

impl Authority {
    /// A new authority that keeps its files in `folder`: `ca.crt`, `ca.key`.
    pub(crate) fn new(folder: PathBuf) -> Result<Authority> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "sipwarden-cluster");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.crt"), parameters.self_signed(&key)?.pem())?;
        fs::write(folder.join("ca.key"), key.serialize_pem())?;
        Ok(Authority { folder, issuer: Issuer::new(parameters, key) })
    }

    /// The authority's own certificate.
    pub(crate) fn certificate(folder: &Path) -> PathBuf {
        folder.join("ca.crt")
    }

    /// A certificate for `user` in `group`, for client and (with `names`) server.
    pub(crate) fn issue(&self, file: &str, user: &str, group: Option<&str>, names: &[&str]) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let identity = Identity::in_folder(&self.folder, file);
        fs::write(&identity.certificate, parameters.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }

    /// A key pair that signs service account tokens: `NAME.pub`, `NAME.key`.
    pub(crate) fn signing_key(&self, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        fs::write(self.folder.join(format!("{name}.pub")), key.public_key_pem())?;
        fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }
}

impl Identity {
    /// Where [`Authority::issue`] puts it.
    pub(crate) fn in_folder(folder: &Path, file: &str) -> Identity {
        Identity { certificate: folder.join(format!("{file}.crt")), key: folder.join(format!("{file}.key")) }
    }
}
