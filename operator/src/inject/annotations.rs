//! What the annotations of a pod wish for its sidecar, over the operator's settings.
//!
//! A value that the API server would refuse, or the sidecar would not start with, is refused here: then the pod comes up
//! without a sidecar and says why, instead of not at all.

use std::net::Ipv6Addr;

use k8s_openapi::api::core::v1::Pod;

use super::{Settings, annotation, names, skip::Skip};

const MAX_PORT_NAMES: usize = 2;
const MAX_TEXT: usize = 256;

/// What the sidecar of one pod is given, checked.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) port_names: Vec<String>,
    pub(super) app_address: AppAddress,
    pub(super) image: String,
    pub(super) image_pull_policy: Option<String>,
    pub(super) log: Option<String>,
    pub(super) next_hop: Option<String>,
    /// The collector's URL, and how many of the traces.
    pub(super) otlp: Option<(String, String)>,
    pub(super) cpu_request: String,
    pub(super) memory_request: String,
    pub(super) memory_limit: String,
}

/// Where the application listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppAddress {
    Loopback,
    PodIp,
}

impl Wishes {
    pub(super) fn read(pod: &Pod, settings: &Settings) -> Result<Self, Skip> {
        let port_names = match annotation(pod, names::PORT_NAMES) {
            Some(text) => port_names(text).map_err(|message| bad(names::PORT_NAMES, message))?,
            None => vec![names::DEFAULT_PORT_NAME.to_owned()],
        };
        let app_address = match annotation(pod, names::APP_ADDRESS) {
            None | Some("Loopback") => AppAddress::Loopback,
            Some("PodIP") => AppAddress::PodIp,
            Some(_) => return Err(bad(names::APP_ADDRESS, "use Loopback (127.0.0.1) or PodIP")),
        };
        let text = |name, legal: fn(&str) -> bool, form: &str| match annotation(pod, name) {
            Some(text) if text.len() <= MAX_TEXT && legal(text) => Ok(Some(text.to_owned())),
            Some(_) => Err(bad(name, format!("use {form}, of at most {MAX_TEXT} characters"))),
            None => Ok(None),
        };
        let image = text(names::IMAGE, is_image, "an image such as registry.example/sipwarden:1.2.3")?;
        let log = text(names::LOG, is_log_filter, "a log filter such as info or sipwarden=debug")?;
        let next_hop =
            text(names::NEXT_HOP, is_next_hop, "udp: or tcp:, a host and a port, such as udp:sbc.example:5060")?;
        let [cpu_request, memory_request, memory_limit] = resources(pod, settings)?;
        Ok(Self {
            port_names,
            app_address,
            image: image.unwrap_or_else(|| settings.image.clone()),
            image_pull_policy: settings.image_pull_policy.clone(),
            log: log.or_else(|| settings.log.clone()),
            next_hop: next_hop.or_else(|| settings.next_hop.clone()),
            otlp: settings.otlp.clone().map(|url| (url, settings.otlp_ratio.clone())),
            cpu_request,
            memory_request,
            memory_limit,
        })
    }
}

fn bad(name: &'static str, message: impl Into<String>) -> Skip {
    Skip::BadAnnotation { name, message: message.into() }
}

fn port_names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.len() > MAX_PORT_NAMES || !names.iter().all(|name| is_port_name(name)) {
        return Err(format!(
            "use 1 to {MAX_PORT_NAMES} names of container ports, separated by commas, such as sip,sip-tcp"
        ));
    }
    Ok(names)
}

/// Cpu request, memory request and memory limit.
fn resources(pod: &Pod, settings: &Settings) -> Result<[String; 3], Skip> {
    let quantity = |name, setting: &String| match annotation(pod, name) {
        Some(text) if milli(text).is_some() => Ok(text.to_owned()),
        Some(_) => Err(bad(name, "use a quantity such as 10m, 0.5, 24Mi or 1Gi")),
        None => Ok(setting.clone()),
    };
    let cpu_request = quantity(names::CPU_REQUEST, &settings.cpu_request)?;
    let memory_request = quantity(names::MEMORY_REQUEST, &settings.memory_request)?;
    let memory_limit = quantity(names::MEMORY_LIMIT, &settings.memory_limit)?;
    if milli(&memory_request) > milli(&memory_limit) {
        let blamed = match annotation(pod, names::MEMORY_REQUEST) {
            Some(_) => names::MEMORY_REQUEST,
            None => names::MEMORY_LIMIT,
        };
        return Err(bad(blamed, format!("the request, {memory_request}, is above the limit, {memory_limit}")));
    }
    Ok([cpu_request, memory_request, memory_limit])
}

