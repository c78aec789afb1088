//! One CA, and the leaves it signs.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
pub(super) const END: &str = "-----END CERTIFICATE-----";

/// How long things live, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Life of a CA.
    pub ca_life_s: i64,
    /// A CA is rotated when it has less than this left.
    pub ca_renewal_s: i64,
    /// Life of a leaf; it is renewed after half of it.
    pub leaf_life_s: i64,
    /// Validity starts this much in the past, for API servers whose clocks are behind.
    pub backdate_s: i64,
    /// A new CA is in every bundle this long before it signs: time for every API server to notice.
    pub propagation_s: i64,
}

impl Default for Timing {
    fn default() -> Self {
        const DAY_S: i64 = 24 * 60 * 60;
        Self {
            ca_life_s: 365 * DAY_S,
            ca_renewal_s: 120 * DAY_S,
            leaf_life_s: DAY_S,
            backdate_s: 60 * 60,
            propagation_s: 60,
        }
    }
}

/// A CA cannot be made, read or used.
#[derive(Debug, Error)]
pub enum CaError {
    /// Of rcgen.
    #[error("a certificate could not be made or read")]
    Certificate(#[from] rcgen::Error),
    /// Not X.509.
    #[error("the CA's certificate cannot be read; delete the Secret to have a new one made")]
    Unreadable,
    /// The key is another one's.
    #[error("the CA's key does not fit its certificate; delete the Secret to have a new one made")]
    WrongKey,
    /// Beyond what a certificate can say.
    #[error("a validity that no certificate can state; check the clock of the API server")]
    Time,
    /// Of rustls.
    #[error("a key that TLS cannot use")]
    Tls(#[from] rustls::Error),
}

/// A certificate of a CA, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CaCertificate {
    pub(super) pem: String,
    pub(super) not_before_s: i64,
    pub(super) not_after_s: i64,
}

/// A CA that can sign.
#[derive(Clone, Debug)]
pub(super) struct Ca {
    pub(super) certificate: CaCertificate,
    key: Arc<KeyPair>,
}

/// A leaf, and how long it is good for.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) not_before_s: i64,
    pub(super) not_after_s: i64,
    /// The CA that signed it.
    pub(super) ca_pem: String,
}

impl CaCertificate {
    pub(super) fn read(pem: &str) -> Result<Self, CaError> {
        let (pem, der) = one_certificate(pem)?;
        let (_, parsed) = parse_x509_certificate(&der).map_err(|_| CaError::Unreadable)?;
        let validity = parsed.validity();
        Ok(Self { pem, not_before_s: validity.not_before.timestamp(), not_after_s: validity.not_after.timestamp() })
    }

    pub(super) fn is_valid_at(&self, now_s: i64) -> bool {
        (self.not_before_s..self.not_after_s).contains(&now_s)
    }
}

impl Ca {
    /// The name tells CAs apart, for whoever looks at a bundle and for clients that look issuers up by name.
    pub(super) fn generate(revision: &str, now_s: i64, timing: &Timing) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let tag = key.public_key_raw().iter().rev().take(4).fold(String::new(), |tag, byte| format!("{tag}{byte:02x}"));
        params.distinguished_name.push(DnType::CommonName, format!("sipwarden webhook CA {revision} {tag}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let (not_before_s, not_after_s) = (now_s - timing.backdate_s, now_s + timing.ca_life_s);
        params.not_before = date(not_before_s)?;
        params.not_after = date(not_after_s)?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { certificate: CaCertificate { pem, not_before_s, not_after_s }, key: key.into() })
    }

    pub(super) fn read(certificate_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let certificate = CaCertificate::read(certificate_pem)?;
        let key = KeyPair::from_pem(key_pem)?;
        let (_, der) = one_certificate(certificate_pem)?;
        let (_, parsed) = parse_x509_certificate(&der).map_err(|_| CaError::Unreadable)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CaError::WrongKey);
        }
        Ok(Self { certificate, key: key.into() })
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A leaf for these DNS names, within the validity of the CA.
    pub(super) fn sign(&self, dns_names: &[String], now_s: i64, timing: &Timing) -> Result<Leaf, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(dns_names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "sipwarden webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let not_before_s = (now_s - timing.backdate_s).max(self.certificate.not_before_s);
        let not_after_s = (now_s + timing.leaf_life_s).min(self.certificate.not_after_s);
        params.not_before = date(not_before_s)?;
        params.not_after = date(not_after_s)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate.pem, &*self.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone()];
        let key = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())?;
        let ca_pem = self.certificate.pem.clone();
        Ok(Leaf { key: key.into(), not_before_s, not_after_s, ca_pem })
    }
}

/// The first certificate of a text, as PEM of our own writing and as DER.
fn one_certificate(pem: &str) -> Result<(String, CertificateDer<'static>), CaError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CaError::Unreadable)?;
    let start = pem.find(BEGIN).ok_or(CaError::Unreadable)?;
    let length = pem[start..].find(END).ok_or(CaError::Unreadable)?;
    Ok((format!("{}{END}\n", &pem[start..start + length]), der))
}

fn date(unix_s: i64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(unix_s).map_err(|_| CaError::Time)
}
