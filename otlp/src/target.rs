//! Where spans go and how many, as people write it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Appended to a URL without a path, as OpenTelemetry does with `OTEL_EXPORTER_OTLP_ENDPOINT`.
const TRACES_PATH: &str = "/v1/traces";

/// A collector and how many of the traces that begin here it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The collector.
    pub endpoint: Endpoint,
    /// Of the traces that begin here. Where a caller began one, the caller decides.
    pub ratio: Ratio,
}

/// A collector that takes OTLP over HTTP: `http://HOST:4318`, or the whole URL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(String);

/// A part of a whole: 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Ratio(f64);

/// Why a text names no collector or no ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// TLS is not built in.
    #[error("https is not served: send to a collector on the node or in the cluster, and let that one use TLS")]
    Tls,
    /// Not a URL of HTTP.
    #[error("expected the URL of an OTLP/HTTP collector, such as http://otel-collector.monitoring:4318")]
    Url,
    /// Not a part of a whole.
    #[error("expected a number from 0 to 1, such as 0.1 for one trace of ten")]
    Ratio,
}

impl Endpoint {
    /// Where spans are posted.
    pub(crate) fn traces_url(&self) -> String {
        let rest = self.0.strip_prefix("http://").unwrap_or_default();
        match rest.find('/') {
            Some(at) if rest.len() > at + 1 => self.0.clone(),
            _ => format!("{}{TRACES_PATH}", self.0.trim_end_matches('/')),
        }
    }
}

impl FromStr for Endpoint {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Endpoint, TargetError> {
        if text.starts_with("https://") {
            return Err(TargetError::Tls);
        }
        let rest = text.strip_prefix("http://").ok_or(TargetError::Url)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let host = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.ends_with(']') => {
                port.parse::<u16>().ok().filter(|&port| port != 0).ok_or(TargetError::Url)?;
                host
            }
            _ => authority,
        };
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"@?#\"'\\".contains(&byte);
        if host.is_empty() || !rest.bytes().all(legal) {
            return Err(TargetError::Url);
        }
        Ok(Endpoint(text.to_owned()))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Endpoint, TargetError> {
        text.parse()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ratio {
    /// Every trace.
    pub const ALL: Ratio = Ratio(1.0);

    /// As a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = TargetError;

    fn try_from(ratio: f64) -> Result<Ratio, TargetError> {
        if (0.0..=1.0).contains(&ratio) { Ok(Ratio(ratio)) } else { Err(TargetError::Ratio) }
    }
}

impl FromStr for Ratio {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Ratio, TargetError> {
        Ratio::try_from(text.parse::<f64>().map_err(|_| TargetError::Ratio)?)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_gets_that_of_traces() {
        for (text, posted) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("http://192.0.2.1", "http://192.0.2.1/v1/traces"),
            ("http://[2001:db8::1]:4318", "http://[2001:db8::1]:4318/v1/traces"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]/v1/traces"),
            ("http://gateway:80/otlp/v1/traces", "http://gateway:80/otlp/v1/traces"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!((endpoint.traces_url().as_str(), endpoint.to_string().as_str()), (posted, text));
        }
    }

    #[test]
    fn what_names_no_collector_is_told_why() {
        assert_eq!("https://collector:4318".parse::<Endpoint>(), Err(TargetError::Tls));
        for text in [
            "",
            "collector:4318",
            "http://",
            "http://:4318",
            "http:///v1/traces",
            "http://c:0",
            "http://c:x",
            "http://u:p@c:4318",
            "http://c:4318/a b",
            "http://c/?x=1",
            "grpc://c:4317",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(TargetError::Url), "{text}");
        }
    }

    #[test]
    fn a_ratio_is_a_part_of_a_whole() {
        assert_eq!("0.25".parse().map(Ratio::get), Ok(0.25));
        assert_eq!("1".parse(), Ok(Ratio::ALL));
        for text in ["-0.1", "1.1", "NaN", "inf", "half", ""] {
            assert_eq!(text.parse::<Ratio>(), Err(TargetError::Ratio), "{text}");
        }
    }
}