/// The lesser of a quantity of an annotation or setting, and of one of the pod. What is no quantity here is more than
/// anybody gives a sidecar.
pub(super) fn lesser<'a>(ours: &'a str, pods: &'a str) -> &'a str {
    if milli(pods).is_some_and(|pods| Some(pods) < milli(ours)) { pods } else { ours }
}

/// A quantity in thousandths, for comparing; none of the exponent forms, which nobody writes in an annotation, and nothing
/// beyond G.
fn milli(text: &str) -> Option<u128> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let legal = (1..=12).contains(&whole.len()) && fraction.len() <= 3 && !number.ends_with('.');
    let number: u128 = format!("{whole}{fraction:0<3}").parse().ok().filter(|_| legal)?;
    let unit: u128 = match unit {
        "" => 1,
        "m" if fraction.is_empty() => return Some(number / 1000),
        "k" => 1000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1 << 30,
        _ => return None,
    };
    Some(number * unit)
}

/// The form of IANA service names, which Kubernetes asks of port names.
fn is_port_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(legal)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn is_image(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b);
    text.bytes().all(legal) && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Without `$`: Kubernetes replaces `$(NAME)` in arguments.
fn is_log_filter(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:=,[]{}\"./* ".contains(&b))
}

fn is_next_hop(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("udp:").or_else(|| text.strip_prefix("tcp:")) else { return false };
    let (host_is_legal, after_host) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => (is_ipv6(address), after),
        None => {
            let host_end = rest.find(':').unwrap_or(rest.len());
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            (host_end > 0 && rest.bytes().take(host_end).all(legal), &rest[host_end..])
        }
    };
    host_is_legal && (after_host.is_empty() || after_host.strip_prefix(':').is_some_and(is_port))
}

/// Not of an IPv4 address, for which CEL's `ip` has no second form.
fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_none())
}

fn is_port(text: &str) -> bool {
    text.starts_with(|c: char| ('1'..='9').contains(&c)) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_units() {
        for (less, more) in
            [("24Mi", "256Mi"), ("999k", "1M"), ("1M", "1Mi"), ("10m", "0.5"), ("0.5", "1"), ("1Gi", "1.1Gi")]
        {
            assert!(milli(less).unwrap() < milli(more).unwrap(), "{less} {more}");
        }
        assert_eq!(milli("1000m"), milli("1"));
        assert_eq!(milli("1Gi"), milli("1024Mi"));
    }

    #[test]
    fn of_two_limits_the_lesser_counts() {
        for (pods, expected) in [("64Mi", "64Mi"), ("1Gi", "256Mi"), ("256Mi", "256Mi"), ("2Ti", "256Mi")] {
            assert_eq!(lesser("256Mi", pods), expected, "{pods}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "Mi", "-1", "1e3", "1.", ".5", "1 Mi", "1mi", "0.5m", "1.2345", "1.2.3", "12345678901234"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }

    #[test]
    fn a_next_hop_has_a_transport_and_a_host() {
        for text in ["udp:sbc.example:5060", "tcp:192.0.2.1", "udp:[2001:db8::1]:5060", "udp:[2001:db8::1]"] {
            assert!(is_next_hop(text), "{text}");
        }
        for text in [
            "sbc.example",
            "udp:",
            "tls:sbc.example",
            "udp::5060",
            "udp:a:0",
            "udp:a:b",
            "udp:a:+5",
            "udp:a:05",
            "udp:a:65536",
            "udp:$(X)",
            "udp:[::g]:1",
            "udp:[192.0.2.1]:5060",
            "udp:[::ffff:192.0.2.1]:5060",
            "udp:2001:db8::1",
        ] {
            assert!(!is_next_hop(text), "{text}");
        }
    }
}
